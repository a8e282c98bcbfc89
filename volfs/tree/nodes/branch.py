"""A branch as a directory: a snapshot that can be written, and its ``.volfs``.

Decided here: what a branch has besides what every snapshot has. What is in ``.volfs`` is in
:mod:`volfs.tree.nodes.control`."""

from __future__ import annotations

from collections.abc import Sequence

from volfs.tree.branches.mounted_branch import MountedBranch
from volfs.tree.contract.attrs import Attr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.node import Dir, Node
from volfs.tree.nodes.branch_keys import BranchKeyDir
from volfs.tree.nodes.control import ControlDir
from volfs.tree.nodes.snapshot import SnapshotDir


class BranchDir(SnapshotDir):
    """``branches/NAME/``."""

    lenient = True

    def __init__(self, context: TreeContext, ino: int, up: Dir, path: str, mounted: MountedBranch) -> None:
        super().__init__(context, ino, up, path, mounted.images)
        self.mounted: MountedBranch = mounted

    def fixed(self) -> Sequence[str]:
        return [".volfs", *super().fixed()]

    def find(self, name: str) -> Node | None:
        if name != ".volfs":
            return super().find(name)
        path = f"{self.path}/{name}"
        return ControlDir(self.context, self.context.inodes.directory(path), self, path, self.mounted)

    def space(self, name: str) -> Node:
        path = f"{self.path}/{name}"
        return BranchKeyDir(self.context, self.context.inodes.directory(path), self, path, self.mounted, name)

    def attr(self) -> Attr:
        base = self.mounted.branch.base
        return self.directory_attr(
            self.context.clock.mtime(self.path, None, base.time_ns if base is not None else self.context.started_ns),
            1.0,
            writable=self.mounted.writable,
        )
