"""Starting and stopping the daemon behind a mount, from another process.

Decided here: when ``volfs mount`` returns (the mount answers), when ``volfs umount`` returns (the daemon has ended and
its store is closed), and the errors of both. Not here: the daemon (:mod:`volfs.fuse.daemon`), and checks of a
mountpoint (:mod:`volfs.fuse.mountpoints`).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired

from volfs.errors import BadInput, Busy, NotFound, VolfsError
from volfs.fuse.limits import ending_connection
from volfs.fuse.mountpoints import (
    PATIENCE_SECONDS,
    check_machine,
    check_mountpoint,
    dead_mount,
    detach,
    health,
    is_broken,
)
from volfs.fuse.processes import Daemon, MountOptions, command_line, daemon_of, default_log, readable
from volfs.storage.mount_table import canonical, mounted_at

#: A daemon that is told to stop lets requests under way finish for a few seconds (see daemon.py).
_STOPPING_SECONDS = 15.0
_SLOW_SECONDS = 5.0
#: A mount that answers nothing for so long is taken away from whoever waits for it.
_SILENT_SECONDS = 60.0
_LOOK_AGAIN_SECONDS = 0.2


def mount(
    store: Path,
    mountpoint: Path,
    options: MountOptions | None = None,
    *,
    patience: float = math.inf,
    on_slow: Callable[[Path], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Popen[bytes]:
    """Mount ``store`` at ``mountpoint`` in a daemon of its own; returns its process when the mount answers.

    ``on_slow`` is called with the log's path if that takes more than a few seconds (a store recovering from a crash),
    ``say`` with a sentence for whoever mounts: that a dead mount had to be taken away first, or that the catalog
    lies badly.
    Raises the error, of this process or of the daemon, or Busy when ``patience`` (s) ends; nothing is left mounted
    then.
    """
    options = options or MountOptions()
    place = prepare(store, mountpoint, options, say)
    log = Path(options.log) if options.log else default_log(place)
    _make_log_directory(log)
    options = replace(options, log=str(log))
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as ready:
        with os.fdopen(write_end, "wb"), log.open("ab") as output:
            process = Popen(
                command_line(store, place, options, f"--ready-fd={write_end}"),
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(write_end,),
                env=_environment(),
            )
        try:
            if not readable(read_end, min(_SLOW_SECONDS, patience)):
                if on_slow is not None:
                    on_slow(log)
                if not readable(read_end, patience - _SLOW_SECONDS):
                    raise Busy(f"{place}: the mount does not answer after {patience:g} seconds; see {log}")
            _read_answer(ready.read(), process, log, say)
        except BaseException:
            _end(process)
            raise
    return process


def mount_in_foreground(
    store: Path, mountpoint: Path, options: MountOptions, say: Callable[[str], None] | None = None
) -> None:
    """Become the daemon: replaces this process. Logs to stderr unless the options name a log."""
    place = prepare(store, mountpoint, options, say)
    if options.log is None:
        options = replace(options, log="-")
    command = command_line(store, place, options, "--foreground")
    os.execve(command[0], command, _environment())


def _environment() -> dict[str, str]:
    """The environment of a daemon, which does no linear algebra: numpy's library for it would start a thread for each
    core."""
    return {"OPENBLAS_NUM_THREADS": "1", **os.environ}


def prepare(store: Path, mountpoint: Path, options: MountOptions, say: Callable[[str], None] | None = None) -> Path:
    """The canonical mountpoint. Raises an error if it can be known beforehand that mounting will fail."""
    check_machine(allow_other=options.allow_other)
    said = mend(mountpoint)
    if said and say is not None:
        say(said)
    return check_mountpoint(mountpoint, store)


def mend(mountpoint: Path) -> str:
    """Unmount what a daemon that died has left at ``mountpoint``. Returns a sentence about it; "" if nothing was done.

    Only a mount that is certainly dead: a mount of volfs, to which the kernel says that its connection has ended, and
    for which no daemon runs. Whoever still has files open there keeps getting errors.
    """
    place = canonical(mountpoint)
    said = ""
    _end_killed(place)
    while (dead := dead_mount(place)) is not None:
        with daemon_of(place) as daemon:
            if daemon is not None and not daemon.wait(_STOPPING_SECONDS):
                raise Busy(
                    f"{place}: a broken mount, whose daemon (process {daemon.pid}) still runs; "
                    f"end it with: volfs umount --force {place}"
                )
        if dead_mount(place) != dead:
            continue
        detach(place, lazy=True)
        said = f"{place}: took away a dead mount of {dead.source}, left by a daemon that died"
    return said


def _end_killed(place: Path) -> None:
    """End the connection of a daemon that was killed, and that the kernel holds for a program that waits for it."""
    mounted = mounted_at(place)
    if mounted is None or not mounted.is_volfs:
        return
    with ending_connection(mounted.device) as end, daemon_of(place) as daemon:
        if daemon is not None and daemon.killed and not daemon.wait(PATIENCE_SECONDS):
            end()
            daemon.wait(_STOPPING_SECONDS)


def wait_for(store: Path, mountpoint: Path, patience: float) -> float:
    """Wait until a store and a directory are there, as they are once the disks they lie on are mounted.

    A dead mount is there, too. Returns the rest of ``patience`` (s). Raises NotFound, naming what is missing, when that
    ends.
    """
    end = time.monotonic() + patience
    while not ((store / "volfs.json").exists() and (os.path.lexists(mountpoint) or dead_mount(canonical(mountpoint)))):
        if time.monotonic() > end:
            missing = f"{mountpoint}: no directory" if os.path.lexists(store / "volfs.json") else f"{store}: no store"
            raise NotFound(f"{missing} there after {patience:g} seconds")
        time.sleep(_LOOK_AGAIN_SECONDS)
    return max(0.0, end - time.monotonic())


def _make_log_directory(log: Path) -> None:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.open("ab").close()
    except OSError as error:
        raise BadInput(
            f"{log}: the log cannot be written ({error.strerror}); choose another place with --log"
        ) from None


def _read_answer(message: bytes, process: Popen[bytes], log: Path, say: Callable[[str], None] | None) -> None:
    """Read the one line that the daemon writes when it is ready, or when it fails; none if it was killed or did not
    start."""
    if not message:
        status = process.wait()
        raise VolfsError(f"the volfs daemon ended before it was ready (status {status}): {_last_line(log)} (see {log})")
    answer = json.loads(message)
    if "error" in answer:
        process.wait()
        raise VolfsError(str(answer["error"]), errno=answer.get("errno"))
    if answer["note"] and say is not None:
        say(answer["note"])


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


def _end(process: Popen[bytes]) -> None:
    """End a daemon that this process started, whatever state it is in."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            with contextlib.suppress(TimeoutExpired):
                process.wait(_STOPPING_SECONDS)


