"""The commit protocol: how the working copy of a branch becomes its next version, whatever happens meanwhile.

Decided here: the steps, their order, and how each is undone or finished after a crash:

1. refuse keys that cannot be committed (held keys), changing nothing;
2. reserve the number, and write the intent ``working/B/commit.json`` that names it;
3. freeze: the changes become a layer of their own under a fresh top, and writers go on;
4. pack the frozen layer, with the keys derived from it (``branch.derive``), into ``.N.partial``; sync;
5. publish: rename, replace the ref, index (:mod:`volfs.versions.commit.publish`);
6. make the version the working copy's base, over which the frozen layer says nothing new;
7. remove the frozen layer, whose content readers now find in the base, and the intent.

Until the ref is replaced the commit has not happened: the frozen layer goes back into the working copy. Afterwards it
has, and the layer is removed. Not decided here: the meaning of a change (:mod:`volfs.versions.commit.changeset`), and
moving layers (:mod:`volfs.versions.working.layer_moves`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from volfs.errors import NotFound, NothingToCommit, VolfsError
from volfs.model.graph import VersionInfo
from volfs.model.names import is_ref_name
from volfs.storage.crash import crash_point
from volfs.storage.files import read_json, unlink_durably, write_json
from volfs.storage.store_layout import parse_frozen_dir
from volfs.versions.commit.changeset import Packer, held, problems
from volfs.versions.commit.follower import refusal
from volfs.versions.commit.frozen_state import Additions, FrozenState
from volfs.versions.commit.overlap import named
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.commit.writable_history import WritableBranch, WritableHistory
from volfs.versions.committed.version_files import VersionFiles, read_version
from volfs.versions.keys import covers
from volfs.versions.working import layer_moves
from volfs.versions.working.base_file import BaseFile
from volfs.versions.working.layer import scratch_name
from volfs.versions.working.union import Union

_NAMED = 5
"""Keys in a message; how many more there are is said."""


Wording = Callable[[], tuple[str, str | None]]
"""Gives the message and the author of a commit whose message was still being written when it began. It is asked once,
after everything that can keep the commit from happening, and may wait; an error that it raises undoes the commit."""


def commit(
    branch: WritableBranch,
    message: str,
    author: str | None = None,
    *,
    leave: frozenset[str] = frozenset(),
    wording: Wording | None = None,
    meta: Mapping[str, str] | None = None,
) -> VersionInfo:
    """Make the branch's uncommitted changes a version. The caller holds the branch's lock.

    ``leave``: keys or directories that stay uncommitted, besides those that are being written. A repeat of the head's
    message with nothing changed returns the head: commands that are sent twice do no harm. ``wording`` has the last
    word on message and author; until then ``message`` is how it begins. Raises Held, naming keys;
    NothingToCommit; Conflict if the branch moved meanwhile. In each case nothing is lost and nothing has changed.
    """
    message = message.strip()
    with branch.turn:
        settle_own(branch)
        return _commit(branch, message, author, leave, wording, meta)


def _commit(
    branch: WritableBranch,
    message: str,
    author: str | None,
    leave: frozenset[str],
    wording: Wording | None,
    meta: Mapping[str, str] | None,
) -> VersionInfo:
    changed = check(branch, leave)
    head = branch.head
    if not changed:
        return nothing(branch, head, message, wording, branch.working.look(branch.left_behind))
    with VersionWriter(branch.dataset, branch.ref, head.number if head else 0) as writer:
        made = Frozen(branch, writer.number)
        made.intend(message, writer.draft.token)
        crash_point("commit.intent")
        try:
            made.freeze(leave)
            crash_point("commit.frozen")
            pack(branch, made.union(), writer)
            if writer.empty:
                writer.abort()
                made.end(committed=True)  # all of it is in the base already
                return nothing(branch, head, message, wording)
            if wording is not None:
                writer.sync()  # what fails, fails before the first word is acknowledged
                message, author = wording()
            info = writer.publish(message, author, meta=meta)
        except BaseException:
            made.end(committed=False)
            raise
    made.end(committed=True)
    crash_point("commit.cleaned")
    return info


def check(branch: WritableBranch, leave: frozenset[str]) -> bool:
    """Whether there is something to commit besides ``leave``. Raises Conflict for a branch that is behind, and Held."""
    behind = branch.follow()
    if behind is not None:
        raise refusal(branch, behind)
    return changes_besides(branch, leave)


def changes_besides(branch: WritableBranch, leave: frozenset[str]) -> bool:
    """Whether something is uncommitted besides ``leave``, whatever it lies over. Raises Held."""

    def look(union: Union) -> tuple[bool, list[tuple[str, str]]]:
        left = leave | branch.left_behind(union)
        changed = any(not any(covers(key, c.key) for key in left) for c in union.changes()) or any(
            not any(covers(key, folder) for key in left) for folder, _ in union.folder_modes()
        )
        return changed, problems(union, branch.interpreter, left) if changed else []

    changed, bad = branch.working.look(look)
    if bad:
        raise held(bad)
    return changed


def nothing(
    branch: WritableBranch, head: VersionInfo | None, message: str, wording: Wording | None, left: Collection[str] = ()
) -> VersionInfo:
    """The head, if a commit of nothing repeats its message. Raises NothingToCommit."""
    if wording is not None and head is not None and head.message.startswith(message):
        message = wording()[0]
    if head is not None and head.message == message:
        return head
    same = f"branch {branch.ref!r} is {f'the same as v{head.number}' if head else 'empty'}"
    if left:
        raise NothingToCommit(
            f"nothing to commit: {same}, but for files open for writing; close {named(sorted(left), _NAMED)}"
        )
    raise NothingToCommit(f"nothing to commit: {same}")


def pack(branch: WritableBranch, union: Union, writer: VersionWriter) -> None:
    """Write the version. Keys derived from the frozen state count as changed too, and replace others."""
    bad = problems(union, branch.interpreter)
    if bad:  # a file that was fit when first looked at was written to before it was frozen
        raise held(bad)
    additions = Additions(Path(scratch_name(branch.working.layout)))
    try:
        branch.derive(FrozenState(branch.dataset, branch.ref, union, branch.interpreter), additions.put)
        if additions.count:
            union = Union((additions.layer, *union.layers), union.lower)
        Packer(union, branch.interpreter, writer).pack()
    finally:
        shutil.rmtree(additions.root, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Frozen:
    """The frozen layer of one commit in this process, and the intent that names it."""

    branch: WritableBranch
    number: int

    def intend(self, message: str, writer: str, over: VersionInfo | None = None, scratch: str = "") -> None:
        """Write the intent. ``over``: the version that the working copy lies over after the commit, if not its own;
        ``scratch``: a branch that is needed until then."""
        layout = self.branch.working.layout
        intent: dict[str, object] = {"version": self.number, "writer": writer, "message": message}
        if over is not None:
            intent |= {"over": over.number, "scratch": scratch}
        write_json(layout.commit_intent, intent)

    def freeze(self, leave: frozenset[str]) -> None:
        branch = self.branch
        branch.working.freeze(self.number, lambda union: leave | branch.left_behind(union))

    def union(self) -> Union:
        return Union((self.branch.working.frozen_layer(self.number),), self.branch.base_version())

    def end(self, *, committed: bool, over: VersionInfo | None = None) -> None:
        """Remove the frozen layer, whose content the version ``over``, by default the head, has; or take it back."""
        working = self.branch.working
        if committed:
            working.drop(self.number, over or self.branch.head)
        else:
            working.merge_back(self.number)
        unlink_durably(working.layout.commit_intent)


# -- after a crash ------------------------------------------------------------------------------------------------


def settle_working(dataset: WritableHistory, branch: str) -> None:
    """Finish or undo a commit whose process died. The caller holds the branch's lock; the branch is not open."""
    layout = dataset.layout.working(branch)

    def drop(number: int, over: VersionInfo | None) -> None:
        layer_moves.rest_on(layout, BaseFile(layout.base, lambda: False), over)
        crash_point("recover.based")
        base = None if over is None else dataset.version(over.number)
        layer_moves.drop(layout, number, lambda key: base is not None and base.stat(key) is not None)

    _settle(dataset, branch, drop=drop, merge_back=lambda number: layer_moves.merge_back(layout, number))


