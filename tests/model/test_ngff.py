"""OME-Zarr metadata: what volfs writes is valid 0.5, what others write is understood."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volfs.errors import BadInput, BadMetadata
from volfs.model import ngff
from volfs.model.ngff import Axis, LevelSpec, axis, downsampling_factors, ome_attributes, parse_multiscale
from volfs.model.units import normal_unit

ZYX = tuple(axis(n, "nm") for n in "zyx")


def test_factors_leave_z_alone_while_it_is_coarser_than_y_and_x():
    factors = downsampling_factors((1000, 8000, 8000), (40.0, 4.0, 4.0), ZYX)
    voxel = [40.0, 4.0, 4.0]
    for step in factors:
        if step[0] == 2:
            assert voxel[0] <= max(voxel[1:])
        voxel = [v * f for v, f in zip(voxel, step, strict=True)]
    assert factors[:4] == [(1, 2, 2)] * 4
    assert factors[4] == (2, 2, 2)


def test_factors_bring_a_volume_with_fine_z_to_isotropy_first():
    assert downsampling_factors((4000, 500, 500), (1, 4, 4), ZYX)[:3] == [(2, 1, 1), (2, 1, 1), (2, 2, 2)]


def test_factors_of_isotropic_volumes_halve_every_axis_of_space_and_no_other():
    axes = (axis("t", "s"), axis("c"), *ZYX)
    assert downsampling_factors((50, 3, 512, 512, 512), (1, 1, 8, 8, 8), axes) == [(1, 1, 2, 2, 2)] * 2
    assert downsampling_factors((300, 300), (1, 1), ZYX[1:], levels=3) == [(2, 2), (2, 2)]
    assert downsampling_factors((300, 300), (1, 1), ZYX[1:], levels=1) == []


def test_factors_are_not_misled_by_rounding_noise_in_voxel_sizes():
    assert downsampling_factors((256, 256, 256), (1.0000001, 1, 1), ZYX) == [(2, 2, 2)]


def test_levels_stop_when_nothing_is_left_to_halve():
    assert downsampling_factors((1, 3, 2), (1, 1, 1), ZYX, levels=50) == [(1, 2, 2), (1, 2, 1)]
    assert downsampling_factors((0, 0), (1, 1), ZYX[1:]) == []
    with pytest.raises(BadInput):
        downsampling_factors((4, 4), (1, 1), ZYX)


@given(
    st.lists(st.integers(0, 5000), min_size=3, max_size=3),
    st.lists(st.floats(0.01, 1000), min_size=3, max_size=3),
)
def test_auto_levels_end_small_and_near_isotropic(shape, scale):
    size, voxel = tuple(shape), list(scale)
    for step in downsampling_factors(shape, scale, ZYX):
        assert max(size) > ngff.SMALLEST_LEVEL
        assert set(step) <= {1, 2} and 2 in step
        size = ngff.downsampled_shape(size, step)
        voxel = [v * f for v, f in zip(voxel, step, strict=True)]
    assert max(size) <= ngff.SMALLEST_LEVEL


def test_written_metadata_is_valid_ome_zarr_05():
    axes = (axis("t", "s"), axis("c"), axis("z", "um"), axis("y", "um"), axis("x", "µm"))
    image = ngff.pyramid("cells", axes, (2, 1, 40, 4, 4), [(1, 1, 1, 2, 2), (1, 1, 2, 2, 2)])
    ome = ome_attributes(image)["ome"]
    assert ome["version"] == "0.5"
    (block,) = ome["multiscales"]
    assert "version" not in block  # 0.5 moved it to `ome`
    assert block["axes"] == [
        {"name": "t", "type": "time", "unit": "second"},
        {"name": "c", "type": "channel"},
        {"name": "z", "type": "space", "unit": "micrometer"},
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    assert [d["path"] for d in block["datasets"]] == ["s0", "s1", "s2"]
    for dataset in block["datasets"]:
        kinds = [t["type"] for t in dataset["coordinateTransformations"]]
        assert kinds in (["scale"], ["scale", "translation"])
        assert all(len(t[t["type"]]) == 5 for t in dataset["coordinateTransformations"])
    assert block["datasets"][2]["coordinateTransformations"] == [
        {"type": "scale", "scale": [2, 1, 80, 16, 16]},
        {"type": "translation", "translation": [0, 0, 20, 6, 6]},
    ]


def test_voxel_centres_of_all_levels_agree():
    image = ngff.pyramid("v", ZYX, (40, 4, 4), [(1, 2, 2), (2, 2, 2)], translation=(100, 7, 0))
    for index in range(1, 3):
        finer, coarser = image.levels[index - 1], image.levels[index]
        for f, s0, t0, t1 in zip(
            image.factors(index), finer.scale, finer.translation, coarser.translation, strict=True
        ):
            assert math.isclose(t1, t0 + sum(i * s0 for i in range(f)) / f)


@pytest.mark.parametrize("is_label", [False, True])
@pytest.mark.parametrize("names", ["yx", "zyx", "czyx", "tczyx", "tcpzyx", "yxc", "tx"])
def test_what_is_written_is_read_back(names, is_label):
    axes = tuple(axis(n, "nm" if n in "zyx" else None) for n in names)
    image = ngff.pyramid("v", axes, (3.5,) * len(axes), [(2,) * len(axes)], rgb=True, is_label=is_label, method="mode")
    attributes = ome_attributes(image)
    assert parse_multiscale(attributes) == image
    assert ("ome" in attributes) == (names in ("yx", "zyx", "czyx", "tczyx"))


def test_label_images_say_which_image_they_belong_to():
    image = ngff.pyramid("nuclei", ZYX, (1, 1, 1), is_label=True, method="mode")
    assert ome_attributes(image)["ome"]["image-label"] == {"source": {"image": "../../"}}
    assert ngff.parse_labels(ngff.labels_attributes(["nuclei", "axons"])) == ("nuclei", "axons")
    assert ngff.parse_labels({"labels": ["old"]}) == ("old",)
    assert ngff.parse_labels({"ome": {"labels": 3}}) == ()


def test_foreign_pyramids_are_understood_and_not_managed():
    block = {
        "version": "0.4",
        "axes": [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}],
        "datasets": [
            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 2, 2]}]},
            {
                "path": "1",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1, 4, 4]},
                    {"type": "translation", "translation": [0, 1, 1]},
                ],
            },
        ],
        "coordinateTransformations": [{"type": "scale", "scale": [1, 0.5, 0.5]}],
    }
    for attributes in ({"multiscales": [block]}, {"ome": {"version": "0.5", "multiscales": [block]}}):
        image = parse_multiscale(attributes)
        assert image is not None
        assert not image.managed and not image.is_label
        assert image.levels == (
            LevelSpec("0", (1, 1, 1), (0, 0, 0)),
            LevelSpec("1", (1, 2, 2), (0, 0.5, 0.5)),
        )
        assert image.factors(0) == (1, 1, 1)
        assert image.factors(1) == (1, 2, 2)


def test_axes_of_older_versions_are_understood():
    image = parse_multiscale({"multiscales": [{"axes": ["z", "y", "x"], "datasets": [{"path": "0"}]}]})
    assert image is not None and image.axes == (Axis("z", "space"), Axis("y", "space"), Axis("x", "space"))
    image = parse_multiscale({"multiscales": [{"datasets": [{"path": "0"}]}]})
    assert image is not None and "".join(a.name for a in image.axes) == "tczyx"


def test_attributes_without_an_image_are_none():
    for attributes in ({}, {"ome": {"version": "0.5", "labels": ["a"]}}, {"multiscales": []}, {"ome": None}):
        assert parse_multiscale(attributes) is None


@pytest.mark.parametrize(
    "block",
    [
        3,
        {},
        {"datasets": []},
        {"datasets": [{"path": "../x"}]},
        {"datasets": [{"path": ""}]},
        {"datasets": [{"path": "0"}, {"path": "0"}]},
        {"axes": [{"type": "space"}], "datasets": [{"path": "0"}]},
        {"axes": ["x", "x"], "datasets": [{"path": "0"}]},
        {
            "axes": ["y", "x"],
            "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1]}]}],
        },
        {
            "axes": ["y", "x"],
            "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, "2"]}]}],
        },
    ],
)
def test_impossible_metadata_is_refused(block):
    with pytest.raises(BadMetadata):
        parse_multiscale({"ome": {"version": "0.5", "multiscales": [block]}})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["x", "space", "scale", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["ome", "volfs", "multiscales", "axes", "datasets", "path", "name", "type", "scale"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_hostile_attributes_are_refused_with_a_clear_error(value):
    for attributes in ({"ome": {"multiscales": [value]}}, {"volfs": value, "ome": value}, {"multiscales": value}):
        try:
            parse_multiscale(attributes)
        except BadMetadata as error:
            assert str(error).startswith("multiscales: ")


@pytest.mark.parametrize(
    ("given_unit", "unit"),
    [("nm", "nanometer"), ("µm", "micrometer"), ("Micrometres", "micrometer"), ("mm", "millimeter"), ("s", "second"),
     ("S", "s"), ("seconds", "second"), (None, None), ("", None), ("parsec", "parsec")],
)  # fmt: skip
def test_units_get_the_names_ome_asks_for(given_unit, unit):
    assert normal_unit(given_unit) == unit
