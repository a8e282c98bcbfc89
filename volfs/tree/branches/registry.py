"""The mounted branches of a tree: one object for a branch as long as it lives."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator

from volfs.model.refs import RefKind
from volfs.tree.branches.mounted_branch import MountedBranch
from volfs.tree.core.context import TreeContext
from volfs.versions.dataset import Dataset


class BranchRegistry:
    """Those that were asked for since the mount began.

    ``settle_leftovers`` decides what an earlier daemon left half written in a branch.
    """

    def __init__(self, context: TreeContext, settle_leftovers: Callable[[MountedBranch], Awaitable[None]]) -> None:
        self._context = context
        self._settle_leftovers = settle_leftovers
        self._mutex = threading.Lock()
        self._known: dict[tuple[str, str], MountedBranch] = {}
        #: Branches that others of their names have replaced, and that are to be closed.
        self.replaced: list[MountedBranch] = []

    def __iter__(self) -> Iterator[MountedBranch]:
        return iter(list(self._known.values()))

    def find(self, dataset: str, branch: str) -> MountedBranch | None:
        """The branch of a name, if anybody asked for it."""
        return self._known.get((dataset, branch))

    def get(self, dataset: Dataset, branch: str) -> MountedBranch:
        """A branch, mounted now if it is not yet. Safe in a thread."""
        # Without the mutex: a dataset whose disk does not answer holds up no other.
        current = dataset.branch(branch)
        with self._mutex:
            found = self.find(dataset.name, branch)
            if found is None or found.dataset is not dataset or found.branch is not current:
                if found is not None:
                    self.replaced.append(found)
                path = f"{self._context.origin(dataset.name)}/{RefKind.BRANCH.directory}/{branch}"
                found = MountedBranch(self._context, dataset, branch, path, self._settle_leftovers)
                self._known[dataset.name, branch] = found
        return found

    def discard(self, mounted: MountedBranch) -> None:
        """Forget a branch that was removed."""
        self._known.pop((mounted.dataset.name, mounted.name), None)
