"""The whole import: a source becomes a new version, or nothing changes.

Decided here: what metadata an imported image gets (OME-Zarr 0.5), where a label image belongs, what becomes of an
image that was at the same path, and that a dataset made for an import goes away again when the import fails. Not here:
the pass over the voxels (:mod:`volfs.ingest.volume_stream`) and how a version comes to exist
(:mod:`volfs.versions.commit.version_writer`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Literal

from volfs.errors import BadInput, BadMetadata, BadName
from volfs.ingest.axis_numbers import wanted
from volfs.ingest.axis_order import arrange, parse_axes
from volfs.ingest.chunk_plan import Plan, chosen_chunks, default_chunks, make_plan
from volfs.ingest.outline import ImageOutline, LevelOutline, Outline, by, voxel_words
from volfs.ingest.segmentation import NotWhole, as_segmentation
from volfs.ingest.source import Description, Source, check_unchanged
from volfs.ingest.volume_stream import Memory, Meter, Report, VolumeStream
from volfs.ingest.voxel_size import VoxelSize, parse_voxel_size
from volfs.model.box import Index
from volfs.model.facts import plain_json
from volfs.model.metadata import array_zarr_json, group_zarr_json
from volfs.model.names import check_dataset_name, check_key
from volfs.model.ngff import (
    Axis,
    Multiscale,
    downsampling_factors,
    labels_attributes,
    ome_attributes,
    parse_labels,
    parse_multiscale,
    pyramid,
)
from volfs.versions.commit.array_writer import ArrayWriter
from volfs.versions.commit.placement import Placed, place
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.dataset import Dataset
from volfs.versions.snapshot import ArrayNode, GroupNode, Snapshot
from volfs.versions.store import Store
from volfs.volume.downsample import method_for
from volfs.volume.workers import Workers

Say = Callable[[str], object]
"""Told a line for a person."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What a user may decide. ``chunks`` and ``shard`` in voxels, for the axes of space or for all; ``labels`` that it
    is a segmentation, or is none: None leaves it to the source; ``memory`` is about what voxels may take, in bytes."""

    axes: str | None = None
    voxel_size: VoxelSize | str | None = None
    chunks: Sequence[int] | None = None
    shard: Sequence[int] | None = None
    levels: int | Literal["auto"] = "auto"
    labels: bool | None = None
    message: str | None = None
    author: str | None = None
    name: str | None = None
    memory: int = 1 << 30


def import_source(
    store: Store,
    dataset: str,
    path: str,
    source: Source,
    options: ImportOptions | None = None,
    *,
    progress: Report | None = None,
    cancel: threading.Event | None = None,
    say: Say | None = None,
) -> Placed:
    """Import ``source`` as the image at hierarchy path ``path`` ("" for the root) of ``dataset``: a new version on its
    default branch. The dataset is made if there is none. Label images that lie with the source come along.

    A version that does not go together with what others did to that branch meanwhile, committed or not, is made on a
    new branch: the answer names it, and ``say`` is told why.

    Whatever goes wrong (bad input, a full disk, an interrupt, ``cancel`` being set), nothing is changed. An image that
    was at ``path`` is replaced; other nodes below ``path``, such as label images, stay. ``say`` is told what of the
    source was not kept, and what else its user should know of. BadInput if the source is not an image, or changes while
    it is read.
    """
    chosen = options or ImportOptions()
    check_dataset_name(dataset)
    path = check_path(path)
    before = source.fingerprint()
    arranged = arrange(source, chosen.axes)
    store.check_writable()
    heard = Heard(list(source.description.remarks), list(source.description.lost))
    message = chosen.message or f"import {source.description.name}"
    with _dataset_for(store, dataset) as target:
        target.rules.check_message(message)  # and not when hours have gone by
        jobs = _jobs(target, path, source, arranged, chosen, cancel, heard)
        with VersionWriter(target, target.default_branch, jobs[0].parent) as writer:
            meter = Meter(sum(each.bytes for each in jobs), progress, cancel)
            for each in jobs:
                each.write(writer, meter)
            check_unchanged(before, source.fingerprint())
            writer.prepare(message, chosen.author)
            made = place(writer)
    if made.why is not None:
        heard.remarks.append(f"{made.why}: v{made.number} is on a new branch, {made.branch!r}")
    if say is not None:
        for line in heard.lines():
            say(line)
    return made


def outline(
    store: Store,
    dataset: str,
    path: str,
    source: Source,
    options: ImportOptions | None = None,
    *,
    cancel: threading.Event | None = None,
) -> Outline:
    """What :func:`import_source` would make; raises what it would, as far as that does not take reading all voxels.
    Nothing is written. Voxels are read only to see whether labels that are kept as floats are whole numbers."""
    chosen = options or ImportOptions()
    check_dataset_name(dataset)
    path = check_path(path)
    source.fingerprint()
    arranged = arrange(source, chosen.axes)
    heard = Heard(list(source.description.remarks), list(source.description.lost))
    target: Dataset | None = None
    if dataset in store:
        target = store[dataset]
    jobs = _jobs(target, path, source, arranged, chosen, cancel, heard)
    return Outline(tuple(job.outline() for job in jobs), tuple(heard.lines()))


def _jobs(
    dataset: Dataset | None,
    path: str,
    source: Source,
    arranged: Source,
    options: ImportOptions,
    cancel: threading.Event | None,
    heard: Heard,
) -> list[_Job]:
    """The import of a source, and of the label images that lie with it."""
    told, is_label = _as_told(path, arranged, options, cancel, heard)
    job = _Job(dataset, path, told, is_label, options)
    jobs = [job, *_jobs_of_labels(dataset, job, source, options, cancel, heard)]
    heard.remarks.extend(line for each in jobs if (line := each.differences()))
    return jobs


@dataclass(frozen=True, slots=True)
class Heard:
    """What an import has to say: whole lines, and phrases about what was not kept, for one line."""

    remarks: list[str]
    lost: list[str]

    def lines(self) -> list[str]:
        return [*self.remarks, *([f"not kept: {'; '.join(self.lost)}"] if self.lost else [])]


def _labels_group(path: str) -> str | None:
    """The ``labels`` group that a path lies in, if its place makes it a label image (OME-NGFF 0.5, section 2.5)."""
    home = path.rpartition("/")[0]
    return home if home.rpartition("/")[2] == "labels" else None


def _as_told(
    path: str, source: Source, options: ImportOptions, cancel: threading.Event | None, heard: Heard
) -> tuple[Source, bool]:
    """The source, and whether it is a segmentation: its labels are integers then. BadInput if they cannot be, unless
    nobody but the source says that it is one."""
    asked = options.labels or _labels_group(path) is not None
    if not asked and (options.labels is False or not source.description.is_label):
        return source, False
    found = source.description
    try:
        made = as_segmentation(source, Meter(math.prod(found.shape) * found.dtype.itemsize, None, cancel))
    except NotWhole as error:
        if asked:
            raise
        heard.remarks.append(f"{found.name} says that it is a segmentation, but is imported as an image: {error}")
        return source, False
    if made is not source:
        kept = made.description.dtype.name
        heard.remarks.append(f"the labels of {found.name} are whole numbers in {found.dtype.name}: kept as {kept}")
    return made, True


def _jobs_of_labels(
    dataset: Dataset | None,
    image: _Job,
    source: Source,
    options: ImportOptions,
    cancel: threading.Event | None,
    heard: Heard,
) -> list[_Job]:
    """The label images that lie with a source, each at its place below the image. What cannot be taken is left, and
    said."""
    names = source.labels()
    if not names:
        return []
    if image.is_label:
        heard.lost.append(f"the label images of what is a label image itself ({', '.join(names)})")
        return []
    own = [a.name for a in source.description.axes]
    renamed = dict(zip(own, parse_axes(options.axes), strict=True)) if options.axes is not None else {}
    chosen = replace(options, axes=None, voxel_size=None, shard=None, levels="auto", labels=True, name=None)
    if chosen.chunks is not None and len(chosen.chunks) == len(source.description.shape):
        chosen = replace(chosen, chunks=None)
    jobs: list[_Job] = []
    for name, labels in names.items():
        path = _join(image.path, f"labels/{name}")
        axes = [renamed.get(a.name, a.name) for a in labels.description.axes]
        try:
            check_path(path)
            arranged = arrange(labels, ",".join(axes))
            told, is_label = _as_told(path, arranged, chosen, cancel, heard)
            jobs.append(_Job(dataset, path, told, is_label, chosen, image))
            heard.remarks.extend(labels.description.remarks)
            heard.lost.extend(f"{phrase} (labels/{name})" for phrase in labels.description.lost)
        except (BadInput, BadName) as error:
            heard.lost.append(f"labels/{name} ({error})")
    for job in jobs:
        job.beside = tuple(each.path.rpartition("/")[2] for each in jobs)
    return jobs


def check_path(path: str) -> str:
    """A hierarchy path without slashes at its ends. BadName or BadInput for one that no node can have."""
    path = path.strip("/")
    if not path:
        return ""
    check_key(f"zarr/{path}")
    if any(part == "zarr.json" or part.startswith("__") for part in path.split("/")):
        raise BadInput(f"{path!r} cannot be the path of an image: a part of it has a meaning in Zarr")
    return path


@contextmanager
def _dataset_for(store: Store, name: str) -> Iterator[Dataset]:
    """The dataset, or a new one that goes away with the error that ends the block."""
    if name in store:
        yield store[name]
        return
    with store.new_dataset(name) as dataset:
        yield dataset


class _Job:
    """One import: everything that follows from metadata, and then the writing. There is no dataset yet where only an
    outline is wanted."""

    def __init__(
        self,
        dataset: Dataset | None,
        path: str,
        source: Source,
        is_label: bool,
        options: ImportOptions,
        image: _Job | None = None,
    ) -> None:
        found = source.description
        self.path = path
        self.is_label = is_label
        #: The label images that come with this one into the same group.
        self.beside: tuple[str, ...] = ()
        self._source = source
        self._alone = image is None
        self._options = options
        self.parent = dataset.branches().get(dataset.default_branch, 0) if dataset is not None else 0
        self._base: Snapshot | None = dataset.version(self.parent) if dataset is not None and self.parent else None
        self._check_source(found)
        if dataset is not None:
            self._check_place(dataset)
        last = path.rpartition("/")[2]
        self._labels_group = _labels_group(path)
        of_image = self._image_of_labels() if image is None else image.as_image_of(found)
        axes, scale, translation = found.axes, found.scale, found.translation
        by_hand = image is not None and image.sized_by_hand
        if of_image is not None and options.voxel_size is None and (_unknown(found) or by_hand):
            axes, scale, translation = _as_in(of_image, axes, scale)
        self.sized_by_hand: bool = options.voxel_size is not None
        if options.voxel_size is not None:
            size = options.voxel_size
            size = parse_voxel_size(size) if isinstance(size, str) else size
            axes, scale = size.apply(axes, scale)
        factors = self._factors(of_image, axes, scale)
        rgb = found.rgb and not is_label
        self._image = pyramid(
            options.name or (last if is_label and last else found.name),
            axes,
            scale,
            factors,
            translation=translation,
            method=method_for(found.dtype, is_label),
            rgb=rgb,
            is_label=is_label,
        )
        chunks = (
            default_chunks(found.shape, axes, rgb)
            if options.chunks is None
            else chosen_chunks(options.chunks, found.shape, axes, rgb)
        )
        self._plan: Plan = make_plan(
            found.shape,
            axes,
            chunks,
            factors,
            found.grain,
            found.dtype.itemsize,
            options.memory // 8,
            rgb=rgb,
        )
        self._shard = None if options.shard is None else chosen_shard(options.shard, chunks, axes)

    @property
    def bytes(self) -> int:
        """Bytes of voxels at full resolution."""
        return math.prod(self._plan.levels[0].shape) * self._source.description.dtype.itemsize

    def outline(self) -> ImageOutline:
        """What will be made."""
        levels = tuple(
            LevelOutline(spec.path, plan.shape, plan.chunks, spec.scale)
            for spec, plan in zip(self._image.levels, self._plan.levels, strict=True)
        )
        dtype = self._source.description.dtype
        name, axes = self._image.name, self._image.axes
        return ImageOutline(self.path, name, axes, dtype, levels, self._shard, self.is_label, self._replaced())

    def _old(self) -> tuple[str, Multiscale | None, ArrayNode | None]:
        """What is there now: the word for it, its description and its finest level."""
        old = self._base.node(self.path) if self._base is not None else None
        if isinstance(old, GroupNode) and self._base is not None:
            image = _image_of(old)
            finest = self._base.node(_join(self.path, image.levels[0].path)) if image is not None else None
            return "the image", image, finest if isinstance(finest, ArrayNode) else None
        return "the array", None, old if isinstance(old, ArrayNode) else None

    def _replaced(self) -> str:
        """What is there now, in a few words."""
        what, _, array = self._old()
        if array is None:
            return ""
        return f"{what} of v{self.parent}, {by(array.meta.shape)} {array.meta.dtype.name}"

    def differences(self) -> str:
        """How the image differs from the one that it replaces, by more than its voxels; "" if in nothing."""
        what, image, array = self._old()
        if array is None:
            return ""
        found, first = self._source.description, self._plan.levels[0]
        pairs: list[tuple[str, str, str]] = [
            ("size", by(array.meta.shape), by(found.shape)),
            ("type", array.meta.dtype.name, found.dtype.name),
            ("chunks", by(array.meta.chunk_shape), by(first.chunks)),
        ]
        if image is not None:
            made = self._image
            old, new = (
                (
                    ",".join(a.name for a in each.axes),
                    voxel_words(each.axes, each.levels[0].scale),
                    str(len(each.levels)),
                    "labels" if each.is_label else "intensities",
                )
                for each in (image, made)
            )
            pairs += zip(("axes", "voxel size", "levels", "kind"), old, new, strict=True)
        changed = [f"{name} {now}, not {before}" for name, before, now in pairs if before != now]
        at = f" at {self.path}" if self.path else ""
        return f"differs from {what} of v{self.parent}{at} that it replaces: {'; '.join(changed)}" if changed else ""

    def write(self, writer: VersionWriter, meter: Meter) -> None:
        """Write metadata and voxels of all levels."""
        self._write_groups(writer)
        arrays = [self._array(writer, index) for index in range(len(self._plan.levels))]
        workers = Workers()
        try:
            memory = Memory(self._options.memory, writer.dataset.store.path)
            stream = VolumeStream(self._source, self._plan, arrays, self._image.method, memory, workers, meter)
            stream.run()
        finally:
            workers.close()

    def _array(self, writer: VersionWriter, index: int) -> ArrayWriter:
        level = self._plan.levels[index]
        found = self._source.description
        raw = array_zarr_json(
            level.shape,
            found.dtype,
            level.chunks,
            fill_value=found.fill_value,
            dimension_names=[a.name for a in self._image.axes],
        )
        shard = None
        if self._shard is not None:
            # Small levels have smaller chunks; a shard is a whole number of them.
            shard = tuple(max(1, s // c) * c for s, c in zip(self._shard, level.chunks, strict=True))
        count = math.prod(-(-n // c) for n, c in zip(level.shape, level.chunks, strict=True))
        path = _join(self.path, self._image.levels[index].path)
        return writer.array(path, raw, created=True, shard_shape=shard, expected_chunks=count)

    def _write_groups(self, writer: VersionWriter) -> None:
        """The image's own group, those above it, and the list of label images; and take away what was there."""
        old = self._base.node(self.path) if self._base is not None else None
        if isinstance(old, ArrayNode):
            writer.remove_subtree(_key(self.path))
        elif isinstance(old, GroupNode):
            kept = {level.path for level in self._image.levels}
            for level in _levels_of(old):
                if level not in kept and self._base is not None and self._base.stat(_key(_join(self.path, level))):
                    writer.remove_subtree(_key(_join(self.path, level)))
        found = self._source.description
        attributes = {**plain_json(found.attributes), **ome_attributes(self._image, further=plain_json(found.ome))}
        if found.facts:
            attributes["volfs"]["source"] = plain_json(found.facts)
        if found.rescale is not None:
            attributes["volfs"]["rescale"] = found.rescale.attributes()
        groups: dict[str, bytes] = {self.path: group_zarr_json(attributes)}
        above = self.path
        while above:
            above = above.rpartition("/")[0]
            node = self._base.node(above) if self._base is not None else None
            if above == self._labels_group:
                names = list(parse_labels(node.attributes)) if isinstance(node, GroupNode) else []
                new = [n for n in (*self.beside, self.path.rpartition("/")[2]) if n not in names]
                if new or node is None:
                    groups[above] = group_zarr_json(labels_attributes([*names, *dict.fromkeys(new)]))
            elif node is None and self._alone:
                groups[above] = group_zarr_json()
        for path, raw in groups.items():
            writer.put(_key(path) + "/zarr.json", raw)

    def _factors(self, of_image: Multiscale | None, axes: Sequence[Axis], scale: Sequence[float]) -> list[Index]:
        shape, levels = self._source.description.shape, self._options.levels
        if of_image is None or levels != "auto":
            return downsampling_factors(shape, scale, axes, levels)
        # A label image has as many levels as its image, and they shrink alike.
        names = [a.name for a in of_image.axes]
        return [
            tuple(of_image.factors(index)[names.index(a.name)] if a.name in names else 1 for a in axes)
            for index in range(1, len(of_image.levels))
        ]

    def _image_of_labels(self) -> Multiscale | None:
        """The image that a label image below ``labels/`` belongs to, if there is one. BadInput if sizes differ."""
        if self._labels_group is None or self._base is None:
            return None
        home = self._labels_group.rpartition("/")[0]
        node = self._base.node(home)
        if not isinstance(node, GroupNode):
            return None
        try:
            image = parse_multiscale(node.attributes)
        except BadMetadata:
            return None
        finest = self._base.node(_join(home, image.levels[0].path)) if image is not None else None
        if image is None or not isinstance(finest, ArrayNode) or len(image.axes) != len(finest.meta.shape):
            return None
        _check_sizes(self._source.description, image, finest.meta.shape)
        return image

    def as_image_of(self, labels: Description) -> Multiscale:
        """The image that is written here, for label images that come with it. BadInput if sizes differ."""
        _check_sizes(labels, self._image, self._source.description.shape)
        return self._image

    def _check_source(self, found: Description) -> None:
        if not 2 <= len(found.shape) <= 6:
            raise BadInput(f"{found.name} has {len(found.shape)} axes: an image has 2 to 6")
        if 0 in found.shape:
            raise BadInput(f"{found.name} is empty: its shape is {found.shape}")

    def _check_place(self, dataset: Dataset) -> None:
        """Nothing may be in the way: an array above, or uncommitted changes where the image goes."""
        above = self.path
        while above and self._base is not None:
            above = above.rpartition("/")[0]
            if isinstance(self._base.node(above), ArrayNode):
                raise BadInput(f"{above or 'the root'!r} is an array: no image can be below it")
        place = _key(self.path)
        changes = dataset.branch(dataset.default_branch).status(check=False).changes
        if any(at == place or at.startswith(place + "/") for at in changes):
            raise BadInput(
                f"branch {dataset.default_branch!r} has uncommitted changes in {place}/: commit or discard them first"
            )


