"""A directory as a :class:`~volfs.storage.backend.Backend`: each object is a file, under its key as its path.

Decided here: how objects reach the disk, and how long files stay open for reading. Not here: the layout of a store
(:mod:`volfs.storage.store_layout`), nor how one file is written safely (:mod:`volfs.storage.files`).

Directories that a key needs are made with it, and go with the last key below them.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import numpy as np

from volfs.errors import Damaged, NotFound, WrongKind
from volfs.model.bounded_map import BoundedMap, Caches
from volfs.storage.backend import (
    Bounded,
    Buffer,
    From,
    ObjectStat,
    ObjectWriter,
    Span,
    Tag,
    check_object_key,
    tagged_object,
)
from volfs.storage.crash import crash_point
from volfs.storage.files import (
    FileLock,
    fsync_dir,
    fsync_tree,
    is_temporary,
    make_dirs,
    no_space,
    open_regular,
    opened,
    pread_all,
    punch_hole,
    read_all,
    write_all,
    write_atomic,
)

_OPEN_FILES = 256


class DirectoryBackend:
    """The objects in the directory ``root``. Processes that create or replace one exclude each other by ``lock``, a
    file that need not be in it."""

    def __init__(self, root: Path, lock: Path, caches: Caches | None = None, *, max_files: int = _OPEN_FILES) -> None:
        self.root = root
        self._lock = lock
        self._max_files = max_files
        self._caches = caches or Caches()
        self._files = _OpenFiles(root, lambda: self._caches.add("stored_files", BoundedMap(max_files)))

    def __repr__(self) -> str:
        return f"<directory {self.root}>"

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, key: str, known: Tag | None = None) -> tuple[bytes, Tag] | None:
        path = self._path(key)
        try:
            with opened(path) as fd:
                identity = _identity(os.fstat(fd))
                if known is not None and known.startswith(identity):
                    return None
                data = read_all(fd)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{path} does not exist") from None
        except (OSError, MemoryError) as error:
            raise Damaged(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        tag = _tag(identity, data)
        return None if tag == known else (data, tag)

    def ranges(self, key: str, spans: Sequence[Span]) -> list[Buffer]:
        file = self._files.acquire(key)
        try:
            return [_read_span(file.fd, key, *_bounds(file.fd, key, span)) for span in spans]
        finally:
            self._files.release(file)

    def resident(self, key: str, span: Bounded) -> memoryview | None:
        data = np.empty(span.length, np.uint8).data  # a bytearray would be filled with zeros first
        file = self._files.acquire_open(key)
        if file is None:
            return None
        try:
            return data if os.preadv(file.fd, [data], span.offset, os.RWF_NOWAIT) == span.length else None
        except OSError:  # not resident, or a filesystem that cannot tell
            return None
        finally:
            self._files.release(file)

    @contextmanager
    def opened(self, key: str) -> Iterator[int | None]:
        file = self._files.acquire(key)
        try:
            yield file.fd
        finally:
            self._files.release(file)

    def stat(self, key: str) -> ObjectStat | None:
        try:
            found = self._path(key).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Damaged(f"{self._path(key)} cannot be read: {error.strerror}") from None
        return None if stat.S_ISDIR(found.st_mode) else ObjectStat(found.st_size, found.st_mtime_ns)

    def list(self, prefix: str = "", after: str = "") -> Iterator[str]:
        if prefix:
            check_object_key(prefix)
        return _keys(self.root / prefix, f"{prefix}/" if prefix else "", os.fsencode(after))

    # -- writing ------------------------------------------------------------------------------------------------

    def put(self, key: str, source: Buffer | Path) -> None:
        path = self._path(key)
        with _kinds(key):
            make_dirs(path.parent)
            write_atomic(path, source)
        self._files.drop(key)

    def create(self, key: str, document: bytes) -> bool:
        with FileLock(self._lock):
            if self.stat(key) is not None:
                return False
            self.put(key, document)
        return True

    def replace(self, key: str, document: bytes, tag: Tag) -> bool:
        with FileLock(self._lock):
            try:
                # By the bytes too: a file soon takes the number of one that was removed.
                if tagged_object(self, key)[1] != tag:
                    return False
            except NotFound:
                return False
            self.put(key, document)
        return True

    def remove(self, keys: Iterable[str]) -> None:
        changed = set()
        for key in keys:
            path = self._path(key)
            with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                path.unlink()
                changed.add(path.parent)
            self._files.drop(key)
        for folder in sorted(changed, key=lambda path: len(path.parts), reverse=True):
            lasting = folder
            with suppress(OSError):
                while lasting != self.root:
                    lasting.rmdir()
                    lasting = lasting.parent
            with suppress(FileNotFoundError):
                fsync_dir(lasting)

    def hollow(self, key: str, spans: Sequence[Bounded], tail: Buffer) -> bool:
        path = self._path(key)
        try:
            with opened(path, os.O_RDWR) as fd:
                os.lseek(fd, os.fstat(fd).st_size - memoryview(tail).nbytes, os.SEEK_SET)
                write_all(fd, tail)
                os.fsync(fd)
                crash_point("backend.tail")
                for span in spans:
                    if not punch_hole(fd, span.offset, span.length):
                        return False
                    crash_point("backend.hole")
                os.fsync(fd)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{path} does not exist") from None
        return True

    def patch(self, key: str, pieces: Iterable[tuple[int, Buffer]]) -> None:
        path = self._path(key)
        try:
            fd = open_regular(path, os.O_RDWR)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{path} does not exist") from None
        try:
            for offset, data in pieces:
                with no_space(f"writing {path.name}"):
                    os.lseek(fd, offset, os.SEEK_SET)
                    write_all(fd, data)
            with no_space(f"writing {path.name}"):
                os.fsync(fd)
        finally:
            os.close(fd)

    def batch(self, prefix: str) -> DirectoryBatch:
        root = self._path(prefix)
        make_dirs(root)
        return DirectoryBatch(root)

    def below(self, prefix: str) -> DirectoryBackend:
        return DirectoryBackend(self._path(prefix), self._lock, self._caches, max_files=self._max_files)

    def where(self, key: str) -> str:
        return f"{self.root}/{key}"

    def forget(self, prefix: str = "") -> None:
        self._files.forget(prefix)

    def _path(self, key: str) -> Path:
        return self.root / check_object_key(key)


class DirectoryBatch:
    """A directory that is being filled, each file under its name from the start."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, name: str, readers: int = 0o666) -> FileWriter:
        path = self._root / check_object_key(name)
        with _kinds(name), no_space(f"writing {path.name}"):
            self._make_folder(path.parent)
            return FileWriter(path, readers)

    def _make_folder(self, folder: Path) -> None:
        """A directory of the batch, and never the batch's own: one that was taken away does not come back."""
        if folder == self._root:
            if not folder.is_dir():
                raise NotFound(f"{folder} does not exist")
            return
        try:
            folder.mkdir(exist_ok=True)
        except FileNotFoundError:
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)

    def sync(self) -> Mapping[str, int]:
        try:
            with no_space("writing the version to disk"):
                return fsync_tree(self._root)
        except FileNotFoundError as error:
            raise NotFound(f"{error.filename} does not exist") from error


