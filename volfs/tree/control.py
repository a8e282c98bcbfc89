"""``.volfs`` of a branch: committing, discarding, tagging and updating by writing into a file.

Decided here: that the action happens in the write, whose error every program reports; that it waits for about ten
seconds and then goes on by itself; that the same words while it goes on join it. ``status.json`` tells how it goes and
went. Not here: what a commit is (:mod:`volfs.versions.commit`).

Control files are ``direct_io`` with size 0: what is written never lies in a page cache, and writes come as they are.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Callable, Hashable, Sequence
from typing import ClassVar

import trio

from volfs.errors import BadInput, Busy, NotFound, VolfsError
from volfs.model.names import check_message
from volfs.tree.attrs import NEVER, SOON, Attr, SetAttr
from volfs.tree.generated import Document, Generated
from volfs.tree.handles import Handle, wants_writing
from volfs.tree.node import Dir, Node, SmallDir
from volfs.tree.room import Order, Room
from volfs.tree.shared import Shared
from volfs.tree.stagehandle import decode
from volfs.versions.following import Side
from volfs.views import documents

_LONGEST = 64 << 10
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_EVERYTHING = ("", "all", ".", "/")


#: How long a commit waits for files that seem to be closed; and for those that were synced and left alone since, as
#: NFS servers leave them, which close idle files a second or two later.
_CLOSING_SECONDS = 0.5
_IDLE_SECONDS = 4.0


class ControlDir(SmallDir):
    """``branches/NAME/.volfs``."""

    slots: ClassVar[dict[str, int]] = {"status.json": 1, "commit": 2, "discard": 3, "tag": 4, "update": 5, "publish": 6}

    def __init__(self, shared: Shared, ino: int, up: Dir, path: str, room: Room) -> None:
        super().__init__(shared, ino, up, path)
        self.room: Room = room

    def names(self) -> Sequence[str]:
        return list(self.slots)

    def find(self, name: str) -> Node | None:
        if name == "status.json":
            head = self.room.branch.head
            mtime = head.time_ns if head is not None else self.shared.started_ns
            document = Document(self._status, mtime, self._stamp, heavy=True)
            return Generated(self.shared, self.slot_ino(name), self, document)
        if name in self.slots:
            return ControlFile(self.shared, self.slot_ino(name), self, name)
        return None

    def attr(self) -> Attr:
        return self.directory_attr(self.shared.started_ns, SOON, writable=self.room.writable)

    def refusal(self) -> VolfsError:
        return self.room.refusal()

    def _stamp(self) -> Hashable:
        room = self.room
        writing = tuple(sorted(room.branch.working.open_for_writing()))
        holder = room.branch.holder() if not room.held else None
        head = room.branch.head
        return room.branch.generation(), head and head.number, room.branch.action, room.stages.changes, writing, holder

    def _status(self) -> bytes:
        branch = self.room.branch
        status = branch.status()
        return documents.status_json(
            branch=status.branch,
            head=branch.dataset.info(status.head) if status.head else None,
            changes=[documents.ChangeFacts(path, c.put, c.removed, c.bytes) for path, c in status.changes.items()],
            held=dict(status.held),
            left_behind=status.left_behind,
            rejected=status.rejected,
            staged=["/".join(stage.place) for stage in self.room.stages if not stage.decoded],
            action=None if status.action is None else status.action.to_json(),
            writer=status.writer,
            behind=None if status.behind is None else status.behind.to_json(),
        )


class ControlFile(Node):
    """``commit``, ``discard``, ``tag``, ``update`` or ``publish``."""

    up: ControlDir

    def __init__(self, shared: Shared, ino: int, up: ControlDir, name: str) -> None:
        super().__init__(shared, ino, up)
        self._name = name

    def attr(self) -> Attr:
        options = self.shared.options
        return Attr(
            self.ino,
            stat.S_IFREG | (0o644 if self.up.room.writable else 0o444),
            0,
            self.shared.started_ns,
            uid=options.uid,
            gid=options.gid,
            entry_timeout=SOON,
            attr_timeout=NEVER,
        )

    async def open(self, flags: int) -> Handle:
        if wants_writing(flags):
            await self.up.room.enter()
        return ControlHandle(self.ino, self.up.room, self._name)

    async def change(self, changes: SetAttr, handle: Handle | None) -> None:
        """``>`` truncates first: nothing to do."""


class ControlHandle(Handle):
    """An open control file: each write is an order."""

    direct_io = True
    writable = True

    def __init__(self, ino: int, room: Room, name: str) -> None:
        super().__init__(ino)
        self._room = room
        self._name = name

    async def read(self, offset: int, size: int) -> bytes:
        return b""

    async def truncate(self, size: int) -> None:
        """``>`` truncates first: nothing to do."""

    async def write(self, offset: int, data: bytes) -> int:
        if offset or len(data) > _LONGEST:
            raise BadInput(f"write the whole of it at once, at most {_LONGEST >> 10} KiB")
        if self._name == "commit":
            await perform(self._room, "commit", _message(data))
            return len(data)
        text = os.fsdecode(data).strip()
        if self._name == "tag":
            await _tag(self._room, text)
        elif self._name == "update":
            _decision(text)
            await perform(self._room, "update", text)
        elif self._name == "publish":
            _prepared(text)
            await perform(self._room, "publish", text)
        else:
            await perform(self._room, "discard", "" if text in _EVERYTHING else text.rstrip("/"))
        return len(data)


def _message(data: bytes) -> str:
    """What somebody wrote as a commit's message: UTF-8, or what a byte order mark says, as editors and shells of
    Windows set it. Raises BadInput: what cannot be read now cannot be read in the history either."""
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding).strip()
    except UnicodeDecodeError:
        raise BadInput(f"the message is not {encoding.removesuffix('-sig').upper()}; nothing was committed") from None
    check_message(text)
    return text


async def perform(room: Room, kind: str, text: str) -> None:
    """Commit or discard, and wait for the outcome as long as a write may take. Raises what went wrong.

    The same words while it goes on wait for the same outcome: an NFS client that heard nothing sends its write again.
    """
    await room.settled()
    order = room.order
    if order is not None and order.words != (kind, text):
        raise Busy(f"branch {room.name!r}: a {order.words[0]} is going on, see .volfs/status.json")
    if order is None:
        await room.enter()
        order = room.order = Order(kind, text)
        room.shared.start(lambda: _carry_out(room, order))
    with trio.move_on_after(room.shared.options.action_seconds):
        await order.done.wait()
        if order.error is not None:
            raise order.error


async def _tag(room: Room, text: str) -> None:
    """``paper`` tags the version that the branch shows, ``paper v3`` another: for clients that cannot make links, as
    those of SMB. The same again is no error, as it is not for a commit."""
    name, *at = text.split()[:3] or [""]
    if not name or len(at) > 1:
        raise BadInput("write the tag's name, and after it the version if it is not the one shown: paper v3")
    dataset = room.dataset

    def make() -> None:
        number = dataset.resolve(at[0] if at else room.name)
        if dataset.refs().tags.get(name) != number:
            dataset.create_tag(name, number)

    try:
        await room.shared.look(dataset.name, make)
    finally:
        room.shared.epoch += 1
    tags = room.shared.inodes.directory(f"{room.shared.origin(dataset.name)}/tags")
    room.shared.notifier.queue_entry(tags, os.fsencode(name))


async def _carry_out(room: Room, order: Order) -> None:
    kind, text = order.words
    try:
        if kind == "commit":
            await _commit(room, text)
        elif kind == "update":
            await _update(room, text)
        elif kind == "publish":
            await _publish(room, text)
        else:
            await _discard(room, text)
        await room.told(wait=False, by_views=True)
    except Exception as error:
        order.error = error
    finally:
        room.order = None
        order.done.set()


async def _closed(room: Room) -> None:
    """Wait for what a program has closed: the kernel tells of the last close a moment after it has returned, and what
    is open for writing stays behind. Not for long: a descriptor may have been closed that was not the last."""
    began = trio.current_time()
    while room.closing or (left := [handle for handle in room.shared.files.of_room(room) if handle.flushed]):
        waited = trio.current_time() - began
        if waited > _IDLE_SECONDS or (
            waited > _CLOSING_SECONDS and not room.closing and not any(handle.synced for handle in left)
        ):
            return
        await trio.sleep(0.002 if waited < _CLOSING_SECONDS else 0.02)


async def _commit(room: Room, message: str) -> None:
    await _closed(room)
    await settle(room)
    before = _head(room)
    await run_alone(lambda: room.branch.commit(message))
    if _head(room) != before:
        _show_head(room)
    room.places.forget()


def _show_head(room: Room) -> None:
    """Have the kernel ask for the branch's new version."""
    dataset = room.shared.origin(room.dataset.name)
    versions = room.shared.inodes.directory(f"{dataset}/versions")
    for name in (f"v{_head(room)}", "latest"):
        room.shared.notifier.queue_entry(versions, name.encode())


