"""Processes killed at every step of a fetch and a push, at either end; and what one changed chunk costs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import volfs
from tests.kits import fork_server
from tests.kits.mounts import volfs as volfs_command
from tests.kits.paths import ROOT
from tests.kits.remotes import SHAPE, in_this_process, same, served
from tests.kits.stores import START, volume, write_version
from volfs import init_store, open_store
from volfs.errors import Absent
from volfs.testing.waiting import PATIENCE
from volfs.versions.check.fsck import fsck
from volfs.versions.remotes import connection, exchange
from volfs.versions.remotes.partial_clone import Wish

RECEIVING = ("receive.piece:2", "receive.arrived", "receive.written", "receive.adopted", "receive.indexed:2")
SENDING = ("supplier.version", "supplier.piece:2")
FETCHING = (*RECEIVING, "fetch.received", "fetch.noted", "head.moved", *SENDING)
PUSHING = (*RECEIVING, "push.received", "head.moved", "push.moved", "fetch.noted", *SENDING)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stores: ``one`` has versions that ``other``, a clone of it, has not; ``other`` has some on another branch.

    They lie where each test has its own: the address of the one is in the other.
    """
    path = tmp_path_factory.mktemp("remotes") / "stores"
    with init_store(path / "one") as store:
        write_version(store.create_dataset("cells"), volume(SHAPE), time_ns=START)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "connected", in_this_process)
        patch.setattr(exchange, "connected", in_this_process)
        volfs.clone(str(path / "one"), path / "other")
    for name, branch, seed in (("one", "main", 1), ("other", "mine", 7)):
        with open_store(path / name) as store:
            cells = store["cells"]
            if branch != "main":
                cells.create_branch(branch)
            for at in ((0, 0, 0), (1, 1, 1)):
                head = cells.branches()[branch]
                files = {f"files/{branch}": bytes(2 << 20)} if at == (0, 0, 0) else {}
                write_version(cells, volume(SHAPE, seed), parent=head, coords=[at], branch=branch, files=files)
    return path.rename(path.with_name("template"))