class FileWriter(ObjectWriter):
    """A file being written in its place."""

    def __init__(self, path: Path, readers: int) -> None:
        self._path = path
        self._done = False
        self.size = 0
        self._fd: int | None = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, readers)

    def write(self, data: Buffer) -> None:
        with no_space(f"writing {self._path.name}"):
            fd = self._open()
            os.lseek(fd, self.size, os.SEEK_SET)
            try:
                write_all(fd, data)
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(fd, self.size)
                raise
            self.size += memoryview(data).nbytes

    def flush(self) -> None:
        with no_space(f"writing {self._path.name}"):
            os.fsync(self._open())

    def suspend(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def close(self) -> None:
        self.suspend()
        self._done = True

    def abort(self) -> None:
        if not self._done:
            self.close()
            with suppress(OSError):
                self._path.unlink()

    def _open(self) -> int:
        assert not self._done, f"{self._path} is complete"
        if self._fd is None:
            self._fd = open_regular(self._path, os.O_WRONLY)
        return self._fd


def _keys(folder: Path, prefix: str, after: bytes) -> Iterator[str]:
    """The keys of the files at and below a directory, in order."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise Damaged(f"{folder} cannot be listed: {error.strerror}") from None
    # The name of a directory stands in a key with a slash after it, which sorts after "-" and ".".
    named = sorted(
        (os.fsencode(f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name)) for entry in entries
    )
    before = os.fsencode(prefix)
    for raw in named:
        key = os.fsdecode(before + raw)
        if raw.endswith(b"/"):
            # Whatever is in a directory begins with its name: nothing in it comes after what sorts behind all of it.
            if before + raw > after or after.startswith(before + raw):
                yield from _keys(folder / key[len(prefix) : -1], key, after)
        elif before + raw > after and not is_temporary(key[len(prefix) :]):
            yield key


@contextmanager
def _kinds(key: str) -> Iterator[None]:
    """WrongKind where a file would be a directory of another one."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise WrongKind(f"{key} is a directory of other keys, or lies below one that is none") from None
    except Damaged:
        raise WrongKind(f"{key} is something else than a file") from None


def _identity(found: os.stat_result) -> str:
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}-"


