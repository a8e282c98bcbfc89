"""``.volfs`` of a branch: committing, discarding, tagging, updating and merging by writing into a file.

Decided here: that the action happens in the write, whose error every program reports; that a message may have several
writes, and when it ends; that an action waits for about ten seconds and then goes on by itself. ``status.json`` tells
how it goes and went, ``errors.txt`` what was refused. Not here: how it is carried out
(:mod:`volfs.tree.branches.branch_actions`).

Control files are ``direct_io`` with size 0: what is written never lies in a page cache, and writes come as they are.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from volfs.errors import BadInput, VolfsError
from volfs.model.graph import VersionInfo
from volfs.storage.files import fsync_file, no_space, open_regular
from volfs.tree.branches import branch_actions
from volfs.tree.branches.draft import LONGEST, Draft, worded
from volfs.tree.branches.mounted_branch import MountedBranch
from volfs.tree.branches.order import Order
from volfs.tree.contract.attrs import NEVER, READ_ONLY, SOON, WRITABLE, Attr, SetAttr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.node import Dir, Link, Node, SmallDir
from volfs.tree.core.open_files import Handle, wants_writing
from volfs.tree.core.openers import is_open
from volfs.tree.files.document import Document, DocumentFile
from volfs.versions.author import acting_for, author_of
from volfs.versions.working import refusals
from volfs.versions.working.status import Action, ActionKind
from volfs.views import documents


@dataclass(frozen=True, slots=True)
class Control:
    """A control file whose action begins with the text that is written. ``ordinal``: kept once released, since it is
    part of an inode. ``by_line``: each line is one action; otherwise all that is written at once is. ``begin`` returns
    the action under way, None for one that is over."""

    ordinal: int
    begin: Callable[[MountedBranch, str], Awaitable[Order | None]]
    by_line: bool = False


#: To add one: an entry here, its function in :mod:`volfs.tree.branches.branch_actions`.
CONTROLS: dict[ActionKind, Control] = {
    "discard": Control(3, branch_actions.discard, by_line=True),
    "tag": Control(4, branch_actions.tag, by_line=True),
    "update": Control(5, branch_actions.update),
    "publish": Control(6, branch_actions.publish),
    "merge": Control(7, branch_actions.combine("merge")),
    "revert": Control(10, branch_actions.combine("revert")),
    "restore": Control(11, branch_actions.combine("restore")),
    "cherry-pick": Control(12, branch_actions.combine("cherry-pick")),
    "resolve": Control(13, branch_actions.combine("resolve")),
    "rebase": Control(15, branch_actions.combine("rebase")),
    "mv": Control(16, branch_actions.combine("mv")),
    "commit-words": Control(17, branch_actions.commit_words),
}
_ACTIONS: tuple[ActionKind, ...] = ("commit", *CONTROLS)


class ControlDir(SmallDir):
    """``branches/NAME/.volfs``."""

    slots: ClassVar[dict[str, int]] = {
        "status.json": 1,
        "commit": 2,
        **{name: control.ordinal for name, control in CONTROLS.items()},
        "errors.txt": 8,
        "message": 9,
        "conflicts.json": 14,
    }

    def __init__(self, context: TreeContext, ino: int, up: Dir, path: str, mounted: MountedBranch) -> None:
        super().__init__(context, ino, up, path)
        self.mounted: MountedBranch = mounted

    @property
    def cold(self) -> bool:
        """Until it is known whether the head has open conflicts, which a file says."""
        head = self.mounted.branch.head
        return head is not None and not self.mounted.dataset.knows_conflicts(head.number)

    def load(self) -> None:
        head = self.mounted.branch.head
        if head is not None:
            self.mounted.dataset.is_open(head.number)

    def names(self) -> Sequence[str]:
        return [name for name in self.slots if name != "conflicts.json" or self._open_head() is not None]

    def _open_head(self) -> VersionInfo | None:
        """The branch's head, if it has open conflicts."""
        head = self.mounted.branch.head
        return head if head is not None and self.mounted.dataset.is_open(head.number) else None

    def find(self, name: str) -> Node | None:
        if name in ("merge", "conflicts.json") and (head := self._open_head()) is not None:
            if name == "merge":
                path = f"{self.path}/{name}"
                return MergeDir(self.context, self.context.inodes.directory(path), self, path, self.mounted, head)
            return DocumentFile(self.context, self.slot_ino(name), self, self._conflicts(head))
        if name == "conflicts.json":
            return None
        if name == "status.json":
            head = self.mounted.branch.head
            mtime = head.time_ns if head is not None else self.context.started_ns
            document = Document(self._status, mtime, self._stamp, heavy=True)
            return DocumentFile(self.context, self.slot_ino(name), self, document)
        if name == "errors.txt":
            return DocumentFile(self.context, self.slot_ino(name), self, self._errors())
        if name == "message":
            return MessageFile(self.context, self.slot_ino(name), self)
        action = next((each for each in _ACTIONS if each == name), None)
        return None if action is None else ControlFile(self.context, self.slot_ino(name), self, action)

    def attr(self) -> Attr:
        return self.directory_attr(self.context.started_ns, SOON, writable=self.mounted.writable)

    def refusal(self) -> VolfsError:
        return self.mounted.refusal()

    def _stamp(self) -> Hashable:
        mounted = self.mounted
        writing = tuple(sorted(mounted.branch.working.open_for_writing()))
        holder = mounted.branch.holder() if not mounted.held else None
        head = mounted.branch.head
        return (
            mounted.branch.generation(),
            head and head.number,
            mounted.branch.actions.last,
            mounted.stages.changes,
            writing,
            holder,
        )

    def _conflicts(self, head: VersionInfo) -> Document:
        found = self.mounted.dataset.conflicts(head.number)
        return Document(lambda: documents.to_json(list(found)), head.time_ns, lambda: head.number)

    def _errors(self) -> Document:
        layout = self.mounted.branch.working.layout
        return Document(
            lambda: refusals.read(layout), self.context.started_ns, lambda: refusals.stamp(layout), heavy=True
        )

    def _status(self) -> bytes:
        branch = self.mounted.branch
        status = branch.status()
        return documents.status_json(
            branch=status.branch,
            head=branch.dataset.info(status.head) if status.head else None,
            changes=[documents.ChangeFacts(path, c.put, c.removed, c.bytes) for path, c in status.changes.items()],
            held=dict(status.held),
            left_behind=status.left_behind,
            rejected=[each.to_json() for each in status.rejected],
            staged=[each.to_json() for each in status.staged],
            action=None if status.action is None else status.action.to_json(),
            writer=status.writer,
            behind=None if status.behind is None else status.behind.to_json(),
        )