@pytest.fixture
def root(template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(connection, "connected", in_this_process)
    monkeypatch.setattr(exchange, "connected", in_this_process)
    stores = template.with_name("stores")
    yield shutil.copytree(template, stores)
    shutil.rmtree(stores)


def run(
    root: Path, *command: str, crash_at: str | None = None, store: str = "other"
) -> subprocess.CompletedProcess[str]:
    """The command in this process, which is not to be killed, or, with both ends in processes of their own, killed."""
    if crash_at is None:
        return volfs_command(root / store, *command, ok=False)
    return fork_server.run(
        [sys.executable, "-m", "volfs", "--store", str(root / store), *command],
        env={**os.environ, "VOLFS_CRASH_AT": crash_at},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def check_died(died: subprocess.CompletedProcess[str]) -> None:
    """The process was killed itself, or says in one line that the other end is gone."""
    if died.returncode != -signal.SIGKILL:
        assert died.returncode == 1 and len(died.stderr.splitlines()) == 1, (died.returncode, died.stderr)
        assert "the same again goes on" in died.stderr


def check_whole(root: Path) -> None:
    for name in ("one", "other"):
        with open_store(root / name) as store:
            assert fsck(store).findings == []


@pytest.mark.parametrize("point", ["repair.patched:1", "repair.patched:2"])
def test_a_repair_that_is_killed_at_any_step_has_lost_nothing_and_is_finished_by_the_next(
    root: Path, point: str
) -> None:
    run(root, "pull", "cells")
    (lost,) = (root / "other" / "datasets" / "cells" / "versions").glob("*/files/main")
    whole = lost.read_bytes()
    lost.write_bytes(whole[: 1 << 20])
    mend = ("fsck", "--repair", "--from", "origin")
    died = run(root, *mend, crash_at=point)
    assert died.returncode
    with open_store(root / "other") as store:
        assert all("files/main" in str(found) for found in fsck(store).findings)
    mended = run(root, *mend)
    assert mended.returncode == 0, mended.stderr
    assert lost.read_bytes() == whole
    check_whole(root)


@pytest.mark.parametrize("point", FETCHING)
def test_a_fetch_that_is_killed_at_any_step_is_finished_by_the_next(root: Path, point: str) -> None:
    check_died(run(root, "pull", "cells", crash_at=point))
    check_whole(root)
    done = run(root, "pull", "cells")
    assert done.returncode == 0, done.stderr
    with open_store(root / "one") as one, open_store(root / "other") as other:
        same(one["cells"], other["cells"])
        heads = [store["cells"].info(store["cells"].branches()["main"]).content_id for store in (one, other)]
        assert heads[0] == heads[1]
        assert [path.name for path in other["cells"].layout.incoming.iterdir()] == ["lock"]
    check_whole(root)
    assert run(root, "pull", "cells").stdout == "nothing is new\n"


@pytest.mark.parametrize("point", PUSHING)
def test_a_push_that_is_killed_at_any_step_at_either_end_is_finished_by_the_next(root: Path, point: str) -> None:
    if point == "head.moved":
        run(root, "push", "cells", "origin", "mine")  # so that the branch is there, and moves
        with open_store(root / "other") as store:
            cells = store["cells"]
            head = cells.branches()["mine"]
            write_version(cells, volume(SHAPE, 9), parent=head, coords=[(0, 1, 0)], branch="mine")
    check_died(run(root, "push", "cells", "origin", "mine", crash_at=point))
    check_whole(root)
    done = run(root, "push", "cells", "origin", "mine")
    assert done.returncode == 0, done.stderr
    with open_store(root / "one") as one, open_store(root / "other") as other:
        same(other["cells"], one["cells"])
        heads = [store["cells"].info(store["cells"].branches()["mine"]).content_id for store in (one, other)]
        assert heads[0] == heads[1]
    check_whole(root)
    assert run(root, "push", "cells", "origin", "mine").stdout == "nothing is new\n"


SUPPLYING = ("supplement.piece:3", "supplement.came", "supplement.indexed", "supplement.noted:2", "partial.noted")


@pytest.mark.parametrize("point", [*SUPPLYING, "supplier.payload:3", "receive.adopted"])
def test_a_fetch_of_more_that_is_killed_at_any_step_has_lost_nothing_and_is_finished_by_the_next(
    root: Path, point: str
) -> None:
    """One that was wished for goes on with the next fetch, whatever that is for."""
    place = root / "partial"
    volfs.clone(str(root / "one"), place, paths=["files"])
    with open_store(root / "one") as store:
        cells = store["cells"]
        write_version(cells, volume(SHAPE, 4), parent=cells.branches()["main"], coords=[(0, 1, 1)])
    check_died(run(root, "fetch", "cells", "--path", "s0", crash_at=point, store="partial"))
    with open_store(place) as store:
        assert fsck(store).findings == []
        if point in SUPPLYING:
            store["cells"].fetch()
        else:
            store["cells"].fetch(paths=["s0"])
        assert fsck(store).findings == []
        with open_store(root / "one") as one:
            same(one["cells"], store["cells"])
        assert store["cells"].fetch().payloads == 0


def test_a_long_payload_goes_on_in_its_middle(root: Path) -> None:
    place = root / "partial"
    volfs.clone(str(root / "one"), place, paths=["s0"])
    check_died(run(root, "fetch", "cells", "--whole", crash_at="supplement.piece:2", store="partial"))
    with open_store(place) as store, served(root / "one") as link:
        done = exchange.fetch_from(store["cells"], link, "origin", (), None, wish=Wish(whole=True))
        assert done.payloads == 1 and link.frames.heard_bytes < (1 << 20) + 20_000
        assert store["cells"]["main"].read("files/main") == bytes(2 << 20)
        assert fsck(store).findings == []


def test_a_partial_clone_that_is_killed_is_finished_by_the_same(root: Path) -> None:
    place = root / "partial"
    command = ("clone", str(root / "one"), str(place), "--path", "zarr/s0/c/0")
    for point in ("receive.arrived", "supplement.piece:2", "fetch.noted"):
        check_died(run(root, *command, crash_at=point))
    volfs.clone(str(root / "one"), place, paths=["zarr/s0/c/0"])
    with open_store(place) as store:
        cells = store["cells"]
        assert fsck(store).findings == [] and cells.branches() == {"main": 3}
        assert cells["main"].read("zarr/s0/c/0/1/1") and cells.clone_parts.partial
        with pytest.raises(Absent):
            cells["main"].read("zarr/s0/c/1/0/0")


@pytest.mark.parametrize("point", ["push.created", "receive.arrived", "receive.adopted", "push.moved", "notes.added"])
def test_a_push_of_a_dataset_that_the_remote_lacks_is_finished_by_the_next(root: Path, point: str) -> None:
    init_store(root / "lab").close()
    with open_store(root / "other") as store:
        store["cells"].set_remote("lab", str(root / "lab"))
        store["cells"].add_note("mine", "seen")
    push = ("push", "cells", "lab", "mine")
    check_died(run(root, *push, crash_at=point))
    done = run(root, *push)
    assert done.returncode == 0, done.stderr
    with open_store(root / "lab") as lab, open_store(root / "other") as other:
        assert lab["cells"].branches() == {"main": 0, "mine": 3} and lab["cells"].notes("mine")
        same(lab["cells"], other["cells"])
        assert fsck(lab).findings == []


def test_what_has_arrived_is_not_sent_again(root: Path) -> None:
    check_died(run(root, "fetch", "cells", crash_at="receive.arrived"))
    with open_store(root / "other") as other, served(root / "one") as link:
        exchange.fetch_from(other["cells"], link, "origin", (), None)
        assert link.frames.heard_bytes < 20_000


def costs(root: Path, common: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Messages and bytes of a fetch of one changed chunk, with so many versions that both have."""
    monkeypatch.setattr(connection, "connected", in_this_process)
    root.mkdir()
    with init_store(root / "one") as one:
        cells = one.create_dataset("cells")
        number = write_version(cells, volume(SHAPE), time_ns=START)
        for seed in range(common - 1):
            number = write_version(cells, volume(SHAPE, seed % 3), parent=number, coords=[(0, 0, seed % 2)])
        volfs.clone(str(one.path), root / "other")
        write_version(cells, volume(SHAPE, 5), parent=number, coords=[(1, 0, 1)])
    with open_store(root / "other") as other, served(root / "one") as link:
        assert exchange.fetch_from(other["cells"], link, "origin", (), None).versions == 1
        return link.frames.heard + link.frames.said, link.frames.heard_bytes + link.frames.said_bytes


def test_what_one_changed_chunk_costs_does_not_grow_with_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = costs(tmp_path / "few", 5, monkeypatch), costs(tmp_path / "many", 150, monkeypatch)
    assert many[0] == few[0]
    assert many[1] <= 1.05 * few[1]
