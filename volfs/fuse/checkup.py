"""Checks whether a machine can mount a store, with advice where something is missing.

Decided here: the checks, their verdicts, and the advice. Not here: how they are printed (``volfs.cli.doctor``). Every
check answers, whatever is broken: a check that fails is a finding.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import re
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from volfs.fuse.mountpoints import health, user_allow_other
from volfs.storage.claim import Claim, Fate, changed_since
from volfs.storage.files import FileLock
from volfs.storage.mount_table import Locks, locks_on, may_stop_answering, mount_holding, mounts
from volfs.storage.state import state_directory
from volfs.storage.store_layout import DatasetLayout, StoreLayout

#: FUSE features that volfs relies on are all in every kernel since; older ones lack large requests.
_KERNEL = (4, 20)
_OPEN_FILES = 4096
_FREE = 1 << 30

#: Where mount(8) looks for helpers, in util-linux as Debian, Fedora and Arch build it.
_HELPERS = ("/sbin", "/sbin/fs.d", "/sbin/fs")

_EXTRA = {
    "pillow": "PNG and JPEG slices",
    "tifffile": "TIFF stacks",
    "imagecodecs": "compressed TIFF and DICOM",
    "nibabel": "NIfTI volumes",
    "h5py": "HDF5",
    "pydicom": "DICOM series",
}


CATALOG_ELSEWHERE = "volfs --catalog /var/lib/volfs/NAME.sqlite …"
"""How the command is told where a catalog lies."""

#: Who holds a lock touches it every ten minutes.
_LATELY_NS = 15 * 60 * 10**9


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. ``bad`` stops volfs from working, ``note`` limits or slows it. ``mend`` is the
    advice."""

    name: str
    state: Literal["ok", "note", "bad"]
    detail: str
    mend: str = ""


