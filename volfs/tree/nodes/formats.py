"""``formats/``: an image, and the hierarchy at its place, as the directories that other programs open.

Decided here: what is in ``formats/`` under which name, and how a :class:`volfs.views.folder.Folder` becomes directories
and inodes. Not here: what formats look like (:mod:`volfs.views.folders`), nor their files
(:mod:`volfs.tree.files.layout_file`).

In a branch a folder is made anew when the branch has changed: it is a few small objects, and holds no voxels.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import ClassVar

import numpy as np

from volfs.catalog.inode_table import MAX_ORDINAL
from volfs.errors import BadInput, NotAllowed, NotFound
from volfs.model.box import Box
from volfs.tree.branches.invalidation import VoxelChange
from volfs.tree.branches.mounted_branch import MountedBranch, branch_of
from volfs.tree.branches.stages import SlicePath, Voxels
from volfs.tree.branches.targets import digest_of, pieces_of, sync_voxels, unchanged_parts, write_parts
from volfs.tree.contract.api import DirEntry
from volfs.tree.contract.attrs import Attr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.layout_handle import QuickSource
from volfs.tree.core.node import FIRST_COOKIE, Dir, Link, Node, attr_of, name_cookie
from volfs.tree.files.layout_file import Contents, LayoutFile, NoVoxels
from volfs.tree.files.staged_dir import StagedDir, Writer
from volfs.tree.images.array_views import ShownArray, shown_image, shown_node
from volfs.tree.images.image_index import ImageIndex
from volfs.views.folder import Fixed, Folder, ViewFile
from volfs.views.folders import hierarchy_formats, image_formats
from volfs.views.layout import Layout
from volfs.views.plane import Incomplete

FORMATS = "formats"

Maker = Callable[[], Folder | ViewFile | None]

#: Where the entries of a run begin, among ordinals and cookies.
_RUN = 1 << 16
#: Entries of a run that are made at a time when a directory is listed.
_LISTED = 512
#: Where cookies of folders begin, which are made of their names. Numbers of a run that reach there are not listed.
_NAMED = 1 << 60
_LAST = 1 << 63
_NO_JSON = object()
#: The expected size (bytes) of a chunk file whose size is not known.
_STAGED = 64 << 20


@dataclass(frozen=True, slots=True)
class _Listed:
    """A piece of a listing: the entries after ``cookie`` in a state of the branch, ``generation``."""

    generation: Hashable
    cookie: int
    rows: list[DirEntry]


class ViewDir(Dir):
    """A directory of a format."""

    #: Whether files in it can be written as a whole, in a branch.
    takes_files: ClassVar[bool] = True

    def __init__(
        self,
        context: TreeContext,
        ino: int,
        up: Dir,
        path: str,
        images: ImageIndex,
        make: Maker,
    ) -> None:
        super().__init__(context, ino, up, path)
        self.images = images
        self.mounted: MountedBranch | None = branch_of(images)
        self.absence = images.timeout
        self._make = make
        self._made: tuple[Hashable, Folder | None] | None = None
        self._kept: _Listed | None = None

    # -- the folder -------------------------------------------------------------------------------------------------

    @property
    def cold(self) -> bool:
        return self.images.cold or self._made is None or self._made[0] != self.images.snapshot.generation()

    def load(self) -> None:
        self.images.load()
        generation = self.images.snapshot.generation()
        if self._made is None or self._made[0] != generation:
            made = self.remake()
            self._made = generation, made if isinstance(made, Folder) else None

    def remake(self) -> Folder | ViewFile | None:
        """The folder as it is now: the one above it may have changed since, and be made of other arrays."""
        up = self.up
        if isinstance(up, ViewDir) and not self.images.lasting:
            if up.cold:
                up.load()
            make = up.maker(self.path.rpartition("/")[2])
            return None if make is None else make[0]()
        return self._make()

    @property
    def folder(self) -> Folder:
        """Raises NotFound."""
        if self._made is None:
            self.load()
        if self._made is None or self._made[1] is None:
            raise NotFound(f"there is no {self.path.rpartition('/')[2]} of this image any more")
        return self._made[1]

    def maker(self, name: str) -> tuple[Maker, int | None] | None:
        """How to make an entry, and its ordinal if it is a file: 0 if it has no number of its own, None for a folder.
        None if there is no such name."""
        folder = self.folder
        fixed = folder.fixed.get(name)
        if fixed is not None:
            return fixed.make, fixed.ordinal or None
        run = folder.run
        index = run.index(name) if run is not None else None
        if run is None or index is None:
            return None
        ordinal = _RUN + index if _RUN + index <= MAX_ORDINAL else 0
        return (lambda: run.make(index)), None if run.is_folder(index) else ordinal

    # -- names ------------------------------------------------------------------------------------------------------

    def find(self, name: str) -> Node | None:
        found = self.maker(name)
        return None if found is None else self._node(name, *found)

    def _node(self, name: str, make: Maker, ordinal: int | None) -> Node:
        context = self.context
        if ordinal is None:
            path = f"{self.path}/{name}"
            mounted = self.mounted
            folder = ViewDir(context, context.inodes.directory(path), self, path, self.images, make)
            return folder if mounted is None else StagedDir(folder, ViewWriter(folder, mounted), mounted)

        def contents() -> Contents | None:
            return contents_of(make(), takes_files=self.takes_files)

        return LayoutFile(context, self.file_ino(name, ordinal), self, name, self.mounted, contents)

    def file_ino(self, name: str, ordinal: int) -> int:
        inodes = self.context.inodes
        return inodes.file(self.ino, ordinal) if ordinal else inodes.name(self.ino, name)

    def numbered(self, ordinal: int) -> Node | None:
        folder = self.folder
        if ordinal < _RUN:
            return next((self.find(name) for name, entry in folder.fixed.items() if entry.ordinal == ordinal), None)
        run = folder.run
        return self.find(run.name(ordinal - _RUN)) if run is not None and ordinal - _RUN < run.count else None

    # -- listing ----------------------------------------------------------------------------------------------------

    def listing_cold(self, cookie: int) -> bool:
        kept = self._kept
        return kept is None or kept.cookie != cookie or kept.generation != self.images.snapshot.generation()

    def load_listing(self, cookie: int) -> None:
        generation = self.images.snapshot.generation()
        self._kept = _Listed(generation, cookie, list(self._rows(cookie)))

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        kept = self._kept
        if kept is None or kept.cookie != cookie:  # two clients list it at once
            return self._rows(cookie)
        return iter(kept.rows)

    def _rows(self, cookie: int) -> Iterator[DirEntry]:
        """Entries after a cookie, at least one if there are any: first fixed files, then the run, then fixed folders,
        whose positions depend on nothing but their names."""
        folder, run = self.folder, self.folder.run
        fixed = sorted((_cookie(entry), name) for name, entry in folder.fixed.items() if entry.listed)
        yield from self._fixed(fixed, cookie, FIRST_COOKIE + _RUN)
        first, count = max(0, cookie - FIRST_COOKIE - _RUN + 1), 0
        if run is not None and first < run.count and cookie < _NAMED:
            for index in run.following(first):
                if (at := FIRST_COOKIE + _RUN + index) >= _NAMED:
                    break
                name = run.name(index)
                if (attr := self._listed(name)) is None:
                    continue
                count += 1
                yield DirEntry(os.fsencode(name), attr, at)
                if count >= _LISTED:
                    return
        if not count:
            yield from self._fixed(fixed, max(cookie, FIRST_COOKIE + _RUN), _LAST)

    def _fixed(self, fixed: list[tuple[int, str]], after: int, before: int) -> Iterator[DirEntry]:
        for at, name in fixed:
            if after < at < before and (attr := self._listed(name)) is not None:
                yield DirEntry(os.fsencode(name), attr, at)

    def _listed(self, name: str) -> Attr | None:
        node = self.find(name)
        if node is not None and node.cold:
            node.load()
        return attr_of(node)

    # -- itself -----------------------------------------------------------------------------------------------------

    def attr(self) -> Attr:
        base = self.images.snapshot.base
        mtime = self.folder.mtime or (base.time_ns if base is not None else self.context.started_ns)
        return self.directory_attr(mtime, self.absence)


def _cookie(entry: Fixed) -> int:
    return FIRST_COOKIE + entry.ordinal if entry.ordinal else name_cookie(entry.name)


def contents_of(found: Folder | ViewFile | None, *, takes_files: bool = True) -> Contents | None:
    """A file of a format, for the tree; ``takes_files``: its directory has files written as a whole."""
    if not isinstance(found, ViewFile):
        return None
    source, box, layout = found.source, found.box, found.layout
    replaceable = takes_files and is_replaceable(found)
    if source is None:
        whole = partial(layout.read, NoVoxels(), 0, layout.size)
        return Contents(layout, NoVoxels(), found.mtime, whole, replaceable=replaceable)
    assert isinstance(source, ShownArray)
    if box is None:
        return Contents(layout, source, found.mtime, lambda: (found.mtime, layout.size), source)
    stamp = partial(_stamp, source, box, layout.size)
    return Contents(layout, source, source.newest(box), stamp, source, replaceable=replaceable)


def _stamp(source: ShownArray, box: Box, size: int) -> Hashable:
    return source.stamp(box), size


def is_replaceable(file: ViewFile) -> bool:
    """Whether a file can be written as a whole: chunks, and metadata as long as it says the same."""
    return file.decode is not None or file.source is None


class ViewWriter(Writer):
    """The files of a format in a branch, to be written: chunk files are recoded into the stored array."""

    word = "file"
    kind = LayoutFile

    def __init__(self, folder: ViewDir, mounted: MountedBranch) -> None:
        self._folder = folder
        self.mounted = mounted

    @property
    def writable(self) -> bool:
        return self.mounted.writable

    async def enter(self) -> None:
        await self.mounted.enter()

    def place(self, name: str) -> SlicePath:
        return self._folder.images.relative(self._folder.path), name

    def target(self, name: str) -> ViewTarget | None:
        found = self._folder.maker(name)
        if found is None or found[1] is None:
            return None
        return ViewTarget(self, name, self._folder.file_ino(name, found[1]), self.place(name))

    def becomes(self, name: str) -> ViewFile:
        """The file of a name, or the one that a write of that name would make. Raises NotFound. May do I/O."""
        found, run = self._folder.maker(name), self._folder.folder.run
        made = found[0]() if found is not None else None
        if made is None and run is not None and (index := run.index(name)) is not None:
            made = run.blank(index)
        if not isinstance(made, ViewFile):
            raise NotFound(f"there is no {name} of this image")
        return made

    def is_like(self, name: str) -> bool:
        run = self._folder.folder.run
        return run is not None and not run.folders and run.count > 0 and _shape(name) == _shape(run.name(0))

    def size(self) -> int:
        return _STAGED

    def files(self) -> str:
        run = self._folder.folder.run
        return f"{run.count}, like {run.name(0)}" if run is not None else "none"

    async def remove(self, name: str) -> None:
        """Make the voxels of a removed chunk fill value: writers remove chunks that hold nothing else."""
        if (target := self.target(name)) is not None:
            await self.mounted.fetch(target.clear)
            await self.mounted.kernel.invalidate(VoxelChange())
        self.mounted.hide(self.place(name))


@dataclass(frozen=True, slots=True)
class ViewTarget:
    """A file of a format, to be replaced: see :class:`volfs.tree.branches.stages.StageTarget`."""

    writer: ViewWriter
    name: str
    ino: int
    place: SlicePath

    @property
    def keeps_refused(self) -> bool:
        return False  # other programs read these by the thousand, and trust each

    def digest(self) -> str:
        found = self._voxels()
        return "document" if found is None else digest_of(found[0].level, found[1])

    def parse(self, data: bytearray) -> Voxels | None:
        file = self.writer.becomes(self.name)
        if file.decode is not None and self._voxels() is not None:
            return file.decode(memoryview(data))
        self._same(file, data)
        return None

    def store(self, voxels: Voxels | None, parts: Sequence[Box] | None = None) -> Hashable:
        found = self._voxels()
        if found is not None and voxels is not None:
            write_parts(found[0].level, found[1], voxels, parts)
        return self.stamp()

    def unchanged(self, since_ns: int) -> list[Box]:
        found = self._voxels()
        return [] if found is None else unchanged_parts(found[0].level, found[1], since_ns)

    def newest(self) -> int:
        found = self._voxels()
        return 0 if found is None else found[0].newest(found[1])

    def _voxels(self) -> tuple[ShownArray, Box] | None:
        """The array and the box in it that a chunk file is recoded into; None for metadata and composed files."""
        file = self.writer.becomes(self.name)
        if file.decode is None or file.box is None or not isinstance(file.source, ShownArray):
            return None
        return file.source, file.box

    def _same(self, file: ViewFile, data: bytearray) -> None:
        """Accept metadata that says the same as the computed one. Raises Incomplete or BadInput for any other."""
        if not is_replaceable(file):
            raise NotAllowed(f"{self.name} is composed of stored chunks: write those")
        source, _ = self.rendered()
        wanted = file.layout.read(source, 0, file.layout.size)
        if data == wanted or (said := _json(data)) == _json(wanted) != _NO_JSON:
            return
        if said == _NO_JSON and len(data) < len(wanted):
            raise Incomplete(f"{self.name} is not complete yet")
        raise BadInput(f"{self.name} is computed from the stored image and cannot be changed here: change zarr/")

    def clear(self) -> None:
        """Make the voxels fill value."""
        found = self._voxels()
        if found is None:
            raise NotAllowed(f"{self.name} is generated: it cannot be removed")
        source, box = found
        source.write(box, np.full(box.shape, source.meta.fill_value, source.dtype))

    def stamp(self) -> Hashable:
        made = contents_of(self.writer.becomes(self.name))
        assert made is not None
        return made.stamp()

    def rendered(self) -> tuple[QuickSource, Layout]:
        file = self.writer.becomes(self.name)
        return file.source if isinstance(file.source, ShownArray) else NoVoxels(), file.layout

    def pieces(self) -> Iterator[bytes]:
        return pieces_of(*self.rendered())

    def sync(self) -> None:
        file = self.writer.becomes(self.name)
        if isinstance(file.source, ShownArray) and file.box is not None:
            sync_voxels(self.writer.mounted.branch, file.source.level, [file.box])


def _json(data: bytes | bytearray) -> object:
    """The content of a JSON document, whatever its white space; ``_NO_JSON`` if it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return _NO_JSON


