"""One pass writes every level, the same whatever the slabs, tiles and memory; plans and voxel sizes."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kits.example_counts import examples
from volfs.errors import BadInput, NoSpace, VolfsError
from volfs.ingest import volume_stream
from volfs.ingest.chunk_plan import chosen_chunks, default_chunks, make_plan
from volfs.ingest.source import ArraySource
from volfs.ingest.volume_stream import Memory, Meter, Progress, VolumeStream
from volfs.ingest.voxel_size import parse_voxel_size
from volfs.model.box import Box, Index
from volfs.model.metadata import ArrayMeta, array_zarr_json, parse_node
from volfs.model.ngff import Method, axis, downsampling_factors
from volfs.storage.codec import ChunkCodec
from volfs.storage.payload_maker import Batch
from volfs.volume.downsample import downsample
from volfs.volume.workers import Workers


class Chunks:
    """Takes chunks as an ArrayWriter does; every chunk must come exactly once."""

    def __init__(self, meta: ArrayMeta) -> None:
        self.meta = meta
        self.payloads: dict[Index, bytes | None] = {}
        self.lock = threading.Lock()

    def put(self, coords: Index, payload: bytes) -> None:
        self._take(coords, payload)

    def skip(self, coords: Index) -> None:
        self._take(coords, None)

    def put_all(self, coords: Sequence[Index], batch: Batch) -> list[Index]:
        for at, row in zip(coords, batch.rows, strict=True):
            self._take(at, bytes(batch.data[row["offset"] :][: row["length"]]) or None)
        return []

    def _take(self, coords: Index, payload: bytes | None) -> None:
        with self.lock:
            assert coords not in self.payloads
            self.payloads[coords] = payload

    def array(self) -> np.ndarray:
        made = np.zeros(self.meta.shape, self.meta.dtype)
        codec = ChunkCodec.of(self.meta)
        for coords in itertools.product(*map(range, self.meta.grid.grid_shape)):
            payload = self.payloads[coords]
            if payload is not None:
                box = self.meta.grid.chunk_box(coords)
                whole = codec.decode(payload)
                made[box.slices()] = whole[tuple(slice(n) for n in box.shape)]
        return made


class Grainy(ArraySource):
    """A source that asks to be read in certain pieces, and counts what it gave."""

    given = 0

    def read(self, box: Box) -> np.ndarray:
        self.given += box.size
        return super().read(box)


def stream(
    array: np.ndarray,
    names: str,
    *,
    chunks: Index | None = None,
    scale: tuple[float, ...] | None = None,
    levels: Any = "auto",
    memory: int = 1 << 26,
    method: Method = "mean",
    rgb: bool = False,
    grain: Index | None = None,
    scratch: Path,
    meter: Meter | None = None,
) -> tuple[Grainy, list[Chunks], list[Index]]:
    axes = [axis(name) for name in names]
    factors = downsampling_factors(array.shape, scale or (1.0,) * array.ndim, axes, levels)
    chosen = default_chunks(array.shape, axes, rgb) if chunks is None else chosen_chunks(chunks, array.shape, axes, rgb)
    source = Grainy(array, axes=axes)
    pieces = grain or (1,) * array.ndim
    object.__setattr__(source.description, "grain", pieces)
    plan = make_plan(array.shape, axes, chosen, factors, pieces, array.itemsize, memory // 8, rgb=rgb)
    writers = [Chunks(_meta(level.shape, array.dtype, level.chunks)) for level in plan.levels]
    workers = Workers(2)
    try:
        allowed = Memory(memory, scratch)
        made: Any = writers
        VolumeStream(source, plan, made, method, allowed, workers, meter or Meter(array.nbytes, None, None)).run()
    finally:
        workers.close()
    return source, writers, factors


def _meta(shape: Index, dtype: np.dtype, chunks: Index) -> ArrayMeta:
    meta = parse_node(array_zarr_json(shape, dtype, chunks))
    assert isinstance(meta, ArrayMeta)
    return meta


@given(data=st.data())
@settings(max_examples=examples(60))
def test_every_level_is_what_downsampling_the_level_above_gives(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    draw = data.draw
    ndim = draw(st.integers(2, 5))
    names = "tczyx"[-ndim:]
    shape = tuple(draw(st.lists(st.integers(1, 30 if ndim < 5 else 9), min_size=ndim, max_size=ndim)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    array = rng.integers(0, 3, shape).astype("u2")
    array[rng.random(shape) < draw(st.sampled_from([0.0, 0.9, 1.0]))] = 0
    sizes = st.lists(st.integers(1, 12), min_size=ndim, max_size=ndim).map(tuple)
    method = draw(st.sampled_from(["mean", "mode"]))
    _, writers, factors = stream(
        array,
        names,
        chunks=draw(st.none() | sizes),
        scale=tuple(draw(st.lists(st.sampled_from([1.0, 2.0, 5.0]), min_size=ndim, max_size=ndim))),
        levels=draw(st.integers(1, 4)),
        memory=draw(st.sampled_from([1 << 9, 1 << 13, 1 << 26])),
        method=method,
        rgb=ndim == 4 and shape[0] <= 4,
        grain=draw(st.none() | sizes),
        scratch=tmp_path_factory.getbasetemp(),
    )
    level = array
    for writer, factor in zip(writers, [None, *factors], strict=True):
        level = array if factor is None else downsample(level, factor, method)
        np.testing.assert_array_equal(writer.array(), level)


def test_planes_of_a_whole_are_read_once_each_even_when_memory_is_short(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (40, 200, 300), np.uint8)
    source, writers, _ = stream(array, "zyx", chunks=(16,), memory=1 << 16, grain=(1, 200, 300), scratch=tmp_path)
    assert source.given == array.size
    np.testing.assert_array_equal(writers[0].array(), array)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (64, 100, 100), (0, 4)])
def test_tiles_begin_where_a_cache_line_does(tmp_path: Path, shape: Index) -> None:
    memory = Memory(1 << 24, tmp_path)
    for dtype in ("?", "u1", "u2", "f8", "c16"):
        made = memory.buffer(shape, np.dtype(dtype))
        assert made.shape == shape and made.dtype == dtype
        assert made.flags.c_contiguous and made.flags.writeable
        assert made.ctypes.data % 64 == 0 or not made.size


def test_memory_is_taken_from_a_file_past_the_limit_and_a_full_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(1000, tmp_path)
    assert not isinstance(memory.buffer((900,), np.dtype("u1")), np.memmap)
    mapped = memory.buffer((50, 10), np.dtype("u2"))
    assert isinstance(mapped, np.memmap) and mapped.shape == (50, 10)
    assert not list(tmp_path.iterdir())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(volume_stream.os, "posix_fallocate", full)
    with pytest.raises(NoSpace):
        memory.buffer((5000,), np.dtype("u1"))


def test_progress_ends_at_the_whole_and_cancelling_stops(tmp_path: Path) -> None:
    array = np.ones((30, 40, 50), np.uint16)
    seen: list[Progress] = []
    meter = Meter(array.nbytes, seen.append, None)
    stream(array, "zyx", chunks=(8,), scratch=tmp_path, meter=meter)
    assert seen[-1] == Progress(array.nbytes, array.nbytes)
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(VolfsError, match="cancelled"):
        stream(array, "zyx", chunks=(8,), scratch=tmp_path, meter=Meter(array.nbytes, None, cancel))


def test_an_error_of_the_source_ends_the_pass(tmp_path: Path) -> None:
    array = np.ones((30, 40, 50), np.uint16)

    class Broken(ArraySource):
        def read(self, box: Box) -> np.ndarray:
            raise BadInput("slice 7 is unreadable")

    plan = make_plan(array.shape, [axis(n) for n in "zyx"], (8, 8, 8), [], (1, 1, 1), 2, 1 << 20)
    writers: Any = [Chunks(_meta(array.shape, array.dtype, (8, 8, 8)))]
    workers = Workers(2)
    run = VolumeStream(
        Broken(array), plan, writers, "mean", Memory(1 << 20, tmp_path), workers, Meter(1, None, None)
    ).run
    with pytest.raises(BadInput, match="slice 7"):
        run()
    workers.close()


# ---------------------------------------------------------------------------------------------------------- plans


@pytest.mark.parametrize(
    ("shape", "names", "chunks"),
    [
        ((500, 600, 700), "zyx", (64, 64, 64)),
        ((4000, 5000), "yx", (512, 512)),
        ((5, 1000, 1000), "zyx", (5, 256, 256)),
        ((70, 70, 70), "zyx", (70, 70, 70)),
        ((20, 3, 30, 500, 500), "tczyx", (1, 1, 30, 128, 128)),
        ((1, 1), "yx", (1, 1)),
        ((100_000, 3), "yx", (4096, 3)),
        ((7, 300, 300, 300), "azyx", (1, 64, 64, 64)),
    ],
)
def test_default_chunks_are_near_to_cubes_and_keep_short_axes_whole(shape: Index, names: str, chunks: Index) -> None:
    assert default_chunks(shape, [axis(n) for n in names]) == chunks


def test_samples_of_colours_stay_together() -> None:
    axes = [axis(n) for n in "czyx"]
    assert default_chunks((3, 300, 300, 300), axes, rgb=True) == (3, 64, 64, 64)
    assert default_chunks((3, 300, 300, 300), axes) == (1, 64, 64, 64)


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=3).map(tuple))
def test_default_chunks_are_never_far_from_their_size(shape: Index) -> None:
    chunks = default_chunks(shape, [axis(n) for n in "zyx"[-len(shape) :]])
    assert all(1 <= c <= n for c, n in zip(chunks, shape, strict=True))
    assert math.prod(chunks) <= 4 * 64**3
    assert math.prod(chunks) >= min(math.prod(shape), 64**3 // 8) or max(shape) > 4096


def test_chunks_can_be_given_for_space_or_for_all_axes() -> None:
    axes = [axis(n) for n in "tczyx"]
    shape = (5, 2, 40, 50, 60)
    assert chosen_chunks((32,), shape, axes) == (1, 1, 32, 32, 32)
    assert chosen_chunks((100, 20, 30), shape, axes) == (1, 1, 40, 20, 30)
    assert chosen_chunks((2, 2, 8, 8, 8), shape, axes) == (2, 2, 8, 8, 8)
    for wrong in ((1, 2), (0,), ()):
        with pytest.raises(BadInput, match="chunks"):
            chosen_chunks(wrong, shape, axes)


# ---------------------------------------------------------------------------------------------------- voxel sizes


@pytest.mark.parametrize(
    ("text", "names", "scale", "units"),
    [
        ("40,4,4nm", "zyx", (40, 4, 4), ["nanometer"] * 3),
        ("0.5um", "zyx", (0.5, 0.5, 0.5), ["micrometer"] * 3),
        ("1,1,1 mm", "zyx", (1, 1, 1), ["millimeter"] * 3),
        ("40nm,0.004um,4nm", "zyx", (40, 0.004, 4), ["nanometer", "micrometer", "nanometer"]),
        ("2 µm", "czyx", (1, 2, 2, 2), [None] + ["micrometer"] * 3),
        ("2s,1,40nm,4nm,4nm", "tczyx", (2, 1, 40, 4, 4), ["second", None] + ["nanometer"] * 3),
        ("1,1,40,4,4nm", "tczyx", (1, 1, 40, 4, 4), [None, None] + ["nanometer"] * 3),
        ("3,2", "yx", (3, 2), [None, None]),
        ("1e-1micron", "yx", (0.1, 0.1), ["micrometer"] * 2),
    ],
)
def test_voxel_sizes_as_people_write_them(
    text: str, names: str, scale: tuple[float, ...], units: list[str | None]
) -> None:
    axes, found = parse_voxel_size(text).apply([axis(n) for n in names], (1.0,) * len(names))
    assert found == pytest.approx(scale) and [a.unit for a in axes] == units


@pytest.mark.parametrize("text", ["", "nm", "4,,4", "-4nm", "0", "4 parsnips", "4x4x4nm", "inf", "nan", "1e999"])
def test_what_is_no_voxel_size_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="voxel size"):
        parse_voxel_size(text)


def test_a_voxel_size_must_fit_the_axes() -> None:
    with pytest.raises(
        BadInput, match="2 values, but the axes are c,z,y,x: give 1 number, 3 for z,y,x, or 4 for c,z,y,x"
    ):
        parse_voxel_size("4,4nm").apply([axis(n) for n in "czyx"], (1.0,) * 4)
