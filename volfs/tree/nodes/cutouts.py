"""``cutout/`` and ``oblique/``: files that are made by naming them.

Decided here: that such files are not listed (there are more of them than atoms), that a README says what they are
called, and their inodes: those of a name that was asked for once are allocated, and lead back to it for ever. What a
name means is decided in :mod:`volfs.views.cutout` and :mod:`volfs.views.oblique_planes`.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator

from volfs.errors import NotFound
from volfs.tree.branches.level_ref import LevelRef
from volfs.tree.branches.mounted_branch import MountedBranch
from volfs.tree.contract.api import DirEntry
from volfs.tree.contract.attrs import Attr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.node import FIRST_COOKIE, Dir, Node, attr_of
from volfs.tree.files.document import Document, DocumentFile
from volfs.tree.files.layout_file import Contents, LayoutFile
from volfs.tree.nodes.previews import preview, resampled_file
from volfs.views import cutout, oblique_planes
from volfs.views.volumes.volume_spec import LevelMeta

CUTOUT, OBLIQUE = "cutout", "oblique"
_README = "README.txt"


class NamedDir(Dir):
    """A directory of such files."""

    def __init__(self, context: TreeContext, ino: int, up: Dir, path: str, ref: LevelRef) -> None:
        super().__init__(context, ino, up, path)
        self.ref = ref
        self.mounted: MountedBranch | None = ref.mounted
        self.absence = ref.images.timeout

    @abstractmethod
    def made(self, name: str) -> Node | None:
        """The file of a name; None if the name is not one that makes a file."""

    @abstractmethod
    def readme(self) -> str:
        """The text of README.txt: the names that files can have."""

    def find(self, name: str) -> Node | None:
        if name != _README:
            return self.made(name)
        level = self.ref.level()
        document = Document(
            lambda: self.readme().encode(), level.array.mtime_ns, lambda: id(level), lasting=self.ref.images.lasting
        )
        return DocumentFile(self.context, self.context.inodes.file(self.ino, 1), self, document)

    def numbered(self, ordinal: int) -> Node | None:
        return self.find(_README) if ordinal == 1 else None

    def listing_cold(self, cookie: int) -> bool:
        node = self.find(_README)
        return node is not None and node.cold

    def load_listing(self, cookie: int) -> None:
        node = self.find(_README)
        if node is not None and node.cold:
            node.load()

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        if cookie < FIRST_COOKIE and (attr := attr_of(self.find(_README))) is not None:
            yield DirEntry(os.fsencode(_README), attr, FIRST_COOKIE)

    def attr(self) -> Attr:
        return self.directory_attr(self.ref.level().array.mtime_ns, self.absence)

    def meta(self) -> LevelMeta:
        """The level's metadata, as format modules need it. Raises NotFound."""
        meta = self.ref.images.meta(self.ref.image, self.ref.name)
        if meta is None:
            raise NotFound(f"{self.ref.name} has no planes")
        return meta


class CutoutDir(NamedDir):
    """``s0/cutout/``: boxes of the level."""

    def made(self, name: str) -> Node | None:
        meta = self.meta()
        cut = cutout.open_name(meta, name)
        if cut is None:
            return None
        ino, level, box, layout = self.context.inodes.name(self.ino, name), self.ref.level(), cut.box, cut.layout
        if cut.preview is not None:
            return DocumentFile(self.context, ino, self, preview(self.ref, cut.preview, cut.others, level.newest(box)))
        assert layout is not None

        def make() -> Contents:
            # Channel names and the like are in the header of some formats: they are part of the metadata's identity.
            return Contents(layout, level, level.newest(box), lambda: (level.stamp(box), id(meta)), level, level)

        return LayoutFile(self.context, ino, self, name, self.mounted, make)

    def readme(self) -> str:
        return cutout.readme(self.meta())


class ObliqueDir(NamedDir):
    """``s0/oblique/``: planes at any angle."""

    def made(self, name: str) -> Node | None:
        found = oblique_planes.open_name(self.meta(), name)
        if found is None:
            return None
        return resampled_file(self.context, self.context.inodes.name(self.ino, name), self, name, self.ref, found)

    def readme(self) -> str:
        return oblique_planes.readme(self.meta())
