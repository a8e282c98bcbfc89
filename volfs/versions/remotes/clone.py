"""A dataset of another store, made here with all its history.

Decided here: what a clone is (the same dataset by its id, every branch of the source as one of the remote ``origin``,
its default branch and tags as ours), and that one which was cut short goes on when it is asked for again. Not here: how
versions come (:mod:`volfs.versions.remotes.exchange`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from volfs.errors import AlreadyThere, BadInput, Busy, Damaged, NotFound, VolfsError
from volfs.versions.clone_parts import WHOLE, CloneParts
from volfs.versions.commit.head_move import HeadMove
from volfs.versions.remotes.connection import Connection, RemoteDataset
from volfs.versions.remotes.exchange import ORIGIN, Exchange, SharedDataset, fetch_from, has_arrivals, meant
from volfs.versions.remotes.partial_clone import NO_WISH, Wish
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


def clone_all(
    store: CloningStore, connection: Connection, progress: Progress | None = None, parts: CloneParts = WHOLE
) -> dict[str, Exchange]:
    """Clone the dataset that the connection's address names, or every one there; what was done, by name."""
    names = [connection.named] if connection.named else sorted(connection.datasets)
    if not names:
        raise NotFound(f"{connection.address} holds no dataset")
    return {name: clone(store, connection, name, progress, parts) for name in names}


def clone(
    store: CloningStore,
    connection: Connection,
    name: str,
    progress: Progress | None = None,
    parts: CloneParts = WHOLE,
) -> Exchange:
    """Clone one dataset of the store at the other end of a connection, or parts of it. AlreadyThere if another dataset
    has its name here; the same again goes on, and is no error when there is nothing left to do. Of a partial clone it
    makes one of the same parts, unless others are named."""
    ident = connection.datasets[name]
    if not ident:
        raise Damaged(f"dataset {name!r} of {connection.address} has no id: open its store there once for writing")
    for other in store:
        if other != name and _uuid(store, other) == ident:
            raise AlreadyThere(f"this store has that dataset already, as {other!r}: fetch there what is new")
    there = connection.open(ident)
    meant(there, parts.refs)  # what is not there is refused before anything is made
    made = name not in store
    if made:
        dataset = store.create_dataset(name, ident=ident, default_branch=_default_branch(there, parts))
    else:
        dataset = store[name]
        if dataset.uuid != ident:
            raise AlreadyThere(f"there is another dataset {name!r} in this store already")
    try:
        wish = _choose(dataset, there, parts)
        address = connection.address if connection.named else connection.address.below(name)
        if dataset.remotes().get(ORIGIN) != str(address):
            dataset.set_remote(ORIGIN, str(address))
        done = fetch_from(dataset, connection, ORIGIN, (), progress, wish=wish)
        refs = dataset.refs()
        theirs = refs.remotes.get(f"{ORIGIN}/{dataset.default_branch}")
        if theirs is None and parts.refs:  # tags alone: the newest is where to begin
            theirs = max(refs.tags.values(), default=None)
        if theirs and not dataset.refs().heads.get(dataset.default_branch):
            dataset.branch(dataset.default_branch).publish(theirs, HeadMove(theirs, 0).token)
    except BaseException as error:
        nothing = not dataset.graph.versions and not has_arrivals(dataset)
        if made and (nothing or isinstance(error, BadInput)):
            with suppress(VolfsError, Busy):
                store.remove_dataset(name)
        raise
    return done


def _default_branch(there: RemoteDataset, parts: CloneParts) -> str:
    """The default branch of a clone: that of the source, or the first that was chosen."""
    branches = [name for name in parts.refs if there.heads.get(name)]
    return branches[0] if branches and there.default_branch not in branches else there.default_branch


def _choose(dataset: ClonedDataset, there: RemoteDataset, parts: CloneParts) -> Wish:
    """Write down which parts the clone is to have. What of it is new, and must be something that there is."""
    known, chosen = dataset.clone_parts, parts if parts.facts() else there.parts
    if dataset.graph.versions:
        if parts.facts() and parts != known:
            has = "; ".join(known.words()) or "everything"
            raise AlreadyThere(
                f"there is a clone of {dataset.name!r} already, which has {has}: `volfs fetch {dataset.name}` with"
                " these options brings more"
            )
    elif chosen != known:
        dataset.set_clone_parts(chosen)
    return Wish(parts.parts[0]) if parts.parts and parts.parts[0] in dataset.clone_parts.parts else NO_WISH


def _uuid(store: CloningStore, name: str) -> str:
    try:
        return store[name].uuid
    except VolfsError:
        return ""