def unmount(
    mountpoint: Path,
    *,
    force: bool = False,
    patience: float = 60.0,
    silence: float = _SILENT_SECONDS,
    say: Callable[[str], None] | None = None,
) -> None:
    """Unmount, and wait until the daemon has closed its store.

    ``force`` takes the mount away from programs that still use it. A broken mount, whose daemon has died, is taken
    away in either case; so is one whose daemon was killed and is held by the kernel, or has answered nothing for
    ``silence`` seconds: ``say`` is called with a sentence then. What a close or an fsync has acknowledged is safe
    however the daemon ends.
    """
    place = canonical(mountpoint)
    mounted = mounted_at(place)
    with daemon_of(place) as daemon, contextlib.ExitStack() as stack:
        if mounted is None and daemon is None:
            raise NotFound(f"{place}: nothing is mounted here")
        end_connection: Callable[[], None] | None = None
        if mounted is not None:
            if not mounted.is_volfs:
                raise BadInput(f"{place}: this is a mount of type {mounted.kind}, not of volfs; use umount")
            end_connection = stack.enter_context(ending_connection(mounted.device))
            trouble = "" if force else _trouble(place, daemon, silence)
            if trouble:
                force = True
                if say is not None:
                    say(f"{place}: {trouble}; programs that wait for it get an error")
                end_connection()
            detach(place, lazy=force or is_broken(place))
        if daemon is None:
            return
        if force:
            _end_by_force(daemon, end_connection)
        elif not daemon.wait(patience):
            raise Busy(f"{place}: unmounted, but its daemon (process {daemon.pid}) still runs; see {daemon.log}")


def _trouble(place: Path, daemon: Daemon | None, silence: float) -> str:
    """The reason why the mount at ``place`` will not answer again; "" if it does, or has lost its connection
    already."""
    if health(place) != "hanging":
        return ""
    if daemon is not None and daemon.killed:
        return f"its daemon (process {daemon.pid}) was killed, and the kernel holds it for a program that waits for it"
    if health(place, silence) != "hanging":
        return ""
    return f"it has not answered for {silence:g} seconds, and is taken away by force"


def _end_by_force(daemon: Daemon, end_connection: Callable[[], None] | None) -> None:
    """End the daemon by SIGTERM, then by force: programs with open files keep a lazily unmounted filesystem, and its
    daemon, alive.

    A daemon that hangs in the kernel over a request of its own is not ended by SIGKILL, only by ending its connection.
    """
    asking: list[tuple[tuple[signal.Signals, ...], float]] = [
        ((), 1.0),
        ((signal.SIGTERM, signal.SIGINT), _STOPPING_SECONDS),  # the second one says not to wait for programs
        ((signal.SIGKILL,), 5.0),
    ]
    for signals, seconds in asking:
        if signal.SIGKILL in signals and end_connection is not None:
            end_connection()
        for number in signals:
            daemon.signal(number)
        if daemon.wait(seconds):
            return
    raise Busy(f"the daemon (process {daemon.pid}) cannot be ended; see {daemon.log}")
