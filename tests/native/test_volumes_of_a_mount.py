"""What any fast path must show through a mount: every slice, volume, cutout and block of any image, to the last byte.

zarr-python writes images of odd shapes, types, byte orders and codecs into a branch; what is read of the version, in
ranges that nobody would choose, is what numpy says and what other people's libraries decode. Nothing here knows how it
is made: see :mod:`tests.kits.native_paths`.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tensorstore
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

import volfs
from tests.kits import native_paths
from tests.kits.example_counts import examples
from tests.kits.planes import planes_of
from volfs.model.ngff import axis, ome_attributes, pyramid
from volfs.testing.kit import mounted
from volfs.testing.volumes import noise
from volfs.testing.waiting import until

Voxels = NDArray[Any]

COMPRESSORS: list[list[Any]] = [
    [],
    [Crc32cCodec()],
    [ZstdCodec(level=1)],
    [ZstdCodec(level=3, checksum=True)],
    [ZstdCodec(level=0), Crc32cCodec()],
    [GzipCodec(level=1)],
    *([BloscCodec(cname=c, shuffle=s)] for c, s in product(("lz4", "zstd"), ("noshuffle", "shuffle", "bitshuffle"))),
    [BloscCodec(cname="lz4", shuffle="shuffle"), Crc32cCodec()],
]
KINDS = {
    "zyx u1": ("zyx", "u1"),
    "zyx u2": ("zyx", "u2"),
    "zyx u4": ("zyx", "u4"),
    "zyx i2": ("zyx", "i2"),
    "zyx f4": ("zyx", "f4"),
    "zyx bool": ("zyx", "bool"),
    "yx u2": ("yx", "u2"),
    "czyx u2": ("czyx", "u2"),
    "tczyx i2": ("tczyx", "i2"),
    "rgb czyx": ("czyx", "u1"),
    "rgb cyx": ("cyx", "u1"),
}
"""Axes and data type; of what is called rgb, axis c has the samples of a pixel."""

MOST = {"t": 2, "c": 3, "z": 9, "y": 70, "x": 110}
"""Voxels along each axis, at most: slices of several pages."""


@dataclass(frozen=True)
class Picture:
    """An image to be written, and how."""

    axes: str
    voxels: Voxels
    rgb: bool
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    order: tuple[int, ...]
    endian: str
    compressors: list[Any]
    fill: Any
    unwritten: tuple[tuple[int, ...], ...]
    """Chunks that are never written, so that their voxels are fill value."""

    def write(self, group: zarr.Group) -> None:
        array = group.create_array(
            "s0",
            shape=self.voxels.shape,
            dtype=self.voxels.dtype,
            chunks=self.chunks,
            shards=self.shards,
            filters=[TransposeCodec(order=self.order)] if self.order != tuple(range(len(self.order))) else [],
            serializer=BytesCodec(endian=self.endian if self.voxels.dtype.itemsize > 1 else None),  # type: ignore[arg-type]
            compressors=self.compressors,
            fill_value=self.fill,
            config={"write_empty_chunks": True},
        )
        step = self.shards or self.chunks
        for at in np.ndindex(*(-(-n // s) for n, s in zip(self.voxels.shape, step, strict=True))):
            if at not in self.unwritten:
                box = tuple(slice(i * s, (i + 1) * s) for i, s in zip(at, step, strict=True))
                array[box] = self.voxels[box]


@st.composite
def pictures(draw: st.DrawFn, kind: str) -> Picture:
    """The first that hypothesis tries is as large as can be and has many chunks, in the other byte order."""
    axes, dtype = KINDS[kind]
    rgb = kind.startswith("rgb")
    most = {a: 3 if rgb and a == "c" else n // (2 if len(axes) > 3 and a in "yx" else 1) for a, n in MOST.items()}
    shape = tuple(most[a] - draw(st.integers(0, 0 if rgb and a == "c" else most[a] - 1)) for a in axes)
    chunks = tuple(draw(st.integers(n // 4 + 1, n + 3)) for n in shape)
    shards = tuple(c * draw(st.integers(1, 3)) for c in chunks) if draw(st.integers(0, 3)) == 3 else None
    voxels = noise(shape, dtype, draw(st.integers(0, 99)))
    fill = voxels.dtype.type(draw(st.sampled_from([0, 1])))
    step = shards or chunks
    grid = list(np.ndindex(*(-(-n // s) for n, s in zip(shape, step, strict=True))))
    unwritten = tuple(draw(st.sets(st.sampled_from(grid), min_size=min(2, len(grid) - 1), max_size=3)))
    # Chunks of nothing but fill value: of some nothing is stored, others are stored all the same.
    for at in (*unwritten, grid[-1]):
        voxels[tuple(slice(i * s, (i + 1) * s) for i, s in zip(at, step, strict=True))] = fill
    order = tuple(draw(st.permutations(range(len(shape))))) if draw(st.booleans()) else tuple(range(len(shape)))
    compressors = COMPRESSORS[(list(KINDS).index(kind) + draw(st.integers(0, 10))) % len(COMPRESSORS)]
    endian = draw(st.sampled_from(["big", "little"]))
    return Picture(axes, voxels, rgb, chunks, shards, order, endian, compressors, fill, unwritten)


@dataclass
class Mount:
    """A mounted store with datasets that nobody has written to yet."""

    store: Path
    top: Path
    numbers: Iterator[int]
    made: int = 0

    def dataset(self) -> Path:
        number = next(self.numbers)
        if number >= self.made:
            with volfs.open_store(self.store) as store:
                for _ in range(16):
                    store.create_dataset(f"d{self.made}")
                    self.made += 1
        place = self.top / f"d{number}"
        until(place.exists)
        return place


@pytest.fixture(scope="module", params=native_paths.THERE)
def mount(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    root = tmp_path_factory.mktemp("volumes")
    volfs.init_store(root / "store").close()
    with native_paths.taken(request.param), mounted(root / "store", root / "mnt") as top:
        yield Mount(root / "store", top, count())


def committed(mount: Mount, picture: Picture) -> Path:
    """The version that a picture is the first of, as the mount shows it."""
    dataset = mount.dataset()
    axes = tuple(axis(name, "nm" if name in "zyx" else None) for name in picture.axes)
    image = pyramid(dataset.name, axes, (1.0,) * len(axes), rgb=picture.rgb)
    branch = dataset / "branches/main"
    picture.write(zarr.open_group(str(branch / "zarr"), mode="a", attributes=ome_attributes(image)))
    (branch / ".volfs/commit").write_text("one picture")
    return dataset / "versions/v1"


def content(path: Path, dice: np.random.Generator) -> bytes:
    """A whole file, of which some ranges were read before, the last and the first bytes among them, and were the same.

    Nothing is read ahead: what is not in the kernel's memory is asked for as it stands here, in pages.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        size = os.fstat(fd).st_size
        starts = [*dice.integers(0, size + 1, 2).tolist(), max(0, size - 3)]
        ranges = [(start, int(dice.integers(0, size + 10))) for start in starts]
        pieces = [os.pread(fd, length, start) for start, length in ranges]
    finally:
        os.close(fd)
    whole = path.read_bytes()
    assert len(whole) == size
    for (start, length), piece in zip(ranges, pieces, strict=True):
        assert piece == whole[start : start + length], (path, start, length)
    return whole


