"""One mount from start to end, of any tree.

Decided here: the order of steps. At the start, the tree starts, the kernel mounts, and the mount is ready when it has
answered a request of our own. At the end, by an unmount or a signal, requests under way are answered first, then the
tree finishes. Not here: the contents (``volfs.tree``), the process around it (:mod:`volfs.fuse.daemon`).

If serving fails, the mount is left broken on purpose: programs then get ENOTCONN. An empty directory in its place
would make a mirror job delete its copy.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyfuse3
import trio

from volfs.errors import VolfsError
from volfs.fuse.adapter import Adapter
from volfs.fuse.dump import heed_signal
from volfs.fuse.front import check, pass_notes, stand_before
from volfs.fuse.limits import tune_kernel
from volfs.fuse.logs import reopen_log
from volfs.fuse.mountpoints import detach
from volfs.fuse.notify import KernelNotifier
from volfs.fuse.turns import stay_awake
from volfs.storage.mount_table import mounted_at
from volfs.tree.contract.api import TreeApi

log = logging.getLogger(__name__)

#: With pyfuse3's 99, 130 slow readers delay everybody's lookups by seconds.
_MAX_TASKS = 4000
#: How long requests under way, and programs with open files, may go on after a signal.
_GRACE_SECONDS = 5.0


class _Option(str):
    """A mount option that may hold any file name: pyfuse3 encodes options as ASCII, whatever they hold."""

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        return os.fsencode(str(self))


def mount_options(
    store: str,
    *,
    read_only: bool = False,
    allow_other: bool = False,
    default_permissions: bool = False,
    more: Iterable[str] = (),
) -> set[str]:
    """The mount options for libfuse. ``default_permissions``: the kernel checks owner and mode."""
    name = store.replace("\\", "\\\\").replace(",", "\\,")
    options = {_Option(f"fsname={name}"), "subtype=volfs"}
    if read_only:
        options.add("ro")
    if allow_other:
        options.add("allow_other")
    if default_permissions:
        options.add("default_permissions")
    return options | set(more)


@contextlib.contextmanager
def _mounted(
    adapter: Adapter, mountpoint: Path, options: set[str], notifier: KernelNotifier, front: Any | None
) -> Iterator[None]:
    """The FUSE session. Leaving it ends the connection and takes no mount away: that is done, or must not be."""
    stand_before(front)
    with tempfile.TemporaryFile() as said, _stderr_to(said.fileno()):
        try:
            pyfuse3.init(adapter, str(mountpoint), options)
        except RuntimeError:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            reason = lines[-1].removeprefix("fusermount3: ") if lines else "the kernel refused"
            raise VolfsError(f"{mountpoint}: cannot be mounted: {reason}") from None
    check(front)
    try:
        yield
    finally:
        if front is not None:
            front.end()
        if notifier.close():
            pyfuse3.close(unmount=False)
        else:
            log.warning("a notification to the kernel is still under way; the connection ends with the process")


@contextlib.contextmanager
def _stderr_to(fd: int) -> Iterator[None]:
    """Collect stderr in the block: libfuse and fusermount3 report errors only there."""
    before = os.dup(2)
    os.dup2(fd, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


class _Serving:
    """One mount while it answers requests, and the ways in which that ends."""

    def __init__(
        self, mountpoint: Path, on_ready: Callable[[], None], on_leaving: Callable[[], None], *, terminal: bool
    ) -> None:
        self._mountpoint = mountpoint
        self._on_ready = on_ready
        self._on_leaving = on_leaving
        self._terminal = terminal
        # The number tells this mount from any later one at the same place, which is not ours to take away.
        mounted = mounted_at(mountpoint)
        self._device = mounted.device if mounted is not None else None
        self._scope = trio.CancelScope()
        self._over = False

    async def until_unmounted(self) -> None:
        """Answer requests until the kernel ends the session, or :meth:`end_now` does."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce)
            with self._scope:
                await pyfuse3.main(max_tasks=_MAX_TASKS)
            self._over = True
            nursery.cancel_scope.cancel()

    def end_now(self) -> None:
        """Take no more requests; those under way get a little longer."""
        if not self._over:
            self._over = True
            pyfuse3.terminate()
            self._scope.deadline = trio.current_time() + _GRACE_SECONDS

    async def _announce(self) -> None:
        """Ask the mount for something, as its first client, and report that it answered."""
        await trio.to_thread.run_sync(os.stat, self._mountpoint, abandon_on_cancel=True)
        # Not before: at the end of FUSE's own negotiation the kernel takes what is set here back to its default.
        await trio.to_thread.run_sync(tune_kernel, self._mountpoint)
        log.info("%s answers", self._mountpoint)
        self._on_ready()

    async def heed(self, signals: AsyncIterator[int]) -> None:
        """The first SIGTERM or SIGINT takes the mount away and lets its users finish; the second does not wait."""
        asked = 0
        async with trio.open_nursery() as nursery:
            async for number in signals:
                if number == signal.SIGHUP and not self._terminal:
                    reopen_log()
                    log.info("SIGHUP: the log starts anew")
                    continue
                asked += 1
                log.info("%s: %s", signal.Signals(number).name, "unmounting" if asked == 1 else "not waiting")
                if asked == 1:
                    self._on_leaving()
                    nursery.start_soon(self._leave)
                else:
                    self.end_now()

    async def _leave(self) -> None:
        """Unmount while still answering, so that the kernel can write back what programs have mapped and left."""
        await trio.to_thread.run_sync(self._take_away, abandon_on_cancel=True)
        await trio.sleep(_GRACE_SECONDS)
        if not self._over:
            log.info("programs still use files of the mount; they get errors from now on")
            self.end_now()

    def _take_away(self) -> None:
        for lazy in (False, True):
            mounted = mounted_at(self._mountpoint)
            if mounted is None or mounted.device != self._device:
                return
            try:
                detach(self._mountpoint, lazy=lazy, tries=1)
            except VolfsError as error:
                log.log(logging.WARNING if lazy else logging.INFO, "%s", error)


def _has_terminal() -> bool:
    """True if the end of a terminal would reach this process as a signal: not below a service manager."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


async def serve(
    tree: TreeApi,
    notifier: KernelNotifier,
    mountpoint: Path,
    options: set[str],
    *,
    on_ready: Callable[[], None],
    on_leaving: Callable[[], None] = lambda: None,
    read_only: bool = False,
    foreground: bool = False,
    front: Any | None = None,
) -> None:
    """Mount ``tree`` and answer requests until it is unmounted, or until a signal asks to end.

    ``on_ready`` is called once, when the mount has answered; ``on_leaving`` when a signal has asked to end it. In the
    foreground of a terminal SIGHUP means that the terminal is gone; anywhere else it asks for a new log. SIGUSR1
    writes a report to the log. ``front``: what answers for the tree without Python (:mod:`volfs.fuse.front`).
    """
    stay_awake()
    heed_signal(tree.meter)
    adapter = Adapter(tree, never_written=read_only)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(tree.run)
            try:
                with _mounted(adapter, mountpoint, options, notifier, front):
                    serving = _Serving(mountpoint, on_ready, on_leaving, terminal=foreground and _has_terminal())
                    nursery.start_soon(serving.heed, signals)
                    nursery.start_soon(pass_notes, front, tree.passed, tree.catch_up)
                    await serving.until_unmounted()
            finally:
                with trio.CancelScope(shield=True):
                    await tree.close()
            nursery.cancel_scope.cancel()
