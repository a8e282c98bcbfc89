"""A dataset of another store, made here with all its history.

Decided here: what a clone is (the same dataset by its id, every branch of the source as one of the remote ``origin``,
its default branch and tags as ours), and that one which was cut short goes on when it is asked for again. Not here: how
versions come (:mod:`volfs.versions.remotes.exchange`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from volfs.errors import AlreadyThere, Busy, Damaged, NotFound, VolfsError
from volfs.versions.commit.head_move import HeadMove
from volfs.versions.remotes.connection import Connection
from volfs.versions.remotes.exchange import ORIGIN, Exchange, SharedDataset, fetch_from
from volfs.versions.remotes.transfer import Progress


class ClonedDataset(SharedDataset, Protocol):
    """A dataset whose remotes can be named."""

    def set_remote(self, name: str, address: str | None) -> None:
        """Name the address of a remote; None removes it."""


class CloningStore(Protocol):
    """The store in which a clone is made."""

    def __contains__(self, name: object) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...

    def __getitem__(self, name: str) -> ClonedDataset: ...

    def create_dataset(
        self, name: str, *, ident: str | None = None, default_branch: str | None = None
    ) -> ClonedDataset:
        """Make an empty dataset."""

    def remove_dataset(self, name: str) -> None:
        """Remove a dataset."""


def clone_all(store: CloningStore, connection: Connection, progress: Progress | None = None) -> dict[str, Exchange]:
    """Clone the dataset that the connection's address names, or every one there; what was done, by name."""
    names = [connection.named] if connection.named else sorted(connection.datasets)
    if not names:
        raise NotFound(f"{connection.address} holds no dataset")
    return {name: clone(store, connection, name, progress) for name in names}


def clone(store: CloningStore, connection: Connection, name: str, progress: Progress | None = None) -> Exchange:
    """Clone one dataset of the store at the other end of a connection. AlreadyThere if another dataset has its name
    here; the same again goes on, and is no error when there is nothing left to do."""
    ident = connection.datasets[name]
    if not ident:
        raise Damaged(f"dataset {name!r} of {connection.address} has no id: open its store there once for writing")
    for other in store:
        if other != name and _uuid(store, other) == ident:
            raise AlreadyThere(f"this store has that dataset already, as {other!r}: fetch there what is new")
    there = connection.open(ident)
    made = name not in store
    if made:
        dataset = store.create_dataset(name, ident=ident, default_branch=there.default_branch)
    else:
        dataset = store[name]
        if dataset.uuid != ident:
            raise AlreadyThere(f"there is another dataset {name!r} in this store already")
    try:
        address = connection.address if connection.named else connection.address.below(name)
        if dataset.remotes().get(ORIGIN) != str(address):
            dataset.set_remote(ORIGIN, str(address))
        done = fetch_from(dataset, connection, ORIGIN, (), progress)
        theirs = dataset.refs().remotes.get(f"{ORIGIN}/{dataset.default_branch}")
        if theirs and not dataset.refs().heads.get(dataset.default_branch):
            dataset.branch(dataset.default_branch).publish(theirs, HeadMove(theirs, 0).token)
    except BaseException:
        if made and not dataset.graph.versions and not _has_arrivals(dataset):
            with suppress(VolfsError, Busy):
                store.remove_dataset(name)
        raise
    return done


def _uuid(store: CloningStore, name: str) -> str:
    try:
        return store[name].uuid
    except VolfsError:
        return ""


def _has_arrivals(dataset: SharedDataset) -> bool:
    """Whether anything has come that a second attempt would go on with."""
    incoming = dataset.layout.incoming
    return incoming.is_dir() and any(path.is_dir() for path in incoming.iterdir())
