"""The root of a mount and its ``.volfs``: the list of datasets, and the state of the daemon.

Decided here: the fixed names at the root, and that a directory made there is a dataset. A dataset that cannot be
opened is listed like any other and fails when it is entered: it harms no other. Not here: what an empty dataset is
(:mod:`volfs.versions.first_version`), nor the daemon's statistics (:mod:`volfs.tree.monitoring.statistics`).
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence

from volfs import __version__
from volfs.errors import Damaged, NotAllowed, NotFound, ReadOnly, VolfsError
from volfs.tree.branches.registry import BranchRegistry
from volfs.tree.contract.attrs import SOON, Attr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.node import Node, SmallDir
from volfs.tree.files.document import Document, DocumentFile
from volfs.tree.monitoring.prometheus import exposition
from volfs.tree.monitoring.statistics import statistics
from volfs.tree.nodes.dataset import DatasetDir
from volfs.versions.first_version import begin, check_empty, remove_empty
from volfs.views import documents

#: How old the size of a live document may be when it is only looked at.
_LOOK_SECONDS = 1.0
#: Live documents are filled up to a multiple of this: an NFS client reads no more than the size it has looked at.
_STEP = 4096


class RootDir(SmallDir):
    """``README.txt``, ``.volfs`` and the datasets."""

    def __init__(self, context: TreeContext, ino: int, branches: BranchRegistry) -> None:
        super().__init__(context, ino, None, "")
        self._branches = branches

    def names(self) -> Sequence[str]:
        return ["README.txt", ".volfs", *self.context.store.datasets()]

    def find(self, name: str) -> Node | None:
        context = self.context
        if name == "README.txt":
            # The root is inode 1, which has no ordinals: its one file is numbered as a directory would be.
            return DocumentFile(context, context.inodes.directory(name), self, self._readme())
        if name == ".volfs":
            return DaemonDir(context, context.inodes.directory(name), self, name)
        if name in context.store.broken:
            raise Damaged(context.store.broken[name])
        if name not in context.store.catalog.datasets():
            return None
        path = context.origin(name)
        return DatasetDir(context, context.inodes.directory(path), self, path, name, self._branches)

    def attr(self) -> Attr:
        context = self.context
        mtime = context.clock.mtime("", tuple(context.store.datasets()), context.started_ns)
        return self.directory_attr(mtime, SOON, writable=context.writable)

    async def mkdir(self, name: str, mode: int) -> Attr:
        """An empty dataset."""
        context = self.context
        self._check_writable()
        await context.look("", lambda: begin(context.store, name))
        context.names_moved()
        node = self.find(name)
        if node is None:
            raise NotFound(f"dataset {name!r} was removed again")
        return await node.asked(node.attr)

    async def rmdir(self, name: str) -> None:
        """A dataset that still is empty; others are removed by the command, which asks."""
        context = self.context
        if name not in context.store.catalog.datasets():
            await super().rmdir(name)
        self._check_writable()
        await context.look(name, lambda: check_empty(context.store[name]))
        for mounted in self._branches:
            if mounted.dataset.name == name:
                await mounted.retire()
                self._branches.discard(mounted)
        await context.look(name, lambda: remove_empty(context.store, name))
        context.names_moved()

    def refusal(self) -> VolfsError:
        return NotAllowed("the root has datasets and nothing else: mkdir makes one")

    def _check_writable(self) -> None:
        if not self.context.writable:
            raise ReadOnly("this mount is read-only")

    def _readme(self) -> Document:
        context = self.context

        def stamp() -> Hashable:
            return tuple(context.store.datasets()), context.writable

        def render() -> bytes:
            return documents.readme_txt(
                store=str(context.store.path), datasets=context.store.datasets(), writable=context.writable
            )

        return Document(render, context.started_ns, stamp)


class DaemonDir(SmallDir):
    """``MOUNT/.volfs``: the daemon's version and statistics."""

    slots = {"stats.json": 1, "version": 2, "metrics": 3}  # noqa: RUF012

    def names(self) -> Sequence[str]:
        return list(self.slots)

    def find(self, name: str) -> Node | None:
        if name not in self.slots:
            return None
        started = self.context.started_ns
        if name == "version":
            document = Document(lambda: f"volfs {__version__}\n".encode(), started)
        else:
            render = self._stats if name == "stats.json" else self._metrics
            document = Document(render, started, time.monotonic, pause=_LOOK_SECONDS)
        return DocumentFile(self.context, self.slot_ino(name), self, document)

    def attr(self) -> Attr:
        return self.directory_attr(self.context.started_ns, SOON)

    def _stats(self) -> bytes:
        return _filled(documents.to_json(statistics(self.context, self.slot_ino("stats.json"))), b" ")

    def _metrics(self) -> bytes:
        return _filled(exposition(statistics(self.context, self.slot_ino("metrics"))), b"\n")


def _filled(text: bytes, filler: bytes) -> bytes:
    return text[:-1].ljust(-(-len(text) // _STEP) * _STEP - 1, filler) + b"\n"
