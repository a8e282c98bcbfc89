"""An import that meets a branch on which others went on: through who holds it, on top of what moved, or on a branch of
its own; never lost, and never over somebody's uncommitted changes."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.kits import fork_server
from tests.kits.imports import IMAGE, LABELS, OPTIONS, OTHER, SHAPE, meanwhile, voxels
from tests.kits.mounts import volfs
from tests.kits.stores import chunk
from volfs import init_store, open_store
from volfs.errors import NotFound
from volfs.ingest.importer import import_source
from volfs.ingest.source import ArraySource
from volfs.storage.files import FileLock
from volfs.testing.kit import mounted
from volfs.testing.waiting import PATIENCE, until
from volfs.versions.branch import Branch
from volfs.versions.check.fsck import fsck
from volfs.versions.dataset import Dataset
from volfs.versions.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with init_store(tmp_path / "store") as store:
        import_source(store, "cells", "", ArraySource(IMAGE, "image"), OPTIONS)
        yield store
        assert fsck(store).findings == []


@pytest.fixture
def dataset(store: Store) -> Dataset:
    return store["cells"]


@pytest.fixture
def branch(dataset: Dataset) -> Branch:
    return dataset.branch("main")


def stored_voxels(dataset: Dataset, number: int, path: str) -> np.ndarray:
    """As another program reads them from the version's own directory."""
    return np.asarray(zarr.open_array(dataset.layout.version(number).root / "zarr", path=path, mode="r"))


def names(snapshot: object, key: str = "zarr/labels/zarr.json") -> list[str]:
    return json.loads(snapshot.read(key))["attributes"]["ome"]["labels"]  # type: ignore[attr-defined]


# -- beside uncommitted changes ---------------------------------------------------------------------------------------


def test_uncommitted_changes_that_it_does_not_touch_lie_over_it(store, dataset, branch):
    placed = meanwhile(store, "labels/one", LABELS[0], lambda: branch.put("files/mine", b"mine"))
    assert placed.branch == "main" and placed.why is None
    assert branch.base.number == branch.head.number == placed.number == 2
    assert branch.read("files/mine") == b"mine"
    assert (voxels(branch, "labels/one/s0") == LABELS[0]).all()
    assert branch.commit("mine").parents == (2,)


def test_a_working_copy_dirtied_while_it_ran_puts_no_old_voxel_into_the_new_image(store, dataset, branch):
    def change() -> None:
        mine = voxels(branch)[:8, :8, :8]
        mine[0, 0, 0] += 1
        block = np.zeros(SHAPE, mine.dtype)
        block[:8, :8, :8] = mine
        branch.put("zarr/s0/c/0/0/0", chunk(branch.node("s0").meta, block, (0, 0, 0)))  # type: ignore[union-attr]

    placed = meanwhile(store, "", OTHER, change)
    assert placed.branch == "import-v2"
    assert "uncommitted changes to keys that this version changes: zarr/s0" in placed.why
    assert (voxels(dataset["import-v2"]) == OTHER).all()
    assert (stored_voxels(dataset, 2, "s0") == OTHER).all()
    assert dataset.branches()["main"] == 1
    branch.commit("one voxel")
    expected = IMAGE.copy()
    expected[0, 0, 0] += 1
    assert (voxels(dataset["main"]) == expected).all()
    assert (voxels(dataset["import-v2"]) == OTHER).all()


def test_a_list_of_label_images_changed_meanwhile_has_the_names_of_both(store, dataset, branch):
    import_source(store, "cells", "labels/one", ArraySource(LABELS[0], "one"), OPTIONS)

    def change() -> None:
        doc = json.loads(branch.read("zarr/labels/zarr.json"))
        doc["attributes"]["ome"]["labels"].append("mine")
        branch.put("zarr/labels/zarr.json", json.dumps(doc).encode())

    placed = meanwhile(store, "labels/two", LABELS[1], change)
    assert placed.branch == "main"
    assert names(dataset[f"v{placed.number}"]) == ["one", "two"]
    assert names(branch) == ["one", "two", "mine"]
    assert names(dataset[f"v{branch.commit('mine').number}"]) == ["one", "two", "mine"]


# -- on top of what moved ---------------------------------------------------------------------------------------------


