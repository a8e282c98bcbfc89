"""Writing boxes of voxels into a branch.

Decided here: that a chunk which the box covers is written without being read and any other is read, changed and
written; that nothing is written before everything that had to be read has been; that a chunk of nothing but fill value
is removed, as Zarr clients do; that concurrent writes to one array do not undo each other. Voxels of a chunk that lie
beyond the array's edge are written as fill value. Not here: where the branch keeps its bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from volfs.errors import BadInput, NotFound, ReadOnly
from volfs.model.box import Box, Index
from volfs.volume.blocks import StoredBlocks
from volfs.volume.reader import BlockReader
from volfs.volume.workers import Workers

if TYPE_CHECKING:
    from volfs.versions.snapshot import Snapshot

#: Decoded bytes of the chunks that are changed together.
_BATCH_BYTES = 256 << 20


class WritableKeys(Protocol):
    """What a branch offers to its writers."""

    def put(self, key: str, data: bytes) -> object: ...

    def delete(self, key: str) -> object: ...


def conforming(voxels: npt.ArrayLike, shape: Index, dtype: np.dtype[Any], is_label: bool) -> npt.NDArray[Any]:
    """The voxels as `dtype`, exactly; BadInput if their shape or type is another.

    Byte order does not matter. Labels may come in any unsigned type, if they fit: few file formats have 64 bits.
    """
    array = np.asarray(voxels)
    if array.shape != shape:
        raise BadInput(f"voxels have the shape {array.shape}, {shape} is needed")
    if array.dtype.newbyteorder("=") == dtype:
        return array.astype(dtype, copy=False)
    if is_label and array.dtype.kind == "u" and dtype.kind in "iu":
        if array.size and int(array.max()) > np.iinfo(dtype).max:
            raise BadInput(f"label {int(array.max())} does not fit in {dtype}")
        return array.astype(dtype)
    raise BadInput(f"voxels are {array.dtype}, the array is {dtype}")


class BoxWriter:
    """Writes one array of a branch. `lock` is shared by all writers of the array in this process."""

    def __init__(
        self, snapshot: Snapshot, source: StoredBlocks, reader: BlockReader, workers: Workers, lock: threading.RLock
    ) -> None:
        self._snapshot = snapshot
        self._source = source
        self._reader = reader
        self._workers = workers
        self._lock = lock

    def write(self, box: Box, voxels: npt.NDArray[Any]) -> None:
        """Put conforming voxels into a box inside the array.

        An error before anything is stored (a chunk that does not load) leaves all as it was, for boxes that change up
        to 256 MiB of chunks; a larger one may be half written.
        """
        if not self._snapshot.writable:
            raise ReadOnly(f"{self._snapshot.ref} cannot be written")
        keys = self._source.keys
        if not Box.whole(keys.shape).contains(box):
            raise BadInput(f"{box} is not inside an array of shape {keys.shape}")
        with self._lock:
            for batch in self._batches(keys.iter(keys.chunks(box))):
                self._write_keys(batch, box, voxels)

    def _batches(self, keys: Iterator[Index]) -> Iterator[tuple[Index, ...]]:
        size = max(1, _BATCH_BYTES // max(1, self._source.codec.nbytes))
        while batch := tuple(islice(keys, size)):
            yield batch

    def _write_keys(self, keys: tuple[Index, ...], box: Box, voxels: npt.NDArray[Any]) -> None:
        payloads: dict[Index, bytes | None] = {}

        def change(key: Index) -> None:
            payloads[key] = self._changed(key, box, voxels)

        def store(key: Index) -> None:
            self._store(key, payloads[key])

        self._workers.each(change, keys)
        self._workers.each(store, keys)

    def _changed(self, key: Index, box: Box, voxels: npt.NDArray[Any]) -> bytes | None:
        """The payload of a key after the write, None if it is all fill value."""
        codec = self._source.codec
        whole = self._source.keys.chunk_box(key)
        part = whole.intersect(box)
        new = voxels[part.relative_to(box.start).slices()]
        if part == whole and whole.shape == codec.shape:
            chunk = new
        else:
            chunk = codec.filled()
            if part != whole:
                self._reader.fetch(whole, out=chunk[whole.relative_to(whole.start).slices()])
            chunk[part.relative_to(whole.start).slices()] = new
        return None if codec.is_fill(chunk) else codec.encode(chunk)

    def _store(self, key: Index, payload: bytes | None) -> None:
        branch = cast("WritableKeys", self._snapshot)
        name = self._source.key_name(key)
        if payload is not None:
            branch.put(name, payload)
            return
        with suppress(NotFound):
            branch.delete(name)