def _prepared(text: str) -> tuple[int, str]:
    """The number and the token of a version that another process has prepared. Raises BadInput."""
    number, _, token = text.partition(" ")
    if not number.isdecimal() or len(number) > 18 or not token:
        raise BadInput("imports write here which version they have made; to make one yourself, write into commit")
    return int(number), token


async def _publish(room: Room, text: str) -> None:
    """Give the version of an import its place: only who holds the branch may move its head."""
    number, token = _prepared(text)
    await settle(room)
    await run_alone(lambda: room.branch.publish(number, token))
    room.places.forget()
    _show_head(room)


def _decision(text: str) -> tuple[Side, tuple[str, ...]]:
    """``ours`` or ``theirs``, and after it the keys meant: one, or one on each line. Raises BadInput."""
    first, *more = text.splitlines() or [""]
    side, _, key = first.partition(" ")
    if side not in ("ours", "theirs"):
        raise BadInput("write ours or theirs, and after it the key if not all are meant: theirs files/notes.txt")
    keys = (each.strip().rstrip("/") for each in (key, *more))
    return ("ours" if side == "ours" else "theirs"), tuple(each for each in keys if each)


async def _update(room: Room, text: str) -> None:
    """Decide what keeps the branch behind."""
    await settle(room)
    side, keys = _decision(text)
    await run_alone(lambda: room.branch.update(side, keys))
    room.places.forget()


async def _discard(room: Room, prefix: str) -> None:
    """A key, a slice being written, or everything."""
    stages = [stage for stage in room.stages if not prefix or "/".join(stage.place).startswith(prefix)]
    if prefix and not prefix.startswith(("zarr", "files")) and not stages:
        raise BadInput(f"{prefix!r}: write a key such as zarr/s0 or files/notes.txt, or all")
    for stage in stages:
        room.stages.drop(stage)
    if not prefix or prefix.startswith(("zarr", "files")):
        await run_alone(lambda: room.branch.discard(prefix))
    room.places.forget()


async def settle(room: Room) -> None:
    """Let every slice that is complete be one: NFS clients, and mapped files, tell nobody when they are done."""
    for stage in list(room.stages):
        try:
            await decode(room, stage)
        except (VolfsError, OSError) as error:
            stage.reason = str(error)


async def run_alone(work: Callable[[], object]) -> None:
    """Run a long action on a thread of its own: it must not wait for readers, nor they for it."""
    await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1))


def _head(room: Room) -> int:
    try:
        head = room.branch.head
    except NotFound:
        return 0
    return head.number if head is not None else 0


__all__ = ["ControlDir", "perform", "settle"]
