"""Conflicts, and who wins them.

Decided here: how a conflict is named, and the order in which orders to decide count. Not here: what is in conflict.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from volfs.errors import BadInput
from volfs.model.box import Box
from volfs.versions.combine.key_selection import box_text, parse_box
from volfs.versions.keys import covers, node_key, node_path

Side = Literal["ours", "theirs"]
Choice = Literal["ours", "theirs", "base", "mine"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
"""What an open conflict can be closed with: what a version has, or what the branch has now."""


@dataclass(frozen=True, slots=True)
class Sides:
    """The versions that a conflict is between, by content id; "" for the empty one."""

    bases: tuple[str, ...]
    ours: str
    theirs: str


@dataclass(frozen=True, slots=True)
class OpenConflict:
    """What both sides have changed. ``key``: a whole key, or the directory of an array. ``box``: voxels of that array,
    None for anything else; ``voxels``: how many of them. ``why``: in a few words. ``of``: between which versions, if
    that is no merge: the version that leaves it open has the other side as a parent until it is closed."""

    key: str
    why: str
    box: Box | None = None
    voxels: int = 0
    axes: tuple[str | None, ...] | None = None
    of: Sides | None = None

    def __str__(self) -> str:
        path = node_path(self.key)
        if self.box is None or path is None:
            return f"{self.key}: {self.why}"
        parent, _, name = path.rpartition("/")
        where = f"{parent} {name}" if parent else path
        count = f"{self.voxels:,} voxel{'' if self.voxels == 1 else 's'}"
        return f"{where} {box_text(self.box, self.axes)}: {count}{f', {self.why}' if self.why else ''}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, as ``version.json`` has them."""
        facts: dict[str, Any] = {"key": self.key, "why": self.why}
        if self.box is not None:
            facts |= {"start": list(self.box.start), "stop": list(self.box.stop), "voxels": self.voxels}
        if self.of is not None:
            facts |= {"bases": list(self.of.bases), "ours": self.of.ours, "theirs": self.of.theirs}
        return facts

    @classmethod
    def of_json(cls, facts: Mapping[str, Any]) -> OpenConflict:
        """The conflict that :meth:`to_json` wrote. Raises KeyError, TypeError."""
        box = None
        if "start" in facts:
            box = Box(tuple(map(int, facts["start"])), tuple(map(int, facts["stop"])))
        sides = None
        if "theirs" in facts:
            sides = Sides(tuple(map(str, facts["bases"])), str(facts["ours"]), str(facts["theirs"]))
        return cls(str(facts["key"]), str(facts["why"]), box, int(facts.get("voxels", 0)), of=sides)


@dataclass(frozen=True, slots=True)
class Order:
    """Conflicts are won by one side: all of them, those at and below a key, or those within a box of voxels."""

    side: Side
    key: str | None = None
    box: Box | None = None

    @classmethod
    def parse(cls, side: Side, text: str) -> Order:
        """``files/notes.txt``, ``zarr/s0``, or ``z0-64_y0-64_x0-64``; "" for everything."""
        if not text:
            return cls(side)
        if (box := parse_box(text)) is not None:
            return cls(side, box=box)
        key = text.strip("/")
        if key.partition("/")[0] not in ("zarr", "files"):
            raise BadInput(f"{text!r} is neither a key such as zarr/s0 or files/notes.txt, nor a box such as z0-9_y0-9")
        return cls(side, key=key)

    def holds(self, key: str) -> bool:
        """Whether this decides about a whole key."""
        return self.box is None and (self.key is None or covers(self.key, key))

    def holds_array(self, path: str, chunk: str) -> bool:
        """Whether this decides about voxels of an array, in the chunk with this key."""
        return self.key is None or covers(self.key, node_key(path)) or covers(self.key, chunk)


@dataclass(frozen=True, slots=True)
class Orders:
    """Of several orders the first that holds counts; those that name something come before those that do not."""

    orders: tuple[Order, ...] = ()
    strict: bool = False
    """A chunk or file that both sides have changed is in conflict as a whole."""

    @classmethod
    def of(cls, orders: Iterable[Order], strict: bool = False) -> Orders:
        return cls(tuple(sorted(orders, key=lambda each: each.key is None and each.box is None)), strict)

    def of_key(self, key: str) -> Side | None:
        """Who wins a whole key."""
        return next((each.side for each in self.orders if each.holds(key)), None)

    def of_voxels(self, path: str, chunk: str, inside: Box) -> Iterator[tuple[Side, tuple[slice, ...]]]:
        """Parts of a chunk, counted from its first voxel, and who wins them; the first that holds a voxel counts.
        ``inside``: the voxels of the chunk."""
        for each in self.orders:
            if each.holds_array(path, chunk):
                if each.box is None:
                    yield each.side, Box.whole(inside.shape).slices()
                elif each.box.ndim == inside.ndim and not (part := each.box.intersect(inside)).empty:
                    yield each.side, part.relative_to(inside.start).slices()

    def of_chunk(self, path: str, chunk: str, inside: Box) -> Side | None:
        """Who wins a chunk as a whole."""
        for each in self.orders:
            if each.holds_array(path, chunk) and (
                each.box is None or (each.box.ndim == inside.ndim and each.box.contains(inside))
            ):
                return each.side
        return None


UNDECIDED = Orders()


@dataclass(slots=True)
class ChunkConflict:
    """Voxels of one chunk that are in conflict, and the box around them."""

    coords: tuple[int, ...]
    box: Box
    voxels: int
    why: str


def gathered(key: str, found: Sequence[ChunkConflict], axes: tuple[str | None, ...] | None) -> Iterator[OpenConflict]:
    """Conflicts of chunks as those of an array: neighbouring chunks make one, with the box around all of it."""
    by_coords = {(each.coords, each.why): each for each in found}
    while by_coords:
        _, first = by_coords.popitem()
        box, voxels, pending = first.box, first.voxels, [first]
        while pending:
            at = pending.pop()
            for axis, step in ((axis, step) for axis in range(len(at.coords)) for step in (-1, 1)):
                near = (*at.coords[:axis], at.coords[axis] + step, *at.coords[axis + 1 :])
                other = by_coords.pop((near, first.why), None)
                if other is not None:
                    pending.append(other)
                    box, voxels = box.hull(other.box), voxels + other.voxels
        yield OpenConflict(key, first.why, box, voxels, axes)


def mask_box(mask: NDArray[np.bool_], origin: tuple[int, ...]) -> Box:
    """The box around the chosen voxels of a block that begins at ``origin``."""
    spans = []
    for axis in range(mask.ndim):
        at = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        spans.append((int(at[0]), int(at[-1]) + 1))
    return Box(tuple(a for a, _ in spans), tuple(b for _, b in spans)).shift(origin)
