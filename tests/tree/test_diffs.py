"""``diffs/A..B``: numpy's difference of the two versions is what every picture and every mask shows."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

import volfs
from tests.kits.trees import run, serving
from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.source import ArraySource
from volfs.model.box import Box
from volfs.storage.codec import ChunkCodec
from volfs.tree.contract.attrs import FOREVER, SOON
from volfs.views.difference import GREW, SHRANK
from volfs.volume.level import Level

SHAPE = (40, 36, 48)
OLD = (np.indices(SHAPE).sum(axis=0) % 200).astype("u1")
NEW = OLD.copy()
NEW[3:9, 4:12, 5:20] = 250
NEW[33:36, 30:, 40:] = 0
LABELS = np.zeros(SHAPE, "u4")
LABELS[10:20] = 7
RELABELLED = LABELS.copy()
RELABELLED[12:15, :4] = 9
RELABELLED[16:18, 20:] = 0


def replace(store: Path, path: str, voxels: np.ndarray) -> None:
    with volfs.open_store(store) as opened:
        branch = opened["cells"].branch("main")
        level = volfs.images(branch)[path].levels[0]
        level.write(Box.whole(level.shape), voxels)
        branch.put("files/notes.txt", f"about {path or 'cells'}\n".encode())
        branch.commit(f"change {path}")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """v1 an image, v2 its labels, v3 and v4 another image, and other labels."""
    root = tmp_path_factory.mktemp("diffs") / "store"
    options = {"chunks": (16, 16, 16), "levels": 2}
    with volfs.init_store(root) as made:
        import_source(made, "cells", "", ArraySource(OLD, "image"), ImportOptions(**options))
        import_source(made, "cells", "labels/nuclei", ArraySource(LABELS, "n"), ImportOptions(labels=True, **options))
    replace(root, "", NEW)
    replace(root, "labels/nuclei", RELABELLED)
    yield root


def test_any_two_expressions_lead_to_a_difference_that_is_not_listed(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            assert "diffs" in await client.ls("cells") and await client.ls("cells/diffs") == {}
            for name, target in (("main~1..main", "v3..v4"), ("v1..latest", "v1..v4"), ("@2100-01-01..v2", "v4..v2")):
                assert await client.readlink(f"cells/diffs/{name}") == target
                assert (await client.stat(f"cells/diffs/{name}")).entry_timeout == SOON
            made = await client.stat("cells/diffs/v2..v3")
            assert made.is_dir and made.entry_timeout == FOREVER
            assert made.ino == await client.ino("cells/diffs/v2..v3")
            for name in ("v2", "v2..", "..v2", "v2..v9", "nope..v1", "v1..v2..v3", "a b..v1"):
                assert not await client.exists(f"cells/diffs/{name}")

    run(work)


def test_what_changed_is_told_in_words_without_decoding(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with serving(store) as client:
            with monkeypatch.context() as patch:
                patch.setattr(ChunkCodec, "decode", None)
                said = json.loads(await client.read("cells/diffs/v2..v3/summary.json"))
                told = (await client.read("cells/diffs/v2..v3/changed.txt")).decode()
            assert (said["from"], said["to"]) == ("v2", "v3")
            assert [c["key"] for c in said["changes"]] == ["files/notes.txt", "zarr/s0", "zarr/s1"]
            assert said["changes"][1]["chunks"]["changed"] > 0 and "voxels" not in said["changes"][1]
            assert "M  zarr/s0" in told and "+about cells" in told

    run(work)


def picture(raw: bytes) -> np.ndarray:
    return np.asarray(Picture.open(io.BytesIO(raw)))


@pytest.mark.parametrize(
    ("pair", "where", "old", "new"),
    [
        ("v2..v3", "", OLD, NEW),
        ("v3..v2", "", NEW, OLD),
        ("v3..v4", "labels/nuclei/", LABELS, RELABELLED),
    ],
)
def test_pictures_are_grey_where_nothing_changed_and_coloured_where_something_did(
    store: Path, pair: str, where: str, old: np.ndarray, new: np.ndarray
) -> None:
    async def work() -> None:
        async with serving(store) as client:
            base = f"cells/diffs/{pair}/{where}s0"
            for plane, axis, at in (("xy", "z", 4), ("xy", "z", 13), ("xz", "y", 6), ("yz", "x", 44), ("xy", "z", 34)):
                number = "zyx".index(axis)
                before, now = (np.take(one, at, axis=number) for one in (old, new))
                shown = picture(await client.read(f"{base}/{plane}/{axis}{at:05d}.png"))
                assert shown.shape == (*now.shape, 3)
                differ = before != now
                shrank = differ & ((now == 0) if where else (now < before))
                assert (shown[shrank] == SHRANK).all() and (shown[differ & ~shrank] == GREW).all()
                same = shown[~differ]
                assert (same == same[:, :1]).all()  # red, green and blue alike
                assert set(map(tuple, same.tolist())) & {GREW, SHRANK} == set()
            mask = f"cells/diffs/{pair}/{where}mask/s0"
            raw = await client.read(f"{mask}/volume.npy")
            assert (np.load(io.BytesIO(raw)) == (old != new)).all()
            assert (picture(await client.read(f"{mask}/xy/z00013.png")) == (old != new)[13]).all()
            attr = await client.stat(f"{mask}/xy/z00013.png")
            assert attr.entry_timeout == FOREVER
            assert {"xy", "xz", "yz", "volume.tif", "volume.nii", "chunks"} <= set(await client.ls(mask))
            assert set(await client.ls(f"cells/diffs/{pair}/{where}mask")) >= {"s0", "s1", "formats"}

    run(work)


def test_only_what_is_read_is_decoded(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Box] = []
    whole = Level.read

    def counting(self: Level, box: Box, out: object = None) -> np.ndarray:
        if self.snapshot.ref in ("v2", "v3"):
            read.append(box)
        return whole(self, box, out)  # type: ignore[arg-type]

    monkeypatch.setattr(Level, "read", counting)

    async def work() -> None:
        async with serving(store) as client:
            base = "cells/diffs/v2..v3"
            await client.ls(base)
            await client.ls(f"{base}/mask/s0/xy")
            await client.ls(f"{base}/zarr/mask/s0")
            await client.stat(f"{base}/mask/s0/volume.nii")
            assert read == []
            await client.read(f"{base}/mask/s0/xy/z00020.png")  # nothing changed in that layer of chunks
            assert read == []
            await client.read(f"{base}/mask/s0/xy/z00004.png")
            assert read and all(box.stop[0] <= 16 for box in read)

    run(work)


def test_images_that_are_not_in_both_or_of_another_shape_are_left_out(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            assert "labels" not in await client.ls("cells/diffs/v1..v2")
            assert {"s0", "mask", "summary.json", "changed.txt", "zarr"} <= set(await client.ls("cells/diffs/v1..v2"))
            raw = await client.read("cells/diffs/v1..v2/mask/s0/volume.npy")
            assert not np.load(io.BytesIO(raw)).any()

    run(work)
