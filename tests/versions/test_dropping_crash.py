"""Processes killed at every step of dropping and of gc: the store opens by itself, every kept version is whole, and a
repeat finishes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.kits import fork_server
from tests.kits.paths import ROOT
from tests.kits.stores import SECOND, START, tree_of, volume, write_version
from volfs import init_store, open_store
from volfs.testing.waiting import PATIENCE
from volfs.versions.check.fsck import fsck

RETIRES = ("retire.listed", "retire.marked:1", "retire.marked:2", "retire.done")
RECLAIMS = (
    "gc.intent",
    "gc.absent:1",
    "gc.absent:2",
    "gc.noted",
    "backend.tail:1",
    "backend.tail:2",
    "backend.hole:1",
    "backend.hole:2",
    "gc.removed",
    "gc.reclaimed",
)

WORKS = """
import sys
import volfs

with volfs.open_store(sys.argv[1]) as store:
    store["cells"].drop(1, 2, 3)
    store.gc(grace=0)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three versions to drop, of which the fourth shows chunks in the midst of their shards; one side file each."""
    root = tmp_path / "store"
    shape, whole = (32, 8, 8), (32, 8, 8)
    with init_store(root) as store:
        dataset = store.create_dataset("cells")
        write_version(
            dataset, volume(shape), shard_shape=whole, files={"files/a": b"1", "files/b": b"b"}, time_ns=START
        )
        for number, coords in enumerate([[0, 2], [0, 3], [0, 2]], 2):
            write_version(
                dataset,
                volume(shape, number),
                parent=number - 1,
                coords=[(z, 0, 0) for z in coords],
                shard_shape=whole,
                files={"files/a": str(number).encode()},
                time_ns=START + number * 10 * SECOND,
            )
    return root


def work(root: Path, crash_at: str | None = None) -> int:
    env = dict(os.environ) | ({} if crash_at is None else {"VOLFS_CRASH_AT": crash_at})
    done = fork_server.run(
        [sys.executable, "-c", WORKS, str(root)], env=env, cwd=ROOT, timeout=PATIENCE, capture_output=True, text=True
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def files_of(root: Path) -> dict[str, bytes]:
    """What lies in the versions, but for what tells of a process or a time."""
    versions = root / "datasets/cells/versions"
    return {
        path.relative_to(versions).as_posix(): path.read_bytes()
        for path in sorted(versions.rglob("*"))
        if path.is_file() and path.name not in ("retired.json", ".highest.json")
    }


@pytest.mark.parametrize("point", RETIRES + RECLAIMS)
def test_dropping_and_collecting_killed_at_any_step_loses_nothing_that_is_kept(root: Path, point: str) -> None:
    with open_store(root) as store:
        kept = tree_of(store["cells"].version(4))
        whole = {number: tree_of(store["cells"].version(number)) for number in (1, 2, 3)}
    assert work(root, point) == -signal.SIGKILL
    with open_store(root, read_only=True) as store:
        assert tree_of(store["cells"].version(4)) == kept
    with open_store(root) as store:
        dataset = store["cells"]
        assert dataset.dropped() == {1, 2, 3} and dataset.kept() == [4]
        assert tree_of(dataset.version(4)) == kept
        if point in RETIRES or point == "gc.intent":
            assert {number: tree_of(dataset.version(number)) for number in (1, 2, 3)} == whole
        report = fsck(store)
        assert report.findings == []
        assert {dataset.ledger.retirement(number) is not None for number in (1, 2, 3)} == {True}
        assert not (root / "datasets/cells/reclaim.json").exists()
    assert work(root) == 0
    ended = files_of(root)
    with open_store(root) as store:
        assert tree_of(store["cells"].version(4)) == kept
        report = fsck(store)
        assert report.findings == [] and report.absent == 9
    assert work(root) == 0
    assert files_of(root) == ended


@pytest.mark.parametrize("point", ["gc.absent:2", "backend.hole:1", "gc.removed"])
def test_a_collection_that_was_cut_short_may_be_killed_again_while_it_is_finished(root: Path, point: str) -> None:
    with open_store(root) as store:
        kept = tree_of(store["cells"].version(4))
    assert work(root, "gc.absent:3") == -signal.SIGKILL
    for again in ("backend.hole:1", "backend.tail:2", "gc.removed", point):
        work(root, again)
    assert work(root) == 0
    with open_store(root) as store:
        assert tree_of(store["cells"].version(4)) == kept
        report = fsck(store)
        assert report.findings == [] and report.absent == 9
