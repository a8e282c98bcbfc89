"""Dask, in processes too, and xarray read levels as numpy does, with coordinates in units."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize
from hypothesis import given, settings
from hypothesis import strategies as st

import volfs
from tests.kits.cells import CELLS, NUCLEI, add, make_store
from volfs.errors import NotFound
from volfs.testing.volumes import image


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[volfs.Store]:
    path = make_store(tmp_path_factory.mktemp("arrays") / "store", voxel_size="40,4,4nm")
    with volfs.open_store(path) as opened:
        add(opened, "movie", "", MOVIE, "tczyx", chunks=(1, 1, 4, 16, 16), levels=2, voxel_size="2,1,1um")
        yield opened


MOVIE = image((3, 2, 5, 30, 41), "uint16")


@pytest.fixture(scope="module")
def level(store: volfs.Store) -> volfs.Level:
    found: volfs.Level = store["cells"]["v2"]["s0"]
    return found


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Processes for dask, as it makes them: by itself it makes some for every result."""
    with ProcessPoolExecutor(2, get_context(dask.config.get("multiprocessing.context", "spawn"))) as made:
        yield made


# -- dask -----------------------------------------------------------------------------------------------------------


def test_dask_has_the_levels_shape_type_and_chunks(level: volfs.Level) -> None:
    lazy = level.to_dask()
    assert (lazy.shape, lazy.dtype, lazy.chunksize) == (level.shape, level.dtype, level.chunks)
    assert level.to_dask(chunks=(20, 20, -1)).chunks == ((20,), (20, 20), (50,))


@pytest.mark.parametrize("ref", ["v2", "main"])
def test_dask_in_processes_reads_the_voxels(store: volfs.Store, ref: str, pool: ProcessPoolExecutor) -> None:
    lazy = store["cells"][ref]["s0"].to_dask()
    with dask.config.set(scheduler="processes", pool=pool):
        np.testing.assert_array_equal(lazy[3:15, ::2].compute(), CELLS[3:15, ::2])
        assert int(lazy.astype("u8").sum().compute()) == int(CELLS.sum(dtype="u8"))
        labels = da.unique(store["cells"][ref]["labels/nuclei/s0"].to_dask()).compute()
    np.testing.assert_array_equal(labels, np.unique(NUCLEI))


