"""Pictures and masks of what differs, through a real mount, judged by programs that are not ours."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as Picture

import volfs
from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.source import ArraySource
from volfs.model.box import Box
from volfs.testing.kit import mounted

SHAPE = (24, 40, 36)
OLD = np.random.default_rng(5).integers(0, 4000, SHAPE).astype("u2")
NEW = OLD.copy()
NEW[2:7, 3:9, 4:30] += 77
NEW[20, 30:, :5] //= 2
DIFFER = OLD != NEW


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("diffs")
    with volfs.init_store(root / "store") as store:
        import_source(store, "cells", "", ArraySource(OLD, "image"), ImportOptions(chunks=(8, 16, 16), levels=2))
        branch = store["cells"].branch("main")
        volfs.images(branch)[""].levels[0].write(Box.whole(SHAPE), NEW)
        branch.put("files/notes.txt", b"brighter\n")
        branch.commit("brighter")
    with mounted(root / "store", root / "mnt") as mount:
        yield mount / "cells" / "diffs"


def test_the_link_leads_to_what_may_be_kept(shown: Path) -> None:
    assert os.readlink(shown / "main~1..main") == "v1..v2"
    assert os.path.samefile(shown / "main~1..main", shown / "v1..v2")
    assert os.listdir(shown) == []
    said = json.loads((shown / "main~1..main" / "summary.json").read_text())
    assert {change["key"] for change in said["changes"]} == {"files/notes.txt", "zarr/s0", "zarr/s1"}
    text = (shown / "v1..v2" / "changed.txt").read_text()
    assert "+brighter" in text and (shown / "v1..v2" / "changed.txt").stat().st_size == len(text)


@pytest.mark.parametrize(("plane", "axis", "letter"), [("xy", 0, "z"), ("xz", 1, "y"), ("yz", 2, "x")])
def test_pillow(shown: Path, plane: str, axis: int, letter: str) -> None:
    for at in (4, 20):
        before, now = (np.take(one, at, axis=axis) for one in (OLD, NEW))
        with Picture.open(shown / f"v1..v2/s0/{plane}/{letter}{at:05d}.png") as picture:
            assert picture.mode == "RGB"
            pixels = np.asarray(picture).astype(int)
        coloured = (pixels != pixels[..., :1]).any(axis=-1)
        assert (coloured == (before != now)).all()
        grew, shrank = now > before, now < before
        assert (pixels[grew][:, 0] > pixels[grew][:, 2]).all() and (pixels[shrank][:, 0] < pixels[shrank][:, 2]).all()
        with Picture.open(shown / f"v1..v2/mask/s0/{plane}/{letter}{at:05d}.png") as picture:
            assert (np.asarray(picture) == (before != now)).all()


def test_tifffile_nibabel_and_numpy(shown: Path) -> None:
    level = shown / "v1..v2/mask/s0"
    assert (tifffile.imread(level / "volume.tif") == DIFFER).all()
    assert (np.asarray(nibabel.load(level / "volume.nii").dataobj).T == DIFFER).all()
    assert (np.load(level / "volume.npy", mmap_mode="r") == DIFFER).all()
    assert (tifffile.imread(level / "cutout/z2-9_y0-20_x4-30.tif") == DIFFER[2:9, :20, 4:30]).all()


def test_zarr_python(shown: Path) -> None:
    found = shown / "v1..v2"
    assert (zarr.open_array(found / "zarr/mask/s0", mode="r")[:] == DIFFER).all()
    assert (zarr.open_array(found / "mask/s0/chunks", mode="r")[:] == DIFFER).all()
    (name,) = [name for name in os.listdir(found / "mask/formats") if name.endswith(".v2.zarr")]
    group = zarr.open_group(found / "mask/formats" / name, mode="r", zarr_format=2)
    arrays = [array for _, array in group.arrays()]
    assert any(array.shape == SHAPE and (array[:] == DIFFER).all() for array in arrays)
    coarse = zarr.open_array(found / "zarr/mask/s1", mode="r")[:]
    with_levels = [volume for volume in (found / "mask").iterdir() if volume.name in ("s0", "s1")]
    assert coarse.shape == zarr.open_array(found / "mask/s1/chunks", mode="r").shape and len(with_levels) == 2


def test_nothing_in_it_can_be_changed(shown: Path) -> None:
    for path in ("summary.json", "s0/xy/z00000.png", "mask/s0/volume.npy", "zarr/mask/s0/zarr.json"):
        with pytest.raises(OSError):
            (shown / "v1..v2" / path).write_bytes(b"x")
    for path in (shown / "x", shown / "v1..v2" / "x"):
        with pytest.raises(OSError):
            path.mkdir()
        with pytest.raises(OSError):
            path.write_bytes(b"")
