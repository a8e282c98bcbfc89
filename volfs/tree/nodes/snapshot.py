"""A snapshot as a directory: its keys, its images, and the files generated about it.

Decided here: the fixed names of a snapshot, which win over images of the same name (those are reachable under ``zarr/``
only), and how groups of the hierarchy become directories. What a branch has besides is in
:mod:`volfs.tree.nodes.branch`; what is in a level in :mod:`volfs.tree.nodes.level`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from volfs.errors import NotFound, VolfsError
from volfs.tree.branches.level_ref import LevelRef
from volfs.tree.branches.mounted_branch import MountedBranch, branch_of
from volfs.tree.contract.attrs import FOREVER, SOON, Attr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.node import Dir, Node, SmallDir
from volfs.tree.files.document import Document, DocumentFile
from volfs.tree.images.array_views import shown_node
from volfs.tree.images.image_index import ImageIndex
from volfs.tree.nodes.formats import FORMATS, formats_of
from volfs.tree.nodes.level import LevelContents, LevelDir
from volfs.tree.nodes.thumbnails import THUMBNAIL, THUMBNAIL_ORDINAL, has_thumbnail, pictured_image, thumbnail_of
from volfs.tree.nodes.version_keys import KeyDir
from volfs.versions.committed.version import Version
from volfs.views import documents


class GroupDir(SmallDir):
    """A group of the hierarchy that is an image or leads to some: ``labels/``, ``labels/NAME/``."""

    slots: ClassVar[dict[str, int]] = {**LevelContents.slots, THUMBNAIL: THUMBNAIL_ORDINAL}

    def __init__(self, context: TreeContext, ino: int, up: Dir, path: str, images: ImageIndex, group: str) -> None:
        super().__init__(context, ino, up, path)
        self.images = images
        self.mounted: MountedBranch | None = branch_of(images)
        self.group = group
        self.absence = images.timeout

    @property
    def cold(self) -> bool:
        return self.images.cold

    def load(self) -> None:
        self.images.load()

    def names(self) -> Sequence[str]:
        image = self.images.image(self.group)
        own: list[str] = []
        if image is not None:
            own = self._contents().names() if image.is_array else [level.name for level in image.levels]
            own.append(FORMATS)
        if self.group and has_thumbnail(self.images, self.group):
            own.append(THUMBNAIL)
        return [*own, *(name for name in self.images.below(self.group) if name not in own)]

    def find(self, name: str) -> Node | None:
        image = self.images.image(self.group)
        path = f"{self.path}/{name}"
        if name == FORMATS and image is not None:
            return formats_of(self, self.images, self.group)
        if name == THUMBNAIL and image is not None:
            return thumbnail_of(self, self.images, self.group)
        if image is not None and image.is_array:
            return self._contents().find(name)
        if image is not None and image.level(name) is not None:
            return self._level(path, LevelRef(self.images, self.group, name))
        if name not in self.images.below(self.group):
            return None
        child = f"{self.group}/{name}" if self.group else name
        inner = self.images.image(child)
        if inner is not None and inner.is_array:
            return self._level(path, LevelRef(self.images, child, inner.levels[0].name), plain=True)
        return GroupDir(self.context, self.context.inodes.directory(path), self, path, self.images, child)

    def attr(self) -> Attr:
        image = self.images.image(self.group)
        if image is None and not self.images.below(self.group):
            raise NotFound(f"{self.group or '/'} holds no image")
        return self.times_attr(max((level.array.mtime_ns for level in image.levels), default=0) if image else 0)

    def times_attr(self, mtime: int) -> Attr:
        """Attributes, with at least the time of the snapshot where nothing better is known."""
        base = self.images.snapshot.base
        mtime = mtime or (base.time_ns if base is not None else self.context.started_ns)
        if not self.images.lasting:
            mtime = self.context.clock.mtime(self.path, tuple(self.names()), mtime)
        return self.directory_attr(mtime, self.images.timeout, writable=self.images.state.writable)

    def refusal(self) -> VolfsError:
        return self.images.state.refusal()

    def _level(self, path: str, ref: LevelRef, *, plain: bool = False) -> LevelDir:
        return LevelDir(self.context, self.context.inodes.directory(path), self, path, ref, plain=plain)

    def _contents(self) -> LevelContents:
        image = self.images.image(self.group)
        assert image is not None
        return LevelContents(self, LevelRef(self.images, self.group, image.levels[0].name))


class SnapshotDir(GroupDir):
    """The directory of a version or branch. A subclass adds names of its own to ``slots`` and ``fixed``."""

    slots: ClassVar[dict[str, int]] = {**GroupDir.slots, "version.json": 1}

    def __init__(self, context: TreeContext, ino: int, up: Dir, path: str, images: ImageIndex) -> None:
        super().__init__(context, ino, up, path, images, "")

    def fixed(self) -> Sequence[str]:
        """The names that are the snapshot's own."""
        return [
            *([THUMBNAIL] if pictured_image(self.images) is not None else []),
            "zarr",
            "files",
            *([FORMATS] if shown_node(self.images, "", "") is not None else []),
        ]

    def names(self) -> Sequence[str]:
        fixed = self.fixed()
        return [*fixed, *(name for name in super().names() if name not in self.reserved)]

    #: Names that no image takes, whether they are there now or not.
    reserved: ClassVar[frozenset[str]] = frozenset(
        {"version.json", "thumbnail.png", "zarr", "files", FORMATS, ".volfs", "README.txt"}
    )

    def find(self, name: str) -> Node | None:
        if name not in self.reserved:
            return super().find(name)
        if name == THUMBNAIL:
            return thumbnail_of(self, self.images, None)
        if name in ("zarr", "files"):
            return self.space(name)
        if name == FORMATS and name in self.fixed():
            return formats_of(self, self.images, self.group)
        return None

    def space(self, name: str) -> Node:
        """``zarr/`` or ``files/``."""
        path = f"{self.path}/{name}"
        return KeyDir(self.context, self.context.inodes.directory(path), self, path, self.images.snapshot, name)

    def attr(self) -> Attr:
        base = self.images.snapshot.base
        return self.times_attr(base.time_ns if base is not None else 0)


class VersionDir(SnapshotDir):
    """``versions/vN/``: everything in it may be cached for ever, but not that it is there: it may be dropped."""

    absence = FOREVER

    def __init__(self, context: TreeContext, ino: int, up: Dir, path: str, version: Version) -> None:
        super().__init__(context, ino, up, path, ImageIndex(version, path))
        self._version = version
        self.far = False  # what is loaded of a version is served whatever becomes of its disk

    def attr(self) -> Attr:
        return super().attr()._replace(entry_timeout=SOON)

    def fixed(self) -> Sequence[str]:
        return ["version.json", *super().fixed()]

    def find(self, name: str) -> Node | None:
        if name != "version.json":
            return super().find(name)
        info = self._version.info
        document = Document(self._version_json, info.time_ns, lasting=True)
        return DocumentFile(self.context, self.slot_ino(name), self, document)

    def _version_json(self) -> bytes:
        version = self._version
        changes = version.changes()
        return documents.version_json(
            version.info,
            [documents.ChangeFacts(path, c.put, c.removed, c.bytes) for path, c in sorted(changes.nodes.items())],
            changes.meta,
        )
