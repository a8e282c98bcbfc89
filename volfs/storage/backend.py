"""Where committed bytes are kept: the port through which everything above reads and writes them.

Decided here: what a backend promises. A key is a relative path as docs/storage.md lays a store out
("versions/00000012/zarr/s0/c/0/0/0"); its bytes are an object. Not here: what is under which key
(:mod:`volfs.storage.store_layout`), which versions and refs there are (:mod:`volfs.versions.ledger`), and working
copies, catalogs and inodes, which are always local files. A directory is one backend
(:mod:`volfs.storage.directory_backend`), memory another (:mod:`volfs.testing.memory_backend`); whoever writes a third
has :class:`volfs.testing.backend_conformance.BackendConformance` judge it.

All methods may be called from many threads at once. What cannot be read is NotFound or Damaged, and never an error of
the medium itself; what cannot be written may be one (OSError), besides NoSpace, and WrongKind for a key that is a
directory of another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NewType, Protocol, Self

from volfs.errors import BadInput
from volfs.storage.json_document import check_document_size, dump_document, load_document

Buffer = bytes | bytearray | memoryview

Tag = NewType("Tag", str)
"""Stands for the bytes of one object: equal tags of one key mean equal bytes. Opaque."""


@dataclass(frozen=True, slots=True)
class Bounded:
    """``length`` bytes from ``offset`` on."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class From:
    """Everything from ``offset`` on."""

    offset: int


@dataclass(frozen=True, slots=True)
class Last:
    """The last ``length`` bytes."""

    length: int


Span = Bounded | From | Last
"""Which bytes of an object are meant. They must be there: a span is never cut short."""


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """``size`` in bytes; ``time_ns``: when the object was put."""

    size: int
    time_ns: int