class MergeDir(SmallDir):
    """``merge`` of a branch whose head has open conflicts: links to the versions that were merged."""

    slots: ClassVar[dict[str, int]] = {"base": 1, "ours": 2, "theirs": 3}

    def __init__(
        self, context: TreeContext, ino: int, up: Dir, path: str, mounted: MountedBranch, head: VersionInfo
    ) -> None:
        super().__init__(context, ino, up, path)
        self._versions = mounted.dataset.sides_of_conflicts(head.number)
        self._head = head

    def names(self) -> Sequence[str]:
        return [name for name in self.slots if name in self._versions]

    def find(self, name: str) -> Node | None:
        number = self._versions.get(name)
        if number is None:
            return None
        target = f"../../../../versions/v{number}"
        return Link(self.context, self.slot_ino(name), self, target, self._head.time_ns, SOON)

    def attr(self) -> Attr:
        return self.directory_attr(self._head.time_ns, SOON)


class ControlFile(Node):
    """``commit``, or one of :data:`CONTROLS`."""

    up: ControlDir

    def __init__(self, context: TreeContext, ino: int, up: ControlDir, name: ActionKind) -> None:
        super().__init__(context, ino, up)
        self._name = name

    def attr(self) -> Attr:
        mode = WRITABLE if self.up.mounted.writable else READ_ONLY
        return self.context.file_attr(self.ino, 0, self.context.started_ns, mode=mode, attr_timeout=NEVER)

    async def open(self, flags: int) -> Handle:
        if wants_writing(flags):
            await self.up.mounted.enter()
        if self._name == "commit":
            return CommitHandle(self.ino, self.up.mounted, append=bool(flags & os.O_APPEND))
        return TextHandle(self.ino, self.up.mounted, self._name)

    async def change(self, changes: SetAttr, handle: Handle | None) -> None:
        """``>`` truncates first: nothing to do."""


