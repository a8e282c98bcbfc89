"""``volfs rm DATASET@vN`` and ``volfs gc``: what they say, refuse and do, with and without --json."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import volfs as api
from tests.kits.cells import CELLS
from tests.kits.mounts import answer, refused, volfs


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three versions of a small image."""
    store = tmp_path / "store"
    volfs(store, "init")
    np.save(tmp_path / "small.npy", CELLS[:8, :16, :16])
    volfs(store, "import", "small", tmp_path / "small.npy", "--chunks", "8,8,8", "--levels", "1")
    with api.open_store(store) as opened:
        for value in (1, 2):
            api.images(opened["small"]["main"])[""].levels[0][0, 0, 0] = value
            opened["small"].branch("main").commit(f"value {value}")
    return store


def test_versions_are_dropped_by_name_and_the_log_marks_them(store: Path) -> None:
    assert "held by branch 'main'" in refused(store, "rm", "small@v2", "small@v3", "--yes")
    assert "--yes" in refused(store, "rm", "small@v2")
    assert "no version v9" in refused(store, "rm", "small@v9", "--yes")
    assert [each["dropped"] for each in answer(store, "log", "small")] == [False, False, False]
    said = volfs(store, "rm", "small@v1", "small@v2", "--yes").stdout.splitlines()
    assert len(said) == 2 and said[0].startswith("small@v1 is dropped")
    assert volfs(store, "rm", "small@v1", "small@v2", "--yes").stdout == ""  # done before
    assert [each["dropped"] for each in answer(store, "log", "small")] == [False, True, True]
    log = volfs(store, "log", "small").stdout
    assert "v2  (dropped)" in log and "v3  (main)" in log
    assert "dropped" in volfs(store, "log", "small", "--oneline").stdout
    assert "was dropped" in refused(store, "tag", "small", "old", "v2")
    assert answer(store, "info", "small")["versions"] == 3
    assert [name["key"] for name in answer(store, "ls", "small@v2:zarr/s0")]


def test_gc_says_what_goes_and_a_repeat_does_nothing(store: Path) -> None:
    volfs(store, "rm", "small@v2", "--yes")
    [dry] = answer(store, "gc", "--dry-run")
    assert dry["later"]["payloads"] == 1 and not dry["freed"]["payloads"] and not dry["retired"]
    assert volfs(store, "gc").stdout == "small: nothing to collect\n"
    assert "later, after the grace" in volfs(store, "gc", "--dry-run").stdout
    assert "would be freed" in volfs(store, "gc", "--dry-run", "--grace", "0").stdout
    assert volfs(store, "gc", "--grace", "0", "small").stdout.startswith("small: freed: ")
    assert volfs(store, "gc", "--grace", "0").stdout == "small: nothing to collect\n"
    assert "1 payload absent, which is not lost" in volfs(store, "fsck").stdout
    assert "v2 of dataset 'small' was dropped" in refused(store, "export", "small@v2", store.parent / "out.tif")
    volfs(store, "export", "small@v1", store.parent / "out.tif")


def test_gc_thins_a_history(store: Path) -> None:
    volfs(store, "tag", "small", "paper", "v1")
    assert answer(store, "gc", "--keep", "1", "--dry-run")[0]["retired"] == [2]
    assert answer(store, "gc", "--keep", "daily", "--keep", "2", "--dry-run")[0]["retired"] == []
    assert answer(store, "gc", "--expire", "2020-01-01", "--dry-run")[0]["retired"] == []
    assert "v2" in volfs(store, "gc", "--expire", "2999-01-01").stdout
    assert answer(store, "log", "small")[1]["dropped"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--keep", "monthly"), "daily, weekly"),
        (("--keep", "0"), "daily, weekly"),
        (("--expire", "yesterday"), "2026-11-01"),
        (("none",), "no dataset 'none'"),
    ],
)
def test_gc_refuses_what_it_does_not_understand(store: Path, arguments: tuple[str, ...], says: str) -> None:
    assert says in refused(store, "gc", *arguments)


def test_a_store_that_is_only_read_is_not_collected_but_can_be_asked(store: Path) -> None:
    volfs(store, "rm", "small@v2", "--yes")
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if "catalog" not in path.name}
    assert "read-only" in refused(store, "--read-only", "gc")
    assert answer(store, "gc", "--dry-run")[0]["later"]["payloads"] == 1
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*") if "catalog" not in path.name} == before
