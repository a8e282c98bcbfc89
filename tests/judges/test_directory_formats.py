"""Directory formats of a mount, opened by the libraries that people use, unmodified."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tensorstore
import z5py
import zarr
from cloudvolume import CloudVolume
from PIL import Image

from tests.kits.judged import Mounted, Source, Volume, mounted_sources
from tests.kits.mounts import volfs
from volfs.testing.kit import image, segmentation


def sparse(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Nothing but two corners: most chunks hold zeros, and are not stored."""
    voxels = np.zeros(shape, dtype)
    for corner in ((slice(0, 20),) * 3, (slice(-9, None),) * 3):
        voxels[corner] = image(voxels[corner].shape, dtype, 6)
    return voxels


SOURCES = {
    "u8": Source("zyx", image((19, 33, 27), "uint8")),
    "u16": Source("zyx", image((9, 33, 31), "uint16", 1)),
    "f32": Source("zyx", image((11, 40, 35), "float32", 3)),
    "labels": Source("zyx", segmentation((19, 33, 27), "uint64"), where="u8/labels/nuclei", labels=True),
    "movie": Source("tczyx", image((3, 2, 5, 30, 41), "uint16", 4)),
    "flat": Source("yx", image((123, 77), "uint8", 5)),
    "sparse": Source("zyx", sparse((150, 140, 130), "uint16")),
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    with mounted_sources(tmp_path_factory.mktemp("formats"), SOURCES) as mount:
        yield mount


def formats(shown: Mounted, name: str, *, branch: bool = False) -> Path:
    """``formats/`` of a dataset's image, or of the label image."""
    dataset = "u8" if name == "labels" else name
    top = shown.branch(dataset) if branch else shown.version(dataset, 2 if name == "labels" else 1)
    return (top / "labels/nuclei" if name == "labels" else top) / "formats"


def named(shown: Mounted, name: str, ending: str, *, branch: bool = False) -> Path:
    return formats(shown, name, branch=branch) / f"{'nuclei' if name == 'labels' else name}{ending}"


def coarse(shown: Mounted, name: str) -> Volume:
    dataset = "u8" if name == "labels" else name
    top = shown.version(dataset, 2 if name == "labels" else 1)
    found: Volume = np.load((top / "labels/nuclei" if name == "labels" else top) / "s1" / "volume.npy")
    return found


def read(spec: dict[str, Any]) -> Volume:
    found: Volume = tensorstore.open(spec, read=True).result().read().result()
    return found


def local(path: Path) -> dict[str, str]:
    return {"driver": "file", "path": str(path)}


ALL = ("u8", "u16", "f32", "labels", "movie", "flat")
THREE = ("u8", "u16", "f32", "labels")


def files_in(top: Path) -> Iterator[Path]:
    """All files of a directory, links not followed. Of the planes or times in one the first and the last: those between
    differ in their voxels alone."""
    for folder, folders, files in os.walk(top):
        alike = sorted(name for name in folders if re.fullmatch(r"[ctxyz]\d+(_files)?", name))
        folders[:] = [name for name in folders if name not in alike[1:-1]]
        yield from (Path(folder, name) for name in files)


def test_every_file_is_as_long_as_it_says(shown: Mounted) -> None:
    count = 0
    for name in ALL:
        for path in files_in(formats(shown, name)):
            assert len(path.read_bytes()) == path.stat().st_size, path
            count += 1
    assert count > 500, count


@pytest.mark.parametrize("name", ALL)
def test_zarr_v2_by_zarr_python_and_tensorstore(shown: Mounted, name: str) -> None:
    path = named(shown, name, ".v2.zarr")
    group = zarr.open_group(str(path), mode="r", zarr_format=2)
    assert group.attrs["multiscales"][0]["version"] == "0.4"
    for key, expected in (("s0", shown.volumes[name]), ("s1", coarse(shown, name))):
        array = group[key]
        assert isinstance(array, zarr.Array)
        np.testing.assert_array_equal(array[...], expected)
        np.testing.assert_array_equal(read({"driver": "zarr", "kvstore": local(path / key)}), expected)


@pytest.mark.parametrize("name", ALL)
def test_sharded_zarr_by_zarr_python_and_tensorstore(shown: Mounted, name: str) -> None:
    path = named(shown, name, ".sharded.zarr")
    group = zarr.open_group(str(path), mode="r", zarr_format=3)
    for key, expected in (("s0", shown.volumes[name]), ("s1", coarse(shown, name))):
        array = group[key]
        assert isinstance(array, zarr.Array) and array.shards is not None
        np.testing.assert_array_equal(array[...], expected)
        np.testing.assert_array_equal(read({"driver": "zarr3", "kvstore": local(path / key)}), expected)
    files = [file for file in path.rglob("*") if file.is_file()]
    assert len(files) < len(list((path.parent / f"{path.name.split('.')[0]}.ome.zarr/").rglob("*")))


@pytest.mark.parametrize("name", ALL)
def test_ome_zarr_by_its_own_name(shown: Mounted, name: str) -> None:
    group = zarr.open_group(str(named(shown, name, ".ome.zarr")), mode="r")
    array = group["s0"]
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(array[...], shown.volumes[name])


@pytest.mark.parametrize("name", THREE)
def test_n5_by_tensorstore_and_z5py(shown: Mounted, name: str) -> None:
    path = named(shown, name, ".n5")
    for key, expected in (("s0", shown.volumes[name]), ("s1", coarse(shown, name))):
        place = path / "setup0/timepoint0" / key
        found = read({"driver": "n5", "kvstore": local(place)})
        np.testing.assert_array_equal(found.transpose(), expected)
        with z5py.File(str(path), "r") as file:
            np.testing.assert_array_equal(file[f"setup0/timepoint0/{key}"][:], expected)


def test_n5_with_the_stored_payloads_is_there_by_name(shown: Mounted) -> None:
    path = named(shown, "u8", ".zstd.n5")
    assert path.name not in [entry.name for entry in path.parent.iterdir()]
    block = (path / "setup0/timepoint0/s0/0/0/0").read_bytes()
    stored = (shown.version("u8") / "s0/chunks/c/0/0/0").read_bytes()
    assert block[16:] == stored
    place = path / "setup0/timepoint0/s0"
    assert json.loads((place / "attributes.json").read_text())["compression"]["type"] == "zstd"
    np.testing.assert_array_equal(read({"driver": "n5", "kvstore": local(place)}).transpose(), shown.volumes["u8"])
    assert not named(shown, "u16", ".zstd.n5").exists()


def test_a_movie_in_n5_has_setups_and_timepoints(shown: Mounted) -> None:
    volume, path = shown.volumes["movie"], named(shown, "movie", ".n5")
    for t in range(3):
        for c in range(2):
            found = read({"driver": "n5", "kvstore": local(path / f"setup{c}/timepoint{t}/s0")})
            np.testing.assert_array_equal(found.transpose(), volume[t, c])


def test_the_xml_is_bigdataviewers(shown: Mounted) -> None:
    root = ElementTree.parse(named(shown, "movie", ".xml")).getroot()
    assert root.tag == "SpimData" and root.get("version") == "0.2"
    loader = root.find("SequenceDescription/ImageLoader")
    assert loader is not None and loader.get("format") == "bdv.n5"
    assert loader.findtext("n5") == "movie.n5"
    assert len(root.findall("SequenceDescription/ViewSetups/ViewSetup")) == 2
    assert len(root.findall("ViewRegistrations/ViewRegistration")) == 6
    size = root.findtext("SequenceDescription/ViewSetups/ViewSetup/size")
    assert size is not None and size.split() == ["41", "30", "5"]


@pytest.mark.parametrize("name", THREE)
def test_precomputed_by_tensorstore_and_cloud_volume(shown: Mounted, name: str) -> None:
    path = named(shown, name, ".precomputed")
    info = json.loads((path / "info").read_text())
    assert info["type"] == ("segmentation" if name == "labels" else "image")
    assert info["scales"][0]["resolution"] == [4, 4.5, 40]
    for mip, expected in ((0, shown.volumes[name]), (1, coarse(shown, name))):
        spec = {"driver": "neuroglancer_precomputed", "kvstore": local(path), "scale_index": mip}
        np.testing.assert_array_equal(read(spec)[..., 0].transpose(), expected)
        volume = CloudVolume(f"file://{path}", mip=mip, progress=False, fill_missing=True)
        np.testing.assert_array_equal(np.asarray(volume[:, :, :])[..., 0].transpose(), expected)


@pytest.mark.parametrize("branch", [False, True])
def test_cloud_volume_reads_chunks_that_are_not_stored_without_being_told(shown: Mounted, branch: bool) -> None:
    path = named(shown, "sparse", ".precomputed", branch=branch)
    scales = json.loads((path / "info").read_text())["scales"]
    for mip in range(len(scales)):
        top = shown.branch("sparse") if branch else shown.version("sparse", 1)
        expected = np.load(top / f"s{mip}" / "volume.npy")
        volume = CloudVolume(f"file://{path}", mip=mip, progress=False, fill_missing=False)
        np.testing.assert_array_equal(np.asarray(volume[:, :, :])[..., 0].transpose(), expected)
    first = scales[0]
    chunks = np.prod([-(-n // c) for n, c in zip(first["size"], first["chunk_sizes"][0], strict=True)])
    listed = list((path / first["key"]).iterdir())
    assert 0 < len(listed) < chunks / 2
    assert all(len(file.read_bytes()) == file.stat().st_size for file in listed)
    assert not (path / first["key"] / "9999-10000_0-64_0-64").exists()


def test_cloud_volume_reads_what_it_changed_among_chunks_that_are_not_stored(shown: Mounted) -> None:
    place = named(shown, "sparse", ".precomputed", branch=True)
    expected = np.load(shown.branch("sparse") / "s0" / "volume.npy")
    try:
        volume = CloudVolume(f"file://{place}", mip=0, progress=False, fill_missing=False, compress=False)
        size = volume.scale["chunk_sizes"][0]
        volume[: size[0], : size[1], size[2] : 2 * size[2]] = np.full((*size, 1), 7, "uint16")
        expected[size[2] : 2 * size[2], : size[1], : size[0]] = 7
        np.testing.assert_array_equal(np.asarray(volume[:, :, :])[..., 0].transpose(), expected)
        np.testing.assert_array_equal(seen(shown, "sparse"), expected)
    finally:
        volfs(shown.store, "discard", "sparse", "--yes")


def test_tiles_are_pictures(shown: Mounted) -> None:
    path = named(shown, "u8", ".tiles")
    pictures = sorted(path.rglob("*.png"))
    assert pictures
    with Image.open(pictures[0]) as picture:
        assert picture.size[0] > 0


def test_a_snapshot_is_copied_by_ordinary_tools(shown: Mounted, tmp_path: Path) -> None:
    shutil.copytree(named(shown, "u16", ".v2.zarr"), tmp_path / "copy.zarr")
    group = zarr.open_group(str(tmp_path / "copy.zarr"), mode="r", zarr_format=2)
    np.testing.assert_array_equal(group["s0"][...], shown.volumes["u16"])  # type: ignore[index]


# ------------------------------------------------------------------------------------------------------ in a branch


def other(volume: Volume) -> Volume:
    return image(volume.shape, volume.dtype, 77)


def seen(shown: Mounted, name: str) -> Volume:
    found: Volume = np.load(shown.branch(name) / "s0" / "volume.npy")
    return found


def test_zarr_python_writes_through_version_two(shown: Mounted) -> None:
    new = other(shown.volumes["u16"])
    new[:, :16] = 0
    group = zarr.open_group(str(named(shown, "u16", ".v2.zarr", branch=True)), mode="r+", zarr_format=2)
    try:
        group["s0"][...] = new  # type: ignore[index]
        np.testing.assert_array_equal(seen(shown, "u16"), new)
    finally:
        volfs(shown.store, "discard", "u16", "--yes")


@pytest.mark.parametrize("name", ["u8", "f32"])
def test_tensorstore_writes_through_n5(shown: Mounted, name: str) -> None:
    new = other(shown.volumes[name])
    place = named(shown, name, ".n5", branch=True) / "setup0/timepoint0/s0"
    try:
        array = tensorstore.open({"driver": "n5", "kvstore": local(place)}, read=True, write=True).result()
        array.write(new.transpose()).result()
        np.testing.assert_array_equal(seen(shown, name), new)
    finally:
        volfs(shown.store, "discard", name, "--yes")


@pytest.mark.parametrize("name", ["u8", "f32"])
def test_tensorstore_and_cloud_volume_write_through_precomputed(shown: Mounted, name: str) -> None:
    new = other(shown.volumes[name])
    place = named(shown, name, ".precomputed", branch=True)
    try:
        spec = {"driver": "neuroglancer_precomputed", "kvstore": local(place), "scale_index": 0}
        array = tensorstore.open(spec, read=True, write=True).result()
        array[..., 0].write(new.transpose()).result()
        np.testing.assert_array_equal(seen(shown, name), new)
        again = other(new + 1)[::-1].copy()
        volume = CloudVolume(f"file://{place}", mip=0, progress=False, fill_missing=True, compress=False)
        volume[:, :, :] = again.transpose()[..., None]
        np.testing.assert_array_equal(seen(shown, name), again)
    finally:
        volfs(shown.store, "discard", name, "--yes")


def test_a_change_of_shape_or_type_is_refused(shown: Mounted) -> None:
    path = named(shown, "u8", ".v2.zarr", branch=True) / "s0"
    meta = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text((path / ".zarray").read_text())
    meta["shape"][0] += 1
    with pytest.raises(OSError, match="Invalid argument"):
        (path / ".zarray").write_text(json.dumps(meta))
    assert json.loads((path / ".zarray").read_text())["shape"] == list(shown.volumes["u8"].shape)
    volfs(shown.store, "discard", "u8", "--yes", ok=False)


def test_what_is_composed_is_not_written(shown: Mounted) -> None:
    for ending in (".sharded.zarr", ".tiles"):
        top = named(shown, "u8", ending, branch=True)
        path = next(file for file in top.rglob("*") if file.is_file() and file.suffix not in (".json", ".dzi"))
        assert path.stat().st_mode & 0o777 == 0o444
        with pytest.raises(OSError, match="Operation not permitted"):
            path.write_bytes(b"x")


def test_a_chunk_that_cannot_be_one_is_refused_and_changes_nothing(shown: Mounted) -> None:
    path = named(shown, "u8", ".n5", branch=True) / "setup0/timepoint0/s0/0/0/0"
    before = path.read_bytes()
    with pytest.raises(OSError, match="Invalid argument"):
        path.write_bytes(b"\x00\x00\x00\x03" + b"\x00\x00\x00\x40" * 3 + bytes(64**3))
    np.testing.assert_array_equal(seen(shown, "u8"), shown.volumes["u8"])
    path.write_bytes(before)
    np.testing.assert_array_equal(seen(shown, "u8"), shown.volumes["u8"])
    volfs(shown.store, "discard", "u8", "--yes", ok=False)


def test_n5_with_zstd_is_there_by_name(shown: Mounted) -> None:
    path = named(shown, "u8", ".zstd.n5")
    assert path.is_dir() and path.name not in [found.name for found in path.parent.iterdir()]
    for key, expected in (("s0", shown.volumes["u8"]), ("s1", coarse(shown, "u8"))):
        found = read({"driver": "n5", "kvstore": local(path / "setup0/timepoint0" / key)})
        np.testing.assert_array_equal(found.transpose(), expected)
    assert json.loads((path / "setup0/timepoint0/s0/attributes.json").read_text())["compression"]["type"] == "zstd"
    assert ElementTree.parse(named(shown, "u8", ".zstd.xml")).getroot().tag == "SpimData"
    assert not named(shown, "u16", ".zstd.n5").exists()