def test_it_goes_on_top_of_what_was_committed_meanwhile(store, dataset, branch):
    def change() -> None:
        branch.put("files/mine", b"mine")
        branch.commit("mine")

    placed = meanwhile(store, "labels/one", LABELS[0], change)
    assert (placed.branch, placed.info.parents) == ("main", (placed.number - 1,))
    version = dataset.version(placed.number)
    assert version.read("files/mine") == b"mine"
    assert (voxels(version) == IMAGE).all()
    assert (voxels(version, "labels/one/s0") == LABELS[0]).all()
    assert (stored_voxels(dataset, placed.number, "labels/one/s0") == LABELS[0]).all()
    assert version.info.time_ns >= dataset.version(placed.number - 1).info.time_ns + 10**9


def test_two_imports_of_label_images_at_once_are_both_in_the_list(store, dataset, branch):
    def change() -> None:
        import_source(store, "cells", "labels/one", ArraySource(LABELS[0], "one"), OPTIONS)

    placed = meanwhile(store, "labels/two", LABELS[1], change)
    assert placed.branch == "main"
    assert names(branch) == ["one", "two"]
    assert (
        zarr.open_group(dataset.layout.version(placed.number).root / "zarr" / "labels", mode="r").attrs["ome"]
        is not None
    )
    for name, labels in zip(("one", "two"), LABELS, strict=True):
        assert (voxels(branch, f"labels/{name}/s0") == labels).all()


def test_what_moved_where_it_goes_makes_it_a_version_on_a_branch_of_its_own(store, dataset, branch):
    def change() -> None:
        import_source(store, "cells", "", ArraySource(OTHER, "other"), OPTIONS)

    placed = meanwhile(store, "", LABELS[0], change)
    assert placed.branch == f"import-v{placed.number}"
    assert "has moved to v" in placed.why
    assert f"`volfs cherry-pick cells@main v{placed.number}` lists what is in conflict" in placed.why
    assert placed.info.parents == (1,)
    assert (voxels(dataset[placed.branch]) == LABELS[0]).all()
    assert (voxels(branch) == OTHER).all()


def test_what_overlaps_and_is_not_in_conflict_is_combined_voxel_by_voxel(store, dataset, branch):
    mine, theirs = IMAGE.copy(), IMAGE.copy()
    mine[0, 0, 0] += 1
    theirs[1, 1, 1] += 1

    def change() -> None:
        branch.put("zarr/s0/c/0/0/0", chunk(branch.node("s0").meta, theirs, (0, 0, 0)))  # type: ignore[union-attr]
        branch.commit("theirs")

    placed = meanwhile(store, "", mine, change)
    assert (placed.branch, placed.why) == ("main", None)
    assert dataset.info(placed.info.parents[0]).message == "theirs"
    expected = mine.copy()
    expected[1, 1, 1] += 1
    assert (voxels(branch) == expected).all()
    assert dataset.branches() == {"main": placed.number}, "the branch on which it was combined is gone"


@pytest.mark.parametrize("again", [False, True], ids=["removed", "made anew"])
@pytest.mark.parametrize("path", ["", "labels/one"])
def test_a_dataset_removed_meanwhile_is_what_the_import_says_and_does_not_come_back(
    store: Store, path: str, again: bool
) -> None:
    def change() -> None:
        with open_store(store.path) as other:
            other.remove_dataset("cells")
            if again:
                import_source(other, "cells", "", ArraySource(OTHER, "other"), OPTIONS)

    what = "and another one has its name now, while" if again else "while"
    with pytest.raises(NotFound, match=f"dataset 'cells' was removed, {what} v2 of it was being written: nothing was"):
        meanwhile(store, path, LABELS[0], change)
    assert store.layout.dataset("cells").root.exists() == again
    if again:
        assert (voxels(store["cells"]["main"]) == OTHER).all()
        assert store["cells"].branches() == {"main": 1}


def test_a_branch_removed_meanwhile_is_no_loss_either(store, dataset, monkeypatch):
    dataset.create_branch("other", "main")
    monkeypatch.setattr(dataset, "_default_branch", "other")

    def change() -> None:
        monkeypatch.undo()
        dataset.delete_branch("other")

    placed = meanwhile(store, "labels/one", LABELS[0], change)
    assert placed.branch.startswith("import-v")
    assert (voxels(dataset[placed.branch], "labels/one/s0") == LABELS[0]).all()


def test_a_name_that_is_taken_gets_a_number(store, dataset, branch):
    dataset.create_branch("import-v2", "main")
    placed = meanwhile(
        store, "", OTHER, lambda: branch.put("zarr/s0/zarr.json", branch.read("zarr/s0/zarr.json") + b" ")
    )
    assert placed.branch == "import-v2-2"
    assert dataset.branches() == {"main": 1, "import-v2": 1, "import-v2-2": 2}


