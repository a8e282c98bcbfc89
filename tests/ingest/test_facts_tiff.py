"""What TIFF files say besides voxels is kept: names and colours of channels, ImageJ's calibration, labels and info;
and comes back in the TIFF that a mount shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from ome_types import from_xml
from PIL import Image

from tests.kits.import_sources import holds, write_slices
from tests.kits.mounts import volfs as command
from volfs.ingest.axis_order import arrange
from volfs.ingest.readers import open_source
from volfs.ingest.readers.slice_numbers import SliceRules
from volfs.testing.volumes import noise

NAMES, COLOURS = ["DAPI", "GFP ☃", "Cy5"], [65535, 16711935, -16776961]  # blue, green, red as OME's RGBA


def there_and_back(tmp_path: Path, path: Path, kind: str = "tif") -> tuple[Path, dict[str, Any]]:
    """Import a file, export it; the export, and the attributes of the image."""
    store = tmp_path / "store"
    command(store, "init")
    command(store, "import", "d", path)
    command(store, "export", "d", tmp_path / f"out.{kind}")
    command(store, "export", "d", tmp_path / "out.zarr")
    found: dict[str, Any] = json.loads((tmp_path / "out.zarr" / "zarr.json").read_text())["attributes"]
    return tmp_path / f"out.{kind}", found


@pytest.mark.parametrize("axes", ["CYX", "ZCYX", "TCZYX", "CZYX"])
def test_names_and_colours_of_channels_there_and_back(tmp_path: Path, axes: str) -> None:
    sizes = {"T": 2, "C": 3, "Z": 4, "Y": 20, "X": 30}
    data = noise(tuple(sizes[a] for a in axes), "u2")
    meta = {"axes": axes, "Channel": {"Name": NAMES, "Color": COLOURS}}
    tifffile.imwrite(tmp_path / "a.ome.tif", data, photometric="minisblack", metadata=meta)
    out, attributes = there_and_back(tmp_path, tmp_path / "a.ome.tif")
    channels = attributes["ome"]["omero"]["channels"]
    assert [c["label"] for c in channels] == NAMES
    assert [c["color"] for c in channels] == ["0000FF", "00FF00", "FF0000"]
    with tifffile.TiffFile(out) as judge:
        found = from_xml(judge.ome_metadata).images[0].pixels  # type: ignore[arg-type]
    assert [c.name for c in found.channels] == NAMES
    assert [c.color.as_rgb_tuple() for c in found.channels] == [(0, 0, 255), (0, 255, 0), (255, 0, 0)]


def test_colours_without_names_and_names_without_colours(tmp_path: Path) -> None:
    data = noise((2, 20, 30), "u1")
    for what, given in (("Name", ["a", "b"]), ("Color", [-1, 255])):
        meta = {"axes": "CYX", "Channel": {what: given}}
        tifffile.imwrite(tmp_path / "a.ome.tif", data, photometric="minisblack", metadata=meta)
        channels = open_source([tmp_path / "a.ome.tif"]).description.ome["omero"]["channels"]
        wanted = {"Name": ["a", "b"], "Color": ["FFFFFF", "000000"]}[what]
        assert [c.get({"Name": "label", "Color": "color"}[what]) for c in channels] == wanted
    tifffile.imwrite(tmp_path / "n.ome.tif", data, photometric="minisblack", metadata={"axes": "CYX"})
    assert not open_source([tmp_path / "n.ome.tif"]).description.ome


def test_the_rest_of_an_ome_xml_is_kept_as_it_is(tmp_path: Path) -> None:
    meta = {"axes": "ZYX", "Name": "stained", "Description": "of 2024", "AcquisitionDate": "2024-02-03T04:05:06"}
    tifffile.imwrite(tmp_path / "a.ome.tif", noise((3, 9, 8)), photometric="minisblack", metadata=meta)
    facts = open_source([tmp_path / "a.ome.tif"]).description.facts
    assert facts["notes"] == {"Description": "of 2024", "AcquisitionDate": "2024-02-03T04:05:06"}
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as judge:
        assert facts["ome_xml"] == judge.ome_metadata
    many = [{"Name": f"channel {n} " + "x" * 200} for n in range(300)]
    meta = {"axes": "CYX", "Channel": {"Name": [one["Name"] for one in many]}}
    tifffile.imwrite(tmp_path / "b.ome.tif", noise((300, 4, 5)), photometric="minisblack", metadata=meta)
    found = open_source([tmp_path / "b.ome.tif"]).description
    assert "ome_xml" not in found.facts and "OME-XML" in found.lost[0]
    assert len(found.ome["omero"]["channels"]) == 300


def test_imagejs_calibration_labels_info_and_window_are_kept(tmp_path: Path) -> None:
    told: dict[str, Any] = {"axes": "ZYX", "cf": 0, "c0": -32768.0, "c1": 1.0, "vunit": "Gray Value"}
    told |= {"min": 10.0, "max": 300.0, "Labels": ["one", "two", "drei"], "Info": "stained 2024\nby hand"}
    told |= {"unit": "um", "spacing": 2.0, "xorigin": 5.0, "zorigin": -1.0}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise((3, 20, 30), "u2"), imagej=True, metadata=told, resolution=(4.0, 2.0))
    found = open_source([path]).description
    assert (found.rescale.slope, found.rescale.intercept, found.rescale.unit) == (1.0, -32768.0, "Gray Value")
    assert found.facts["Labels"] == ["one", "two", "drei"] and found.facts["Info"] == "stained 2024\nby hand"
    assert found.ome["omero"]["channels"][0]["window"]["start"] == 10.0
    assert found.translation == (2.0, 0.0, -1.25)
    out, attributes = there_and_back(tmp_path, path)
    assert attributes["volfs"]["source"]["Labels"] == ["one", "two", "drei"]
    with tifffile.TiffFile(out) as judge:
        page = judge.pages.first.tags.values()
        again = next(tag.value for tag in page if tag.code == 270 and str(tag.value).startswith("ImageJ"))
    for line in ("c0=-32768", "c1=1", "vunit=Gray Value", "cf=0", "xorigin=5", "zorigin=-1", "spacing=2"):
        assert line in again.splitlines(), again


def test_imagejs_channels_have_names_colours_and_ranges(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype="u1")
    green = np.stack([ramp * 0, ramp, ramp * 0])
    fire = np.stack([ramp, ramp[::-1], ramp])
    told = {"axes": "CYX", "Labels": ["nuclei", "actin"], "Ranges": (1.0, 200.0, 3.0, 4000.0), "LUTs": [green, fire]}
    tifffile.imwrite(tmp_path / "c.tif", noise((2, 20, 30), "u2"), imagej=True, metadata=told)
    first, second = open_source([tmp_path / "c.tif"]).description.ome["omero"]["channels"]
    assert (first["label"], second["label"]) == ("nuclei", "actin")
    assert first["color"] == "00FF00" and "color" not in second  # a table that is no ramp is no colour
    assert (first["window"]["start"], second["window"]["end"]) == (1.0, 4000.0)
    told = {"axes": "ZCYX", "Overlays": [b"an overlay"]}
    tifffile.imwrite(tmp_path / "o.tif", noise((3, 2, 20, 30), "u2"), imagej=True, metadata=told)
    assert open_source([tmp_path / "o.tif"]).description.lost == ("regions of interest and overlays",)


def test_what_plain_tiff_says_of_itself_is_kept(tmp_path: Path) -> None:
    tags = {"description": "section 12", "software": "scanner 4", "datetime": "2024:02:03 04:05:06"}
    tifffile.imwrite(tmp_path / "a.tif", noise((9, 8)), metadata=None, **tags)  # type: ignore[arg-type]
    facts = open_source([tmp_path / "a.tif"]).description.facts
    assert facts == {
        "format": "tiff",
        "description": "section 12",
        "software": "scanner 4",
        "date_time": "2024:02:03 04:05:06",
    }


@pytest.mark.parametrize("unit", ["CENTIMETER", "MILLIMETER", "MICROMETER"])
def test_calibrated_planes_of_a_directory_have_their_voxel_size(tmp_path: Path, unit: str) -> None:
    options = {"resolution": (20000.0, 10000.0), "resolutionunit": unit, "metadata": None}
    write_slices(tmp_path / "s", noise((4, 9, 13), "u2"), ".tif", **options)
    found = open_source([tmp_path / "s"]).description
    assert found.scale == (1.0, 1e-4, 5e-5)
    assert [a.unit for a in found.axes] == [None, *[unit.lower()] * 2]
    stack = tmp_path / "stack.tif"
    tifffile.imwrite(stack, noise((4, 9, 13), "u2"), photometric="minisblack", **options)  # type: ignore[arg-type]
    assert arrange(open_source([stack])).description.scale == (1.0, 1e-4, 5e-5)


def test_planes_of_imagej_and_of_ome_have_their_voxel_size(tmp_path: Path) -> None:
    meta = {"unit": "um", "spacing": 2.5}
    write_slices(tmp_path / "i", noise((4, 9, 13), "u2"), ".tif", imagej=True, resolution=(4.0, 4.0), metadata=meta)
    found = open_source([tmp_path / "i"]).description
    assert found.scale == (2.5, 0.25, 0.25) and {a.unit for a in found.axes} == {"micrometer"}
    ome = {
        "axes": "YX",
        "PhysicalSizeX": 4.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 5.0,
        "PhysicalSizeYUnit": "nm",
    }
    write_slices(tmp_path / "o", noise((4, 9, 13), "u2"), ".tif", ome=True, metadata=ome)
    assert open_source([tmp_path / "o"]).description.scale == (1.0, 5.0, 4.0)


def test_planes_of_unlike_sizes_say_that_these_are_not_kept(tmp_path: Path) -> None:
    for number in range(2):
        options = {"resolution": (100.0 + number, 100.0), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(tmp_path / f"{number}.tif", noise((9, 13)), **options)  # type: ignore[arg-type]
    found = open_source([tmp_path]).description
    assert found.scale == (1.0, 1.0, 1.0) and "differ from slice to slice" in found.lost[0]


def test_planes_that_were_made_up_are_among_the_facts(tmp_path: Path) -> None:
    for name in ("1", "2", "5"):
        tifffile.imwrite(tmp_path / f"{name}.tif", noise((9, 13)))
    for rule in ("fill", "nearest"):
        found = open_source([tmp_path], SliceRules(gaps=rule)).description  # type: ignore[arg-type]
        assert found.facts["made_up"] == {rule: [2, 3]}


@pytest.mark.parametrize("axes", ["ZYX", "TZYX", "TZCYX", "CYX"])
def test_imagejs_texts_come_back_with_the_slices_that_they_are_of(tmp_path: Path, axes: str) -> None:
    sizes = {"T": 2, "C": 3, "Z": 4, "Y": 20, "X": 30}
    shape = tuple(sizes[a] for a in axes)
    labels = [f"plane {n} ☃" for n in range(int(np.prod(shape[:-2])))]
    told = {"axes": axes, "Labels": labels, "Info": "stained\nby hand", "Properties": {"who": "me", "wö": "☃"}}
    tifffile.imwrite(tmp_path / "a.tif", noise(shape, "u2"), imagej=True, metadata=told)
    out, _ = there_and_back(tmp_path, tmp_path / "a.tif")
    with tifffile.TiffFile(out) as judge, Image.open(out) as picture:
        found = judge.imagej_metadata or {}
        assert np.array_equal(judge.asarray().reshape(shape), noise(shape, "u2"))
        assert picture.n_frames == len(labels)
    assert {name: found[name] for name in ("Labels", "Info", "Properties")} == {
        name: told[name] for name in ("Labels", "Info", "Properties")
    }
    every = np.array(labels).reshape(shape[:-2])
    parts: dict[tuple[str, str], dict[str, int | slice]] = {
        ("--box", "z1-3"): {"Z": slice(1, 3)},
        ("--box", "t1_c1-3"): {"T": 1, "C": slice(1, 3)},
        ("--path", "s0/t0001/volume.tif"): {"T": 1},
        ("--path", "s0/t0001/c02/volume.tif"): {"T": 1, "C": 2},
        ("--path", "s0/c02/volume.tif"): {"C": 2},
    }
    for number, (part, cut) in enumerate(parts.items()):
        if not cut.keys() <= {*axes} or (part[1].startswith("s0/c") and "T" in axes):
            continue
        out = tmp_path / f"{number}.tif"
        command(tmp_path / "store", "export", "d", out, *part)
        with tifffile.TiffFile(out) as judge:
            found = (judge.imagej_metadata or {})["Labels"]
            assert judge.pages[0].shape == shape[-2:] and len(judge.pages) == len(np.ravel(found))
        wanted = every[tuple(cut.get(name, slice(None)) for name in axes[:-2])].ravel().tolist()
        assert np.ravel(found).tolist() == wanted, part


@pytest.mark.parametrize("dtype", ["u1", "u2", "bool"])
def test_numbers_whose_smallest_is_white_are_kept_as_stored_and_said(tmp_path: Path, dtype: str) -> None:
    data = noise((3, 16, 24), "u1") > 99 if dtype == "bool" else noise((3, 16, 24), dtype)
    tifffile.imwrite(tmp_path / "stack.tif", data, photometric="miniswhite")
    (tmp_path / "s").mkdir()
    for z, plane in enumerate(data):
        tifffile.imwrite(tmp_path / f"s/{z}.tif", plane, photometric="miniswhite")
    for source in (open_source([tmp_path / "stack.tif"]), open_source([tmp_path / "s"])):
        holds(source, tifffile.imread(tmp_path / "stack.tif"), "zyx")
        assert "MINISWHITE" in source.description.remarks[0]
