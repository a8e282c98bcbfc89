"""A head version made of a dict, for tests of the working copy that need no store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, cast

from volfs.errors import NotFound, WrongKind
from volfs.model.bounded_map import Caches
from volfs.model.graph import VersionInfo
from volfs.versions.snapshot import GroupNode, KeyInfo, Listing, Snapshot
from volfs.versions.working.interpreter import Interpreter
from volfs.versions.working.union_snapshot import UnionSnapshot
from volfs.versions.working.working_copy import WorkingCopy


class DictVersion(Snapshot):
    """A version whose keys and bytes are given. Directories exist because there are files in them."""

    writable = False

    def __init__(self, number: int, files: Mapping[str, bytes], time_ns: int = 1_600_000_000_000_000_000) -> None:
        self.ref = f"v{number}"
        self.files = dict(files)
        self.time_ns = time_ns
        self._info = VersionInfo(number, (), 0, 0, time_ns, "someone", "", "")

    @property
    def base(self) -> VersionInfo:
        return self._info

    def generation(self) -> int:
        return 0

    def stat(self, key: str) -> KeyInfo | None:
        if key in self.files:
            return KeyInfo("file", len(self.files[key]), self.time_ns, self._info.number)
        below = f"{key}/" if key else ""
        if key in ("", "zarr", "files") or any(k.startswith(below) for k in self.files):
            return KeyInfo("dir", 0, self.time_ns, self._info.number)
        return None

    def list(self, key: str) -> Listing:
        info = self.stat(key)
        if info is None:
            raise NotFound(key)
        if info.kind == "file":
            raise WrongKind(key)
        below = f"{key}/" if key else ""
        names = {k[len(below) :].split("/")[0] for k in self.files if k.startswith(below)}
        return [(name, found) for name in sorted(names) if (found := self.stat(below + name)) is not None]

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        info = self.stat(key)
        if info is None:
            raise NotFound(key)
        if info.kind == "dir":
            raise WrongKind(key)
        data = self.files[key][offset:]
        return data if length is None else data[:length]

    def node(self, path: str) -> GroupNode | None:
        return None

    def zarr_store(self) -> NoReturn:
        raise NotImplementedError


class Over:
    """A branch that lies over whatever ``version`` returns."""

    ref = "main"

    def __init__(self, version: Callable[[], Snapshot | None]) -> None:
        self.version = version

    def base_version(self) -> Snapshot | None:
        return self.version()

    def keep_up(self) -> None:
        """Nobody else moves the head."""

    def settle(self) -> None:
        """No writer has died."""


class Shown(UnionSnapshot):
    """What a branch would show of a working copy."""

    base = None
    writable = False

    def __init__(self, working: WorkingCopy) -> None:
        super().__init__(cast(Any, None), "main", working, working.pulse, Interpreter(Caches()))

    def generation(self) -> int:
        return 0


def stat(working: WorkingCopy, key: str) -> KeyInfo | None:
    return Shown(working).stat(key)


def listing(working: WorkingCopy, key: str) -> Listing:
    return Shown(working).list(key)


def read(working: WorkingCopy, key: str) -> bytes:
    return Shown(working).read(key)


def contents(working: WorkingCopy) -> dict[str, bytes | None]:
    """Everything a working copy shows: bytes of files, None for directories."""
    found: dict[str, bytes | None] = {}

    def visit(key: str) -> None:
        for name, info in listing(working, key):
            below = f"{key}/{name}"
            found[below] = None if info.kind == "dir" else read(working, below)
            if info.kind == "dir":
                visit(below)

    visit("zarr")
    visit("files")
    return found
