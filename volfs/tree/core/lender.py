"""Planes of versions and open files of branches that are lent to the front, which then answers without Python.

Decided here: which slices can be lent, when their planes are, and for how long: as long as the cache has them, which is
told of reads now and then, and so are those who look where readers go. Not here: which files are lent
(:mod:`volfs.tree.files.key_handle`), answering (``volfs/native/front.h``), decoding and what stays decoded
(``volfs.volume``).
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

from volfs.model.bounded_map import BoundedMap
from volfs.native import core
from volfs.tree.core.ports import Front
from volfs.views.flat import flat
from volfs.views.layout import Layout
from volfs.views.slices import SliceGeometry
from volfs.volume.level import Level
from volfs.volume.planes import PlaneAxes

#: Directories of slices whose planes are lent at the same time.
_STACKS = 256
#: Layers of chunks of fewer planes are not lent: to lend one takes as long as to read two or three slices.
_THINNEST = 4
#: Layers that are lent at a time, while requests wait.
_LAYERS = 16


class PlaneStack:
    """The planes of one directory of slices of a version. ``others``: where they lie along the axes between the level
    and its planes. Used on the tree's thread, but for what is said otherwise."""

    def __init__(
        self, front: Front, level: Level, geometry: SliceGeometry, plane: str, others: tuple[int, ...]
    ) -> None:
        self._front = front
        self._level = level
        self._geometry = geometry
        self._plane = plane
        self._others = others
        through = geometry.through(plane)
        assert through is not None
        self._axes = PlaneAxes(through, geometry.down(plane), geometry.across(plane), geometry.sample)
        self._thick = level.chunk_shape[through]
        self.number = front.stack(geometry.count(plane), self._thick)
        self._served: dict[int, bool] = {}
        # The names, in the cache, of what is lent.
        self._keys: dict[int, tuple[Hashable, ...]] = {}

    def serve(self, layout: Layout, first: int, stride: int = 1, files: int = 1) -> bool:
        """Have the front answer for files that show all planes in order, each as many, if C can put them together. True
        if it does. Their inodes are ``first``, ``first + stride``, …, and ``layout`` is that of the first."""
        served = self._served.get(first)
        if served is None:
            picture = self._picture(layout, self._geometry.count(self._plane) // files)
            served = picture is not None and self._front.serve(self.number, first, stride, files, picture)
            self._served[first] = served
        return served

    def _picture(self, layout: Layout, planes: int) -> Any | None:
        """How a file shows so many planes; None if C cannot put it together."""
        parts, level, axes = flat(layout), self._level, self._axes
        if parts is None:
            return None
        shown, stored = parts.voxels.dtype, level.dtype
        if (shown.kind, shown.itemsize) != (stored.kind, stored.itemsize) or stored.kind not in "biuf":
            return None
        order = (axes.through, axes.down, axes.across) if planes > 1 else (axes.down, axes.across)
        order = order if axes.sample is None else (*order, axes.sample)
        if parts.voxels.order[-len(order) :] != order:
            return None
        rows = self._geometry.shape[axes.down]
        picture = core.Picture(
            png=parts.png,
            rows=rows,
            row_bytes=parts.voxels.size // rows // planes,
            item=stored.itemsize,
            swap=not shown.isnative,
            fill=level.fill_value.tobytes(),
            planes=planes,
            prefix=parts.prefix,
            suffix=parts.suffix,
        )
        return picture if picture.size == layout.size else None

    def lend(self, first: int, last: int) -> None:
        """Lend the planes of the layers of chunks in which planes ``first`` to ``last`` lie: those that are decoded,
        and not too many at once."""
        begin, end = max(0, first) // self._thick, last // self._thick + 1
        for number in range(begin, min(end, begin + _LAYERS)):
            self._lend(number)

    def _lend(self, number: int) -> None:
        index = number * self._thick
        if number in self._keys or index >= self._geometry.count(self._plane):
            return
        planes = self._level.reader.planes(self._geometry.spec(self._plane, index, self._others).box, self._axes)
        if planes is None:
            return
        item = self._level.dtype.itemsize
        pieces = [(None if memory is None else memory.view(f"u{item}"), *place) for memory, *place in planes.pieces]
        if not self._front.lend(self.number, number, core.Slab(planes.count, item, pieces)):
            return
        self._keys[number] = planes.keys
        if not self._level.cache_watch(planes.keys, partial(self._recall, number)):
            self._recall(number)

    def _recall(self, number: int) -> None:
        """Take planes back whose memory leaves the cache. On any thread."""
        self._front.recall(self.number, number)
        self._keys.pop(number, None)

    def passed(self, index: int) -> None:
        """The front has answered a read of a plane: have what comes next decoded ahead, and lend it when it is."""
        box = self._geometry.spec(self._plane, index, self._others).box
        self._level.reader.passed(box, self._keys.get(index // self._thick, ()))
        self.lend(index - self._thick, index + self._thick)


class Lender:
    """What one mount lends its front. Used on the tree's thread."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._stacks: BoundedMap[Hashable, PlaneStack] = BoundedMap(_STACKS)
        self._numbers: dict[int, PlaneStack] = {}

    def stack(
        self, directory: int, level: Level, geometry: SliceGeometry, plane: str, others: tuple[int, ...]
    ) -> PlaneStack | None:
        """The planes of a directory of slices, by its inode; None if they are not lent."""
        through = geometry.through(plane)
        if through is None or level.chunk_shape[through] < _THINNEST:
            return None
        stack = self._stacks.get(directory)
        if stack is None:
            stack = PlaneStack(self._front, level, geometry, plane, others)
            self._numbers[stack.number] = stack
            for gone in self._stacks.put(directory, stack):
                self._forget(gone)
        return stack

    def passed(self, number: int, index: int) -> None:
        """The front has answered a read of a plane of a stack."""
        stack = self._numbers.get(number)
        if stack is not None:
            stack.passed(index)

    def keep_listing(self, directory: int) -> None:
        """Have the kernel keep the listing of a directory whose names never change, by its inode."""
        self._front.keep_listing(directory)

    def keep_files(self, directory: int) -> None:
        """Have the files of a directory that never change opened by the front, by the inode of the directory."""
        self._front.keep_files(directory)

    # -- files that are written ---------------------------------------------------------------------------------------

    def watch(self, uid: int, gid: int) -> Any:
        """Counts who looks at a branch, whose files are this user's."""
        return core.Watch(uid, gid)

    def file(self, fd: int, number: int, pulse: Any, watch: Any) -> Any:
        """An open file to be lent: its descriptor, the number under which its changes are noted in the branch's pulse,
        and those who look at the branch."""
        return core.File(fd, number, pulse, watch)

    def lend_file(self, fh: int, ino: int, file: Any) -> None:
        """Have the front answer writes and flushes of an open file."""
        self._front.lend_file(fh, ino, file)

    def place_file(self, file: Any, folder: Any | None) -> None:
        """Have it answer syncs of a lent file as well, which include its name in a folder; None: not any more."""
        self._front.place_file(file, folder)

    def recall_file(self, fh: int) -> None:
        """Take a file back."""
        self._front.recall_file(fh)

    def lend_folder(self, ino: int, folder: Any, watch: Any | None = None, walk: int = 0, touched: int = 0) -> None:
        """Have the front answer syncs of a directory until the folder ends; with those who look at its branch look-ups
        of names as well, until they ``walk`` on. ``touched``: when its names changed (ns), if itself does not tell."""
        self._front.lend_folder(ino, folder, watch, walk)
        self._front.touch(ino, touched)

    def touch(self, ino: int, time: int) -> None:
        """Names in a directory changed at a time (ns) that itself may not tell; 0: not any more."""
        self._front.touch(ino, time)

    @property
    def unclosed(self) -> int:
        """The number of files that the front released and that must be closed here."""
        return int(self._front.unclosed)

    def released(self) -> list[int]:
        """Their numbers, each once."""
        return list(self._front.released())

    def tidy(self) -> None:
        """Close the descriptors of folders that have ended. Called once in a while."""
        self._front.tidy()

    def clear(self) -> None:
        """Lend no planes of what was there before: directories may be others now."""
        self._front.forget_directories()
        self._stacks.clear()
        for stack in list(self._numbers.values()):
            self._forget(stack)

    def _forget(self, stack: PlaneStack) -> None:
        self._numbers.pop(stack.number, None)
        self._front.drop(stack.number)
