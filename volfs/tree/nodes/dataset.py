"""The directory of a dataset: its description, and the directories of its versions, branches and tags.

Decided here: the fixed names in it and what its documents depend on. Not here: the directories of refs
(:mod:`volfs.tree.nodes.refs`), nor what a snapshot shows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress

from volfs.errors import Damaged, NotFound, VolfsError
from volfs.model.refs import RefKind
from volfs.tree.branches.registry import BranchRegistry
from volfs.tree.contract.attrs import SOON, Attr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.node import Dir, Node, SmallDir
from volfs.tree.files.document import Document, DocumentFile
from volfs.tree.nodes.diffs import DIFFS, DiffsDir
from volfs.tree.nodes.refs import BranchesDir, TagsDir, VersionsDir
from volfs.versions.dataset import Dataset
from volfs.versions.snapshot import Snapshot
from volfs.views import documents
from volfs.volume.image import images


class DatasetDir(SmallDir):
    """``DATASET/``."""

    slots = {"dataset.json": 1, "log.txt": 2}  # noqa: RUF012

    def __init__(self, context: TreeContext, ino: int, up: Dir, path: str, name: str, branches: BranchRegistry) -> None:
        super().__init__(context, ino, up, path)
        self._name = name
        self._branches = branches
        self._opened: Dataset | None = None
        # Who only reads asks the ref files, not the catalog's mirror of them.
        self.far = context.store.read_only and context.is_far(name)

    @property
    def dataset(self) -> str:
        return self._name

    @property
    def cold(self) -> bool:
        return not self.context.has_origin(self._name, self._opened) and not self.context.store.has_open(self._name)

    def load(self) -> None:
        with suppress(VolfsError):  # an error for those who enter it
            self.open_dataset()

    def open_dataset(self) -> Dataset:
        """The dataset itself. Raises the error of opening it; NotFound if it was removed, or replaced by another."""
        context = self.context
        if not context.has_origin(self._name, self._opened):
            if context.origin(self._name) != self.path:
                raise NotFound(f"dataset {self._name!r} was removed and made anew: enter its directory again")
            self._opened = context.store[self._name]
        assert self._opened is not None
        return self._opened

    def names(self) -> Sequence[str]:
        return [*self.slots, "versions", *(kind.directory for kind in RefKind if kind.directory), DIFFS]

    def find(self, name: str) -> Node | None:
        context = self.context
        path = f"{self.path}/{name}"
        if name == "versions":
            return VersionsDir(context, context.inodes.directory(path), self, path, self.open_dataset)
        if name == DIFFS:
            return DiffsDir(context, context.inodes.directory(path), self, path, self.open_dataset)
        if name == RefKind.BRANCH.directory:
            return BranchesDir(context, context.inodes.directory(path), self, path, self.open_dataset, self._branches)
        if name == RefKind.TAG.directory:
            return TagsDir(context, context.inodes.directory(path), self, path, self.open_dataset)
        if name == "dataset.json":
            return DocumentFile(context, self.slot_ino(name), self, self._document(self._dataset_json))
        if name == "log.txt":
            return DocumentFile(context, self.slot_ino(name), self, self._document(self._log))
        return None

    def attr(self) -> Attr:
        return self.directory_attr(self._time(), SOON)

    def _time(self) -> int:
        try:
            latest = self.open_dataset().latest()
        except VolfsError:
            return self.context.started_ns
        return latest.time_ns if latest is not None else self.context.started_ns

    def _document(self, render: Callable[[], bytes]) -> Document:
        return Document(render, self._time(), self._state)

    def _state(self) -> Hashable:
        dataset = self.open_dataset()
        refs = tuple(tuple(sorted(named.items())) for named in dataset.refs().named.values())
        # What a partial clone has is in the store's document, which is not read here: nobody waits for a disk.
        return len(dataset.graph.versions), dataset.dropped(), self.context.access.seen(self._name), refs

    def _parts(self) -> tuple[str, ...]:
        """What is here of a partial clone, in words."""
        try:
            return tuple(self.open_dataset().clone_parts.words())
        except Damaged:  # all the rest is to be seen still
            return ()

    def _log(self) -> bytes:
        dataset = self.open_dataset()
        named: dict[int, list[str]] = {}
        for names in dataset.refs().named.values():
            for name, number in sorted(names.items()):
                named.setdefault(number, []).append(name)
        for number in dataset.dropped():  # which no ref names
            named[number] = ["dropped"]
        return documents.log_txt(dataset.versions(), named)

    def _dataset_json(self) -> bytes:
        dataset = self.open_dataset()
        refs = dataset.refs()
        head = refs.heads.get(dataset.default_branch, 0)
        return documents.dataset_json(
            dataset.name,
            default_branch=dataset.default_branch,
            branches=refs.heads,
            tags=refs.tags,
            latest=dataset.latest(),
            images=image_facts(dataset.version(head)) if head else [],
            parts=self._parts(),
        )


def image_facts(snapshot: Snapshot) -> list[documents.ImageFacts]:
    """The images of a snapshot, for ``dataset.json``."""
    return [
        documents.ImageFacts(
            path,
            image.axes,
            image.levels[0].dtype,
            tuple(
                documents.LevelFacts(level.name, level.shape, tuple(map(abs, level.scale))) for level in image.levels
            ),
            image.is_label,
        )
        for path, image in images(snapshot).items()
    ]
