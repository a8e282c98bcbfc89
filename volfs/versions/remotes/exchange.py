"""Fetch, pull and push: versions go from one store to another, and then refs move.

Decided here: which refs are meant, which of them may move, and that they move last. Not here: how versions come
(:mod:`volfs.versions.remotes.transfer`), and how a head moves under a working copy
(:mod:`volfs.versions.commit.head_move`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from volfs.errors import AlreadyThere, Conflict, Damaged, NotAllowed, NotFound, VolfsError
from volfs.model.refs import RefKind
from volfs.storage.crash import crash_point
from volfs.versions.combine.merges import Combined
from volfs.versions.commit.head_move import HeadMove
from volfs.versions.ledger import Cause, RefRecord
from volfs.versions.remotes.address import Address
from volfs.versions.remotes.connection import Connection, RemoteDataset, connected
from volfs.versions.remotes.message_frames import Message
from volfs.versions.remotes.partial_clone import NO_WISH, ClonedHistory, Wish, bring_in
from volfs.versions.remotes.questions import Peer, checked_id
from volfs.versions.remotes.repair import Repair, repair
from volfs.versions.remotes.supplier import Supplier
from volfs.versions.remotes.transfer import Payloads, Progress, Transferred, receive, receiving
from volfs.versions.remotes.travelling_notes import bring_notes

ORIGIN = "origin"
"""The remote that is meant when none is named: the one that a dataset was cloned from."""
_MOST_REFS = 1 << 16


class SharedDataset(ClonedHistory, Protocol):
    """A dataset that has remotes."""

    @property
    def uuid(self) -> str:
        """The id in its ``dataset.json``, which its clones have, too."""

    @property
    def default_branch(self) -> str: ...

    def remotes(self) -> Mapping[str, str]:
        """The address of each remote."""

    def create_branch(self, name: str, at: str | int | None = None, *, who: str = "") -> None:
        """Make a branch at a version. Raises AlreadyThere."""

    def merge(self, ref: str, into: str | None = None) -> Combined:
        """Merge a version into a branch; nothing has changed if there are conflicts."""

    def create_tag(self, name: str, at: str | int) -> None:
        """Tag a version. Raises AlreadyThere."""


@dataclass(frozen=True, slots=True)
class RefChange:
    """What became of one ref: the versions that it named before and names now (here, or for a push by their numbers
    here; 0: none); ``why`` it did not move, None if it did."""

    kind: RefKind
    name: str
    before: int
    after: int
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was done: versions that came or went, bytes of frames heard and said, and the refs meant. Of a partial clone
    the payloads that came by themselves, and how many of those wanted the remote does not have. ``notes``: how many
    came or went; ``made``: whether the remote did not have the dataset before."""

    remote: str
    versions: int
    bytes: int
    changes: tuple[RefChange, ...]
    payloads: int = 0
    lacking: int = 0
    notes: int = 0
    made: bool = False


def has_arrivals(dataset: SharedDataset) -> bool:
    """Whether anything has come that a second attempt would go on with."""
    incoming = dataset.layout.incoming
    return incoming.is_dir() and any(path.is_dir() for path in incoming.iterdir())


def _quiet(done: int, total: int, what: str) -> None:
    pass


def address_of(dataset: SharedDataset, remote: str) -> Address:
    """Where a remote is. NotFound, saying how to name one, if the dataset has none of that name."""
    found = dataset.remotes().get(remote)
    if found is None:
        known = ", ".join(sorted(dataset.remotes()))
        there = f"there is {known}" if known else f"name one with `volfs config {dataset.name} remote.{remote}=ADDRESS`"
        raise NotFound(f"dataset {dataset.name!r} has no remote {remote!r}: {there}")
    return Address.parse(found)


# -- fetch and pull ---------------------------------------------------------------------------------------------------


def fetch(
    dataset: SharedDataset,
    remote: str = ORIGIN,
    refs: Sequence[str] = (),
    progress: Progress | None = None,
    *,
    wish: Wish = NO_WISH,
) -> Exchange:
    """Have the versions that a remote's branches and tags name (those given, else those that the clone follows, all
    unless it was made otherwise) here, and note where they stand: branches as ``remote/branch``, tags as tags unless
    there is another of that name.

    A partial clone stays one: what came since is left out of it as before, and ``wish`` says what more is wanted.
    """
    dataset.store.check_writable()
    with connected(address_of(dataset, remote), "fetch") as connection:
        return fetch_from(dataset, connection, remote, refs, progress, wish=wish)


