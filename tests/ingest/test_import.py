"""A whole import: a version that zarr-python and the levels read back equal to the source, or nothing at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
import pytest
import tifffile
import zarr
from PIL import Image

import volfs
from tests.kits import fork_server
from tests.kits.import_sources import nifti, write_slices
from volfs.errors import BadInput, BadName, NoSpace, VolfsError
from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.readers import open_source
from volfs.ingest.source import ArraySource, Source
from volfs.model.box import Box
from volfs.model.ngff import axis
from volfs.testing.volumes import noise
from volfs.versions.store import Store
from volfs.volume.downsample import downsample


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with volfs.init_store(tmp_path / "store") as made:
        yield made


def judged(store: Store, dataset: str, path: str = "", ref: str = "latest") -> zarr.Group:
    """The image as zarr-python sees it."""
    group = zarr.open_group(store=store[dataset][ref].zarr_store(), path=path, mode="r")
    assert isinstance(group, zarr.Group)
    return group


def equal_at_all_levels(store: Store, dataset: str, path: str, expected: np.ndarray, ref: str = "latest") -> None:
    """zarr-python and Level.read agree with the source, and each level with the one above it."""
    image = volfs.images(store[dataset][ref])[path]
    group = judged(store, dataset, path, ref)
    assert image.managed and len(image.levels) == len(list(group.arrays()))
    level = expected
    method = "mode" if image.is_label or expected.dtype.kind == "b" else "mean"
    for index, found in enumerate(image.levels):
        if index:
            factors = tuple(round(b / a) for a, b in zip(image.levels[index - 1].scale, found.scale, strict=True))
            level = downsample(level, factors, method)
        np.testing.assert_array_equal(found.read(Box.whole(found.shape)), level)
        np.testing.assert_array_equal(group[found.name][...], level)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((300, 200), "u1"),
        ((37, 70, 150), "u2"),
        ((2, 20, 140, 33), "f4"),
        ((2, 3, 9, 140, 150), "i2"),
        ((2, 1, 2, 5, 140, 20), "u4"),
        ((40, 150, 20), "?"),
        ((10, 130, 20), "c8"),
        ((10, 130, 20), "u8"),
        ((10, 130, 20), "f2"),
    ],
)
def test_any_dtype_from_two_to_six_axes(store: Store, shape: tuple[int, ...], dtype: str) -> None:
    data = noise(shape, dtype)
    info = import_source(store, "d", "", ArraySource(data, "d"))
    assert info.number == 1 and store["d"].branches() == {"main": 1}
    assert len(volfs.images(store["d"]["v1"])[""].levels) > 1
    equal_at_all_levels(store, "d", "", data)


def test_metadata_is_ome_zarr_of_the_voxel_size_given(store: Store) -> None:
    data = noise((30, 200, 300), "u1")
    source = ArraySource(data, "cells")
    import_source(store, "cells", "", source, ImportOptions(voxel_size="40,4,4nm", message="first", author="Ada"))
    ome: Any = judged(store, "cells").attrs["ome"]
    block = ome["multiscales"][0]
    assert ome["version"] == "0.5" and block["name"] == "cells"
    assert block["axes"] == [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
    scales = [d["coordinateTransformations"][0]["scale"] for d in block["datasets"]]
    assert scales[0] == [40, 4, 4] and scales[1] == [40, 8, 8]  # z is coarse already: it is not halved
    [version] = store["cells"].versions()
    assert (version.message, version.author) == ("first", "Ada")
    s0: Any = judged(store, "cells")["s0"]
    assert s0.metadata.dimension_names == ("z", "y", "x")


def test_the_version_directory_opens_in_zarr_python_without_volfs(store: Store, tmp_path: Path) -> None:
    data = noise((70, 80, 90), "u2")
    import_source(store, "d", "", ArraySource(data), ImportOptions(chunks=(16,), shard=(32,)))
    folder = tmp_path / "store" / "datasets" / "d" / "versions" / "00000001" / "zarr"
    array: Any = zarr.open_group(folder, mode="r")["s0"]
    np.testing.assert_array_equal(array[...], data)
    assert array.shards == (32, 32, 32) and array.chunks == (16, 16, 16)


def test_a_chunk_of_nothing_is_not_stored(store: Store) -> None:
    data = np.zeros((100, 100, 100), np.uint8)
    data[:10, :10, :10] = 7
    import_source(store, "d", "", ArraySource(data), ImportOptions(chunks=(50,)))
    assert store["d"].version(1).changes().nodes["zarr/s0"].put == 2  # a chunk, and zarr.json
    equal_at_all_levels(store, "d", "", data)


def test_the_fill_value_of_a_zarr_source_is_kept(store: Store, tmp_path: Path) -> None:
    for name, dtype, fill in (("a", "u2", 7), ("b", "f4", np.nan)):
        array = zarr.create_array(
            tmp_path / f"{name}.zarr", shape=(60, 70, 80), chunks=(30, 30, 30), dtype=dtype, fill_value=fill
        )
        array[:30, :30] = 3
        with open_source([tmp_path / f"{name}.zarr"]) as source:
            import_source(store, name, "", source, ImportOptions(chunks=(30,), levels=2))
        equal_at_all_levels(store, name, "", np.asarray(array[...]))
        found: Any = judged(store, name)["s0"]
        np.testing.assert_equal(found.fill_value, fill)
        assert store[name].version(1).changes().nodes["zarr/s0"].put == 3 + 1


def test_label_images_join_their_image(store: Store) -> None:
    data = noise((30, 200, 300), "u1")
    labels = (data // 50).astype("u4")
    import_source(store, "cells", "", ArraySource(data), ImportOptions(voxel_size="40,4,4nm"))
    import_source(store, "cells", "labels/nuclei", ArraySource(labels, "seg"))
    import_source(store, "cells", "labels/cells", ArraySource(labels[..., ::1] * 2))
    image, found = (volfs.images(store["cells"]["v3"])[path] for path in ("", "labels/nuclei"))
    assert found.is_label and found.name == "nuclei"
    assert [level.scale for level in found.levels] == [level.scale for level in image.levels]
    assert judged(store, "cells", "labels").attrs["ome"] == {"version": "0.5", "labels": ["nuclei", "cells"]}
    equal_at_all_levels(store, "cells", "labels/nuclei", labels)
    equal_at_all_levels(store, "cells", "", data)
    with pytest.raises(BadInput, match="has 31 voxels along z, its image has 30"):
        import_source(store, "cells", "labels/wrong", ArraySource(noise((31, 200, 300), "u1")))
    with pytest.raises(BadInput, match="whole numbers"):
        import_source(store, "cells", "labels/wrong", ArraySource(noise((30, 200, 300), "f4")))
    assert len(store["cells"].versions()) == 3


def test_labels_of_a_whole_dataset_take_the_most_frequent(store: Store) -> None:
    labels = noise((20, 150, 150), "u2") % 4
    import_source(store, "atlas", "", ArraySource(labels), ImportOptions(labels=True))
    assert volfs.images(store["atlas"]["v1"])[""].is_label
    equal_at_all_levels(store, "atlas", "", labels)


def test_importing_again_replaces_the_image_and_keeps_the_rest(store: Store) -> None:
    first, second = noise((20, 600, 600), "u1"), noise((9, 40, 50), "u2")
    import_source(store, "d", "", ArraySource(first))
    import_source(store, "d", "labels/a", ArraySource(first // 9))
    branch = store["d"].branch("main")
    branch.put("files/notes.txt", b"keep me")
    import_source(store, "d", "", ArraySource(second))
    assert store["d"]["main"].read("files/notes.txt") == b"keep me"
    equal_at_all_levels(store, "d", "", second)
    equal_at_all_levels(store, "d", "", first, "v1")
    group = judged(store, "d")
    assert sorted(group.array_keys()) == ["s0"] and "labels" in group
    equal_at_all_levels(store, "d", "labels/a", first // 9)
    import_source(store, "d", "more/raw", ArraySource(second))
    assert {"", "labels/a", "more/raw"} <= volfs.images(store["d"]["latest"]).keys()
    with pytest.raises(BadInput, match="is an array"):
        import_source(store, "d", "s0/x", ArraySource(second))
    branch.put("zarr/more/raw/s0/c/0/0/0", b"?")
    with pytest.raises(BadInput, match="uncommitted changes"):
        import_source(store, "d", "more/raw", ArraySource(second))


@pytest.mark.parametrize("path", ["../x", "a//b", "zarr.json", "a/zarr.json", "__own", "a/.."])
def test_names_outside_the_rules_are_refused(store: Store, path: str) -> None:
    with pytest.raises(BadInput):
        import_source(store, "d", path, ArraySource(noise((4, 5, 6))))
    with pytest.raises(BadName):
        import_source(store, f"{path}/", "", ArraySource(noise((4, 5, 6))))
    assert store.datasets() == []


def test_slices_stacks_and_volumes_end_to_end(store: Store, tmp_path: Path) -> None:
    gray, colour = noise((5, 40, 170), "u2"), noise((5, 40, 170, 3), "u1")
    write_slices(tmp_path / "gray", gray)
    write_slices(tmp_path / "colour", colour)
    tifffile.imwrite(
        tmp_path / "hyper.tif",
        noise((2, 5, 3, 40, 150), ">u2"),
        imagej=True,
        metadata={"axes": "TZCYX", "spacing": 2.0, "unit": "um"},
        resolution=(2.0, 2.0),
    )
    nifti(tmp_path / "head.nii.gz", noise((150, 40, 30), "i2"), zooms=(1.0, 1.0, 2.0), big=True)
    zarr.create_array(tmp_path / "a.zarr", data=gray, chunks=(2, 30, 30))
    for name, expected in {
        "gray": gray,
        "colour": np.moveaxis(colour, -1, 0),
        "hyper.tif": tifffile.imread(tmp_path / "hyper.tif").transpose(0, 2, 1, 3, 4),
        "head.nii.gz": np.asarray(nibabel.load(tmp_path / "head.nii.gz").dataobj).transpose(),
        "a.zarr": gray,
    }.items():
        with open_source([tmp_path / name]) as source:
            import_source(store, source.description.name, "", source)
            equal_at_all_levels(store, source.description.name, "", expected)
    assert store.datasets() == ["a", "colour", "gray", "head", "hyper"]
    assert volfs.images(store["colour"]["v1"])[""].rgb
    volfs_facts: Any = judged(store, "head").attrs["volfs"]
    np.testing.assert_allclose(volfs_facts["source"]["affine"][2], [0, 0, 2, -72])
    assert volfs.images(store["hyper"]["v1"])[""].levels[0].scale == (1.0, 1.0, 2.0, 0.5, 0.5)


# ------------------------------------------------------------------------------------------- nothing, or everything


def untouched(store: Store, before: list[str]) -> None:
    assert store.datasets() == before
    folders = store.path / "datasets"
    assert sorted(path.name for path in folders.iterdir()) == before
    for name in before:
        assert not [p.name for p in (folders / name / "versions").iterdir() if "partial" in p.name]


class Failing(ArraySource):
    """Fails when the last plane is read."""

    def __init__(self, array: np.ndarray, error: BaseException) -> None:
        super().__init__(array)
        self.error = error

    def read(self, box: Box) -> np.ndarray:
        if box.stop[0] == self.description.shape[0]:
            raise self.error
        return super().read(box)


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(
    "error", [BadInput("slice z99.png is unreadable"), KeyboardInterrupt(), OSError(errno.EIO, "x")]
)
def test_whatever_goes_wrong_nothing_is_changed(store: Store, existing: bool, error: BaseException) -> None:
    data = noise((90, 60, 60), "u2")
    if existing:
        import_source(store, "d", "", ArraySource(data))
    with pytest.raises(type(error)):
        import_source(store, "d", "", Failing(data, error), ImportOptions(chunks=(16,), memory=1 << 16))
    untouched(store, ["d"] if existing else [])
    if existing:
        assert len(store["d"].versions()) == 1
        equal_at_all_levels(store, "d", "", data)
    import_source(store, "d", "", ArraySource(data))
    equal_at_all_levels(store, "d", "", data)


def test_a_source_that_changes_under_the_import_is_refused(store: Store, tmp_path: Path) -> None:
    paths = write_slices(tmp_path / "s", noise((5, 40, 50), "u1"))
    source = open_source([tmp_path / "s"])

    def meddle(_: object) -> None:
        Image.fromarray(noise((40, 50), "u1", 9)).save(paths[0])

    with pytest.raises(BadInput, match=r"z8\.png changed while"):
        import_source(store, "d", "", source, progress=meddle)
    untouched(store, [])


def test_a_disk_that_fills_up_is_told_and_nothing_is_left(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real, wrote = os.write, [0]

    def write(fd: int, data: bytes) -> int:
        wrote[0] += len(data)
        if wrote[0] > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(NoSpace, match="no space left"):
        import_source(store, "d", "", ArraySource(noise((64, 64, 64), "u2")), ImportOptions(chunks=(16,)))
    monkeypatch.undo()
    untouched(store, [])


def test_cancelling_leaves_nothing(store: Store) -> None:
    cancel = threading.Event()
    data = noise((90, 60, 60), "u2")
    with pytest.raises(VolfsError, match="cancelled"):
        import_source(
            store,
            "d",
            "",
            ArraySource(data),
            ImportOptions(chunks=(16,)),
            progress=lambda _: cancel.set(),
            cancel=cancel,
        )
    untouched(store, [])


def test_bad_options_are_told_before_anything_is_made(store: Store) -> None:
    data = noise((9, 40, 50), "u1")
    for options, reason in (
        (ImportOptions(axes="zy"), "3 axes"),
        (ImportOptions(voxel_size="1,2nm"), "2 values"),
        (ImportOptions(voxel_size="4 cubits"), "not a unit"),
        (ImportOptions(chunks=(1, 2)), "chunks"),
        (ImportOptions(chunks=(16,), shard=(24,)), "whole number of chunks"),
        (ImportOptions(levels=0), "at least one level"),
    ):
        with pytest.raises(BadInput, match=reason):
            import_source(store, "d", "", ArraySource(data), options)
    with pytest.raises(BadInput, match="empty"):
        import_source(store, "d", "", ArraySource(data[:0]))
    untouched(store, [])


SLOW = """
import sys, time, numpy as np, volfs
from volfs.ingest.importer import import_source, ImportOptions
from volfs.ingest.source import ArraySource
class Slow(ArraySource):
    def read(self, box):
        time.sleep(0.05)
        return super().read(box)
