"""``volfs import --dry-run``: what is said is what an import then makes, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

import volfs
from tests.kits.mounts import answer, refused
from tests.kits.mounts import volfs as command
from volfs.testing.volumes import noise
from volfs.volume.image import image_at


def files(store: Path) -> dict[str, bytes]:
    """All that is in a store, but for the files that SQLite makes for readers as well."""
    found = (path for path in store.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal")))
    return {str(path.relative_to(store)): path.read_bytes() for path in found}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    command(tmp_path / "store", "init")
    return tmp_path / "store"


def sources(tmp_path: Path) -> dict[str, tuple[Path, list[str]]]:
    np.save(tmp_path / "plain.npy", noise((70, 90, 130), "u2"))
    tifffile.imwrite(
        tmp_path / "hyper.tif",
        noise((3, 2, 30, 40), "u1"),
        imagej=True,
        resolution=(4.0, 4.0),
        metadata={"axes": "ZCYX", "unit": "um", "spacing": 2.0, "Overlays": [b"one"]},
    )
    np.save(tmp_path / "mask.npy", noise((20, 30, 40), "u1").astype("f4"))
    return {
        "plain": (tmp_path / "plain.npy", []),
        "sized": (tmp_path / "plain.npy", ["--voxel-size", "40,4,4nm", "--chunks", "16,32,32", "--shard", "64"]),
        "hyper": (tmp_path / "hyper.tif", ["--levels", "2"]),
        "mask": (tmp_path / "mask.npy", ["--labels", "--axes", "zyx"]),
    }


@pytest.mark.parametrize("name", ["plain", "sized", "hyper", "mask"])
@pytest.mark.parametrize("there", [False, True])
def test_what_a_dry_run_says_is_what_an_import_makes(tmp_path: Path, store: Path, name: str, there: bool) -> None:
    if there:
        np.save(tmp_path / "old.npy", noise((8, 9), "i2"))
        command(store, "import", "d", tmp_path / "old.npy")
    path, options = sources(tmp_path)[name]
    before = files(store)
    said: dict[str, Any] = answer(store, "import", "d", path, *options, "--dry-run")
    people = command(store, "import", "d", path, *options, "--dry-run").stdout
    assert files(store) == before
    assert said["new_dataset"] is not there
    [image] = said["images"]
    assert image["replaces"] == ("the image of v1, 8 x 9 int16" if there else None)
    made = answer(store, "import", "d", path, *options)
    assert made["remarks"] == said["remarks"]
    with volfs.open_store(store) as opened:
        found = image_at(opened["d"]["latest"], "")
        assert found is not None
        assert [a["name"] for a in image["axes"]] == [a.name for a in found.axes]
        assert [a["unit"] for a in image["axes"]] == [a.unit for a in found.axes]
        assert [a["voxel_size"] for a in image["axes"]] == list(found.levels[0].scale)
        assert image["labels"] == found.is_label and image["dtype"] == found.levels[0].dtype.name
        assert len(image["levels"]) == len(found.levels)
        for level, one in zip(image["levels"], found.levels, strict=True):
            assert tuple(level["shape"]) == one.shape and tuple(level["chunks"]) == one.chunk_shape
        assert image["bytes"] == found.levels[0].nbytes
        assert image["bytes_of_all_levels"] == sum(level.nbytes for level in found.levels)
        for text in (" x ".join(map(str, found.levels[0].shape)), " x ".join(map(str, found.levels[0].chunk_shape))):
            assert text in people
    assert ("the image of v1" if there else "nothing: a new dataset") in people


def test_label_images_that_come_along_are_said(tmp_path: Path, store: Path) -> None:
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]

    def write(path: Path, data: np.ndarray) -> None:
        group = zarr.open_group(path, mode="a")
        step = [{"type": "scale", "scale": [2.0, 1.0, 1.0]}]
        block = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": step}]}
        group.attrs["ome"] = {"version": "0.5", "multiscales": [block]}
        group.create_array("0", data=data)

    write(tmp_path / "a.zarr", noise((8, 9, 10), "u2"))
    zarr.open_group(tmp_path / "a.zarr" / "labels", mode="a").attrs["ome"] = {"version": "0.5", "labels": ["cells"]}
    write(tmp_path / "a.zarr" / "labels" / "cells", noise((8, 9, 10), "u4"))
    said = answer(store, "import", "d/raw", tmp_path / "a.zarr", "--dry-run")
    assert [(i["path"], i["labels"], i["dtype"]) for i in said["images"]] == [
        ("raw", False, "uint16"),
        ("raw/labels/cells", True, "uint32"),
    ]


def test_what_an_import_would_refuse_a_dry_run_refuses(tmp_path: Path, store: Path) -> None:
    np.save(tmp_path / "a.npy", noise((8, 9, 10), "u2"))
    np.save(tmp_path / "f.npy", np.full((4, 5, 6), 0.5))
    for options, why in (
        (["d", tmp_path / "a.npy", "--axes", "zy"], "3 axes"),
        (["d", tmp_path / "a.npy", "--shard", "5"], "whole number of chunks"),
        (["d", tmp_path / "f.npy", "--labels"], "whole"),
        (["d", tmp_path / "none.npy"], "does not exist"),
        (["d@v1", tmp_path / "a.npy"], "default branch"),
    ):
        assert why in refused(store, "import", *options, "--dry-run")
    assert not (store / "datasets" / "d").exists()


def test_an_import_says_the_type_that_voxels_are_kept_in(tmp_path: Path, store: Path) -> None:
    for name, (path, options) in sources(tmp_path).items():
        said = command(store, "import", name, path, *options).stdout.splitlines()[-1]
        image = image_at(volfs.open_store(store)[name]["latest"], "")
        assert image is not None and said.endswith(f" {image.levels[0].dtype.name}"), said
