"""An NFS client in this process: Debian's libnfs through ctypes.

Decided here: how calls of libnfs become bytes, lists and OSErrors. What the tests expect of a server is theirs. Each
:class:`NfsClient` has a connection of its own and one thread that uses it, because a connection belongs to the network
namespace of the thread that opened it: the server lives in one of its own (:mod:`tests.sharing.private_network`).

libnfs 4.0 has no locks over NFSv3, and over NFSv4 neither working locks nor inodes in listings nor O_CREAT on a file
that exists; all that is left to the kernel's client (:mod:`tests.sharing.linux`).
"""

from __future__ import annotations

import ctypes as c
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from volfs.testing.waiting import PATIENCE

_T = TypeVar("_T")
LIBRARY = "libnfs.so.13"
_PIECE = {3: 1 << 20, 4: 2 << 10}
"""What it can write at once."""


class _Stat(c.Structure):
    _fields_ = [
        (name, c.c_uint64)
        for name in (
            *("dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks"),
            *("atime", "mtime", "ctime", "atime_nsec", "mtime_nsec", "ctime_nsec", "used"),
        )
    ]


class _Entry(c.Structure):
    """The beginning of ``struct nfsdirent``: what follows is not used."""

    _fields_ = [
        ("next", c.c_void_p),
        ("name", c.c_char_p),
        ("inode", c.c_uint64),
        ("type", c.c_uint32),
        ("mode", c.c_uint32),
        ("size", c.c_uint64),
    ]


class Stat(NamedTuple):
    """What a client is told of a file. ``mtime`` in nanoseconds."""

    ino: int
    mode: int
    nlink: int
    size: int
    mtime: int

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


class Listed(NamedTuple):
    """One entry of a directory."""

    name: str
    ino: int
    mode: int
    size: int


def _library() -> Any:
    library = c.CDLL(LIBRARY)
    for name, kinds in {
        "nfs_init_context": [],
        "nfs_destroy_context": [c.c_void_p],
        "nfs_get_error": [c.c_void_p],
        "nfs_set_version": [c.c_void_p, c.c_int],
        "nfs_set_autoreconnect": [c.c_void_p, c.c_int],
        "nfs_set_timeout": [c.c_void_p, c.c_int],
        "nfs_set_dircache": [c.c_void_p, c.c_int],
        "nfs_mount": [c.c_void_p, c.c_char_p, c.c_char_p],
        "nfs_umount": [c.c_void_p],
        "nfs_lstat64": [c.c_void_p, c.c_char_p, c.c_void_p],
        "nfs_stat64": [c.c_void_p, c.c_char_p, c.c_void_p],
        "nfs_fstat64": [c.c_void_p, c.c_void_p, c.c_void_p],
        "nfs_opendir": [c.c_void_p, c.c_char_p, c.c_void_p],
        "nfs_readdir": [c.c_void_p, c.c_void_p],
        "nfs_closedir": [c.c_void_p, c.c_void_p],
        "nfs_readlink": [c.c_void_p, c.c_char_p, c.c_void_p, c.c_int],
        "nfs_open": [c.c_void_p, c.c_char_p, c.c_int, c.c_void_p],
        "nfs_create": [c.c_void_p, c.c_char_p, c.c_int, c.c_int, c.c_void_p],
        "nfs_close": [c.c_void_p, c.c_void_p],
        "nfs_pread": [c.c_void_p, c.c_void_p, c.c_uint64, c.c_uint64, c.c_void_p],
        "nfs_pwrite": [c.c_void_p, c.c_void_p, c.c_uint64, c.c_uint64, c.c_void_p],
        "nfs_fsync": [c.c_void_p, c.c_void_p],
        "nfs_ftruncate": [c.c_void_p, c.c_void_p, c.c_uint64],
        "nfs_truncate": [c.c_void_p, c.c_char_p, c.c_uint64],
        "nfs_mkdir2": [c.c_void_p, c.c_char_p, c.c_int],
        "nfs_rmdir": [c.c_void_p, c.c_char_p],
        "nfs_unlink": [c.c_void_p, c.c_char_p],
        "nfs_rename": [c.c_void_p, c.c_char_p, c.c_char_p],
        "nfs_symlink": [c.c_void_p, c.c_char_p, c.c_char_p],
        "nfs_link": [c.c_void_p, c.c_char_p, c.c_char_p],
    }.items():
        getattr(library, name).argtypes = kinds
    library.nfs_init_context.restype = c.c_void_p
    library.nfs_get_error.restype = c.c_char_p
    library.nfs_readdir.restype = c.POINTER(_Entry)
    return library


