"""The mounts of this machine, checks of a new mountpoint, and unmounting.

Decided here: which directory is a good mountpoint, the errors for others, and which system call or program unmounts.
Not here: the daemon behind a mount (:mod:`volfs.fuse.daemon`), starting and stopping it (:mod:`volfs.fuse.launcher`).

Nothing here touches a mounted filesystem without need: asking a broken or hanging mount for anything blocks or fails,
so the kernel's own table of mounts is read instead.
"""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import shutil
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Literal

from volfs.errors import BadInput, Busy, NotAllowed, NotFound, VolfsError, WrongKind
from volfs.storage.mount_table import Mounted, canonical, mount_holding, mounted_at

#: Said of a mount whose daemon has died.
BROKEN = frozenset({errno.ENOTCONN, errno.ECONNABORTED})
#: How long a mount may take to answer before it counts as hanging.
PATIENCE_SECONDS = 2.0
MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8


def health(place: Path, patience: float = PATIENCE_SECONDS) -> Literal["alive", "broken", "hanging"]:
    """The state of the mount at ``place``: broken if it has lost its daemon, hanging if it does not answer within
    ``patience`` (s)."""
    found: list[Literal["alive", "broken"]] = []

    def ask() -> None:
        try:
            os.statvfs(place)
        except OSError as error:
            found.append("broken" if error.errno in BROKEN else "alive")
        else:
            found.append("alive")

    # A thread that waits for a hanging mount is left behind: only the daemon, or the end of this process, frees it.
    asking = threading.Thread(target=ask, name="volfs-ask", daemon=True)
    asking.start()
    asking.join(patience)
    return found[0] if found else "hanging"


def is_broken(place: Path) -> bool:
    """True if the mount at ``place`` has lost its daemon."""
    return health(place) == "broken"


def check_mountpoint(path: Path, store: Path) -> Path:
    """The canonical path of ``path``. Raises an error with advice if ``store`` cannot be mounted there."""
    place = canonical(path)
    already = mounted_at(place)
    if already is not None and already.is_volfs:
        found = health(place)
        if found == "broken":
            raise _unusable(place, OSError(errno.ENOTCONN, ""))
        if found == "hanging":
            raise Busy(f"{place}: a mount that does not answer; take it away with: volfs umount --force {place}")
        raise Busy(f"{place}: the store {already.source} is mounted here already; first: volfs umount {place}")
    try:
        status = os.stat(place)
    except OSError as error:
        raise _unusable(place, error) from None
    if not stat.S_ISDIR(status.st_mode):
        raise WrongKind(f"{place}: not a directory; a mountpoint is an empty directory", errno=errno.ENOTDIR)
    where = os.path.realpath(store)
    if os.path.commonpath([where, place]) in (where, str(place)):
        raise BadInput(f"{place}: the mountpoint and the store {where} must not lie inside each other")
    holder = mount_holding(place)
    if holder is not None and holder.is_volfs:
        raise BadInput(f"{place}: this is inside another volfs mount, {holder.mountpoint}; choose a place outside")
    if os.listdir(place):
        raise Busy(f"{place}: the directory is not empty; mounting would hide what is in it")
    if not os.access(place, os.W_OK) and os.geteuid() != 0:
        raise NotAllowed(f"{place}: you may mount only over a directory that you may write to")
    return place


def dead_mount(place: Path) -> Mounted | None:
    """The mount at ``place``, if it is one of volfs and no daemon answers for it any more.

    The kernel answers ENOTCONN then, for good: a connection that ended never comes back.
    """
    mounted = mounted_at(place)
    return mounted if mounted is not None and mounted.is_volfs and is_broken(place) else None


def _unusable(place: Path, error: OSError) -> VolfsError:
    if error.errno == errno.ENOENT:
        return NotFound(f"{place}: no such directory; make it with: mkdir -p {place}")
    if error.errno in BROKEN:
        return Busy(f"{place}: a broken mount, left by a daemon that died; mend it with: volfs umount {place}")
    return BadInput(f"{place}: {error.strerror}")


def check_machine(*, allow_other: bool) -> None:
    """Raise an error with advice where FUSE cannot work at all."""
    if importlib.util.find_spec("pyfuse3") is None:
        raise NotFound(
            "mounting needs the package pyfuse3, which is not installed: pip install pyfuse3, on Linux with FUSE 3, a "
            "C compiler, pkg-config and libfuse3-dev; import, export and all else work without it"
        )
    device = Path("/dev/fuse")
    if not device.exists():
        raise NotFound(
            "/dev/fuse is missing; load the kernel module (modprobe fuse), or give the container --device /dev/fuse"
        )
    if os.geteuid() == 0:
        return
    if not os.access(device, os.R_OK | os.W_OK):
        raise NotAllowed("/dev/fuse may not be opened by you; as root: chmod 666 /dev/fuse")
    if shutil.which("fusermount3") is None:
        raise NotFound("fusermount3 is missing; install it with: apt install fuse3")
    if allow_other and not user_allow_other():
        raise NotAllowed("--allow-other needs the line user_allow_other in /etc/fuse.conf; root can add it")


def user_allow_other() -> bool:
    """True if ``/etc/fuse.conf`` lets users open their mounts to others."""
    try:
        lines = Path("/etc/fuse.conf").read_text().splitlines()
    except OSError:
        return False
    return "user_allow_other" in (line.strip() for line in lines)


def detach(place: Path, *, lazy: bool = False, tries: int = 8) -> None:
    """Unmount ``place``. ``lazy`` takes the name away now and the filesystem once nobody uses it.

    A program that has just ended keeps it busy for a moment, so several ``tries`` are made, over about two seconds.
    Raises Busy, naming the programs that use it.
    """
    for attempt in range(tries):
        problem = _umount_as_root(place, lazy) if os.geteuid() == 0 else _umount_as_user(place, lazy)
        if problem is None:
            return
        if "busy" not in problem.lower():
            raise VolfsError(f"{place}: cannot be unmounted: {problem}")
        time.sleep(0.01 * 2**attempt)
    users = users_of(place)
    who = f"in use by {', '.join(users)}" if users else "in use"
    raise Busy(f"{place}: {who}; close what is open there, or: volfs umount --force {place}")


def _umount_as_root(place: Path, lazy: bool) -> str | None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(place), _UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)) == 0:
        return None
    return os.strerror(ctypes.get_errno())


def _umount_as_user(place: Path, lazy: bool) -> str | None:
    command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "fusermount3 is missing; install it with: apt install fuse3"
    return None if done.returncode == 0 else done.stderr.strip().removeprefix("fusermount3: ")


def users_of(place: Path) -> list[str]:
    """Processes with a file, a directory or their working directory under ``place``, as ``name (pid)``."""
    found: list[str] = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            links = [process / "cwd", process / "root", *(process / "fd").iterdir()]
            if any(_is_under(os.readlink(link), place) for link in links if link.is_symlink()):
                found.append(f"{(process / 'comm').read_text().strip()} ({process.name})")
        except OSError:
            continue  # it ended, or it is somebody else's
    return found


def _is_under(target: str, place: Path) -> bool:
    return target == str(place) or target.startswith(f"{place}/")
