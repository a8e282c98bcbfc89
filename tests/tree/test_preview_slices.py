"""``preview/``: every slice of every level as an 8-bit PNG of exact size that Pillow opens; labels in their colours."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import volfs
from tests.kits.cells import add
from tests.kits.trees import Client, run, serving
from volfs.errors import NotAllowed, ReadOnly
from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.source import ArraySource
from volfs.model.facts import omero
from volfs.testing.volumes import image, segmentation
from volfs.views import eight_bits
from volfs.views.colour import pseudo_colour, robust_window, windowed
from volfs.views.slices import SliceGeometry

SHAPE = (20, 40, 50)
DEEP = image(SHAPE, "uint16")
REAL = image((2, 2, *SHAPE[1:]), "float32")
LABELS = segmentation(SHAPE, "uint64") * np.uint64(2**33)
LABELS[5, :8, :9] = 4
COLOURS = [{"label-value": 4, "rgba": [255, 128, 0, 255]}, {"label-value": 0, "rgba": [10, 20, 30, 255]}]
SMALL = {"chunks": (16, 16, 16), "levels": 2}
MAIN = "cells/branches/main"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Images of types that picture viewers do not show: 16 bits, real numbers with channels, labels of 64 bits."""
    root = tmp_path_factory.mktemp("previews") / "store"
    with volfs.init_store(root) as made:
        add(made, "cells", "", DEEP, "zyx", **SMALL)
        coloured = ArraySource(LABELS)
        coloured.description = _with(coloured.description, {"image-label": {"colors": COLOURS}})
        import_source(made, "cells", "labels/nuclei", coloured, ImportOptions(axes="zyx", labels=True, **SMALL))
        real = ArraySource(REAL)
        real.description = _with(real.description, {"omero": omero(windows=[(0.0, 2.0), (0.0, 4.0)])})
        import_source(made, "cells", "real", real, ImportOptions(axes="czyx", chunks=(1, 1, 40, 50), levels=1))
    yield root


def _with(description: Any, ome: dict[str, Any]) -> Any:
    return replace(description, ome=ome)


def shown(data: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(data))
    picture.verify()
    return np.asarray(Image.open(io.BytesIO(data)))


async def exact(client: Client, path: str) -> np.ndarray:
    return np.load(io.BytesIO(await client.read(path)))