def chosen_shard(given: Sequence[int], chunks: Index, axes: Sequence[Axis]) -> Index:
    """The shard shape that a user's numbers mean, as for chunks; a whole number of chunks. BadInput if it is not."""
    space = [i for i, a in enumerate(axes) if a.type == "space"]
    shard = list(chunks)
    where = list(range(len(chunks))) if len(given) == len(chunks) else space
    if len(given) not in (1, len(where)):
        raise BadInput(f"shard {','.join(map(str, given))}: {wanted(axes)}")
    for i, at in enumerate(where):
        shard[at] = given[i if len(given) > 1 else 0]
    if any(s < 1 or s % c for s, c in zip(shard, chunks, strict=True)):
        raise BadInput(f"shard {by(shard)} is not a whole number of chunks of {by(chunks)}")
    return tuple(shard)


def _image_of(group: GroupNode) -> Multiscale | None:
    """The image that a group is, if it is one."""
    with suppress(BadMetadata):
        return parse_multiscale(group.attributes)
    return None


def _levels_of(group: GroupNode) -> list[str]:
    """Paths of the arrays of an image, relative to its group."""
    image = _image_of(group)
    return [] if image is None else [level.path for level in image.levels]


def _check_sizes(labels: Description, image: Multiscale, shape: Index) -> None:
    sizes = dict(zip((a.name for a in image.axes), shape, strict=True))
    for a, n in zip(labels.axes, labels.shape, strict=True):
        if a.type == "space" and sizes.get(a.name, n) != n:
            raise BadInput(
                f"the label image {labels.name} has {n} voxels along {a.name}, its image has {sizes[a.name]}"
            )


def _unknown(found: Description) -> bool:
    return all(n == 1.0 for n in found.scale) and not any(a.unit for a in found.axes)


def _as_in(
    image: Multiscale, axes: Sequence[Axis], scale: Sequence[float]
) -> tuple[tuple[Axis, ...], tuple[float, ...], tuple[float, ...]]:
    """Axes, voxel size and translation as those of ``image``, where it has axes of the same names."""
    finest = image.levels[0]
    known = {a.name: i for i, a in enumerate(image.axes)}
    return (
        tuple(image.axes[known[a.name]] if a.name in known else a for a in axes),
        tuple(finest.scale[known[a.name]] if a.name in known else s for a, s in zip(axes, scale, strict=True)),
        tuple(finest.translation[known[a.name]] if a.name in known else 0.0 for a in axes),
    )


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _key(path: str) -> str:
    return f"zarr/{path}" if path else "zarr"
