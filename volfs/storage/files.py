"""Local files that survive a loss of power, and locks between processes.

Decided here: how a file comes into being (whole, under its final name, on disk before anyone is told) and how processes
exclude each other. Not here: which files there are (:mod:`volfs.storage.store_layout`).

Every file of a store is opened by :func:`open_regular`, whatever it is opened for, so that something else in its place
(a FIFO, a device, a symbolic link that leads elsewhere) is an error for what it hits, and never a thread that waits for
ever. Only directories, and new files under names that nothing else has, are opened by other functions here.

A rename is durable only once the directory that holds the name has been synced, and a new directory only once its
parent has: every function below that says "durable" does both.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from volfs.errors import Busy, Damaged, NoSpace, NotFound
from volfs.storage.json_document import check_document_size, dump_document, load_document

_NOT_REGULAR = frozenset((errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENODEV))
"""What open(2) says of a symbolic link, a FIFO without a reader or a socket, a directory, a device without a driver."""

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
"""FALLOC_FL_ of fallocate(2), which Python has not."""
_libc = ctypes.CDLL(None, use_errno=True)
_PROBE = 64 << 10
_MEGABYTE = 1 << 20
_UNREADABLE = frozenset((errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG))

_SYNCERS, _SYNCED_AT_ONCE = 8, 1024
"""Threads that sync a tree, and files that are listed for them at a time."""

_ATTEMPTS = 5
"""Times that a file is written anew because somebody took its temporary name away."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.partial", re.DOTALL)


def is_full_disk(error: OSError) -> bool:
    """Whether an error says that the disk is full, or a quota exhausted."""
    return error.errno in _FULL


def is_full(folder: Path) -> bool:
    """Whether a directory's disk, or the quota on it, has no room for 64 KiB: found out by writing them. For telling
    what an error was that does not say so itself."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            write_all(file.fileno(), bytes(_PROBE))
            os.fsync(file.fileno())
    except OSError as error:
        return is_full_disk(error)
    return False


@contextmanager
def no_space(doing: str) -> Iterator[None]:
    """Turn a full disk (or an exhausted quota) inside the block into NoSpace. ``doing`` completes "no space left"."""
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        where = f" ({error.filename})" if error.filename else ""
        raise NoSpace(f"no space left {doing}{where}: free some and try again") from error


StrPath = str | os.PathLike[str]


def open_regular(path: StrPath, flags: int = os.O_RDONLY, mode: int = 0o666, *, dir_fd: int | None = None) -> int:
    """Open a regular file, as open(2); the descriptor is the caller's. Never waits for another process.

    Damaged if something else is there: nothing of volfs makes such things. Otherwise OSError, as of open(2).
    """
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in _NOT_REGULAR:
            raise
        raise Damaged(f"{os.fspath(path)} is not an ordinary file") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Damaged(f"{os.fspath(path)} is not an ordinary file")
    return fd


def open_below(root: StrPath, path: str, flags: int = os.O_RDONLY) -> int:
    """:func:`open_regular` of a path in the directory ``root`` that follows no symbolic link on the way there, whoever
    changes names meanwhile. NotADirectoryError where there is one."""
    *above, name = path.split("/")
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for step in above:
            deeper = os.open(step, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = deeper
        return open_regular(name, flags, dir_fd=folder)
    finally:
        os.close(folder)


def check_ordinary(path: StrPath) -> None:
    """Damaged if something is there that is no regular file, nor a link to one: for files that libraries open."""
    with suppress(FileNotFoundError, NotADirectoryError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Damaged(f"{os.fspath(path)} is not an ordinary file")


@contextmanager
def opened(path: StrPath, flags: int = os.O_RDONLY, mode: int = 0o666) -> Iterator[int]:
    """:func:`open_regular`, closed at the end of the block."""
    fd = open_regular(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def open_new(path: StrPath, mode: int = 0o666) -> int:
    """Make a file and open it for reading and writing; FileExistsError if the name is taken."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def open_dir(path: StrPath) -> int:
    """Open a directory, to be synced."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def read_file(path: StrPath) -> bytes:
    """All bytes of a regular file. OSError, or Damaged if it is something else."""
    with opened(path) as fd:
        return read_all(fd)


def read_all(fd: int) -> bytes:
    """All bytes of an open file from its position on."""
    with open(fd, "rb", closefd=False) as file:
        return file.read()


def make_file(path: StrPath, mode: int = 0o644) -> None:
    """Make an empty file; FileExistsError if the name is taken."""
    os.close(open_new(path, mode))


def fsync_dir(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = open_dir(path)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    """Make a file's bytes durable, whoever wrote them."""
    with opened(path) as fd:
        os.fsync(fd)


