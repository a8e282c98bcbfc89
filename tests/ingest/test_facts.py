"""What a source says beyond its voxels, from the reader to what is shown: values, places, names, and what is no zero.

Each kind of fact with several inputs; independent libraries write them and judge what comes out. The matrix of formats
is in ``tests/ingest/test_round_trips.py``.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import zarr

import volfs
from tests.kits import round_trips
from tests.kits.mounts import answer
from tests.kits.mounts import volfs as command
from tests.kits.round_trips import raw_header, voxels
from tests.kits.view_volumes import shown as shown_in_memory
from tests.kits.view_volumes import spec_of
from volfs.errors import BadInput
from volfs.export import export, wanted, wanted_path
from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.readers import nifti, open_source
from volfs.ingest.source import ArraySource
from volfs.model.box import Box
from volfs.model.facts import Rescale
from volfs.model.ngff import Axis, axis
from volfs.model.units import lengths, normal_unit
from volfs.versions.store import Store
from volfs.views import volumes
from volfs.volume.image import Image


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with volfs.init_store(tmp_path_factory.mktemp("facts") / "store") as made:
        yield made


@pytest.fixture
def store(shared: Store) -> Store:
    """A store without a dataset d."""
    if "d" in shared:
        shared.remove_dataset("d")
    return shared


def imported(store: Store, path: Path | str, target: str = "", said: list[str] | None = None, **options: Any) -> Image:
    """The image at a path of the dataset d, imported from a file."""
    with open_source([path]) as source:
        say = said.append if said is not None else None
        import_source(store, "d", target, source, ImportOptions(**options), say=say)
    return volfs.images(store["d"]["latest"])[target]


def shown(store: Store, path: str) -> Path:
    """A copy of what a mount shows at a path of the newest version of the dataset d."""
    out = Path(store.path).parent / f"shown.{path.replace('/', '_')}"
    if out.is_dir():
        shutil.rmtree(out)
    export(store, wanted_path(store["d"]["latest"], path, out), lambda done, total: None, overwrite=True)
    return out


def attributes(store: Store, target: str = "") -> dict[str, Any]:
    return dict(store["d"]["latest"].node(target).attributes)  # type: ignore[union-attr]


def all_of(image: Image, level: str = "s0") -> np.ndarray:
    return image[level].read(Box.whole(image[level].shape))


# ------------------------------------------------------------------------------------------------------- real values


@pytest.mark.parametrize(
    ("kind", "dtype", "slope", "inter"),
    [
        (nibabel.Nifti1Image, "u1", 0.5, 10.0),
        (nibabel.Nifti1Image, "i2", -2.0, 0.0),
        (nibabel.Nifti1Image, "f4", 0.001, -1024.0),
        (nibabel.Nifti2Image, "i2", 1.0, 7.0),
        (nibabel.Nifti2Image, "f4", 0.5, 10.0),
    ],
)
def test_real_values_are_those_that_nibabel_gives(
    store: Store, tmp_path: Path, kind: Any, dtype: str, slope: float, inter: float
) -> None:
    made = kind(voxels((6, 5, 4), dtype), np.eye(4))
    made.header.set_slope_inter(slope, inter)
    nibabel.save(made, tmp_path / "a.nii")
    image = imported(store, tmp_path / "a.nii")
    np.testing.assert_array_equal(all_of(image), voxels((6, 5, 4), dtype).T)
    assert image["s0"].rescale is not None
    assert image["s0"].rescale.slope == pytest.approx(slope) and image["s0"].rescale.intercept == pytest.approx(inter)
    expected = nibabel.load(tmp_path / "a.nii").get_fdata()
    np.testing.assert_allclose(nibabel.load(shown(store, "s0/volume.nii")).get_fdata(), expected, rtol=1e-6)


@pytest.mark.parametrize(("slope", "inter"), [(1.0, 0.0), (0.0, 5.0), (np.nan, np.nan), (np.inf, 0.0)])
def test_a_slope_that_says_nothing_is_none(store: Store, tmp_path: Path, slope: float, inter: float) -> None:
    nibabel.save(nibabel.Nifti1Image(voxels((6, 5, 4)), np.eye(4)), tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<2f", raw, 112, slope, inter)
    (tmp_path / "a.nii").write_bytes(raw)
    image = imported(store, tmp_path / "a.nii")
    assert image["s0"].rescale is None
    header = raw_header(shown(store, "s0/volume.nii"))
    assert (header["scl_slope"], header["scl_inter"]) == (1.0, 0.0)


@pytest.mark.parametrize("dtype", ["i2", "u2"])
def test_packed_data_of_netcdf_and_xarray_have_their_scale(store: Store, tmp_path: Path, dtype: str) -> None:
    made = zarr.create_array(str(tmp_path / "a.zarr"), data=voxels((4, 5, 6), dtype), dimension_names=["z", "y", "x"])
    made.attrs.update({"scale_factor": 0.25, "add_offset": -3.0, "units": "K"})
    assert imported(store, tmp_path / "a.zarr")["s0"].rescale == Rescale(0.25, -3.0, "K")
    with h5py.File(shown(store, "s0/volume.h5")) as file:
        told = file["data"].attrs
        assert (told["scale_factor"], told["add_offset"], told["units"]) == (0.25, -3.0, "K")


def test_metaimage_says_its_intensity_function_by_either_name(store: Store, tmp_path: Path) -> None:
    for names in (
        ("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset"),
        ("RescaleSlope", "RescaleIntercept"),
    ):
        told = "".join(f"{name} = {value}\n" for name, value in zip(names, (0.5, -7), strict=True))
        head = (
            f"ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\n{told}ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        )
        (tmp_path / "a.mha").write_bytes(head.encode() + voxels((4, 5, 6)).tobytes())
        assert imported(store, tmp_path / "a.mha")["s0"].rescale == Rescale(0.5, -7.0)
        text = shown(store, "s0/volume.mha").read_bytes()
        assert b"ElementToIntensityFunctionSlope = 0.5\n" in text and b"RescaleIntercept = -7.0\n" in text
    assert json.loads(shown(store, "s0/info.json").read_text())["rescale"] == {"slope": 0.5, "intercept": -7.0}


def test_what_came_out_of_a_store_goes_in_again_with_all_it_said(store: Store, tmp_path: Path) -> None:
    write = next(one.write for one in round_trips.SAMPLES if one.kind == "NRRD")
    imported(store, write(tmp_path))
    before = attributes(store)
    for job, name in (("zarr", "zarr"), ("formats/d.v2.zarr", "v2.zarr")):
        out = tmp_path / name
        jobs = wanted(store["d"]["v1"], "", "zarr", out) if job == "zarr" else wanted_path(store["d"]["v1"], job, out)
        export(store, jobs, lambda done, total: None)
        imported(store, out)
        after = attributes(store)
        assert after["volfs"]["source"] == before["volfs"]["source"]
        assert after["volfs"]["rescale"] == before["volfs"]["rescale"] == {"slope": 2.5, "intercept": -1024.0}


# ----------------------------------------------------------------------------------------------------- segmentations


def two_labels(dtype: str, shape: tuple[int, ...] = (8, 160, 160)) -> np.ndarray:
    return (np.random.default_rng(1).integers(0, 2, shape) * 100 + 7).astype(dtype)


def nifti_labels(intent: int, dtype: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        made = nibabel.Nifti1Image(two_labels(dtype).T, np.eye(4))
        made.header["intent_code"] = intent
        nibabel.save(made, folder / "a.nii")
        return folder / "a.nii"

    return write


def ilastik(mode: str | bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with h5py.File(folder / "a.h5", "w") as file:
            file["exported_data"] = two_labels("u1")
            file["exported_data"].attrs["display_mode"] = mode
        return folder / "a.h5"

    return write


def ngff_labels(version: str, dtype: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = round_trips.ome_zarr(version, labels=True)(folder)
        form: Any = 3 if version == "0.5" else 2
        data = two_labels(dtype)
        zarr.create_array(str(path / "0"), data=data, chunks=data.shape, overwrite=True, zarr_format=form)
        return path

    return write


def slicer(folder: Path) -> Path:
    told = {
        "space": "left-posterior-superior",
        "space directions": np.eye(3),
        "space origin": [0, 0, 0],
        "encoding": "raw",
    }
    told |= {"Segment0_ID": "a", "Segment0_LabelValue": "7", "Segment1_ID": "b", "Segment1_LabelValue": "107"}
    nrrd.write(str(folder / "a.seg.nrrd"), two_labels("u1"), told, index_order="C")
    return folder / "a.seg.nrrd"


@pytest.mark.parametrize(
    "write",
    [
        nifti_labels(1002, "u1"),
        nifti_labels(1003, "i2"),
        nifti_labels(1002, "f4"),
        ilastik("random-colortable"),
        ilastik(b"binary-mask"),
        ngff_labels("0.4", "u4"),
        ngff_labels("0.5", "i4"),
        slicer,
    ],
)
def test_what_says_that_it_is_a_segmentation_is_one(
    store: Store, tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    image = imported(store, write(tmp_path))
    assert image.is_label and image.method == "mode" and len(image.levels) > 1
    assert image["s0"].dtype.kind in "iu"
    for level in image.levels:
        assert set(np.unique(all_of(image, level.name)).tolist()) == {7, 107}
    assert json.loads(shown(store, "formats/d.precomputed/info").read_text())["type"] == "segmentation"


@pytest.mark.parametrize("write", [nifti_labels(0, "u1"), nifti_labels(3, "i2"), ilastik("grayscale")])
def test_what_does_not_say_so_is_an_image(store: Store, tmp_path: Path, write: Callable[[Path], Path]) -> None:
    assert not imported(store, write(tmp_path)).is_label


def test_a_user_has_the_last_word_on_what_is_a_segmentation(store: Store, tmp_path: Path) -> None:
    path = nifti_labels(1002, "u1")(tmp_path)
    assert not imported(store, path, labels=False).is_label
    assert raw_header(shown(store, "s0/volume.nii"))["intent_code"] == 0
    assert imported(store, ilastik("grayscale")(tmp_path), labels=True).is_label


def test_a_segmentation_of_fractions_is_an_image_and_that_is_said(store: Store, tmp_path: Path) -> None:
    made = nibabel.Nifti1Image(voxels((6, 5, 4), "f4") / 3, np.eye(4))
    made.header["intent_code"] = 1002
    nibabel.save(made, tmp_path / "a.nii")
    said: list[str] = []
    assert not imported(store, tmp_path / "a.nii", said=said).is_label
    assert len(said) == 1 and "segmentation" in said[0] and "at z 0, y 0, x" in said[0]


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        ([0, 1, 255], "uint8"),
        ([0, 256], "uint16"),
        ([3, 70_000], "uint32"),
        ([0, 2**40], "uint64"),
        ([-1, 5], "int8"),
        ([-129, 0], "int16"),
        ([-1, 40_000], "int32"),
    ],
)
def test_whole_labels_in_floating_point_take_the_smallest_type(store: Store, labels: list[float], dtype: str) -> None:
    data = np.random.default_rng(1).choice(labels, (5, 6, 7)).astype("f8" if len(dtype) > 5 else "f4")
    data.flat[: len(labels)] = labels
    said: list[str] = []
    import_source(store, "d", "", ArraySource(data), ImportOptions(labels=True), say=said.append)
    image = volfs.images(store["d"]["latest"])[""]
    assert image["s0"].dtype == dtype and image.is_label
    np.testing.assert_array_equal(all_of(image), data)
    assert said == [f"the labels of array are whole numbers in {data.dtype.name}: kept as {dtype}"]


@pytest.mark.parametrize("wrong", [0.5, np.nan, np.inf, -1e-30])
@pytest.mark.parametrize("target", ["", "labels/a"])
def test_the_first_label_that_is_not_whole_is_named(store: Store, wrong: float, target: str) -> None:
    data = np.ones((300, 40, 50), "f4")
    data[77, 3, 9] = data[77, 8, 2] = data[250, 0, 0] = wrong
    with pytest.raises(BadInput, match=r"whole numbers, but array has .* at z 77, y 3, x 9"):
        import_source(store, "d", target, ArraySource(data), ImportOptions(labels=True))
    assert "d" not in store


def test_labels_with_a_slope_are_their_real_values(store: Store, tmp_path: Path) -> None:
    made = nibabel.Nifti1Image(voxels((6, 5, 4)), np.eye(4))
    made.header.set_slope_inter(2.0, 1.0)
    made.header["intent_code"] = 1002
    nibabel.save(made, tmp_path / "a.nii")
    image = imported(store, tmp_path / "a.nii")
    np.testing.assert_array_equal(all_of(image), voxels((6, 5, 4)).T * 2 + 1)
    assert image.is_label and image["s0"].rescale is None


# --------------------------------------------------------------------------------------- never zeros for what is there


def v2_array(path: Path, data: np.ndarray, told: str | None, written: str) -> Path:
    """Chunks with one separator, metadata that name another, or none."""
    zarr.create_array(
        str(path), data=data, chunks=(3, 10, 10), zarr_format=2, chunk_key_encoding={"name": "v2", "separator": written}
    )
    text = json.loads((path / ".zarray").read_text())
    text.pop("dimension_separator", None)
    (path / ".zarray").write_text(json.dumps(text if told is None else {**text, "dimension_separator": told}))
    return path


@pytest.mark.parametrize(("told", "written"), [(None, "/"), (None, "."), (".", "/"), ("/", "."), ("/", "/")])
def test_chunks_of_the_other_separator_are_read_as_they_lie(
    store: Store, tmp_path: Path, told: str | None, written: str
) -> None:
    data = voxels((7, 20, 35), "u2") + 1
    image = imported(store, v2_array(tmp_path / "a.zarr", data, told, written))
    np.testing.assert_array_equal(all_of(image), data)


@pytest.mark.parametrize("stray", ["3.0.0", "0.0.9", "0/0/0", "0.0", "0.0.0.0"])
def test_a_file_that_looks_like_a_chunk_and_is_none_is_named(tmp_path: Path, stray: str) -> None:
    path = v2_array(tmp_path / "a.zarr", voxels((7, 20, 35), "u2"), ".", ".")
    (path / stray).parent.mkdir(parents=True, exist_ok=True)
    (path / stray).write_bytes(b"x")
    with pytest.raises(BadInput, match=f"{stray} is no chunk of the array"):
        open_source([path])


@pytest.mark.parametrize("stray", ["c/0/0/9", "0/0/0", "c.0.0.0"])
def test_a_chunk_of_zarr_v3_that_is_none_is_named(tmp_path: Path, stray: str) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), data=voxels((7, 20, 35), "u2"), chunks=(3, 10, 10))
    (tmp_path / "a.zarr" / stray).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "a.zarr" / stray).write_bytes(b"x")
    with pytest.raises(BadInput, match=f"{stray} is no chunk of the array"):
        open_source([tmp_path / "a.zarr"])


@pytest.mark.parametrize("other", [".DS_Store", "notes.txt", "0.0.0.partial", "._0.0.0"])
def test_files_that_do_not_look_like_chunks_do_no_harm(store: Store, tmp_path: Path, other: str) -> None:
    data = voxels((7, 20, 35), "u2")
    path = v2_array(tmp_path / "a.zarr", data, ".", ".")
    (path / other).write_bytes(b"x")
    np.testing.assert_array_equal(all_of(imported(store, path)), data)


@pytest.mark.parametrize("name", ["6-12_0-5_0-4", "0-6_0-5_0-3", "1-7_0-5_0-4.gz"])
def test_a_chunk_of_precomputed_that_is_none_is_named(tmp_path: Path, name: str) -> None:
    path = round_trips.precomputed(tmp_path)
    (path / "2_3_4" / name).write_bytes(b"x")
    with pytest.raises(BadInput, match=f"{name} is no chunk of the volume"):
        open_source([path])


@pytest.mark.parametrize("name", ["1/0/0", "0/0/1", "0/0/0/0", "0/0/00", "00/0/0"])
def test_a_block_of_n5_that_is_none_is_named(tmp_path: Path, name: str) -> None:
    path = round_trips.n5(tmp_path)
    if name.startswith("0/0/0/"):
        (path / "0/0/0").unlink()
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(b"x")
    with pytest.raises(BadInput, match=f"{name} is no block of the dataset"):
        open_source([path])


def test_imaris_files_are_read_without_their_padding(store: Store, tmp_path: Path) -> None:
    path = round_trips.imaris(tmp_path)
    image = imported(store, path)
    assert [a.name for a in image.axes] == ["c", "z", "y", "x"] and image["s0"].shape == (2, 4, 5, 6)
    np.testing.assert_array_equal(all_of(image)[1], voxels((4, 5, 6), "u2"))
    with h5py.File(path, "r+") as file:  # a coarser level, which says how large it is
        for channel in range(2):
            file.copy(f"DataSet/ResolutionLevel 0/TimePoint 0/Channel {channel}", made := f"DataSet/{channel}")
            file.move(made, f"DataSet/ResolutionLevel 1/TimePoint 0/Channel {channel}")
            group = file[f"DataSet/ResolutionLevel 1/TimePoint 0/Channel {channel}"]
            for name, size in (("X", b"3"), ("Y", b"2"), ("Z", b"4")):
                group.attrs[f"ImageSize{name}"] = np.frombuffer(size, "S1")
    for part in ("1", "ResolutionLevel 1", "/DataSet/ResolutionLevel 1"):
        coarse = imported(store, f"{path}:{part}")
        np.testing.assert_array_equal(all_of(coarse)[1], voxels((4, 5, 6), "u2")[:, :2, :3])
    with h5py.File(path, "r+") as file:  # extents that fall
        about = file["DataSetInfo/Image"].attrs
        about["ExtMin1"], about["ExtMax1"] = np.frombuffer(b"35", "S1"), np.frombuffer(b"20", "S1")
    turned = imported(store, path)["s0"]
    assert turned.scale == (1.0, 4.0, -3.0, 2.0) and turned.translation == (0.0, 30.0, 35.0, 10.0)
    with pytest.raises(BadInput, match="no resolution level 7"):
        open_source([f"{path}:7"])
    one = imported(store, f"{path}:/DataSet/ResolutionLevel 0/TimePoint 0/Channel 1/Data")
    np.testing.assert_array_equal(all_of(one), voxels((4, 5, 6), "u2"))
    with h5py.File(path, "r+") as file:
        file["DataSet/ResolutionLevel 0/TimePoint 0/Channel 1"].attrs["ImageSizeX"] = np.frombuffer(b"60", "S1")
        del file["DataSet/ResolutionLevel 0/TimePoint 0/Channel 0/Data"]
    with pytest.raises(BadInput, match="Channel 0 is not there"):
        open_source([path])


def ome_set(folder: Path, master: str) -> tuple[Path, np.ndarray]:
    """A set of one file per time point and channel, described by a companion or by a master TIFF."""
    data = voxels((2, 3, 4, 5, 6), "u2")
    sizes = 'SizeX="6" SizeY="5" SizeZ="4" SizeC="3" SizeT="2" Type="uint16" DimensionOrder="XYZCT"'
    named = "".join(f'<Channel ID="Channel:0:{c}" Name="ch{c}" SamplesPerPixel="1"/>' for c in range(3))
    places = ""
    schema = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    for t in range(2):
        for c in range(3):
            name = f"e_{t}{c}.ome.tif"
            uuid = f'<UUID FileName="{name}">urn:uuid:{t}{c}</UUID>'
            places += f'<TiffData FirstC="{c}" FirstT="{t}" IFD="0" PlaneCount="4">{uuid}</TiffData>'
            only = f'<OME {schema} UUID="urn:uuid:{t}{c}"><BinaryOnly MetadataFile="{master}" UUID="urn:uuid:m"/></OME>'
            tifffile.imwrite(folder / name, data[t, c], description=only, metadata=None, photometric="minisblack")
    pixels = f'<Pixels ID="Pixels:0" {sizes}>{named}{places}</Pixels>'
    text = f'<OME {schema}><Image ID="Image:0" Name="e">{pixels}</Image></OME>'
    (folder / master).write_text(text)
    return folder, data


@pytest.mark.parametrize("named", ["e_00.ome.tif", "e_12.ome.tif", "e.companion.ome", "."])
def test_a_set_with_a_companion_is_read_whole_whichever_file_is_named(store: Store, tmp_path: Path, named: str) -> None:
    folder, data = ome_set(tmp_path, "e.companion.ome")
    image = imported(store, folder / named)
    np.testing.assert_array_equal(all_of(image), data)
    assert [a.name for a in image.axes] == list("tczyx")
    assert [one["label"] for one in attributes(store)["ome"]["omero"]["channels"]] == ["ch0", "ch1", "ch2"]


def test_a_directory_of_a_set_that_one_of_its_files_describes_is_that_set(store: Store, tmp_path: Path) -> None:
    data = voxels((2, 3, 5, 6), "u2")
    schema = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    sizes = 'SizeX="6" SizeY="5" SizeZ="3" SizeC="1" SizeT="2" Type="uint16" DimensionOrder="XYZCT"'
    places = ""
    for t in range(2):
        for z in range(3):
            uuid = f'<UUID FileName="p{t}{z}.ome.tif">urn:uuid:{t}{z}</UUID>'
            places += f'<TiffData FirstT="{t}" FirstZ="{z}" IFD="0" PlaneCount="1">{uuid}</TiffData>'
    for t in range(2):
        for z in range(3):
            pixels = f'<Pixels ID="Pixels:0" {sizes}>{places}</Pixels>'
            text = f'<OME {schema} UUID="urn:uuid:{t}{z}"><Image ID="Image:0">{pixels}</Image></OME>'
            path = tmp_path / f"p{t}{z}.ome.tif"
            tifffile.imwrite(path, data[t, z], description=text, metadata=None, photometric="minisblack")
    image = imported(store, tmp_path)
    assert [a.name for a in image.axes] == list("tzyx")
    np.testing.assert_array_equal(all_of(image), data)


@pytest.mark.parametrize("gone", ["e_11.ome.tif", "e.companion.ome"])
def test_what_a_set_lacks_is_named(tmp_path: Path, gone: str) -> None:
    folder, _ = ome_set(tmp_path, "e.companion.ome")
    (folder / gone).unlink()
    with pytest.raises(BadInput, match=f"{gone}.* not there"):
        open_source([folder / "e_00.ome.tif"])


# --------------------------------------------------------------------------------------------------- axes and units


@pytest.mark.parametrize(
    ("channels", "slices", "frames", "names"),
    [(1, 4, 1, "zyx"), (2, 4, 1, "zcyx"), (2, 1, 3, "tcyx"), (1, 4, 3, "tzyx"), (2, 4, 3, "tzcyx"), (1, 1, 1, "yx")],
)
def test_n5_and_zarr_of_imagej_have_its_axes(
    tmp_path: Path, channels: int, slices: int, frames: int, names: str
) -> None:
    sizes = {"x": 6, "y": 5, "c": channels, "z": slices, "t": frames}
    shape = tuple(sizes[name] for name in names)
    told: dict[str, Any] = {"numChannels": channels, "numSlices": slices, "numFrames": frames, "frameInterval": 0.5}
    told |= {"pixelWidth": 2.0, "pixelHeight": 3.0, "pixelDepth": 4.0, "pixelUnit": "um", "xOrigin": -5.0}
    place = tmp_path / "a.n5" / "img"
    block = place.joinpath(*"0" * len(shape))
    block.parent.mkdir(parents=True)
    layout = {"dimensions": shape[::-1], "blockSize": shape[::-1], "dataType": "uint16", "compression": {"type": "raw"}}
    (place / "attributes.json").write_text(json.dumps({**told, **layout}))
    data = voxels(shape, "u2")
    block.write_bytes(struct.pack(f">HH{len(shape)}I", 0, len(shape), *shape[::-1]) + data.astype(">u2").tobytes())
    zarr.create_array(str(tmp_path / "a.zarr"), data=data, zarr_format=2).attrs.update(told)
    for path in (place, tmp_path / "a.zarr"):
        with open_source([path]) as source:
            found = source.description
            assert "".join(a.name for a in found.axes) == names
            sized = {a.name: (s, a.unit) for a, s in zip(found.axes, found.scale, strict=True)}
            assert sized["x"] == (2.0, "micrometer") and sized["y"] == (3.0, "micrometer")
            assert sized.get("z", (4.0, "micrometer")) == (4.0, "micrometer")
            assert sized.get("t", (0.5, "second")) == (0.5, "second")
            assert found.translation is not None and found.translation[-1] == 10.0
            np.testing.assert_array_equal(source.read(Box.whole(found.shape)), data)


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (("um", "µm", "μm", "micron", "Microns", "micrometre", "MICROMETERS", "µ"), "micrometer"),
        (("nm", "Nanometer", "nanometres", "nm."), "nanometer"),
        (("Å", "Å", "A", "angstroms", "Ångström"), "angstrom"),
        (("in", "Inch", "inches", '"'), "inch"),
        (("ft", "feet", "foot"), "foot"),
        (("Mm",), "megameter"),
        (("mm", "millimetre", "MM"), "millimeter"),
        (("pixel", "Pixels", "px", "voxel", "reference frame", "unknown", "arbitrary", "?", " ", "", None), None),
        (("s", "sec", "Seconds"), "second"),
        (("furlong",), "furlong"),
    ],
)
def test_units_are_known_by_any_name(texts: tuple[str | None, ...], unit: str | None) -> None:
    assert {normal_unit(text) for text in texts} == {unit}


@pytest.mark.parametrize(
    ("sizes", "units", "expected"),
    [
        ((2, 500, 500), ("um", "nm", "nm"), (40, 150, 150)),
        ((0.5, 500, 0.0005), ("um", "nm", "mm"), (20, 150, 150)),
        ((40, 4, 4), ("angstrom", "nm", "nm"), (20, 150, 150)),
        ((1, 500, 500), (None, "nm", "nm"), (20, 150, 150)),
        ((1, 0.25, 0.25), ("pixel", None, None), (40, 150, 150)),
        ((0.001, 1, 1), ("inch", "um", "um"), (40, 150, 150)),
    ],
)
def test_a_pyramid_shrinks_by_lengths_whatever_they_are_measured_in(
    store: Store, sizes: tuple[float, ...], units: tuple[str | None, ...], expected: tuple[int, ...]
) -> None:
    axes = [axis(name, unit) for name, unit in zip("zyx", units, strict=True)]
    import_source(store, "d", "", ArraySource(voxels((40, 300, 300), "u1"), axes=axes, scale=sizes))
    assert volfs.images(store["d"]["latest"])[""]["s1"].shape == expected


def test_lengths_are_in_metres_where_any_is_known() -> None:
    assert lengths((2, 3), ("micrometer", "nanometer")) == pytest.approx([2e-6, 3e-9])
    assert lengths((2, -3), (None, "furlong")) == [2, 3]
    assert lengths((7, 2, 3), (None, "meter", "meter")) == [3, 2, 3]


@pytest.mark.parametrize("scale", [(4.0, -3.0, 2.0), (-4.0, 3.0, 2.0), (4.0, 3.0, -2.0), (-4.0, -3.0, -2.0)])
def test_a_negative_scale_is_the_affair_of_its_axis(
    store: Store, tmp_path: Path, scale: tuple[float, float, float]
) -> None:
    path = round_trips.ome_zarr("0.5", labels=True)(tmp_path)
    text = json.loads((path / "zarr.json").read_text())
    text["attributes"]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = scale
    (path / "zarr.json").write_text(json.dumps(text))
    image = imported(store, path)
    assert image["s0"].scale == scale and image["s0"].translation == (30, 20, 10)
    assert {a.unit for a in image.axes} == {"micrometer"}
    affine = nibabel.load(shown(store, "s0/volume.nii")).affine
    np.testing.assert_allclose(affine[:3, :3], np.diag(scale[::-1]) * 1e-3, rtol=1e-6)
    itk = sitk.ReadImage(str(shown(store, "s0/volume.nrrd")))
    np.testing.assert_allclose(itk.GetSpacing(), (2e-3, 3e-3, 4e-3))
    np.testing.assert_allclose(np.reshape(itk.GetDirection(), (3, 3)), np.diag(np.sign(scale[::-1])))
    with mrcfile.open(shown(store, "s0/volume.mrc"), header_only=True) as file:
        np.testing.assert_allclose([float(file.voxel_size[n]) for n in "xyz"], (2e4, 3e4, 4e4))
    assert json.loads(shown(store, "s0/info.json").read_text())["voxel_size"] == [4.0, 3.0, 2.0]


# ------------------------------------------------------------------------------------------------- where voxels lie


@pytest.mark.parametrize(("qform", "sform"), [(0, 0), (1, 0), (0, 2), (1, 4), (3, 3)])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_form_codes_of_nifti_stay_with_their_matrices(
    store: Store, tmp_path: Path, kind: Any, qform: int, sform: int
) -> None:
    turn = np.vstack([round_trips.TURN, [0, 0, 0, 1]])
    made = kind(voxels((6, 5, 4)), None)
    made.header.set_zooms((2, 3, 4))
    made.set_sform(turn if sform else None, sform)
    made.set_qform(np.diag([2.0, 3.0, 4.0, 1.0]) if qform else None, qform)
    nibabel.save(made, tmp_path / "a.nii")
    imported(store, tmp_path / "a.nii")
    source, found = nibabel.load(tmp_path / "a.nii").header, nibabel.load(shown(store, "s0/volume.nii")).header
    for get in ("get_qform", "get_sform"):
        matrix, code = getattr(source, get)(coded=True)
        seen, seen_code = getattr(found, get)(coded=True)
        assert code == seen_code
        if matrix is not None:
            np.testing.assert_allclose(seen, matrix, atol=1e-5)
    assert found.get_zooms() == source.get_zooms()


def test_a_quaternion_that_is_none_says_nothing(store: Store, tmp_path: Path) -> None:
    path = round_trips.nifti()(tmp_path)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<3f", raw, 256, 1.0, 1.0, 1.0)
    path.write_bytes(raw)
    imported(store, path)
    found = nibabel.load(shown(store, "s0/volume.nii")).header
    assert (int(found["qform_code"]), int(found["sform_code"])) == (0, 4)
    np.testing.assert_allclose(found.get_sform()[:3], round_trips.TURN)


@pytest.mark.parametrize("box", ["z1-3_y2-5_x1-6", "y3-", "x2-4"])
@pytest.mark.parametrize("number", [0, 3, 4, 7])
def test_a_box_lies_where_its_voxels_lay(store: Store, tmp_path: Path, box: str, number: int) -> None:
    """Of NIfTI, NRRD with directions and by axis, and MRC: its own readers say so of the box and of the source."""
    sample = round_trips.SAMPLES[number]
    imported(store, sample.write(tmp_path))
    starts = {part[0]: int(part[1:].split("-")[0]) for part in box.split("_")}
    first = [starts.get(name, 0) for name in "xyz"]
    if sample.kind == "MRC":
        with mrcfile.open(shown(store, f"s0/cutout/{box}.mrc"), header_only=True) as file:
            assert [int(file.header[name]) for name in ("nxstart", "nystart", "nzstart")] == [
                5 + first[0],
                6 + first[1],
                7 + first[2],
            ]
            assert file.header.cella.tolist() == (24, 30, 64) and file.header.mx == 12
        return
    whole, part = shown(store, "s0/volume.nrrd"), shown(store, f"s0/cutout/{box}.nrrd")
    expected = sitk.ReadImage(str(whole)).TransformIndexToPhysicalPoint(first)
    np.testing.assert_allclose(sitk.ReadImage(str(part)).GetOrigin(), expected, rtol=1e-9)
    if sample.kind == "NIfTI":
        affine = nibabel.load(shown(store, f"s0/cutout/{box}.nii")).header
        source = nibabel.load(tmp_path / "a.nii").header
        for get in ("get_qform", "get_sform"):
            np.testing.assert_allclose(
                getattr(affine, get)()[:3, 3], (getattr(source, get)() @ [*first, 1])[:3], atol=1e-5
            )


def test_a_coarser_level_lies_where_its_finer_one_does(store: Store, tmp_path: Path) -> None:
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = (10, 20, 30)
    made = nibabel.Nifti1Image(voxels((200, 200, 200), "u1"), affine)
    made.set_sform(affine, 4)
    nibabel.save(made, tmp_path / "a.nii")
    imported(store, tmp_path / "a.nii")
    found = nibabel.load(shown(store, "s1/volume.nii"))
    assert found.header["sform_code"] == 4
    np.testing.assert_allclose(found.affine[:3], np.column_stack((np.diag([4, 4, 4]), (11, 21, 31))))


def test_an_orientation_that_nobody_stated_is_not_told_from_an_older_import(store: Store) -> None:
    """Imports once kept what nibabel makes up for a file without forms."""
    import_source(store, "d", "", ArraySource(voxels((4, 5, 6))))
    branch = store["d"]["main"]
    path = "zarr/zarr.json"
    told = json.loads(branch.read(path))
    made_up = [[-2, 0, 0, 5], [0, 3, 0, -6], [0, 0, 4, -6], [0, 0, 0, 1]]
    told["attributes"]["volfs"]["source"] = {"format": "nifti", "affine": made_up, "qform_code": 0, "sform_code": 0}
    branch.put(path, json.dumps(told).encode())
    branch.commit("as it was")
    header = raw_header(shown(store, "s0/volume.nii"))
    assert (header["qform_code"], header["sform_code"]) == (0, 0)
    assert sitk.ReadImage(str(shown(store, "s0/volume.nrrd"))).GetOrigin() == (0, 0, 0)


@pytest.mark.parametrize(
    ("origin", "start", "expected"),
    [
        ((10, 20, 30), (0, 0, 0), (10, 20, 30)),
        ((0, 0, 0), (5, -6, 7), (10, -18, 28)),
        ((1, 2, 3), (4, 5, 6), (1, 2, 3)),
    ],
)
def test_a_map_lies_at_its_origin_or_else_at_its_start(
    store: Store, tmp_path: Path, origin: tuple[float, ...], start: tuple[int, ...], expected: tuple[float, ...]
) -> None:
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(voxels((4, 5, 6)))
        file.voxel_size = (2, 3, 4)
        file.header.origin = origin
        file.nstart = start
    image = imported(store, tmp_path / "a.mrc")
    assert image["s0"].translation == expected[::-1]
    with mrcfile.open(shown(store, "s0/volume.mrc"), header_only=True) as file:
        assert file.header.origin.tolist() == origin
        assert (int(file.header.nxstart), int(file.header.nystart), int(file.header.nzstart)) == start
    itk = sitk.ReadImage(str(shown(store, "s0/volume.nrrd")))
    np.testing.assert_allclose(itk.GetOrigin(), np.array(expected) * 1e-7, rtol=1e-9)


@pytest.mark.parametrize("centering", ["node", "cell", "???"])
@pytest.mark.parametrize(
    "ends",
    [
        "spacings: 2 3 4\naxis mins: 10 20 30",
        "spacings: -2 3 -4\naxis mins: 10 20 30",
        "spacings: 2 -3 4",
        "axis mins: 10 20 30\naxis maxs: 22 35 46",
        "axis mins: 10 20 30\naxis maxs: -2 35 14",
    ],
)
def test_axis_mins_of_nrrd_are_where_itk_takes_them(store: Store, tmp_path: Path, centering: str, ends: str) -> None:
    lines = f'{ends}\ncenterings: {" ".join([centering] * 3)}\nunits: "mm" "mm" "mm"'
    path = round_trips.nrrd_text(lines, (4, 5, 6))(tmp_path)
    expected = sitk.ReadImage(str(path))
    imported(store, path)
    for ending in ("nrrd", "mha"):
        found = sitk.ReadImage(str(shown(store, f"s0/volume.{ending}")))
        np.testing.assert_allclose(found.GetOrigin(), expected.GetOrigin(), rtol=1e-9)
        if "spacings" in ends:  # ITK does not ask where axes end
            np.testing.assert_allclose(found.GetSpacing(), expected.GetSpacing(), rtol=1e-9)
            assert found.GetDirection() == expected.GetDirection()


@pytest.mark.parametrize("space", ["left-posterior-superior", "right-anterior-superior", "LAS", "scanner-xyz"])
def test_nrrd_keeps_its_space_and_what_is_told_in_it(store: Store, tmp_path: Path, space: str) -> None:
    lines = (
        f"space: {space}\nspace directions: (0,2,0) (3,0,0) (0,0,-4)\nspace origin: (1,2,3)\n"
        "measurement frame: (0,1,0) (1,0,0) (0,0,1)\nDWMRI_b-value:=1000\nDWMRI_gradient_0000:=0 0 1"
    )
    path = round_trips.nrrd_text(lines, (4, 5, 6))(tmp_path)
    imported(store, path)
    source, found = nrrd.read_header(str(path)), nrrd.read_header(str(shown(store, "s0/volume.nrrd")))
    for name in ("space directions", "space origin", "measurement frame"):
        np.testing.assert_allclose(found[name], source[name])
    assert (found["space"], found["DWMRI_b-value"], found["DWMRI_gradient_0000"]) == (space, "1000", "0 0 1")
    expected, seen = (sitk.ReadImage(str(p)) for p in (path, shown(store, "s0/volume.mha")))
    if space != "scanner-xyz":
        np.testing.assert_allclose(seen.GetOrigin(), expected.GetOrigin(), rtol=1e-9)
        np.testing.assert_allclose(seen.GetDirection(), expected.GetDirection(), atol=1e-9)


def test_a_series_begins_when_it_began(store: Store, tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(voxels((3, 4, 5, 6)), isVector=False)
    image.SetSpacing((2.0, 3.0, 4.0, 0.5))
    image.SetOrigin((1.0, 2.0, 3.0, 7.0))
    for ending in ("mha", "nrrd"):
        sitk.WriteImage(image, str(tmp_path / f"a.{ending}"))
        assert imported(store, tmp_path / f"a.{ending}")["s0"].translation == (7.0, 0.0, 0.0, 0.0)
        assert sitk.ReadImage(str(shown(store, f"s0/volume.{ending}"))).GetOrigin() == (1.0, 2.0, 3.0, 7.0)


# ------------------------------------------------------------------------------------------------- what lies with it


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_label_images_and_attributes_come_with_their_image(store: Store, tmp_path: Path, version: str) -> None:
    path = round_trips.ome_zarr(version)(tmp_path)
    group = zarr.open_group(str(path))
    labels = group.create_group("labels")
    colours = {"colors": [{"label-value": 3, "rgba": [255, 0, 0, 255]}]}
    for name, dtype in (("cells", "u2"), ("nuclei", "i4")):
        (tmp_path / name).mkdir()
        shutil.copytree(round_trips.ome_zarr(version, labels=True)(tmp_path / name), path / "labels" / name)
        member = zarr.open_group(str(path / "labels" / name))
        told = member.attrs.asdict()
        (told["ome"] if version == "0.5" else told)["image-label"] = {**colours, "source": {"image": "../../"}}
        member.attrs.put(told)
        form: Any = 3 if version == "0.5" else 2
        zarr.create_array(
            str(path / "labels" / name / "0"),
            data=voxels((4, 5, 6), dtype),
            chunks=(4, 5, 6),
            overwrite=True,
            zarr_format=form,
        )
    labels.attrs.update({"ome": {"version": "0.5", "labels": ["cells"]}} if version == "0.5" else {"labels": ["cells"]})
    said: list[str] = []
    imported(store, path, said=said)
    assert said == []
    found = volfs.images(store["d"]["latest"])
    assert set(found) == {"", "labels/cells", "labels/nuclei"} and store["d"].branches() == {"main": 1}
    for name, dtype in (("cells", "u2"), ("nuclei", "i4")):
        image = found[f"labels/{name}"]
        assert image.is_label and image["s0"].dtype == dtype
        np.testing.assert_array_equal(all_of(image), voxels((4, 5, 6), dtype))
        assert attributes(store, f"labels/{name}")["ome"]["image-label"]["colors"] == colours["colors"]
    assert attributes(store)["who"] == "me"
    assert attributes(store, "labels")["ome"]["labels"] == ["cells", "nuclei"]


def test_what_an_import_cannot_keep_is_said_in_one_line(store: Store, tmp_path: Path) -> None:
    path = round_trips.ome_zarr("0.5")(tmp_path)
    group = zarr.open_group(str(path))
    group.create_group("tables")
    labels = group.create_group("labels")
    labels.attrs["ome"] = {"version": "0.5", "labels": ["gone"]}
    (tmp_path / "b").mkdir()
    shutil.copytree(round_trips.ome_zarr("0.5", labels=True)(tmp_path / "b"), path / "labels" / "small")
    zarr.create_array(str(path / "labels/small/0"), data=voxels((2, 5, 6), "u2"), chunks=(2, 5, 6), overwrite=True)
    said: list[str] = []
    imported(store, path, said=said)
    [line] = said
    assert line.startswith("not kept: ") and "\n" not in line
    assert "tables" in line and "labels/gone" in line and "labels/small" in line and "2 voxels along z" in line
    assert set(volfs.images(store["d"]["latest"])) == {""}


def test_the_command_says_what_was_not_kept(tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(voxels((4, 5, 6)))
        file.set_extended_header(np.zeros(64, "V16"))
    command(tmp_path / "store", "init")
    done = command(tmp_path / "store", "import", "d", tmp_path / "a.mrc")
    assert "not kept: the extended header of 1024 bytes" in done.stderr
    again = answer(tmp_path / "store", "import", "d", tmp_path / "a.mrc")
    assert again["remarks"] == ["not kept: the extended header of 1024 bytes"]


HOSTILE = [None, 3, -1, True, 1e300, "x", "a\nb: c", [], {}, [[1, 2], [3]], [[0.0] * 4] * 4, ["a"] * 3, [1e300] * 3]
HOSTILE += [{"x": 3, "y": "node", "z": None}, [{"code": "x", "base64": "?"}], [10**400] * 3]


@pytest.mark.parametrize("form", ["nifti", "nrrd", "metaimage", "mrc"])
@pytest.mark.parametrize("oriented", [True, False])
def test_facts_that_anybody_may_have_written_do_no_harm(tmp_path: Path, form: str, oriented: bool) -> None:
    names = [
        *nifti.TEXTS,
        *nifti.NUMBERS,
        *nifti.WHOLE_NUMBERS,
        "qform",
        "pixdim",
        "extensions",
        "version",
        "time_units",
    ]
    names += [
        "qform_code",
        "sform_code",
        "space",
        "measurementframe",
        "axis_kinds",
        "axis_labels",
        "centerings",
        "notes",
    ]
    names += [
        "spacings",
        "axis_mins",
        "sampleunits",
        "nstart",
        "origin",
        "grid",
        "cell_angles",
        "space_group",
        "labels",
    ]
    array = voxels((4, 5, 6))
    turn = tuple(tuple(row) for row in round_trips.TURN.tolist()) if oriented else None
    plain = {
        "format": form,
        "qform_code": 1,
        "sform_code": 4,
        **({"affine": [*round_trips.TURN, [0, 0, 0, 1]]} if oriented else {}),
    }
    for name in names:
        for value in HOSTILE:
            spec = replace(spec_of("zyx", array.shape, "int16", affine=turn), facts={**plain, name: value})
            for ending in (".nii", ".nrrd", ".nhdr", ".mha", ".mrc"):
                layout = volumes.layout(ending, spec)
                assert layout is not None and layout.size > 0
    for name in ("space", "notes", "qform", "axis_labels", "nstart"):
        for value in HOSTILE:
            spec = replace(spec_of("zyx", array.shape, "int16", affine=turn), facts={**plain, name: value})
            for ending in (".nii", ".nrrd", ".mha"):
                seen = sitk.GetArrayFromImage(sitk.ReadImage(str(shown_in_memory(tmp_path, ending, spec, array))))
                np.testing.assert_array_equal(seen, array)


def test_images_of_more_axes_than_ngff_has_keep_what_was_said(store: Store) -> None:
    axes = [Axis("angle"), *(axis(name) for name in "tczyx")]
    source = ArraySource(voxels((2, 1, 2, 3, 4, 5), "u1"), axes=axes)
    source.description = replace(
        source.description, rescale=Rescale(2.0, 1.0), ome={"omero": {"channels": [{"label": "a"}, {"label": "b"}]}}
    )
    import_source(store, "d", "", source)
    image = volfs.images(store["d"]["latest"])[""]
    assert image["s0"].rescale == Rescale(2.0, 1.0)
    assert attributes(store)["volfs"]["omero"]["channels"][1] == {"label": "b"}
