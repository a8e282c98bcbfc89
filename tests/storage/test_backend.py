"""Backends: the directory and the memory one keep every promise, and no sequence of calls tells one from the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.kits.example_counts import examples
from volfs.errors import BadInput, Damaged, NoSpace, NotFound, VolfsError
from volfs.model.bounded_map import Caches, Usage
from volfs.storage import files
from volfs.storage.backend import Backend, Bounded, From, Last, Span, Tag, change_document, read_document
from volfs.storage.directory_backend import DirectoryBackend
from volfs.testing.backend_conformance import BackendConformance
from volfs.testing.memory_backend import MemoryBackend


class TestDirectoryBackend(BackendConformance):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[Backend]:
        (tmp_path / "root").mkdir()
        backend = DirectoryBackend(tmp_path / "root", tmp_path / "lock", max_files=3)
        yield backend
        backend.forget()


class TestMemoryBackend(BackendConformance):
    @pytest.fixture
    def backend(self) -> Backend:
        return MemoryBackend()


KEYS = ("a", "a/b", "a/b/c", "a-b", "a.b/c", "b/c", "b/d")
keys = st.sampled_from(KEYS)
data = st.binary(max_size=8)
spans: st.SearchStrategy[Span] = st.one_of(
    st.builds(Bounded, st.integers(0, 9), st.integers(0, 9)),
    st.builds(From, st.integers(0, 9)),
    st.builds(Last, st.integers(0, 9)),
)


class TwoBackends(RuleBasedStateMachine):
    """The same calls of both. Tags are each one's own: what they tell is compared."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        root = Path(self.folder.name, "root")
        root.mkdir()
        self.directory = DirectoryBackend(root, root.parent / "lock", max_files=2)
        self.memory = MemoryBackend()
        self.tags: dict[str, tuple[Tag, Tag]] = {}

    def teardown(self) -> None:
        self.directory.forget()
        self.folder.cleanup()

    def both(self, *calls: object) -> object:
        said = []
        for call in calls:
            assert callable(call)
            try:
                said.append(call())
            except VolfsError as error:
                said.append(type(error))
        assert said[0] == said[1]
        return said[0]

    @rule(key=keys, data=data)
    def put(self, key: str, data: bytes) -> None:
        self.both(lambda: self.directory.put(key, data), lambda: self.memory.put(key, data))

    @rule(key=keys, data=data)
    def create(self, key: str, data: bytes) -> None:
        self.both(lambda: self.directory.create(key, data), lambda: self.memory.create(key, data))

    @rule(key=keys)
    def get(self, key: str) -> None:
        found = []

        def get(backend: Backend) -> bytes | None:
            read = backend.get(key)
            assert read is not None
            found.append(read[1])
            return read[0]

        self.both(lambda: get(self.directory), lambda: get(self.memory))
        if found:
            self.tags[key] = found[0], found[1]

    @precondition(lambda self: self.tags)
    @rule(key=keys)
    def get_if_changed(self, key: str) -> None:
        one, other = self.tags.get(key, (None, None))

        def get(backend: Backend, tag: Tag | None) -> bytes | None:
            read = backend.get(key, tag)
            return None if read is None else read[0]

        self.both(lambda: get(self.directory, one), lambda: get(self.memory, other))

    @precondition(lambda self: self.tags)
    @rule(key=keys, data=data)
    def replace(self, key: str, data: bytes) -> None:
        if key in self.tags:
            one, other = self.tags[key]
            self.both(lambda: self.directory.replace(key, data, one), lambda: self.memory.replace(key, data, other))

    @rule(removed=st.lists(keys, max_size=3))
    def remove(self, removed: list[str]) -> None:
        self.both(lambda: self.directory.remove(removed), lambda: self.memory.remove(removed))

    @rule(key=keys, wanted=st.lists(spans, max_size=3))
    def ranges(self, key: str, wanted: list[Span]) -> None:
        self.both(
            lambda: [bytes(part) for part in self.directory.ranges(key, wanted)],
            lambda: [bytes(part) for part in self.memory.ranges(key, wanted)],
        )

    @rule(prefix=st.sampled_from(["", "a", "b", "a.b", "c"]), after=st.sampled_from(["", *KEYS, "a/", "b"]))
    def list(self, prefix: str, after: str) -> None:
        self.both(lambda: [*self.directory.list(prefix, after)], lambda: [*self.memory.list(prefix, after)])

    @rule(names=st.lists(keys, max_size=3), data=data)
    def batch(self, names: list[str], data: bytes) -> None:
        def write(backend: Backend) -> object:
            batch = backend.batch("b")
            for name in names:
                with batch.open(name) as out:
                    out.write(data)
            return batch.sync()

        if names:
            self.both(lambda: write(self.directory), lambda: write(self.memory))

    @invariant()
    def they_hold_the_same(self) -> None:
        held = [*self.memory.list()]
        assert held == [*self.directory.list()]
        for key in held:
            one, other = self.directory.stat(key), self.memory.stat(key)
            assert one is not None and other is not None and one.size == other.size