class NfsFile:
    """An open file of a client: a handle on the server, and for v4 an open state with it."""

    def __init__(self, client: NfsClient, handle: c.c_void_p, path: str) -> None:
        self._client = client
        self._handle = handle
        self.path = path

    def read(self, size: int, offset: int = 0) -> bytes:
        """Up to ``size`` bytes at ``offset``."""
        buffer = c.create_string_buffer(size)
        got = self._client.call("nfs_pread", self._handle, offset, size, buffer, what=self.path)
        return buffer.raw[:got]

    def write(self, data: bytes, offset: int = 0) -> None:
        """All of ``data`` at ``offset``."""
        done = 0
        while done < len(data):
            part = data[done : done + _PIECE[self._client.version]]
            done += self._client.call("nfs_pwrite", self._handle, offset + done, len(part), part, what=self.path)

    def stat(self) -> Stat:
        """By the handle: its name may be gone."""
        told = _Stat()
        self._client.call("nfs_fstat64", self._handle, c.byref(told), what=self.path)
        return _stat(told)

    def truncate(self, size: int) -> None:
        self._client.call("nfs_ftruncate", self._handle, size, what=self.path)

    def sync(self) -> None:
        """COMMIT: what was written is durable."""
        self._client.call("nfs_fsync", self._handle, what=self.path)

    def close(self) -> None:
        self._client.call("nfs_close", self._handle, what=self.path)


