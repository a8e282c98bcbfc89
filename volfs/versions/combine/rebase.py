"""The versions of a branch, made once more on top of another version.

Decided here: which versions these are, and that the branch moves once, at the end, or not at all. A merge among them
counts as its changes to its first parent. Those whose changes are there already are left out. With ``--on`` another
branch gets them: what is in conflict stays in them as ours has it, and the newest leaves all of it open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from volfs.model.graph import VersionInfo
from volfs.storage.crash import crash_point
from volfs.versions.combine.combination import Progress
from volfs.versions.combine.combined_version import Change, combined, sides_of
from volfs.versions.combine.decisions import OpenConflict
from volfs.versions.combine.requests import Request
from volfs.versions.combine.scratch_branch import ScratchBranch
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.commit.writable_history import WritableBranch
from volfs.versions.committed.version_files import VersionFiles, read_version


def rebased(
    branch: WritableBranch,
    head: VersionInfo,
    onto: int,
    request: Request,
    progress: Progress,
    move: Callable[[int], None],
) -> tuple[int, tuple[OpenConflict, ...]]:
    """Make the branch's versions that ``onto`` lacks on top of it, and have ``move`` make the newest a branch's head.

    Answers with the newest, and what is in conflict: unless the request puts it on another branch, nothing has changed
    then. The caller holds the branch's lock.
    """
    dataset, graph = branch.dataset, branch.dataset.graph
    picked: list[int] = []
    for number in graph.first_parents(head.number):
        if graph.is_ancestor(number, onto):
            break
        picked.append(number)
    scratch = ScratchBranch(dataset, "rebasing", branch.ref)
    scratch.remove()
    tip, left = onto, list[OpenConflict]()
    try:
        for count, number in enumerate(reversed(picked)):
            progress(count, len(picked))
            info = dataset.info(number)
            before = next(iter(info.parents), 0)
            change = Change((before,) if before else (), number)
            with combined(branch, tip, change, request.decided, ids=request.ids) as changes:
                found = changes.found.conflicts
                if found and request.on is None:
                    return tip, tuple(found)
                sides = sides_of(dataset, change, tip)
                left += (replace(each, of=sides) for each in found)
                last = number == picked[0]
                if changes.empty and not (last and left):
                    continue
                other = (head.number,) if last and left else ()
                with VersionWriter(dataset, scratch.name, tip, extra_parents=other) as writer:
                    changes.write(writer)
                    meta = read_version(VersionFiles.of(dataset.objects, number)).meta
                    conflicts = [each.to_json() for each in left] if last else ()
                    writer.prepare(info.message, info.author, conflicts=conflicts, meta=meta)
                    tip = scratch.publish(writer).number
            crash_point("rebase.picked")
        move(tip)
        crash_point("rebase.moved")
    finally:
        scratch.remove()
    return tip, tuple(left)
