"""Layers over a version, as a snapshot: a branch, or the frozen state that a commit is made from.

Decided here: that every read sees one consistent union. Not here: the union itself
(:mod:`volfs.versions.working.union`), how a look waits for layers that move
(:mod:`volfs.versions.working.working_copy`), and arrays over it (:mod:`volfs.versions.working.branch_array`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from volfs.errors import BadName, NotFound
from volfs.model.bounded_map import BoundedMap
from volfs.model.metadata import ArrayMeta, GroupMeta
from volfs.model.names import check_key
from volfs.versions.history import History
from volfs.versions.keys import json_key
from volfs.versions.snapshot import ArrayNode, GroupNode, KeyInfo, Listing, Snapshot
from volfs.versions.working.branch_array import BranchArray, Looks
from volfs.versions.working.chunk_maps import ChunkMaps, Counter
from volfs.versions.working.interpreter import Interpreter
from volfs.versions.working.layer import SPACES
from volfs.versions.working.union import Union

if TYPE_CHECKING:
    from volfs.versions.zarrstore import ZarrStore

_ARRAYS_KEPT = 4096


class UnionSnapshot(Snapshot):
    """Reads keys and arrays of a union. ``counter`` tells when the layers changed. Thread-safe."""

    def __init__(
        self, dataset: History[Snapshot], ref: str, union: Looks, counter: Counter, interpreter: Interpreter
    ) -> None:
        self.dataset = dataset
        self.ref = ref
        self.interpreter = interpreter
        self._looks = union
        self._maps = ChunkMaps(counter, interpreter.caches)
        self._arrays: BoundedMap[str, BranchArray] = interpreter.caches.add("branch_arrays", BoundedMap(_ARRAYS_KEPT))
        self._arrays_mutex = threading.Lock()

    def stat(self, key: str) -> KeyInfo | None:
        return self._looks.look(lambda union: union.stat(key)) if _possible(key) else None

    def list(self, key: str) -> Listing:
        _check_possible(key)
        return self._looks.look(lambda union: union.list(key))

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        _check_possible(key)
        return self._looks.look(lambda union: union.read(key, offset, length))

    def node(self, path: str) -> ArrayNode | GroupNode | None:
        return self._looks.look(lambda union: self._node(union, path))

    def zarr_store(self) -> ZarrStore:
        from volfs.versions.zarrstore import ZarrStore  # zarr-python takes long to import

        return ZarrStore(self)

    def _node(self, union: Union, path: str) -> ArrayNode | GroupNode | None:
        parsed = self.interpreter.node(union, path)
        if not isinstance(parsed, ArrayMeta | GroupMeta):
            return None
        info = union.stat(json_key(path))
        mtime_ns = 0 if info is None else info.mtime_ns
        if isinstance(parsed, GroupMeta):
            return GroupNode(path, parsed.attributes, mtime_ns)
        with self._arrays_mutex:
            array = self._arrays.get(path)
            if array is None or array.meta is not parsed or array.mtime_ns != mtime_ns:
                array = BranchArray(self, self._looks, path, parsed, mtime_ns, self._maps)
                self._arrays.put(path, array)
            return array


def _possible(key: str) -> bool:
    """Whether something can be at ``key``. Keeps names such as ".." from being looked up on disk."""
    if not key or key in SPACES:
        return True
    try:
        check_key(key)
    except BadName:
        return False
    return True


def _check_possible(key: str) -> None:
    if not _possible(key):
        raise NotFound(f"{key} does not exist")