class NfsClient:
    """A mounted export. Paths are relative to it, without a leading slash."""

    _lib: Any = None

    def __init__(
        self, export: str, version: int, enter: Callable[[], None] = lambda: None, server: str = "127.0.0.1"
    ) -> None:
        """``enter`` is run in the client's thread before anything else: it may enter a network namespace."""
        if NfsClient._lib is None:
            NfsClient._lib = _library()
        self.version = version
        self._thread = ThreadPoolExecutor(1, "nfs-client", initializer=enter)
        self._context = c.c_void_p(self._thread.submit(self._lib.nfs_init_context).result())
        try:
            self._thread.submit(self._lib.nfs_set_version, self._context, version).result()
            self._thread.submit(self._lib.nfs_set_autoreconnect, self._context, -1).result()
            self._thread.submit(self._lib.nfs_set_timeout, self._context, 20_000).result()
            self._thread.submit(self._lib.nfs_set_dircache, self._context, 0).result()
            self.call("nfs_mount", server.encode(), export.encode(), what=export)
        except BaseException:
            self.close()
            raise

    def call(self, function: str, *arguments: Any, what: str = "") -> int:
        """Call libnfs in the client's thread; a negative answer becomes an OSError with what libnfs says."""

        def run() -> tuple[int, str]:
            answered = getattr(self._lib, function)(self._context, *arguments)
            said = (self._lib.nfs_get_error(self._context) or b"").decode(errors="replace") if answered < 0 else ""
            return answered, said

        answered, said = self._thread.submit(run).result(PATIENCE)
        if answered < 0:
            raise OSError(-answered, f"{os.strerror(-answered)} ({function}: {said})", what)
        return int(answered)

    def close(self) -> None:
        """Give the connection back. The server is told nothing: in NFSv3 there is nothing to tell."""
        self._thread.submit(self._lib.nfs_destroy_context, self._context).result()
        self._thread.shutdown()

    def __enter__(self) -> NfsClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- looking ----------------------------------------------------------------------------------------------------

    def stat(self, path: str) -> Stat:
        """Of the name itself: symbolic links are not followed."""
        told = _Stat()
        self.call("nfs_lstat64", _raw(path), c.byref(told), what=path)
        return _stat(told)

    def exists(self, path: str) -> bool:
        try:
            self.stat(path)
        except FileNotFoundError:
            return False
        return True

    def listdir(self, path: str) -> list[Listed]:
        """Every entry but ``.`` and ``..``, as often as the server says it."""
        opened = c.c_void_p()
        self.call("nfs_opendir", _raw(path), c.byref(opened), what=path)

        def gather() -> list[Listed]:
            found = []
            while entry := self._lib.nfs_readdir(self._context, opened):
                one = entry.contents
                if one.name not in (b".", b".."):
                    found.append(Listed(os.fsdecode(one.name), one.inode, one.mode, one.size))
            self._lib.nfs_closedir(self._context, opened)
            return found

        return self._thread.submit(gather).result(PATIENCE)

    def names(self, path: str) -> list[str]:
        return sorted(entry.name for entry in self.listdir(path))

    def walk(self, top: str) -> dict[str, Listed]:
        """Everything below ``top``; links are not followed."""
        found = {}
        for entry in self.listdir(top):
            found[entry.name] = entry
            if stat.S_ISDIR(entry.mode):
                below = self.walk(f"{top}/{entry.name}".lstrip("/"))
                found |= {f"{entry.name}/{name}": one for name, one in below.items()}
        return found

    def readlink(self, path: str) -> str:
        buffer = c.create_string_buffer(4096)
        self.call("nfs_readlink", _raw(path), buffer, len(buffer), what=path)
        return os.fsdecode(buffer.value)

    @contextmanager
    def open(self, path: str, flags: int = os.O_RDONLY) -> Iterator[NfsFile]:
        """An existing file."""
        handle = c.c_void_p()
        self.call("nfs_open", _raw(path), flags, c.byref(handle), what=path)
        yield from self._closing(NfsFile(self, handle, path))

    @contextmanager
    def creating(self, path: str, *, exclusive: bool = False) -> Iterator[NfsFile]:
        """A new file, or an existing one emptied; FileExistsError if it must be new and is not."""
        handle = c.c_void_p()
        flags = os.O_RDWR | os.O_CREAT | (os.O_EXCL if exclusive else os.O_TRUNC)
        self.call("nfs_create", _raw(path), flags, 0o644, c.byref(handle), what=path)
        yield from self._closing(NfsFile(self, handle, path))

    @staticmethod
    def _closing(file: NfsFile) -> Iterator[NfsFile]:
        try:
            yield file
        finally:
            file.close()

    def read(self, path: str) -> bytes:
        """The whole file, to where the server says that it ends."""
        with self.open(path) as file:
            pieces, at = [], 0
            while piece := file.read(1 << 20, at):
                pieces.append(piece)
                at += len(piece)
            return b"".join(pieces)

    # -- changing ---------------------------------------------------------------------------------------------------

    def write(self, path: str, data: bytes) -> None:
        """Create or empty the file, write, sync, close."""
        if self.version == 4 and self.exists(path):  # libnfs cannot create over v4 what is there
            self.truncate(path, 0)
            opened = self.open(path, os.O_WRONLY)
        else:
            opened = self.creating(path)
        with opened as file:
            file.write(data)
            file.sync()

    def create(self, path: str, data: bytes) -> None:
        """FileExistsError if it is there."""
        with self.creating(path, exclusive=True) as file:
            file.write(data)
            file.sync()

    def append(self, path: str, data: bytes) -> None:
        """As NFS clients append: at the end that the server tells."""
        with self.open(path, os.O_WRONLY) as file:
            file.write(data, file.stat().size)
            file.sync()

    def truncate(self, path: str, size: int) -> None:
        self.call("nfs_truncate", _raw(path), size, what=path)

    def mkdir(self, path: str) -> None:
        self.call("nfs_mkdir2", _raw(path), 0o755, what=path)

    def rmdir(self, path: str) -> None:
        self.call("nfs_rmdir", _raw(path), what=path)

    def unlink(self, path: str) -> None:
        self.call("nfs_unlink", _raw(path), what=path)

    def rename(self, old: str, new: str) -> None:
        self.call("nfs_rename", _raw(old), _raw(new), what=old)

    def symlink(self, target: str, path: str) -> None:
        self.call("nfs_symlink", os.fsencode(target), _raw(path), what=path)

    def link(self, old: str, new: str) -> None:
        self.call("nfs_link", _raw(old), _raw(new), what=new)


def _raw(path: str) -> bytes:
    return b"/" + os.fsencode(path)


def _stat(told: _Stat) -> Stat:
    return Stat(told.ino, told.mode, told.nlink, told.size, told.mtime * 10**9 + told.mtime_nsec)
