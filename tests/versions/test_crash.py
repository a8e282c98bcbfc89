"""Processes killed at every step of a commit, and at any instant: what was acknowledged is there, nothing is half."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kits import fork_server
from tests.kits.paths import ROOT
from tests.kits.stores import START, tree_of, volume, write_version
from volfs import init_store, open_store
from volfs.model.refs import RefKind
from volfs.storage.files import FileLock
from volfs.testing.waiting import PATIENCE
from volfs.versions.check.fsck import fsck

BEFORE_REF = ("commit.intent", "commit.frozen", "commit.packed", "commit.synced", "commit.renamed")
AFTER_REF = ("commit.ref", "commit.indexed", "commit.cleaned")

COMMITS = """
import sys
import volfs
from tests.kits.stores import array_at, chunk, volume

with volfs.open_store(sys.argv[1]) as store:
    branch = store["cells"]["main"]
    meta = array_at(branch).meta
    branch.put("files/new", b"new")
    branch.put("zarr/s0/c/1/0/1", chunk(meta, volume((16, 16, 16), 5), (1, 0, 1)))
    branch.delete("files/old")
    branch.delete_tree("files/dir")
    branch.put("files/dir/again", b"again")
    print("written", flush=True)
    branch.commit("second")
    print("committed", flush=True)
"""

IMPORTS = """
import sys
import volfs
from tests.kits.stores import volume, write_version

with volfs.open_store(sys.argv[1]) as store:
    write_version(store["cells"], volume((16, 16, 16), 3), parent=1, path="more", created=True, message="second")
"""

OPENS = "import sys, volfs\nvolfs.open_store(sys.argv[1]).close()\n"

WORKS = """
import sys
import volfs

with volfs.open_store(sys.argv[1]) as store:
    branch = store["cells"]["main"]
    round = sys.argv[2]
    print("open", flush=True)
    for n in range(10_000):
        branch.put(f"files/{round}/{n % 40}", f"{round} {n}".encode())
        print("put", n, flush=True)
        if n % 3 == 2:
            print("committed", n, branch.commit(f"{round} {n}").number, flush=True)
