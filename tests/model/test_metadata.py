"""Zarr v3 metadata, judged by zarr-python and TensorStore."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
import zarr
from hypothesis import given
from hypothesis import strategies as st

from volfs.errors import BadMetadata, Unsupported, VolfsError
from volfs.model.metadata import ArrayMeta, GroupMeta, array_zarr_json, group_zarr_json, parse_node

DTYPES = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
DTYPES += ["bool", "float16", "float32", "float64", "complex64", "complex128"]


def array(**changes: Any) -> bytes:
    doc = json.loads(array_zarr_json((8, 9), "uint16", (4, 4)))
    doc.update(changes)
    return json.dumps({k: v for k, v in doc.items() if v is not ...}).encode()


def parsed(raw: bytes) -> ArrayMeta:
    meta = parse_node(raw)
    assert isinstance(meta, ArrayMeta)
    return meta


@pytest.mark.parametrize("dtype", DTYPES)
def test_new_arrays_of_every_core_dtype_open_in_zarr_and_tensorstore(dtype: str, tmp_path: Path) -> None:
    raw = array_zarr_json((3, 5), dtype, (2, 4), dimension_names=["y", "x"], attributes={"note": [1, None]})
    (tmp_path / "zarr.json").write_bytes(raw)
    opened = zarr.open_array(tmp_path, mode="r")
    assert opened.dtype == np.dtype(dtype)
    assert opened.chunks == (2, 4)
    assert dict(opened.attrs) == {"note": [1, None]}
    theirs = ts.open({"driver": "zarr3", "kvstore": f"file://{tmp_path}/"}).result()
    assert theirs.dtype.numpy_dtype == np.dtype(dtype)
    assert theirs.domain.labels == ("y", "x")
    assert (np.asarray(theirs.read().result()) == opened[...]).all()
    meta = parsed(raw)
    assert (meta.dtype, meta.shape, meta.chunk_shape) == (np.dtype(dtype), (3, 5), (2, 4))
    assert meta.dimension_names == ("y", "x")
    assert meta.fill_value == 0
    assert type(meta.fill_value) is np.dtype(dtype).type


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", np.nan),
        ("float16", np.inf),
        ("float64", -np.inf),
        ("float32", 0.1),
        ("complex64", complex(np.nan, -1)),
        ("uint64", 2**64 - 1),
        ("int64", -(2**63)),
        ("bool", True),
        ("float32", np.uint32(0x7FC00001).view(np.float32)),
        ("float64", -0.0),
    ],
)
def test_fill_values_keep_their_bits_and_clients_read_the_same(dtype: str, value: Any, tmp_path: Path) -> None:
    raw = array_zarr_json((2,), dtype, (2,), fill_value=value)
    fill = parsed(raw).fill_value
    assert fill.tobytes() == np.array(value).astype(dtype).tobytes()
    (tmp_path / "zarr.json").write_bytes(raw)
    assert zarr.open_array(tmp_path, mode="r")[0].tobytes() == fill.tobytes()
    theirs = ts.open({"driver": "zarr3", "kvstore": f"file://{tmp_path}/"}).result()
    assert np.asarray(theirs[0].read().result()).tobytes() == fill.tobytes()


@pytest.mark.parametrize(
    ("dtype", "fill", "bits"),
    [
        ("float32", "NaN", struct.pack("<f", np.nan)),
        ("float32", "0x7fc00001", bytes.fromhex("0100c07f")),
        ("float64", "Infinity", struct.pack("<d", np.inf)),
        ("float16", "-Infinity", bytes.fromhex("00fc")),
        ("complex64", ["NaN", "0x7fc00001"], struct.pack("<f", np.nan) + bytes.fromhex("0100c07f")),
    ],
)
def test_fill_values_written_by_others_are_read(dtype: str, fill: Any, bits: bytes) -> None:
    assert parsed(array(data_type=dtype, fill_value=fill)).fill_value.tobytes() == bits


def test_an_ordinary_array_is_understood_without_importing_zarr() -> None:
    """A mount's first answer would wait half a second for it."""
    code = """
import sys
from volfs.model.metadata import array_zarr_json, parse_node
for dtype, fill in (("uint8", 0), ("int64", -(2**63)), ("uint64", 2**64 - 1), ("float32", 0.0), ("bool", True)):
    assert parse_node(array_zarr_json((2,), dtype, (2,), fill_value=fill)).fill_value == fill
assert "zarr" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        ("uint8", 300),
        ("uint8", -1),
        ("uint8", 1.5),
        ("uint8", "x"),
        ("uint8", None),
        ("uint8", [1]),
        ("float32", "abc"),
        ("complex64", [1]),
        ("bool", "maybe"),
        ("int64", 2**63),
    ],
)
def test_fill_values_outside_the_dtype_are_bad_metadata(dtype: str, fill: Any) -> None:
    with pytest.raises(BadMetadata):
        parse_node(array(data_type=dtype, fill_value=fill))


@pytest.mark.parametrize("value", [300, -1, 1.5, "x", np.int64(300), np.nan])
def test_an_array_is_not_made_with_a_fill_value_it_cannot_hold(value: Any) -> None:
    with pytest.raises(BadMetadata):
        array_zarr_json((2,), "uint8", (2,), fill_value=value)


@pytest.mark.parametrize(
    "change",
    [
        {"data_type": "r16", "fill_value": [0, 0]},
        {"data_type": "string", "fill_value": ""},
        {"data_type": "bfloat16"},
        {"data_type": {"name": "numpy.datetime64", "configuration": {"unit": "s", "scale_factor": 1}}},
        {"shape": [2] * 7, "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1] * 7}}},
        {"shape": [], "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": []}}},
        {"chunk_grid": {"name": "rectilinear", "configuration": {}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 4]}}},
        {"chunk_key_encoding": {"name": "suffix"}},
        {"storage_transformers": [{"name": "x"}]},
        {"novel": {"name": "x"}},
        {"novel": {"must_understand": True}},
    ],
)
def test_valid_arrays_beyond_volfs_are_unsupported_and_not_bad(change: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        parse_node(array(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"zarr_format": 2},
        {"zarr_format": ...},
        {"node_type": "table"},
        {"shape": [-1, 2]},
        {"shape": [1.0, 2]},
        {"shape": [True, 2]},
        {"shape": "88"},
        {"shape": [2**63, 1]},
        {"shape": ...},
        {"fill_value": ...},
        {"codecs": []},
        {"codecs": ...},
        {"codecs": [{"configuration": {}}]},
        {"codecs": [{"name": "bytes", "configuration": 3}]},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4]}}},
        {"chunk_grid": {"name": "regular"}},
        {"chunk_grid": ...},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "-"}}},
        {"chunk_key_encoding": ...},
        {"attributes": []},
        {"dimension_names": ["y"]},
        {"dimension_names": ["y", 1]},
        {"data_type": ...},
        {"data_type": 3},
    ],
)
def test_metadata_that_breaks_the_specification_is_bad(change: dict[str, Any]) -> None:
    with pytest.raises(BadMetadata):
        parse_node(array(**change))


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000, b'{"zarr_format": 3}', b"null"])
def test_bytes_that_are_no_metadata_are_bad(raw: bytes) -> None:
    with pytest.raises(BadMetadata):
        parse_node(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(json.loads(array()))), json_values)
def test_no_value_in_any_field_raises_anything_but_our_errors(name: str, value: Any) -> None:
    try:
        parse_node(array(**{name: value}))
    except VolfsError as error:
        assert len(str(error).splitlines()) == 1


def test_tolerated_extras() -> None:
    meta = parsed(
        array(
            consolidated_metadata=None,
            storage_transformers=[],
            novel={"must_understand": False, "x": 1},
            codecs=["bytes"],
            data_type={"name": "uint8"},
            chunk_key_encoding="v2",
        )
    )
    assert meta.codecs == ({"name": "bytes", "configuration": {}},)
    assert meta.key_encoding == ("v2", ".")
    assert parse_node(b'{"zarr_format":3,"node_type":"group","consolidated_metadata":null}').attributes == {}


def test_groups_round_trip() -> None:
    meta = parse_node(group_zarr_json({"ome": {"version": "0.5"}}))
    assert isinstance(meta, GroupMeta)
    assert meta.attributes == {"ome": {"version": "0.5"}}


@pytest.mark.parametrize("encoding", ["default", "v2"])
@pytest.mark.parametrize("separator", ["/", "."])
def test_chunk_keys_are_zarrs_and_come_back(encoding: str, separator: str) -> None:
    raw = array(chunk_key_encoding={"name": encoding, "configuration": {"separator": separator}})
    meta = parsed(raw)
    theirs = zarr.core.metadata.v3.ArrayV3Metadata.from_dict(json.loads(raw))
    for coords in ((0, 0), (10, 2), (2**32 - 1, 7)):
        assert meta.chunk_key(coords) == theirs.encode_chunk_key(coords)
        assert meta.parse_chunk_key(meta.chunk_key(coords)) == coords


@pytest.mark.parametrize(
    "rel",
    [
        *("c", "c/", "c/0", "c/0/0/0", "c/00/1", "c/0/-1", "c/0/1.partial", "c/0/1/", "c.0.1", "0/1", "zarr.json"),
        *("c/٣/1", "c/0/4294967296", "c/0/1.__lock", "c/0/+1", "c/0/ 1", "", "c//1", "c/0/99999999999999999999"),
    ],
)
def test_other_files_are_no_chunks(rel: str) -> None:
    assert parsed(array()).parse_chunk_key(rel) is None


def test_same_storage_ignores_shape_fill_and_attributes_and_spelling() -> None:
    one = parsed(array(codecs=["bytes"], data_type="uint8"))
    other = parsed(
        array(codecs=[{"name": "bytes"}], data_type="uint8", shape=[99, 1], fill_value=3, attributes={"a": 1})
    )
    assert one.same_storage(other)
    for change in (
        {"data_type": "int8"},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 5]}}},
        {"chunk_key_encoding": {"name": "v2"}},
        {"codecs": ["bytes", "crc32c"]},
    ):
        assert not one.same_storage(parsed(array(**({"codecs": ["bytes"], "data_type": "uint8"} | change))))


def test_clients_sharding_is_described() -> None:
    store = zarr.storage.MemoryStore()
    zarr.create_array(store, shape=(8, 8), shards=(4, 8), chunks=(2, 4), dtype="u2")
    meta = parsed(store._store_dict["zarr.json"].to_bytes())
    assert meta.chunk_shape == (4, 8)
    assert meta.sharding is not None
    assert meta.sharding.chunk_shape == (2, 4)
    assert meta.sharding.index_location == "end"
    assert [c["name"] for c in meta.sharding.index_codecs] == ["bytes", "crc32c"]


def test_zarr_pythons_own_arrays_parse() -> None:
    for dtype in DTYPES:
        store = zarr.storage.MemoryStore()
        zarr.create_array(store, shape=(8, 8), chunks=(3, 8), dtype=dtype, dimension_names=("y", None))
        meta = parsed(store._store_dict["zarr.json"].to_bytes())
        assert meta.dtype == np.dtype(dtype)
        assert meta.grid.grid_shape == (3, 1)
