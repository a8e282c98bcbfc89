"""DICOM: the real images inside pydicom, series as SimpleITK writes them, and multi-frame files, voxel by voxel."""

from __future__ import annotations

import locale
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

import volfs
from tests.kits.import_sources import holds, itk_affine, reads_bad, write_series, write_slice, write_slices
from volfs.errors import BadInput
from volfs.ingest.axis_order import arrange
from volfs.ingest.importer import import_source
from volfs.ingest.readers import open_source
from volfs.ingest.source import check_unchanged
from volfs.model.box import Box
from volfs.model.facts import Rescale
from volfs.testing.volumes import noise


@pytest.fixture(autouse=True)
def same_locale() -> Iterator[None]:
    """ITK leaves the process with another locale when it writes DICOM."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


SHIPPED = Path(pydicom.data.__file__).parent / "test_files"


# ------------------------------------------------------------------------------------------------------ real images


#: Cut short, without a header, with a count of frames that is no number, or JPEG 2000 that OpenJPEG gives up on.
UNREADABLE = {
    "ExplVR_BigEndNoMeta.dcm",
    "ExplVR_LitEndNoMeta.dcm",
    "GDCMJ2K_TextGBR.dcm",
    "JPEG2000-embedded-sequence-delimiter.dcm",
    "MR_truncated.dcm",
    "badVR.dcm",
    "no_meta.dcm",
    "rtstruct.dcm",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(p.name for p in SHIPPED.glob("*.dcm")))
def test_every_image_that_pydicom_ships_is_read_right_or_refused(name: str) -> None:
    path = SHIPPED / name
    try:
        source = arrange(open_source([path]))
        seen = source.read(Box.whole(source.description.shape))
    except BadInput as error:
        assert "\n" not in str(error) and name in str(error)
        if "unreadable" in str(error):
            assert name in UNREADABLE, error
        else:
            assert re.search("palette|no DICOM image", str(error))
        return
    assert name not in UNREADABLE
    try:
        expected = pydicom.dcmread(path).pixel_array
    except (RuntimeError, NotImplementedError):  # pydicom alone has no decoder for it: ITK judges
        itk = sitk.ReadImage(str(path))
        expected = sitk.GetArrayFromImage(itk)
        expected = expected[0] if itk.GetDimension() == 3 and expected.shape[0] == 1 else expected
    if source.description.rgb:
        expected = np.moveaxis(expected, -1, [a.name for a in source.description.axes].index("c"))
    expected = expected.reshape(seen.shape)
    assert seen.dtype.itemsize == expected.dtype.itemsize
    np.testing.assert_array_equal(seen, expected)


def test_a_real_ct_series_and_a_real_mr() -> None:
    folder = SHIPPED / "dicomdirtests" / "98892001" / "CT5N"
    source = open_source([folder])
    found = source.description
    assert found.shape == (5, 16, 16) and found.scale[0] == pytest.approx(2.5)
    assert [a.unit for a in found.axes] == ["millimeter"] * 3 and found.facts["modality"] == "CT"
    files = sorted(map(pydicom.dcmread, folder.iterdir()), key=lambda d: float(d.ImagePositionPatient[2]))
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(names)
    np.testing.assert_allclose(found.facts["affine"], itk_affine(image), atol=1e-4)
    assert found.facts["rescale_intercept"] == files[0].RescaleIntercept
    holds(source, np.stack([d.pixel_array for d in files]), "zyx")
    mr = open_source([SHIPPED / "MR_small.dcm"])
    assert mr.description.scale == pytest.approx((0.3125, 0.3125))
    holds(mr, pydicom.dcmread(SHIPPED / "MR_small.dcm").pixel_array, "yx")


def test_real_directories_that_are_not_one_volume_say_why() -> None:
    root = SHIPPED / "dicomdirtests"
    with pytest.raises(BadInput, match=r"161 slices are missing: 17136 lies 202.5 mm after 17106, .* 1.25 mm apart"):
        open_source([root / "77654033" / "CT2"])
    with pytest.raises(BadInput, match="not parallel"):
        open_source([root / "98892003" / "MR700"])
    with pytest.raises(
        BadInput, match=r"holds 3 series \(1\.3[^;]*: MR T/S/C RF FAST PILOT, 3 images; .*, like .*MR2:1\.3"
    ):
        open_source([root / "98892003" / "MR2"])
    with pytest.raises(BadInput, match="no DICOM image"):
        open_source([root / "DICOMDIR"])
    with pytest.raises(BadInput, match="palette"):
        open_source([SHIPPED / "examples_palette.dcm"])


def test_a_real_film_has_time_points() -> None:
    source = open_source([SHIPPED / "examples_ybr_color.dcm"])
    found = source.description
    film = pydicom.dcmread(SHIPPED / "examples_ybr_color.dcm")
    assert found.axes[0].unit == "millisecond" and found.scale[0] == float(film.FrameTime)
    holds(source, film.pixel_array, "tyxc")


def test_a_real_dose_has_its_planes_where_they_lie() -> None:
    source = open_source([SHIPPED / "rtdose.dcm"])
    dose = pydicom.dcmread(SHIPPED / "rtdose.dcm")
    assert source.description.scale == (5.0, 10.0, 10.0)
    holds(source, dose.pixel_array, "zyx")


# ---------------------------------------------------------------------------------------------------------- series


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "u4"])
def test_slices_are_ordered_by_position_and_not_by_name_or_number(tmp_path: Path, dtype: str) -> None:
    data = noise((7, 13, 5), dtype)
    paths = write_series(tmp_path / "head", data)
    (tmp_path / "head" / "README.txt").write_text("not an image")
    shutil.copy(SHIPPED / "test-SR.dcm", tmp_path / "head")
    for names in ([tmp_path / "head"], paths, paths[::-1], [f"{tmp_path}/head/IM*"]):
        source = open_source(names)
        found = source.description
        assert found.name == "head" and found.scale == (2.5, 0.5, 0.25) and found.grain == (1, 13, 5)
        assert [a.unit for a in found.axes] == ["millimeter"] * 3
        assert found.facts["affine"] == [[0.25, 0, 0, -10], [0, 0.5, 0, 20], [0, 0, 2.5, 0], [0, 0, 0, 1]]
        assert found.facts["space"] == "left-posterior-superior" and "Somebody" not in str(found.facts)
        holds(source, data, "zyx")


def test_a_series_as_simpleitk_writes_it(tmp_path: Path) -> None:
    data = noise((6, 13, 9), "i2")
    image = sitk.GetImageFromArray(data)
    image.SetSpacing((0.25, 0.5, 3))
    direction = np.array([[0, 0.6, 0.8], [1, 0, 0], [0, 0.8, -0.6]])
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin((5, -7, 11))
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    cosines = "\\".join(str(n) for n in direction.T[:2].ravel())
    for z in range(6):
        plane = image[:, :, z]
        where = "\\".join(str(n) for n in image.TransformIndexToPhysicalPoint((0, 0, z)))
        for tag, value in (
            ("0008|0060", "CT"),
            ("0020|000e", "1.2.3"),
            ("0008|0018", f"1.2.3.{z}"),
            ("0020|0037", cosines),
            ("0020|0032", where),
            ("0020|0013", str(z)),
            ("0028|1053", "2"),
            ("0028|1052", "-1000"),
        ):
            plane.SetMetaData(tag, value)
        writer.SetFileName(str(tmp_path / f"{5 - z}.dcm"))
        writer.Execute(plane)
    source = open_source([tmp_path])
    found = source.description
    assert found.scale == pytest.approx((3, 0.5, 0.25))
    files = sorted(tmp_path.iterdir(), key=lambda p: -int(p.stem))
    stored = np.stack([pydicom.dcmread(path).pixel_array for path in files])
    turned = float(np.linalg.det(direction)) < 0  # the normal is the product of rows and columns, whatever was meant
    expected = stored[::-1] if turned else stored
    first = 5 if turned else 0
    np.testing.assert_allclose(found.facts["affine"][0][3], image.TransformIndexToPhysicalPoint((0, 0, first))[0])
    assert found.facts["rescale_slope"] == pydicom.dcmread(files[0]).RescaleSlope
    holds(source, expected, "zyx")


def test_missing_and_uneven_slices_are_told(tmp_path: Path) -> None:
    data = noise((6, 13, 9), "i2")
    cases: dict[str, tuple[list[float], str]] = {
        "one": ([0, 2, 4, 8, 10, 12], "1 slice is missing: IM.* lies 4 mm after IM.*, slices are 2 mm apart"),
        "more": ([0, 2, 8, 10, 14, 16], "3 slices are missing"),
        "uneven": ([0, 2, 4, 6, 9.3, 12], r"not evenly spaced: from 2 to 3\.3 mm"),
    }
    for name, (zs, reason) in cases.items():
        write_series(tmp_path / name, data, zs)
        with pytest.raises(BadInput, match=reason) as told:
            open_source([tmp_path / name])
        assert "\n" not in str(told.value)
    write_series(tmp_path / "rounded", data, [0, 0.6, 1.3, 1.9, 2.5, 3.1])  # 0.625 mm, to a tenth
    source = open_source([tmp_path / "rounded"])
    assert source.description.scale[0] == pytest.approx(0.62)
    holds(source, data, "zyx")


def test_a_tilted_gantry_is_in_the_affine(tmp_path: Path) -> None:
    data = noise((4, 13, 9), "i2")
    write_series(tmp_path / "s", data, step=(0.0, 0.5, 1.0))
    found = open_source([tmp_path / "s"]).description
    assert found.scale[0] == 2.5
    np.testing.assert_allclose(np.array(found.facts["affine"])[:3, 2], [0, 1.25, 2.5])


def test_several_series_are_named_and_one_can_be_picked(tmp_path: Path) -> None:
    first, second = noise((3, 13, 9), "i2"), noise((4, 13, 9), "u2")
    write_series(tmp_path / "s", first, series="1.2.3", number=4)
    write_series(tmp_path / "s", second, series="1.2.9", number=7)
    with pytest.raises(BadInput, match=r"2 series \(4: MR T1 axial, 3 images; 7: .* 4 images\): name one, like .*/s:4"):
        open_source([tmp_path / "s"])
    for part, expected in (("4", first), ("7", second), ("1.2.9", second)):
        holds(open_source([f"{tmp_path}/s:{part}"]), expected, "zyx")
    with pytest.raises(BadInput, match="has no series 5: it has 4"):
        open_source([f"{tmp_path}/s:5"])
    write_series(tmp_path / "t", first, series="1.2.3", number=None)
    write_series(tmp_path / "t", second, series="1.2.9", number=None)
    with pytest.raises(BadInput, match=r"like .*/t:1\.2\.3"):
        open_source([tmp_path / "t"])


def test_several_volumes_of_one_series_lie_along_time(tmp_path: Path) -> None:
    data = noise((3, 4, 13, 9), "i2")
    for t in (2, 0, 1):
        write_series(tmp_path / "s", data[t], series=f"1.2.3.{t}", AcquisitionNumber=t)
    for path in (tmp_path / "s").iterdir():
        made = pydicom.dcmread(path)
        made.SeriesInstanceUID = "1.2.3"
        made.save_as(path)
    source = open_source([tmp_path / "s"])
    assert source.description.scale == (1, 2.5, 0.5, 0.25)
    holds(source, data, "tzyx")
    next((tmp_path / "s").iterdir()).unlink()
    with pytest.raises(BadInput, match="images are missing, or the series is of several stacks"):
        open_source([tmp_path / "s"])


def test_slices_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    data = noise((4, 13, 9), "i2")
    paths = write_series(tmp_path / "s", data)
    whole = paths[2].read_bytes()
    for plane, what in ((noise((13, 8), "i2"), "8 x 13 int16"), (noise((13, 9), "u2"), "9 x 13 uint16")):
        write_slice(paths[2], plane, 5.0)
        with pytest.raises(BadInput, match=rf"{what}.*slices must be alike"):
            open_source([tmp_path / "s"])
    write_slice(paths[2], data[2], 5.0, PixelSpacing=[1, 1])
    with pytest.raises(BadInput, match="has pixels of"):
        open_source([tmp_path / "s"])
    write_slice(paths[2], data[2], 5.0, ImageOrientationPatient=[1, 0, 0, 0, 0, 1])
    with pytest.raises(BadInput, match="not parallel"):
        open_source([tmp_path / "s"])
    paths[2].write_bytes(whole)
    shutil.copy(paths[2], tmp_path / "s" / "copy")
    with pytest.raises(BadInput, match="are the same image"):
        open_source([tmp_path / "s"])
    (tmp_path / "s" / "copy").unlink()
    write_slices(tmp_path / "s", noise((1, 9, 13), "u1"))
    with pytest.raises(BadInput, match="DICOM files and pictures"):
        open_source([tmp_path / "s"])


def test_colour_slices_and_facts(tmp_path: Path) -> None:
    data = noise((3, 13, 9, 3), "u1")
    write_series(tmp_path / "rgb", data)
    source = open_source([tmp_path / "rgb"])
    assert source.description.rgb
    holds(source, data, "zyxc")
    gray = noise((3, 13, 9), "i2") >> 4
    write_series(
        tmp_path / "m", gray, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11, RescaleSlope=2.5
    )
    for z, path in enumerate(sorted((tmp_path / "m").iterdir())):
        made = pydicom.dcmread(path)
        made.RescaleIntercept = z
        made.save_as(path)
    facts = open_source([tmp_path / "m"]).description.facts
    assert facts["photometric_interpretation"] == "MONOCHROME1" and facts["bits_stored"] == 12
    assert facts["rescale_slope"] == 2.5 and sorted(facts["rescale_intercept"]) == [0, 1, 2]


def test_slices_of_one_slope_keep_their_numbers_and_say_what_they_mean(tmp_path: Path) -> None:
    stored = noise((3, 13, 9), "i2") >> 4
    write_series(tmp_path / "ct", stored, RescaleSlope=2.5, RescaleIntercept=-1024, RescaleType="HU")
    source = open_source([tmp_path / "ct"])
    assert source.description.rescale == Rescale(2.5, -1024, "HU") and not source.description.remarks
    holds(source, stored, "zyx")
    write_series(tmp_path / "mr", stored)
    assert open_source([tmp_path / "mr"]).description.rescale is None


@pytest.mark.parametrize(("kind", "is_label"), [("BINARY", True), ("LABELMAP", True), ("FRACTIONAL", False)])
def test_segmentations_say_that_they_are_such(tmp_path: Path, kind: str, is_label: bool) -> None:
    write_series(tmp_path / "seg", noise((3, 13, 9), "u1") % 3, Modality="SEG", SegmentationType=kind)
    assert open_source([tmp_path / "seg"]).description.is_label == is_label


@pytest.mark.parametrize("tags", [{"RescaleSlope": [0.5, 2, 0.125]}, {"RescaleIntercept": [0, -7, 3.5]}])
def test_slices_of_different_slopes_are_real_values_and_are_never_averaged_raw(
    tmp_path: Path, tags: dict[str, list[float]]
) -> None:
    stored = noise((3, 13, 9), "i2") >> 4
    write_series(tmp_path / "pet", stored, RescaleSlope=1, RescaleIntercept=0)
    paths = sorted((tmp_path / "pet").iterdir())
    [(name, values)] = tags.items()
    expected = np.empty(stored.shape, np.float32)
    for path, value in zip(paths, values, strict=True):
        made = pydicom.dcmread(path)
        setattr(made, name, value)
        made.save_as(path)
        z = round(float(made.ImagePositionPatient[2]) / 2.5)
        real = pydicom.pixels.apply_rescale(pydicom.dcmread(path).pixel_array, pydicom.dcmread(path))
        expected[z] = real
    source = open_source([tmp_path / "pet"])
    assert source.description.rescale is None
    assert [line for line in source.description.remarks if "float32" in line]
    holds(source, expected, "zyx")


def test_bits_that_are_not_stored_follow_the_sign(tmp_path: Path) -> None:
    signed = np.array([[-2048, -1, 0], [1, 2047, 100]], np.int16)
    raw = signed & 0x0FFF  # the upper four bits are another thing's
    write_slice(tmp_path / "v.dcm", raw.astype(np.int16), 0.0, BitsStored=12, HighBit=11)
    holds(open_source([tmp_path / "v.dcm"]), signed, "yx")


# ----------------------------------------------------------------------------------------------------- multi-frame


def write_enhanced(path: Path, data: np.ndarray, times: int = 1) -> None:
    """An enhanced MR image: geometry in functional groups, frames not in the order of space."""
    order = np.random.default_rng(1).permutation(len(data))
    write_slice(path, data[order].reshape(-1, data.shape[-1]), 0.0)
    made = pydicom.dcmread(path)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(made, name)
    made.NumberOfFrames, made.Rows = len(data), data.shape[1]
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [0.5, 0.25]
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    made.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for i in order:
        group, position, content, value = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [-10, 20, 1.5 * (i % (len(data) // times))]
        content.TemporalPositionIndex = int(i // (len(data) // times)) + 1
        value.RescaleSlope, value.RescaleIntercept = 3, -1024
        group.PlanePositionSequence, group.FrameContentSequence = [position], [content]
        group.PixelValueTransformationSequence = [value]
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = groups
    made.save_as(path)


@pytest.mark.parametrize("times", [1, 3])
def test_multi_frame_files_are_ordered_by_position_and_time(tmp_path: Path, times: int) -> None:
    data = noise((6, 13, 9), "u2")
    write_enhanced(tmp_path / "mf.dcm", data, times)
    source = open_source([tmp_path / "mf.dcm"])
    found = source.description
    assert found.name == "mf" and found.scale[-3:] == (1.5, 0.5, 0.25)
    assert found.facts["rescale_slope"] == 3 and found.facts["rescale_intercept"] == -1024
    expected = data if times == 1 else data.reshape(times, 2, 13, 9)
    holds(source, expected, "zyx" if times == 1 else "tzyx")


@pytest.mark.parametrize(
    "syntax", ["RLELossless", "JPEG2000Lossless", "JPEGLSLossless", "DeflatedExplicitVRLittleEndian"]
)
def test_compressed_multi_frame_files(tmp_path: Path, syntax: str) -> None:
    """Compressed by GDCM inside SimpleITK, pydicom, or imagecodecs, whichever has it."""
    import imagecodecs
    from pydicom.encaps import encapsulate

    data = noise((6, 13, 9), "u2")
    write_enhanced(tmp_path / "mf.dcm", data)
    made = pydicom.dcmread(tmp_path / "mf.dcm")
    frames = made.pixel_array
    if syntax == "RLELossless":
        made.compress(pydicom.uid.RLELossless)
    elif syntax.startswith("Deflated"):
        made.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    else:
        encode = imagecodecs.jpegls_encode if "LS" in syntax else imagecodecs.jpeg2k_encode
        options = {} if "LS" in syntax else {"codecformat": "j2k", "reversible": True, "level": 0}
        made.PixelData = encapsulate([bytes(encode(frame, **options)) for frame in frames])
        made["PixelData"].is_undefined_length = True
        made.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    made.save_as(tmp_path / "mf.dcm")
    holds(open_source([tmp_path / "mf.dcm"]), data, "zyx")


def test_jpeg_lossless_as_most_archives_keep_it(tmp_path: Path) -> None:
    import imagecodecs
    from pydicom.encaps import encapsulate

    data = noise((3, 16, 12), "u2") >> 2
    paths = write_series(tmp_path / "s", data)
    for path, plane in zip(paths, data, strict=True):
        made = pydicom.dcmread(path)
        made.PixelData = encapsulate([bytes(imagecodecs.ljpeg_encode(plane, bitspersample=16))])
        made["PixelData"].is_undefined_length = True
        made.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
        made.save_as(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(paths[0])))[0], data[0])
    holds(open_source([tmp_path / "s"]), data, "zyx")
    whole = pydicom.dcmread(paths[1])
    frame = bytes(next(pydicom.encaps.generate_frames(whole.PixelData, number_of_frames=1)))
    whole.PixelData = encapsulate([frame[: len(frame) // 2]])
    whole.save_as(paths[1])
    reads_bad(tmp_path / "s", "cut off")


# ------------------------------------------------------------------------------------------- bad files, end to end


def test_dicom_that_is_damaged_or_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.dcm"
    write_slice(path, noise((13, 9), "i2"), 0.0)
    whole = path.read_bytes()
    for bad in (b"", whole[:100], whole[:200], whole[: len(whole) // 2], whole[:-9], b"x" * 1000):
        path.write_bytes(bad)
        reads_bad(path, r"bad\.dcm (is unreadable or cut short|holds no DICOM image)")
    paths = write_series(tmp_path / "s", noise((4, 13, 9), "i2"))
    paths[1].write_bytes(paths[1].read_bytes()[:-9])
    reads_bad(tmp_path / "s", "is unreadable or cut short")


def test_a_series_that_changes_is_noticed(tmp_path: Path) -> None:
    data = noise((4, 13, 9), "i2")
    paths = write_series(tmp_path / "s", data)
    source = open_source([tmp_path / "s"])
    before = source.fingerprint()
    write_slice(tmp_path / "s" / "new", data[0], 10.0)
    with pytest.raises(BadInput, match="changed"):
        check_unchanged(before, source.fingerprint())
    write_slice(paths[0], data[0, :9], 0.0)
    with pytest.raises(BadInput, match="unreadable"):
        source.read(Box.whole(data.shape))


def test_a_series_end_to_end(tmp_path: Path) -> None:
    data = noise((9, 140, 30), "i2")
    paths = write_series(tmp_path / "head", data, RescaleSlope=1, RescaleIntercept=-1024)
    with volfs.init_store(tmp_path / "store") as store:
        with open_source([tmp_path / "head"]) as source:
            import_source(store, "head", "", source)
        image = volfs.images(store["head"]["latest"])[""]
        np.testing.assert_array_equal(image.levels[0].read(Box.whole(data.shape)), data)
        assert image.levels[0].scale == (2.5, 0.5, 0.25) and len(image.levels) == 3
        paths[5].write_bytes(paths[5].read_bytes()[:-500])
        with open_source([tmp_path / "head"]) as source, pytest.raises(BadInput, match="cut short"):
            import_source(store, "bad", "", source)
        assert store.datasets() == ["head"]


@pytest.mark.parametrize("between", [2.5, -1.25, None])
def test_slices_without_positions_have_the_distance_that_is_said(tmp_path: Path, between: float | None) -> None:
    data = noise((4, 9, 13), "i2")
    told = {} if between is None else {"SpacingBetweenSlices": between}
    paths = write_series(tmp_path / "s", data, **told)
    for path in paths:
        header = pydicom.dcmread(path)
        del header.ImagePositionPatient
        header.save_as(path)
    found = open_source([tmp_path / "s"])
    holds(found, data, "zyx")
    z = found.description.axes[0]
    wanted = (1.0, None) if between is None else (abs(between), "millimeter")
    assert (found.description.scale[0], z.unit) == wanted
    assert "have no positions: they are in the order of their instance numbers" in found.description.remarks[0]
