"""``volfs export``: what a mount shows, without a mount. Judged by other people's libraries, and by the tree itself."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
import tensorstore
import tifffile
import zarr
from PIL import Image

import volfs
from tests.kits.cells import CELLS, NUCLEI, make_store
from tests.kits.mounts import answer, refused
from tests.kits.mounts import volfs as command
from tests.kits.trees import run, serving
from volfs.errors import AlreadyThere, Damaged
from volfs.export import FILES, FOLDERS, Wanted, export, wanted


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("export") / "store")


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "imagej.tif"])
def test_a_file_has_the_bytes_that_a_mount_shows(store: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / f"cells.{kind}"
    command(store, "export", "cells@v1", out)

    async def work() -> None:
        async with serving(store) as client:
            assert await client.read(f"cells/versions/v1/s0/volume.{kind}") == out.read_bytes()

    run(work)
    beside = {"raw": [f"{out.name}.json"], "nhdr": ["volume.raw"]}.get(kind, [])
    assert sorted(os.listdir(tmp_path)) == sorted([out.name, *beside])


@pytest.mark.parametrize("axes", ["czyx", "tzyx", "tczyx", "cyx", "atczyx"])
def test_slices_of_an_image_with_channels_and_time_points_are_in_directories(tmp_path: Path, axes: str) -> None:
    sizes = {"a": 2, "t": 3, "c": 2, "z": 4, "y": 6, "x": 5}
    data = np.arange(np.prod([sizes[a] for a in axes]), dtype="u2").reshape([sizes[a] for a in axes])
    np.save(tmp_path / "d.npy", data)
    command(tmp_path / "store", "init")
    command(tmp_path / "store", "import", "d", tmp_path / "d.npy", "--axes", axes)
    plane = "xz" if "z" in axes else "xy"
    command(tmp_path / "store", "export", "d", tmp_path / "out", "-f", "slices", "--plane", plane)
    others = [a for a in axes if a not in "zyx"]
    width = {"t": 4, "c": 2, "a": 2}
    written = sorted(path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.png"))
    for at in np.ndindex(*(sizes[a] for a in others)):
        home = "/".join(f"{a}{i:0{width[a]}}" for a, i in zip(others, at, strict=True))
        found = [path for path in written if str(path.parent) == home]
        planes = np.moveaxis(data[at], 1, 0) if plane == "xz" else data[at][None]
        assert len(found) == len(planes)
        for path, expected in zip(found, planes, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / path)), expected)
    assert len(written) == np.prod([sizes[a] for a in others]) * (6 if plane == "xz" else 1)


def test_anything_else_by_its_path(store: Path, tmp_path: Path) -> None:
    command(store, "export", "cells@v1", tmp_path / "a.npy", "--path", "s0/xz/y00003.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), CELLS[:, 3])
    command(store, "export", "cells@v1", tmp_path / "b.nrrd", "--path", "s0/cutout/z1-3.nrrd")
    command(store, "export", "cells@v1", tmp_path / "c.nhdr", "--box", "z1-3")
    data, _ = nrrd.read(str(tmp_path / "c.nhdr"), index_order="C")
    np.testing.assert_array_equal(data, CELLS[1:3])
    assert "there is no" in refused(store, "export", "cells", tmp_path / "d", "--path", "s0/nothing")
    assert "--path" in refused(store, "export", "cells", tmp_path / "d", "--path", "s0", "--box", "z1")


def test_files_are_read_by_their_own_libraries(store: Path, tmp_path: Path) -> None:
    command(store, "export", "cells", tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), CELLS)
    command(store, "export", "cells/labels/nuclei", tmp_path / "b.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), NUCLEI)
    command(store, "export", "cells", tmp_path / "c.nii", "--box", "z1-4_y2-9")
    np.testing.assert_array_equal(np.asanyarray(nibabel.load(tmp_path / "c.nii").dataobj), CELLS[1:4, 2:9].T)
    command(store, "export", "cells", tmp_path / "d.npy", "--level", "s1")
    assert np.load(tmp_path / "d.npy").shape == tuple(-(-n // 2) for n in CELLS.shape)


def test_directories_are_read_by_their_own_libraries(store: Path, tmp_path: Path) -> None:
    command(store, "export", "cells", tmp_path / "a.zarr")
    np.testing.assert_array_equal(zarr.open_group(str(tmp_path / "a.zarr"), mode="r")["s0"][...], CELLS)  # type: ignore[index]
    command(store, "export", "cells", tmp_path / "b.zarr", "--format", "zarr2")
    group = zarr.open_group(str(tmp_path / "b.zarr"), mode="r", zarr_format=2)
    np.testing.assert_array_equal(group["s0"][...], CELLS)  # type: ignore[index]
    command(store, "export", "cells", tmp_path / "bdv", "--format", "bdv")
    assert sorted(os.listdir(tmp_path / "bdv")) == ["cells.n5", "cells.xml"]
    place = {"driver": "file", "path": str(tmp_path / "bdv/cells.n5/setup0/timepoint0/s0")}
    found = tensorstore.open({"driver": "n5", "kvstore": place}).result().read().result()
    np.testing.assert_array_equal(found.transpose(), CELLS)
    command(store, "export", "cells", tmp_path / "slices", "--format", "slices", "--plane", "xz")
    assert len(os.listdir(tmp_path / "slices")) == CELLS.shape[1]
    with Image.open(tmp_path / "slices/y00003.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), CELLS[:, 3])


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_directory_has_the_files_that_a_mount_shows(store: Path, tmp_path: Path, kind: str) -> None:
    command(store, "export", "cells@v1", tmp_path / "out", "--format", kind)
    found = everything(tmp_path / "out")
    assert found

    async def work() -> None:
        async with serving(store) as client:
            for name, data in found.items():
                assert await client.read(f"cells/versions/v1/formats/cells{FOLDERS[kind]}/{name}") == data

    run(work)


def test_what_is_there_is_replaced_only_on_request(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "cells.npy"
    out.write_text("precious")
    assert "--overwrite" in refused(store, "export", "cells", out)
    assert out.read_text() == "precious"
    command(store, "export", "cells", out, "--overwrite")
    np.testing.assert_array_equal(np.load(out), CELLS)
    folder = tmp_path / "out.zarr"
    folder.mkdir()
    (folder / "old").touch()
    command(store, "export", "cells", folder, "--overwrite")
    assert not (folder / "old").exists() and (folder / "zarr.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cells", "out.docx"], "say --format"),
        (["cells", "out", "--format", "n5", "--box", "z1"], "--box cuts files"),
        (["cells@v77", "out.npy"], "v77"),
        (["nothing", "out.npy"], "nothing"),
        (["cells/nowhere", "out.npy"], "no image"),
        (["cells", "out.npy", "--level", "s7"], "s0, s1"),
        (["cells", "out.npy", "--box", "z9999"], "z9999"),
        (["cells", "no/such/out.npy"], "does not exist"),
        (["cells:zarr/s0", "out.npy"], "DATASET"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(store, "export", *arguments)
    assert not os.listdir(tmp_path)


def test_the_answer_in_json(store: Path, tmp_path: Path) -> None:
    assert answer(store, "export", "cells", tmp_path / "a.npy") == {
        "paths": [str(tmp_path / "a.npy")],
        "files": 1,
        "bytes": (tmp_path / "a.npy").stat().st_size,
    }


def test_a_damaged_chunk_ends_an_export_and_leaves_nothing(tmp_path: Path) -> None:
    path = make_store(tmp_path / "store")
    shard = max((path / "datasets/cells/versions/00000001/zarr/s0").rglob("c*"), key=lambda p: p.stat().st_size)
    shard = next(p for p in shard.rglob("*") if p.is_file()) if shard.is_dir() else shard
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    places = tmp_path / "places"
    places.mkdir()
    with volfs.open_store(path, read_only=True) as opened:
        snapshot = opened["cells"].snapshot("v1")
        for kind, name in (("npy", "a.npy"), ("n5", "a.n5"), ("slices", "slices")):
            with pytest.raises((Damaged, OSError)):
                export(opened, wanted(snapshot, "", kind, places / name), lambda done, total: None)
            assert not os.listdir(places)


def test_progress_adds_up(store: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with volfs.open_store(store, read_only=True) as opened:
        jobs = wanted(opened["cells"].snapshot("v1"), "", "slices", tmp_path / "out")
        copied = export(opened, jobs, lambda done, total: told.append((done, total)))
        with pytest.raises(AlreadyThere):
            export(opened, [Wanted(tmp_path / "out", jobs[0].path)], lambda done, total: None)
    assert copied.files == CELLS.shape[0] and told[-1] == (copied.bytes, copied.bytes)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_missing_chunks_are_holes(tmp_path: Path) -> None:
    with volfs.init_store(tmp_path / "store") as store:
        branch = store.create_dataset("hollow").branch("main")
        array = zarr.create_array(
            branch.zarr_store(), name="a", shape=(64, 1024, 1024), chunks=(16, 64, 64), dtype="u1"
        )
        array[3, 5, 7] = 9
        branch.commit("one voxel")
        export(store, wanted(store["hollow"].snapshot("v1"), "a", "npy", tmp_path / "a.npy"), lambda done, total: None)
    found = tmp_path / "a.npy"
    assert found.stat().st_size > 64 << 20 and found.stat().st_blocks * 512 < 16 << 20
    data = np.load(found, mmap_mode="r")
    assert data[3, 5, 7] == 9 and np.count_nonzero(data) == 1
