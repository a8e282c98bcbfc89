"""What napari is told of images, and where labels go: the cases that need no napari to be seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

import volfs
from volfs.errors import BadInput, NotAllowed, NotFound
from volfs.model.ngff import axis, ome_attributes, pyramid
from volfs.python.napari_layers import LayerData, get_reader, write_labels

SHAPE = (4, 6, 8)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "store"
    with volfs.init_store(place) as opened:
        group = zarr.open_group(store=opened.create_dataset("cells").branch("main").zarr_store(), mode="w")
        image = pyramid("cells", [axis(name, "nanometer" if name != "c" else None) for name in "czyx"], (1, 5, 2, 2))
        channels = [
            {
                "label": "DAPI",
                "color": "0000FF",
                "active": True,
                "window": {"start": 1, "end": 9, "min": 0, "max": 255},
            },
            {
                "label": "actin",
                "color": "00ff00",
                "active": False,
                "window": {"start": 2, "end": 8, "min": 0, "max": 255},
            },
        ]
        group.attrs.update(ome_attributes(image, further={"omero": {"channels": channels}}))
        made = group.create_array(
            "s0", shape=(2, *SHAPE), chunks=(1, 2, 4, 4), dtype="u1", dimension_names=list("czyx")
        )
        made[...] = 3
        labels = pyramid("a", [axis(name, "nanometer") for name in "zyx"], (5, 2, 2), is_label=True, method="mode")
        node = group.create_group("labels/a")
        colours = {"colors": [{"label-value": 2, "rgba": [255, 0, 0, 255]}, {"label-value": "bad"}]}
        node.attrs.update(ome_attributes(labels, further={"image-label": colours}))
        node.create_array("s0", shape=SHAPE, chunks=(2, 4, 4), dtype="u1", dimension_names=list("zyx"))[...] = 2
        group.create_array("plain", shape=(3, 3), chunks=(3, 3), dtype="i2", dimension_names=["y", "x"])[...] = 1
        opened["cells"].branch("main").commit("made")
    return place


def layers(store: Path, what: str) -> list[LayerData]:
    reader = get_reader(f"volfs://cells@{what}::{store}")
    assert reader is not None
    return reader(what)


def test_channels_have_names_colours_and_windows(store: Path) -> None:
    (data, told, kind), _ = layers(store, "v1")
    assert kind == "image" and data.shape == (2, *SHAPE) and told["channel_axis"] == 0
    assert told["name"] == ["DAPI", "actin"] and told["contrast_limits"] == [[1, 9], [2, 8]]
    assert told["colormap"] == [[[0, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0]]] and told["visible"] == [True, False]
    assert told["scale"] == (5, 2, 2) and told["units"] == ("nanometer",) * 3 and told["axis_labels"] == ("z", "y", "x")


def test_labels_have_the_colours_that_their_metadata_gives(store: Path) -> None:
    ((data, told, kind),) = layers(store, "v1/labels/a")
    assert kind == "labels" and data.shape == SHAPE
    assert told["colormap"] == {0: "transparent", None: "gray", 2: [1, 0, 0, 1]}


def test_an_array_that_stands_alone_is_a_layer(store: Path) -> None:
    ((data, told, kind),) = layers(store, "v1/plain")
    assert kind == "image" and data.shape == (3, 3) and told["axis_labels"] == ("y", "x")


def test_what_is_not_of_volfs_is_left_to_other_readers(tmp_path: Path) -> None:
    assert (
        get_reader(str(tmp_path)) is None and get_reader([]) is None and get_reader("https://example.org/a.tif") is None
    )


def test_labels_without_channels_are_made_over_an_image_with_them(store: Path) -> None:
    painted = np.zeros(SHAPE, "i8")
    painted[1:3, 2, 3] = 70_000
    where = f"volfs://cells@main/labels/b::{store}"
    assert write_labels(where, painted, {}) == [where]
    ((data, told, _),) = layers(store, "main/labels/b")
    assert data.dtype == np.uint32 and told["scale"] == (5, 2, 2)
    np.testing.assert_array_equal(data.compute(), painted)
    assert write_labels(where, [painted, painted[::2]], {"multiscale": True}) == [where]


@pytest.mark.parametrize(
    ("path", "shape", "value", "error", "why"),
    [
        ("v1/labels/a", SHAPE, 1, NotAllowed, "a version never changes"),
        ("main/labels/a", (4, 6, 9), 1, BadInput, "4 x 6 x 9"),
        ("main/labels/a", SHAPE, 256, BadInput, "no place for label 256"),
        ("main/labels/a", SHAPE, -1, BadInput, "no place for label -1"),
        ("main/labels/new", (4, 6, 9), 1, BadInput, "the image 4 x 6 x 8"),
        ("main/labels/new", SHAPE, -1, BadInput, "-1"),
        ("main/plain", SHAPE, 1, BadInput, "name a label image"),
        ("main/other/labels/new", SHAPE, 1, NotFound, "no image at other"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_made(
    store: Path, path: str, shape: tuple[int, ...], value: int, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        write_labels(f"volfs://cells@{path}::{store}", np.full(shape, value), {})
    with volfs.open_store(store) as opened:
        assert opened["cells"].branch("main").is_clean()
