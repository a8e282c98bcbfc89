"""Which images a snapshot has, and what each is made of: the hierarchy read as images.

Decided here, by one rule: a multiscale group at hierarchy path P is the image P, with its levels; an array at P that
is no level of such a group is the image P, with one level. A directory is a group, whether it has a `zarr.json` or not.
A level that is missing or cannot be read is left out and said in `problems`; a group whose metadata cannot be right is
no image, and its arrays are images of one level each. Every image has an axis `y` and an axis `x`.

Writers that record write a group's metadata at the end. In a branch, a group that says nothing of images and whose
children look like a pyramid is the image that it will be: *provisional*, until its metadata says what it is.

Not here: names of directories in the mount (:mod:`volfs.tree`), the metadata itself (:mod:`volfs.model.ngff`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from volfs.errors import BadMetadata, VolfsError
from volfs.model.facts import Rescale, rescale_of
from volfs.model.ngff import Axis, LevelSpec, Multiscale, axis, parse_multiscale
from volfs.versions.snapshot import ArrayNode, GroupNode, Snapshot
from volfs.volume.blocks import is_version

_DEFAULT_AXES = "tczyx"


@dataclass(frozen=True)
class Plan:
    """An image before it is built: its metadata, and the arrays found for its levels."""

    snapshot: Snapshot
    path: str
    multiscale: Multiscale
    arrays: tuple[tuple[int, ArrayNode], ...]
    problems: tuple[str, ...]
    rescale: Rescale | None = None

    def origin(self) -> object:
        """Equal for images that are built from the same metadata."""
        return (self.multiscale, self.problems, self.rescale, tuple((i, _origin(array)) for i, array in self.arrays))

    @property
    def is_whole(self) -> bool:
        """Whether every level is there and of one type: a pyramid that is not cannot be kept."""
        return len(self.arrays) == len(self.multiscale.levels) and len({a.meta.dtype for _, a in self.arrays}) == 1


def plan_at(snapshot: Snapshot, path: str) -> Plan | None:
    """The image at a path, or None."""
    multiscale = _multiscale_of(snapshot, path)
    if multiscale is None:
        return _plain(snapshot, path)
    group = snapshot.node(path)
    arrays, problems = [], []
    for index, spec in enumerate(multiscale.levels):
        node = snapshot.node(_join(path, spec.path))
        problem = _problem(node, len(multiscale.axes))
        if problem is None and isinstance(node, ArrayNode):
            arrays.append((index, node))
        else:
            problems.append(f"s{index} ({spec.path}): {problem}")
    if not arrays:
        return None
    if not multiscale.is_label and _among_labels(path) and arrays[0][1].meta.dtype.kind in "iu":
        multiscale = replace(multiscale, is_label=True)
    axes = _with_planes(multiscale.axes)
    rescale = rescale_of(group.attributes) if isinstance(group, GroupNode) else None
    return Plan(snapshot, path, replace(multiscale, axes=axes), tuple(arrays), tuple(problems), rescale)


def _plain(snapshot: Snapshot, path: str) -> Plan | None:
    """An array that stands by itself."""
    array = snapshot.node(path)
    if not isinstance(array, ArrayNode) or _problem(array, array.meta.ndim) is not None or _is_level(snapshot, path):
        return None
    meta = array.meta
    names = meta.dimension_names or (None,) * meta.ndim
    axes = _with_planes(tuple(axis(name or f"dim_{i}") for i, name in enumerate(names)))
    spec = LevelSpec("", (1.0,) * meta.ndim, (0.0,) * meta.ndim)
    is_label = _among_labels(path) and meta.dtype.kind in "iu"
    multiscale = Multiscale("", axes, (spec,), is_label=is_label, method="mode" if is_label else "mean")
    return Plan(snapshot, path, multiscale, ((0, array),), ())


def _is_level(snapshot: Snapshot, path: str) -> bool:
    """Whether a group above has this array as a level of its image."""
    above = path
    while above:
        above = above.rpartition("/")[0]
        multiscale = _multiscale_of(snapshot, above)
        if multiscale is not None and any(_join(above, level.path) == path for level in multiscale.levels):
            return True
    return False


def _problem(node: ArrayNode | GroupNode | None, ndim: int) -> str | None:
    """Why a node cannot be a level, None if it can."""
    if node is None:
        return "there is no array"
    if isinstance(node, GroupNode):
        return "is a group"
    if node.meta.ndim != ndim:
        return f"has {node.meta.ndim} axes, the image {ndim}"
    if not 2 <= ndim <= 6:
        return f"has {ndim} axes: images have 2 to 6"
    try:
        _ = node.codec
    except VolfsError as error:
        return str(error)
    return None


def _among_labels(path: str) -> bool:
    """OME-NGFF 0.5, section 2.5: label images lie in a group called `labels`."""
    return path.split("/")[-2:-1] == ["labels"]


def _with_planes(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Axes of which one is y and one is x: where the metadata has none, the last are; others go by their place."""
    lowered = tuple(a.name.lower() for a in axes)
    if {"x", "y"} <= set(lowered) and len(set(lowered)) == len(lowered):
        return tuple(replace(a, name=n, type=a.type or axis(n).type) for a, n in zip(axes, lowered, strict=True))
    names = [f"dim_{i}" for i in range(len(axes) - len(_DEFAULT_AXES))] + list(_DEFAULT_AXES[-len(axes) :])
    return tuple(Axis(n, axis(n).type, a.unit) for a, n in zip(axes, names, strict=True))


