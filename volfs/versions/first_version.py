"""Datasets that begin with nothing in them, to be filled by files: a first version without keys.

Decided here: what such a dataset is, and when one is still empty. Not here: how a dataset comes and goes
(:mod:`volfs.versions.store`).
"""

from __future__ import annotations

import errno

from volfs.errors import WrongKind
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.dataset import Dataset
from volfs.versions.store import Store


def begin(store: Store, name: str, author: str | None = None) -> Dataset:
    """Make a dataset whose default branch has v1, without keys. All of it, or nothing. BadName or AlreadyThere."""
    with store.new_dataset(name) as dataset:
        with VersionWriter(dataset, dataset.default_branch, 0) as writer:
            writer.publish(f"create {name}", author)
        return dataset


def remove_empty(store: Store, name: str) -> None:
    """Remove a dataset in which nothing is and nothing was. Raises WrongKind (ENOTEMPTY) if something is or was, and
    Busy while somebody writes to it."""
    store.remove_dataset(name, check=check_empty)


def check_empty(dataset: Dataset) -> None:
    """Raise WrongKind (ENOTEMPTY) unless a dataset is as :func:`begin` makes it, with or without its first version."""
    refs, number = dataset.refs(), len(dataset.graph)
    default = dataset.branch(dataset.default_branch)
    kept = set(refs.heads) != {dataset.default_branch} or refs.tags or number > 1
    if kept or (number and dataset.version(1).changes().nodes) or not default.is_clean():
        raise WrongKind(
            f"dataset {dataset.name!r} is not empty: `volfs rm {dataset.name}` removes it with all that is in it",
            errno=errno.ENOTEMPTY,
        )
