"""Commit, discard, update, publish, merge and the like: the actions that only the holder of a branch may carry out.

Decided here: whether this process acts, or asks the mount that holds the branch, and the record that is kept of an
action (:class:`~volfs.versions.working.status.Action`). Not here: how a mount is asked
(:mod:`volfs.versions.remote_commit`), how a commit is made (:mod:`volfs.versions.commit.protocol`), how a prepared
version becomes the head (:mod:`volfs.versions.commit.placement`), how the base follows the head
(:mod:`volfs.versions.commit.follower`), and how versions are combined (:mod:`volfs.versions.combine.merges`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from volfs.errors import BadInput, Busy, Conflict, ReadOnly
from volfs.model.graph import VersionInfo
from volfs.model.names import check_message, check_meta
from volfs.versions.author import default_author
from volfs.versions.commit.follower import Follower, Side
from volfs.versions.commit.head_move import HeadMove, move_head
from volfs.versions.commit.placement import publish_prepared
from volfs.versions.commit.protocol import Wording, commit
from volfs.versions.commit.writable_history import WritableBranch
from volfs.versions.commit_request import CommitRequest
from volfs.versions.keys import covers, is_key
from volfs.versions.remote_commit import ask_mount, key_line, rename_in_mount
from volfs.versions.working.branch_lock import Holder
from volfs.versions.working.status import Action, ActionKind, Behind, Left, forget_staged, staged_files
from volfs.versions.working.union import Union

if TYPE_CHECKING:
    from volfs.versions.combine.combination import Progress as CombineProgress
    from volfs.versions.combine.merges import Combined
    from volfs.versions.combine.requests import RequestKind

EVERYTHING = ("", "all", ".", "/")
"""Words that stand, in the place of a key, for all uncommitted changes."""


class ActingBranch(WritableBranch, Protocol):
    """A branch as its actions know it."""

    @property
    def follower(self) -> Follower:
        """Moves the base to the head."""

    def look_again(self) -> None:
        """Read the head from the ref file again. Only with the lock."""


@dataclass(slots=True)
class _Outcome:
    """The result of an action: its words in the end, the version that a commit made, and what the commit left."""

    message: str
    version: int | None = None
    left: tuple[Left, ...] = ()


class Actions:
    """The actions on one branch. ``last`` is the one under way, or the newest that has ended."""

    def __init__(self, branch: ActingBranch) -> None:
        self._branch = branch
        self.last: Action | None = None

    def commit(
        self,
        message: str,
        author: str | None = None,
        *,
        leave: Iterable[str] = (),
        wording: Wording | None = None,
        meta: Mapping[str, str] | None = None,
    ) -> VersionInfo:
        """See :meth:`volfs.versions.branch.Branch.commit`."""
        branch, dataset = self._branch, self._branch.dataset
        dataset.store.check_writable()
        check_message(message)
        check_meta(meta or {})
        mount, left = self._mount(), frozenset(leave)
        if mount is None:
            if wording is None:
                dataset.rules.check_message(message)
            with self._acting("commit", message) as outcome, branch.writing():
                head = branch.head
                if head is not None and dataset.is_open(head.number):
                    # On a branch of a merge that is not closed, what mends it goes into that version.
                    if meta:
                        raise BadInput(f"v{head.number} has open conflicts, and keeps what is said of it: no meta now")
                    if wording is not None:
                        message, author = wording()
                    from volfs.versions.combine.amendment import amend  # late, as in amend()

                    info = amend(branch, message, author, leave=left)
                else:
                    info = self._commit(message, author, left, wording, meta)
                outcome.version, outcome.message, outcome.left = info.number, info.message, self._left()
            return info
        author = author or default_author()
        if left or meta:
            request = CommitRequest(message, author, leave=tuple(sorted(left)), meta=dict(meta or {}))
            return self._ask_to_commit(mount, "commit-words", request.text)
        return self._ask_to_commit(mount, "commit", message, author)

    def commit_as_asked(self, request: CommitRequest) -> VersionInfo:
        """Commit, or amend the newest version. BadInput for a key at and below which nothing is uncommitted."""
        branch = self._branch
        mount = self._mount()
        if mount is not None:
            branch.dataset.store.check_writable()
            if request.message is not None and request == CommitRequest(request.message, request.author):
                return self.commit(request.message, request.author)
            if request.author is None and not request.amend:
                request = replace(request, author=default_author())
            return self._ask_to_commit(mount, "commit-words", request.text)
        leave = frozenset(request.leave) | (self._all_but(request.keys) if request.keys else frozenset())
        if request.amend:
            return self.amend(request.message, request.author, leave=leave)
        return self.commit(request.message or "", request.author, leave=leave, meta=request.meta)

    def _ask_to_commit(self, mount: Holder, kind: ActionKind, text: str, author: str | None = None) -> VersionInfo:
        branch, dataset = self._branch, self._branch.dataset
        described = self._ask(mount, kind, text, author)
        self.last = Action.by_mount(described)
        dataset.store.refresh()
        number = described.get("version")
        if not isinstance(number, int):
            number = branch.head.number if branch.head is not None else 0
        return self._info(number)

    def _commit(
        self,
        message: str,
        author: str | None,
        leave: frozenset[str],
        wording: Wording | None,
        meta: Mapping[str, str] | None,
    ) -> VersionInfo:
        """Commit; where the head has moved to where the same was changed, by the engine that combines versions."""
        branch = self._branch
        try:
            return commit(branch, message, author, leave=leave, wording=wording, meta=meta)
        except Conflict:
            if branch.follower.behind() is None:
                raise
        from volfs.versions.combine.late_commit import commit_late  # late: few commits need anything of it

        info = commit_late(branch, message, author, leave=leave, wording=wording, meta=meta)
        if info is None:
            info = commit(branch, message, author, leave=leave, wording=wording, meta=meta)
        return info

    def discard(self, prefix: str = "") -> None:
        """See :meth:`volfs.versions.branch.Branch.discard`."""
        branch = self._branch
        branch.dataset.store.check_writable()
        prefix = "" if prefix in EVERYTHING else prefix.rstrip("/")
        mount = self._mount()
        if mount is not None:
            self._ask(mount, "discard", key_line(prefix))
            return
        with self._acting("discard", prefix), branch.writing():
            key = is_key(prefix)
            if not prefix or key:
                branch.working.discard(prefix)
            if not key and not forget_staged(branch.working.layout, prefix) and prefix:
                raise BadInput(
                    f"{prefix!r} is no key, and nothing of this name is staged or was refused: give a key such as"
                    " zarr/s0 or files/notes.txt, a slice as `volfs status` names it, or all"
                )

    def update(self, side: Side, keys: Iterable[str] = ()) -> Behind | None:
        """See :meth:`volfs.versions.branch.Branch.update`."""
        branch = self._branch
        branch.dataset.store.check_writable()
        chosen = tuple(key.strip("/") for key in keys)
        if "" in chosen:
            raise BadInput("an empty key is no key: to decide about all keys, give none")
        mount = self._mount()
        if mount is not None:
            self._ask(mount, "update", "\n".join((side, *map(key_line, chosen))))
            branch.dataset.store.refresh()
        else:
            with self._acting("update", "\n".join((side, *chosen))), branch.writing(), branch.working.exclusive():
                branch.look_again()
                branch.follower.decide(side, chosen)
        return branch.follower.behind()

    def publish(self, number: int, token: str) -> VersionInfo:
        """See :meth:`volfs.versions.branch.Branch.publish`."""
        mount, order = self._mount(), f"{number} {token}"
        if mount is not None:
            published = self._ask(mount, "publish", order).get("version")
            if not isinstance(published, int):
                raise Busy(f"{mount} has published v{number}, and did not say under which number: see `volfs log`")
            return self._info(published)
        move = HeadMove.parse(number, token)
        try:
            with self._acting("publish", order) as outcome, self._branch.writing():
                branch = self._branch
                info = publish_prepared(branch, number, token) if move is None else move_head(branch, move)
                outcome.version = info.number
        except ReadOnly as error:
            raise Busy(str(error)) from None  # others write in turns, or a mount has just come
        return info

    def carry_over(self, number: int) -> VersionInfo:
        """See :meth:`volfs.versions.branch.Branch.carry_over`."""
        from volfs.versions.combine.merges import refused  # late, as in combine()
        from volfs.versions.combine.requests import Request, words_of

        branch, info = self._branch, self._branch.dataset.info(number)
        words = words_of([f"v{number}"], values=[("--message", info.message), ("--author", info.author)])
        found = self.combine("cherry-pick", words)
        if found.conflicts or found.version is None:
            raise refused(Request.read("cherry-pick", words), branch.ref, found.conflicts)
        return found.version

    def amend(self, message: str | None = None, author: str | None = None, *, leave: Iterable[str] = ()) -> VersionInfo:
        """See :meth:`volfs.versions.branch.Branch.amend`."""
        from volfs.versions.combine.amendment import amend  # late: who only reads or commits needs nothing of it

        branch = self._branch
        branch.dataset.store.check_writable()
        if message is not None:
            check_message(message)
        if (mount := self._mount()) is not None:
            request = CommitRequest(message, author, leave=tuple(sorted(leave)), amend=True)
            return self._ask_to_commit(mount, "commit-words", request.text)
        with self._acting("commit", message or "") as outcome, branch.writing():
            info = amend(branch, message, author, leave=frozenset(leave))
            outcome.version, outcome.message, outcome.left = info.number, info.message, self._left()
        return info

    def _all_but(self, keys: Iterable[str]) -> frozenset[str]:
        """The changes that are neither at nor below any of some keys, for a commit to leave. BadInput for a key that is
        unchanged."""
        chosen = tuple(key.strip("/") for key in keys)

        def see(union: Union) -> frozenset[str]:
            changed = [*(change.key for change in union.changes()), *(folder for folder, _ in union.folder_modes())]
            for key in chosen:
                if not any(covers(key, each) for each in changed):
                    raise BadInput(f"nothing is uncommitted at or below {key}")
            return frozenset(each for each in changed if not any(covers(key, each) for key in chosen))

        return self._branch.working.look(see)

    def combine(self, kind: RequestKind, words: str, progress: CombineProgress = lambda done, total: None) -> Combined:
        """See :meth:`volfs.versions.branch.Branch.combine`."""
        from volfs.versions.combine.decisions import OpenConflict  # late: who only reads or commits needs nothing of it
        from volfs.versions.combine.merges import Combined, carry_out, refused
        from volfs.versions.combine.requests import Request

        branch = self._branch
        branch.dataset.store.check_writable()
        request = Request.read(kind, words)
        mount = self._mount()
        if mount is not None:
            if request.author is None and kind not in ("cherry-pick", "rebase", "resolve"):
                words = f"{shlex.join([f'--author={default_author()}'])} {words}"
            before = branch.head
            described = self._ask(mount, kind, words)
            branch.dataset.store.refresh()
            number = described.get("version")
            info = self._info(number) if isinstance(number, int) else branch.head
            left = () if info is None else branch.dataset.conflicts(info.number)
            return Combined(info, made=info != before, left_open=tuple(map(OpenConflict.of_json, left)))
        with self._acting(kind, words) as outcome, branch.writing():
            found = carry_out(branch, request, progress)
            outcome.version = None if found.version is None else found.version.number
            action = self.last
        if found.conflicts and action is not None:
            self.last = action.failed(refused(request, branch.ref, found.conflicts))
        return found

    def move(self, number: int, before: int) -> bool:
        """Have the mount that holds the branch move it from one version to another, wherever that lies. False if no
        mount holds it. Busy unless all is committed."""
        mount = self._mount()
        if mount is not None:
            self._ask(mount, "publish", f"{number} {HeadMove(number, before, forced=True, clean=True).token}")
            self._branch.dataset.store.refresh()
        return mount is not None

    def rename(self, name: str) -> bool:
        """Have the mount that holds the branch give it another name. False if no mount holds it."""
        mount = self._mount()
        if mount is not None:
            rename_in_mount(mount, self._branch.dataset.name, self._branch.ref, name)
            self._branch.dataset.store.refresh()
        return mount is not None

    def _mount(self) -> Holder | None:
        """The mount of another process that holds the branch; None if this process may act."""
        holder = self._branch.working.lock.holder()
        return None if holder is None or holder.mountpoint is None else holder

    def _ask(self, mount: Holder, kind: ActionKind, text: str, author: str | None = None) -> dict[str, Any]:
        return ask_mount(mount, self._branch.dataset.name, self._branch.ref, kind, text, author)

    def _info(self, number: int) -> VersionInfo:
        """A version that a mount has made, which has a catalog of its own."""
        dataset = self._branch.dataset
        if number not in dataset.graph.versions:
            with dataset.locked():
                pass  # taking the lock catches up
        return dataset.info(number)

    def _left(self) -> tuple[Left, ...]:
        """Everything that a commit has left uncommitted."""
        working = self._branch.working
        written = [Left(key, "it is still being written") for key in sorted(working.look(self._branch.left_behind))]
        return (*written, *(Left(each.path, each.reason) for each in staged_files(working.layout)))

    @contextmanager
    def _acting(self, kind: ActionKind, message: str) -> Iterator[_Outcome]:
        """Keep :attr:`last` true during an action. The block fills in the outcome."""
        outcome = _Outcome(message)
        self.last = action = Action.begin(kind, message)
        try:
            yield outcome
        except Exception as error:
            self.last = action.failed(error)
            raise
        self.last = action.done(outcome.version, outcome.message, outcome.left)
