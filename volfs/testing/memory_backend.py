"""Memory as a :class:`~volfs.storage.backend.Backend`: for tests of what must not know where committed bytes lie."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from volfs.errors import Damaged, NotFound, WrongKind
from volfs.storage.backend import Bounded, Buffer, From, ObjectStat, ObjectWriter, Span, Tag, check_object_key
from volfs.storage.files import read_file


class _Objects:
    """What backends of one medium share. ``order``: the keys as bytes, ascending."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.stored: dict[str, tuple[bytes, int, Tag]] = {}
        self.order: list[bytes] = []
        self._puts = 0

    def put(self, key: str, data: bytes) -> None:
        with self.lock:
            self.check_place(key)
            self._puts += 1
            if key not in self.stored:
                insort(self.order, _raw(key))
            self.stored[key] = data, time.time_ns(), Tag(str(self._puts))

    def remove(self, key: str) -> None:
        with self.lock:
            if self.stored.pop(key, None) is not None:
                del self.order[bisect_left(self.order, _raw(key))]

    def is_dir(self, key: str) -> bool:
        """Whether there are keys below a key."""
        first = bisect_left(self.order, _raw(f"{key}/"))
        return first < len(self.order) and self.order[first].startswith(_raw(f"{key}/"))

    def check_place(self, key: str) -> None:
        """WrongKind if a key is a directory of another one, or the reverse."""
        above = key.split("/")[:-1]
        if self.is_dir(key) or any("/".join(above[: n + 1]) in self.stored for n in range(len(above))):
            raise WrongKind(f"{key} is a directory of other keys, or lies below one that is none")


class MemoryBackend:
    """Objects that live as long as this, and those made of it by :meth:`below`, do."""

    def __init__(self) -> None:
        self._objects = _Objects()
        self._prefix = ""

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, key: str, known: Tag | None = None) -> tuple[bytes, Tag] | None:
        data, _, tag = self._found(key)
        return None if tag == known else (data, tag)

    def ranges(self, key: str, spans: Sequence[Span]) -> list[Buffer]:
        data = self._found(key)[0]
        return [_cut(key, data, span) for span in spans]

    def resident(self, key: str, span: Bounded) -> memoryview | None:
        try:
            return memoryview(_cut(key, self._found(key)[0], span))
        except (NotFound, Damaged):
            return None

    @contextmanager
    def opened(self, key: str) -> Iterator[int | None]:
        self.ranges(key, ())
        yield None

    def stat(self, key: str) -> ObjectStat | None:
        found = self._objects.stored.get(self._full(key))
        return None if found is None else ObjectStat(len(found[0]), found[1])

    def list(self, prefix: str = "", after: str = "") -> Iterator[str]:
        below = self._full(prefix) + "/" if prefix else self._prefix
        with self._objects.lock:
            order = self._objects.order
            first = max(
                bisect_left(order, _raw(below)), bisect_right(order, _raw(self._prefix + after)) if after else 0
            )
            found = order[first:]
        for raw in found:
            if not raw.startswith(_raw(below)):
                break
            yield raw.decode("utf-8", "surrogateescape")[len(self._prefix) :]

    # -- writing ------------------------------------------------------------------------------------------------

    def put(self, key: str, source: Buffer | Path) -> None:
        self._objects.put(self._full(key), read_file(source) if isinstance(source, Path) else bytes(source))

    def create(self, key: str, document: bytes) -> bool:
        with self._objects.lock:
            if self._full(key) in self._objects.stored:
                return False
            self.put(key, document)
        return True

    def replace(self, key: str, document: bytes, tag: Tag) -> bool:
        with self._objects.lock:
            found = self._objects.stored.get(self._full(key))
            if found is None or found[2] != tag:
                return False
            self.put(key, document)
        return True

    def remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._objects.remove(self._full(key))

    def hollow(self, key: str, spans: Sequence[Bounded], tail: Buffer) -> bool:
        with self._objects.lock:
            data = bytearray(self._found(key)[0])
            for span in spans:
                data[span.offset : span.offset + span.length] = bytes(span.length)
            data[len(data) - memoryview(tail).nbytes :] = tail
            self.put(key, data)
        return True

    def patch(self, key: str, pieces: Iterable[tuple[int, Buffer]]) -> None:
        with self._objects.lock:
            now = bytearray(self._found(key)[0])
            try:
                for offset, data in pieces:
                    now.extend(bytes(max(0, offset - len(now))))
                    now[offset : offset + memoryview(data).nbytes] = data
            finally:
                self.put(key, now)

    def batch(self, prefix: str) -> MemoryBatch:
        return MemoryBatch(self.below(prefix))

    def below(self, prefix: str) -> MemoryBackend:
        seen = MemoryBackend()
        seen._objects, seen._prefix = self._objects, self._full(prefix) + "/"
        return seen

    def where(self, key: str) -> str:
        return f"memory/{self._prefix}{key}"

    def forget(self, prefix: str = "") -> None:
        """Nothing is held besides the objects."""

    def _full(self, key: str) -> str:
        return self._prefix + check_object_key(key)

    def _found(self, key: str) -> tuple[bytes, int, Tag]:
        full = self._full(key)
        try:
            return self._objects.stored[full]
        except KeyError:
            if self._objects.is_dir(full):
                raise Damaged(f"{key} is no object") from None
            raise NotFound(f"{key} does not exist") from None


class MemoryBatch:
    """See :class:`~volfs.storage.backend.Batch`."""

    def __init__(self, backend: MemoryBackend) -> None:
        self._backend = backend

    def open(self, name: str, readers: int = 0o666) -> MemoryWriter:
        self._backend.put(name, b"")
        return MemoryWriter(self._backend, name)

    def sync(self) -> Mapping[str, int]:
        sizes = {}
        for name in self._backend.list():
            found = self._backend.stat(name)
            if found is not None:
                sizes[name] = found.size
        return sizes


class MemoryWriter(ObjectWriter):
    """See :class:`~volfs.storage.backend.ObjectWriter`."""

    def __init__(self, backend: MemoryBackend, name: str) -> None:
        self._backend = backend
        self._name = name
        self._data: bytearray | None = bytearray()
        self.size = 0

    def write(self, data: Buffer) -> None:
        assert self._data is not None, f"{self._name} is complete"
        self._data += memoryview(data).cast("B")
        self.size = len(self._data)

    def flush(self) -> None:
        """Everything is where it will be."""

    def suspend(self) -> None:
        """Nothing is held that is rare."""

    def close(self) -> None:
        if self._data is not None:
            self._backend.put(self._name, self._data)
            self._data = None

    def abort(self) -> None:
        if self._data is not None:
            self._backend.remove([self._name])
            self._data = None


def _raw(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _cut(key: str, data: bytes, span: Span) -> bytes:
    size = len(data)
    if isinstance(span, Bounded):
        offset, length = span.offset, span.length
    else:
        offset = span.offset if isinstance(span, From) else size - span.length
        length = size - offset
    if not 0 <= offset <= offset + length <= size:
        raise Damaged(f"{key}: has {size} bytes, which {span} goes beyond")
    return data[offset : offset + length]
