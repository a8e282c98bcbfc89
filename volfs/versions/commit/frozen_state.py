"""The state that a commit is made from, as a snapshot: the frozen layer of a working copy over the base.

Decided here: that it reads like any other snapshot, so that computations that add to a commit (the levels of an image
follow s0) work on exactly the state that is committed, while writers go on in the branch. Not decided here: the union
(:mod:`volfs.versions.working.union`), arrays over it (:mod:`volfs.versions.working.branch_array`), and the commit
(:mod:`volfs.versions.commit.protocol`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from itertools import count
from pathlib import Path
from typing import TypeVar

from volfs.model.graph import VersionInfo
from volfs.storage.files import no_space, opened, write_all
from volfs.versions.history import History
from volfs.versions.snapshot import Snapshot
from volfs.versions.working.interpreter import Interpreter
from volfs.versions.working.layer import SPACES, Layer
from volfs.versions.working.union import Union
from volfs.versions.working.union_snapshot import UnionSnapshot

_T = TypeVar("_T")
_states = count()


class FrozenState(UnionSnapshot):
    """A fixed union of layers over a version. Nobody writes to the layers while this is read."""

    writable = False

    def __init__(self, dataset: History[Snapshot], ref: str, union: Union, interpreter: Interpreter) -> None:
        still = _Still(union)
        super().__init__(dataset, ref, still, still, interpreter)
        self.union = union
        self._generation = ("frozen", next(_states))

    @property
    def base(self) -> VersionInfo | None:
        return None if self.union.lower is None else self.union.lower.base

    def generation(self) -> Hashable:
        return self._generation


class Additions:
    """A layer above the frozen one, for keys computed from it: on disk, so that memory does not follow its size."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layer = Layer(str(root))
        self.count = 0
        for name in (*SPACES, "removed"):
            (root / name).mkdir(parents=True)

    def put(self, key: str, data: bytes | None) -> None:
        """Have the version hold ``data`` at ``key``; None takes the key away."""
        self.count += 1
        with no_space("adding to the version"):
            if data is None:
                self.layer.hide(key, str(self.root))
                return
            path = self.layer.path(key)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
                write_all(fd, data)


class _Still:
    """A union that nobody changes, and its count of changes."""

    def __init__(self, union: Union) -> None:
        self._union = union

    def look(self, see: Callable[[Union], _T]) -> _T:
        return see(self._union)

    def read(self) -> int:
        return 0

    def between(self, count: int, later: int) -> tuple[()]:
        return ()
