"""``diffs/``: what differs between two versions, as text, as pictures and as label images; found by name.

Decided here: that ``A..B`` of any two expressions is a link to ``vM..vN``, which may be kept for a second, and that
what it leads to may be kept for ever; and what stands in it. Not here: what differs (:mod:`volfs.versions.diff`,
:mod:`volfs.volume.difference`), and what the directory of an image holds (:mod:`volfs.tree.nodes.snapshot`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from volfs.errors import BadInput, NotFound
from volfs.model.display import printable
from volfs.model.names import version_number
from volfs.tree.branches.level_ref import LevelRef
from volfs.tree.contract.attrs import FOREVER, SOON, Attr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.node import Link, Node
from volfs.tree.files.document import Document, DocumentFile
from volfs.tree.images.image_index import ImageIndex
from volfs.tree.nodes.previews import window_of
from volfs.tree.nodes.refs import MEANT, RefsDir
from volfs.tree.nodes.snapshot import SnapshotDir
from volfs.versions.committed.version import Version
from volfs.versions.diff import NodeDiff, differing
from volfs.versions.diff_report import facts_of, lines_of
from volfs.views import documents
from volfs.views.difference import paint
from volfs.volume.difference import DifferenceSnapshot
from volfs.volume.image import Image

DIFFS = "diffs"
"""Its name in the directory of a dataset."""
_BETWEEN = ".."


class DiffsDir(RefsDir):
    """``diffs/``. It lists nothing: everything in it is found by its name."""

    def names(self) -> Sequence[str]:
        return ()

    def find(self, name: str) -> Node | None:
        name, _, _ = name.partition(MEANT)
        a, between, b = name.partition(_BETWEEN)
        if not between or not a or not b:
            return None
        dataset = self.opened
        try:
            old, new = dataset.resolve(a), dataset.resolve(b)
        except (NotFound, BadInput):
            return None
        if {old, new} & dataset.dropped():
            return None
        path = f"{self.path}/{name}"
        if (version_number(a), version_number(b)) == (old, new):
            ino = self.context.inodes.directory(path)
            return DiffDir(self.context, ino, self, path, dataset.version(old), dataset.version(new))
        time_ns, target = max(dataset.time_of(old), dataset.time_of(new)), f"v{old}{_BETWEEN}v{new}"
        ino = self.context.inodes.directory(f"{path}{MEANT}{target}")
        return Link(self.context, ino, self, target, time_ns, SOON)

    def attr(self) -> Attr:
        newest = self.opened.graph.latest_ns or self.context.started_ns
        return self.directory_attr(newest, SOON)


class DiffDir(SnapshotDir):
    """``diffs/vM..vN/``: everything in it may be cached for ever."""

    absence = FOREVER
    slots: ClassVar[dict[str, int]] = {**SnapshotDir.slots, "summary.json": 5, "changed.txt": 6}
    reserved = SnapshotDir.reserved | {"summary.json", "changed.txt"}

    def __init__(self, context: TreeContext, ino: int, up: RefsDir, path: str, a: Version, b: Version) -> None:
        self._shown = ImageIndex(b, path)  # the windows of pictures are those of the newer version's images
        snapshot = DifferenceSnapshot(a, b, self._paint)
        super().__init__(context, ino, up, path, ImageIndex(snapshot, path))
        self.images.pictured = False  # a listing would decode
        self._refs = up
        self._a, self._b = a, b
        self.far = False  # what is loaded of a version is served whatever becomes of its disk

    def fixed(self) -> Sequence[str]:
        return ["summary.json", "changed.txt", *super().fixed()]

    def find(self, name: str) -> Node | None:
        if name not in ("summary.json", "changed.txt"):
            return super().find(name)
        render = self._summary if name == "summary.json" else self._changed
        document = Document(render, max(self._a.info.time_ns, self._b.info.time_ns), lasting=True, heavy=True)
        return DocumentFile(self.context, self.slot_ino(name), self, document)

    def _summary(self) -> bytes:
        found = [facts_of(each, stat=True) for each in self._refs.opened.diff(self._a.number, self._b.number)]
        return documents.to_json({"from": self._a.ref, "to": self._b.ref, "changes": found})

    def _changed(self) -> bytes:
        lines: list[str] = []
        for each in self._refs.opened.diff(self._a.number, self._b.number):
            lines += lines_of(facts_of(each, stat=isinstance(each, NodeDiff)), stat=True)
        return "".join(f"{printable(line)}\n" for line in lines).encode("utf-8", "backslashreplace")

    def _paint(self, image: Image, before: NDArray[Any], now: NDArray[Any]) -> NDArray[np.uint8]:
        label = image.is_label
        window = (0.0, 1.0) if label else window_of(LevelRef(self._shown, image.path, image.levels[0].name), 0)
        return paint(before, now, differing(before, now), window, is_label=label)
