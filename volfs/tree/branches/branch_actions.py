"""Actions of a branch that control files ask for: commits, discards and others.

Decided here: that one action of a branch runs at a time, that a request in the same words joins it, how long a write
waits for it, and which open files a commit waits for. Not here: the files (:mod:`volfs.tree.nodes.control`), the commit
itself (:mod:`volfs.versions.commit.protocol`)."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from volfs.errors import BadInput, Busy, Held, NotFound, VolfsError
from volfs.model.names import LATEST
from volfs.model.refs import RefKind
from volfs.tree.branches.draft import Draft
from volfs.tree.branches.invalidation import VoxelChange
from volfs.tree.branches.mounted_branch import MountedBranch
from volfs.tree.branches.order import Order
from volfs.tree.branches.stage_handle import Superseded, decode
from volfs.versions.branch_actions import EVERYTHING
from volfs.versions.commit.follower import Side
from volfs.versions.keys import covers
from volfs.versions.remote_commit import key_of_line

if TYPE_CHECKING:
    from volfs.versions.combine.requests import RequestKind

#: How long a commit waits for files that seem to be closed; and for those that were synced and left alone since, as
#: NFS servers leave them, which close idle files a second or two later. And how long a close waits for the end of a
#: commit that has everything but its words.
_CLOSING_SECONDS = 0.5
_IDLE_SECONDS = 8.0
_ENDING_SECONDS = 60.0

Work = Callable[[], Awaitable[None]]


async def discard(mounted: MountedBranch, text: str) -> Order:
    """Begin to go back to the head version at and below a key, or with everything."""
    prefix = "" if text in EVERYTHING else key_of_line(text)

    async def work() -> None:
        for stage in list(mounted.stages):
            if not prefix or covers(prefix, stage.name):
                # Its file is removed with the branch's: nobody reads what is still written to it.
                await mounted.stages.drop(stage, keep=True)
        await run_alone(lambda: mounted.branch.discard(prefix))
        mounted.stages.changes += 1
        mounted.images.forget()

    return await _begin(mounted, Order("discard", prefix), work)


async def tag(mounted: MountedBranch, text: str) -> None:
    """``paper`` tags the version that the branch shows, ``paper v3`` another: for clients that cannot make links, as
    those of SMB. The same again is no error, as it is not for a commit."""
    name, *at = text.split()[:3] or [""]
    if not name or len(at) > 1:
        raise BadInput("write the tag's name, and after it a version unless the branch's own is meant: paper v3")
    dataset, context = mounted.dataset, mounted.context

    def make() -> None:
        number = dataset.resolve(at[0] if at else mounted.name)
        if dataset.refs().tags.get(name) != number:
            dataset.create_tag(name, number)

    try:
        await mounted.look(make)
    finally:
        context.names_moved()
    tags = context.inodes.directory(f"{context.origin(dataset.name)}/{RefKind.TAG.directory}")
    context.notifier.queue_entry(tags, os.fsencode(name))


async def commit(mounted: MountedBranch, message: str, author: str | None) -> Order:
    """Begin a commit with a message that is complete."""
    order = Order("commit", message)
    return await _begin(mounted, order, lambda: _commit(mounted, order, author, None))


async def commit_words(mounted: MountedBranch, text: str) -> Order:
    """Begin a commit in the words of the command: of some keys, with something said of it, or of the newest version
    anew."""
    from volfs.versions.commit_request import CommitRequest  # late: most commits are a message

    request = CommitRequest.read(text)

    async def work() -> None:
        await _closed(mounted)
        await settle(mounted)
        await run_alone(lambda: mounted.branch.actions.commit_as_asked(request))
        _show_head(mounted, await _head(mounted))
        mounted.images.forget()

    return await _begin(mounted, Order("commit-words", text), work)


async def update(mounted: MountedBranch, text: str) -> Order:
    """Begin to decide what keeps the branch behind: ``ours`` or ``theirs`` and keys."""
    side, keys = decision(text)

    async def work() -> None:
        await settle(mounted)
        await run_alone(lambda: mounted.branch.update(side, keys))
        mounted.images.forget()

    return await _begin(mounted, Order("update", text), work)


async def publish(mounted: MountedBranch, text: str) -> Order:
    """Begin to give the version that an import has made its place, which only the holder of the branch may do, since
    that moves its head."""
    number, token = prepared(text)

    async def work() -> None:
        await settle(mounted)
        await run_alone(lambda: mounted.branch.publish(number, token))
        mounted.images.forget()
        _show_head(mounted, await _head(mounted))

    return await _begin(mounted, Order("publish", text), work)


def combine(kind: RequestKind) -> Callable[[MountedBranch, str], Awaitable[Order]]:
    """What begins a merge, or another of its kind, in the words of the command."""

    async def begin(mounted: MountedBranch, text: str) -> Order:
        from volfs.versions.combine.merges import refused  # late: a mount that merges nothing needs nothing of it
        from volfs.versions.combine.requests import Request

        request = Request.read(kind, text)

        def work_alone() -> None:
            found = mounted.branch.combine(kind, text)
            if found.conflicts:
                raise refused(request, mounted.name, found.conflicts)

        async def work() -> None:
            await settle(mounted)
            await run_alone(work_alone)
            mounted.images.forget()
            _show_head(mounted, await _head(mounted))

        return await _begin(mounted, Order(kind, text), work)

    return begin


async def commit_draft(mounted: MountedBranch, draft: Draft, author: str | None) -> Order:
    """Begin a commit whose message is still being written; or the one that goes on, if its words so far are the
    same."""
    order = Order("commit", draft.so_far(), draft)
    return await _begin(mounted, order, lambda: _commit(mounted, order, author, draft))


async def wording(mounted: MountedBranch, order: Order) -> None:
    """Wait until a commit lacks nothing but its message. Raises the error that stopped it."""
    with trio.move_on_after(mounted.context.options.action_seconds):
        async with trio.open_nursery() as nursery:

            async def wait(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait, order.done)
            if order.draft is not None:
                nursery.start_soon(wait, order.draft.asked)
    if order.error is not None:
        raise order.error


async def outcome(mounted: MountedBranch, order: Order) -> None:
    """Wait for an action as long as a request may take. Raises the error that stopped it.

    A commit that lacks nothing but its words is waited for to its end: little is left to do, so the version is there
    when the close returns, however busy the machine is.
    """
    ready = order.draft is not None and order.draft.asked.is_set()
    with trio.move_on_after(_ENDING_SECONDS if ready else mounted.context.options.action_seconds):
        await order.done.wait()
        if order.error is not None:
            raise order.error


async def _begin(mounted: MountedBranch, order: Order, work: Work) -> Order:
    """Start an action, or join the one under way: an NFS client that got no answer sends its write again."""
    await mounted.settled()
    await mounted.enter()
    with trio.move_on_after(mounted.context.options.action_seconds):
        # An import takes its place in a moment: a commit meanwhile waits for it instead of failing.
        while mounted.order is not None and mounted.order.words[0] == "publish" and mounted.order.words != order.words:
            await mounted.order.done.wait()
    under_way = mounted.order
    if under_way is not None:
        if under_way.words != order.words:
            raise Busy(f"branch {mounted.name!r}: a {under_way.words[0]} is going on, see .volfs/status.json")
        return under_way
    mounted.order = order
    mounted.branch.actions.last = order.action
    mounted.context.start(lambda: _carry_out(mounted, order, work))
    return order


async def _carry_out(mounted: MountedBranch, order: Order, work: Work) -> None:
    try:
        await work()
        await mounted.kernel.invalidate_soon(VoxelChange())
    except Exception as error:
        order.error = error
        mounted.branch.actions.last = order.action.failed(error)
        await mounted.note_refusal(f".volfs/{order.words[0]}", error)
    finally:
        order.action = mounted.branch.actions.last or order.action
        mounted.order = None
        order.done.set()


async def _commit(mounted: MountedBranch, order: Order, author: str | None, draft: Draft | None) -> None:
    await _closed(mounted)
    await settle(mounted)
    before = await _head(mounted)
    message = order.words[1]
    wording = draft.wording if draft is not None else None
    await run_alone(lambda: mounted.branch.commit(message, author, wording=wording))
    if (head := await _head(mounted)) != before:
        _show_head(mounted, head)
    mounted.images.forget()


def _show_head(mounted: MountedBranch, head: int) -> None:
    """Have the kernel ask for the branch's new version, ``head``."""
    dataset = mounted.context.origin(mounted.dataset.name)
    versions = mounted.context.inodes.directory(f"{dataset}/versions")
    for name in (f"v{head}", LATEST):
        mounted.context.notifier.queue_entry(versions, name.encode())


