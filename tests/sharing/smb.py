"""An SMB client in this process: smbprotocol, and Samba's own smbclient beside it.

Decided here: how the calls of the other clients are said in SMB. Each :class:`SmbClient` has a session of its own, made
on a thread in the servers' network.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import smbclient
from smbprotocol.exceptions import InvalidParameter

from tests.sharing.servers import PASSWORD, SHARE, USER
from volfs.testing.waiting import PATIENCE

_T = TypeVar("_T")
SERVER = "127.0.0.1"


class SmbClient:
    """A share. Paths are relative to it, with ``/``."""

    def __init__(self, enter: Callable[[], None]) -> None:
        self._cache: dict[str, Any] = {}
        self._thread = ThreadPoolExecutor(1, "smb-client", initializer=enter)
        self.do(lambda: smbclient.register_session(SERVER, USER, PASSWORD, connection_cache=self._cache))

    def do(self, work: Callable[[], _T]) -> _T:
        """Run something on the client's thread. What the server refuses is an OSError."""
        try:
            return self._thread.submit(work).result(PATIENCE)
        except InvalidParameter as error:
            raise OSError(errno.EINVAL, str(error)) from None

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.do(lambda: smbclient.reset_connection_cache(connection_cache=self._cache, fail_on_error=False))
        self._thread.shutdown()

    def _at(self, path: str) -> str:
        return "\\\\" + "\\".join([SERVER, SHARE, *filter(None, path.split("/"))])

    @property
    def _session(self) -> dict[str, Any]:
        return {"connection_cache": self._cache}

    # -- looking ----------------------------------------------------------------------------------------------------

    def names(self, path: str) -> list[str]:
        return sorted(self.do(lambda: [entry.name for entry in smbclient.scandir(self._at(path), **self._session)]))

    def sizes(self, path: str) -> dict[str, int]:
        """The sizes that a listing says."""
        return self.do(
            lambda: {
                entry.name: entry.smb_info.end_of_file
                for entry in smbclient.scandir(self._at(path), **self._session)
                if entry.is_file()
            }
        )

    def walk(self, top: str) -> list[str]:
        """Everything below ``top``, what links lead to included: SMB clients are not told of links."""

        def below(path: str, at: str) -> Iterator[str]:
            for entry in smbclient.scandir(self._at(path), **self._session):
                name = f"{at}{entry.name}"
                yield name
                if entry.is_dir():
                    yield from below(f"{path}/{entry.name}", f"{name}/")

        return self.do(lambda: list(below(top, "")))

    def is_dir(self, path: str) -> bool:
        return bool(self.do(lambda: smbclient.path.isdir(self._at(path), **self._session)))

    def exists(self, path: str) -> bool:
        return bool(self.do(lambda: smbclient.path.exists(self._at(path), **self._session)))

    def size(self, path: str) -> int:
        return int(self.do(lambda: smbclient.stat(self._at(path), **self._session)).st_size)

    def read(self, path: str) -> bytes:
        return self.do(lambda: self._read(path))

    def _read(self, path: str) -> bytes:
        with self._opened(path, "rb") as file:
            return bytes(file.read())

    @contextlib.contextmanager
    def _opened(self, path: str, mode: str, share: str = "rwd") -> Iterator[io.BufferedIOBase]:
        with smbclient.open_file(self._at(path), mode=mode, share_access=share, **self._session) as file:
            yield file

    # -- changing ---------------------------------------------------------------------------------------------------

    def _write(self, path: str, mode: str, data: bytes) -> None:
        with self._opened(path, mode) as file:
            file.write(data)
            file.flush()

    def write(self, path: str, data: bytes) -> None:
        """Create or empty the file, write, close."""
        self.do(lambda: self._write(path, "wb", data))

    def create(self, path: str, data: bytes) -> None:
        """FileExistsError if it is there."""
        try:
            self.do(lambda: self._write(path, "xb", data))
        except OSError as error:
            if error.errno == errno.EEXIST:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
            raise

    def append(self, path: str, data: bytes) -> None:
        self.do(lambda: self._write(path, "ab", data))

    def truncate(self, path: str, size: int) -> None:
        self.do(lambda: smbclient.truncate(self._at(path), size, **self._session))

    def rename(self, old: str, new: str) -> None:
        """Over whatever has the name."""
        self.do(lambda: smbclient.replace(self._at(old), self._at(new), **self._session))

    def mkdir(self, path: str) -> None:
        self.do(lambda: smbclient.mkdir(self._at(path), **self._session))

    def rmdir(self, path: str) -> None:
        self.do(lambda: smbclient.rmdir(self._at(path), **self._session))

    def unlink(self, path: str) -> None:
        self.do(lambda: smbclient.remove(self._at(path), **self._session))