def fsync_tree(root: Path) -> dict[str, int]:
    """Make a directory and everything below it durable. The name of ``root`` itself is its parent's matter.

    Returns the size of each file, by its path below ``root``.
    """
    from concurrent.futures import ThreadPoolExecutor

    sizes: dict[Path, int] = {}
    folders: list[Path] = []
    for folder, _, names in os.walk(root, topdown=False, onerror=_raise):
        folders.append(Path(folder))
        for name in names:
            path = Path(folder, name)
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                sizes[path] = found.st_size
    # Each by itself would wait for a commit of the filesystem's journal of its own. Those that wait together share one.
    with ThreadPoolExecutor(_SYNCERS, thread_name_prefix="volfs-sync") as pool:
        paths = list(sizes)
        for at in range(0, len(paths), _SYNCED_AT_ONCE):
            for _ in pool.map(fsync_file, paths[at : at + _SYNCED_AT_ONCE]):
                pass
    for path in folders:
        fsync_dir(path)
    return {path.relative_to(root).as_posix(): size for path, size in sizes.items()}


def make_dirs(path: Path) -> None:
    """Make a directory and its parents, each durable as a name. Existing ones are fine."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        with suppress(FileExistsError):
            folder.mkdir()
        fsync_dir(folder.parent)


def write_atomic(path: Path, source: bytes | bytearray | memoryview | Path) -> None:
    """Write a whole file durably, with given bytes or those of another file: readers see the old bytes or the new ones,
    now and after a loss of power.

    The temporary name is hidden and ends in ``.partial``; one left by a crash harms nothing
    (:func:`sweep_temporaries`).
    """
    with no_space(f"writing {path.name}"):
        for attempt in range(_ATTEMPTS):
            temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}.partial")
            fd = open_new(temporary)
            try:
                try:
                    for piece in pieces_of(source):
                        write_all(fd, piece)
                    os.fsync(fd)
                finally:
                    os.close(fd)
                temporary.replace(path)
                break
            except FileNotFoundError:
                # A machine that does not see our locks has swept it away.
                if attempt == _ATTEMPTS - 1:
                    raise
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
        fsync_dir(path.parent)


def is_temporary(name: str) -> bool:
    """Whether a name is one of those that :func:`write_atomic` writes under."""
    return name.startswith(".") and _TEMPORARY.fullmatch(name) is not None


def sweep_temporaries(folder: Path, names: Iterable[str] | None = None) -> None:
    """Remove what :func:`write_atomic` left in a directory when its process was killed. Nobody may be writing there.

    ``names`` are those to look at, if not all that are there.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(folder) if names is None else names:
            if is_temporary(name):
                (folder / name).unlink(missing_ok=True)


def pieces_of(source: bytes | bytearray | memoryview | Path | BinaryIO) -> Iterator[bytes | bytearray | memoryview]:
    """Bytes in memory as they are, those of a file a megabyte at a time."""
    if isinstance(source, Path):
        with opened(source) as fd, open(fd, "rb", closefd=False) as reader:
            yield from pieces_of(reader)
    elif isinstance(source, bytes | bytearray | memoryview):
        yield source
    else:
        while piece := source.read(_MEGABYTE):
            yield piece


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte: os.write may stop early (at 2 GiB on Linux, or as the disk fills)."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(fd, view) :]


def pread_all(fd: int, size: int, offset: int) -> bytes:
    """``size`` bytes at ``offset``; fewer only at the end of the file. (pread may stop before: at 2 GiB on Linux.)"""
    data = os.pread(fd, size, offset)
    while 0 < len(data) < size:
        more = os.pread(fd, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def punch_hole(fd: int, offset: int, length: int) -> bool:
    """Give the disk back the blocks of a part of a file, which reads as zeros then; the size stays. False if the
    filesystem cannot."""
    if _libc.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length)) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV):
        return False
    raise OSError(code, os.strerror(code))


def replace_durably(source: Path, target: Path) -> None:
    """Rename durably, onto ``target`` if that exists. The contents of ``source`` must have been synced by their
    writer."""
    source.replace(target)
    fsync_dir(target.parent)
    if source.parent != target.parent:
        fsync_dir(source.parent)