class ControlHandle(Handle, ABC):
    """An open control file: an action begins in the write that asks for it.

    Read through the same open file, it tells what came of the last order, as JSON: of two who ask at once, each learns
    what came of its own.
    """

    direct_io = True
    writable = True

    def __init__(self, ino: int, mounted: MountedBranch, name: ActionKind) -> None:
        super().__init__(ino)
        self._mounted = mounted
        self._name = name
        self._asked: Order | None = None
        #: The last action that was refused before it began.
        self._refused: Action | None = None

    async def read(self, offset: int, size: int) -> bytes:
        action = self._refused
        if action is None and self._asked is not None:
            action = self._asked.action
        return b"" if action is None else documents.to_json(action.to_json())[offset : offset + size]

    async def truncate(self, size: int) -> None:
        """``>`` truncates first: nothing to do."""

    async def write(self, offset: int, data: bytes) -> int:
        self._refused = None
        try:
            with acting_for(self.caller):
                await self._obey(offset, data)
        except BadInput as error:
            self._refused = self._failed(data, error)
            await self._mounted.note_refusal(f".volfs/{self._name}", error)
            raise
        except (VolfsError, OSError) as error:
            self._refused = self._failed(data, error)
            raise
        return len(data)

    def _failed(self, data: bytes, error: Exception) -> Action:
        return Action.begin(self._name, os.fsdecode(data).strip()).failed(error)

    @abstractmethod
    async def _obey(self, offset: int, data: bytes) -> None:
        """Act on the bytes of a write at ``offset``. Raises BadInput."""

    async def _carry_out(self, begin: Awaitable[Order | None]) -> None:
        self._asked = await begin
        if self._asked is not None:
            await branch_actions.outcome(self._mounted, self._asked)


class TextHandle(ControlHandle):
    """One of :data:`CONTROLS`, open."""

    async def _obey(self, offset: int, data: bytes) -> None:
        control, text = CONTROLS[self._name], os.fsdecode(data).strip()
        if not control.by_line:
            if offset or len(data) > LONGEST:
                raise BadInput(f"write the whole of it at once, at most {LONGEST >> 10} KiB")
            await self._carry_out(control.begin(self._mounted, text))
            return
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        # An empty line alone stands for everything; after others it means nothing.
        for line in lines if lines or offset else [""]:
            await self._carry_out(control.begin(self._mounted, line))


class CommitHandle(ControlHandle):
    """``.volfs/commit``, open: everything written through it is one message.

    The write that begins it does the work and has its errors; the version appears, with all lines, when the file is
    closed, or synced, as NFS clients do when they close. A child of a shell that ends closes its descriptor too: so
    while another process of this machine has the file open, the message goes on.
    """

    def __init__(self, ino: int, mounted: MountedBranch, *, append: bool) -> None:
        super().__init__(ino, mounted, "commit")
        self._append = append
        self._draft: Draft | None = None
        self._order: Order | None = None
        self._told: Exception | None = None
        # The position of the open file after the last write.
        self._position = 0

    async def write(self, offset: int, data: bytes) -> int:
        count = await super().write(offset, data)
        self._position = offset + count
        return count

    async def _obey(self, offset: int, data: bytes) -> None:
        if self._told is not None:
            # After a refusal a client writes at the same position again: nothing was written there. The same text at
            # position 0 begins the commit once more.
            if offset or self._append or self._draft is None or not self._draft.holds(data):
                raise self._told
            self._draft = self._order = self._told = None
        author = None if self.caller is None else author_of(self.caller)
        draft = self._draft or Draft(author)
        draft.place(len(draft) if self._append else offset, data)
        self._draft = draft
        if self._order is not None and self._order.error is not None:
            raise self._order.error
        if self._order is not None or draft.blank:
            return
        try:
            if draft.so_far() == "-":
                await self._take_message(author)
                return
            order = self._asked = await branch_actions.commit_draft(self._mounted, draft, author)
            await branch_actions.wording(self._mounted, order)
        except (VolfsError, OSError) as error:
            self._told = error
            raise
        self._order = order
        if order.draft is not None:
            self._draft = order.draft

    async def _take_message(self, author: str | None) -> None:
        """``-``: the message is in ``.volfs/message``, which is empty afterwards. The same again is no error."""
        mounted = self._mounted
        path = mounted.branch.working.layout.message
        data = await mounted.look(lambda: read_message(path))
        if not data.strip() and mounted.message_taken == await mounted.asked(mounted.branch.generation):
            return
        message, author = worded(data, author)
        await self._carry_out(branch_actions.commit(mounted, message, author))
        await mounted.look(lambda: path.unlink(missing_ok=True))
        mounted.message_taken = await mounted.asked(mounted.branch.generation)

    async def flush(self) -> None:
        if self._order is not None and not self._order.done.is_set():
            mounted = self._mounted
            if await mounted.look(self._is_open):
                return
        await self._end()

    def _is_open(self) -> bool:
        return is_open(self._mounted.context.options.mountpoint, self.ino, self._name, self._position)

    async def fsync(self) -> None:
        await self._end()

    async def release(self) -> None:
        await self._end()

    async def _end(self) -> None:
        """End the message. Raises the error that kept the version from being made, once."""
        if self._order is None or self._draft is None or self._told is not None:
            return
        self._draft.close()
        try:
            await branch_actions.outcome(self._mounted, self._order)
        except (VolfsError, OSError) as error:
            self._told = error
            raise


