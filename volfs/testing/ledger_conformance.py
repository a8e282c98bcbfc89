"""What every :class:`~volfs.versions.ledger.Ledger` must do, as tests that anyone can run against one of their own::

    class TestMyLedger(LedgerConformance):
        @pytest.fixture
        def kept(self, tmp_path):
            # no ref and no version; the backend is of its versions/; lose(number) has a version vanish
            return Kept(MyLedger(...), backend, lose)

pytest collects the class and runs each method against a new, empty ledger.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from volfs.errors import AlreadyThere, BadInput, Busy, Conflict, Damaged, NotFound
from volfs.model.names import MAX_VERSION
from volfs.model.refs import RefKind
from volfs.storage.backend import Backend, read_object
from volfs.storage.store_layout import version_dir_name
from volfs.testing.waiting import PATIENCE
from volfs.versions.ledger import Cause, Draft, Ledger, RefChange, RefRecord, Retirement

ID = "0123456789abcdef" * 4


@dataclass(frozen=True, slots=True)
class Kept:
    """A ledger, and the objects of the versions that it knows. ``lose`` takes a version away as a person would, past
    the ledger."""

    ledger: Ledger
    objects: Backend
    lose: Callable[[int], object]

    def refs(self) -> dict[RefKind, dict[str, int]]:
        """Every ref, with its version."""
        return {
            kind: {name: self.ledger.ref(kind, name).version for name in self.ledger.names(kind)} for kind in RefKind
        }

    def written(self, at_least: int = 1) -> tuple[Draft, dict[str, int]]:
        """A draft with some objects, and their sizes."""
        with self.ledger.locked(PATIENCE):
            draft = self.ledger.reserve(at_least)
        batch = self.objects.batch(draft.folder)
        with batch.open("version.json") as out:
            out.write(b"{}")
        with batch.open("zarr/c/0") as out:
            out.write(draft.token.encode())
        return draft, dict(batch.sync())

    def publish(
        self, draft: Draft, sizes: dict[str, int], branch: str = "main", expected: int | None = None, fail: bool = False
    ) -> int:
        """Have a draft exist. ``fail``: the index refuses it."""

        def index() -> int:
            if fail:
                raise ZeroDivisionError
            return draft.number

        with self.ledger.locked(PATIENCE):
            return self.ledger.publish(
                draft,
                branch=branch,
                expected=expected,
                content_id=ID,
                sizes=sizes,
                index=index,
                indexed=lambda: False,
            )


class LedgerConformance:
    """The tests. A subclass gives the fixture ``kept``."""

    @pytest.fixture
    def kept(self) -> Kept:
        raise NotImplementedError("a subclass says which ledger is tested")

    def test_a_new_one_knows_nothing(self, kept: Kept) -> None:
        assert kept.refs() == {kind: {} for kind in RefKind}
        assert kept.ledger.versions() == kept.ledger.drafts() == []
        assert not kept.ledger.is_version(1)
        assert list(kept.ledger.strays()) == []

    # -- refs ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", RefKind)
    def test_a_ref_says_what_it_was_set_to(self, kept: Kept, kind: RefKind) -> None:
        of = "origin/" if kind is RefKind.REMOTE else ""
        with kept.ledger.locked(PATIENCE):
            kept.ledger.set_ref(kind, f"{of}one", RefRecord(3, ID), None)
            kept.ledger.set_ref(kind, f"{of}two", RefRecord(4, ID), None)
        assert kept.ledger.names(kind) == [f"{of}one", f"{of}two"]
        assert kept.ledger.ref(kind, f"{of}one") == RefRecord(3, ID)
        assert kept.ledger.has_ref(kind, f"{of}one") and not kept.ledger.has_ref(kind, f"{of}three")
        assert f"{of}one" in kept.ledger.where(kind, f"{of}one")
        for other in set(RefKind) - {kind}:
            assert kept.ledger.names(other) == []

    def test_a_name_need_not_be_one_of_today(self, kept: Kept) -> None:
        with kept.ledger.locked(PATIENCE):
            kept.ledger.set_ref(RefKind.TAG, "été", RefRecord(4, ID), None)
        assert kept.ledger.names(RefKind.TAG) == ["été"]

    def test_a_version_that_came_whole_exists_without_a_ref(self, kept: Kept, tmp_path: Path) -> None:
        draft, sizes = kept.written()
        came = tmp_path / "came"
        (came / "zarr").mkdir(parents=True)
        (came / "zarr" / "zarr.json").write_bytes(b"{}")
        with kept.ledger.locked(PATIENCE):
            assert kept.ledger.free_number(1) == 2 and kept.ledger.free_number(7) == 7
            for number in (0, -1, 1 << 20, MAX_VERSION + 1, 1 << 70):
                with pytest.raises(BadInput):
                    kept.ledger.adopt(number, came)
            kept.ledger.adopt(2, came)
            with pytest.raises(AlreadyThere):
                kept.ledger.adopt(2, came)
        assert kept.ledger.highest() == 2
        assert not came.exists()
        assert kept.ledger.versions() == [2] and kept.ledger.is_version(2) and not kept.refs()[RefKind.BRANCH]
        assert read_object(kept.objects, f"{version_dir_name(2)}/zarr/zarr.json") == b"{}"
        kept.publish(draft, sizes)
        assert kept.ledger.versions() == [1, 2]

    def test_a_branch_may_have_no_version(self, kept: Kept) -> None:
        with kept.ledger.locked(PATIENCE):
            kept.ledger.set_ref(RefKind.BRANCH, "main", RefRecord(0), None)
        assert kept.ledger.ref(RefKind.BRANCH, "main") == RefRecord(0)

    def test_a_ref_is_set_by_what_it_was(self, kept: Kept) -> None:
        ledger, tag = kept.ledger, RefKind.TAG
        with ledger.locked(PATIENCE):
            ledger.set_ref(tag, "paper", RefRecord(1, ID), None)
            with pytest.raises(AlreadyThere):
                ledger.set_ref(tag, "paper", RefRecord(2, ID), None)
            with pytest.raises(Conflict):
                ledger.set_ref(tag, "paper", RefRecord(2, ID), 3)
            with pytest.raises(NotFound):
                ledger.set_ref(tag, "poster", RefRecord(2, ID), 1)
            assert kept.refs()[tag] == {"paper": 1}
            ledger.set_ref(tag, "paper", RefRecord(2, ID), 1)
        assert kept.refs()[tag] == {"paper": 2}

    def test_a_ref_that_is_dropped_is_gone(self, kept: Kept) -> None:
        with kept.ledger.locked(PATIENCE):
            kept.ledger.set_ref(RefKind.TAG, "paper", RefRecord(1, ID), None)
            assert kept.ledger.drop_ref(RefKind.TAG, "paper")
            assert not kept.ledger.drop_ref(RefKind.TAG, "paper")
            assert not kept.ledger.drop_ref(RefKind.TAG, "a/b")
        with pytest.raises(NotFound):
            kept.ledger.ref(RefKind.TAG, "paper")
        for name in ("paper", "a/b", "nul\0"):
            assert not kept.ledger.has_ref(RefKind.TAG, name)

    @pytest.mark.parametrize("kind", RefKind)
    def test_a_ref_that_is_renamed_says_the_same_by_its_new_name(self, kept: Kept, kind: RefKind) -> None:
        of = "origin/" if kind is RefKind.REMOTE else ""
        with kept.ledger.locked(PATIENCE):
            kept.ledger.set_ref(kind, f"{of}one", RefRecord(3, ID), None)
            kept.ledger.set_ref(kind, f"{of}two", RefRecord(4, ID), None)
            with pytest.raises(AlreadyThere):
                kept.ledger.rename_ref(kind, f"{of}one", f"{of}two")
            with pytest.raises(NotFound):
                kept.ledger.rename_ref(kind, f"{of}three", f"{of}four")
            assert kept.refs()[kind] == {f"{of}one": 3, f"{of}two": 4}
            kept.ledger.rename_ref(kind, f"{of}one", f"{of}three")
        assert kept.refs()[kind] == {f"{of}three": 3, f"{of}two": 4}
        assert kept.ledger.ref(kind, f"{of}three") == RefRecord(3, ID)

    # -- the log of refs ------------------------------------------------------------------------------------------

    def test_every_change_of_a_ref_is_logged_and_kept_when_the_ref_is_gone(self, kept: Kept) -> None:
        ledger, tag = kept.ledger, RefKind.TAG
        assert list(ledger.ref_log()) == []
        one, two = RefRecord(1, ID), RefRecord(2, ID)
        with ledger.locked(PATIENCE):
            ledger.set_ref(tag, "paper", one, None, Cause("tagged", "ada"))
            ledger.set_ref(tag, "paper", two, 1, Cause("moved", "bob"))
            ledger.set_ref(tag, "paper", two, 2)
            ledger.rename_ref(tag, "paper", "poster", Cause("renamed", "cyd"))
            ledger.drop_ref(tag, "poster", Cause("removed", "dan"))
            ledger.drop_ref(tag, "poster")
        changes = list(ledger.ref_log())
        assert [(c.who, c.name, c.was, c.old, c.new, c.why) for c in map(_change, changes)] == [
            ("dan", "poster", None, two, None, "removed"),
            ("cyd", "poster", "paper", None, two, "renamed"),
            ("bob", "paper", None, one, two, "moved"),
            ("ada", "paper", None, None, one, "tagged"),
        ]
        assert all(_change(c).kind is tag and _change(c).time_ns > 0 for c in changes)

    def test_a_version_that_is_published_is_a_change_of_its_branch(self, kept: Kept) -> None:
        kept.publish(*kept.written())
        kept.publish(*kept.written(), expected=1)
        draft, sizes = kept.written()
        with pytest.raises(ZeroDivisionError):
            kept.publish(draft, sizes, expected=2, fail=True)
        found = [(c.kind, c.name, c.old, c.new) for c in map(_change, kept.ledger.ref_log())]
        assert found == [
            (RefKind.BRANCH, "main", RefRecord(1, ID), RefRecord(2, ID)),
            (RefKind.BRANCH, "main", None, RefRecord(1, ID)),
        ]
        assert all(_change(c).who and _change(c).why for c in kept.ledger.ref_log())

    def test_what_is_refused_is_not_logged(self, kept: Kept) -> None:
        with kept.ledger.locked(PATIENCE):
            kept.ledger.set_ref(RefKind.TAG, "paper", RefRecord(1, ID), None)
            with pytest.raises(AlreadyThere):
                kept.ledger.set_ref(RefKind.TAG, "paper", RefRecord(2, ID), None)
            with pytest.raises(Conflict):
                kept.ledger.set_ref(RefKind.TAG, "paper", RefRecord(2, ID), 7)
        assert len(list(kept.ledger.ref_log())) == 1

    # -- versions -----------------------------------------------------------------------------------------------

    def test_a_version_exists_when_it_is_published(self, kept: Kept) -> None:
        draft, sizes = kept.written()
        assert draft.number == 1 and kept.ledger.drafts() == [1]
        assert kept.ledger.versions() == [] and not kept.ledger.is_version(1)
        assert kept.publish(draft, sizes) == 1
        assert kept.ledger.versions() == [1] and kept.ledger.is_version(1) and kept.ledger.drafts() == []
        assert kept.ledger.ref(RefKind.BRANCH, "main") == RefRecord(1, ID)
        assert read_object(kept.objects, f"{version_dir_name(1)}/zarr/c/0") == draft.token.encode()
        assert [*kept.objects.list()] == [f"{version_dir_name(1)}/{name}" for name in ("version.json", "zarr/c/0")]

    def test_no_number_is_given_twice(self, kept: Kept) -> None:
        first, sizes = kept.written()
        second, more = kept.written(5)
        assert (first.number, second.number) == (1, 5) and first.token != second.token
        kept.publish(second, more)
        third, _ = kept.written()
        assert third.number == 6
        kept.publish(first, sizes, expected=5)
        assert kept.ledger.versions() == [1, 5] and kept.ledger.versions(above=1) == [5]
        assert kept.ledger.drafts() == [6]

    def test_no_number_is_given_again_when_versions_are_taken_away_by_hand(self, kept: Kept) -> None:
        for number in range(3):
            kept.publish(*kept.written(), expected=number or None)
        assert kept.ledger.highest() == 3
        kept.lose(3)
        kept.lose(2)
        assert kept.ledger.versions() == [1]
        draft, sizes = kept.written()
        assert draft.number == 4
        with kept.ledger.locked(PATIENCE):
            assert kept.ledger.renumber(draft, 1).number == 5
        kept.publish(kept.ledger.moved(draft, 5), sizes, expected=3)
        late, _ = kept.written()
        assert late.number == 6 and kept.ledger.highest() == 5
        kept.ledger.abandon(late)  # it never was a version
        assert kept.written()[0].number == 6

    def test_a_number_that_is_published_late_is_not_the_highest(self, kept: Kept) -> None:
        first, second = kept.written(), kept.written(7)
        kept.publish(*second)
        kept.publish(*first, expected=7)
        assert kept.ledger.highest() == 7
        kept.lose(7)
        assert kept.written()[0].number == 8

    # -- versions that were dropped -----------------------------------------------------------------------------

    def test_retired_versions_are_named_for_good_and_exist_still(self, kept: Kept) -> None:
        for number in range(4):
            kept.publish(*kept.written(), expected=number or None)
        why = Retirement(5 * 10**9, "me", "too many")
        told: list[tuple[int, int]] = []
        with kept.ledger.locked(PATIENCE):
            assert kept.ledger.retired() == frozenset() and kept.ledger.retirement(2) is None
            before = kept.ledger.stamp()
            kept.ledger.retire({2: ID, 3: ID}, why, lambda done, total: told.append((done, total)))
            assert kept.ledger.stamp() != before
            kept.ledger.retire({3: ID, 4: ID}, Retirement(9 * 10**9, "you", "again"), lambda done, total: None)
        assert told[-1] == (2, 2)
        assert kept.ledger.retired() == {2, 3, 4}
        assert kept.ledger.versions() == [1, 2, 3, 4] and kept.ledger.is_version(3)
        assert kept.ledger.retirement(3) == Retirement(5 * 10**9, "me", "too many", ID)
        assert kept.ledger.retirement(4) == Retirement(9 * 10**9, "you", "again", ID)
        assert kept.ledger.retirement(1) is None
        assert list(kept.ledger.strays()) == []

    def test_bringing_up_to_date_changes_nothing_that_is(self, kept: Kept) -> None:
        kept.publish(*kept.written())
        with kept.ledger.locked(PATIENCE):
            kept.ledger.retire({1: ID}, Retirement(1, "me", "why"), lambda done, total: None)
            for _ in range(2):
                kept.ledger.bring_up_to_date()
        assert kept.ledger.highest() == 1 and kept.ledger.retired() == {1}
        assert list(kept.ledger.strays()) == []

    def test_a_draft_given_up_leaves_nothing(self, kept: Kept) -> None:
        draft, _ = kept.written()
        kept.ledger.abandon(draft)
        kept.ledger.abandon(draft)
        assert kept.ledger.drafts() == [] == [*kept.objects.list()]
        again, sizes = kept.written()
        assert again.number == 1 and again.token != draft.token
        kept.publish(again, sizes)
        kept.ledger.abandon(again)
        assert kept.ledger.versions() == [1]

    @pytest.mark.parametrize(("branch", "expected"), [("main", None), ("main", 7), ("other", 1)])
    def test_a_branch_that_moved_is_a_conflict_and_nothing_changes(
        self, kept: Kept, branch: str, expected: int | None
    ) -> None:
        kept.publish(*kept.written())
        draft, sizes = kept.written()
        with pytest.raises(Conflict):
            kept.publish(draft, sizes, branch, expected)
        assert kept.ledger.versions() == [1] and kept.ledger.drafts() == [2]
        assert kept.refs()[RefKind.BRANCH] == {"main": 1}
        kept.publish(draft, sizes, expected=1)
        assert kept.refs()[RefKind.BRANCH] == {"main": 2}

    def test_a_version_that_cannot_be_indexed_does_not_exist(self, kept: Kept) -> None:
        kept.publish(*kept.written())
        draft, sizes = kept.written()
        with pytest.raises(ZeroDivisionError):
            kept.publish(draft, sizes, expected=1, fail=True)
        assert kept.ledger.versions() == [1] and kept.ledger.drafts() == [2]
        assert kept.ledger.ref(RefKind.BRANCH, "main") == RefRecord(1, ID)
        kept.publish(draft, sizes, expected=1)
        assert kept.ledger.versions() == [1, 2]

    def test_a_version_of_which_something_is_missing_does_not_exist(self, kept: Kept) -> None:
        draft, sizes = kept.written()
        for wrong in ({**sizes, "zarr/c/1": 3}, {**sizes, "zarr/c/0": 3}):
            with pytest.raises(Busy):
                kept.publish(draft, wrong)
        assert kept.ledger.versions() == [] == kept.ledger.names(RefKind.BRANCH)

    def test_a_draft_goes_on_under_another_number(self, kept: Kept) -> None:
        draft, sizes = kept.written()
        others, more = kept.written()
        kept.publish(others, more)
        assert kept.ledger.draft(draft.number, draft.token) == draft
        with kept.ledger.locked(PATIENCE):
            moved = kept.ledger.renumber(draft, 1)
        assert moved.number == 3 and moved.token == draft.token
        assert kept.ledger.moved(draft, 3) == moved
        assert read_object(kept.objects, f"{moved.folder}/zarr/c/0") == draft.token.encode()
        assert kept.ledger.drafts() == [3]
        kept.publish(moved, sizes, expected=2)
        assert kept.ledger.versions() == [2, 3]

    def test_settling_finds_nothing_where_nobody_died(self, kept: Kept) -> None:
        kept.publish(*kept.written())
        draft, _ = kept.written()
        with kept.ledger.locked(PATIENCE):
            assert kept.ledger.settle(lambda number: pytest.fail(f"v{number}")) == []
            kept.ledger.sweep()
        kept.ledger.reclaim()
        assert kept.ledger.versions() == [1] and kept.ledger.drafts() == [draft.number]
        assert list(kept.ledger.strays()) == []

    # -- together -----------------------------------------------------------------------------------------------

    def test_the_stamp_changes_with_everything(self, kept: Kept) -> None:
        seen = [kept.ledger.stamp()]

        def changed() -> None:
            seen.append(kept.ledger.stamp())
            assert seen[-1] not in seen[:-1]

        with kept.ledger.locked(PATIENCE) as now_ns:
            assert isinstance(seen[0].settled(now_ns), bool)
            kept.ledger.set_ref(RefKind.TAG, "paper", RefRecord(1, ID), None)
        changed()
        kept.publish(*kept.written())
        changed()
        with kept.ledger.locked(PATIENCE):
            kept.ledger.drop_ref(RefKind.TAG, "paper")
        changed()
        assert kept.ledger.stamp() == seen[-1]

    def test_one_at_a_time_changes_refs(self, kept: Kept) -> None:
        with kept.ledger.locked(PATIENCE), pytest.raises(Busy), kept.ledger.locked(0):
            pass
        with kept.ledger.locked(PATIENCE):
            kept.ledger.set_ref(RefKind.TAG, "count", RefRecord(0, ID), None)

        def count() -> None:
            with kept.ledger.locked(PATIENCE):
                before = kept.ledger.ref(RefKind.TAG, "count").version
                kept.ledger.set_ref(RefKind.TAG, "count", RefRecord(before + 1, ID), before)

        threads = [threading.Thread(target=count) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert kept.ledger.ref(RefKind.TAG, "count").version == 8


def _change(line: RefChange | Damaged) -> RefChange:
    assert isinstance(line, RefChange)
    return line
