"""SQLite connections of one catalog file: one per thread, one writer at a time, all closed together.

What the rest of the room relies on:

- WAL: readers never wait for writers, nor writers for readers. A read is one autocommit statement, or several under one
  open cursor; no read transaction outlives the call that began it.
- A thread's connection is its own; the objects that hold them die with their threads, and :meth:`Connections.close`
  closes what is left, from any thread.
- :meth:`Connections.write` is one ``BEGIN IMMEDIATE`` transaction. Threads of this process queue on a lock, other
  processes on SQLite's (up to :data:`BUSY_SECONDS`, then Busy).
- ``synchronous = NORMAL``: a power cut may lose the last transactions, never the file. The store's files are the truth,
  and recovery indexes again what is missing.

Decided here: the above, and which volfs error an SQLite error is.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar, cast
from urllib.parse import quote

from volfs.catalog.sums import MEND
from volfs.errors import Busy, Damaged, NoSpace, NotAllowed, NotFound, ReadOnly, StoreFormat, VolfsError
from volfs.storage.files import check_ordinary, is_full, is_full_disk

BUSY_SECONDS = 60.0
_MOMENT_SECONDS = 0.01
_INDEX_ROOM = 128 << 10
"""Bytes that must be free where an index of a log is made: it begins with 32 KiB."""
_CACHE, _LARGE_CACHE = 4 << 10, 256 << 10
"""KiB of pages that a connection keeps at most; while it writes something large."""
_SQLITE_FULL, _SQLITE_READONLY, _SQLITE_BUSY, _SQLITE_LOCKED, _SQLITE_CANTOPEN, _SQLITE_IOERR = 13, 8, 5, 6, 14, 10
_SQLITE_IOERR_SHMSIZE = _SQLITE_IOERR | 19 << 8


def translate(error: sqlite3.Error, path: Path, mend: str = MEND) -> VolfsError:
    """The volfs error for an error of SQLite."""
    extended = getattr(error, "sqlite_errorcode", 0)
    code = extended & 0xFF
    if code in (_SQLITE_BUSY, _SQLITE_LOCKED):
        return Busy(f"{path} is being written by another process; try again")
    # SQLite says "disk full" only of plain writes: the index of a log that cannot grow, a file that cannot be made, and
    # an exhausted quota are I/O errors to it.
    if code == _SQLITE_FULL or extended == _SQLITE_IOERR_SHMSIZE:
        return NoSpace(f"{path}: no space left to write it: free some and try again")
    if code in (_SQLITE_IOERR, _SQLITE_CANTOPEN) and is_full(path.parent):
        return NoSpace(f"{path}: no space left to write it: free some and try again")
    if code == _SQLITE_READONLY:
        return ReadOnly(f"{path} cannot be written: {error}")
    if code == _SQLITE_CANTOPEN:
        return NotFound(f"{path} cannot be opened: {error}")
    if isinstance(error, sqlite3.ProgrammingError):
        return NotAllowed(f"{path} is closed")
    return Damaged(f"{path}: {' '.join(str(error).split())[:200]}; {mend}")


@contextmanager
def transaction(connection: sqlite3.Connection, how: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[None]:
    """What the block sees and does is one: committed at its end, rolled back if it raises. ``DEFERRED`` only to read.
    Within another one it is a part of that."""
    if connection.in_transaction:
        yield
        return
    connection.execute(f"BEGIN {how}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class _Connection(sqlite3.Connection):
    """Counts the statements that it is given."""

    statements = 0

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self.statements += 1
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        self.statements += 1
        return super().executemany(sql, parameters)


class _Held:
    """One thread's connection. Its finaliser runs when the thread ends."""

    def __init__(self, connection: _Connection, ended: list[int], epoch: int) -> None:
        self.connection = connection
        self.epoch = epoch
        self._ended = ended

    def __del__(self) -> None:
        self._ended.append(self.connection.statements)
        self.connection.close()


_Stamp = tuple[int, ...]
_R = TypeVar("_R")


class _Local(threading.local):
    held: _Held | None = None