"""


def run(script: str, root: Path, *arguments: str, crash_at: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    if crash_at is not None:
        environment["VOLFS_CRASH_AT"] = crash_at
    return fork_server.run(
        [sys.executable, "-c", script, str(root), *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "store"
    with init_store(root) as store:
        dataset = store.create_dataset("cells")
        files = {"files/old": b"old", "files/dir/a": b"a", "files/dir/b": b"b"}
        write_version(dataset, volume((16, 16, 16)), files=files, time_ns=START)
    return root


def expected_tree(root: Path) -> dict[str, bytes]:
    """What the branch shows once the script has written, from a run that nobody killed."""
    with open_store(root) as store:
        branch = store["cells"]["main"]
        tree = tree_of(branch)
    for key in ("files/old", "files/dir/a", "files/dir/b"):
        del tree[key]
    return tree | {"files/new": b"new", "files/dir/again": b"again"}


@pytest.mark.parametrize("point", BEFORE_REF + AFTER_REF)
def test_a_commit_killed_at_any_step_has_happened_or_has_not(root, point):
    expected = expected_tree(root)
    with open_store(root) as store:
        first = tree_of(store["cells"]["v1"])
    died = run(COMMITS, root, crash_at=point)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert died.stdout == "written\n"
    with open_store(root) as store:
        dataset = store["cells"]
        branch = dataset.branch("main")
        committed = point in AFTER_REF
        assert [info.message for info in dataset.versions()] == ["made", "second"][: 1 + committed]
        assert dataset.branches() == {"main": 1 + committed}
        assert branch.is_clean() == committed
        shown = tree_of(branch)
        assert shown.pop("zarr/s0/c/1/0/1") != expected["zarr/s0/c/1/0/1"]
        assert shown == {key: data for key, data in expected.items() if key != "zarr/s0/c/1/0/1"}
        assert tree_of(dataset["v1"]) == first
        assert fsck(store).findings == []
        leftovers = [p.name for p in dataset.layout.versions.iterdir() if p.name.startswith(".")]
        assert leftovers == []
        assert not branch.working.layout.commit_intent.exists()
        now = branch.commit("second")
        assert now.number == 2
        assert tree_of(dataset["v2"]) == tree_of(branch)
        assert fsck(store).findings == []


@pytest.mark.parametrize("point", BEFORE_REF[2:] + AFTER_REF[:2])
def test_an_import_killed_at_any_step_leaves_a_whole_version_or_none(root, point):
    died = run(IMPORTS, root, crash_at=point)
    assert died.returncode == -signal.SIGKILL, died.stderr
    with open_store(root) as store:
        dataset = store["cells"]
        assert len(dataset.versions()) == 1 + (point in AFTER_REF)
        assert fsck(store).findings == []
    assert run(IMPORTS, root).returncode == (0 if point in BEFORE_REF else 1)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("commit.frozen", "recover.settled"),
        ("commit.renamed", "recover.settled"),
        ("commit.ref", "recover.indexed"),
        ("commit.ref", "recover.settled"),
        ("commit.indexed", "recover.settled"),
    ],
)
def test_recovery_may_be_killed_too(root, first, then):
    expected = expected_tree(root)
    assert run(COMMITS, root, crash_at=first).returncode == -signal.SIGKILL
    assert run(OPENS, root, crash_at=then).returncode == -signal.SIGKILL
    with open_store(root) as store:
        assert tree_of(store["cells"]["main"]).keys() == expected.keys()
        assert len(store["cells"].versions()) == 1 + (first in AFTER_REF)
        assert fsck(store).findings == []


def test_a_process_that_had_the_store_open_goes_on_after_another_died(root):
    for point in BEFORE_REF + AFTER_REF:
        with open_store(root) as store:
            dataset = store["cells"]
            branch = dataset.branch("main")
            branch.put(f"files/{point}", b"for the script to delete")
            branch.put("files/dir/again", b"was here")
            branch.commit(f"for {point}")
            tree = tree_of(branch)
            before = len(dataset.versions())
            died = run(COMMITS.replace("files/old", f"files/{point}"), root, crash_at=point)
            assert died.returncode == -signal.SIGKILL, died.stderr
            assert tree_of(branch).keys() >= tree.keys() - {f"files/{point}", "files/dir/a", "files/dir/b"}
            branch.put("files/mine", point.encode())
            branch.commit(f"after {point}")
            assert len(dataset.versions()) == before + 1 + (point in AFTER_REF)
            assert branch.read("files/mine") == point.encode()
            assert branch.read("files/new") == b"new"
            assert branch.is_clean()
            assert fsck(store).findings == []


def test_what_was_acknowledged_survives_a_kill_at_any_instant(root):
    acknowledged: dict[str, bytes] = {}
    versions = {1}
    dice = random.Random(7)
    for number in range(6):
        with fork_server.Popen(
            [sys.executable, "-c", WORKS, str(root), str(number)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout.readline() == "open\n"
            said = [process.stdout.readline() for _ in range(dice.randrange(4, 40))]
            time.sleep(dice.uniform(0, 0.02))
            process.kill()
            said += process.stdout.read().splitlines()
        whole = [line.split() for line in said if len(line.split()) > 1]
        puts = [int(words[1]) for words in whole if words[0] == "put"]
        for n in puts:
            acknowledged[f"files/{number}/{n % 40}"] = f"{number} {n}".encode()
        versions |= {int(words[2]) for words in whole if words[0] == "committed" and len(words) == 3}
        with open_store(root) as store:
            dataset = store["cells"]
            branch = dataset.branch("main")
            assert versions <= {info.number for info in dataset.versions()}
            # The put that was under way may have happened without being acknowledged.
            unsure = f"files/{number}/{(puts[-1] + 1 if puts else 0) % 40}"
            for key, data in acknowledged.items():
                if key != unsure:
                    assert branch.read(key) == data
            assert fsck(store).findings == []
            acknowledged = {k: v for k, v in tree_of(branch).items() if k[6:7].isdigit()}
            versions = {info.number for info in dataset.versions()}
    assert len(versions) > 1


def test_a_number_that_went_to_another_writer_is_not_taken_for_the_commit_that_died(root):
    """A commit dies; another process holds the branch; one of another branch takes its number."""
    assert run(COMMITS, root, crash_at="commit.packed").returncode == -signal.SIGKILL
    with open_store(root, read_only=True) as unsettled:
        intent = unsettled["cells"].layout.working("main").commit_intent.read_bytes()
        layout = unsettled["cells"].layout.working("main")
        lock = FileLock(layout.lock)
        assert lock.try_lock()
        with open_store(root) as store:
            assert layout.commit_intent.read_bytes() == intent
            store["cells"].create_branch("other", 1)
            more = volume((8, 8), 3)
            made = write_version(store["cells"], more, parent=1, chunks=(8, 8), path="t", created=True, branch="other")
            assert made == 2
            lock.release()
            branch = store["cells"]["main"]
            assert branch.read("files/new") == b"new"
            assert branch.commit("after all").number == 3
            assert branch.read("files/new") == b"new"
            assert fsck(store).findings == []


def test_half_written_refs_and_intents_of_a_killed_process_go_away(tmp_path: Path) -> None:
    with init_store(tmp_path / "store") as store:
        layout = store.create_dataset("cells").layout
    left = [folder / ".name.json.0123456789abcdef.partial" for folder in (layout.versions, layout.refs(RefKind.BRANCH))]
    for path in left:
        path.write_bytes(b"half of")
    with open_store(tmp_path / "store") as store:
        assert not any(path.exists() for path in left)
        assert fsck(store).findings == []