def settle_own(branch: WritableBranch) -> None:
    """:func:`settle_working` for a branch that this process has open: its writer died, and this one took the lock after
    it."""
    if branch.working.layout.commit_intent.exists():
        working = branch.working
        _settle(
            branch.dataset,
            branch.ref,
            drop=working.drop,
            merge_back=working.merge_back,
        )


def _head_of(dataset: WritableHistory, branch: str) -> VersionInfo | None:
    number = dataset.named_by_file(branch)
    return dataset.info(number) if number else None


def _settle(
    dataset: WritableHistory,
    branch: str,
    *,
    drop: Callable[[int, VersionInfo | None], None],
    merge_back: Callable[[int], None],
) -> None:
    layout = dataset.layout.working(branch)
    with dataset.locked():
        pass  # taking it settles a publication that was cut short
    try:
        intent = read_json(layout.commit_intent)
    except VolfsError:
        intent = {}
    # At most one layer is frozen; one that no intent names is a commit that did not happen.
    frozen = {n for n in (parse_frozen_dir(folder.name) for folder in layout.root.iterdir()) if n is not None}
    for number in sorted(frozen):
        if number == intent.get("version") and _is_committed(dataset, number, intent.get("writer")):
            over = intent.get("over")
            drop(number, dataset.info(over) if isinstance(over, int) else _head_of(dataset, branch))
        else:
            merge_back(number)
        crash_point("recover.settled")
    if isinstance(scratch := intent.get("scratch"), str) and is_ref_name(scratch):
        dataset.forget_branch(scratch)  # gc drops its version
    unlink_durably(layout.commit_intent)


def _is_committed(dataset: WritableHistory, number: int, writer: object) -> bool:
    """Whether version ``number`` exists and is the one that this writer was making."""
    try:
        dataset.info(number)
        return read_version(VersionFiles.of(dataset.objects, number)).writer == writer
    except NotFound:
        return False
