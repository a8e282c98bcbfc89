"""The head of a branch, made anew with other content or another message, on top of the same parents.

Decided here: the steps, so that a process that dies anywhere has changed nothing or all. Not here: what the new content
is. The old head stays in the store, named by nothing, until ``gc`` takes it.

1. the changes to the head are written as a version on a branch of its own, ``amending.BRANCH``, which is hidden from
   nobody and short-lived: what a process left there that died is removed by the next;
2. what that version says in comparison with the head's parent is taken over, by reference, into the new head;
3. the branch's ref goes from the old head to the new one: the commit point; the branch of step 1 is removed, and its
   version dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from volfs.errors import BadInput, NotAllowed, NothingToCommit
from volfs.model.graph import VersionInfo
from volfs.model.refs import RefKind
from volfs.storage.crash import crash_point
from volfs.versions.combine.combined_version import Change, Words, combined
from volfs.versions.combine.scratch_branch import ScratchBranch
from volfs.versions.commit.placement import publish_over
from volfs.versions.commit.protocol import Frozen, check, pack, settle_own
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.commit.writable_history import WritableBranch
from volfs.versions.committed.version_files import VersionFiles, read_version

Fill = Callable[[VersionWriter], object]
"""Writes changes to the head into a version on top of it."""
_AMEND = "commit --amend"
Conflicts = Sequence[Mapping[str, Any]]


def amend(
    branch: WritableBranch,
    message: str | None = None,
    author: str | None = None,
    *,
    leave: frozenset[str] = frozenset(),
) -> VersionInfo:
    """Make the head anew with the uncommitted changes in it, or with another message. The caller holds the lock.

    NotAllowed if another branch or tag has the head; NothingToCommit if there is nothing to change. Open conflicts stay
    open.
    """
    with branch.turn:
        settle_own(branch)
        changed = check(branch, leave)
        head = amendable(branch)
        words = Words(head.message if message is None else message.strip(), author or head.author, what=_AMEND)
        if not changed:
            if message is not None and words.message == head.message:
                return head  # a repeat
            if (words.message, words.author) == (head.message, head.author):
                raise NothingToCommit(f"nothing to amend: branch {branch.ref!r} is the same as v{head.number}")
            return replaced(branch, head, words, branch.dataset.conflicts(head.number), None)
        return _with_changes(branch, head, words, leave)


def amendable(branch: WritableBranch) -> VersionInfo:
    """The branch's head. NotAllowed if it must stay as it is, since another branch or tag has it."""
    dataset, head = branch.dataset, branch.head
    if head is None:
        raise BadInput(f"branch {branch.ref!r} has no version that could be amended")
    _scratch(branch).remove()
    refs, graph = dataset.refs(), dataset.graph
    for kind in RefKind:
        for name, number in refs[kind].items():
            mine = kind is RefKind.BRANCH and name == branch.ref
            if number and not mine and graph.is_ancestor(head.number, number):
                raise NotAllowed(
                    f"v{head.number} cannot be amended: {kind.word} {name!r} has it; commit on top of it instead"
                )
    return head


def replaced(
    branch: WritableBranch,
    head: VersionInfo,
    words: Words,
    conflicts: Conflicts,
    fill: Fill | None,
    parents: Sequence[int] | None = None,
) -> VersionInfo:
    """Make the head anew, with the changes that ``fill`` writes, and the first of its parents only if that is said with
    ``parents``. The working copy has no changes in its way."""
    with _writers(branch, head, parents) as (draft, writer):
        _write(branch, head, draft, writer, words, conflicts, fill)
        info = publish_over(writer, branch.ref, head.number, words.what)
    _scratch(branch).remove()
    branch.follow()
    return info


def _with_changes(branch: WritableBranch, head: VersionInfo, words: Words, leave: frozenset[str]) -> VersionInfo:
    with _writers(branch, head) as (draft, writer):
        made = Frozen(branch, writer.number)
        made.intend(words.message, writer.draft.token)
        try:
            made.freeze(leave)
            conflicts = branch.dataset.conflicts(head.number)
            _write(branch, head, draft, writer, words, conflicts, lambda draft: pack(branch, made.union(), draft))
            info = publish_over(writer, branch.ref, head.number, _AMEND)
        except BaseException:
            made.end(committed=False)
            raise
    made.end(committed=True)
    crash_point("amend.cleaned")
    _scratch(branch).remove()
    return info


@contextmanager
def _writers(
    branch: WritableBranch, head: VersionInfo, parents: Sequence[int] | None = None
) -> Iterator[tuple[VersionWriter, VersionWriter]]:
    """The writers of the changes and of the new head, which has the greater number."""
    first, *others = (head.parents if parents is None else parents) or (0,)
    with (
        VersionWriter(branch.dataset, _scratch(branch).name, head.number) as draft,
        VersionWriter(branch.dataset, branch.ref, first, extra_parents=others) as writer,
    ):
        yield draft, writer


def _write(
    branch: WritableBranch,
    head: VersionInfo,
    draft: VersionWriter,
    writer: VersionWriter,
    words: Words,
    conflicts: Conflicts,
    fill: Fill | None,
) -> None:
    """Write the new head, durably; it does not exist yet."""
    content = head.number
    if fill is not None:
        fill(draft)
    if not draft.empty:
        draft.prepare(words.message, words.author)
        content = _scratch(branch).publish(draft).number
    crash_point("amend.drafted")
    first = next(iter(head.parents), 0)
    with combined(branch, first, Change((first,) if first else (), content)) as changes:
        changes.write(writer)
    meta = read_version(VersionFiles.of(branch.dataset.objects, head.number)).meta
    writer.prepare(words.message, words.author, conflicts=conflicts, meta=meta)
    crash_point("amend.prepared")


def _scratch(branch: WritableBranch) -> ScratchBranch:
    return ScratchBranch(branch.dataset, "amending", branch.ref)
