"""Plates of wells of fields (OME-NGFF HCS), written by ome-zarr into a mount, seen as directories of images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tifffile
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr.writer import write_image, write_plate_metadata, write_well_metadata

from tests.kits.mounts import volfs
from volfs.testing.kit import image, mounted


def test_wells_and_fields_are_directories_of_images(tmp_path: Path) -> None:
    store = tmp_path / "store"
    volfs(store, "init")
    with mounted(store, tmp_path / "mnt") as mount:
        volfs(store, "import", "seed", _seed(tmp_path))
        root = zarr.open_group(str(mount / "seed/branches/main/zarr"), mode="r+")
        plate = root.create_group("plate")
        wells, fields = ("A/1", "B/3"), ("0", "1")
        write_plate_metadata(plate, ["A", "B"], ["1", "2", "3"], [{"path": path, "rowIndex": "AB".index(path[0]),
                             "columnIndex": int(path[-1]) - 1} for path in wells])  # fmt: skip
        pictures = {}
        for seed, well in enumerate(wells):
            group = plate.require_group(well)
            write_well_metadata(group, list(fields))
            for number, field in enumerate(fields):
                voxels = pictures[well, field] = image((2, 3, 50, 60), "uint16", 10 * seed + number)
                write_image(voxels, group.require_group(field), axes="czyx", scaler=None)
        volfs(store, "commit", "seed", "-m", "a plate")
        version = mount / "seed/versions/v2"
        assert sorted(path.name for path in (version / "plate").iterdir()) == ["A", "B"]
        for (well, field), voxels in pictures.items():
            place = version / "plate" / well / field
            np.testing.assert_array_equal(np.load(place / "s0/volume.npy"), voxels)
            np.testing.assert_array_equal(tifffile.imread(place / "s0/c01/xy/z00002.tif"), voxels[1, 2])
            assert json.loads((place / "s0/info.json").read_text())["shape"] == [2, 3, 50, 60]
        for path in (version / "zarr/plate", version / "formats/seed.v2.zarr/plate"):
            location = parse_url(str(path), mode="r")
            assert location is not None
            [first, *_] = list(Reader(location)())
            assert np.count_nonzero(np.asarray(first.data[0])) > 0


def _seed(tmp_path: Path) -> Path:
    path = tmp_path / "seed.npy"
    np.save(path, image((4, 20, 30)))
    return path
