"""What a commit is made of, as a snapshot: the frozen layer of a working copy over the base.

Decided here: that what is being committed reads like any other snapshot, so that those who add to a commit (the levels
of an image follow s0) work on exactly the state that is committed, while writers go on in the branch. Not decided here:
the union (:mod:`volfs.versions.union`), arrays over it (:mod:`volfs.versions.branchnode`), and the commit
(:mod:`volfs.versions.commit`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from volfs.errors import WrongKind
from volfs.model.graph import VersionInfo
from volfs.model.metadata import ArrayMeta, GroupMeta
from volfs.storage.files import no_space, opened, write_all
from volfs.versions.branchnode import BranchArray
from volfs.versions.chunkmap import ChunkMaps
from volfs.versions.history import History
from volfs.versions.interpret import Interpreter
from volfs.versions.keys import json_key
from volfs.versions.layers import SPACES, Layer
from volfs.versions.pulse import Listener
from volfs.versions.reading import existing, read_entry
from volfs.versions.snapshot import ArrayNode, GroupNode, KeyInfo, Listing, Snapshot
from volfs.versions.union import Union

if TYPE_CHECKING:
    from volfs.versions.zarrstore import ZarrStore


_T = TypeVar("_T")
_states = count()


class FrozenState(Snapshot):
    """A fixed union of layers over a version. Nobody writes to the layers while this is read."""

    writable = False

    def __init__(self, dataset: History[Snapshot], ref: str, union: Union, interpreter: Interpreter) -> None:
        self.dataset = dataset
        self.ref = ref
        self.union = union
        self._interpreter = interpreter
        self._generation = ("frozen", next(_states))
        self._maps = ChunkMaps(_Still())
        self._arrays: dict[str, BranchArray] = {}

    @property
    def base(self) -> VersionInfo | None:
        return None if self.union.lower is None else self.union.lower.base

    def generation(self) -> Hashable:
        return self._generation

    def look(self, see: Callable[[Union], _T]) -> _T:
        """What ``see`` finds: nothing changes meanwhile."""
        return see(self.union)

    def stat(self, key: str) -> KeyInfo | None:
        entry = self.union.entry(key)
        return None if entry is None else entry.info

    def list(self, key: str) -> Listing:
        return self.union.list(key)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        entry = existing(self.union, key)
        if entry.kind == "dir":
            raise WrongKind(f"{key} is a directory")
        if entry.layer is None:
            assert self.union.lower is not None
            return self.union.lower.read(key, offset, length)
        return read_entry(entry, entry.layer, key, offset, length)

    def node(self, path: str) -> ArrayNode | GroupNode | None:
        parsed = self._interpreter.node(self.union, path)
        if not isinstance(parsed, ArrayMeta | GroupMeta):
            return None
        entry = self.union.entry(json_key(path))
        mtime_ns = 0 if entry is None else entry.info.mtime_ns
        if isinstance(parsed, GroupMeta):
            return GroupNode(path, parsed.attributes, mtime_ns)
        array = self._arrays.get(path)
        if array is None or array.meta is not parsed:
            array = self._arrays[path] = BranchArray(self, self, path, parsed, mtime_ns, self._maps)
        return array

    def zarr_store(self) -> ZarrStore:
        from volfs.versions.zarrstore import ZarrStore  # zarr-python takes long to import

        return ZarrStore(self)


class Additions:
    """A layer above what was frozen, for what is derived from it: on disk, so that memory does not follow its size."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.layer = Layer(str(root))
        self.count = 0
        for name in (*SPACES, "removed"):
            (root / name).mkdir(parents=True)

    def put(self, key: str, data: bytes | None) -> None:
        """Have the version hold ``data`` at ``key``; None takes the key away."""
        self.count += 1
        with no_space("adding to the version"):
            if data is None:
                self.layer.hide(key, str(self._root))
                return
            path = self.layer.path(key)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
                write_all(fd, data)


class _Still:
    """A count that stands still."""

    def listen(self, listener: Listener) -> None:
        return None

    def read(self) -> int:
        return 0
