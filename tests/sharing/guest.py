"""The first and only program of a Linux machine that is a client: its kernel's NFS and SMB, driven from outside.

The machine is User-Mode Linux, a Linux kernel that runs as a process (Debian's ``user-mode-linux``), with the host's
files as its root directory, read-only. So this runs there under the very Python of the tests, as process 1: it loads
the kernel's modules, brings up the network and then does what callers ask: call a function of this module and send back
what it answers. Not here: starting and asking it (:mod:`tests.sharing.linux`).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
import pickle
import shutil
import socketserver
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PORT = 9000
HERE = Path("/mnt")
MODULES = (
    *("nfsv3", "nfsv4", "cifs", "nls_utf8"),
    # What cifs asks /sbin/modprobe for, which finds no modules here:
    *(
        "md5",
        "hmac",
        "sha256_generic",
        "sha512_generic",
        "cmac",
        "aes_generic",
        "ecb",
        "ccm",
        "gcm",
        "ctr",
        "ghash-generic",
    ),
)

_open: dict[str, int] = {}


def check(answered: int, what: str) -> None:
    if answered < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


# -- the machine -----------------------------------------------------------------------------------------


def mount(source: str, place: str, kind: str, options: str = "") -> None:
    """mount(2), below ``/mnt``."""
    target = HERE / place
    target.mkdir(exist_ok=True)
    check(_libc().mount(source.encode(), bytes(target), kind.encode(), 0, options.encode()), f"mount {source}")


def umount(place: str) -> None:
    check(_libc().umount2(bytes(HERE / place), 0), f"umount {place}")


def forget() -> None:
    """Drop whatever the kernel keeps of files: every inode is asked of the server again."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def _load(modules: Path) -> None:
    """Load the modules with what they need, as modprobe would."""
    needs = dict(line.split(":", 1) for line in (modules / "modules.dep").read_text().splitlines())
    paths = {Path(path).stem.replace("-", "_"): path for path in needs}
    libc = _libc()
    for name in MODULES:
        path = paths.get(name.replace("-", "_"))
        if path is None:
            continue  # built in
        for one in [*reversed(needs[path].split()), path]:
            with (modules / one).open("rb") as module:
                if libc.syscall(313, module.fileno(), b"", 0) and ctypes.get_errno() != errno.EEXIST:
                    print("module", one, os.strerror(ctypes.get_errno()), flush=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


# -- what callers ask for ---------------------------------------------------------------------------------


def names(path: str) -> list[str]:
    return os.listdir(path)


def look(path: str) -> os.stat_result:
    return os.lstat(path)


def readlink(path: str) -> str:
    return os.readlink(path)


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def digests(top: str) -> dict[str, tuple[str, str]]:
    """Every name below ``top``: what kind of thing it is, and where its link leads or the SHA-256 of its bytes."""
    found: dict[str, tuple[str, str]] = {}
    for folder, folders, files in os.walk(top):
        for name in [*folders, *files]:
            path = Path(folder, name)
            at = str(path.relative_to(top))
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                found[at] = "link", str(path.readlink())
            elif stat.S_ISDIR(mode):
                found[at] = "dir", ""
            else:
                found[at] = "file", hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def mapped(path: str) -> bytes:
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        return bytes(pages)


def write(path: str, data: bytes, flags: int = os.O_WRONLY | os.O_CREAT | os.O_TRUNC, at: int | None = None) -> None:
    fd = os.open(path, flags, 0o644)
    try:
        if at is not None:
            os.lseek(fd, at, os.SEEK_SET)
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def shell(command: str) -> str:
    """Run a shell command; an OSError with what it said if it fails."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise OSError(errno.EIO, done.stderr.strip() or f"status {done.returncode}", command)
    return done.stdout


def truncate(path: str, size: int) -> None:
    os.truncate(path, size)


def rename(old: str, new: str) -> None:
    Path(old).rename(new)


def link(old: str, new: str) -> None:
    os.link(old, new)


def symlink(target: str, path: str) -> None:
    Path(path).symlink_to(target)


def mkdir(path: str) -> None:
    Path(path).mkdir()


def rmdir(path: str) -> None:
    Path(path).rmdir()


def unlink(path: str) -> None:
    Path(path).unlink()


def hold(path: str) -> None:
    """Open a file and lock it, at once or never, until :func:`let_go`."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    _open[path] = fd


def keep_open(path: str) -> None:
    """Open a file for reading, until :func:`let_go`."""
    _open[path] = os.open(path, os.O_RDONLY)


def read_open(path: str) -> bytes:
    """What a file that was kept open has now, read through that descriptor."""
    fd = _open[path]
    return os.pread(fd, os.fstat(fd).st_size, 0)


def let_go(path: str) -> None:
    os.close(_open.pop(path))


def throughput(path: str, block: int = 1 << 20) -> tuple[int, float]:
    """(bytes, seconds) of reading a file from end to end."""
    began, total = time.perf_counter(), 0
    with Path(path).open("rb", buffering=0) as file:
        while piece := file.read(block):
            total += len(piece)
    return total, time.perf_counter() - began


class _Caller(socketserver.StreamRequestHandler):
    """One connection: pickled (name of a function, arguments), answered with pickled (result, exception)."""

    def handle(self) -> None:
        while True:
            try:
                name, arguments = pickle.load(self.rfile)
            except EOFError:
                return
            answer: tuple[Any, BaseException | None]
            try:
                answer = ASKED[name](*arguments), None
            except Exception as error:
                answer = None, error
            self.wfile.write(pickle.dumps(answer))
            self.wfile.flush()


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


ASKED: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(mount, umount, forget, names, look, readlink, read, digests, mapped, write, shell, truncate, rename, link),
        *(symlink, mkdir, rmdir, unlink, hold, keep_open, read_open, let_go, throughput),
    )
}


def main(modules: str, address: str) -> None:
    """Process 1 of the guest."""
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    libc = _libc()
    for kind, place in (("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run"), ("tmpfs", "/tmp"), ("tmpfs", "/mnt")):
        libc.mount(kind.encode(), place.encode(), kind.encode(), 0, b"")
    _load(Path(modules))
    _ip("link", "set", "lo", "up")
    _ip("address", "add", f"{address}/24", "dev", "vec0")
    _ip("link", "set", "vec0", "up")
    if shutil.which("rpcbind") and shutil.which("rpc.statd"):  # without them, an NFSv3 client has no locks
        Path("/run/rpcbind").mkdir()
        subprocess.run(["rpcbind"], check=False)
        Path("/run/statd/sm").mkdir(parents=True)
        Path("/run/statd/sm.bak").mkdir()
        subprocess.run(["rpc.statd", "--no-notify", "--state-directory-path", "/run/statd"], check=False)
    with _Listener((address, PORT), _Caller) as listener:
        print("guest: ready", flush=True)
        listener.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:3])  # the kernel adds words of its own
