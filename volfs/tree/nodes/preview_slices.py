"""``preview/``: the slices of a level as 8-bit PNGs that any picture viewer opens, listed beside ``xy/``.

Decided here: that there is one for every slice, of exact size, called as the slice is, and none that can be written.
Not here: what a picture looks like (:mod:`volfs.views.eight_bits`), and its window or colours
(:mod:`volfs.tree.nodes.previews`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from volfs.errors import NotFound
from volfs.tree.branches.level_ref import LevelRef
from volfs.tree.contract.attrs import READ_ONLY, Attr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.node import Dir, Node, SmallDir
from volfs.tree.files.layout_file import Contents
from volfs.tree.nodes.previews import eight_bit_contents, eight_bit_layout, is_label, look_time
from volfs.tree.nodes.slices import MAX_SLICES, PlaneDir, SliceFile
from volfs.views import eight_bits
from volfs.views.slices import SliceGeometry

PREVIEW = "preview"
_ENDING = ".png"


class PreviewDir(SmallDir):
    """``preview/``: a directory for each plane."""

    def __init__(
        self, context: TreeContext, ino: int, up: Dir, path: str, ref: LevelRef, others: tuple[int, ...]
    ) -> None:
        super().__init__(context, ino, up, path)
        self.ref = ref
        self.mounted = ref.mounted
        self.absence = ref.images.timeout
        self._others = others

    def names(self) -> Sequence[str]:
        _, geometry = self.ref.geometry()
        return previewed(geometry, is_label=is_label(self.ref)) if geometry is not None else ()

    def find(self, name: str) -> Node | None:
        if name not in self.names():
            return None
        path = f"{self.path}/{name}"
        return PreviewPlanes(
            self.context, self.context.inodes.directory(path), self, path, self.ref, name, self._others
        )

    def listing_cold(self, cookie: int) -> bool:
        return False  # a plane's directory tells its attributes before it knows its slices

    def attr(self) -> Attr:
        return self.directory_attr(self.ref.level().array.mtime_ns, self.absence)


class PreviewPlanes(PlaneDir):
    """``preview/xy/`` and the like."""

    def load(self) -> None:
        super().load()
        facts = self.facts
        self._facts = replace(facts, ending=_ENDING, times=facts.times.at_least(look_time(self.ref)))

    def _slice(self, name: str, index: int, ending: str) -> Node | None:
        if ending != _ENDING:
            return None
        ino = self.context.inodes.file(self.ino, self.ordinal(index, ending))
        return SliceFile(self.context, ino, self, name, index, ending)

    def contents_of(self, index: int, ending: str) -> Contents:
        facts = self.facts
        layout = eight_bit_layout(facts.geometry, self.plane, is_label=is_label(self.ref))
        if layout is None:
            raise NotFound("these slices have no preview")
        start = facts.geometry.start(self.plane, index, self.others)
        return eight_bit_contents(self.ref, layout, start, self.others, facts.time(index))

    def size(self, ending: str) -> int | None:
        layout = eight_bit_layout(self.facts.geometry, self.plane, is_label=is_label(self.ref))
        return layout.size if ending == _ENDING and layout is not None else None

    @property
    def writable(self) -> bool:
        return False

    @property
    def file_mode(self) -> int:
        return READ_ONLY


def previewed(geometry: SliceGeometry, *, is_label: bool) -> list[str]:
    """The planes that have previews."""
    return [
        plane
        for plane in geometry.planes
        if geometry.count(plane) <= MAX_SLICES and eight_bits.holds(geometry, plane, is_label=is_label)
    ]