with volfs.open_store(sys.argv[1]) as store:
    data = np.random.default_rng(0).integers(0, 255, (400, 64, 64), np.uint8)
    import_source(store, "d", "", Slow(data), ImportOptions(chunks=(16,), memory=1 << 18),
                  progress=lambda now: print(now.done, flush=True))
"""


@pytest.mark.parametrize("existing", [False, True])
def test_an_import_that_is_killed_leaves_no_half_dataset(store: Store, existing: bool) -> None:
    if existing:
        import_source(store, "d", "", ArraySource(noise((9, 40, 50), "u1")))
    path = store.path
    store.close()
    process = fork_server.Popen([sys.executable, "-c", SLOW, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    with volfs.open_store(path) as again:
        untouched(again, ["d"] if existing else [])
        if existing:
            assert len(again["d"].versions()) == 1
        data = noise((9, 40, 50), "u2")
        import_source(again, "d", "", ArraySource(data))
        equal_at_all_levels(again, "d", "", data)


def test_memory_is_bounded_whatever_the_size(store: Store) -> None:
    """A volume of 1.5 GB that takes no memory itself, imported with 64 MB."""

    class Endless(Source):
        def __init__(self) -> None:
            base = ArraySource(np.zeros((1, 1, 1), np.uint8), axes=[axis(n) for n in "zyx"]).description
            self.description = type(base)(
                "endless", (1500, 1000, 1000), np.dtype("u1"), base.axes, (1.0,) * 3, (1, 1, 1), reorder=False
            )

        def read(self, box: Box) -> np.ndarray:
            return np.full(box.shape, 3, np.uint8)

        def fingerprint(self) -> dict[str, object]:
            return {}

    process, peak, stop = psutil.Process(), [0], threading.Event()
    start = process.memory_info().rss

    def watch() -> None:
        while not stop.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        import_source(store, "big", "", Endless(), ImportOptions(memory=64 << 20))
    finally:
        stop.set()
        watcher.join()
    assert peak[0] - start < 250 << 20
    level = volfs.images(store["big"]["v1"])[""].levels[-1]
    assert (level.read(Box.whole(level.shape)) == 3).all()
