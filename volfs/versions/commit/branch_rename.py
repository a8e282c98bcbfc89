"""A branch under another name, with its working copy; and what is done when that was cut short.

Decided here: the order of steps, and that a process which dies between them leaves a branch that is whole under one of
the two names. Not here: who may rename it (:mod:`volfs.versions.dataset`), and the ref (:mod:`volfs.versions.ledger`).

With the locks of branch and dataset held:

1. the intent ``working/OLD/rename.json`` is written, naming both;
2. the ref is renamed: from here on the branch has its new name;
3. the dataset's default branch follows, if it is this one;
4. ``working/OLD`` is renamed to ``working/NEW``, with the intent and the lock in it;
5. the intent is removed.

Whoever takes the lock of the dataset and sees that a ref has changed calls :func:`settle_renames`, before anybody sees
the new name: an intent whose old ref is there comes to nothing, any other goes on.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from volfs.errors import Damaged, NotFound, VolfsError
from volfs.model.names import is_ref_name
from volfs.model.refs import RefKind
from volfs.storage.backend import Backend, change_document
from volfs.storage.crash import crash_point
from volfs.storage.files import read_json, replace_durably, unlink_durably, write_json
from volfs.storage.store_layout import DATASET_JSON, DatasetLayout, WorkingLayout
from volfs.storage.trash import delete_tree
from volfs.versions.dataset_file import DEFAULT_BRANCH
from volfs.versions.ledger import Cause, Ledger

log = logging.getLogger(__name__)


class RenamedHistory(Protocol):
    """A dataset, of which a branch is renamed."""

    @property
    def name(self) -> str: ...

    @property
    def layout(self) -> DatasetLayout: ...

    @property
    def backend(self) -> Backend: ...

    @property
    def ledger(self) -> Ledger: ...


def rename(dataset: RenamedHistory, old: str, new: str, cause: Cause) -> None:
    """Give a branch another name, which is free. Call with the locks of branch and dataset."""
    intent = dataset.layout.working(old).rename_intent
    write_json(intent, {"from": old, "to": new})
    try:
        crash_point("rename.intent")
        dataset.ledger.rename_ref(RefKind.BRANCH, old, new, cause)
    except BaseException:
        with suppress(VolfsError, OSError):
            if dataset.ledger.has_ref(RefKind.BRANCH, old):
                unlink_durably(intent)
        raise
    crash_point("rename.ref")
    _finish(dataset, old, new)


def settle_renames(dataset: RenamedHistory) -> None:
    """Finish or undo the renames that processes which died had begun. Call with the dataset's lock."""
    workings = dataset.layout.workings
    try:
        folders = sorted(os.listdir(workings))
    except (FileNotFoundError, NotADirectoryError):
        return
    above, inside = os.fspath(workings), os.fspath(WorkingLayout(Path()).rename_intent)
    for name in folders:
        if not os.path.lexists(f"{above}/{name}/{inside}"):  # of hundreds of branches none is being renamed
            continue
        intent = dataset.layout.working(name).rename_intent
        try:
            facts = read_json(intent)
        except (NotFound, NotADirectoryError):
            continue
        except Damaged as error:
            log.warning("dataset %s: %s: a branch was being renamed", dataset.name, error)
            continue
        old, new = facts.get("from"), facts.get("to")
        if not (isinstance(old, str) and isinstance(new, str) and is_ref_name(old) and is_ref_name(new)):
            continue
        if name not in (old, new):
            continue  # a copy of a working copy, put there by hand
        if dataset.ledger.has_ref(RefKind.BRANCH, new) and not (
            name == old and dataset.ledger.has_ref(RefKind.BRANCH, old)
        ):
            _finish(dataset, old, new)
        else:
            unlink_durably(intent)


def _finish(dataset: RenamedHistory, old: str, new: str) -> None:
    """All that follows the ref. Does again what was done already, without harm."""

    def follow(document: dict[str, Any]) -> dict[str, Any] | None:
        named = document.get("default_branch", DEFAULT_BRANCH)
        return {**document, "default_branch": new} if named == old else None

    change_document(dataset.backend, DATASET_JSON, follow)
    crash_point("rename.default")
    before, after = dataset.layout.working(old), dataset.layout.working(new)
    if before.rename_intent.exists():
        delete_tree(after.root)  # an earlier branch of that name may have left one
        replace_durably(before.root, after.root)
    crash_point("rename.moved")
    unlink_durably(after.rename_intent)