class MessageFile(Node):
    """``.volfs/message``: an ordinary small file, for messages that take more than one write. Always listed."""

    up: ControlDir

    @property
    def _path(self) -> Path:
        return self.up.mounted.branch.working.layout.message

    def attr(self) -> Attr:
        size, mtime = message_facts(self._path)
        mode = WRITABLE if self.up.mounted.writable else READ_ONLY
        mtime = max(mtime, self.context.started_ns)
        return self.context.file_attr(self.ino, size, mtime, mode=mode, attr_timeout=NEVER)

    async def open(self, flags: int) -> Handle:
        writable = wants_writing(flags)
        if writable:
            await self.up.mounted.enter()
        handle = MessageHandle(self.ino, self.up.mounted, self._path, writable=writable)
        if flags & os.O_TRUNC:
            await handle.truncate(0)
        return handle

    async def change(self, changes: SetAttr, handle: Handle | None) -> None:
        if changes.size is not None:
            await self.up.mounted.enter()
            await MessageHandle(self.ino, self.up.mounted, self._path, writable=True).truncate(changes.size)


class MessageHandle(Handle):
    """An open ``.volfs/message``. Every write reaches the disk's file at once; a lost one is written again."""

    def __init__(self, ino: int, mounted: MountedBranch, path: Path, *, writable: bool) -> None:
        super().__init__(ino)
        self._mounted = mounted
        self._path = path
        self.writable = writable

    async def read(self, offset: int, size: int) -> bytes:
        mounted = self._mounted
        data: bytes = await mounted.context.in_time(lambda: mounted.look(lambda: read_message(self._path)))
        return data[offset : offset + size]

    async def write(self, offset: int, data: bytes) -> int:
        if not self.writable:
            return await super().write(offset, data)
        await self._change(lambda fd: os.pwrite(fd, data, offset), offset + len(data))
        return len(data)

    async def truncate(self, size: int) -> None:
        await self._change(lambda fd: os.ftruncate(fd, size), size)

    async def _change(self, change: Callable[[int], object], size: int) -> None:
        if size > LONGEST:
            raise BadInput(f"a message has at most {LONGEST >> 10} KiB")

        def work() -> None:
            with no_space("writing the message"):
                fd = open_regular(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
                try:
                    change(fd)
                finally:
                    os.close(fd)

        await self._mounted.look(work)

    async def fsync(self) -> None:
        with suppress(FileNotFoundError):
            await self._mounted.look(lambda: fsync_file(self._path))

    def stamp(self) -> Hashable:
        return message_facts(self._path)


def message_facts(path: Path) -> tuple[int, int]:
    """Size and mtime (ns) of the message; 0 of one that is not there."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def read_message(path: Path) -> bytes:
    """The bytes of the message; none if there is no file."""
    try:
        fd = open_regular(path)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(fd, LONGEST, 0)
    finally:
        os.close(fd)
