"""A level as a directory: what it is, its chunks, and the way to its slices.

Decided here: ``info.json``, the ``chunks`` link, and the directories of other axes (``t0003/c01/``) between level and
planes. The names of axes and planes are decided in :mod:`volfs.views.slices`; what is in a plane directory in
:mod:`volfs.tree.planes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from volfs.errors import VolfsError
from volfs.tree.api import DirEntry
from volfs.tree.attrs import FOREVER, SOON, Attr
from volfs.tree.edits import EditablePlaneDir
from volfs.tree.generated import Document, Generated
from volfs.tree.node import FIRST_COOKIE, Dir, Link, Node, attr_of
from volfs.tree.places import Places
from volfs.tree.planes import MAX_SLICES, PlaneDir
from volfs.tree.shared import Shared
from volfs.views import documents
from volfs.views.slices import SliceGeometry
from volfs.volume.level import Level

_STEP_COOKIE = 64


@dataclass(frozen=True, slots=True)
class LevelRef:
    """A level by name, looked up again whenever it is needed: in a branch it may have changed, or gone."""

    places: Places
    image: str
    name: str

    def level(self) -> Level:
        """Raises NotFound."""
        return self.places.level(self.image, self.name)

    def geometry(self) -> tuple[Level, SliceGeometry | None]:
        """The level and how its slices lie. Raises NotFound."""
        return self.places.geometry(self.image, self.name)


class LevelContents:
    """What is in the directory of a level, or in one of its axis directories. Shown by ``owner``, which is either, or
    the directory of an image that is a single array."""

    slots: ClassVar[dict[str, int]] = {"info.json": 11, "chunks": 12}

    def __init__(self, owner: Dir, ref: LevelRef, others: tuple[int, ...] = ()) -> None:
        self._owner = owner
        self._ref = ref
        self._others = others

    def names(self) -> list[str]:
        """All names. For directories that are small; others use :meth:`entries`."""
        _, geometry = self._ref.geometry()
        return [*(self.slots if not self._others else ()), *(self._step(geometry, i) for i in range(self._count()))]

    def find(self, name: str) -> Node | None:
        owner, shared, ref = self._owner, self._owner.shared, self._ref
        level, geometry = ref.geometry()
        if name in self.slots and not self._others:
            ino = shared.inodes.file(owner.ino, self.slots[name])
            timeout = FOREVER if ref.places.lasting else SOON
            if name == "chunks":
                above = "../" * len([part for part in ref.places.relative(owner.path).split("/") if part])
                target = "/".join(part for part in ("zarr", level.array.path) if part)
                return Link(shared, ino, owner, above + target, level.array.mtime_ns, timeout)
            return Generated(shared, ino, owner, self._info(level))
        if geometry is None:
            return None
        path = f"{owner.path}/{name}"
        at = len(self._others)
        if at < len(geometry.others):
            index = geometry.others[at].parse(name)
            if index is None:
                return None
            return AxisDir(shared, shared.inodes.directory(path), owner, path, ref, (*self._others, index))
        if name not in self._planes(geometry):
            return None
        kind = PlaneDir if ref.places.room is None else EditablePlaneDir
        return kind(shared, shared.inodes.directory(path), owner, path, ref, name, self._others)

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        _, geometry = self._ref.geometry()
        if not self._others:
            for name, slot in self.slots.items():
                if cookie < FIRST_COOKIE + slot and (attr := attr_of(self.find(name))) is not None:
                    yield DirEntry(name.encode(), attr, FIRST_COOKIE + slot)
        for index in range(max(0, cookie - _STEP_COOKIE + 1), self._count()):
            name = self._step(geometry, index)
            if (attr := attr_of(self.find(name))) is not None:
                yield DirEntry(name.encode(), attr, _STEP_COOKIE + index)

    def _count(self) -> int:
        _, geometry = self._ref.geometry()
        if geometry is None:
            return 0
        at = len(self._others)
        return geometry.others[at].count if at < len(geometry.others) else len(self._planes(geometry))

    def _step(self, geometry: SliceGeometry | None, index: int) -> str:
        assert geometry is not None
        at = len(self._others)
        return geometry.others[at].name(index) if at < len(geometry.others) else self._planes(geometry)[index]

    @staticmethod
    def _planes(geometry: SliceGeometry) -> list[str]:
        return [plane for plane in geometry.planes if geometry.count(plane) <= MAX_SLICES]

    def _info(self, level: Level) -> Document:
        def render() -> bytes:
            meta = level.array.meta
            return documents.info_json(
                axes=level.axes,
                shape=level.shape,
                dtype=level.dtype,
                voxel_size=level.scale,
                chunk_shape=meta.sharding.chunk_shape if meta.sharding is not None else meta.chunk_shape,
                codecs=meta.codecs,
                fill_value=level.fill_value,
                shard_shape=meta.chunk_shape if meta.sharding is not None else None,
            )

        return Document(render, level.array.mtime_ns, lambda: id(level), lasting=self._ref.places.lasting)


class LevelDir(Dir):
    """``s0/``, or the directory of a plain array."""

    def __init__(self, shared: Shared, ino: int, up: Dir, path: str, ref: LevelRef) -> None:
        super().__init__(shared, ino, up, path)
        self.ref = ref
        self.absence = FOREVER if ref.places.lasting else SOON
        self._contents = LevelContents(self, ref)

    @property
    def cold(self) -> bool:
        return self.ref.places.cold

    def load(self) -> None:
        self.ref.places.load()

    def find(self, name: str) -> Node | None:
        return self._contents.find(name)

    def numbered(self, ordinal: int) -> Node | None:
        return next((self.find(name) for name, slot in LevelContents.slots.items() if slot == ordinal), None)

    def listing_cold(self, cookie: int) -> bool:
        node = self.find("info.json")
        return node is not None and node.cold

    def load_listing(self) -> None:
        node = self.find("info.json")
        if node is not None and node.cold:
            node.load()

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        return self._contents.entries(cookie)

    def attr(self) -> Attr:
        return level_attr(self, self.ref)

    def refusal(self) -> VolfsError:
        assert self.up is not None
        return self.up.refusal()


class AxisDir(Dir):
    """``t0003/`` and the like: one index along an axis besides those of the planes."""

    def __init__(self, shared: Shared, ino: int, up: Dir, path: str, ref: LevelRef, others: tuple[int, ...]) -> None:
        super().__init__(shared, ino, up, path)
        self.ref = ref
        self.absence = FOREVER if ref.places.lasting else SOON
        self._contents = LevelContents(self, ref, others)

    def find(self, name: str) -> Node | None:
        return self._contents.find(name)

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        return self._contents.entries(cookie)

    def attr(self) -> Attr:
        return level_attr(self, self.ref)


def level_attr(node: Dir, ref: LevelRef) -> Attr:
    """A directory of a level is as old as the array: its names follow from the shape alone."""
    level, room = ref.level(), ref.places.room
    if room is None:
        return node.directory_attr(level.array.mtime_ns, FOREVER)
    return node.directory_attr(level.array.mtime_ns, SOON, writable=room.writable)