def test_dask_in_threads_takes_lists_and_points(level: volfs.Level) -> None:
    lazy = level.to_dask()
    np.testing.assert_array_equal(lazy[[1, 5, 3]][:, [2, 2]].compute(), CELLS[[1, 5, 3]][:, [2, 2]])
    np.testing.assert_array_equal(lazy.vindex[[1, 2], [3, 4], [5, 6]].compute(), CELLS[[1, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(lazy[lazy > 100].compute(), CELLS[CELLS > 100])


def test_dask_stores_into_a_branch(tmp_path: Path) -> None:
    with volfs.open_store(make_store(tmp_path / "store")) as opened:
        branch = opened["cells"].branch("exp")
        with branch.transaction("inverted") as done:
            source = opened["cells"]["v2"]["s0"].to_dask()
            da.store(255 - source, branch["s0"], lock=False, scheduler="threads")
        assert done.version is not None
        np.testing.assert_array_equal(opened["cells"].version(done.version.number)["s0"], 255 - CELLS)


def test_dask_in_processes_writes_into_a_branch_in_turns(tmp_path: Path, pool: ProcessPoolExecutor) -> None:
    with volfs.open_store(make_store(tmp_path / "store")) as opened:
        branch = opened["cells"].branch("exp")
        source = opened["cells"]["v2"]["s0"].to_dask()
        with dask.config.set(scheduler="processes", pool=pool):
            da.store(255 - source, branch["s0"], lock=False)
        branch.commit("inverted elsewhere")
        np.testing.assert_array_equal(opened["cells"]["exp~0"]["s0"], 255 - CELLS)


def test_a_version_has_one_name_for_dask_and_a_branch_another_after_a_change(tmp_path: Path) -> None:
    with volfs.open_store(make_store(tmp_path / "store")) as opened:
        cells = opened["cells"]
        assert tokenize(cells["v2"]["s0"]) == tokenize(pickle.loads(pickle.dumps(cells["v2"]["s0"])))
        assert len({tokenize(cells[ref][path]) for ref in ("v1", "v2") for path in ("s0", "s1")}) == 4
        before = tokenize(cells["exp"]["s0"])
        assert tokenize(cells["exp"]["s0"]) == before
        cells["exp"]["s0"][0] = 1
        assert tokenize(cells["exp"]["s0"]) != before


# -- xarray ---------------------------------------------------------------------------------------------------------


def test_a_level_is_xarrays_with_coordinates_in_units(store: volfs.Store) -> None:
    version = store["cells"]["v2"]
    fine, coarse = version["s0"].to_xarray(), version[""]["s1"].to_xarray()
    assert fine.name == "cells" and fine.dims == ("z", "y", "x")
    assert fine.attrs["ref"] == "v2" and fine.attrs["path"] == "s0"
    for name, step in (("z", 40.0), ("y", 4.0), ("x", 4.0)):
        assert fine[name].attrs == {"units": "nanometer"}
        np.testing.assert_allclose(np.diff(fine[name]), step)
        assert fine[name][0] == 0
    np.testing.assert_allclose(coarse["x"][:3], [2.0, 10.0, 18.0])  # centres of two voxels each
    np.testing.assert_array_equal(fine, CELLS)
    assert version["labels/nuclei/s0"].to_xarray().name == "nuclei"
    movie = store["movie"]["main"]["s0"].to_xarray()
    assert movie.dims == ("t", "c", "z", "y", "x") and movie["c"].dtype.kind == "i"


def test_a_place_is_found_by_its_position(level: volfs.Level) -> None:
    lazy = level.to_xarray()
    np.testing.assert_array_equal(lazy.sel(z=119, method="nearest"), CELLS[3])
    np.testing.assert_array_equal(lazy.sel(y=slice(8, 20)), CELLS[:, 2:6])
    picked = lazy.isel(z=xr.DataArray([1, 2]), y=xr.DataArray([3, 4]), x=xr.DataArray([5, 6]))
    np.testing.assert_array_equal(picked, CELLS[[1, 2], [3, 4], [5, 6]])


def indexers(size: int) -> st.SearchStrategy:
    return st.one_of(
        st.integers(-size, size - 1),
        st.builds(slice, *[st.none() | st.integers(-size, size)] * 2, st.sampled_from([None, 1, 3, -2])),
        st.lists(st.integers(-size, size - 1), min_size=1, max_size=4),
        st.lists(st.booleans(), min_size=size, max_size=size).map(np.array),
    )


@settings(max_examples=60)
@given(st.data())
def test_xarray_indexes_a_level_as_it_does_numpy(level: volfs.Level, data: st.DataObject) -> None:
    lazy, plain = level.to_xarray(), xr.DataArray(CELLS, dims=("z", "y", "x"))
    for _ in range(2):  # lazily, one upon the other
        chosen = {name: data.draw(indexers(lazy.sizes[name])) for name in lazy.dims if lazy.sizes[name]}
        lazy, plain = lazy.isel(chosen), plain.isel(chosen)
    np.testing.assert_array_equal(lazy, plain)


def test_nothing_is_read_before_it_is_asked_for(level: volfs.Level, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = volfs.Level._select
    monkeypatch.setattr(volfs.Level, "_select", lambda self, key: asked.append(key.shape) or original(self, key))
    lazy = level.to_xarray()[2, 5:9].transpose("x", "y")
    assert not asked
    np.testing.assert_array_equal(lazy, CELLS[2, 5:9].T)
    assert asked == [(1, 4, 50)]


def test_an_image_is_a_tree_of_its_levels(store: volfs.Store) -> None:
    tree = store["cells"]["v2"]["labels/nuclei"].to_datatree()
    assert sorted(tree.children) == ["s0", "s1"] and tree.name == "nuclei"
    np.testing.assert_array_equal(tree["s0/nuclei"], NUCLEI)
    assert tree["s1"]["nuclei"].shape == (20, 20, 25)


def test_xarray_opens_a_level_by_url(store: volfs.Store) -> None:
    with xr.open_dataset(f"volfs://cells@v2/zarr/s0::{store.path}", engine="volfs") as opened:
        np.testing.assert_array_equal(opened["cells"], CELLS)
        assert opened["z"].attrs["units"] == "nanometer"
    with xr.open_dataset(f"volfs://cells@v2/zarr/labels/nuclei/s1::{store.path}", chunks={}) as opened:
        assert opened["nuclei"].chunks == ((20,), (20,), (25,))
        np.testing.assert_array_equal(opened["nuclei"], store["cells"]["v2"]["labels/nuclei/s1"])
    for url in (f"volfs://cells@v2/zarr::{store.path}", f"volfs://cells@v2::{store.path}"):
        with pytest.raises(NotFound, match="s0, s1"):
            xr.open_dataset(url, engine="volfs")
        with xr.open_datatree(url, engine="volfs") as tree:
            np.testing.assert_array_equal(tree["s0/cells"], CELLS)


def test_xarray_of_a_level_goes_to_other_processes(level: volfs.Level, pool: ProcessPoolExecutor) -> None:
    twin = pickle.loads(pickle.dumps(level.to_xarray()))
    np.testing.assert_array_equal(twin, CELLS)
    with dask.config.set(scheduler="processes", pool=pool):
        np.testing.assert_array_equal(level.to_xarray().chunk({"z": 10}).mean("z").compute(), CELLS.mean(0))


@pytest.mark.parametrize(("package", "call"), [("dask", "to_dask"), ("xarray", "to_xarray")])
def test_what_is_not_installed_is_said_with_the_way_to_install_it(store: volfs.Store, package: str, call: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        f"import volfs; level = volfs.open_store({str(store.path)!r}, read_only=True)['cells']['v2']['s0']\n"
        f"try: level.{call}()\nexcept volfs.VolfsError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.strip().endswith("pip install 'volfs[arrays]'")
