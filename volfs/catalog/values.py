"""Answers of the catalog: small frozen values, and the arrays of a whole index block.

No SQL here. Payload addresses are :class:`volfs.storage.payload.Payload`; versions are numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from volfs.errors import NotFound
from volfs.model.box import Index
from volfs.storage.payload import Payload

PAYLOAD = np.dtype([("file", "<u4"), ("offset", "<u8"), ("length", "<u8"), ("crc32c", "<u4")])
"""One chunk's payload in ``block.payloads``; file 0: removed, or never there."""

PayloadArray = np.ndarray[Any, np.dtype[np.void]]


@dataclass(frozen=True, slots=True)
class NodeShape:
    """How an array is cut into index blocks: chunks per block, for each axis of its chunk grid."""

    block_shape: Index

    @property
    def ndim(self) -> int:
        return len(self.block_shape)

    @property
    def cells(self) -> int:
        """Chunks per block."""
        return prod(self.block_shape)


@dataclass(frozen=True, slots=True)
class Entry:
    """The object or directory that a name stands for in a version. ``version`` is the one on that version's chain that
    changed the name last.

    ``dir_id``: the directory's incarnation, which is the node id of an array or group; 0 for objects. ``payload``: None
    for directories. ``mode`` and ``mtime_ns`` as in the manifest's records; 0 if not recorded.
    """

    kind: Literal["dir", "object"]
    dir_id: int
    payload: Payload | None
    version: int
    mode: int = 0
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """One chunk's payload, and the version on the chain that put it there."""

    payload: Payload
    version: int


@dataclass(frozen=True, slots=True, eq=False)
class BlockMap:
    """All chunks of one index block in one version. Arrays have one element per cell, in C order of the block.

    ``owner``: the version that put the chunk, 0 where there is none. ``changed``: the version that changed it last,
    removals included, 0 where nothing ever did. ``payloads`` is of dtype :data:`PAYLOAD`; ``names`` are those of the
    files in it, and ``name_of`` says which is whose: a dictionary of the files of a block that hundreds of versions
    wrote into would be larger than all the rest. ``pieces`` holds the piece checksums of the cells whose payloads have
    some. Complete in itself: using it asks the catalog nothing more.
    """

    owner: NDArray[np.int32]
    changed: NDArray[np.int32]
    payloads: PayloadArray
    names: Sequence[str]
    name_of: NDArray[np.uint16]
    pieces: Mapping[int, bytes]

    @property
    def file_id(self) -> NDArray[np.uint32]:
        return self.payloads["file"]

    @property
    def offset(self) -> NDArray[np.uint64]:
        return self.payloads["offset"]

    @property
    def length(self) -> NDArray[np.uint64]:
        return self.payloads["length"]

    @property
    def crc32c(self) -> NDArray[np.uint32]:
        return self.payloads["crc32c"]

    @property
    def nbytes(self) -> int:
        """Roughly what it holds in memory."""
        arrays = self.owner.nbytes + self.changed.nbytes + self.payloads.nbytes + self.name_of.nbytes
        # The names themselves are mostly those that the catalog remembers anyway.
        return arrays + 48 * len(self.names) + sum(map(len, self.pieces.values()))

    def payload(self, cell: int) -> Payload:
        """The payload of a cell that holds a chunk. NotFound where there is none."""
        file, offset, length, crc = self.payloads[cell].item()
        if not file:
            raise NotFound(f"cell {cell} of the block holds no chunk")
        return Payload(self.names[self.name_of[cell]], offset, length, crc, self.pieces.get(cell))

    def present(self) -> NDArray[np.intp]:
        """The cells that hold a chunk."""
        return np.flatnonzero(self.owner)


@dataclass(frozen=True, slots=True, eq=False)
class BlockChange:
    """The cells of one block that one version put or removed, ascending."""

    block: Index
    version: int
    cells: NDArray[np.uint16]
