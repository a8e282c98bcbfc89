"""A plane directory: a hundred thousand slices, listed without looking at any of them.

Decided here: inodes, sizes and times of slices, computed for a whole directory at once; and which other endings open by
name. Not here: what slices are called and look like (:mod:`volfs.views.slices`), reading them
(:mod:`volfs.tree.core.layout_handle`), and writing them (:mod:`volfs.tree.nodes.branch_slices`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from volfs.errors import NotFound
from volfs.model.box import Box
from volfs.tree.contract.api import DirEntry
from volfs.tree.contract.attrs import GENERATION, READ_ONLY, WRITABLE, Attr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.layout_handle import QuickShifted
from volfs.tree.core.lender import Lender, PlaneStack
from volfs.tree.core.node import FIRST_COOKIE, Dir, Node
from volfs.tree.files.document import DocumentFile
from volfs.tree.files.layout_file import Contents, LayoutFile
from volfs.tree.nodes.previews import eight_bit_contents, eight_bit_layout, is_label, look_time, preview, resampled_file
from volfs.views import iso_slices, jpeg
from volfs.views.plane import PlaneSpec
from volfs.views.slices import THROUGH, SliceGeometry
from volfs.volume.level import Level

if TYPE_CHECKING:
    from volfs.tree.branches.level_ref import LevelRef

#: The ordinals of one slice: one for each ending, with room for more. Kept once released: they are part of inodes.
_ENDINGS = {
    ".png": 0,
    ".tif": 1,
    ".npy": 2,
    ".jpg": 3,
    ".iso.png": 4,
    ".iso.tif": 5,
    ".iso.npy": 6,
    ".iso.jpg": 7,
}
_COLOURED = ".png"
_STRIDE = 8
MAX_SLICES = ((1 << 27) - 1) // _STRIDE

#: Layers of chunks whose times are looked up and remembered together.
_LAYERS = 1 << 14


class LayerTimes:
    """When each layer of chunks along an axis changed last, where there may be millions of them: found for the layers
    around the one that is asked for, ``find(start, stop)``, and remembered until others are. Thread-safe."""

    def __init__(self, count: int, find: Callable[[int, int], list[int]], together: int = _LAYERS) -> None:
        self._count = count
        self._find = find
        self._together = together
        self._kept: tuple[int, list[int]] | None = None

    @classmethod
    def known(cls, times: list[int]) -> LayerTimes:
        """Times that are all known."""
        found = cls(len(times), lambda start, stop: times, len(times) or 1)
        found._kept = 0, times
        return found

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, layer: int) -> int:
        start = layer - layer % self._together
        kept = self._kept
        if kept is None or kept[0] != start:
            kept = self._kept = start, self._find(start, min(start + self._together, self._count))
        return kept[1][layer - start]

    def at_least(self, time: int) -> LayerTimes:
        """The same, where what is shown changed at ``time`` besides."""
        later = LayerTimes(
            self._count, lambda *layers: [max(each, time) for each in self._find(*layers)], self._together
        )
        if self._kept is not None:
            later._kept = self._kept[0], [max(each, time) for each in self._kept[1]]
        return later

    def knows(self, layer: int) -> bool:
        """Whether the time of a layer is remembered."""
        kept = self._kept
        return kept is not None and kept[0] == layer - layer % self._together


@dataclass(frozen=True, slots=True)
class PlaneFacts:
    """All slices of one directory at a moment: ``times`` by chunk along the axis that numbers them."""

    generation: Hashable
    level: Level
    geometry: SliceGeometry
    count: int
    ending: str
    digits: int
    chunk: int
    times: LayerTimes

    def layer(self, index: int) -> int:
        """The layer of chunks in which a slice lies."""
        return min(index // self.chunk, len(self.times) - 1)

    def time(self, index: int) -> int:
        return self.times[self.layer(index)]


class PlaneDir(Dir):
    """``xy/``, ``xz/`` or ``yz/`` of a version."""

    def __init__(
        self, context: TreeContext, ino: int, up: Dir, path: str, ref: LevelRef, plane: str, others: tuple[int, ...]
    ) -> None:
        super().__init__(context, ino, up, path)
        self.ref = ref
        self.plane = plane
        self.others = others
        self.absence = ref.images.timeout
        self._facts: PlaneFacts | None = None

    @property
    def cold(self) -> bool:
        facts, images = self._facts, self.ref.images
        return facts is None or (not images.lasting and facts.generation != images.snapshot.generation())

    def load(self) -> None:
        generation = self.ref.images.snapshot.generation()
        level, geometry = self.ref.geometry()
        if geometry is None or self.plane not in geometry.planes:
            raise NotFound(f"{self.ref.name} has no {self.plane} slices")
        through = geometry.through(self.plane)
        ending = geometry.listed_ending(self.plane)
        self._facts = PlaneFacts(
            generation,
            level,
            geometry,
            geometry.count(self.plane),
            ending,
            len(geometry.name(self.plane, 0, ending)) - 1 - len(ending),
            1 if through is None else level.key_shape[through],
            self._times(level, geometry, through),
        )

    def _times(self, level: Level, geometry: SliceGeometry, through: int | None) -> LayerTimes:
        """When slices changed last, by chunk along the axis that numbers them."""
        if through is None:
            return LayerTimes.known([level.newest(geometry.spec(self.plane, 0, self.others).box)])
        axes, grid = tuple(other.axis for other in geometry.others), level.source.keys.grid_shape
        if level.few_keys((*axes, through)):
            newest = level.newest_along((*axes, through))
            for axis, index in zip(axes, self.others, strict=True):
                newest = newest[min(index // level.key_shape[axis], len(newest) - 1)]
            return LayerTimes.known(newest.tolist())
        fixed = dict(zip(axes, self.others, strict=True))

        def find(start: int, stop: int) -> list[int]:
            first, last = [0] * len(grid), list(grid)
            for axis, index in fixed.items():
                first[axis] = index // level.key_shape[axis]
                last[axis] = first[axis] + 1
            first[through], last[through] = start, stop
            found: list[int] = level.newest_layers(through, Box(tuple(first), tuple(last))).tolist()
            return found

        return LayerTimes(grid[through], find)

    @property
    def facts(self) -> PlaneFacts:
        if self._facts is None:
            self.load()
            assert self._facts is not None
        return self._facts

    # -- names --------------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Node | None:
        parsed = self.facts.geometry.parse(self.plane, name)
        return None if parsed is None else self._slice(name, *parsed)

    def numbered(self, ordinal: int) -> Node | None:
        index, number = divmod(ordinal - 1, _STRIDE)
        ending = next((ending for ending, at in _ENDINGS.items() if at == number), None)
        if ending is None or index >= self.facts.count:
            return None
        return self._slice(self.facts.geometry.name(self.plane, index, ending), index, ending)

    def _slice(self, name: str, index: int, ending: str) -> Node | None:
        if ending in _ENDINGS and ending.startswith(iso_slices.MARK):
            return self._square(name, index, ending)
        if ending not in _ENDINGS:
            return None
        ino = self.context.inodes.file(self.ino, self.ordinal(index, ending))
        if self.size(ending) is None:
            return self._coloured(ino, name, index) if ending == _COLOURED and is_label(self.ref) else None
        if ending == jpeg.ENDING:
            document = preview(self.ref, self.spec(index), self.others, self.facts.time(index))
            return DocumentFile(self.context, ino, self, document)
        return SliceFile(self.context, ino, self, name, index, ending)

    def _coloured(self, ino: int, name: str, index: int) -> Node | None:
        """The slice of labels that have no exact PNG, in their colours."""
        facts = self.facts
        layout = eight_bit_layout(facts.geometry, self.plane, is_label=True)
        if layout is None:
            return None
        start = facts.geometry.start(self.plane, index, self.others)

        def make() -> Contents:
            mtime = max(facts.time(index), look_time(self.ref))
            return eight_bit_contents(self.ref, layout, start, self.others, mtime)

        return LayoutFile(self.context, ino, self, name, self.ref.mounted, make)

    def _square(self, name: str, index: int, ending: str) -> Node | None:
        """The slice with square pixels, if its own are not."""
        facts = self.facts
        made = iso_slices.open_ending(
            facts.geometry, self.plane, index, self.others, ending, is_label=facts.level.is_label
        )
        ino = self.context.inodes.file(self.ino, self.ordinal(index, ending))
        return None if made is None else resampled_file(self.context, ino, self, name, self.ref, made)

    @staticmethod
    def ordinal(index: int, ending: str) -> int:
        return index * _STRIDE + _ENDINGS[ending] + 1

    # -- slices -------------------------------------------------------------------------------------------------------

    def spec(self, index: int) -> PlaneSpec:
        return self.facts.geometry.spec(self.plane, index, self.others)

    def contents_of(self, index: int, ending: str) -> Contents:
        """The bytes of a slice: the layout that all of them have, over its own voxels."""
        facts = self.facts
        layout = facts.geometry.layout(self.plane, ending)
        if layout is None:
            raise NotFound(f"these slices have no {ending}")
        level = facts.level
        source = QuickShifted(level, facts.geometry.start(self.plane, index, self.others))
        stamp = partial(self._stamp, index)
        made = Contents(layout, source, facts.time(index), stamp, source, replaceable=True)
        lender = self.context.lender
        if lender is None or not self.ref.images.lasting:
            return made
        return replace(made, fronted=partial(self._fronted, lender, ending), served=partial(self._lend, lender, index))

    def _fronted(self, lender: Lender, ending: str) -> bool:
        """Have the front answer for the slices with an ending. True if it does."""
        facts, stack = self.facts, self._stack(lender)
        layout = facts.geometry.layout(self.plane, ending)
        if stack is None or layout is None:
            return False
        return stack.serve(layout, self.context.inodes.file(self.ino, self.ordinal(0, ending)), _STRIDE, facts.count)

    def _lend(self, lender: Lender, index: int, offset: int, length: int) -> None:
        """Lend the front the planes among which a slice is."""
        stack = self._stack(lender)
        if stack is not None:
            stack.lend(index, index)

    def _stack(self, lender: Lender) -> PlaneStack | None:
        facts = self.facts
        return lender.stack(self.ino, facts.level, facts.geometry, self.plane, self.others)

    def _stamp(self, index: int) -> Hashable:
        return self.facts.level.stamp(self.spec(index).box)

    def size(self, ending: str) -> int | None:
        """The size of every slice with an ending: it follows from what all of them have in common. None if there is
        no such file; 0 for previews, which have each their own."""
        if ending == jpeg.ENDING:
            return 0 if jpeg.holds(self.spec(0)) else None
        layout = self.facts.geometry.layout(self.plane, ending)
        return None if layout is None else layout.size

    def slice_attr(self, ino: int, index: int, ending: str) -> Attr:
        size, mtime = self.size(ending) or 0, self.facts.time(index)
        return self.context.file_attr(ino, size, mtime, mode=self.file_mode, timeout=self.ref.images.timeout)

    @property
    def writable(self) -> bool:
        """Whether slices can be written now."""
        return self.ref.images.state.writable and not self.facts.level.derived

    @property
    def file_mode(self) -> int:
        return WRITABLE if self.writable else READ_ONLY

    # -- the directory ------------------------------------------------------------------------------------------------

    def attr(self) -> Attr:
        return self.directory_attr(self.ref.level().array.mtime_ns, self.absence)

    def listing_cold(self, cookie: int) -> bool:
        at = max(0, cookie - FIRST_COOKIE + 1)
        return at < self.facts.count and not self.facts.times.knows(self.facts.layer(at))

    def load_listing(self, cookie: int) -> None:
        facts = self.facts
        facts.time(min(max(0, cookie - FIRST_COOKIE + 1), facts.count - 1))

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        facts, options = self.facts, self.context.options
        size = self.size(facts.ending) or 0
        mode, timeout = self.file_mode, self.ref.images.timeout
        prefix, digits, ending = THROUGH[self.plane], facts.digits, facts.ending
        first = self.ino + self.ordinal(0, ending)
        uid, gid, chunk, times, last = options.uid, options.gid, facts.chunk, facts.times, len(facts.times) - 1
        at = first_at = max(0, cookie - FIRST_COOKIE + 1)
        while at < facts.count:
            # Up to where the next chunk begins, slices differ only in their names and inodes.
            number = at // chunk
            stop = facts.count if number >= last else min(facts.count, (number + 1) * chunk)
            if at != first_at and not times.knows(min(number, last)):
                return  # the next page of the listing loads them first
            rest = (mode, size, times[min(number, last)], 1, uid, gid, 0, 0, 0, GENERATION, timeout, timeout)
            for index in range(at, stop):
                name = f"{prefix}{index:0{digits}}{ending}".encode()
                yield DirEntry(name, Attr(first + index * _STRIDE, *rest), FIRST_COOKIE + index)
            at = stop


class SliceFile(LayoutFile):
    """One slice: ``z00012.png``. Its directory knows its size and time; its layout is needed to read it."""

    up: PlaneDir

    def __init__(self, context: TreeContext, ino: int, up: PlaneDir, name: str, index: int, ending: str) -> None:
        super().__init__(context, ino, up, name, up.ref.mounted, partial(up.contents_of, index, ending))
        self._index = index
        self._ending = ending

    @property
    def cold(self) -> bool:
        return False

    @property
    def exists(self) -> bool:
        return True

    def attr(self) -> Attr:
        return self.up.slice_attr(self.ino, self._index, self._ending)