def png(data: bytes) -> Voxels:
    return np.asarray(Image.open(io.BytesIO(data)))


def tif(data: bytes) -> Voxels:
    return np.asarray(tifffile.imread(io.BytesIO(data)))


def npy(data: bytes) -> Voxels:
    found: Voxels = np.load(io.BytesIO(data))
    return found


SLICES: dict[str, Callable[[bytes], Voxels]] = {".png": png, ".tif": tif, ".npy": npy}


def shown(picture: Picture, voxels: Voxels) -> Voxels:
    """Voxels with the axes in the order of volume files: samples of a pixel last."""
    return np.moveaxis(voxels, picture.axes.index("c"), -1) if picture.rgb else voxels


def same(found: Voxels, expected: Voxels, what: object) -> None:
    assert found.dtype.newbyteorder("=") == expected.dtype or expected.dtype == bool, what
    np.testing.assert_array_equal(found, expected.astype(found.dtype), err_msg=str(what))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=examples(2), suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_everything_of_an_image_is_its_voxels(mount: Mount, kind: str, data: st.DataObject) -> None:
    picture = data.draw(pictures(kind))
    dice = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    version = committed(mount, picture)
    level, volume = version / "s0", shown(picture, picture.voxels)

    # slices
    listed: dict[str, set[str]] = {}
    planes = list(planes_of(picture.voxels, picture.axes, rgb=picture.rgb))
    for plane in (planes[at] for at in dice.permutation(len(planes))):
        names = listed.setdefault(plane.folder, set(os.listdir(level / plane.folder)))
        [ending] = [ending for ending in SLICES if f"{plane.stem}{ending}" in names]
        by_name = {".tif", ".npy"} if dice.random() < 0.2 else set()
        for one in {ending} | by_name:
            path = level / plane.folder / f"{plane.stem}{one}"
            same(SLICES[one](content(path, dice)), plane.voxels, path)
    assert len(planes) == sum(len(names) for names in listed.values())

    # whole volumes
    same(npy(content(level / "volume.npy", dice)), volume, "volume.npy")
    said = json.loads(content(level / "volume.raw.json", dice))
    raw = np.frombuffer(content(level / "volume.raw", dice), np.dtype(said["dtype"]).newbyteorder("<"))
    same(raw.reshape(said["shape"]), volume, "volume.raw")
    order = ["TCZYX".index(a) for a in picture.axes.upper() if a != "C" or not picture.rgb]
    found = tif(content(level / "volume.tif", dice))
    # tifffile leaves out axes of one voxel, and ImageJ's order is another one than ours.
    with tifffile.TiffFile(level / "volume.tif") as file:
        axes = [a for a in file.series[0].axes if a in "TCZYX"]
    assert set(axes) <= {"TCZYX"[at] for at in order}
    wanted = sorted(axes, key="TCZYX".index)
    found = found.transpose([axes.index(a) for a in wanted] + list(range(len(axes), found.ndim)))
    same(found.reshape(volume.shape), volume, "volume.tif")
    if (level / "volume.nii").exists():
        content(level / "volume.nii", dice)
        nifti = np.asanyarray(nibabel.load(level / "volume.nii", mmap=False).dataobj)
        if picture.rgb:
            nifti = np.stack([nifti[name] for name in nifti.dtype.names], -1)
        spatial = [a for a in "xyztc" if a in picture.axes and not (picture.rgb and a == "c")]
        into = [spatial.index(a) for a in picture.axes if a in spatial]
        last = [3] if picture.rgb else []
        turned = nifti.reshape([picture.voxels.shape[picture.axes.index(a)] for a in spatial] + last)
        same(turned.transpose(into + ([len(into)] if picture.rgb else [])), volume, "volume.nii")

    # cutouts
    for ending in (".npy", ".tif", ".raw"):
        box = {
            a: sorted(dice.choice(n + 1, 2, replace=False).tolist())
            for a, n in zip(picture.axes, picture.voxels.shape, strict=True)
        }
        # The samples of a pixel are not cut; an axis of one voxel, other than z, y and x, is not shown.
        box = {
            a: edges
            for a, edges in box.items()
            if a in "zyx" or (picture.voxels.shape[picture.axes.index(a)] > 1 and not picture.rgb)
        }
        cut: Any = tuple(slice(*box[a]) if a in box else slice(None) if picture.rgb else 0 for a in picture.axes)
        part = shown(picture, picture.voxels[cut])
        path = level / "cutout" / ("_".join(f"{a}{start}-{stop}" for a, (start, stop) in box.items()) + ending)
        found = content(path, dice)
        if ending == ".raw":
            same(np.frombuffer(found, part.dtype.newbyteorder("<")).reshape(part.shape), part, path)
        elif ending == ".npy":
            same(npy(found), part, path)
        elif len(picture.axes) < 4:
            same(tif(found).reshape(part.shape), part, path)

    # blocks of other formats
    if "z" in picture.axes and not picture.rgb:
        blocks(version, picture, dice)


def blocks(version: Path, picture: Picture, dice: np.random.Generator) -> None:
    """TensorStore reads N5 and precomputed; every block reads alike in pieces."""
    name = version.parent.parent.name
    n5, precomputed = (version / "formats" / f"{name}.{kind}" for kind in ("n5", "precomputed"))
    for top in (n5, precomputed):
        for folder, _, files in os.walk(top):
            for file in files:
                content(Path(folder, file), dice)
    others = [range(picture.voxels.shape[picture.axes.index(a)]) if a in picture.axes else (0,) for a in "tc"]
    if n5.exists():
        for t, c in product(*others):
            at = dict(zip("tc", (t, c), strict=True))
            spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{n5}/setup{c}/timepoint{t}/s0"}}
            found = tensorstore.open(spec, read=True).result().read().result()
            same(found.T, picture.voxels[tuple(at.get(a, slice(None)) for a in picture.axes)], spec)
    if precomputed.exists() and "t" not in picture.axes:
        spec = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": str(precomputed)}}
        found = tensorstore.open(spec, read=True).result().read().result()
        expected = picture.voxels if "c" in picture.axes else picture.voxels[None]
        same(found.T, expected, spec)