def _tag(identity: str, data: bytes) -> Tag:
    return Tag(identity + sha256(data).hexdigest()[:32])


def _bounds(fd: int, key: str, span: Span) -> tuple[int, int]:
    """(offset, length) of a span. Damaged if it begins outside the file."""
    if isinstance(span, Bounded):
        return span.offset, span.length
    size = os.fstat(fd).st_size
    offset, length = (span.offset, size - span.offset) if isinstance(span, From) else (size - span.length, span.length)
    if offset < 0 or length < 0:
        raise Damaged(f"{key}: has {size} bytes, which {span} goes beyond")
    return offset, length


def _read_span(fd: int, key: str, offset: int, length: int) -> bytes:
    try:
        data = pread_all(fd, length, offset)
    except (OSError, OverflowError, MemoryError) as error:
        raise Damaged(f"{key}: cannot read {length} bytes at offset {offset}: {error}") from None
    if len(data) < length:
        raise Damaged(f"{key}: ends at {offset + len(data)}, but {length} bytes at offset {offset} were stored")
    return data


class _OpenFiles:
    """File descriptors, the least recently used closed first, and never one that a reader is using.

    ``make_map`` is called when the first file is opened: most backends that are made of another one
    (:meth:`DirectoryBackend.below`) never read a range, and their bound would be counted with those that do.
    """

    def __init__(self, root: Path, make_map: Callable[[], BoundedMap[str, _OpenFile]]) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._make_map = make_map
        self._open: BoundedMap[str, _OpenFile] | None = None

    def drop(self, name: str) -> None:
        """Close one file: it was replaced or removed."""
        with self._lock:
            entry = None if self._open is None else self._open.pop(name)
            idle = [] if entry is None else self._detach([entry])
        _close(idle)

    def forget(self, prefix: str) -> None:
        """Close the files whose names begin with a prefix."""
        with self._lock:
            entries = [] if self._open is None else self._open.pop_where(lambda name: name.startswith(prefix))
            idle = self._detach(entries)
        _close(idle)

    def acquire_open(self, name: str) -> _OpenFile | None:
        """A file if it is open, which its user releases; else None."""
        with self._lock:
            entry = None if self._open is None else self._open.peek(name)
            if entry is not None:
                entry.users += 1
        return entry

    def acquire(self, name: str) -> _OpenFile:
        """A file, opened if need be, which its user releases. Raises NotFound, Damaged."""
        with self._lock:
            if self._open is None:
                self._open = self._make_map()
            entry = self._open.get(name)
            if entry is not None:
                entry.users += 1
                return entry
        # Opened outside the lock: on a network filesystem open can take long, and hits must not wait for it.
        path = self._root / check_object_key(name)
        try:
            fd = open_regular(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"{name}: cannot be opened: {error.strerror}") from None
        except OSError as error:
            raise Damaged(f"{name}: cannot be opened: {error.strerror}") from None
        idle = [fd]
        with self._lock:
            entry = self._open.get(name)
            if entry is None:
                entry = _OpenFile(fd)
                idle = self._detach(self._open.put(name, entry))
            entry.users += 1
        _close(idle)
        return entry

    def release(self, entry: _OpenFile) -> None:
        with self._lock:
            entry.users -= 1
            last = entry.dropped and entry.users == 0
        if last:
            os.close(entry.fd)

    @staticmethod
    def _detach(entries: Iterable[_OpenFile]) -> list[int]:
        """Mark entries as no longer listed; the descriptors that nobody uses are the caller's to close."""
        idle = []
        for entry in entries:
            entry.dropped = True
            if entry.users == 0:
                idle.append(entry.fd)
        return idle


class _OpenFile:
    __slots__ = ("dropped", "fd", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0
        self.dropped = False


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
