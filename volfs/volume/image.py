"""The images of a snapshot: which there are, where they appear, and of which levels they consist.

Decided here: that images are built when asked for and kept until the metadata they were built from changes, and how
the levels of one hang together. Which images there are is decided in :mod:`volfs.volume.plan`.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from volfs.errors import NotFound
from volfs.model.box import Index
from volfs.model.ngff import Axis, LevelSpec, Method, downsampled_shape
from volfs.model.public_mapping import PublicMapping
from volfs.versions.snapshot import ArrayNode, Snapshot
from volfs.volume.blocks import StoredBlocks, is_version
from volfs.volume.changed_keys import changed_keys, settled_keys
from volfs.volume.derivation import Derivation, DerivedBlocks
from volfs.volume.level import Level, LevelFacts
from volfs.volume.plan import Plan, image_paths, plan_at
from volfs.volume.volume_context import VolumeContext, attached, context_of

#: So many images are named where there are others than the one that was asked for.
_NAMED = 8


@dataclass(frozen=True, eq=False, repr=False)
class Image(PublicMapping[Level]):
    """An image in one snapshot: a mapping of its levels by name, "s0" being full resolution.

    `path` is its place in the hierarchy, "" for the root. It knows the numbers of levels too, as a list does:
    ``image[0]``, and ``image[-1]`` for the coarsest.
    """

    PUBLIC: ClassVar[tuple[str, ...]] = (
        *(
            "snapshot",
            "path",
            "name",
            "axes",
            "levels",
            "is_label",
            "rgb",
            "managed",
            "method",
            "problems",
            "provisional",
        ),
        "to_datatree",
    )

    snapshot: Snapshot
    path: str
    name: str
    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]
    is_label: bool
    #: volfs keeps the coarser levels equal to what `method` makes of s0.
    managed: bool
    method: Method
    #: The channel axis holds the samples of a colour picture.
    rgb: bool
    #: What is wrong with levels that the metadata names but `levels` lacks.
    problems: tuple[str, ...] = ()
    #: No metadata says yet that this is an image: a writer is about to.
    provisional: bool = False

    @property
    def is_array(self) -> bool:
        """Whether the image is an array that stands by itself, and no group of levels."""
        return self.levels[0].array.path == self.path

    def level(self, name: str) -> Level | None:
        """The level of that name, "s0" being full resolution."""
        return next((level for level in self.levels if level.name == name), None)

    def __getitem__(self, name: str | int) -> Level:
        if isinstance(name, int) and name < 0:
            level = self.levels[name] if -name <= len(self.levels) else None
        else:
            level = self.level(f"s{name}" if isinstance(name, int) else name)
        if level is None:
            there = ", ".join((*self, *self.problems))
            raise NotFound(f"{self._place} has no level {name!r}: there is {there}")
        return level

    def __iter__(self) -> Iterator[str]:
        return (level.name for level in self.levels)

    def __len__(self) -> int:
        return len(self.levels)

    def to_datatree(self) -> Any:
        """All levels as an :class:`xarray.DataTree`, each a node named as it is; see :meth:`Level.to_xarray`."""
        return self.snapshot.dataset.store.face.data_tree(self)

    def __repr__(self) -> str:
        kind = "label image" if self.is_label else "image"
        axes, finest = "".join(axis.name for axis in self.axes), self.levels[0]
        return f"<{kind} {self._place}: axes {axes}, shape {finest.shape}, {finest.dtype}, levels {', '.join(self)}>"

    def _repr_html_(self) -> str:
        return self.snapshot.dataset.store.face.html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _image_of, (self.snapshot, self.path)

    @property
    def _place(self) -> str:
        return f"{self.snapshot.dataset.name}{self.path and '/'}{self.path}@{self.snapshot.ref}"


def images(snapshot: Snapshot) -> dict[str, Image]:
    """Every image of a snapshot by its path, the root's first, then in the order of the hierarchy."""
    return attached(snapshot, _Images).all(snapshot)


def no_image(snapshot: Snapshot, path: str) -> NotFound:
    """The error for a path at which no image is. It names the image that may be meant, or those that there are."""
    from difflib import get_close_matches

    found = list(images(snapshot))
    ends = {each.rpartition("/")[2]: each for each in found if each}
    near = [each for each in found if path and path in each.split("/")]
    near += [each for each in found if path.rpartition("/")[2] == each.rpartition("/")[2]]
    near += [ends.get(each, each) for each in get_close_matches(path.rpartition("/")[2], [*found, *ends], 3)]
    where = f"no image is at {path or 'the root'} of {snapshot.dataset.name}@{snapshot.ref}"
    name = snapshot.dataset.name
    if near:
        return NotFound(f"{where}; do you mean {' or '.join(f'{name}/{each}' for each in dict.fromkeys(near))}?")
    if not found:
        return NotFound(f"{where}, and none elsewhere in it; volfs ls {name} lists keys")
    listed = ", ".join(f"{name}/{each}" if each else name for each in found[:_NAMED])
    return NotFound(f"{where}; images are {listed}{' and others' if len(found) > _NAMED else ''}")


