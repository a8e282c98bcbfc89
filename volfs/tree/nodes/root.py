"""The root of a mount and its ``.volfs``: the list of datasets, and the state of the daemon.

Decided here: the fixed names at the root. A dataset that cannot be opened is listed like any other and fails when it is
entered: it harms no other. Not here: the daemon's statistics (:mod:`volfs.tree.monitoring.statistics`).
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence

from volfs import __version__
from volfs.errors import Damaged
from volfs.tree.branches.registry import BranchRegistry
from volfs.tree.contract.attrs import SOON, Attr
from volfs.tree.core.context import Shared
from volfs.tree.core.node import Node, SmallDir
from volfs.tree.files.document import Document, Generated
from volfs.tree.monitoring.prometheus import exposition
from volfs.tree.monitoring.statistics import statistics
from volfs.tree.nodes.dataset import DatasetDir
from volfs.views import documents

#: How old the size of a live document may be when it is only looked at.
_LOOK_SECONDS = 1.0
#: Live documents are filled up to a multiple of this: an NFS client reads no more than the size it has looked at.
_STEP = 4096


class RootDir(SmallDir):
    """``README.txt``, ``.volfs`` and the datasets."""

    def __init__(self, shared: Shared, ino: int, branches: BranchRegistry) -> None:
        super().__init__(shared, ino, None, "")
        self._branches = branches

    def names(self) -> Sequence[str]:
        return ["README.txt", ".volfs", *self.shared.store.datasets()]

    def find(self, name: str) -> Node | None:
        shared = self.shared
        if name == "README.txt":
            # The root is inode 1, which has no ordinals: its one file is numbered as a directory would be.
            return Generated(shared, shared.inodes.directory(name), self, self._readme())
        if name == ".volfs":
            return DaemonDir(shared, shared.inodes.directory(name), self, name)
        if name in shared.store.broken:
            raise Damaged(shared.store.broken[name])
        if name not in shared.store.catalog.datasets():
            return None
        path = shared.origin(name)
        return DatasetDir(shared, shared.inodes.directory(path), self, path, name, self._branches)

    def attr(self) -> Attr:
        shared = self.shared
        return self.directory_attr(shared.clock.mtime("", tuple(shared.store.datasets()), shared.started_ns), SOON)

    def _readme(self) -> Document:
        shared = self.shared

        def stamp() -> Hashable:
            return tuple(shared.store.datasets()), shared.writable

        def render() -> bytes:
            return documents.readme_txt(
                store=str(shared.store.path), datasets=shared.store.datasets(), writable=shared.writable
            )

        return Document(render, shared.started_ns, stamp)


class DaemonDir(SmallDir):
    """``MOUNT/.volfs``: the daemon's version and statistics."""

    slots = {"stats.json": 1, "version": 2, "metrics": 3}  # noqa: RUF012

    def names(self) -> Sequence[str]:
        return list(self.slots)

    def find(self, name: str) -> Node | None:
        if name not in self.slots:
            return None
        started = self.shared.started_ns
        if name == "version":
            document = Document(lambda: f"volfs {__version__}\n".encode(), started)
        else:
            render = self._stats if name == "stats.json" else self._metrics
            document = Document(render, started, time.monotonic, pause=_LOOK_SECONDS)
        return Generated(self.shared, self.slot_ino(name), self, document)

    def attr(self) -> Attr:
        return self.directory_attr(self.shared.started_ns, SOON)

    def _stats(self) -> bytes:
        return _filled(documents.to_json(statistics(self.shared, self.slot_ino("stats.json"))), b" ")

    def _metrics(self) -> bytes:
        return _filled(exposition(statistics(self.shared, self.slot_ino("metrics"))), b"\n")


def _filled(text: bytes, filler: bytes) -> bytes:
    return text[:-1].ljust(-(-len(text) // _STEP) * _STEP - 1, filler) + b"\n"
