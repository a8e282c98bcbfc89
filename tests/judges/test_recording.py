"""A microscope's writer, acquire-zarr, records into a mounted branch, and others look at it meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import acquire_zarr as az
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.kits.mounts import volfs
from volfs.testing.kit import mounted
from volfs.testing.waiting import until

HEIGHT, WIDTH = 96, 128
SHARD = 8
"""Frames in a shard."""
FRAMES = np.random.default_rng(5).integers(0, 256, (3 * SHARD, HEIGHT, WIDTH), np.uint8)


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The branch of a mounted dataset that has one small image."""
    root = tmp_path_factory.mktemp("recording")
    np.save(root / "seed.npy", FRAMES[:2])
    volfs(root / "store", "init")
    volfs(root / "store", "import", "scope", root / "seed.npy", "--levels", "1")
    with mounted(root / "store", root / "mnt") as mount:
        yield Path(mount) / "scope/branches/main"


def stream(place: Path) -> az.ZarrStream:
    """A stream of frames with coarser levels, a shard for every few of them."""
    kinds = az.DimensionType.TIME, az.DimensionType.SPACE, az.DimensionType.SPACE
    sizes = (0, 4, SHARD // 4), (HEIGHT, 32, 3), (WIDTH, 32, 4)
    dimensions = [
        az.Dimension(name=name, kind=kind, array_size_px=size, chunk_size_px=chunk, shard_size_chunks=shard)
        for name, kind, (size, chunk, shard) in zip("tyx", kinds, sizes, strict=True)
    ]
    array = az.ArraySettings(
        dimensions=dimensions, data_type=az.DataType.UINT8, downsampling_method=az.DownsamplingMethod.MEAN
    )
    return az.ZarrStream(az.StreamSettings(store_path=str(place), arrays=[array], overwrite=True))


def picture(path: Path) -> npt.NDArray[np.uint8]:
    """A slice; of no size while it is not there."""
    try:
        with Image.open(path) as opened:
            return np.asarray(opened)
    except FileNotFoundError:
        return np.zeros((0, 0), np.uint8)


def test_a_pyramid_is_seen_while_it_is_recorded(main: Path) -> None:
    recording = stream(main / "zarr/rec")
    for frame in FRAMES[: 2 * SHARD]:
        recording.append(frame)
    until(lambda: np.array_equal(picture(main / "rec/s0/t0000/xy/z00000.png"), FRAMES[0]), "the first frame")
    assert not (main / "zarr/rec/zarr.json").exists() or "ome" not in json.loads(
        (main / "zarr/rec/zarr.json").read_text()
    ).get("attributes", {})
    levels = sorted(each.name for each in (main / "rec").iterdir() if each.name.startswith("s"))
    assert levels[0] == "s0" and len(levels) > 1
    about = json.loads((main / "rec/s0/info.json").read_text())
    assert about["provisional"] is True and about["axes"] == ["t", "y", "x"]
    inodes = {name: (main / "rec" / name).stat().st_ino for name in levels}
    for frame in FRAMES[2 * SHARD :]:
        recording.append(frame)
    recording.close()
    until(
        lambda: "provisional" not in json.loads((main / "rec/s0/info.json").read_text()), "the recording's own metadata"
    )
    assert {name: (main / "rec" / name).stat().st_ino for name in levels} == inodes