def image_at(snapshot: Snapshot, path: str) -> Image | None:
    """The image at a hierarchy path, None if there is none. Looks at nothing but that path and what is above it."""
    return attached(snapshot, _Images).at(snapshot, path)


def level_at(snapshot: Snapshot, path: str) -> Level | None:
    """The level at a hierarchy path; None if there is none.

    That is its array's path, or its image's with the level's name: those that others wrote may lie at `0`, `1`, …
    """
    above = path
    while True:
        image = image_at(snapshot, above)
        for level in image.levels if image is not None else ():
            if path in (level.array.path, f"{above}{above and '/'}{level.name}"):
                return level
        if not above:
            break
        above = above.rpartition("/")[0]
    node = snapshot.node(path)
    return array_level(node) if isinstance(node, ArrayNode) and node.readable else None


def _image_of(snapshot: Snapshot, path: str) -> Image:
    image = image_at(snapshot, path)
    if image is None:
        raise NotFound(f"no image is at {path!r} in {snapshot.dataset.name}@{snapshot.ref} any more")
    return image


def array_level(array: ArrayNode) -> Level:
    """An array that is no level of any image (of one axis, say), to be read and written like one.

    Raises Unsupported for codecs that volfs does not know.
    """
    meta = array.meta
    names = meta.dimension_names or (None,) * meta.ndim
    axes = tuple(Axis(name or f"dim_{i}") for i, name in enumerate(names))
    spec = LevelSpec("", (1.0,) * meta.ndim, (0.0,) * meta.ndim)
    context = context_of(array.snapshot)
    facts = LevelFacts(0, axes, spec, is_label=False, factors=(1,) * meta.ndim)
    return Level(array, facts, StoredBlocks(array, context.memory), context)


class _Images:
    """The images of one snapshot that have been asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Per path: the generation it was last looked at, what it was built from, the image.
        self._known: dict[str, tuple[Hashable, object, Image | None]] = {}
        self._all: tuple[Hashable, dict[str, Image]] | None = None

    def all(self, snapshot: Snapshot) -> dict[str, Image]:
        generation = snapshot.generation()
        with self._lock:
            if self._all is not None and self._all[0] == generation:
                return dict(self._all[1])
        found = {path: image for path in image_paths(snapshot) if (image := self.at(snapshot, path)) is not None}
        with self._lock:
            self._all = (generation, found)
        return dict(found)

    def at(self, snapshot: Snapshot, path: str) -> Image | None:
        generation = snapshot.generation()
        with self._lock:
            known = self._known.get(path)
        if known is not None and known[0] == generation:
            return known[2]
        plan = plan_at(snapshot, path)
        origin = None if plan is None else plan.origin()
        # Most changes in a branch are to chunks: an image whose metadata is the same stays the same object.
        image = known[2] if known is not None and known[1] == origin else (None if plan is None else _build(plan))
        with self._lock:
            self._known[path] = (generation, origin, image)
        return image


# ----------------------------------------------------------------------------------------------- building levels


def _build(plan: Plan) -> Image:
    context = context_of(plan.snapshot)
    facts = plan.multiscale
    managed = facts.managed and plan.is_whole
    follow = managed and not is_version(plan.snapshot)
    levels = _following_levels(plan, context) if follow else _stored_levels(plan, context)
    return Image(
        plan.snapshot,
        plan.path,
        facts.name or plan.path.rpartition("/")[2] or plan.snapshot.dataset.name,
        facts.axes,
        tuple(levels),
        is_label=facts.is_label,
        managed=managed,
        method=facts.method,
        rgb=facts.rgb,
        problems=plan.problems,
        provisional=facts.provisional,
    )


def _facts(plan: Plan, index: int) -> LevelFacts:
    facts = plan.multiscale
    return LevelFacts(index, facts.axes, facts.levels[index], facts.is_label, facts.factors(index), plan.rescale)


def _stored_levels(plan: Plan, context: VolumeContext) -> list[Level]:
    return [
        Level(array, _facts(plan, index), StoredBlocks(array, context.memory), context) for index, array in plan.arrays
    ]


def _following_levels(plan: Plan, context: VolumeContext) -> list[Level]:
    """Levels that follow s0, in a branch: derived where something changed, and of the shape that s0's asks for."""
    factors = [plan.multiscale.factors(index) for index, _ in plan.arrays]
    stored: list[StoredBlocks] = []
    shape: Index = plan.arrays[0][1].meta.shape
    for index, array in plan.arrays:
        shape = downsampled_shape(shape, factors[index])
        stored.append(StoredBlocks(array, context.memory, shape))
    derivation = Derivation(stored, factors, changed_keys, settled_keys, plan.snapshot.generation)
    levels = [Level(plan.arrays[0][1], _facts(plan, 0), stored[0], context)]
    for index, array in plan.arrays[1:]:
        above, dirty = levels[-1], partial(derivation.dirty, index)
        method, by = plan.multiscale.method, factors[index]
        source = DerivedBlocks(stored[index], above.reader, by, method, dirty, context.memory)
        levels.append(Level(array, _facts(plan, index), source, context, above))
    return levels
