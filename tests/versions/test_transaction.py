"""A block of changes to a branch is one version, or nothing."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import volfs
from tests.kits.cells import make_store
from volfs.errors import BadInput, Busy, Held, ReadOnly


@pytest.fixture
def store(tmp_path: Path) -> Iterator[volfs.Store]:
    with volfs.open_store(make_store(tmp_path / "store", shape=(12, 20, 24))) as opened:
        yield opened


def test_what_a_block_wrote_is_one_version(store: volfs.Store) -> None:
    branch = store["cells"].branch("exp")
    before = len(store["cells"].versions())
    with branch.transaction("repainted", "Ada") as outcome:
        branch["s0"][3:5] = 7
        branch["labels/nuclei/s0"][branch["labels/nuclei/s0"][...] == 0] = 9
        branch.put("files/notes.txt", b"both")
        assert outcome.version is None
    assert outcome.version is not None and outcome.version == branch.head
    assert (outcome.version.message, outcome.version.author) == ("repainted", "Ada")
    assert len(store["cells"].versions()) == before + 1
    version = store["cells"]["exp~0"]
    assert (version["s0"][3:5] == 7).all() and version["labels/nuclei/s0"][...].min() > 0
    assert branch.is_clean()


def test_a_block_that_raises_leaves_nothing(store: volfs.Store) -> None:
    branch = store["cells"].branch("exp")
    before = branch["s0"][...]
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), branch.transaction("half") as outcome:
            branch["s0"][3:5] = 7
            branch.delete_tree("zarr/labels")
            branch.put("files/notes.txt", b"half")
            raise error
        assert outcome.version is None
        assert branch.is_clean() and branch.stat("files/notes.txt") is None
        np.testing.assert_array_equal(branch["s0"], before)
        assert "labels/nuclei" in branch
    assert store["cells"].resolve("exp") == 2
    assert not branch.working.lock.held


def test_a_block_that_changes_nothing_makes_no_version(store: volfs.Store) -> None:
    branch = store["cells"].branch("exp")
    with branch.transaction("nothing") as outcome:
        pass
    assert outcome.version is None and store["cells"].resolve("exp") == 2


def test_what_was_uncommitted_before_is_never_part_of_it(store: volfs.Store) -> None:
    branch = store["cells"].branch("exp")
    branch.put("files/notes.txt", b"before")
    with pytest.raises(Busy, match="uncommitted"), branch.transaction("more"):
        raise AssertionError("the block does not run")
    assert branch.read("files/notes.txt") == b"before"


def test_a_message_that_is_none_is_refused_before_the_block(store: volfs.Store) -> None:
    with pytest.raises(BadInput), store["cells"].branch("exp").transaction(" "):
        raise AssertionError("the block does not run")


def test_a_commit_that_is_refused_leaves_the_changes_to_be_mended(store: volfs.Store) -> None:
    branch = store["cells"].branch("exp")
    with pytest.raises(Held, match="s0/c/0/0/0"), branch.transaction("bad chunk"):
        branch.put("zarr/s0/c/0/0/0", b"no chunk")
    assert not branch.is_clean()
    branch.put("zarr/s0/c/0/0/0", store["cells"]["v2"].read("zarr/s0/c/0/0/0"))
    branch.discard()


def test_a_store_that_is_only_read_has_none(store: volfs.Store) -> None:
    with (
        volfs.open_store(store.path, read_only=True) as reading,
        pytest.raises(ReadOnly),
        reading["cells"].branch("exp").transaction("no"),
    ):
        raise AssertionError("the block does not run")


def write_elsewhere(path: str) -> str:
    with volfs.open_store(path) as store:
        try:
            store["cells"].branch("exp").acquire()
        except ReadOnly as error:
            return str(error)
    return "it could be written"


def die_within(path: str) -> None:
    with volfs.open_store(path) as store, store["cells"].branch("exp").transaction("dies"):
        store["cells"].branch("exp")["s0"][0] = 1
        os._exit(3)


def test_nobody_else_writes_meanwhile_and_who_dies_leaves_uncommitted_changes(store: volfs.Store) -> None:
    spawn = multiprocessing.get_context("spawn")
    branch = store["cells"].branch("exp")
    with branch.transaction("alone"), spawn.Pool(1) as pool:
        assert "is being written by process" in pool.apply(write_elsewhere, (str(store.path),))
    process = spawn.Process(target=die_within, args=(str(store.path),))
    process.start()
    process.join()
    assert process.exitcode == 3 and store["cells"].resolve("exp") == 2
    assert (branch["s0"][0] == 1).all() and not branch.is_clean()
    branch.discard()
