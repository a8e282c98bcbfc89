"""Many stored chunks decoded into one array by C, with the interpreter let go of once and not at every step.

Decided here: which payloads and codecs C decodes, and that a chunk in doubt is no error yet: whoever made the list
reads it by :mod:`volfs.storage.payload` and :mod:`volfs.storage.codec`, which say what is wrong. Not here: the decoding
(``volfs/native/chunks.h``), and which chunks are wanted.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from volfs.errors import Damaged, NotFound
from volfs.model.box import Index
from volfs.native import core
from volfs.storage.chain import Array
from volfs.storage.codec import ChunkCodec
from volfs.storage.payload import Payload, PayloadReader

#: C decodes no larger chunks: MOST_BYTES of ``volfs/native/chunks.c``.
_MOST_BYTES = 1 << 30


class DecodeList:
    """Chunks of one array, each with its place in a target. Filled by one thread, then drained by any number; a context
    manager, which keeps the files open that the chunks are in."""

    def __init__(self, chunks: Any, axes: Index) -> None:
        self._chunks = chunks
        self._axes = axes
        self._files = ExitStack()
        self._open: dict[str, int | None] = {}

    @classmethod
    def of(cls, codec: ChunkCodec, target: Array, room: int) -> DecodeList | None:
        """A list for up to ``room`` chunks; None if C does not decode chunks like these, or not into such memory.

        ``target`` has the axes of the array, any strides, and the array's dtype in native byte order.
        """
        stored = codec.stored_form
        if core is None or stored is None or codec.nbytes > _MOST_BYTES:
            return None
        if codec.dtype.kind == "c" and stored.swapped:
            return None  # C swaps items, of which a complex number has two
        if target.dtype != codec.dtype or target.dtype.itemsize not in (1, 2, 4, 8) or not target.flags.writeable:
            return None
        view = target.transpose(stored.axes).view(f"u{target.dtype.itemsize}")
        return cls(
            core.ChunkList(
                view,
                tuple(codec.shape[axis] for axis in stored.axes),
                swap=stored.swapped,
                boolean=codec.dtype.kind == "b",
                summed=stored.summed,
                compressor=stored.compressor,
                room=room,
            ),
            stored.axes,
        )

    def add(self, reader: PayloadReader, payload: Payload, start: Index) -> bool:
        """Have a chunk decoded to where its first voxel is ``start`` in the target. False if it must be read otherwise,
        as bytes that are in no file of this machine."""
        fd = self._descriptor(reader, payload.file)
        if fd is None:
            return False
        self._chunks.add(fd, payload.offset, payload.length, payload.crc32c, [start[axis] for axis in self._axes])
        return True

    def _descriptor(self, reader: PayloadReader, file: str) -> int | None:
        if file not in self._open:
            try:
                self._open[file] = self._files.enter_context(reader.opened(file))
            except (NotFound, Damaged):
                self._open[file] = None
        return self._open[file]

    def drain(self, _: object = None) -> None:
        """Decode what no other thread has taken yet. Blocks; needs no interpreter meanwhile."""
        self._chunks.drain()

    def doubts(self) -> list[int]:
        """The numbers, in the order of :meth:`add`, of the chunks that must be read otherwise. Once all are drained."""
        found: list[int] = self._chunks.doubts()
        return found

    def __enter__(self) -> DecodeList:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()
