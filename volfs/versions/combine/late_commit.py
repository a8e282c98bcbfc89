"""A commit whose branch has moved meanwhile, to where the same keys were changed.

Decided here: that the engine says whether this is a conflict, chunk by chunk and voxel by voxel, as of any two lines of
history; and what becomes of changes that are made while this goes on. Not here: a commit whose changes touch nothing
that moved (:mod:`volfs.versions.commit.follower` lays them over the new head, and it is like any other).

0. the keys that both touch are looked at where they lie, so that what cannot go together is refused before anything is
   written, however much is uncommitted;
1. the uncommitted changes become a version on top of their base, on a branch of its own, ``committing.BRANCH``;
2. what that version changes is combined with the head: the branch's next version, by reference where nothing is merged;
3. the working copy, with what was written since, lies over the version of step 1, and follows from there to the head:
   what overlaps with that is still to be decided.

A conflict, or a process that dies before the ref of the branch is replaced, has changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from volfs.errors import Busy, MergeConflict, VolfsError
from volfs.model.box import Index
from volfs.model.graph import VersionInfo
from volfs.storage.crash import crash_point
from volfs.versions.combine.array_merge import alike, inside_of
from volfs.versions.combine.combined_version import Change, combined
from volfs.versions.combine.decisions import OpenConflict, mask_box
from volfs.versions.combine.key_merge import BOTH, merged_bytes
from volfs.versions.combine.scratch_branch import ScratchBranch
from volfs.versions.combine.voxels import Base, merge_block
from volfs.versions.commit.follower import refusal
from volfs.versions.commit.movement import base_of
from volfs.versions.commit.placement import publish_over
from volfs.versions.commit.protocol import Frozen, Wording, changes_besides, nothing, pack, settle_own
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.commit.writable_history import WritableBranch
from volfs.versions.committed.array import VersionArray
from volfs.versions.committed.version import Version
from volfs.versions.keys import covers, node_key
from volfs.versions.working.status import Behind
from volfs.versions.working.union import Union

_NAMED = 9


def commit_late(
    branch: WritableBranch,
    message: str,
    author: str | None = None,
    *,
    leave: frozenset[str] = frozenset(),
    wording: Wording | None = None,
    meta: Mapping[str, str] | None = None,
) -> VersionInfo | None:
    """Make the uncommitted changes of a branch that is behind its next version. The caller holds the branch's lock.

    None if the branch is not behind any more. MergeConflict, and nothing has changed, where both sides have changed the
    same. The rest as :func:`~volfs.versions.commit.protocol.commit`.
    """
    message = message.strip()
    with branch.turn:
        settle_own(branch)
        behind, head = branch.follow(), branch.head
        if behind is None or head is None:
            return None
        if not changes_besides(branch, leave):
            return nothing(branch, head, message, wording, branch.working.look(branch.left_behind))
        if found := branch.working.look(lambda union: _conflicts(branch, union, leave, behind, head)):
            raise _refused(branch, behind, found)
        scratch = ScratchBranch(branch.dataset, "committing", branch.ref)
        scratch.remove()
        try:
            return _commit(branch, scratch, behind, head, message, author, leave, wording, meta)
        except BaseException:
            scratch.remove()
            raise


def _commit(
    branch: WritableBranch,
    scratch: ScratchBranch,
    behind: Behind,
    head: VersionInfo,
    message: str,
    author: str | None,
    leave: frozenset[str],
    wording: Wording | None,
    meta: Mapping[str, str] | None,
) -> VersionInfo:
    dataset, base = branch.dataset, behind.base
    with (
        VersionWriter(dataset, scratch.name, base) as draft,
        VersionWriter(dataset, branch.ref, head.number) as writer,
    ):
        made = Frozen(branch, writer.number)
        made.intend(message, writer.draft.token)
        over = branch.base_version()
        mine = None if over is None else over.info
        try:
            made.freeze(leave)
            pack(branch, made.union(), draft)
            if not draft.empty:
                draft.prepare(message or "uncommitted changes", author, passing=True)
                mine = scratch.publish(draft)
                made.intend(message, writer.draft.token, over=mine, scratch=scratch.name)
            crash_point("late.drafted")
            theirs = base if mine is None else mine.number
            with combined(branch, head.number, Change((base,) if base else (), theirs), ids="refuse") as changes:
                if changes.found.conflicts:
                    raise _refused(branch, behind, changes.found.conflicts)
                new = not changes.empty
                if new:
                    changes.write(writer)
            if new:
                if wording is not None:
                    writer.sync()
                    message, author = wording()
                writer.prepare(message, author, meta=meta)
                crash_point("late.prepared")
                publish_over(writer, branch.ref, head.number, "commit")
            else:
                writer.abort()
        except BaseException:
            made.end(committed=False)
            raise
    crash_point("late.published")
    dataset.forget_branch(scratch.name)
    made.end(committed=True, over=mine)
    branch.follow()
    if mine is not None and mine.number != base:
        with suppress(Busy):  # what was written since lies over it, and overlaps with what moved
            dataset.drop(mine.number, why=scratch.name)
    now = branch.head
    return now if new and now is not None else nothing(branch, head, message, wording)


def _conflicts(
    branch: WritableBranch, union: Union, leave: frozenset[str], behind: Behind, head: VersionInfo
) -> list[OpenConflict]:
    """What is in conflict, of the keys that both sides touch and that are to be committed."""
    left = leave | branch.left_behind(union)
    base, newer = base_of(union), branch.dataset.version(head.number)
    found = []
    for key in behind.keys:
        if any(covers(each, key) for each in left):
            continue
        here = None if base is None else base.array_above(key)
        coords = None if here is None else here[0].meta.parse_chunk_key(here[1])
        if here is not None and coords is not None:
            found += _chunk_conflicts(union, key, coords, here[0], newer.array(here[0].path))
        else:
            before, ours, theirs = (None if side is None else _file(side, key) for side in (base, newer, union))
            if ours is None or theirs is None or merged_bytes(key, before, ours, theirs) is None:
                found.append(OpenConflict(key, BOTH))
    return found


def _chunk_conflicts(
    union: Union, key: str, coords: Index, base: VersionArray, ours: VersionArray | None
) -> list[OpenConflict]:
    meta, folder = base.meta, node_key(base.path)
    old, new = (None if array is None else array.payload(coords) for array in (base, ours))
    gone = new is None or union.stat(key) is None or (old is None and base.changed_in(coords) != 0)
    if ours is None or new is None or gone or not alike(meta, ours.meta) or not ours.readable:
        box = meta.grid.chunk_box(coords)
        return [OpenConflict(folder, BOTH, box, box.size, meta.dimension_names)]
    before = base.codec.filled() if old is None else base.codec.decode(old.read())
    mine = base.codec.decode(new.read())
    mask = merge_block(Base(before), mine, base.codec.decode(union.read(key))).conflicts
    mask &= inside_of(meta, coords)
    if not mask.any():
        return []
    first = tuple(i * n for i, n in zip(coords, meta.chunk_shape, strict=True))
    return [OpenConflict(folder, "", mask_box(mask, first), int(mask.sum()), meta.dimension_names)]


def _file(side: Version | Union, key: str) -> bytes | None:
    """The bytes of a file, None where there is none that can be read."""
    try:
        info = side.stat(key)
        return side.read(key) if info is not None and info.kind == "file" and not info.is_link else None
    except VolfsError:
        return None


def _refused(branch: WritableBranch, behind: Behind, conflicts: list[OpenConflict]) -> MergeConflict:
    listed = "; ".join(map(str, conflicts[:_NAMED]))
    more = f"; and {len(conflicts) - _NAMED:,} more" if len(conflicts) > _NAMED else ""
    return MergeConflict(f"{refusal(branch, behind)}. In conflict: {listed}{more}")