def fetch_from(
    dataset: SharedDataset,
    connection: Connection,
    remote: str,
    refs: Sequence[str],
    progress: Progress | None,
    *,
    wish: Wish = NO_WISH,
) -> Exchange:
    """:func:`fetch` over a connection that is open."""
    there, parts = connection.open(dataset.uuid), dataset.clone_parts
    wish.of(parts)  # what cannot be is refused before anything comes
    followed = [name for name in parts.refs if name in there.heads or name in there.tags]
    heads, tags = meant(there, refs or (() if wish.whole else followed))
    want = [*heads.values(), *tags.values()]
    count = Transferred(progress or _quiet)
    with receiving(dataset):
        payloads = Payloads.NONE if parts.partial else Payloads.THEIRS
        versions = receive(dataset, connection.peer, want, count, payloads)
        crash_point("fetch.received")
        numbers = {info.content_id: info.number for info in dataset.graph.versions.values()}
        tips = {numbers[ident] for ident in want}
        came = bring_in(dataset, connection.peer, wish, tips, count)
        notes = bring_notes(dataset, connection.peer)
        changes = _note(dataset, remote, heads, tags)
    size = connection.frames.heard_bytes + connection.frames.said_bytes
    return Exchange(remote, versions, size, tuple(changes), came.payloads, came.lacking, notes)


def pull(
    dataset: SharedDataset, remote: str = ORIGIN, branch: str | None = None, progress: Progress | None = None
) -> Exchange:
    """Fetch a branch (the default branch if none is named), and move ours forward to it, or merge it if both have
    versions that the other has not. Conflict, and nothing of ours has moved, if what they changed does not go together,
    or if uncommitted changes are in the way."""
    name = branch or dataset.default_branch
    done = fetch(dataset, remote, [name], progress)
    theirs = dataset.refs().remotes[f"{remote}/{name}"]
    ours = dataset.refs().heads.get(name)
    if ours is None:
        dataset.create_branch(name, theirs)
    elif ours and dataset.graph.is_ancestor(theirs, ours):
        return done
    elif ours and not dataset.graph.is_ancestor(ours, theirs):
        combined = dataset.merge(f"{remote}/{name}", into=name)
        if combined.conflicts or combined.version is None:
            raise Conflict(
                f"{dataset.name}@{name} and {remote}/{name} changed the same, in {len(combined.conflicts):,} places:"
                f" decide with `volfs merge {dataset.name}@{name} {remote}/{name}`, which lists them"
            )
        theirs = combined.version.number
    else:
        dataset.branch(name).publish(theirs, HeadMove(theirs, ours).token)
    moved = RefChange(RefKind.BRANCH, name, ours or 0, theirs)
    return replace(done, changes=(*done.changes, moved))