def test_a_branch_held_by_a_mount_that_cannot_be_asked_keeps_its_head(store, dataset, branch):
    branch.close()
    lock = FileLock(branch.working.layout.lock)
    with branch.writing():
        pass
    assert lock.try_lock({"pid": 1, "host": socket.gethostname(), "mountpoint": "/nowhere"})
    try:
        placed = import_source(store, "cells", "labels/one", ArraySource(LABELS[0], "one"), OPTIONS)
    finally:
        lock.release()
    assert placed.branch == "import-v2"
    assert "being written by the mount at /nowhere" in placed.why
    assert dataset.branches() == {"main": 1, "import-v2": 2}


# -- through the mount that holds the branch ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an image, and sources to import."""
    root = tmp_path_factory.mktemp("placement")
    with init_store(root / "store") as store:
        for name in ("cells", "crash"):
            import_source(store, name, "", ArraySource(IMAGE, "image"), OPTIONS)
    for name, data in (("other", OTHER), ("labels", LABELS[0])):
        np.save(root / f"{name}.npy", data)
    return root


@pytest.fixture(scope="module")
def main(root: Path) -> Iterator[Path]:
    """The branch ``main`` of a mount that holds it."""
    with mounted(root / "store", root / "mnt") as place:
        yield place / "cells" / "branches" / "main"


