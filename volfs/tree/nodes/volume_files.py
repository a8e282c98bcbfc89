"""``volume.tif``, ``volume.nii`` and the others: the volume files of a level, or of one index along its other axes.

Decided here: their inodes, times and stamps. Which formats hold a volume, and how its bytes lie, is decided in
:mod:`volfs.views.volumes`; reading and writing are those of all laid out files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from volfs.model.box import Box
from volfs.tree.branches.level_ref import LevelRef
from volfs.tree.core.lender import PlaneStack
from volfs.tree.core.node import Dir, Node
from volfs.tree.files.layout_file import Contents, LayoutFile
from volfs.views.layout import Layout
from volfs.views.slices import PLANES
from volfs.views.volume import VolumeSpec
from volfs.views.volumes import FORMATS, listed
from volfs.views.volumes.volume_spec import LevelMeta, whole
from volfs.volume.level import Level

#: Ordinals of volume files. Kept once released: they are part of inodes.
_FIRST_SLOT = 32
VOLUME_SLOTS = {f"volume{one.ending}": _FIRST_SLOT + one.number for one in FORMATS.values()}


@dataclass(frozen=True, slots=True)
class _Shelf:
    """The volume files of a level, valid while its metadata stays the same."""

    level: Level
    meta: LevelMeta | None
    spec: VolumeSpec | None
    names: tuple[str, ...]
    layouts: dict[str, Layout] = field(default_factory=dict)


class VolumeFiles:
    """The volume files of one directory, ``owner``. ``others`` are the indices of the axes on the way to it."""

    def __init__(self, owner: Dir, ref: LevelRef, others: tuple[int, ...]) -> None:
        self._owner = owner
        self._ref = ref
        self._others = others
        self._known: _Shelf | None = None

    def names(self) -> tuple[str, ...]:
        """Those of the formats that hold the volume."""
        return self._shelf().names

    def find(self, name: str) -> Node | None:
        shelf, owner = self._shelf(), self._owner
        if name not in shelf.names:
            return None
        ino = owner.context.inodes.file(owner.ino, VOLUME_SLOTS[name])
        return LayoutFile(owner.context, ino, owner, name, self._ref.mounted, lambda: self._made(shelf, name))

    def _shelf(self) -> _Shelf:
        level, known = self._ref.level(), self._known
        meta = self._ref.images.meta(self._ref.image, self._ref.name)
        if known is None or known.level is not level or known.meta is not meta:
            spec = whole(meta, self._others) if meta is not None else None
            names = tuple(f"volume{one.ending}" for one in listed(spec)) if spec is not None else ()
            known = self._known = _Shelf(level, meta, spec, names)
        return known

    def _made(self, shelf: _Shelf, name: str) -> Contents:
        level, spec = shelf.level, shelf.spec
        assert spec is not None
        layout = shelf.layouts.get(name)
        if layout is None:
            layout = shelf.layouts[name] = FORMATS[name.removeprefix("volume")].layout(spec)
        made = Contents(layout, level, self._time(level, spec.box), lambda: (level.stamp(spec.box), spec), level, level)
        lender, geometry = self._owner.context.lender, self._ref.geometry()[1]
        if lender is None or geometry is None or not self._ref.images.lasting or spec.others:
            return made

        owner, others, count = self._owner, self._others, geometry.count(PLANES[0])

        def planes() -> PlaneStack | None:
            return lender.stack(owner.ino, level, geometry, PLANES[0], others)

        def fronted() -> bool:
            stack = planes()
            return stack is not None and stack.serve(layout, owner.context.inodes.file(owner.ino, VOLUME_SLOTS[name]))

        def served(offset: int, length: int) -> None:
            stack, plane = planes(), max(1, layout.size // count)
            if stack is not None:
                stack.lend(offset // plane, (offset + length) // plane)

        return replace(made, fronted=fronted, served=served)

    def _time(self, level: Level, box: Box) -> int:
        """When any voxel changed last."""
        geometry = self._ref.geometry()[1]
        assert geometry is not None
        axes = tuple(other.axis for other in geometry.others[: len(self._others)])
        if not level.few_keys(axes):
            return level.newest(box)
        newest = level.newest_along(axes)
        for axis, index in zip(axes, self._others, strict=True):
            newest = newest[min(index // level.key_shape[axis], len(newest) - 1)]
        return int(newest)
