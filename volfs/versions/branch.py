"""A branch: its base version with the uncommitted changes of its working copy, as a snapshot that can be written.

Decided here: the operations of a branch, and the version that its working copy lies over. Not here: reading
(:mod:`volfs.versions.working.union_snapshot`), the working copy (:mod:`volfs.versions.working.working_copy`), and who
commits (:mod:`volfs.versions.branch_actions`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

from volfs.errors import Busy, Damaged, NotFound, ReadOnly
from volfs.model.graph import VersionInfo
from volfs.model.refs import RefKind
from volfs.versions.branch_actions import Actions
from volfs.versions.commit.changeset import problems
from volfs.versions.commit.follower import Follower, Side
from volfs.versions.commit.protocol import Wording, settle_own
from volfs.versions.commit.writable_history import WritableHistory
from volfs.versions.committed.version import Version
from volfs.versions.snapshot import Derive, WritableSnapshot
from volfs.versions.transaction import Transaction, transaction
from volfs.versions.working.base_file import Pin
from volfs.versions.working.branch_lock import Holder
from volfs.versions.working.interpreter import Interpreter
from volfs.versions.working.layer import Change
from volfs.versions.working.status import (
    Behind,
    Status,
    count_changes,
    left_behind,
    rejected_files,
    staged_files,
)
from volfs.versions.working.union import Union
from volfs.versions.working.union_snapshot import UnionSnapshot
from volfs.versions.working.working_copy import WorkingCopy

if TYPE_CHECKING:
    from volfs.versions.combine.combination import Progress
    from volfs.versions.combine.merges import Combined
    from volfs.versions.combine.requests import RequestKind

Bytes = bytes | bytearray | memoryview
_HOLDER_SECONDS = 0.25
"""Seconds for which an answer about another writer is believed."""


class Branch(UnionSnapshot, WritableSnapshot):
    """One branch of a dataset. Thread-safe. Made by :meth:`volfs.versions.dataset.Dataset.branch`.

    Operations on single keys with POSIX semantics are those of ``branch.working``. A change takes the writer's lock for
    its own duration unless the process has it already: :meth:`acquire`, or ``with branch.writing():``.
    """

    PUBLIC: ClassVar[tuple[str, ...]] = (
        *("head", "status", "is_clean", "behind", "update", "validate", "writing", "commit", "discard"),
        *("transaction", "amend"),
    )

    dataset: WritableHistory

    def __init__(self, dataset: WritableHistory, name: str, derive: Derive) -> None:
        self.derive = derive
        self.turn = threading.Lock()
        self.ref = name
        store = dataset.store
        self.working = WorkingCopy(dataset.layout.working(name), self, store.reserve, dead_after=store.dead_after)
        super().__init__(dataset, name, self.working, self.working.pulse, Interpreter(store.caches))
        self.follower = Follower(self)
        self.actions = Actions(self)
        self._holder: tuple[float, Holder | None] = (0.0, None)
        self._look_at = 0.0
        self._known_head: tuple[tuple[int, int], int] | None = None

    def __repr__(self) -> str:
        return f"<branch {self.ref!r} of {self.dataset!r}>"

    # -- the snapshot -------------------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        if self.dataset.store.read_only:
            return False
        if self.working.lock.held:
            return True
        holder = self.holder()
        return holder is None or holder.mountpoint is None

    @property
    def head(self) -> VersionInfo | None:
        """The branch's newest version; None while nothing is committed. It may be another than :attr:`base`."""
        number = self._head_number()
        return self.dataset.info(number) if number else None

    @property
    def base(self) -> VersionInfo | None:
        version = self.base_version()
        return None if version is None else version.info

    def base_version(self) -> Version | None:
        """The version that the working copy lies over; None while there is none.

        Damaged if the dataset has no such version, or another one under its number.
        """
        head = self._head_number()  # NotFound if the branch was removed
        base = self.working.base.read()
        if base is None:
            return self.dataset.version(head) if head else None
        if not base.on.version:
            return None
        version = self._version(base.on.version)
        if version is None or version.info.content_id != base.on.content_id:
            which = "v{}, which is not there" if version is None else "another v{} than there is"
            raise Damaged(
                f"the uncommitted changes of {self.dataset.name}@{self.ref} were made over"
                f" {which.format(base.on.version)}: discard them, or give the dataset that version back"
            )
        return version

    def _version(self, number: int) -> Version | None:
        with suppress(NotFound):
            return self.dataset.version(number)
        if not self.dataset.store.read_only:
            with self.dataset.locked():
                pass  # taking it catches up with another machine, which has a catalog of its own
            with suppress(NotFound):
                return self.dataset.version(number)
        return None

    def generation(self) -> Hashable:
        base = self.working.base.read()
        return self._head_number() if base is None else base.on, self.working.pulse.read()

    def _head_number(self) -> int:
        # Nobody moves or removes a branch without its lock. So while it is held here, only this process can.
        lock = self.working.lock
        now = (lock.times_taken, self.dataset.catalog.written) if lock.held else None
        known = self._known_head
        if now is not None and known is not None and known[0] == now:
            return known[1]
        number = self.dataset.refs().heads.get(self.ref)
        if number is None:
            raise NotFound(f"branch {self.ref!r} of dataset {self.dataset.name!r} was removed")
        if now is None:
            # A machine with a catalog of its own learns of a head within a second. What was committed lies in the
            # version at once, and no more in the working copy: over the head before, the branch would go back in time.
            with suppress(Damaged):
                filed = self.dataset.named_by_file(self.ref)
                if filed and filed != number and self._version(filed) is not None:
                    number = filed
        self._known_head = (now, number) if now is not None else None
        return number

    def look_again(self) -> None:
        """Read the head from the ref file again: it may have been moved in spite of the lock. Only with the lock."""
        self.keep_up()
        self._known_head = None

    def keep_up(self) -> None:
        """Catch up with processes that moved the head under the lock. NotFound if one removed the branch."""
        self.dataset.keep_up(self.ref)

    def settle(self) -> None:
        """Before the first change under the lock: finish what a dead writer began, and let the base follow the head."""
        self._known_head = None
        settle_own(self)
        with suppress(Damaged):  # reading says so; discarding everything mends it
            self.follower.follow()

    # -- writing ------------------------------------------------------------------------------------------------

    def acquire(self, mountpoint: str | None = None) -> None:
        """Become the branch's only writer, until :meth:`release`. ReadOnly, naming the holder, if there is another."""
        self._check_writable()
        self.working.lock.acquire(mountpoint)

    def release(self) -> None:
        """Undo one :meth:`acquire`."""
        self.working.lock.release()

    def writing(self) -> AbstractContextManager[None]:
        """Be the only writer for the length of a block; waits some seconds for another that is not a mount."""
        self._check_writable()
        return self.working.lock.hold()

    def holder(self) -> Holder | None:
        """The other process that writes to the branch, if there is one. May be a quarter of a second old."""
        now = time.monotonic()
        when, holder = self._holder
        if now - when > _HOLDER_SECONDS:
            holder = self.working.lock.holder()
            self._holder = now, holder
        return holder

    def put(self, key: str, data: Bytes, *, only_new: bool = False) -> bool:
        self._check_writable()
        return self.working.put(key, data, only_new=only_new)

    def delete(self, key: str) -> None:
        self._check_writable()
        self.working.unlink(key)

    def delete_tree(self, key: str) -> None:
        self._check_writable()
        self.working.remove_tree(key)

    def left_behind(self, union: Union | None = None) -> frozenset[str]:
        """Keys and whole directories that a commit now leaves in the working copy: they are being written."""
        written = self.working.open_for_writing()
        return left_behind(self.working.union() if union is None else union, self.interpreter, written)

    def validate(self, key: str) -> str | None:
        """Why the file at ``key`` is held; None if it can be committed, is committed already, or is not there."""

        def see(union: Union) -> str | None:
            entry = union.entry(key)
            if entry is None or entry.st is None or entry.layer is None or entry.kind == "dir":
                return None
            return self.interpreter.verdict(union, Change.of(key, "put", entry.st, entry.layer.path(key)))

        return self.working.look(see)

    # -- the working copy as a whole ----------------------------------------------------------------------------

    def status(self, *, check: bool = True) -> Status:
        """The uncommitted changes. ``check`` judges every changed chunk, by decoding it the first time."""

        def see(union: Union) -> Status:
            holder = self.working.lock.holder()
            return Status(
                branch=self.ref,
                head=self._head_number(),
                changes=count_changes(union, self.interpreter),
                held=tuple(problems(union, self.interpreter)) if check else (),
                left_behind=tuple(sorted(self.left_behind(union))),
                staged=staged_files(self.working.layout),
                rejected=rejected_files(self.working.layout),
                action=self.actions.last,
                writer=None if holder is None else str(holder),
                behind=self.follower.behind(),
            )

        return self.working.look(see)

    def follow(self) -> Behind | None:
        """Move the base to the head, as its ref file names it, or return the keys in conflict. Only with the lock."""
        with self.working.exclusive():
            self.look_again()
            return self.follower.follow()

    def publish(self, number: int, token: str) -> VersionInfo:
        """Make a version that its maker has prepared the head. If a mount of another process holds the branch, that
        mount does it.

        Conflict if the version and the uncommitted changes, or the head, changed the same. Busy if others write.
        """
        return self.actions.publish(number, token)

    def carry_over(self, number: int) -> VersionInfo:
        """Make what a version has changed since its parent the branch's next version, in its words, by the engine that
        combines. MergeConflict where both have changed the same. If a mount of another process holds the branch, that
        mount does it."""
        return self.actions.carry_over(number)

    def catch_up(self) -> None:
        """Once in a while: let the base follow a head that was moved without this process, if it may write now."""
        working = self.working
        if working.lock.held:
            self.look_again()
        base = working.base.read()
        if base is None or base.on == Pin.of(self.head) or time.monotonic() < self._look_at:
            return
        began = time.monotonic()
        with suppress(ReadOnly, Busy):
            working.lock.acquire()
            try:
                self.follow()
            finally:
                working.lock.release()
        # A comparison of many changes is not repeated all the time.
        self._look_at = time.monotonic() + 10 * (time.monotonic() - began)

    def behind(self) -> Behind | None:
        """How far the base is behind the head, and the keys that keep it there; None if the base is the head."""
        return self.follower.behind()

    def update(self, side: Side, keys: Iterable[str] = ()) -> Behind | None:
        """Decide the keys in conflict with the head: ``ours`` stay over it, ``theirs`` drops our change.

        At and below the ``keys`` given, or all. Returns the keys still in conflict. BadInput for a key without a
        conflict. If a mount of another process writes to the branch, that mount does it.
        """
        return self.actions.update(side, keys)

    def is_clean(self) -> bool:
        """Whether nothing differs from the base."""
        return self.working.look(lambda union: not any(True for _ in chain(union.changes(), union.folder_modes())))

    def commit(
        self,
        message: str,
        author: str | None = None,
        *,
        leave: Iterable[str] = (),
        wording: Wording | None = None,
        meta: Mapping[str, str] | None = None,
    ) -> VersionInfo:
        """Make the working copy a version. ``leave``: keys or directories that stay uncommitted; ``wording`` has the
        last word on message and author, once everything else is done (:mod:`volfs.versions.commit.protocol`). ``meta``:
        what else is said of the version, by name; it is part of the content id.

        Raises BadInput (a message that is none, or not UTF-8), Held (naming keys), NothingToCommit, Conflict. If a
        mount of another process writes to the branch, that mount commits, for the author given.
        """
        return self.actions.commit(message, author, leave=leave, wording=wording, meta=meta)

    def amend(self, message: str | None = None, author: str | None = None, *, leave: Iterable[str] = ()) -> VersionInfo:
        """Make the newest version anew, with the uncommitted changes in it, or with another message.

        NotAllowed if another branch or tag has it; NothingToCommit; the rest as :meth:`commit`.
        """
        return self.actions.amend(message, author, leave=leave)

    def combine(self, kind: RequestKind, words: str, progress: Progress = lambda done, total: None) -> Combined:
        """Merge, cherry-pick, revert, restore or resolve: ``words`` are those that follow the command and the dataset.

        What is in conflict is in the answer, and nothing has changed then. Raises BadInput, NotFound, or Conflict where
        uncommitted changes are in the way. If a mount of another process writes to the branch, that mount does it, and
        MergeConflict says what is in conflict.
        """
        return self.actions.combine(kind, words, progress)

    def transaction(self, message: str, author: str | None = None) -> AbstractContextManager[Transaction]:
        """Commit what a block changes as one version; if it raises, take all of it back.

        A block that changes nothing makes no version. While it runs this process is the branch's only writer: what its
        other threads change is part of it. The value has the ``version`` afterwards, or None. Busy if there are
        uncommitted changes before, ReadOnly if another process writes. A commit that is refused (Held, NoSpace) leaves
        the changes uncommitted; so does the death of the process.
        """
        return transaction(self, message, author)

    def undo(self) -> None:
        """Take back every uncommitted change. What is staged, and no change yet, stays."""
        self.working.discard()

    def discard(self, prefix: str = "") -> None:
        """Go back to the base at and below ``prefix``: a key, or a word of
        :data:`~volfs.versions.branch_actions.EVERYTHING`.

        Or drop a staged file, by its path as ``status`` names it: ``s0/xy/z00011.png``. BadInput if none is staged or
        was rejected there. If a mount of another process writes to the branch, that mount does it.
        """
        self.actions.discard(prefix)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Keep everybody from writing while the branch is moved. Busy unless all of it is committed, ReadOnly if
        another process writes to it."""
        with self.writing(), self.turn:
            self.check_clean()
            yield

    def check_clean(self) -> None:
        """Raise Busy if files are open for writing, or something is uncommitted. Only with the lock."""
        if self.working.open_for_writing(wait=True):
            raise Busy(f"branch {self.ref!r} has files open for writing: close them first")
        if not self.is_clean():
            raise Busy(f"branch {self.ref!r} has uncommitted changes: commit or discard them first")

    @contextmanager
    def retiring(self, force: bool = False) -> Iterator[None]:
        """Keep everybody from writing while the branch is being removed, which needs ``force`` if it has changes."""
        try:
            self.dataset.store.reserve.freeing(self.working.lock.acquire)
        except ReadOnly as error:
            raise Busy(str(error)) from None
        try:
            if self.working.open_for_writing(wait=True):
                raise Busy(f"branch {self.ref!r} has files open for writing: close them first")
            if not force and not self.is_clean():
                raise Busy(f"branch {self.ref!r} has uncommitted changes: commit or discard them first")
            yield
        except BaseException:
            self.working.lock.release()
            raise
        self.working.close()

    def close(self) -> None:
        """Give up the writer's lock and close files. The branch can be used again."""
        self.working.close()

    def _check_writable(self) -> None:
        self.dataset.store.check_writable()
        if self.working.lock.held:
            return
        # Before the lock, whose file may be that of another dataset or branch by now.
        self.dataset.check_itself()
        if not self.dataset.ledger.has_ref(RefKind.BRANCH, self.ref):
            raise NotFound(f"branch {self.ref!r} of dataset {self.dataset.name!r} was removed")
