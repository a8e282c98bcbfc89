"""Ledgers: the directory's and the memory's keep every promise, and no sequence of calls tells one from the other."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.kits.example_counts import examples
from volfs.errors import VolfsError
from volfs.model.refs import RefKind
from volfs.storage.directory_backend import DirectoryBackend
from volfs.storage.store_layout import DatasetLayout
from volfs.testing.ledger_conformance import ID, Kept, LedgerConformance
from volfs.testing.memory_backend import MemoryBackend
from volfs.testing.memory_ledger import MemoryLedger
from volfs.testing.waiting import PATIENCE
from volfs.versions.commit import publish
from volfs.versions.commit.publish import DirectoryLedger
from volfs.versions.ledger import Draft, RefRecord, Retirement
from volfs.versions.ref_file import read_ref


def in_directory(root: Path) -> Kept:
    layout = DatasetLayout(root)
    layout.versions.mkdir(parents=True)
    for kind in RefKind:
        layout.refs(kind).mkdir(parents=True)
    backend = DirectoryBackend(layout.versions, layout.lock)
    return Kept(DirectoryLedger(layout, 86_400.0), backend, lambda number: shutil.rmtree(layout.version(number).root))


def in_memory() -> Kept:
    objects = MemoryBackend()
    ledger = MemoryLedger(objects)
    return Kept(ledger, objects, ledger.lose)


class TestDirectoryLedger(LedgerConformance):
    @pytest.fixture
    def kept(self, tmp_path: Path) -> Kept:
        return in_directory(tmp_path / "dataset")


class TestMemoryLedger(LedgerConformance):
    @pytest.fixture
    def kept(self) -> Kept:
        return in_memory()


kinds = st.sampled_from(RefKind)
names = st.sampled_from(["main", "exp", "paper"])
numbers = st.integers(0, 4)


def spelled(kind: RefKind, name: str) -> str:
    """A name as one of that kind: branches of remotes have that of the remote before them."""
    return f"origin/{name}" if kind is RefKind.REMOTE else name


class TwoLedgers(RuleBasedStateMachine):
    """The same calls of both; drafts are each one's own, and stand for each other by their order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.both = in_directory(Path(self.folder.name, "dataset")), in_memory()
        self.drafts: list[tuple[tuple[Draft, dict[str, int]], ...]] = []

    def teardown(self) -> None:
        for draft in self.drafts:
            self.both[0].ledger.abandon(draft[0][0])
        self.both[0].objects.forget()
        self.folder.cleanup()

    def same(self, act: object, *each: tuple[object, object]) -> object:
        assert callable(act)
        said = []
        for at, kept in enumerate(self.both):
            try:
                said.append(act(kept, *(pair[at] for pair in each)))
            except (VolfsError, ZeroDivisionError) as error:
                said.append(type(error))
        assert said[0] == said[1]
        return said[0]

    @rule(kind=kinds, name=names, number=numbers, expected=st.none() | numbers)
    def set_ref(self, kind: RefKind, name: str, number: int, expected: int | None) -> None:
        def act(kept: Kept) -> None:
            with kept.ledger.locked(PATIENCE):
                kept.ledger.set_ref(kind, spelled(kind, name), RefRecord(number, ID if number else None), expected)

        self.same(act)

    @rule(kind=kinds, name=names)
    def drop_ref(self, kind: RefKind, name: str) -> None:
        def act(kept: Kept) -> bool:
            with kept.ledger.locked(PATIENCE):
                return kept.ledger.drop_ref(kind, spelled(kind, name))

        self.same(act)

    @rule(at_least=st.integers(1, 6))
    def write(self, at_least: int) -> None:
        self.drafts.append(tuple(kept.written(at_least) for kept in self.both))

    @precondition(lambda self: self.drafts)
    @rule(which=st.integers(0, 9), branch=names, expected=st.none() | numbers, fail=st.booleans(), data=st.data())
    def publish(self, which: int, branch: str, expected: int | None, fail: bool, data: st.DataObject) -> None:
        one, other = self.drafts[which % len(self.drafts)]
        if data.draw(st.booleans()):
            record = dict(self.both[1].refs()[RefKind.BRANCH])
            expected = record.get(branch)

        def act(kept: Kept, draft: Draft, sizes: dict[str, int]) -> int:
            return kept.publish(draft, sizes, branch, expected, fail)

        if isinstance(self.same(act, (one[0], other[0]), (one[1], other[1])), int):
            self.drafts.remove((one, other))

    @precondition(lambda self: self.drafts)
    @rule(which=st.integers(0, 9))
    def abandon(self, which: int) -> None:
        one, other = self.drafts.pop(which % len(self.drafts))
        self.same(lambda kept, draft: kept.ledger.abandon(draft), (one[0], other[0]))

    @precondition(lambda self: self.drafts)
    @rule(which=st.integers(0, 9), at_least=st.integers(1, 6))
    def renumber(self, which: int, at_least: int) -> None:
        one, other = self.drafts.pop(which % len(self.drafts))
        made = []
        for kept, (draft, sizes) in zip(self.both, (one, other), strict=True):
            with kept.ledger.locked(PATIENCE):
                made.append((kept.ledger.renumber(draft, at_least), sizes))
        self.drafts.append(tuple(made))

    @rule(which=st.integers(0, 9))
    def lose(self, which: int) -> None:
        there = self.both[0].ledger.versions()
        if there:
            self.same(lambda kept: kept.lose(there[which % len(there)]) and None)

    @rule(which=st.sets(st.integers(0, 9), max_size=3))
    def retire(self, which: set[int]) -> None:
        there = self.both[0].ledger.versions()
        chosen = {there[n % len(there)]: ID for n in which} if there else {}

        def act(kept: Kept) -> None:
            with kept.ledger.locked(PATIENCE):
                kept.ledger.retire(chosen, Retirement(1, "me", "why"), lambda done, total: None)

        self.same(act)

    @invariant()
    def they_say_the_same(self) -> None:
        self.same(lambda kept: (kept.refs(), kept.ledger.versions(), kept.ledger.drafts()))
        self.same(lambda kept: (kept.ledger.highest(), kept.ledger.retired()))
        for one, other in self.drafts:
            assert one[0].number == other[0].number