def test_each_plane_of_each_level_has_a_preview_of_the_size_that_is_listed(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            for snapshot in ("cells/versions/v3", MAIN):
                for folder, colours in (("s0", 1), ("s1", 1), ("labels/nuclei/s0", 3), ("labels/nuclei/s1", 3)):
                    level = f"{snapshot}/{folder}"
                    assert {"xy", "xz", "yz", "preview"} <= set(await client.ls(level))
                    assert set(await client.ls(f"{level}/preview")) == {"xy", "xz", "yz"}
                    for plane in ("xy", "xz", "yz"):
                        listed = await client.ls(f"{level}/preview/{plane}")
                        voxels = await client.ls(f"{level}/{plane}")
                        assert [name.partition(".")[0] for name in listed] == [n.partition(".")[0] for n in voxels]
                        name, attr = list(listed.items())[3]
                        assert name.endswith(".png") and attr.mode & 0o777 == 0o444
                        picture = shown(await client.read(f"{level}/preview/{plane}/{name}", attr=attr))
                        assert picture.dtype == np.uint8 and picture[..., None].shape[2] == colours
                        assert picture.shape[:2] == (await exact(client, f"{level}/{plane}/{name[:-3]}npy")).shape

    run(work)


def test_intensities_are_stretched_over_one_window_for_all_planes_and_levels(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            coarse = np.stack(
                [await exact(client, f"cells/versions/v3/s1/xy/z{z:05}.npy") for z in range(SHAPE[0] // 2)]
            )
            window = robust_window(coarse)
            for path, voxels in (("s0/preview/xy/z00007.png", DEEP[7]), ("s0/preview/yz/x00011.png", DEEP[:, :, 11])):
                for snapshot in ("cells/versions/v3", MAIN):
                    assert (shown(await client.read(f"{snapshot}/{path}")) == windowed(voxels, window)).all()
            assert (shown(await client.read(f"{MAIN}/s1/preview/xy/z00003.png")) == windowed(coarse[3], window)).all()
            for channel in (0, 1):
                path = f"cells/versions/v3/real/s0/c{channel:02}/preview/xy/z00001.png"
                assert (shown(await client.read(path)) == windowed(REAL[channel, 1], (0, 2 + 2 * channel))).all()

    run(work)


def test_labels_have_the_colours_of_the_metadata_or_their_own_on_every_slice_and_in_the_thumbnail(store: Path) -> None:
    expected = pseudo_colour(LABELS)
    expected[LABELS == 4] = 255, 128, 0
    expected[LABELS == 0] = 10, 20, 30
    assert len(np.unique(expected.reshape(-1, 3), axis=0)) > 4

    async def work() -> None:
        async with serving(store) as client:
            for snapshot in ("cells/versions/v3", MAIN):
                level = f"{snapshot}/labels/nuclei/s0"
                assert (shown(await client.read(f"{level}/preview/xy/z00005.png")) == expected[5]).all()
                assert (shown(await client.read(f"{level}/preview/xz/y00003.png")) == expected[:, 3]).all()
                # A plane of such labels has no exact PNG: by that name it opens in colour, and is not listed.
                assert "z00005.png" not in await client.ls(f"{level}/xy")
                assert (shown(await client.read(f"{level}/xy/z00005.png")) == expected[5]).all()
                # Beyond what a small read asks for at once, and from the middle.
                attr = await client.stat(f"{level}/preview/xy/z00005.png")
                whole = await client.read(f"{level}/preview/xy/z00005.png", attr=attr)
                fh = await client.open(f"{level}/preview/xy/z00005.png")
                assert bytes(await client.call("read", fh, 1001, 997)) == whole[1001:1998]
                await client.close(fh)
                listed = await client.ls(f"{snapshot}/labels/nuclei")
                small = shown(
                    await client.read(f"{snapshot}/labels/nuclei/thumbnail.png", attr=listed["thumbnail.png"])
                )
                assert {tuple(colour) for colour in small.reshape(-1, 3)} <= {
                    tuple(colour) for colour in expected[SHAPE[0] // 2].reshape(-1, 3)
                }
                jpeg = shown(await client.read(f"{level}/xy/z00005.jpg")).astype(int)
                assert np.abs(jpeg - expected[5]).mean() < 25

    run(work)


def test_previews_follow_what_is_written_and_cannot_be_written(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            path, version = f"{MAIN}/labels/nuclei/s0/preview/xy/z00009.png", "cells/versions/v3/labels/nuclei/s0"
            before = await client.stat(path)
            changed = LABELS[9].copy()
            changed[:20] = 4
            out = io.BytesIO()
            np.save(out, changed)
            await client.write(f"{MAIN}/labels/nuclei/s0/xy/z00009.npy", out.getvalue())
            assert (shown(await client.read(path))[:20] == (255, 128, 0)).all()
            assert (await client.stat(path)).mtime > before.mtime
            group = json.loads(await client.read(f"{MAIN}/zarr/labels/nuclei/zarr.json"))
            group["attributes"]["ome"]["image-label"]["colors"][0]["rgba"] = [0, 0, 255, 128]
            earlier = await client.stat(path)
            await client.write(f"{MAIN}/zarr/labels/nuclei/zarr.json", json.dumps(group).encode())
            assert (shown(await client.read(path))[:20] == (0, 0, 128)).all()
            assert (await client.stat(path)).mtime > earlier.mtime
            named = f"{MAIN}/labels/nuclei/s0/xy/z00009.png"
            for refused, error in ((path, NotAllowed), (named, NotAllowed), (f"{version}/xy/z00009.png", ReadOnly)):
                with pytest.raises(error):
                    await client.write(refused, b"no picture")
            assert not (await client.status())["rejected"] and not (await client.status())["staged"]
            await client.order(f"{MAIN}/.volfs/discard", "all")

    run(work)


def test_differences_have_previews_and_no_thumbnails(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            diff = "cells/diffs/v2..v3"
            assert (await client.read(f"{diff}/s0/preview/xy/z00003.png")) and "preview" in await client.ls(
                f"{diff}/s0"
            )
            assert shown(await client.read(f"{diff}/s0/preview/xy/z00003.png")).shape == (*SHAPE[1:], 3)
            for folder in (diff, f"{diff}/mask", f"{diff}/labels/nuclei"):
                assert "thumbnail.png" not in await client.ls(folder)

    run(work)


@pytest.mark.parametrize(("names", "shape", "rgb", "picture"), [
    ("zyxc", (3, 40, 50, 4), True, (3, 40, 50, 3)),
    ("czyx", (3, 3, 40, 50), True, (3, 3, 40, 50)),
    ("zyxc", (3, 40, 50, 2), True, (3, 40, 50, 1)),
    ("zyx", (3, 40, 50), False, (3, 40, 50)),
])  # fmt: skip
def test_pictures_of_colour_images_have_three_samples_or_one(
    names: str, shape: tuple[int, ...], rgb: bool, picture: tuple[int, ...]
) -> None:
    geometry = SliceGeometry.of(names, shape, np.dtype(np.uint16), rgb=rgb)
    assert geometry is not None and eight_bits.shown_geometry(geometry, is_label=False).shape == picture
    assert eight_bits.holds(geometry, "xy", is_label=False)
    wide = SliceGeometry.of("zyx", (2, 5, 1_000_001), np.dtype(np.uint64))
    assert wide is not None and not eight_bits.holds(wide, "xy", is_label=True)
