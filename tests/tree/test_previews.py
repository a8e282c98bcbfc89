"""Previews through the tree: in a branch and in a version, the window is what the image's metadata say."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

import volfs
from tests.kits.cells import CELLS, CHUNKS, add
from tests.kits.trees import run, serving
from volfs.views.colour import Window, windowed


def assert_shown(data: bytes, voxels: np.ndarray, window: Window) -> None:
    picture = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert np.abs(picture - windowed(voxels, window)).mean() < 4


def test_a_window_in_the_metadata_counts_for_every_slice_and_level_in_a_branch_and_committed(tmp_path: Path) -> None:
    with volfs.init_store(tmp_path / "store") as store:
        add(store, "cells", "", CELLS, "zyx", voxel_size="4,4,4nm", chunks=CHUNKS, levels=2)

    async def work() -> None:
        async with serving(tmp_path / "store") as client:
            main = "cells/branches/main"
            before = await client.read("cells/versions/v1/s0/xy/z00007.jpg")
            group = json.loads(await client.read(f"{main}/zarr/zarr.json"))
            group["attributes"]["ome"]["omero"] = {"channels": [{"window": {"start": 60, "end": 110}}]}
            await client.write(f"{main}/zarr/zarr.json", json.dumps(group).encode())
            assert_shown(await client.read(f"{main}/s0/xy/z00007.jpg"), CELLS[7], (60, 110))
            await client.order(f"{main}/.volfs/commit", "a window")
            for at in (7, 12):
                assert_shown(await client.read(f"cells/versions/v2/s0/xy/z{at:05}.jpg"), CELLS[at], (60, 110))
            coarse = np.load(io.BytesIO(await client.read("cells/versions/v2/s1/xz/y00003.npy")))
            assert_shown(await client.read("cells/versions/v2/s1/xz/y00003.jpg"), coarse, (60, 110))
            assert await client.read("cells/versions/v1/s0/xy/z00007.jpg") == before
            times = [(await client.stat(f"cells/versions/{v}/s0/xy/z00007.jpg")).mtime for v in ("v1", "v2")]
            assert times[0] < times[1], "a preview is of the time of its window"

    run(work)
