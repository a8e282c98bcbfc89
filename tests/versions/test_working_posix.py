"""A working copy against a plain directory on the same disk: any sequence of operations leaves the same tree."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, note, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.kits.dict_version import DictVersion, Over, contents
from tests.kits.example_counts import examples
from volfs.errors import VolfsError
from volfs.storage.reserve import Reserve
from volfs.storage.store_layout import WorkingLayout
from volfs.versions.working.working_copy import WorkingCopy

NAMES = st.sampled_from(["a", "b", "0"])
# Names of chunks among them: their removals and renames are written down in more detail.
PATHS = st.builds(lambda parts: "/".join(["zarr", *parts]), st.lists(NAMES, min_size=1, max_size=3))
DATA = st.binary(max_size=6)


class AgainstDirectory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="volfs-working-"))
        self.plain = self.root / "plain"
        (self.plain / "zarr").mkdir(parents=True)
        self.version: DictVersion | None = None
        self.frozen: dict[str, bytes] | None = None
        self.number = 0
        self.working = self.open()

    def open(self) -> WorkingCopy:
        return WorkingCopy(WorkingLayout(self.root / "main"), Over(lambda: self.version), Reserve([]))

    def teardown(self) -> None:
        self.working.close()
        shutil.rmtree(self.root)

    def both(self, ours: Callable[[], object], theirs: Callable[[], object], *, two_names: bool = False) -> None:
        """Do a thing to both. They agree, or ours is refused because a committed directory cannot move."""
        try:
            ours()
            mine = None
        except VolfsError as error:
            mine = error.errno
        if mine == errno.EXDEV:
            note("EXDEV")
            return
        try:
            theirs()
            expected = None
        except OSError as error:
            expected = error.errno
        # Through a mount the kernel walks the path itself, and it allows rename two names for "not empty".
        if {mine, expected} in ({errno.EEXIST, errno.ENOTEMPTY}, {errno.ENOENT, errno.ENOTDIR}):
            return
        if two_names and mine and expected:  # which of two reasons comes first is nobody's business
            return
        assert mine == expected, (errno.errorcode.get(mine or 0), errno.errorcode.get(expected or 0))

    @rule(key=PATHS, data=DATA, offset=st.integers(0, 4), flags=st.sampled_from([0, os.O_EXCL, os.O_TRUNC]))
    def create(self, key: str, data: bytes, offset: int, flags: int) -> None:
        def ours() -> None:
            with self.working.open(key, os.O_WRONLY | os.O_CREAT | flags) as file:
                file.pwrite(data, offset)

        def theirs() -> None:
            fd = os.open(self.plain / key, os.O_WRONLY | os.O_CREAT | flags)
            os.pwrite(fd, data, offset)
            os.close(fd)

        self.both(ours, theirs)

    @rule(key=PATHS, data=DATA, offset=st.integers(0, 4))
    def write(self, key: str, data: bytes, offset: int) -> None:
        def ours() -> None:
            with self.working.open(key, os.O_RDWR) as file:
                file.pwrite(data, offset)

        def theirs() -> None:
            fd = os.open(self.plain / key, os.O_RDWR)
            os.pwrite(fd, data, offset)
            os.close(fd)

        self.both(ours, theirs)

    @rule(key=PATHS, size=st.integers(0, 8))
    def truncate(self, key: str, size: int) -> None:
        self.both(lambda: self.working.truncate(key, size), lambda: os.truncate(self.plain / key, size))

    @rule(key=PATHS)
    def unlink(self, key: str) -> None:
        self.both(lambda: self.working.unlink(key), lambda: os.unlink(self.plain / key))

    @rule(key=PATHS)
    def mkdir(self, key: str) -> None:
        self.both(lambda: self.working.mkdir(key), lambda: os.mkdir(self.plain / key))

    @rule(key=PATHS)
    def rmdir(self, key: str) -> None:
        self.both(lambda: self.working.rmdir(key), lambda: os.rmdir(self.plain / key))

    @rule(key=PATHS)
    def rmtree(self, key: str) -> None:
        self.working.remove_tree(key)
        path = self.plain / key
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True) if path.parent.is_dir() else None

    @rule(source=PATHS, dest=PATHS)
    def rename(self, source: str, dest: str) -> None:
        self.both(
            lambda: self.working.rename(source, dest),
            lambda: os.rename(self.plain / source, self.plain / dest),
            two_names=True,
        )

    @rule(source=PATHS, dest=PATHS)
    def link(self, source: str, dest: str) -> None:
        self.both(
            lambda: self.working.link(source, dest),
            lambda: os.link(self.plain / source, self.plain / dest),
            two_names=True,
        )

    @rule(key=PATHS, data=DATA)
    def put(self, key: str, data: bytes) -> None:
        def theirs() -> None:
            path = self.plain / key
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except FileExistsError:
                raise NotADirectoryError(errno.ENOTDIR, "") from None
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "")
            path.unlink(missing_ok=True)
            path.write_bytes(data)

        self.both(lambda: self.working.put(key, data), theirs)

    @precondition(lambda self: self.frozen is None)
    @rule(leave=st.lists(PATHS, max_size=2))
    def freeze(self, leave: list[str]) -> None:
        self.number += 1
        before = contents(self.working)
        self.working.freeze(self.number, leave)
        # What a commit would make of it now: the frozen layer over the head.
        only = WorkingCopy(WorkingLayout(self.root / "main"), Over(lambda: self.version), Reserve([])).union()
        union = type(only)(tuple(layer for layer in only.layers if layer.frozen), only.lower)
        self.frozen = {}
        for key in union.keys("zarr"):
            entry = union.entry(key)
            assert entry is not None
            self.frozen[key] = (
                Path(entry.layer.path(key)).read_bytes() if entry.layer else self.version.read(key)  # type: ignore[union-attr]
            )
        assert contents(self.working) == before

    @precondition(lambda self: self.frozen is not None)
    @rule()
    def commit(self) -> None:
        assert self.frozen is not None
        self.version = DictVersion(self.number, self.frozen)
        self.frozen = None
        # Between indexing the version and dropping the layer, both say the same.
        self.same()
        self.working.drop(self.number, self.version.base)
        # A directory without files is no part of a version.
        shown = contents(self.working)
        for folder, _, _ in os.walk(self.plain / "zarr", topdown=False):
            key = os.path.relpath(folder, self.plain)
            if key != "zarr" and key not in shown and not os.listdir(folder):
                os.rmdir(folder)

    @precondition(lambda self: self.frozen is not None)
    @rule()
    def roll_back(self) -> None:
        self.working.merge_back(self.number)
        self.frozen = None

    @rule()
    def reopen(self) -> None:
        self.working.close()
        self.working = self.open()

    @invariant()
    def same(self) -> None:
        expected: dict[str, bytes | None] = {}
        for folder, folders, names in os.walk(self.plain / "zarr"):
            for name in folders:
                expected[os.path.relpath(os.path.join(folder, name), self.plain)] = None
            for name in names:
                path = Path(folder, name)
                expected[os.path.relpath(path, self.plain)] = path.read_bytes()
        assert contents(self.working) == expected

    @invariant()
    def changes_tell_the_difference(self) -> None:
        """The head version with the changes applied is what the working copy shows."""
        files = dict(self.version.files) if self.version else {}
        union = self.working.union()
        for change in union.changes():
            if change.kind == "removed":
                gone = [k for k in files if k == change.key or k.startswith(f"{change.key}/")]
                assert gone
                for key in gone:
                    del files[key]
        for change in union.changes():
            if change.kind == "put":
                files[change.key] = Path(change.path).read_bytes()
        assert files == {k: v for k, v in contents(self.working).items() if v is not None}


TestAgainstDirectory = AgainstDirectory.TestCase
TestAgainstDirectory.settings = settings(
    max_examples=examples(60), stateful_step_count=40, suppress_health_check=list(HealthCheck)
)
