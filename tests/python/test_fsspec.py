"""Keys of a store by URL: fsspec's own conformance tests, zarr-python, Dask and pandas find what is there."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import posixpath
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask.array as da
import dask.bag
import fsspec
import numpy as np
import pandas as pd
import pytest
import zarr
from fsspec.tests.abstract import (
    AbstractCopyTests,
    AbstractFixtures,
    AbstractGetTests,
    AbstractOpenTests,
    AbstractPipeTests,
    AbstractPutTests,
)

import volfs
from tests.kits.cells import CELLS, NUCLEI, make_store
from volfs.python.fsspec_filesystem import VolfsFileSystem

TABLE = b"id,size\n1,20\n2,30\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = make_store(tmp_path / "store", shape=(12, 20, 24))
    with volfs.open_store(made) as store:
        store["cells"].branch("exp").put("files/table.csv", TABLE)
        store["cells"].branch("exp").commit("a table")
    return made


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("fsspec") / "store")


# -- fsspec's own ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def conformance(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("conformance") / "store", shape=(4, 5, 6))


class Fixtures(AbstractFixtures):
    @pytest.fixture
    def fs(self, conformance: Path) -> VolfsFileSystem:
        return VolfsFileSystem(store=conformance)

    @pytest.fixture
    def fs_path(self) -> str:
        return "cells@exp/files/tests"

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return posixpath.join

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestCopy(Fixtures, AbstractCopyTests):
    pass


class TestGet(Fixtures, AbstractGetTests):
    pass


class TestPut(Fixtures, AbstractPutTests):
    pass


class TestOpen(Fixtures, AbstractOpenTests):
    pass


class TestPipe(Fixtures, AbstractPipeTests):
    pass


# -- URLs -----------------------------------------------------------------------------------------------------------


def test_a_url_names_the_key_and_then_the_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (
        f"volfs://cells@exp/files/table.csv::{path}",
        f"volfs://cells@v3/files/table.csv::file://{path}",
        f"simplecache::volfs://cells@exp~0/files/table.csv::{path}",
    ):
        with fsspec.open(url) as file:
            assert file.read() == TABLE
    with fsspec.open("volfs://cells@exp/files/table.csv", "rt", store=path) as text:
        assert text.readline() == "id,size\n"
    monkeypatch.setenv("VOLFS_STORE", str(path))
    VolfsFileSystem.clear_instance_cache()
    with fsspec.open("volfs://cells@exp/files/table.csv") as file:
        assert file.read() == TABLE
    VolfsFileSystem.clear_instance_cache()


def test_a_url_the_other_way_round_is_answered_with_the_right_way(path: Path) -> None:
    with pytest.raises(OSError, match="volfs://DATASET@REF/KEY::/path/of/the/store"):
        fsspec.open(f"volfs://{path}::cells@v2/zarr").open()
    with pytest.raises(ValueError, match="directory of this machine"):
        fsspec.open("volfs://cells/files/x::memory://store")


def test_no_store_is_an_error_that_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VOLFS_STORE", raising=False)
    VolfsFileSystem.clear_instance_cache()
    with pytest.raises(ValueError, match="VOLFS_STORE"):
        VolfsFileSystem().ls("")
    with pytest.raises(FileNotFoundError):
        VolfsFileSystem(store=tmp_path / "nothing").ls("")


# -- looking --------------------------------------------------------------------------------------------------------


def test_what_is_listed_is_what_is_there(path: Path) -> None:
    fs = VolfsFileSystem(store=path)
    assert fs.ls("", detail=False) == ["cells"]
    assert fs.ls("cells@exp", detail=False) == ["cells@exp/files", "cells@exp/zarr"]
    assert fs.ls("volfs://cells@exp/files/") == [fs.info("cells@exp/files/table.csv")]
    assert fs.info("cells@exp/files/table.csv")["size"] == len(TABLE)
    found = fs.find("cells@v3")
    with volfs.open_store(path, read_only=True) as store:
        assert all(fs.cat(one) == store["cells"]["v3"].read(one.removeprefix("cells@v3/")) for one in found)
    assert "cells@v3/zarr/s0/zarr.json" in found and "cells@v3/zarr/labels/nuclei/s1/c/0/0/0" in found
    assert sorted(fs.glob("cells@v3/zarr/s?/zarr.json")) == [f"cells@v3/zarr/s{n}/zarr.json" for n in (0, 1)]
    assert fs.exists("cells") and fs.isdir("cells@main~1/zarr")
    for nothing in (
        "nuclei",
        "cells@v9",
        "cells@v3/files/no",
        "cells@v3/other",
        "cells@a b/files",
        "cells@v3/files/../x",
    ):
        assert not fs.exists(nothing)
        with pytest.raises((FileNotFoundError, OSError)):
            fs.ls(nothing)


def test_ranges_are_those_of_the_whole(path: Path) -> None:
    fs = VolfsFileSystem(store=path)
    key = "cells@v3/files/table.csv"
    for start, end in (
        (None, None),
        (3, 8),
        (3, None),
        (None, 8),
        (-5, None),
        (-5, -2),
        (4, 4),
        (8, 3),
        (0, 999),
        (99, None),
    ):
        assert fs.cat_file(key, start, end) == TABLE[start:end]
    with fs.open(key) as file:
        assert file.seek(-6, os.SEEK_END) and file.read(3) == TABLE[-6:-3]
    with pytest.raises(IsADirectoryError):
        fs.cat_file("cells@v3/files")


def test_reading_changes_nothing_in_the_store(path: Path) -> None:
    before = sorted((str(p), p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file())
    fs = VolfsFileSystem(store=path)
    fs.cat_file("cells@exp/files/table.csv")
    zarr.open(f"volfs://cells@v2/zarr::{path}", mode="r")["s0"][...]
    assert sorted((str(p), p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file()) == before


# -- writing --------------------------------------------------------------------------------------------------------


def test_a_branch_is_written_and_a_version_is_not(path: Path) -> None:
    fs = VolfsFileSystem(store=path)
    with fs.open("cells@exp/files/deep/notes.txt", "wb") as file:
        file.write(b"one ")
        file.write(b"two")
        assert not fs.exists("cells@exp/files/deep/notes.txt")
    with fs.open("cells@exp/files/deep/notes.txt", "ab") as file:
        file.write(b" three")
    assert fs.cat("cells@exp/files/deep/notes.txt") == b"one two three"
    for mode in ("xb", "rb+"):
        with pytest.raises((FileExistsError, NotImplementedError, ValueError)):
            fs.open("cells@exp/files/deep/notes.txt", mode).close()
    with fs.open("cells@exp/files/new", "xb") as file:
        file.write(b"new")
    with pytest.raises(PermissionError):
        fs.pipe_file("cells@v3/files/notes.txt", b"no")
    with pytest.raises(IsADirectoryError):
        fs.rm("cells@exp/files/deep")
    fs.mv("cells@exp/files/new", "cells@exp/files/newer")
    fs.rm("cells@exp/files/deep", recursive=True)
    assert fs.find("cells@exp/files") == ["cells@exp/files/newer", "cells@exp/files/table.csv"]
    with volfs.open_store(path) as store:
        assert not store["cells"].branch("exp").is_clean()


def test_a_transaction_puts_all_files_at_its_end_or_none(path: Path) -> None:
    fs = VolfsFileSystem(store=path)
    with pytest.raises(RuntimeError), fs.transaction:
        with fs.open("cells@exp/files/a", "wb") as file:
            file.write(b"a")
        raise RuntimeError
    assert not fs.exists("cells@exp/files/a")
    with fs.transaction:
        with fs.open("cells@exp/files/a", "wb") as file:
            file.write(b"a")
        assert not fs.exists("cells@exp/files/a")
    assert fs.cat("cells@exp/files/a") == b"a"


# -- others ---------------------------------------------------------------------------------------------------------


def test_zarr_opens_a_hierarchy_and_an_array_by_url(large: Path) -> None:
    group = zarr.open(f"volfs://cells@v2/zarr::{large}", mode="r")
    np.testing.assert_array_equal(group["s0"][...], CELLS)
    np.testing.assert_array_equal(group["labels/nuclei/s0"][3:9, ::2], NUCLEI[3:9, ::2])
    assert sorted(group.group_keys()) == ["labels"]
    np.testing.assert_array_equal(zarr.open(f"volfs://cells@v2/zarr/s0::{large}", mode="r")[5], CELLS[5])
    np.testing.assert_array_equal(da.from_zarr(f"volfs://cells@v2/zarr/s0::{large}")[5].compute(), CELLS[5])


def test_zarr_writes_into_a_branch_by_url(path: Path) -> None:
    array = zarr.open(f"volfs://cells@exp/zarr/s0::{path}", mode="r+")
    array[2:5] = 7
    made = zarr.create_array(f"volfs://cells@exp/zarr/mask::{path}", shape=(4, 4), chunks=(2, 2), dtype="u1")
    made[...] = 3
    with volfs.open_store(path) as store:
        branch = store["cells"].branch("exp")
        assert (branch["s0"][2:5] == 7).all() and (branch["mask/s0"][...] == 3).all()
        branch.commit("by zarr")
    with pytest.raises((OSError, ValueError)):
        zarr.open(f"volfs://cells@v1/zarr/s0::{path}", mode="r+")[0] = 1


def test_pandas_reads_and_writes_a_table(path: Path) -> None:
    table = pd.read_csv(f"volfs://cells@exp/files/table.csv::{path}")
    assert table["size"].tolist() == [20, 30]
    table.assign(size=table["size"] + 1).to_csv(f"volfs://cells@exp/files/new.csv::{path}", index=False)
    assert pd.read_csv(f"volfs://cells@exp/files/new.csv::{path}")["size"].tolist() == [21, 31]


def test_dask_reads_files_in_processes(path: Path) -> None:
    lines = dask.bag.read_text(f"volfs://cells@v3/files/*.csv::{path}")
    assert lines.map(str.strip).compute(scheduler="processes", num_workers=2) == TABLE.decode().split()


def cat_elsewhere(fs: VolfsFileSystem) -> bytes:
    return bytes(fs.cat_file("cells@v3/files/table.csv"))


def test_a_filesystem_goes_to_other_processes_and_through_json(path: Path) -> None:
    fs = VolfsFileSystem(store=str(path))
    assert pickle.loads(pickle.dumps(fs)) is fs
    assert fsspec.AbstractFileSystem.from_json(fs.to_json()) is fs
    assert json.loads(fs.to_json())["protocol"] == "volfs"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(cat_elsewhere, (fs,)) == TABLE


def test_a_damaged_key_is_an_io_error_and_no_missing_one(path: Path) -> None:
    for shard in (path / "datasets/cells/versions/00000001/zarr/s0").rglob("*"):
        if shard.is_file() and shard.suffix != ".json":
            shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(OSError, match="checksum") as caught:
        zarr.open(f"volfs://cells@v1/zarr/s0::{path}", mode="r")[...]
    assert not isinstance(caught.value, FileNotFoundError)


@pytest.fixture(autouse=True)
def no_instances_left() -> Iterator[Any]:
    yield
    VolfsFileSystem.clear_instance_cache()


def test_many_threads_that_ask_at_once_open_a_store_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from volfs.versions import store as stores

    opened: list[Any] = []
    original = stores.open_store
    monkeypatch.setattr(stores, "open_store", lambda *a, **k: opened.append(a) or original(*a, **k))
    fs = VolfsFileSystem(store=path)

    def look(_: int) -> list[str]:
        with volfs.open_store(path, read_only=True) as mine:
            mine.opening()  # as a pickle does
            return list(fs.ls("cells@v3", detail=False))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(look, range(40))) == [["cells@v3/files", "cells@v3/zarr"]] * 40
    assert len(opened) == 41


def test_a_store_that_was_made_anew_at_a_path_is_the_one_that_is_read(path: Path) -> None:
    fs = VolfsFileSystem(store=path)
    assert fs.exists("cells@v3")
    shutil.rmtree(path)
    with pytest.raises(FileNotFoundError):
        fs.ls("")
    make_store(path, shape=(4, 5, 6))
    assert not fs.exists("cells@v3") and fs.exists("cells@v2")