def _shape(name: str) -> str:
    """A name with every number replaced by 0: equal for names of one pattern."""
    return re.sub(r"[0-9]+", "0", name)


class FormatsDir(ViewDir):
    """``formats/`` of a snapshot, or of an image in it. ``group`` is its place in the hierarchy. The XML of a project
    beside its container is generated."""

    takes_files = False

    def __init__(
        self, context: TreeContext, ino: int, up: Dir, path: str, images: ImageIndex, group: str, name: str
    ) -> None:
        super().__init__(context, ino, up, path, images, self.everything)
        self._group = group
        self._name = name

    def everything(self) -> Folder:
        """All that there is of this image and hierarchy."""
        images, group, name = self.images, self._group, self._name
        node = shown_node(images, group, name)
        found = images.image(group)
        image = shown_image(images, found, name) if found is not None else None
        entries: list[Fixed] = []
        if node is not None:
            entries += hierarchy_formats(node, name)
        if image is not None:
            entries += image_formats(image, name)
        return Folder(entries)

    @property
    def _link(self) -> str:
        return f"{self._name}.ome.zarr"

    def find(self, name: str) -> Node | None:
        if name != self._link:
            return super().find(name)
        up = self.images.relative(self.path).count("/") + 1
        target = "/".join(part for part in ("../" * up + "zarr", self._group) if part)
        ino = self.context.inodes.directory(f"{self.path}/{name}")
        return Link(self.context, ino, self, target, self.attr().mtime, self.absence)

    def _rows(self, cookie: int) -> Iterator[DirEntry]:
        at = name_cookie(self._link)
        rows = list(super()._rows(cookie))
        if cookie < at and (node := self.find(self._link)) is not None:
            rows.append(DirEntry(os.fsencode(self._link), node.attr(), at))
        return iter(sorted(rows, key=attrgetter("cookie")))


def formats_of(up: Dir, images: ImageIndex, group: str) -> FormatsDir:
    """``formats/`` in the directory of an image, or of a snapshot."""
    path = f"{up.path}/{FORMATS}"
    name = group.rpartition("/")[2] or up.dataset
    return FormatsDir(up.context, up.context.inodes.directory(path), up, path, images, group, name)