def command(root: Path, target: str, source: str, *, crash_at: str | None = None) -> subprocess.Popen[str]:
    line = ["--store", str(root / "store"), "import", target, str(root / source), "--chunks", "8,8,8", "--json"]
    environment = {**os.environ, **({} if crash_at is None else {"VOLFS_CRASH_AT": crash_at})}
    return fork_server.Popen(
        [sys.executable, "-m", "volfs", *line],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def imported(root: Path, target: str, source: str) -> dict[str, object]:
    with command(root, target, source) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return json.loads(out)


@contextmanager
def held(branch: Path, text: str) -> Iterator[None]:
    """Have the mount hold a branch, however long that takes: it gives back one in which nobody writes any more. The
    mount may die meanwhile."""
    file = os.open(branch / "files" / "held", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(file, text.encode())
        yield
    finally:
        with suppress(OSError):
            os.close(file)


def status(main: Path) -> dict[str, object]:
    return json.loads((main / ".volfs" / "status.json").read_bytes())


def test_a_mount_that_writes_once_a_second_shows_an_import_and_goes_on_committing(root: Path, main: Path):
    done, errors = threading.Event(), []

    def write() -> None:
        while not done.is_set():
            try:
                with (main / "files" / "log.txt").open("a") as log:
                    log.write("one line\n")
            except OSError as error:
                errors.append(error)
            done.wait(0.2)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until(lambda: (main / "files" / "log.txt").exists())
        made = imported(root, "cells/labels/nuclei", "labels.npy")
        assert made["branch"] == "main"
        assert (main / "labels" / "nuclei" / "s0" / "info.json").exists()
        assert (np.load(main / "labels" / "nuclei" / "s0" / "volume.npy") == LABELS[0]).all()
        (main / "files" / "closed").write_text("the log may be open just now, and stay behind")
        (main / ".volfs" / "commit").write_text("log")
    finally:
        done.set()
        writer.join()
    assert errors == []
    assert status(main)["behind"] is None
    (main / ".volfs" / "discard").write_text("all")


def test_an_import_over_what_a_mount_has_uncommitted_is_refused_before_it_begins(root: Path, main: Path):
    data = bytearray((main / "s0" / "volume.raw").read_bytes())
    with (main / "s0" / "volume.raw").open("r+b") as file:
        file.write(bytes([data[0] ^ 1]))
    done = volfs(root / "store", "import", "cells", root / "other.npy", ok=False)
    assert done.returncode == 1 and "uncommitted changes" in done.stderr, "refused before anything is read"
    (main / ".volfs" / "discard").write_text("all")


def test_an_import_that_collides_by_its_end_is_on_a_branch_that_the_command_names(root: Path, main: Path):
    before = status(main)["head"]
    script = f"""
import sys, time
from pathlib import Path
import volfs.ingest.importer as importer
from volfs.cli import main
place = importer.place
def later(writer):
    with open({str(main / "s0" / "volume.raw")!r}, "r+b") as file:
        file.write(bytes([7]))
    return place(writer)
importer.place = later
sys.argv = ["volfs", "--store", {str(root / "store")!r}, "import", "cells", {str(root / "other.npy")!r}]
main()
"""
    done = fork_server.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "on the new branch import-v" in done.stdout
    assert "has uncommitted changes to keys that this version changes: zarr/s0" in done.stderr
    assert status(main)["head"] == before
    assert status(main)["behind"] is None
    name = done.stdout.partition("new branch ")[2].partition(",")[0]
    shown = main.parent / name / "s0" / "volume.npy"
    until(shown.exists)
    assert (np.load(shown) == OTHER).all()
    assert (main / "s0" / "volume.raw").read_bytes()[:1] == bytes([7])
    (main / ".volfs" / "discard").write_text("all")


@pytest.mark.parametrize("point", ["commit.packed", "commit.synced"])
def test_an_importer_that_is_killed_leaves_the_mount_as_it_was(root: Path, main: Path, point: str):
    before = (status(main)["head"], sorted(os.listdir(main.parents[1] / "versions")))
    with command(root, "cells/labels/killed", "labels.npy", crash_at=point) as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL, err
    assert (status(main)["head"], sorted(os.listdir(main.parents[1] / "versions"))) == before
    (main / "files" / "after").write_text(point)
    (main / ".volfs" / "commit").write_text(f"after {point}")
    assert status(main)["behind"] is None


def test_an_importer_killed_while_the_mount_is_asked_leaves_a_whole_version_or_none(root: Path, main: Path):
    """The instants that matter are those between the end of its writing and its last word."""
    dice = random.Random(5)
    partials = root / "store" / "datasets" / "cells" / "versions"
    for count in range(5):
        with held(main, f"held {count}"), command(root, f"cells/labels/any{count}", "labels.npy") as process:
            until(lambda: process.poll() is not None or any(partials.glob(".*.partial/version.json")))
            time.sleep(dice.uniform(0, 0.3))
            process.kill()
            process.communicate()
        until(lambda: (status(main)["action"] or {}).get("state") != "running")
        shown = main / "labels" / f"any{count}" / "s0" / "volume.npy"

        def listed(count: int = count) -> bool:
            document = json.loads((main / "zarr" / "labels" / "zarr.json").read_bytes())
            return f"any{count}" in document["attributes"]["ome"]["labels"]

        # The mount may have been asked and not have begun yet: it is whole, or it is not, once that is over.
        until(lambda shown=shown, listed=listed: listed() == shown.exists() == listed())
        if shown.exists():
            assert (np.load(shown) == LABELS[0]).all()
        (main / ".volfs" / "commit").write_text(f"after {count}")
        assert status(main)["behind"] is None
    with open_store(root / "store") as store:
        assert fsck(store).findings == []


@pytest.mark.parametrize("point", ["commit.renamed", "commit.ref", "commit.indexed", "placement.published"])
def test_a_mount_that_is_killed_while_it_publishes_loses_nothing_of_an_import(root: Path, tmp_path: Path, point: str):
    """The importer is alive: what was prepared is its own again, or is there."""
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    line = [sys.executable, "-m", "volfs", "--store", str(root / "store"), "mount", "-f", str(mountpoint)]
    with fork_server.Popen(
        line, env={**os.environ, "VOLFS_CRASH_AT": point}, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    ) as daemon:
        try:
            until((mountpoint / "README.txt").exists)
            label = point.replace(".", "_")
            with held(mountpoint / "crash" / "branches" / "main", point):
                made = imported(root, f"crash/labels/{label}", "labels.npy")
            assert daemon.wait(PATIENCE) == -signal.SIGKILL
        finally:
            daemon.kill()
            subprocess.run(["umount", "-l", str(mountpoint)], check=False, capture_output=True)
    assert made["branch"] == "main"
    with open_store(root / "store") as store:
        dataset = store["crash"]
        branch = dataset["main"]
        assert (voxels(branch, f"labels/{label}/s0") == LABELS[0]).all()
        assert label in names(branch)
        assert branch.read("files/held") == point.encode()
        assert fsck(store).findings == []


@pytest.mark.parametrize("point", ["placement.renumbered", "placement.rewritten"])
def test_a_process_killed_while_it_moves_an_import_leaves_no_half_of_it(root: Path, point: str):
    script = f"""
import sys
from volfs import open_store
from tests.kits.imports import LABELS, meanwhile
with open_store({str(root / "store")!r}) as store:
    branch = store["crash"]["main"]
    def change():
        branch.put("files/moved", {point!r}.encode())
        branch.commit("moved")
    meanwhile(store, "labels/moved", LABELS[1], change, dataset="crash")
"""
    environment = {**os.environ, "VOLFS_CRASH_AT": point}
    done = fork_server.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with open_store(root / "store") as store:
        assert store["crash"]["main"].read("files/moved") == point.encode()
        assert not [p for p in store["crash"].layout.versions.iterdir() if p.name.startswith(".")]
        assert fsck(store).findings == []