def _origin(array: ArrayNode) -> object:
    meta = array.meta
    storage = (meta.chunk_shape, meta.codecs, meta.key_encoding, meta.dtype.str, meta.fill_value.tobytes())
    return (array.path, array.mtime_ns, meta.shape, meta.dimension_names, storage)


def image_paths(snapshot: Snapshot, path: str = "", within: frozenset[str] = frozenset()) -> Iterator[str]:
    """Paths where an image may be, groups before what is in them; the levels of a group's image are left out.

    `within` are the levels of images further up.
    """
    if path in within:
        return
    node = snapshot.node(path)
    if not isinstance(node, ArrayNode) and not leads_on(snapshot, path, node):
        return
    yield path
    if isinstance(node, ArrayNode):
        return
    multiscale = _multiscale_of(snapshot, path)
    if multiscale is not None:
        within |= {_join(path, level.path) for level in multiscale.levels}
    for name in subdirectories(snapshot, path):
        yield from image_paths(snapshot, _join(path, name), within)


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _multiscale_of(snapshot: Snapshot, path: str) -> Multiscale | None:
    """What the group at `path` says, or in a branch will say; None if it is none, or says nothing that can be right."""
    node = snapshot.node(path)
    if isinstance(node, ArrayNode):
        return None
    if isinstance(node, GroupNode):
        try:
            said = parse_multiscale(node.attributes)
        except BadMetadata:
            return None
        if said is not None:
            return said
    if is_version(snapshot) or not leads_on(snapshot, path, node):
        return None
    return _provisional(snapshot, path)


def _provisional(snapshot: Snapshot, path: str) -> Multiscale | None:
    """The image of arrays called 0, 1, … or s0, s1, …, of one type and number of axes, that become no larger."""
    for prefix in ("", "s"):
        arrays: list[ArrayNode] = []
        while isinstance(node := snapshot.node(_join(path, f"{prefix}{len(arrays)}")), ArrayNode):
            arrays.append(node)
        if arrays:
            break
    else:
        return None
    finest = arrays[0].meta
    shapes = [array.meta.shape for array in arrays]
    if any(array.meta.ndim != finest.ndim or array.meta.dtype != finest.dtype for array in arrays):
        return None
    if any(coarse > fine for above, below in pairwise(shapes) for fine, coarse in zip(above, below, strict=True)):
        return None
    names = finest.dimension_names or (None,) * finest.ndim
    levels = []
    for number, shape in enumerate(shapes):
        steps = [round(whole / part) if part else 1 for whole, part in zip(finest.shape, shape, strict=True)]
        scale = tuple(float(max(1, step)) for step in steps)
        levels.append(LevelSpec(f"{prefix}{number}", scale, tuple((step - 1) / 2 for step in scale)))
    axes = tuple(axis(name or f"dim_{at}") for at, name in enumerate(names))
    return Multiscale("", axes, tuple(levels), provisional=True)


def leads_on(snapshot: Snapshot, path: str, node: ArrayNode | GroupNode | None) -> bool:
    """Whether there may be images below a path: at a group, or at a directory that is none and holds no chunks.

    A `zarr.json` that cannot be read may be an array's, below which are chunks: nothing leads on there. Chunks whose
    array has lost its `zarr.json` lie in `c` (Zarr v3, default chunk keys).
    """
    if node is not None or not path:
        return not isinstance(node, ArrayNode)
    found = snapshot.stat(f"zarr/{path}")
    if found is None or found.kind != "dir" or path.rpartition("/")[2] == "c":
        return False
    return snapshot.stat(f"zarr/{path}/zarr.json") is None


def subdirectories(snapshot: Snapshot, path: str) -> list[str]:
    """The names of the directories of the hierarchy at a path, sorted. Raises NotFound."""
    return [name for name, info in snapshot.list(f"zarr/{path}" if path else "zarr") if info.kind == "dir"]