def meant(there: RemoteDataset, refs: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The branches and tags of a remote that are meant, with what they name."""
    heads = {name: ident for name, ident in there.heads.items() if ident}
    if not refs:
        return heads, dict(there.tags)
    for name in refs:
        if name not in heads and name not in there.tags:
            known = ", ".join(sorted({*heads, *there.tags})) or "none with a version"
            raise NotFound(f"the remote has no branch or tag {name!r}: there is {known}")
    branches = {name: heads[name] for name in refs if name in heads}
    return branches, {name: there.tags[name] for name in refs if name not in heads}


def _note(dataset: SharedDataset, remote: str, heads: Mapping[str, str], tags: Mapping[str, str]) -> list[RefChange]:
    """Write down where the branches and tags of a remote stand."""
    changes = []
    with dataset.locked():
        numbers = {info.content_id: info.number for info in dataset.graph.versions.values()}
        refs = dataset.refs()
        for name, ident in heads.items():
            full, number = f"{remote}/{name}", numbers[ident]
            before = refs.remotes.get(full)
            if before != number:
                _set(dataset, RefKind.REMOTE, full, number, ident, before)
                changes.append(RefChange(RefKind.REMOTE, full, before or 0, number))
        for name, ident in tags.items():
            number, before = numbers[ident], refs.tags.get(name)
            if before is None and name not in refs.heads:
                _set(dataset, RefKind.TAG, name, number, ident, None)
                changes.append(RefChange(RefKind.TAG, name, 0, number))
            elif before != number:
                what = "a branch" if before is None else "another tag"
                changes.append(RefChange(RefKind.TAG, name, before or 0, before or 0, f"there is {what} of that name"))
        dataset.mirror_refs()
    return changes


def _set(dataset: SharedDataset, kind: RefKind, name: str, number: int, ident: str, before: int | None) -> None:
    expected = before if dataset.ledger.has_ref(kind, name) else None
    dataset.ledger.set_ref(kind, name, RefRecord(number, ident), expected, Cause("seen at the remote"))
    crash_point("fetch.noted")


def mend(dataset: SharedDataset, source: str, progress: Progress | None = None) -> Repair:
    """Bring back payloads that are lost here, from a remote by its name or from a store by its address."""
    known = dataset.remotes()
    address = Address.parse(source) if source not in known and "/" in source else address_of(dataset, source)
    with connected(address, "fetch") as connection:
        connection.open(dataset.uuid)
        return repair(dataset, connection.peer, progress or _quiet)


# -- push -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Update:
    """A ref that a push is to move, by content ids. ``expected``: what it names until now; "": nothing."""

    kind: RefKind
    name: str
    to: str
    expected: str
    forced: bool = False

    def facts(self) -> list[Any]:
        """As a message says it."""
        return [self.kind.folder, self.name, self.to, self.expected, self.forced]

    @classmethod
    def parse(cls, facts: object) -> Update:
        """Read what a message says. Damaged if it is none."""
        if not isinstance(facts, list) or [type(each) for each in facts] != [str, str, str, str, bool]:
            raise Damaged("the other end sent something in the place of a ref")
        folder, name, to, expected, forced = facts
        kind = {RefKind.BRANCH.folder: RefKind.BRANCH, RefKind.TAG.folder: RefKind.TAG}.get(folder)
        if kind is None or not kind.takes(name):
            raise Damaged("the other end sent something in the place of a ref")
        return cls(kind, name, checked_id(to), checked_id(expected) if expected else "", forced)


def push(
    dataset: SharedDataset,
    remote: str = ORIGIN,
    refs: Sequence[str] = (),
    *,
    force_with_lease: bool = False,
    progress: Progress | None = None,
) -> Exchange:
    """Have a remote's branches and tags (the default branch, or those given) stand where ours do.

    Conflict, and nothing has moved, if that would not be forward there. ``force_with_lease`` replaces what is there if
    it is what was fetched or pushed last. A remote store that lacks the dataset gets it, with the same id. Notes on the
    versions of these refs go along.
    """
    names = tuple(dict.fromkeys(refs or (dataset.default_branch,)))
    with connected(address_of(dataset, remote), "push") as connection:
        made = connection.lacks(dataset.uuid)
        there = RemoteDataset(dataset.name, dataset.uuid, "", {}, {}) if made else connection.open(dataset.uuid)
        updates = [
            update for name in names if (update := _update(dataset, remote, there, name, force_with_lease)) is not None
        ]
        named = dataset.refs().by_name
        supplier = Supplier(
            dataset, connection.frames, [named[name] for name in names], _counting(progress or _quiet), whole=True
        )
        if made:
            supplier.check_whole()
            connection.create(dataset.name, dataset.uuid, dataset.default_branch)
        done = _push(connection, supplier, updates)
        changes = [_pushed(dataset, remote, update, why) for update, why in zip(updates, done.whys, strict=True)]
        count = connection.frames.heard_bytes + connection.frames.said_bytes
    refused = [change for change in changes if change.why is not None]
    if refused:
        raise Conflict("; ".join(f"{change.name}: {change.why}" for change in refused))
    return Exchange(remote, done.versions, count, tuple(changes), notes=done.notes, made=made)


def _update(dataset: SharedDataset, remote: str, there: RemoteDataset, name: str, lease: bool) -> Update | None:
    """The change of a remote's ref that makes it ours; None if it is."""
    refs, graph = dataset.refs(), dataset.graph
    if name in refs.heads:
        if not refs.heads[name]:
            raise NotFound(f"branch {name!r} of dataset {dataset.name!r} has no version yet")
        ours, theirs = graph.info(refs.heads[name]), there.heads.get(name, "")
        if dataset.conflicts(ours.number):
            raise NotAllowed(f"branch {name!r} has open conflicts, and cannot be pushed: `volfs resolve` closes them")
        if theirs == ours.content_id:
            return None
        if lease:
            seen = refs.remotes.get(f"{remote}/{name}")
            if theirs and (seen is None or graph.info(seen).content_id != theirs):
                raise Conflict(
                    f"branch {name!r} at {remote} is not what was fetched last: look at what came, with `volfs fetch"
                    f" {dataset.name} {remote}`"
                )
            return Update(RefKind.BRANCH, name, ours.content_id, theirs, forced=True)
        known = {info.content_id: number for number, info in graph.versions.items()}
        if theirs and (theirs not in known or not graph.is_ancestor(known[theirs], ours.number)):
            raise Conflict(
                f"branch {name!r} at {remote} has versions that are not in ours: bring them in first, with `volfs pull"
                f" {dataset.name} {remote}`"
            )
        return Update(RefKind.BRANCH, name, ours.content_id, theirs)
    if name in refs.tags:
        ident = graph.info(refs.tags[name]).content_id
        theirs = there.tags.get(name, "")
        if theirs and theirs != ident:
            raise AlreadyThere(f"there is another tag {name!r} at {remote}")
        return None if theirs else Update(RefKind.TAG, name, ident, "")
    known_refs = ", ".join(sorted({*refs.heads, *refs.tags}))
    raise NotFound(f"dataset {dataset.name!r} has no branch or tag {name!r}: there is {known_refs}")


def _counting(progress: Progress) -> Callable[[int], None]:
    gone = 0

    def count(size: int) -> None:
        nonlocal gone
        gone += size
        progress(gone, gone, "")

    return count


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a push: how many versions and notes the other end lacked, and why each ref did not move there."""

    versions: int
    notes: int
    whys: list[str | None]


def _push(connection: Connection, supplier: Supplier, updates: Sequence[Update]) -> Taken:
    """Send what the other end asks for."""
    frames = connection.frames
    frames.tell("push", updates=[update.facts() for update in updates])
    while (message := frames.hear()).say != "pushed":
        supplier.answer(message)
    whys = message.items("whys", len(updates))
    if len(whys) != len(updates) or not all(isinstance(why, str) for why in whys):
        raise Damaged(f"{connection.address} did not say what became of each ref")
    return Taken(message.number("versions"), message.number("notes"), [why or None for why in whys])


def _pushed(dataset: SharedDataset, remote: str, update: Update, why: str | None) -> RefChange:
    """Note where a branch of a remote stands now."""
    before, after = (0 if not ident else _number(dataset, ident) for ident in (update.expected, update.to))
    if why is None and update.kind is RefKind.BRANCH:
        with dataset.locked():
            full = f"{remote}/{update.name}"
            seen = dataset.refs().remotes.get(full)
            if seen != after:
                _set(dataset, RefKind.REMOTE, full, after, update.to, seen)
                dataset.mirror_refs()
    return RefChange(update.kind, update.name, before, after, why)


def _number(dataset: SharedDataset, ident: str) -> int:
    return next((number for number, info in dataset.graph.versions.items() if info.content_id == ident), 0)


def take_push(dataset: SharedDataset, peer: Peer, message: Message) -> Taken:
    """The receiving end of a push: have the versions here, then move the refs."""
    updates = [Update.parse(facts) for facts in message.items("updates", _MOST_REFS)]
    with receiving(dataset):
        came = receive(dataset, peer, [update.to for update in updates], Transferred(_quiet), Payloads.ALL)
        crash_point("push.received")
        notes = bring_notes(dataset, peer)
        whys: list[str | None] = []
        for update in updates:
            try:
                _apply(dataset, update)
                whys.append(None)
            except VolfsError as error:
                whys.append(str(error))
            crash_point("push.moved")
    return Taken(came, notes, whys)


def _apply(dataset: SharedDataset, update: Update) -> None:
    to = _number(dataset, update.to)
    refs = dataset.refs()
    if update.kind is RefKind.TAG:
        if refs.tags.get(update.name) != to:
            dataset.create_tag(update.name, to)
        return
    head = refs.heads.get(update.name)
    if head is None and not update.expected:
        dataset.create_branch(update.name, to)
        return
    expected = _number(dataset, update.expected) if update.expected else 0
    if head is None or (update.expected and not expected):
        raise Conflict(f"branch {update.name!r} has moved meanwhile: nothing was changed, try again")
    dataset.branch(update.name).publish(to, HeadMove(to, expected, update.forced).token)
