"""File handles as an NFS server uses them: name_to_handle_at(2) and open_by_handle_at(2)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_AT_FDCWD = -100
_MAX_HANDLE = 128

_libc = ctypes.CDLL(None, use_errno=True)


class Handle(ctypes.Structure):
    """``struct file_handle``: what names a file for as long as its filesystem knows it."""

    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * _MAX_HANDLE),
    )

    def __bytes__(self) -> bytes:
        """What an NFS server tells its clients."""
        return bytes(self.f_handle[: self.handle_bytes])


def handle_of(path: Path) -> Handle:
    """The handle of a file; OSError where its filesystem gives none."""
    handle = Handle(handle_bytes=_MAX_HANDLE)
    mount_id = ctypes.c_int()
    if _libc.name_to_handle_at(_AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount_id), 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    return handle


def open_by_handle(mount_fd: int, handle: Handle, flags: int = os.O_RDONLY) -> int:
    """Open what a handle names, on the filesystem of which ``mount_fd`` is any open file; needs root."""
    fd: int = _libc.open_by_handle_at(mount_fd, ctypes.byref(handle), flags)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd
