"""Generated texts and pictures: useful, valid, the same bytes for the same values, bounded."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.kits.view_layouts import InMemory
from volfs.model.graph import VersionInfo
from volfs.model.ngff import axis
from volfs.views import colour, documents, jpeg, slices, thumbnail
from volfs.views.slices import SliceGeometry

V1 = VersionInfo(1, (), 1, 1, 1_700_000_000_000_000_000, "Ada", "import cells", "aa")
V2 = VersionInfo(2, (1,), 1, 2, 1_700_000_100_000_000_000, "Grace", "mend slice 12\n\nby hand", "bb")
AXES = (axis("z", "nm"), axis("y", "nm"), axis("x", "nm"))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_json_says_what_it_was_given(value: object) -> None:
    assert json.loads(documents.to_json(value)) == value


def test_dataset_json_tells_axes_shape_dtype_voxel_size_levels_and_refs() -> None:
    levels = (
        documents.LevelFacts("s0", (9, 8, 7), (40.0, 4.0, 4.0)),
        documents.LevelFacts("s1", (9, 4, 4), (40, 8, 8)),
    )
    data = documents.dataset_json(
        "cells",
        default_branch="main",
        branches={"main": 2, "exp": 0},
        tags={"paper": 1},
        latest=V2,
        images=[documents.ImageFacts("", AXES, np.dtype("u2"), levels)],
    )
    found = json.loads(data)
    assert found["images"][0]["axes"] == ["z", "y", "x"] and found["images"][0]["dtype"] == "uint16"
    assert found["images"][0]["units"] == ["nanometer"] * 3 and found["images"][0]["levels"][1]["shape"] == [9, 4, 4]
    assert found["branches"] == {"exp": None, "main": "v2"} and found["tags"] == {"paper": "v1"}
    assert b'"shape": [9, 8, 7]' in data


def test_version_json_and_log_tell_who_when_and_why() -> None:
    found = json.loads(documents.version_json(V2, [documents.ChangeFacts("zarr/s0", 3, 1, 999)]))
    assert found["version"] == "v2" and found["parents"] == ["v1"] and found["time"] == "2023-11-14T22:15:00Z"
    assert found["changes"] == [{"path": "zarr/s0", "put": 3, "removed": 1, "bytes": 999}]
    log = documents.log_txt([V1, V2], {2: ["main"]}).decode()
    assert log.index("v2  (main)") < log.index("v1\n") and "    mend slice 12\n\n    by hand\n" in log
    assert documents.log_txt([]) == b"no versions yet\n"


def test_documents_are_utf8_whatever_names_are() -> None:
    name = b"files/f\xfcr".decode("utf-8", "surrogateescape")
    data = documents.version_json(V2, [documents.ChangeFacts(name, 1, 0, 1)])
    assert json.loads(data.decode("utf-8"))["changes"][0]["path"].encode("utf-8", "surrogateescape") == b"files/f\xfcr"


@pytest.mark.parametrize(
    ("fill", "text"),
    [
        (np.uint8(3), 3),
        (np.float32("nan"), "NaN"),
        (np.float64("-inf"), "-Infinity"),
        (np.complex64(1 + 2j), [1.0, 2.0]),
    ],
)
def test_info_json_is_valid_json_for_any_fill_value(fill: np.generic, text: object) -> None:
    data = documents.info_json(
        axes=AXES,
        shape=(3, 4, 5),
        dtype=fill.dtype,
        voxel_size=(1, 1, 1),
        chunk_shape=(3, 4, 5),
        codecs=[{"name": "bytes"}],
        fill_value=fill,
    )
    found = json.loads(data)
    assert found["fill_value"] == text and found["chunk_shape"] == [3, 4, 5] and "shard_shape" not in found


def test_status_json_names_what_is_in_the_way() -> None:
    data = documents.status_json(branch="main", head=V2, held={"zarr/s0/c/0": "does not decode"}, staged=["s0/xy/z0"])
    found = json.loads(data)
    assert not found["clean"] and found["held"] == [{"key": "zarr/s0/c/0", "reason": "does not decode"}]
    assert json.loads(documents.status_json(branch="new", head=None))["clean"]


def test_the_readme_is_about_forty_lines_and_names_the_datasets() -> None:
    for writable in (True, False):
        text = documents.readme_txt(store="/data/store", datasets=["cells", "brain"], writable=writable).decode()
        assert 15 <= len(text.splitlines()) <= 42 and "cells, brain" in text
        assert all(len(line) <= 120 for line in text.splitlines())
    assert "20 more" in documents.readme_txt(store="s", datasets=[f"d{n}" for n in range(28)], writable=True).decode()
    documents.readme_txt(store="s", datasets=[], writable=True)


def test_colours_of_labels_depend_on_the_label_only() -> None:
    labels = np.array([[0, 1, 2], [7, 2, 2**40]], np.uint64)
    rgb = colour.pseudo_colour(labels)
    assert rgb.shape == (2, 3, 3) and rgb.dtype == np.uint8
    assert not rgb[0, 0].any() and (rgb[0, 2] == rgb[1, 1]).all() and rgb[1, 2].any()
    assert (colour.pseudo_colour(labels[:, 1:]) == rgb[:, 1:]).all()
    assert (colour.pseudo_colour(np.array([-1, 5], np.int16))[1] == colour.pseudo_colour(np.array([5]))).all()
    many = colour.pseudo_colour(np.arange(1, 500))
    assert len(np.unique(many, axis=0)) > 490 and many.max(axis=1).min() > 120


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "u8", "f2", "f8", "c8", "V3"])
def test_a_window_is_never_empty_and_pictures_are_eight_bits(dtype: str) -> None:
    made = np.arange(90, dtype="u1").reshape(6, 5, 3)
    for array in (np.zeros((6, 5), dtype), made.view(dtype)[..., 0] if dtype == "V3" else made[..., 0].astype(dtype)):
        low, high = colour.robust_window(array)
        assert low < high
        assert colour.windowed(array, (low, high)).dtype == np.uint8
    broken = np.array([np.nan, np.inf, -np.inf, 1, 2, 3], "f4")
    assert np.isfinite(colour.robust_window(broken)).all()
    assert colour.windowed(broken, (0, 3)).tolist() == [0, 255, 0, 85, 170, 255]


@pytest.mark.parametrize("is_label", [False, True])
def test_a_thumbnail_shows_the_middle_plane_of_a_coarse_level_with_square_pixels(is_label: bool) -> None:
    fine = np.zeros((11, 640, 800), np.uint16)
    fine[5, :320] = 900
    coarse = fine[::1, ::2, ::2].copy()
    tiny = coarse[:, ::8, ::8].copy()
    levels = []
    for array in (fine, coarse, tiny):
        geometry = SliceGeometry.of("zyx", array.shape, array.dtype, scale=(1, 1, 2), units=("micrometer",) * 3)
        assert geometry is not None
        levels.append((geometry, InMemory(array)))
    picture = Image.open(io.BytesIO(thumbnail.render(levels, is_label=is_label)))
    assert picture.size == (256, 102)
    pixels = np.asarray(picture.convert("RGB"))
    assert pixels[10, 100].max() > 100 and pixels[90, 100].max() == 0
    assert levels[0][1].given == 0 and levels[1][1].given == 320 * 400


def test_a_thumbnail_of_a_huge_plane_without_levels_reads_little() -> None:
    source = InMemory(np.broadcast_to(np.uint8(9), (3, 100_000, 120_000)))
    geometry = SliceGeometry.of("zyx", source.shape, source.dtype)
    assert geometry is not None
    assert Image.open(io.BytesIO(thumbnail.render([(geometry, source)]))).size == (256, 256)
    assert source.given <= 2048**2
    source.given = 0
    source.chunks = (1, 1, 4)  # type: ignore[attr-defined]  # as a level has them
    thumbnail.render([(geometry, source)])
    assert source.given <= 128 * 512, "a chunk costs more than its voxels"


def test_a_preview_has_the_same_window_on_every_slice() -> None:
    array = np.random.default_rng(5).integers(0, 4000, (2, 20, 30, 40)).astype("u2")
    array[0] *= 4
    geometry = SliceGeometry.of("czyx", array.shape, array.dtype)
    assert geometry is not None
    source = InMemory(array)
    shown = [jpeg.window(geometry, source, c) for c in (0, 1)]
    assert shown[0][1] > 3 * shown[1][1]
    plane = geometry.spec("xz", 3, (1,))
    picture = Image.open(io.BytesIO(jpeg.render(source, plane, shown[1])))
    assert picture.format == "JPEG" and picture.size == (40, 20) and picture.mode == "L"
    exact = colour.windowed(array[1, :, 3], shown[1])
    assert abs(np.asarray(picture).astype(int) - exact).mean() < 12
    colours = Image.open(io.BytesIO(jpeg.render(source, plane, shown[1], is_label=True)))
    assert colours.mode == "RGB"
    assert not jpeg.holds(geometry.spec("xy", 0, (0,))) or slices.layout(".jpg", plane) is None