class Connections:
    """All connections of this process to one SQLite file."""

    def __init__(self, path: Path, *, read_only: bool = False, synchronous: str = "NORMAL") -> None:
        self.path = path
        self.read_only = read_only
        self._synchronous = synchronous
        self._immutable = False
        #: While nobody has the file open for writing, what tells that this is so still; None when it is shared.
        self.stamp: _Stamp | None = None
        self._epoch = 0
        self._local = _Local()
        self._all: weakref.WeakSet[_Held] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._writing = threading.RLock()
        self._closed = False
        self._watcher: sqlite3.Connection | None = None
        #: Counts the transactions that this process has committed: free to ask, where nobody else can have.
        self.written = 0
        # Statements of connections that are no more. A finaliser may take no lock; appending needs none.
        self._ended: list[int] = []
        self._counted = 0

    def open(self, prepare: Callable[[sqlite3.Connection], None], *, create: bool) -> None:
        """Open the file for the first time. ``prepare`` checks or creates the schema."""
        if not create and not self.path.exists():
            raise NotFound(f"{self.path} does not exist; `volfs fsck --rebuild-catalog` makes it from the store")
        check_ordinary(self.path)
        try:
            if self.read_only:
                self._try_read_only()
            else:
                self._need_room()
            self._patiently(prepare)
            if not self._immutable:
                self._hold_room()
        except sqlite3.Error as error:
            self.close()
            raise translate(error, self.path) from None
        except ValueError as error:  # text that is not UTF-8
            self.close()
            raise Damaged(f"{self.path} is not readable ({error}); {MEND}") from None
        except BaseException:
            self.close()
            raise

    def _patiently(self, prepare: Callable[[sqlite3.Connection], None]) -> None:
        # SQLite waits by itself for who writes, but not where a file is turned to WAL, nor where its log is recovered
        # or taken away by the last who closes: there it says "busy" at once, and means a moment.
        end = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                connection = self.get()
                if not self.read_only:
                    self._write_ahead(connection)
                return prepare(connection)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != _SQLITE_BUSY or time.monotonic() >= end:
                    raise
            time.sleep(_MOMENT_SECONDS)

    def _try_read_only(self) -> None:
        stamp = self._look()
        if not stamp[-1]:
            # Nobody is writing: read it as it is, without the files that SQLite would make beside it.
            self._immutable, self.stamp = True, stamp
            return
        self._need_room()
        try:
            self.get().execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            # WAL needs to create its -shm file even to read. Where it cannot (a read-only medium), nobody can be
            # writing either; but what lies in a log that was never merged would be missed without a word.
            self._drop_local()
            if self._look()[-1]:
                if isinstance(full := translate(error, self.path), NoSpace):
                    raise full from None
                raise ReadOnly(
                    f"{self.path} was not closed in order; open the store once where it can be written"
                ) from None
            self._immutable, self.stamp = True, self._look()

    # SQLite maps the index of its log into memory, and makes sure of one byte in each of its pages only. A process that
    # writes into a mapped block that the disk has no room for is killed (SIGBUS): where blocks are smaller than pages,
    # a full disk would end whoever opens the file, or goes on using it.

    def _need_room(self) -> None:
        """NoSpace if the index would be made now, on a disk that is about to be full."""
        index = self.path.with_name(self.path.name + "-shm")
        with suppress(OSError):
            if not index.exists():
                disk = os.statvfs(self.path.parent)
                if disk.f_bavail * disk.f_frsize < _INDEX_ROOM:
                    raise NoSpace(f"{self.path}: no space left to open it: free some and try again")

    def _hold_room(self) -> None:
        """Have blocks for all of the index. Through a descriptor of SQLite's own: to close another one would take away
        the locks that this process has on the file."""
        disk = os.statvfs(self.path.parent)
        if disk.f_frsize >= mmap.PAGESIZE:
            return
        index = os.path.realpath(self.path) + "-shm"
        for name in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):
                if os.readlink(f"/proc/self/fd/{name}") == index:
                    try:
                        os.posix_fallocate(int(name), 0, os.fstat(int(name)).st_size)
                    except OSError as error:
                        if is_full_disk(error):
                            raise NoSpace(f"{self.path}: no space left to use it: free some and try again") from None
                    return

    def _look(self) -> _Stamp:
        """Changes before anybody changes the file: whoever writes has a log first, whose size is the last number."""
        numbers: list[int] = []
        for path in (self.path, self.path.with_name(self.path.name + "-wal")):
            try:
                found = path.stat()
                numbers += (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
            except OSError:
                numbers += (0, 0, 0, 0)
        if not numbers[-1]:
            numbers[4:] = [0, 0, 0, 0]  # an empty log, or none, says nothing
        return tuple(numbers)

    def steady(self, read: Callable[[], _R]) -> _R:
        """The result of ``read`` while nobody changes the file. Where a writer has come, it is shared from then on."""
        while (stamp := self.stamp) is not None:
            result, trouble = None, None
            if self._look() == stamp:
                try:
                    result = read()
                except Exception as error:  # of whatever kind: half of what was read may have been new
                    trouble = error
                if self._look() == stamp:
                    if trouble is not None:
                        raise trouble
                    return cast("_R", result)
            with self._lock:
                if self.stamp == stamp:
                    now = self._look()
                    if now[0] != stamp[0]:
                        raise Busy(f"{self.path} was replaced by another process: open the store again")
                    self._immutable, self.stamp = (False, None) if now[-1] else (True, now)
                    self._start_anew()
        return read()

    def move(self, path: Path) -> None:
        """Go on with another file, which holds all that this one does, and may be written."""
        with self._lock:
            self.path, self.read_only, self._immutable, self.stamp = path, False, False, None
            self._start_anew()

    def _start_anew(self) -> None:
        """Have every thread open the file again. Call with the lock."""
        self._epoch += 1
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.close()

    def _write_ahead(self, connection: sqlite3.Connection) -> None:
        # Deciding on page size and WAL happens once, when the file is empty; afterwards both statements change nothing.
        connection.execute("PRAGMA page_size = 8192")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreFormat(f"{self.path}: this filesystem cannot hold it; choose a local place with --catalog")

    def get(self) -> sqlite3.Connection:
        """This thread's connection."""
        held = self._local.held
        if held is not None and held.epoch == self._epoch and not self._closed:
            return held.connection
        self._local.held = None  # of a closed catalog: this thread is done with it, so it goes now
        held = _Held(self._connect(), self._ended, self._epoch)
        with self._lock:
            if self._closed:
                raise NotAllowed(f"{self.path} is closed")
            self._all.add(held)
        self._local.held = held
        return held.connection

    def _connect(self) -> _Connection:
        if self._closed:
            raise NotAllowed(f"{self.path} is closed")
        mode = "ro" if self.read_only else "rwc"
        uri = f"file:{quote(str(self.path.absolute()))}?mode={mode}" + ("&immutable=1" if self._immutable else "")
        connection = sqlite3.connect(
            uri,
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            factory=_Connection,
        )
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"PRAGMA cache_size = -{_CACHE}")
        # A commit of millions of chunks makes a large WAL file once; do not keep its size for ever.
        connection.execute("PRAGMA journal_size_limit = 67108864")
        return connection

    @property
    def statements(self) -> int:
        """Statements that this process has run on the file; not counted is the question whether others have written."""
        with self._lock:
            while self._ended:
                self._counted += self._ended.pop()
            return self._counted + sum(held.connection.statements for held in self._all)

    @contextmanager
    def write(self, *, large: bool = False) -> Iterator[sqlite3.Connection]:
        """One write transaction; rolled back if the block raises. ``large``: with more memory for its pages."""
        if self.read_only:
            raise ReadOnly(f"{self.path} was opened for reading only")
        with self._writing:
            connection = self.get()
            try:
                if large:
                    connection.execute(f"PRAGMA cache_size = -{_LARGE_CACHE}")
                with transaction(connection, "IMMEDIATE"):
                    yield connection
                self.written += 1
            except sqlite3.Error as error:
                raise translate(error, self.path) from error
            finally:
                if large and not self._closed:
                    connection.execute(f"PRAGMA cache_size = -{_CACHE}")
                    connection.execute("PRAGMA shrink_memory")

    def data_version(self) -> int:
        """A number that changes whenever anyone, here or in another process, has committed to the file.

        Asked of a connection that never writes, so that all threads of this process get the same answer.
        """
        with self._lock:
            if self._watcher is None:
                self._watcher = self._connect()
            (version,) = self._watcher.execute("PRAGMA data_version").fetchone()
            return (self._epoch << 40) + int(version)

    def _drop_local(self) -> None:
        held, self._local.held = self._local.held, None
        if held is not None:
            self._all.discard(held)
            held.connection.close()

    def close(self) -> None:
        """Close the file. Using the catalog afterwards raises NotAllowed.

        Connections of other threads close when those threads next ask for theirs, or end: SQLite does not survive that
        one is closed in the middle of a statement. So that they leave no log behind, it is merged here.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            watcher, self._watcher = self._watcher, None
        mine, self._local.held = self._local.held, None
        if watcher is not None:
            watcher.close()
        if mine is not None:
            self._all.discard(mine)
            if self._all and not self.read_only:
                with suppress(sqlite3.Error):
                    mine.connection.execute("PRAGMA busy_timeout = 0")
                    mine.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            mine.connection.close()
