"""A level as a directory: its description, its chunks, its volume files, and the directories that lead to its slices.

Decided here: ``info.json``, the ``chunks`` link, and the directories of other axes (``t0003/c01/``) between level and
planes. Volume files are in :mod:`volfs.tree.nodes.volume_files`, those made by naming them in
:mod:`volfs.tree.nodes.cutouts`. The names of axes and planes are decided in :mod:`volfs.views.slices`; what is in a
plane directory in :mod:`volfs.tree.nodes.slices`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from operator import itemgetter
from typing import ClassVar

from volfs.model.facts import source_of
from volfs.tree.branches.level_ref import LevelRef
from volfs.tree.contract.api import DirEntry
from volfs.tree.contract.attrs import Attr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.node import FIRST_COOKIE, Dir, Link, Node, attr_of, name_cookie
from volfs.tree.files.document import Document, DocumentFile
from volfs.tree.files.staged_dir import StagedDir
from volfs.tree.images.array_views import ShownArray
from volfs.tree.nodes.branch_slices import SliceWriter
from volfs.tree.nodes.cutouts import CUTOUT, OBLIQUE, CutoutDir, ObliqueDir
from volfs.tree.nodes.formats import FORMATS, formats_of
from volfs.tree.nodes.preview_slices import PREVIEW, PreviewDir, previewed
from volfs.tree.nodes.previews import is_label
from volfs.tree.nodes.slices import MAX_SLICES, PlaneDir
from volfs.tree.nodes.thumbnails import THUMBNAIL, THUMBNAIL_ORDINAL, thumbnail_of
from volfs.tree.nodes.volume_files import VOLUME_SLOTS, VolumeFiles
from volfs.views import documents
from volfs.views.folder import LISTED_WHOLE, listed
from volfs.views.folders.spatial import stored_positions
from volfs.views.slices import SliceGeometry
from volfs.views.volumes.volume_spec import LevelMeta
from volfs.volume.level import Level

_STEP_COOKIE = 64


class LevelContents:
    """The content of the directory of a level, or of one of its axis directories. ``owner`` is that directory, or the
    directory of an image that is a single array."""

    slots: ClassVar[dict[str, int]] = {"info.json": 11, "chunks": 12, **VOLUME_SLOTS}
    #: Directories of files that are made by naming them, and where they stand in a listing.
    made: ClassVar[dict[str, int]] = {CUTOUT: _STEP_COOKIE - 2, OBLIQUE: _STEP_COOKIE - 1}

    def __init__(self, owner: Dir, ref: LevelRef, others: tuple[int, ...] = ()) -> None:
        self._owner = owner
        self._ref = ref
        self._others = others
        self._volumes = VolumeFiles(owner, ref, others)

    def names(self) -> list[str]:
        """All names, or the first of very many. For directories that are small; others use :meth:`entries`."""
        _, geometry = self._ref.geometry()
        steps = islice(self._following(geometry, 0), LISTED_WHOLE)
        return [*self._fixed(geometry), *(self._step(geometry, i) for i in steps)]

    def _fixed(self, geometry: SliceGeometry | None) -> dict[str, int]:
        """Names that are not directories on the way to slices, and their cookies."""
        found = {name: FIRST_COOKIE + self.slots[name] for name in self._volumes.names()}
        if not self._others:
            found |= {name: FIRST_COOKIE + self.slots[name] for name in ("info.json", "chunks")}
            if geometry is not None:
                found |= {name: at for name, at in self.made.items() if name == CUTOUT or geometry.z is not None}
        return dict(sorted(found.items(), key=itemgetter(1)))

    def find(self, name: str) -> Node | None:
        owner, context, ref = self._owner, self._owner.context, self._ref
        level, geometry = ref.geometry()
        if name in VOLUME_SLOTS:
            return self._volumes.find(name)
        if name in self.slots and not self._others:
            ino = context.inodes.file(owner.ino, self.slots[name])
            if name == "chunks":
                above = "../" * len([part for part in ref.images.relative(owner.path).split("/") if part])
                target = "/".join(part for part in ("zarr", level.array.path) if part)
                return Link(context, ino, owner, above + target, level.array.mtime_ns, ref.images.timeout)
            return DocumentFile(context, ino, owner, self._info(level))
        if geometry is None:
            return None
        path = f"{owner.path}/{name}"
        if name in self.made and name in self._fixed(geometry):
            named = CutoutDir if name == CUTOUT else ObliqueDir
            return named(context, context.inodes.directory(path), owner, path, ref)
        at = len(self._others)
        if at < len(geometry.others):
            index = geometry.others[at].parse(name)
            if index is None:
                return None
            return AxisDir(context, context.inodes.directory(path), owner, path, ref, (*self._others, index))
        if name not in self._ends(geometry):
            return None
        if name == PREVIEW:
            return PreviewDir(context, context.inodes.directory(path), owner, path, ref, self._others)
        planes = PlaneDir(context, context.inodes.directory(path), owner, path, ref, name, self._others)
        return planes if ref.mounted is None else StagedDir(planes, SliceWriter(planes, ref.mounted), ref.mounted)

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        _, geometry = self._ref.geometry()
        for name, at in self._fixed(geometry).items():
            if cookie < at and (attr := attr_of(self.find(name))) is not None:
                yield DirEntry(name.encode(), attr, at)
        first = max(0, cookie - _STEP_COOKIE + 1)
        for index in self._following(geometry, first):
            name = self._step(geometry, index)
            if (attr := attr_of(self.find(name))) is not None:
                yield DirEntry(name.encode(), attr, _STEP_COOKIE + index)

    def numbered(self, ordinal: int) -> Node | None:
        """The file that has this ordinal."""
        return next((self.find(name) for name, slot in self.slots.items() if slot == ordinal), None)

    def listing_cold(self) -> bool:
        """Whether :meth:`load_listing` must run before ``entries``."""
        return any(node is not None and node.cold for node in map(self.find, self._listed()))

    def load_listing(self) -> None:
        """Do the slow part of listing."""
        for node in map(self.find, self._listed()):
            if node is not None and node.cold:
                node.load()

    def _listed(self) -> list[str]:
        return [*self._volumes.names(), *(() if self._others else ("info.json",))]

    def _following(self, geometry: SliceGeometry | None, first: int) -> Iterator[int]:
        """The numbers of the listed directories on the way to slices: of very many, those with anything stored."""
        at = len(self._others)
        if geometry is None or at >= len(geometry.others):
            return iter(range(first, self._count()))
        level, fixed = self._ref.level(), dict(zip((o.axis for o in geometry.others), self._others, strict=False))
        stored = stored_positions(ShownArray(level.array, level), [geometry.others[at].axis], fixed)
        return listed((self._count(),), first, stored)

    def _count(self) -> int:
        _, geometry = self._ref.geometry()
        if geometry is None:
            return 0
        at = len(self._others)
        return geometry.others[at].count if at < len(geometry.others) else len(self._ends(geometry))

    def _step(self, geometry: SliceGeometry | None, index: int) -> str:
        assert geometry is not None
        at = len(self._others)
        return geometry.others[at].name(index) if at < len(geometry.others) else self._ends(geometry)[index]

    def _ends(self, geometry: SliceGeometry) -> list[str]:
        """The directories of slices, where no axis is left: one for each plane, and that of their previews."""
        planes = [plane for plane in geometry.planes if geometry.count(plane) <= MAX_SLICES]
        return [*planes, PREVIEW] if previewed(geometry, is_label=is_label(self._ref)) else planes

    def _info(self, level: Level) -> Document:
        images = self._ref.images

        def about() -> LevelMeta | None:
            return images.meta(self._ref.image, self._ref.name)

        def render() -> bytes:
            meta, known, geometry = level.array.meta, about(), self._ref.geometry()[1]
            sample = geometry.sample if geometry is not None else None
            return documents.info_json(
                axes=level.axes,
                shape=level.shape,
                dtype=level.dtype,
                voxel_size=[abs(size) for size in level.scale],
                chunk_shape=meta.sharding.chunk_shape if meta.sharding is not None else meta.chunk_shape,
                codecs=meta.codecs,
                fill_value=level.fill_value,
                shard_shape=meta.chunk_shape if meta.sharding is not None else None,
                rescale=level.rescale,
                source=source_of(known.attributes) if known is not None else None,
                is_label=level.is_label,
                samples=level.axes[sample].name if sample is not None else None,
                provisional=(image := images.image(self._ref.image)) is not None and image.provisional,
            )

        return Document(render, level.array.mtime_ns, lambda: (id(level), id(about())), lasting=images.lasting)


class AxisDir(Dir):
    """``t0003/`` and the like: one index along an axis besides those of the planes."""

    def __init__(
        self, context: TreeContext, ino: int, up: Dir, path: str, ref: LevelRef, others: tuple[int, ...] = ()
    ) -> None:
        super().__init__(context, ino, up, path)
        self.ref = ref
        self.mounted = ref.mounted
        self.absence = ref.images.timeout
        self._contents = LevelContents(self, ref, others)

    def find(self, name: str) -> Node | None:
        return self._contents.find(name)

    def numbered(self, ordinal: int) -> Node | None:
        return self._contents.numbered(ordinal)

    def listing_cold(self, cookie: int) -> bool:
        return self._contents.listing_cold()

    def load_listing(self, cookie: int) -> None:
        self._contents.load_listing()

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        return self._contents.entries(cookie)

    def attr(self) -> Attr:
        """As old as the array: the names follow from its shape alone."""
        images = self.ref.images
        return self.directory_attr(self.ref.level().array.mtime_ns, images.timeout, writable=images.state.writable)


class LevelDir(AxisDir):
    """``s0/``, where no axis has an index yet; or, with ``plain``, the directory of an array that is an image by
    itself."""

    def __init__(
        self, context: TreeContext, ino: int, up: Dir, path: str, ref: LevelRef, *, plain: bool = False
    ) -> None:
        super().__init__(context, ino, up, path, ref)
        self._plain = plain

    @property
    def cold(self) -> bool:
        return self.ref.images.cold

    def load(self) -> None:
        self.ref.images.load()

    def find(self, name: str) -> Node | None:
        if name == FORMATS and self._plain:
            return formats_of(self, self.ref.images, self.ref.image)
        if name == THUMBNAIL and self._plain:
            return thumbnail_of(self, self.ref.images, self.ref.image)
        return super().find(name)

    def numbered(self, ordinal: int) -> Node | None:
        return self.find(THUMBNAIL) if ordinal == THUMBNAIL_ORDINAL else super().numbered(ordinal)

    def listing_cold(self, cookie: int) -> bool:
        thumbnail = self.find(THUMBNAIL)
        return super().listing_cold(cookie) or (thumbnail is not None and thumbnail.cold)

    def load_listing(self, cookie: int) -> None:
        super().load_listing(cookie)
        thumbnail = self.find(THUMBNAIL)
        if thumbnail is not None:
            thumbnail.warm()

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        yield from super().entries(cookie)
        more = sorted((name_cookie(name), name) for name in (FORMATS, THUMBNAIL)) if self._plain else ()
        for at, name in more:
            if cookie < at and (attr := attr_of(self.find(name))) is not None:
                yield DirEntry(name.encode(), attr, at)
