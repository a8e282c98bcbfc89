"""Arrays of any type and sharding for the tests of levels, and how they are compared: bit by bit."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tests.kits.memory_snapshots import MemoryDataset, put_array
from volfs.volume import image_at
from volfs.volume.volume_context import store_context

DTYPES = ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16"]
SHARDED = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


def sharding(inner):
    return [
        {
            "name": "sharding_indexed",
            "configuration": {"chunk_shape": list(inner), "codecs": SHARDED, "index_codecs": SHARDED},
        }
    ]


def random_voxels(rng, shape, dtype):
    """Any bits at all, NaNs with payloads among them."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    return rng.integers(0, 256, (*shape, dtype.itemsize), dtype=np.uint8).view(dtype).reshape(shape)


def same_bits(a, b):
    return (
        a.shape == b.shape
        and a.dtype == b.dtype
        and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
    )


@st.composite
def arrays(draw, min_size=0):
    ndim = draw(st.integers(2, 6))
    most = {2: 30, 3: 14, 4: 7}.get(ndim, 4)
    shape = tuple(draw(st.integers(min_size, most)) for _ in range(ndim))
    inner = tuple(draw(st.integers(1, max(1, most // 2))) for _ in range(ndim))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    voxels = random_voxels(rng, shape, draw(st.sampled_from(DTYPES)))
    fill = random_voxels(rng, (), voxels.dtype)[()] if draw(st.booleans()) else voxels.dtype.type(0)
    sharded = draw(st.booleans())
    chunk = tuple(n * draw(st.integers(1, 2)) for n in inner) if sharded else inner
    # Some chunks are all fill value, and so not stored.
    for _ in range(draw(st.integers(0, 4))):
        at = tuple(rng.integers(0, max(1, -(-n // c))) * c for n, c in zip(shape, chunk, strict=True))
        voxels[tuple(slice(a, a + c) for a, c in zip(at, chunk, strict=True))] = fill
    keys = {}
    put_array(keys, "a", voxels, chunk, fill_value=fill, codecs=sharding(inner) if sharded else None)
    return keys, voxels


def level_of(keys, *, cache_bytes=1 << 20, branch=False, path="a"):
    dataset = MemoryDataset()
    snapshot = dataset.add(keys)
    if branch:
        snapshot = dataset.branch()
    store_context(dataset.store).cache.resize(cache_bytes)
    image = image_at(snapshot, path)
    assert image is not None
    return image.levels[0]