TestTwoLedgers = TwoLedgers.TestCase
TestTwoLedgers.settings = settings(max_examples=examples(20), stateful_step_count=15)


def test_refs_that_stay_are_read_once_and_those_that_move_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever commits to one of many branches asks for all of them."""
    ledger = in_directory(tmp_path / "dataset").ledger
    layout = DatasetLayout(tmp_path / "dataset")
    names = [f"b{number}" for number in range(20)]
    with ledger.locked(PATIENCE):
        for name in names:
            ledger.set_ref(RefKind.BRANCH, name, RefRecord(1, ID), None)
    read: list[str] = []
    monkeypatch.setattr(publish, "read_ref", lambda path: read.append(path.stem) or read_ref(path))
    long_ago = 1_700_000_000 * 10**9 + 1
    for name in names:
        os.utime(layout.ref(RefKind.BRANCH, name), ns=(long_ago, long_ago))

    def asked() -> list[str]:
        read.clear()
        with ledger.locked(PATIENCE):
            assert [ledger.ref(RefKind.BRANCH, name).version for name in ledger.names(RefKind.BRANCH)] == [1] * 20
        return read.copy()

    # What has just been changed (os.utime is a change, too) may be changed once more without looking otherwise.
    monkeypatch.setattr(publish.Stamp, "settled", lambda self, now_ns: True)
    assert asked() == sorted(names)
    assert asked() == []
    with ledger.locked(PATIENCE):
        ledger.set_ref(RefKind.BRANCH, "b7", RefRecord(2, ID), 1)
        ledger.set_ref(RefKind.BRANCH, "b7", RefRecord(1, ID), 2)
    assert asked() == ["b7"]
    layout.ref(RefKind.BRANCH, "b3").write_text('{"version": 1}')  # by hand
    assert asked() == ["b3"]
    monkeypatch.undo()


def test_a_ref_that_has_just_been_written_is_read_again_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = in_directory(tmp_path / "dataset").ledger
    read: list[str] = []
    monkeypatch.setattr(publish, "read_ref", lambda path: read.append(path.stem) or read_ref(path))
    with ledger.locked(PATIENCE):
        ledger.set_ref(RefKind.BRANCH, "main", RefRecord(1, ID), None)
        for _ in range(3):
            assert ledger.ref(RefKind.BRANCH, "main").version == 1
    assert read == ["main"] * 3