def examine(store: Path | None = None, catalog: Path | None = None) -> Iterator[Finding]:
    """The results of all checks, in the order in which one would repair."""
    checks: list[Callable[[], Iterator[Finding] | Finding]] = [
        _python,
        _packages,
        _kernel,
        _device,
        _fusermount,
        _allow_other,
        _mount_helper,
        _limits,
        _logs,
        _stale,
    ]
    if store is not None:
        checks += [
            lambda: _disk(store),
            lambda: _filesystem(store),
            lambda: _catalog(catalog or StoreLayout(store).catalog),
            lambda: _locks(store),
            lambda: _store(store, catalog),
        ]
    for check in checks:
        try:
            found = check()
            yield from [found] if isinstance(found, Finding) else found
        except Exception as error:
            name = check.__name__.strip("_<>")
            yield Finding(name, "bad", f"could not be checked: {error}")


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _packages() -> Iterator[Finding]:
    required = [
        re.split(r"[^A-Za-z0-9._-]", line)[0] for line in metadata.requires("volfs") or [] if "extra" not in line
    ]
    found, missing = _versions(required)
    if missing:
        yield Finding("packages", "bad", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    else:
        yield Finding("packages", "ok", ", ".join(f"{name} {found[name]}" for name in ("pyfuse3", "trio", "zarr")))
    found, missing = _versions(list(_EXTRA))
    if missing:
        lost = "; ".join(f"{name}: {_EXTRA[name]}" for name in missing)
        yield Finding("readers", "note", f"missing, for import and export: {lost}", "pip install 'volfs[import]'")
    else:
        yield Finding("readers", "ok", ", ".join(f"{name} {version}" for name, version in found.items()))


def _versions(names: list[str]) -> tuple[dict[str, str], list[str]]:
    found: dict[str, str] = {}
    missing: list[str] = []
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    return found, missing


def _kernel() -> Finding:
    release = platform.release()
    numbers = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    if platform.system() != "Linux":
        return Finding("kernel", "bad", f"{platform.system()} {release}", "volfs mounts on Linux")
    if numbers < _KERNEL:
        wanted = ".".join(map(str, _KERNEL))
        return Finding("kernel", "note", f"Linux {release} lacks large FUSE requests", f"use Linux {wanted} or newer")
    return Finding("kernel", "ok", f"Linux {release}")


def _device() -> Finding:
    device = Path("/dev/fuse")
    try:
        mode = device.stat().st_mode
    except FileNotFoundError:
        mend = "modprobe fuse; in a container: --device /dev/fuse --cap-add SYS_ADMIN"
        return Finding("/dev/fuse", "bad", "missing", mend)
    if not stat.S_ISCHR(mode):
        return Finding("/dev/fuse", "bad", "not a device", "rm /dev/fuse; mknod -m 666 /dev/fuse c 10 229")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        return Finding("/dev/fuse", "bad", "you may not open it", "as root: chmod 666 /dev/fuse")
    except OSError as error:
        return Finding("/dev/fuse", "bad", f"does not open: {error.strerror}", "modprobe fuse")
    if mode & 0o666 != 0o666:
        mend = "if users shall mount, as root: chmod 666 /dev/fuse"
        return Finding("/dev/fuse", "note", f"opens for you, not for every user (mode {mode & 0o777:o})", mend)
    return Finding("/dev/fuse", "ok", "opens")


def _fusermount() -> Finding:
    program = shutil.which("fusermount3")
    root = os.geteuid() == 0
    if program is None:
        state: Literal["note", "bad"] = "note" if root else "bad"
        return Finding("fusermount3", state, "missing; users other than root cannot mount", "apt install fuse3")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    if not root and not os.stat(program).st_mode & stat.S_ISUID:
        return Finding("fusermount3", "bad", f"{program} is not setuid root", f"as root: chmod u+s {program}")
    return Finding("fusermount3", "ok", f"{program} ({said.rpartition(' ')[2]})")


def _allow_other() -> Finding:
    if user_allow_other():
        return Finding("user_allow_other", "ok", "users may show their mounts to others")
    mend = "only for --allow-other by users, as root: echo user_allow_other >> /etc/fuse.conf"
    return Finding(
        "user_allow_other", "note", "not set in /etc/fuse.conf; only root's mounts can use --allow-other", mend
    )


def _mount_helper() -> Finding:
    """mount(8) looks for helpers in a list that was compiled into it, the PATH is nothing to it."""
    name = "mount.fuse.volfs"
    found = (Path(folder, name) for folder in _HELPERS)
    helper = next((path for path in found if os.path.lexists(path)), Path(_HELPERS[0], name))
    installed = shutil.which(name) or os.path.join(os.path.dirname(sys.executable), name)
    if os.access(helper, os.X_OK):
        return Finding("fstab", "ok", f"{helper} is what mount(8) calls")
    if helper.is_symlink():
        return Finding(
            "fstab", "bad", f"{helper} leads nowhere ({os.readlink(helper)})", f"as root: ln -sf {installed} {helper}"
        )
    mend = f"only for /etc/fstab, autofs and mount(8), as root: ln -s {installed} {helper}"
    return Finding("fstab", "note", f"{helper} is missing; mount -t fuse.volfs needs it", mend)


def _limits() -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _OPEN_FILES:
        mend = "raise it in /etc/security/limits.conf (nofile) or with LimitNOFILE= in the unit"
        return Finding("open files", "note", f"limited to {hard}; many clients at once may get EMFILE", mend)
    return Finding("open files", "ok", f"up to {'any number' if hard == resource.RLIM_INFINITY else hard}")


def _logs() -> Finding:
    folder = state_directory()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(
            "logs", "bad", f"{folder} cannot be written: {error.strerror}", "set XDG_STATE_HOME, or use --log"
        )
    return Finding("logs", "ok", str(folder))


def _stale() -> Iterator[Finding]:
    ours = [mount.mountpoint for mount in mounts() if mount.is_volfs]
    ill = {place: found for place in ours if (found := health(place)) != "alive"}
    for place, found in ill.items():
        if found == "broken":
            yield Finding("mounts", "bad", f"{place} lost its daemon", f"volfs umount {place}")
        else:
            yield Finding("mounts", "bad", f"{place} does not answer", f"volfs umount --force {place}")
    if not ill:
        yield Finding("mounts", "ok", f"{len(ours)} of volfs, all of them answer" if ours else "none of volfs")


def _disk(store: Path) -> Finding:
    disk = os.statvfs(store)
    free = disk.f_bavail * disk.f_frsize
    if "ro" in _options(store):
        return Finding("disk", "note", f"{store} is on a read-only filesystem: only mounts with --read-only work")
    if free < _FREE:
        return Finding(
            "disk", "note", f"only {free >> 20} MiB free at {store}", "free some before importing or committing"
        )
    if disk.f_files and disk.f_favail < 10_000:
        return Finding(
            "disk", "note", f"only {disk.f_favail} inodes free at {store}", "commit: loose chunks become shards"
        )
    return Finding("disk", "ok", f"{free / 2**30:.1f} GiB free at {store}")


def _options(path: Path) -> frozenset[str]:
    holder = mount_holding(path)
    return holder.options if holder is not None else frozenset()


def far_catalog(catalog: Path) -> str:
    """What is wrong with the place of a catalog whose disk may stop answering; "" for one on a disk of this machine.

    Which names and versions there are is asked of it by the thread that answers every request.
    """
    holder = mount_holding(catalog)
    if not may_stop_answering(holder):
        return ""
    kind = holder.kind if holder is not None else "an unknown filesystem"
    return f"{catalog} is on {kind}: the whole mount waits for it, and SQLite's log may fail there"


def _catalog(catalog: Path) -> Finding:
    trouble = far_catalog(catalog)
    if trouble:
        return Finding("catalog", "note", trouble, f"keep the index on a disk of this machine: {CATALOG_ELSEWHERE}")
    return Finding("catalog", "ok", str(catalog))


def _filesystem(store: Path) -> Finding:
    holder = mount_holding(store)
    kind = holder.kind if holder is not None else "unknown"
    if kind == "fuse.volfs":
        return Finding("filesystem", "bad", "the store lies inside a volfs mount", "give the store's own path")
    return Finding("filesystem", "ok", kind)


def _locks(store: Path) -> Finding:
    """Tries a lock here, and looks at the locks that processes of other machines say they hold in the store."""
    fds = [os.open(store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for _ in range(2)]
    try:
        fcntl.flock(fds[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fds[1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Finding("locks", "bad", "flock keeps nobody out", "move the store to a filesystem with locks")
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            return Finding("locks", "bad", f"flock: {error.strerror}", "move the store to a filesystem with locks")
    finally:
        for fd in fds:
            os.close(fd)
    mount = mount_holding(store)
    kind = mount.kind if mount is not None else "this filesystem"
    locks = locks_on(mount)
    mend = "let one machine write at a time, and others mount with --read-only"
    for claim, held in _foreign_locks(StoreLayout(store)):
        if held:
            return Finding("locks", "ok", f"flock works, and the lock that {claim.host} holds is seen here")
        if locks.tell:
            seen = f"flock works; a lock that {claim.host} held is free: its process died, or locks are not shared"
            return Finding("locks", "note", seen, "look whether that process lives")
        seen = f"flock works, but the lock that {claim.host} holds is not seen here: locks are not shared"
        return Finding("locks", "bad", seen, mend)
    if locks is Locks.APART:
        return Finding("locks", "note", f"flock works, but {kind} keeps locks on each machine", mend)
    if locks is Locks.UNKNOWN:
        detail = f"flock works; whether other machines see locks on {kind} is not known"
        return Finding("locks", "note", detail, "run this again while another machine has the store mounted")
    return Finding("locks", "ok", "flock works" if locks is Locks.LOCAL else f"flock works, and {kind} shares locks")


def _foreign_locks(store: StoreLayout) -> Iterator[tuple[Claim, bool]]:
    """Locks that a process of another machine claims, and whether they are seen to be held from this machine.

    A claim that was not renewed for some time may be left over.
    """
    lately = time.time_ns()
    for folder in sorted(store.datasets.glob("[!.]*")):
        layout = DatasetLayout(folder)
        for path in (*layout.workings.glob("[!.]*/lock"), *layout.versions.glob(".*.partial/lock")):
            lock = FileLock(path)
            claim = Claim.parse(lock.owner())
            if claim is None or claim.fate() is not Fate.UNKNOWN:
                continue
            held = lock.locked_by_other()
            if held or changed_since(path.parent, lately - _LATELY_NS):
                yield claim, held


def _store(store: Path, catalog: Path | None) -> Finding:
    import volfs
    from volfs.errors import VolfsError

    try:
        with volfs.open_store(store, catalog=catalog, read_only=True) as opened:
            return Finding("store", "ok", f"{store}: {len(opened.datasets())} datasets")
    except VolfsError as error:
        return Finding("store", "bad", str(error))