TestTwoBackends = TwoBackends.TestCase
TestTwoBackends.settings = settings(max_examples=examples(30), stateful_step_count=25)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DirectoryBackend]:
    (tmp_path / "root").mkdir()
    backend = DirectoryBackend(tmp_path / "root", tmp_path / "lock")
    yield backend
    backend.forget()


def test_links_and_pipes_in_a_directory_are_no_objects(directory: DirectoryBackend, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (directory.root / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(directory.root / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(Damaged):
            directory.get(name)
        with pytest.raises(Damaged):
            directory.ranges(name, [Bounded(0, 1)])
    assert [*directory.list()] == ["link", "pipe"], "they are told of, so that a check finds them"


def test_the_bound_of_open_files_is_of_backends_that_read(tmp_path: Path) -> None:
    caches = Caches()
    whole = DirectoryBackend(tmp_path, tmp_path / "lock", caches, max_files=3)
    parts = [whole.below(name) for name in ("a", "b", "c")]
    for part in parts:
        part.put("x/1", b"12")
        part.forget()
        assert part.resident("x/1", Bounded(0, 1)) is None
    assert caches.usage() == {}
    for part in parts[:2]:
        assert bytes(part.ranges("x/1", [Bounded(1, 1)])[0]) == b"2"
    assert caches.usage()["stored_files"] == Usage(2, 6)
    for part in parts:
        part.forget()
    assert caches.usage()["stored_files"] == Usage(0, 6)


def test_an_object_put_anew_or_removed_closes_no_file_whose_name_only_begins_so(directory: DirectoryBackend) -> None:
    for key in ("c/1", "c/10", "c/1.x"):
        directory.put(key, b"0")
        directory.ranges(key, [Bounded(0, 1)])
    directory.put("c/1", b"1")
    assert bytes(directory.ranges("c/1", [Bounded(0, 1)])[0]) == b"1"
    for key in ("c/10", "c/1.x"):  # still open, so read at once
        assert directory.resident(key, Bounded(0, 1)) == b"0"
    directory.remove(["c/1"])
    with pytest.raises(NotFound):
        directory.ranges("c/1", [Bounded(0, 1)])
    assert directory.resident("c/10", Bounded(0, 1)) == b"0"


def test_what_a_killed_writer_left_is_not_listed(directory: DirectoryBackend) -> None:
    directory.put("a", b"1")
    (directory.root / ".a.0123456789abcdef.partial").write_bytes(b"half")
    assert [*directory.list()] == ["a"]


def test_what_is_too_large_for_a_document_is_refused_without_being_read(
    directory: DirectoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = directory.root / "huge.json"
    with path.open("wb") as file:
        file.truncate((256 << 20) + 1)
    monkeypatch.setattr(DirectoryBackend, "get", lambda *_: pytest.fail("it was read"))
    monkeypatch.setattr(files, "read_all", lambda *_: pytest.fail("it was read"))
    for read in (
        lambda: read_document(directory, "huge.json"),
        lambda: change_document(directory, "huge.json", lambda value: value),
        lambda: files.read_json(path),
    ):
        with pytest.raises(Damaged, match=f"{path} has 268435457 bytes: that is no document"):
            read()


def test_a_write_for_which_there_is_no_room_does_not_count(
    directory: DirectoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = directory.batch("v")
    out = batch.open("a")
    out.write(b"first")
    real = os.write
    left = [3]

    def write(fd: int, data: memoryview) -> int:
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        done = real(fd, data[: left[0]])
        left[0] -= done
        return done

    monkeypatch.setattr(files.os, "write", write)
    with pytest.raises(NoSpace):
        out.write(b"second")
    monkeypatch.undo()
    assert out.size == 5
    out.write(b"third")
    out.close()
    assert batch.sync() == {"a": 10}
    assert directory.get("v/a")[0] == b"firstthird"  # type: ignore[index]


def test_a_batch_that_was_taken_away_is_not_found(directory: DirectoryBackend) -> None:
    batch = directory.batch("v")
    batch.open("a").close()
    directory.remove(["v/a"])
    with pytest.raises(NotFound):
        batch.sync()
    with pytest.raises(BadInput):
        directory.below("..")
