"""A reference model of a dataset: dictionaries of keys and bytes, and numpy for arrays.

It says what volfs must show after any sequence of operations, as plainly as it can be said: a version is a dict, a
branch is a dict, a commit copies one. Nothing here comes from the code under test, so that the two can disagree. Arrays
are read only where their chunks are raw bytes (the ``bytes`` codec alone, little-endian, default key encoding).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Voxels = NDArray[Any]
_CHUNK = re.compile(r"(?P<root>zarr(?:/.+)?)/c(?P<coords>(?:/[0-9]+)+)")


@dataclass(frozen=True, slots=True)
class ModelArray:
    """What an array's ``zarr.json`` says, as far as the model goes by it."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any

    @classmethod
    def parse(cls, raw: bytes) -> ModelArray | None:
        """None for a group or anything else."""
        try:
            doc = json.loads(raw)
        except ValueError:
            return None
        if not isinstance(doc, dict) or doc.get("node_type") != "array":
            return None
        dtype = np.dtype(doc["data_type"]).newbyteorder("<")
        chunks = doc["chunk_grid"]["configuration"]["chunk_shape"]
        return cls(tuple(doc["shape"]), tuple(chunks), dtype, doc["fill_value"])

    @property
    def chunk_bytes(self) -> int:
        return int(np.prod(self.chunks)) * self.dtype.itemsize

    def holds(self, coords: tuple[int, ...]) -> bool:
        """Whether a chunk has a voxel inside the array."""
        return len(coords) == len(self.shape) and all(
            i * c < n for i, c, n in zip(coords, self.chunks, self.shape, strict=True)
        )

    def box(self, coords: tuple[int, ...]) -> tuple[slice, ...]:
        return tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(coords, self.chunks, self.shape, strict=True))


@dataclass(slots=True)
class ModelBranch:
    """The state that a branch shows, the version it stands on, and the keys put since."""

    head: int
    state: dict[str, bytes]
    touched: set[str] = field(default_factory=set)


class ModelDataset:
    """Versions, branches and tags. ``versions[0]`` is the empty one that a new dataset begins with."""

    def __init__(self) -> None:
        self.versions: dict[int, dict[str, bytes]] = {0: {}}
        self.branches: dict[str, ModelBranch] = {"main": ModelBranch(0, {})}
        self.tags: dict[str, int] = {}

    # -- keys ---------------------------------------------------------------------------------------------------

    def put(self, branch: str, key: str, data: bytes) -> None:
        there = self.branches[branch]
        there.state[key] = data
        there.touched.add(key)

    def delete(self, branch: str, key: str) -> None:
        there = self.branches[branch]
        del there.state[key]
        there.touched.discard(key)

    def delete_tree(self, branch: str, prefix: str) -> None:
        for key in list(below(self.branches[branch].state, prefix)):
            self.delete(branch, key)

    def discard(self, branch: str, prefix: str = "") -> None:
        there = self.branches[branch]
        head = self.versions[there.head]
        self.delete_tree(branch, prefix)
        there.state.update({key: head[key] for key in below(head, prefix)})

    # -- refs ---------------------------------------------------------------------------------------------------

    def create_branch(self, name: str, at: int) -> None:
        self.branches[name] = ModelBranch(at, dict(self.versions[at]))

    def commit(self, branch: str, number: int) -> None:
        """Chunks that a shrunk array no longer reaches are gone from the version, and so from the branch."""
        there = self.branches[branch]
        for key in self.outside(there.state):
            del there.state[key]
        self.versions[number] = dict(there.state)
        there.head = number
        there.touched.clear()

    def blocked(self, branch: str) -> set[str]:
        """Keys for which a commit must be refused."""
        there = self.branches[branch]
        head = self.versions[there.head]
        found = set()
        for key in there.touched:
            match = _CHUNK.fullmatch(key)
            if match is None:
                if key.endswith("/zarr.json") and not _is_json(there.state[key]):
                    found.add(key)
                continue
            array = self.array(there.state, match["root"])
            coords = tuple(map(int, match["coords"].split("/")[1:]))
            if array is None or not array.holds(coords) or len(there.state[key]) != array.chunk_bytes:
                found.add(key)
        for key in {k for k in there.state if k not in there.touched} & head.keys():
            match = _CHUNK.fullmatch(key)
            if match is not None:
                was, now = self.array(head, match["root"]), self.array(there.state, match["root"])
                if now is None or was is None or (was.chunks, was.dtype) != (now.chunks, now.dtype):
                    found.add(f"{match['root']}/zarr.json")
        return found

    # -- arrays -------------------------------------------------------------------------------------------------

    def array(self, state: dict[str, bytes], root: str) -> ModelArray | None:
        raw = state.get(f"{root}/zarr.json")
        return None if raw is None else ModelArray.parse(raw)

    def outside(self, state: dict[str, bytes]) -> list[str]:
        """Chunks outside their arrays."""
        found = []
        for key in state:
            match = _CHUNK.fullmatch(key)
            array = None if match is None else self.array(state, match["root"])
            if match is None or array is None:
                continue
            if not array.holds(tuple(map(int, match["coords"].split("/")[1:]))):
                found.append(key)
        return found

    def voxels(self, state: dict[str, bytes], root: str) -> Voxels:
        """All voxels of an array whose chunks are fit to be read."""
        array = self.array(state, root)
        assert array is not None
        out = np.full(array.shape, array.fill, array.dtype)
        for coords in self._grid(array):
            raw = state.get(self._key(root, coords))
            if raw is not None:
                box = array.box(coords)
                chunk = np.frombuffer(raw, array.dtype).reshape(array.chunks)
                out[box] = chunk[tuple(slice(0, s.stop - s.start) for s in box)]
        return out

    def write(self, branch: str, root: str, box: tuple[slice, ...], voxels: Voxels) -> None:
        """Put voxels into a box. Chunks of nothing but fill value go, as Zarr clients do it."""
        state = self.branches[branch].state
        array = self.array(state, root)
        assert array is not None
        volume = self.voxels(state, root)
        volume[box] = voxels
        for coords in self._grid(array):
            inside = array.box(coords)
            if any(min(a.stop, b.stop) <= max(a.start, b.start) for a, b in zip(inside, box, strict=True)):
                continue
            chunk = np.full(array.chunks, array.fill, array.dtype)
            chunk[tuple(slice(0, s.stop - s.start) for s in inside)] = volume[inside]
            key = self._key(root, coords)
            if (chunk == array.fill).all():
                if key in state:
                    self.delete(branch, key)
            else:
                self.put(branch, key, chunk.tobytes())

    @staticmethod
    def _grid(array: ModelArray) -> Iterator[tuple[int, ...]]:
        return product(*(range(-(-n // c)) for n, c in zip(array.shape, array.chunks, strict=True)))

    @staticmethod
    def _key(root: str, coords: tuple[int, ...]) -> str:
        return f"{root}/c/{'/'.join(map(str, coords))}"


def below(state: dict[str, bytes], prefix: str) -> Iterator[str]:
    """Keys at and below a prefix; all of them for ``""``."""
    return (key for key in list(state) if not prefix or key == prefix or key.startswith(f"{prefix}/"))


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except ValueError:
        return False
    return True
