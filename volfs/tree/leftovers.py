"""Stages that an earlier daemon left: each is stored or dropped before anybody writes to its branch again.

A daemon that was killed, or unmounted, may have left files half written over slices
or chunks. No close of theirs succeeded, so nothing was acknowledged, and later writes to the same voxels are newer:

* its voxels were being stored: the rest of them is stored, but where chunks have changed since;
* it is whole, and nothing that it crosses has changed since it was begun: it becomes voxels;
* anything else that is not empty is dropped, and named in ``status.json`` with the reason;
* temporary names stay for a while, as those of this daemon do: nothing is decoded unless they are renamed.

Not here: how a stage of this daemon is decoded (:mod:`volfs.tree.branches.stage_handle`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from volfs.errors import BadInput, Damaged, NotFound, VolfsError
from volfs.model.box import Box
from volfs.tree.branches.invalidation import VoxelChange
from volfs.tree.branches.stage_handle import unstored
from volfs.tree.branches.stages import Stage, StageTarget
from volfs.tree.core.node import Node
from volfs.tree.files.staged_dir import StagedDir

if TYPE_CHECKING:
    from volfs.tree.branches.mounted_branch import MountedBranch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A stage that is written over ``target``, and the parts of its box that are to be stored."""

    stage: Stage
    target: StageTarget
    parts: list[Box] | None


class Leftovers:
    """The stages of one tree. ``at`` finds the node at a path."""

    def __init__(self, at: Callable[[str], Awaitable[Node | None]]) -> None:
        self._at = at

    async def settle(self, mounted: MountedBranch) -> None:
        """Store or drop the stages in a branch whose lock was just taken.

        All are judged before any is stored: planes that were being written at once may cross the same chunks. They are
        stored in the order in which they were begun.
        """
        left: list[tuple[Stage, str | None]] = await mounted.look(lambda: mounted.stages.left(mounted.limit))
        for stage, _ in left:
            mounted.stages.take_over(stage)
        verdicts = []
        for stage, damage in left:
            async with _dropped_if_hopeless(mounted, stage):
                if (verdict := await self._judge(mounted, stage, damage)) is not None:
                    verdicts.append(verdict)
        for verdict in sorted(verdicts, key=lambda each: each.stage.record.began_ns):
            async with _dropped_if_hopeless(mounted, verdict.stage):
                await mounted.fetch(partial(_store, mounted, verdict))
                await mounted.stages.drop(verdict.stage)
        if left:
            mounted.stages.changes += 1
            await mounted.kernel.invalidate_soon(VoxelChange())

    async def _judge(self, mounted: MountedBranch, stage: Stage, damage: str | None) -> _Verdict | None:
        """The parts of a stage that are to be stored; None for one that stays, or was dropped."""
        if damage is not None:
            raise Damaged(damage)
        target = await self._target(mounted, stage)
        if target is None:
            await mounted.asked(lambda: stage.note(reason="the mount ended while it was being written"))
            return None
        stage.target = target
        if not stage.size:
            await mounted.stages.drop(stage)
            return None
        return _Verdict(stage, target, await mounted.fetch(lambda: _unchanged(mounted, stage, target)))

    async def _target(self, mounted: MountedBranch, stage: Stage) -> StageTarget | None:
        """The file that it was written over; None for a temporary name. Raises NotFound if that is gone."""
        folder = await self._at(f"{mounted.images.path}/{stage.place[0]}")
        if not isinstance(folder, StagedDir):
            raise NotFound(f"there is no {stage.place[0]} any more")
        await folder.ready()
        target = await mounted.asked(lambda: folder.writer.target(stage.place[1]))
        if target is None and (stage.record.target or folder.writer.is_like(stage.place[1])):
            raise NotFound(f"{stage.place[1]} is no {folder.writer.word} of this image any more")
        return target


def _unchanged(mounted: MountedBranch, stage: Stage, target: StageTarget) -> list[Box] | None:
    """The parts of a stage that are to be stored, None for all. BadInput if it comes too late."""
    record = stage.record
    if record.target not in ("", target.digest()):
        raise BadInput("the image has changed since it was begun: it is not the same slice any more")
    if record.storing_ns:
        return target.unchanged(record.storing_ns)
    if target.newest() > record.began_ns or not _follows(mounted, record.over):
        raise BadInput("the mount ended before it was closed, and its voxels have changed since it was begun")
    return None


def _store(mounted: MountedBranch, verdict: _Verdict) -> None:
    stage, target = verdict.stage, verdict.target
    voxels = target.parse(stage.whole())
    if verdict.parts is None:
        stage.note(storing_ns=mounted.tick())
    target.store(voxels, verdict.parts)


def _follows(mounted: MountedBranch, over: int) -> bool:
    """True if the branch is at or after version ``over``, so that times can be compared."""
    base = mounted.branch.base
    number = base.number if base is not None else 0
    return over in (0, number) or (number > 0 and mounted.dataset.graph.is_ancestor(over, number))


@asynccontextmanager
async def _dropped_if_hopeless(mounted: MountedBranch, stage: Stage) -> AsyncIterator[None]:
    """Drop a stage, and record that, after an error that another attempt would raise again."""
    try:
        yield
    except (BadInput, NotFound, Damaged) as error:
        if stage.size:
            reason = str(error)
            if not reason.startswith("the mount ended"):
                reason = f"the mount ended while it was being written: {reason}"
            try:
                await mounted.look(lambda: mounted.reject(stage.place, reason))
            except (VolfsError, OSError) as full:  # it stays, since only its record names it
                log.warning("branch %s: %s stays: %s; %s", mounted.name, stage.name, reason, full)
                await mounted.asked(lambda: stage.note(reason=reason, refused=True))
                return
            log.warning("branch %s: %s was dropped: %s", mounted.name, stage.name, reason)
        await mounted.stages.drop(stage)
    except (VolfsError, OSError) as error:  # a full disk: it stays, to be tried again or written anew
        log.warning("branch %s: %s was left half written, and stays: %s", mounted.name, stage.name, error)
        await unstored(mounted, stage, error)