def prepared(text: str) -> tuple[int, str]:
    """The number and the token of a version that another process has prepared. Raises BadInput."""
    number, _, token = text.partition(" ")
    if not number.isdecimal() or len(number) > 18 or not token:
        raise BadInput("imports write here which version they have made; to make one yourself, write into commit")
    return int(number), token


def decision(text: str) -> tuple[Side, tuple[str, ...]]:
    """``ours`` or ``theirs``, and after it the keys meant: one, or one on each line. Raises BadInput."""
    first, *more = text.split("\n")
    side, _, key = first.strip().partition(" ")
    if side not in ("ours", "theirs"):
        raise BadInput("write ours or theirs, and after it the key if not all are meant: theirs files/notes.txt")
    keys = (key_of_line(each) for each in (key, *more) if each.strip())
    return ("ours" if side == "ours" else "theirs"), tuple(keys)


async def _closed(mounted: MountedBranch) -> None:
    """Wait for files that programs have closed: the kernel reports the last close a moment after it has returned, and
    files open for writing stay behind. The wait is short: the closed descriptor may not have been the last."""
    began = trio.current_time()
    while mounted.closing or (
        left := [handle for handle in mounted.context.files.of_branch(mounted) if handle.flushed]
    ):
        waited = trio.current_time() - began
        if waited > _IDLE_SECONDS or (
            waited > _CLOSING_SECONDS and not mounted.closing and not any(handle.synced for handle in left)
        ):
            return
        await trio.sleep(0.002 if waited < _CLOSING_SECONDS else 0.02)


async def settle(mounted: MountedBranch) -> None:
    """Decode every complete stage now: a program that writes through a mapping never says that it is done.

    Stages that are incomplete, or can never be decoded, stay as they are. Raises Held, naming the stage, if one whose
    bytes were acknowledged cannot be stored now: a commit would be incomplete without it.
    """
    for stage in list(mounted.stages):
        try:
            await decode(mounted, stage, late=True)
        except (BadInput, Superseded):
            pass  # its record says why, and the commit names it
        except (VolfsError, OSError) as error:
            raise Held(f"{stage.name} cannot be stored: {error}; mend that, or discard it") from error


async def run_alone(work: Callable[[], object]) -> None:
    """Run a long action on a thread of its own: it must not wait for readers, nor they for it."""
    await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1))


async def _head(mounted: MountedBranch) -> int:
    """The number of the branch's newest version; 0 if there is none."""
    with suppress(NotFound):
        head = await mounted.asked(lambda: mounted.branch.head)
        if head is not None:
            return head.number
    return 0