def unlink_durably(path: Path) -> None:
    """Remove a file, durably. One that is gone already is fine."""
    with suppress(FileNotFoundError):
        path.unlink()
        fsync_dir(path.parent)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a small JSON object with a checksum (:mod:`volfs.storage.json_document`), durably and atomically."""
    write_atomic(path, dump_document(value))


def read_json(path: Path) -> dict[str, Any]:
    """Read what :func:`write_json` wrote, or a JSON object without a checksum.

    NotFound if there is no such file; Damaged if it holds no JSON object, does not match its checksum, or is no
    ordinary file.
    """
    return read_document(path)[0]


def read_document(path: Path) -> tuple[dict[str, Any], bool]:
    """See :func:`read_json`; and whether it had a checksum."""
    return load_document(_read_small(path), path)


def _read_small(path: Path) -> bytes:
    """A document's bytes."""
    try:
        with opened(path) as fd:
            check_document_size(os.fstat(fd).st_size, path)
            return read_all(fd)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path} does not exist") from None
    except OSError as error:
        if error.errno in _UNREADABLE:
            raise Damaged(f"{path} cannot be read: {error.strerror}") from None
        raise


def _raise(error: OSError) -> None:
    raise error


class FileLock:
    """An exclusive lock between processes (and between FileLocks of one process) on a file, by flock(2).

    The kernel lets go when the holder dies, however it dies. The file says in JSON who holds it, for messages only:
    the lock itself is what counts. The file is never unlinked by this class, but its directory may be removed by
    others; a lock on a file that is no longer at its path would exclude nobody, so taking one checks for that.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._fd is not None

    @property
    def in_place(self) -> bool:
        """Whether this object holds the lock, and on the file that is at its path."""
        return self._fd is not None and self._is_at_path(self._fd)

    def try_lock(self, owner: Mapping[str, Any] | None = None) -> bool:
        """Take the lock if it is free; False if another holds it. ``owner`` describes the holder to others: see
        :meth:`owner`."""
        if self._fd is not None:
            raise AssertionError(f"{self.path} is already locked by this object")
        probes = 5
        while True:
            fd = open_regular(self.path, os.O_RDWR | os.O_CREAT)
            try:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    # It may be nothing but the short probe of locked_by_other: look again before saying no.
                    os.close(fd)
                    probes -= 1
                    if probes == 0:
                        return False
                    time.sleep(0.002)
                    continue
                if self._is_at_path(fd):
                    self._fd = fd
                    self.describe(owner or {})
                    return True
            except BaseException:
                self._fd = None
                os.close(fd)
                raise
            os.close(fd)

    def lock(self, owner: Mapping[str, Any] | None = None, *, timeout: float = 10.0) -> None:
        """Take the lock, waiting up to ``timeout`` seconds; then Busy, naming the holder."""
        deadline = time.monotonic() + timeout
        pause = 0.002
        while not self.try_lock(owner):
            if time.monotonic() >= deadline:
                holder = self.owner() or {}
                who = ", ".join(f"{k} {v}" for k, v in holder.items() if v is not None) or "another process"
                raise Busy(f"{self.path} is held by {who}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)

    def describe(self, owner: Mapping[str, Any]) -> None:
        """Replace what the file says about the holder. Only while held."""
        if self._fd is None:
            raise AssertionError(f"{self.path} is not locked by this object")
        raw = json.dumps(dict(owner)).encode() if owner else b""
        # A full disk must not keep anyone from locking: the lock itself is what counts.
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, raw, 0)

    def moved(self, path: Path) -> None:
        """The directory of the file was renamed: it is at ``path`` now."""
        self.path = path

    def owner(self) -> dict[str, Any] | None:
        """The description that the present or last holder left of itself; None if it cannot be read. No proof that the
        holder lives."""
        try:
            value = json.loads(read_file(self.path))
        except (OSError, ValueError, Damaged):
            return None
        return value if isinstance(value, dict) else None

    def locked_by_other(self) -> bool:
        """Whether somebody else holds the lock now. Does not create the file."""
        if self._fd is not None:
            return False
        try:
            fd = open_regular(self.path)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # Unlock rather than only close: a forked child may still share the descriptor.
            fcntl.flock(fd, fcntl.LOCK_UN)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def release(self) -> None:
        """Release the lock; do nothing if it is not held."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        try:
            with suppress(OSError):
                os.ftruncate(fd, 0)
            # Unlock rather than only close: a forked child may still share the descriptor.
            fcntl.flock(fd, fcntl.LOCK_UN)
        finally:
            os.close(fd)

    def _is_at_path(self, fd: int) -> bool:
        mine = os.fstat(fd)
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)

    def __enter__(self) -> FileLock:
        if self._fd is None:
            self.lock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def widen_pipe(fd: int, size: int = _MEGABYTE) -> None:
    """Have a pipe hold ``size`` bytes, where the system allows it: fewer and larger reads and writes."""
    with suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