class Backend(Protocol):
    """Objects under keys. No key is a directory of another one; reading one that is raises Damaged, as an object is
    expected in its place. BadInput for what :func:`check_object_key` refuses."""

    def get(self, key: str, known: Tag | None = None) -> tuple[bytes, Tag] | None:
        """A whole object and its tag; None if its tag is still ``known``. Raises NotFound, Damaged."""

    def ranges(self, key: str, spans: Sequence[Span]) -> list[Buffer]:
        """The bytes of each span, exactly. NotFound if there is no such object, Damaged if a span is not all there or
        cannot be read. For what is committed: of an object that others replace, these may be the bytes from before."""

    def resident(self, key: str, span: Bounded) -> memoryview | None:
        """The same for one span if no medium need be waited for; else, or if it cannot be told, None."""

    def opened(self, key: str) -> AbstractContextManager[int | None]:
        """A descriptor that reads the object's bytes by offset, until the context ends; None if it has none on this
        machine. Raises NotFound, Damaged on entering."""

    def stat(self, key: str) -> ObjectStat | None:
        """Size and time of an object; None if there is none."""

    def list(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """The keys below the directory ``prefix`` ("": all), ascending by their UTF-8 bytes; only those greater than
        ``after``, if that is given. An object that comes or goes meanwhile may be listed or not."""

    def put(self, key: str, source: Buffer | Path) -> None:
        """Store an object, whole and durably; a file's bytes if ``source`` is its path. It takes the place of an older
        one in one step. What is committed is put once; only what nobody reads yet may be put again."""

    def create(self, key: str, document: bytes) -> bool:
        """Store an object durably if there is none under the key. False if there is one: of several callers at once,
        one gets True."""

    def replace(self, key: str, document: bytes, tag: Tag) -> bool:
        """Store an object durably in place of the one that has this tag. False if it has another one by now, or is
        gone."""

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects, durably. One that is not there is fine."""

    def hollow(self, key: str, spans: Sequence[Bounded], tail: Buffer) -> bool:
        """Free the bytes of some spans of an object, durably: they are zeros then. Its last bytes become ``tail``; all
        others stay what and where they are. False if the medium cannot free parts of an object: then the spans are as
        they were, and the end is ``tail`` all the same. NotFound if there is no such object. Repeating it does no
        harm."""

    def patch(self, key: str, pieces: Iterable[tuple[int, Buffer]]) -> None:
        """Put bytes of an object that its medium lacks into their places (offsets), which may be behind its end; they
        are durable when this returns. All others stay what and where they are. NotFound if there is no such object.
        Repeating it does no harm; if ``pieces`` raises, those before are there."""

    def batch(self, prefix: str) -> Batch:
        """Begin to write many objects below the directory ``prefix``, or go on doing so."""

    def below(self, prefix: str) -> Self:
        """The same objects seen from the directory ``prefix``: keys are relative to it."""

    def where(self, key: str) -> str:
        """How a message names an object: so that a person finds it."""

    def forget(self, prefix: str = "") -> None:
        """Close and forget the objects below ``prefix``, which were removed or replaced."""


class Batch(Protocol):
    """Objects below one prefix that nobody reads until all of them are there: a version being written.

    Cheaper than :meth:`Backend.put`, since nothing need be durable before :meth:`sync` has returned.
    """

    def open(self, name: str, readers: int = 0o666) -> ObjectWriter:
        """Write an object, in place of one of that name. ``readers``: permission bits, where objects have some, if they
        are less than is usual there. WrongKind if the name is a directory of another one's, or the reverse; NotFound if
        others have removed the batch."""

    def sync(self) -> Mapping[str, int]:
        """Make everything durable. The size of each object, by its name below the prefix. NotFound if others have
        removed some of it meanwhile."""


class ObjectWriter(Protocol):
    """One object being written, from the front to the back. Not thread-safe."""

    size: int
    """Bytes written so far."""

    def write(self, data: Buffer) -> None:
        """Append bytes. If there is no room (NoSpace), or it fails otherwise, none of them count as written."""

    def flush(self) -> None:
        """Hand what was written to the medium, before :meth:`Batch.sync` waits for it."""

    def suspend(self) -> None:
        """Give back what the system has few of (descriptors); the next write takes it again."""

    def close(self) -> None:
        """The object is complete."""

    def abort(self) -> None:
        """There shall be no such object. After :meth:`close` this does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, or abort if the block raised."""
        if error is None:
            self.close()
        else:
            self.abort()


def read_object(backend: Backend, key: str) -> bytes:
    """A whole object. Raises NotFound, Damaged."""
    return tagged_object(backend, key)[0]


def read_range(backend: Backend, key: str, offset: int, length: int) -> bytes:
    """``length`` bytes of an object from ``offset`` on, not checked. Raises NotFound, Damaged."""
    return bytes(backend.ranges(key, (Bounded(offset, length),))[0])


def tagged_object(backend: Backend, key: str) -> tuple[bytes, Tag]:
    """A whole object and its tag. Raises NotFound, Damaged."""
    found = backend.get(key)
    assert found is not None, "no tag of it is known"
    return found


def read_document(backend: Backend, key: str) -> dict[str, Any]:
    """The value of a document (:mod:`volfs.storage.json_document`). Raises NotFound, or Damaged."""
    return _tagged_document(backend, key)[0]


def change_document(backend: Backend, key: str, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Replace a document by the one that ``change`` makes of it, also if others change it at the same time; None leaves
    it as it is. Raises NotFound, or Damaged."""
    while True:
        value, tag = _tagged_document(backend, key)
        made = change(value)
        if made is None or backend.replace(key, dump_document(made), tag):
            return


def _tagged_document(backend: Backend, key: str) -> tuple[dict[str, Any], Tag]:
    found = backend.stat(key)
    if found is not None:
        check_document_size(found.size, backend.where(key))
    raw, tag = tagged_object(backend, key)
    return load_document(raw, backend.where(key))[0], tag


def check_object_key(key: str) -> str:
    """The key. BadInput unless it is a relative path in its plainest form, which no filesystem reads as another."""
    if "\0" in key or any(part in ("", ".", "..") for part in key.split("/")):
        raise BadInput(f"{key!r} is no key of an object")
    return key
