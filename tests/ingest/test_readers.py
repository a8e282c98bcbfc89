"""Every reader gives the voxels, axes and voxel sizes that the programs which wrote the files meant."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import mrcfile
import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from tests.kits.import_sources import holds, nifti, write_ome_set, write_slices
from volfs.errors import BadInput, NotFound
from volfs.ingest.axis_order import arrange, parse_axes
from volfs.ingest.readers import open_source
from volfs.ingest.readers.raw import RawVoxels
from volfs.ingest.source import ArraySource, check_unchanged
from volfs.model.box import Box
from volfs.model.ngff import axis
from volfs.testing.volumes import noise

# ------------------------------------------------------------------------------------------------------- slices


@pytest.mark.parametrize("dtype", ["u1", "u2", "?"])
def test_png_slices_in_natural_order(tmp_path: Path, dtype: str) -> None:
    planes = noise((4, 9, 13), dtype)
    write_slices(tmp_path / "brain", planes)
    (tmp_path / "brain" / "notes.txt").write_text("not a slice")
    (tmp_path / "brain" / ".hidden.png").write_bytes(b"nor this")
    source = open_source([tmp_path / "brain"])
    assert source.description.name == "brain"
    holds(source, planes, "zyx")
    holds(open_source([str(tmp_path / "brain" / "*.png")]), planes, "zyx")
    listed = sorted((tmp_path / "brain").glob("stack*.png"))  # in the order given: z10 first
    assert open_source(listed).description.name == "stack z"
    holds(open_source(listed), planes[[2, 3, 0, 1]], "zyx")


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("samples", [3, 4])
def test_colour_slices_have_their_samples_as_channels(tmp_path: Path, dtype: str, samples: int) -> None:
    planes = noise((3, 9, 13, samples), dtype)
    for ending in (".png", ".tif"):
        options = {"photometric": "rgb"} if ending == ".tif" else {}
        write_slices(tmp_path / ending, planes, ending, **options)
        source = arrange(open_source([tmp_path / ending]))
        assert source.description.rgb
        holds(source, np.moveaxis(planes, -1, 0), "czyx")


@pytest.mark.parametrize("dtype", ["?", "u1", ">u2", "<i2", ">i4", "u8", ">f4", "f8"])
def test_tiff_slices_of_any_dtype_and_byte_order(tmp_path: Path, dtype: str) -> None:
    planes = noise((3, 9, 13), dtype)
    for number, options in enumerate(
        [{}, {"compression": "zlib"}, {"compression": "lzw", "predictor": dtype in (">u2", "<i2")}]
    ):
        if dtype == "?" and number:
            continue
        order = ">" if dtype.startswith(">") else "<"
        write_slices(tmp_path / str(number), planes, ".tif", byteorder=order, **options)
        holds(open_source([tmp_path / str(number)]), planes, "zyx")


def test_jpeg_slices_are_what_pillow_decodes(tmp_path: Path) -> None:
    paths = write_slices(tmp_path / "j", noise((3, 40, 50, 3), "u1"), ".jpg")
    expected = np.stack([np.asarray(Image.open(path)) for path in paths])
    holds(open_source([tmp_path / "j"]), expected, "zyxc")


def test_one_slice_is_a_two_dimensional_image(tmp_path: Path) -> None:
    plane = noise((9, 13), "u2")
    [path] = write_slices(tmp_path, plane[None])
    holds(open_source([path]), plane, "yx")


def test_slices_that_are_not_alike_are_named(tmp_path: Path) -> None:
    paths = write_slices(tmp_path / "s", noise((4, 9, 13), "u1"))
    for wrong, what in ((noise((9, 14), "u1"), "14 x 9 uint8"), (noise((9, 13), "u2"), "13 x 9 uint16")):
        Image.fromarray(wrong).save(paths[2])
        with pytest.raises(BadInput, match=rf"stack z10\.png is {what}, but .* 13 x 9 uint8"):
            open_source([tmp_path / "s"])


def test_a_slice_that_is_damaged_or_cut_short_is_named(tmp_path: Path) -> None:
    planes = noise((3, 40, 50), "u1")
    for ending in (".png", ".tif", ".jpg"):
        paths = write_slices(tmp_path / ending, planes, ending)
        whole = paths[1].read_bytes()
        for bad in (b"", whole[:20], whole[: len(whole) * 2 // 3], b"nonsense" * 40):
            paths[1].write_bytes(bad)
            with pytest.raises(BadInput, match=rf"z9\{ending} is unreadable or cut short"):
                source = open_source([tmp_path / ending])
                source.read(Box.whole(source.description.shape))
    path = write_slices(tmp_path / "bits", planes)[2]
    bad = bytearray(path.read_bytes())
    bad[len(bad) // 2] ^= 1
    path.write_bytes(bad)
    source = open_source([tmp_path / "bits"])
    source.read(Box((0, 0, 0), (2, 40, 50)))
    with pytest.raises(BadInput, match=r"z10\.png is unreadable or cut short"):
        source.read(Box.whole((3, 40, 50)))


def test_a_header_that_promises_the_impossible_is_refused_at_once(tmp_path: Path) -> None:
    header = b"IHDR" + (1 << 30).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    start = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    (tmp_path / "huge.png").write_bytes(start)
    with pytest.raises(BadInput, match="promises more"):
        open_source([tmp_path / "huge.png"])
    Image.new("1", (20_000, 20_000)).save(tmp_path / "black.png")
    assert open_source([tmp_path / "black.png"]).read(Box.whole((20_000, 20_000))).sum() == 0


def indexed(numbers: np.ndarray, colours: list[tuple[int, int, int]], path: Path, **options: Any) -> None:
    picture = Image.fromarray(numbers, "P")
    picture.putpalette([n for colour in colours for n in colour])
    picture.save(path, **options)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("form", ["png", "tif"])
def test_numbers_of_a_palette_are_the_voxels_and_its_colours_are_kept(tmp_path: Path, bits: int, form: str) -> None:
    labels = noise((3, 20, 30), "u1") & ((1 << bits) - 1)
    colours = [(n, 255 - n, 7) for n in range(1 << bits)]
    (tmp_path / "s").mkdir()
    for z, plane in enumerate(labels):
        options = {"bits": bits} if form == "png" else {}
        indexed(plane, colours, tmp_path / f"s/z{z}.{form}", **options)
    assert np.array_equal(np.asarray(Image.open(tmp_path / f"s/z1.{form}")), labels[1])
    for source, wanted, axes in (
        (open_source([tmp_path / "s"]), labels, "zyx"),
        (open_source([tmp_path / f"s/z1.{form}"]), labels[1], "yx"),
    ):
        holds(source, wanted, axes)
        assert source.description.facts["palette"][: len(colours)] == [f"{r:02X}{g:02X}{b:02X}" for r, g, b in colours]
        assert "has a palette: its numbers are kept" in source.description.remarks[0]
    if form == "png":  # which may leave out the colours at the end that a slice does not need
        indexed(labels[0] // 2, colours[: len(colours) // 2], tmp_path / "s/z3.png")
        assert len(open_source([tmp_path / "s"]).description.facts["palette"]) == len(colours)
    indexed(labels[0], colours[::-1], tmp_path / f"s/z3.{form}")
    with pytest.raises(
        BadInput, match=rf"z3\.{form} has another palette than z0\.{form}, .*: convert the slices to RGB"
    ):
        open_source([tmp_path / "s"])


def test_a_palette_of_grays_in_their_order_is_gray(tmp_path: Path) -> None:
    gray = noise((9, 13), "u1")
    Image.fromarray(gray).convert("P").save(tmp_path / "p.png")
    found = open_source([tmp_path / "p.png"])
    holds(found, gray, "yx")
    assert found.description.remarks == () and "palette" not in found.description.facts


def test_a_palette_that_is_not_there_is_missed(tmp_path: Path) -> None:
    indexed(noise((9, 13), "u1"), [(n, 0, 0) for n in range(256)], tmp_path / "p.png")
    whole = (tmp_path / "p.png").read_bytes()
    for gone in (whole.replace(b"PLTE", b"pLTe"), whole[:40]):
        (tmp_path / "p.png").write_bytes(gone)
        with pytest.raises(BadInput, match=r"p\.png is unreadable or cut short: it says that it has a palette"):
            open_source([tmp_path / "p.png"])


@pytest.mark.parametrize("bits", [2, 4])
def test_gray_of_few_bits_is_what_pillow_and_libpng_give(tmp_path: Path, bits: int) -> None:
    gray = noise((9, 13), "u1") % (1 << bits)
    rows = (f"{''.join(f'{n:0{bits}b}' for n in row):0<{-(-13 * bits // 8) * 8}}" for row in gray)
    data = b"".join(b"\0" + int(row, 2).to_bytes(len(row) // 8, "big") for row in rows)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 13, 9, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(data)),
        (b"IEND", b""),
    )
    with (tmp_path / "p.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, body in chunks:
            file.write(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)))
    judges = np.asarray(Image.open(tmp_path / "p.png")), imagecodecs.png_decode((tmp_path / "p.png").read_bytes())
    assert np.array_equal(*judges) and judges[0].max() == 255
    holds(open_source([tmp_path / "p.png"]), judges[0], "yx")


def test_what_is_no_slice_is_refused(tmp_path: Path) -> None:
    gray = noise((9, 13), "u1")
    cases: dict[str, tuple[str, Any]] = {
        "mode CMYK": ("c.jpg", Image.fromarray(noise((9, 13, 4), "u1"), "CMYK")),
    }
    for reason, (name, image) in cases.items():
        image.save(tmp_path / name)
        with pytest.raises(BadInput, match=reason):
            open_source([tmp_path / name])
    tifffile.imwrite(tmp_path / "stack.tif", noise((5, 9, 13)), photometric="minisblack")
    Image.fromarray(gray).save(tmp_path / "a.png")
    with pytest.raises(BadInput, match="5 pages"):
        open_source([tmp_path / "stack.tif", tmp_path / "stack.tif"])
    tifffile.imwrite(tmp_path / "t.tif", gray)
    with pytest.raises(BadInput, match="several formats"):
        open_source([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="neither slices"):
        open_source([tmp_path / "empty"])
    with pytest.raises(NotFound, match="matches no file"):
        open_source([str(tmp_path / "*.nope")])
    with pytest.raises(NotFound, match="does not exist"):
        open_source([tmp_path / "nope.tif"])
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(BadInput, match="not of a kind"):
        open_source([tmp_path / "text.txt"])


def test_a_source_that_changes_is_noticed_and_named(tmp_path: Path) -> None:
    paths = write_slices(tmp_path / "s", noise((3, 9, 13), "u1"))
    source = open_source([tmp_path / "s"])
    before = source.fingerprint()
    paths[1].write_bytes(paths[0].read_bytes())
    with pytest.raises(BadInput, match=r"z9\.png changed"):
        check_unchanged(before, source.fingerprint())
    before = source.fingerprint()
    write_slices(tmp_path / "s", noise((4, 9, 13), "u1"))[0].unlink()
    with pytest.raises(BadInput, match="changed"):
        check_unchanged(before, source.fingerprint())


# ----------------------------------------------------------------------------------------------------- TIFF stacks


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_plain_stacks_are_planes_along_z(tmp_path: Path, byteorder: str, compression: str | None) -> None:
    planes = noise((7, 9, 13), "u2")
    path = tmp_path / "plain.tif"
    with tifffile.TiffWriter(path, byteorder=byteorder) as writer:
        for plane in planes:
            writer.write(plane, compression=compression, metadata=None, contiguous=False)
    holds(arrange(open_source([path])), planes, "zyx")


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_imagej_hyperstacks_keep_axes_voxel_size_and_unit(tmp_path: Path, byteorder: str) -> None:
    data = noise((2, 5, 3, 9, 13), "u2")  # ImageJ's own order: t z c y x
    path = tmp_path / "hyper.tif"
    meta = {"axes": "TZCYX", "spacing": 2.5, "unit": "um", "finterval": 0.5}
    tifffile.imwrite(
        path, data, imagej=True, byteorder=byteorder, resolution=(4.0, 2.0), metadata=meta, photometric="minisblack"
    )
    source = arrange(open_source([path]))
    found = source.description
    assert found.scale == (0.5, 1.0, 2.5, 0.5, 0.25)
    assert [a.unit for a in found.axes] == ["second", None, "micrometer", "micrometer", "micrometer"]
    assert found.facts["format"] == "imagej"
    holds(source, data.transpose(0, 2, 1, 3, 4), "tczyx")


def test_imagej_colour_stacks(tmp_path: Path) -> None:
    data = noise((4, 9, 13, 3), "u1")
    tifffile.imwrite(tmp_path / "rgb.tif", data, imagej=True, metadata={"axes": "ZYXS"})
    source = arrange(open_source([tmp_path / "rgb.tif"]))
    assert source.description.rgb
    holds(source, np.moveaxis(data, -1, 0), "czyx")


@pytest.mark.parametrize("axes", ["TCZYX", "CTZYX", "ZCYX", "TYX", "ZYX", "YX"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_ome_tiff_in_any_order_of_dimensions(tmp_path: Path, axes: str, compression: str | None) -> None:
    sizes = dict(zip("TCZYX", (2, 3, 4, 9, 13), strict=True))
    data = noise(tuple(sizes[a] for a in axes), ">u2")
    path = tmp_path / "a.ome.tif"
    meta = {
        "axes": axes,
        "PhysicalSizeX": 4.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 5.0,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 40.0,
        "PhysicalSizeZUnit": "nm",
        "TimeIncrement": 3.0,
        "TimeIncrementUnit": "s",
        "Channel": {"Name": ["red", "green", "blue"]},
    }
    if "C" not in axes:
        del meta["Channel"]
    tifffile.imwrite(path, data, ome=True, metadata=meta, compression=compression, photometric="minisblack")
    source = arrange(open_source([path]))
    wanted = [a for a in "TCZYX" if a in axes]
    truth = {"T": (3.0, "second"), "C": (1.0, None), "Z": (40.0, "nanometer")}
    truth |= {"Y": (5.0, "nanometer"), "X": (4.0, "nanometer")}
    found = source.description
    assert found.name == "a"
    assert [(s, a.unit) for s, a in zip(found.scale, found.axes, strict=True)] == [truth[a] for a in wanted]
    if "C" in axes:
        assert found.facts["channels"] == ["red", "green", "blue"]
    holds(source, data.transpose([axes.index(a) for a in wanted]), "".join(wanted).lower())


def test_ome_tiff_over_several_files(tmp_path: Path) -> None:
    data = noise((3, 20, 30), "u2")
    write_ome_set(tmp_path, data)
    source = open_source([tmp_path / "z0.ome.tif"])
    assert source.description.scale[-1] == 2
    holds(source, data, "zyx")
    source = open_source([tmp_path / "z0.ome.tif"])
    before = source.fingerprint()
    tifffile.imwrite(tmp_path / "z2.ome.tif", data[0, :5])
    with pytest.raises(BadInput, match=r"z2\.ome\.tif changed"):
        check_unchanged(before, source.fingerprint())
    with pytest.raises(BadInput, match=r"z2\.ome\.tif"):
        source.read(Box.whole((3, 20, 30)))


def test_tiled_pyramidal_and_planar_tiff(tmp_path: Path) -> None:
    data = noise((5, 64, 80), "u1")
    tifffile.imwrite(tmp_path / "tiled.tif", data, tile=(16, 32), compression="zlib", photometric="minisblack")
    holds(open_source([tmp_path / "tiled.tif"]), data, "zyx")
    with tifffile.TiffWriter(tmp_path / "pyramid.ome.tif", bigtiff=True) as writer:
        writer.write(data, subifds=1, tile=(16, 16), metadata={"axes": "ZYX"})
        writer.write(data[:, ::2, ::2], subfiletype=1, tile=(16, 16))
    holds(open_source([tmp_path / "pyramid.ome.tif"]), data, "zyx")
    planar = noise((4, 3, 9, 13), "u2")
    tifffile.imwrite(tmp_path / "planar.tif", planar, photometric="rgb", planarconfig="separate", metadata=None)
    source = arrange(open_source([tmp_path / "planar.tif"]))
    assert source.description.rgb
    holds(source, planar.transpose(1, 0, 2, 3), "czyx")


def test_a_bool_stack(tmp_path: Path) -> None:
    data = noise((4, 9, 13), "?")
    tifffile.imwrite(tmp_path / "mask.tif", data)
    holds(open_source([tmp_path / "mask.tif"]), data, "zyx")


def test_a_stack_that_is_damaged_or_of_different_pages_is_refused(tmp_path: Path) -> None:
    data = noise((5, 40, 50), "u2")
    for compression in (None, "zlib"):
        path = tmp_path / "s.tif"
        tifffile.imwrite(path, data, compression=compression, metadata=None)
        whole = path.read_bytes()
        for length in (0, 3, 7, len(whole) // 2, len(whole) - 50):
            path.write_bytes(whole[:length])
            with pytest.raises(BadInput, match=r"s\.tif"):
                source = open_source([path])
                seen = source.read(Box.whole(source.description.shape))
                np.testing.assert_array_equal(seen, data)
    with tifffile.TiffWriter(path) as writer:
        writer.write(data[0], metadata=None)
        writer.write(data[0, :20], metadata=None)
    with pytest.raises(BadInput, match=r"holds 2 images .*yx 20 x 50.*: name one"):
        open_source([path])


# ---------------------------------------------------------------------------------------------------------- NIfTI


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
def test_nifti_is_taken_as_it_lies_with_its_affine_beside(
    tmp_path: Path, ending: str, big: bool, kind: Any, dtype: str
) -> None:
    data = noise((11, 9, 7), dtype)
    affine = nifti(tmp_path / f"ch2{ending}", data, zooms=(1.0, 2.0, 3.0), kind=kind, big=big)
    source = arrange(open_source([tmp_path / f"ch2{ending}"]))
    found = source.description
    assert found.name == "ch2" and found.scale == (3.0, 2.0, 1.0)
    assert [a.unit for a in found.axes] == ["millimeter"] * 3
    np.testing.assert_allclose(found.facts["affine"], affine)
    holds(source, data.transpose(), "zyx")


def test_nifti_of_more_dimensions(tmp_path: Path) -> None:
    data = noise((6, 5, 4, 3), "i2")
    nifti(tmp_path / "fmri.nii.gz", data, zooms=(1, 1, 1, 2.5))
    source = arrange(open_source([tmp_path / "fmri.nii.gz"]))
    assert source.description.scale[0] == 2.5 and source.description.axes[0] == axis("t", "s")
    holds(source, data.transpose(), "tzyx")
    data = noise((6, 5, 4, 2, 3), "f4")
    nifti(tmp_path / "vectors.nii", data, zooms=(1, 1, 1, 1, 1))
    holds(arrange(open_source([tmp_path / "vectors.nii"])), data.transpose(3, 4, 2, 1, 0), "tczyx")
    data = noise((6, 5, 4), "u1")
    nifti(tmp_path / "flat.nii", data[..., None], zooms=(1, 1, 1, 1))
    holds(open_source([tmp_path / "flat.nii"]), data.transpose(), "zyx")


def test_nifti_keeps_raw_numbers_and_tells_of_slope_and_intercept(tmp_path: Path) -> None:
    data = noise((6, 5, 4), "i2")
    image = nibabel.Nifti1Image(data, np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(image, tmp_path / "scaled.nii")
    raw = np.asarray(nibabel.load(tmp_path / "scaled.nii").dataobj.get_unscaled())
    source = open_source([tmp_path / "scaled.nii"])
    assert source.description.facts["scl_slope"] == 0.5 and source.description.facts["scl_inter"] == 10
    holds(source, raw.transpose().astype("i2"), "zyx")


def test_nifti_of_colours(tmp_path: Path) -> None:
    data = noise((6, 5, 4, 3), "u1")
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(data.view(rgb)[..., 0], np.eye(4)), tmp_path / "rgb.nii")
    source = arrange(open_source([tmp_path / "rgb.nii"]))
    assert source.description.rgb
    holds(source, data.transpose(3, 2, 1, 0), "czyx")


def test_nifti_that_is_damaged_or_cut_short_is_refused(tmp_path: Path) -> None:
    data = noise((30, 20, 10), "i2")
    for ending in (".nii", ".nii.gz"):
        path = tmp_path / f"bad{ending}"
        nifti(path, data, zooms=(1, 1, 1))
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 0x10
        bads = [b"", whole[:100], whole[: len(whole) // 2], whole[:-5], b"x" * 1000]
        for bad in [*bads, *([bytes(flipped)] if ending == ".nii.gz" else [])]:
            path.write_bytes(bad)
            with pytest.raises(BadInput, match=r"bad\.nii"):
                source = open_source([path])
                source.read(Box.whole(source.description.shape))
    bomb = io.BytesIO()
    with gzip.open(bomb, "wb", compresslevel=1) as packed:
        nifti(tmp_path / "ok.nii", data, zooms=(1, 1, 1))
        packed.write((tmp_path / "ok.nii").read_bytes() + bytes(70 << 20))
    path.write_bytes(bomb.getvalue())
    source = open_source([path])
    with pytest.raises(BadInput, match="more than its header promises"):
        source.read(Box.whole(source.description.shape))


# ------------------------------------------------------------------------------------------------------------ NPY


@pytest.mark.parametrize("dtype", ["?", "u1", ">u2", "<i4", ">f8", "c8"])
@pytest.mark.parametrize("fortran", [False, True])
def test_npy_of_either_order(tmp_path: Path, dtype: str, fortran: bool) -> None:
    for shape, axes in (
        ((9, 13), "yx"),
        ((5, 9, 13), "zyx"),
        ((2, 3, 4, 5, 6), "tczyx"),
        ((2, 1, 3, 4, 5, 6), "atczyx"),
    ):
        data = noise(shape, dtype)
        stored = data.astype(dtype)
        np.save(tmp_path / "v.npy", np.asfortranarray(stored) if fortran else stored)
        holds(arrange(open_source([tmp_path / "v.npy"])), data, axes)


def test_npy_that_is_damaged_or_no_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.npy"
    np.save(path, noise((5, 9, 13)))
    whole = path.read_bytes()
    for bad in (b"", whole[:7], whole[:40], whole[:-1], b"x" * 500):
        path.write_bytes(bad)
        with pytest.raises(BadInput, match=r"bad\.npy is unreadable or cut short"):
            open_source([path])
    np.save(path, np.array([{}, 1], dtype=object), allow_pickle=True)
    with pytest.raises(BadInput, match="not voxels"):
        open_source([path])
    for shape in ((), (9,), (1,) * 7):
        np.save(path, np.zeros(shape))
        with pytest.raises(BadInput, match=rf"bad\.npy has {len(shape)} ax[ei]s, an image has 2 to 6"):
            open_source([path])


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">f4"])
@pytest.mark.parametrize("ending", [".npy", ".nii", ".tif", ".mrc"])
def test_voxels_that_lie_in_a_file_as_in_memory_are_read_where_they_are_wanted(
    tmp_path: Path, ending: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise((5, 9, 13), dtype)
    path = tmp_path / f"a{ending}"
    if ending == ".npy":
        np.save(path, data)
    elif ending == ".nii":
        nifti(path, data.transpose(), zooms=(1.0, 1.0, 1.0), big=dtype[0] == ">")
    elif ending == ".tif":
        tifffile.imwrite(path, data, byteorder=">" if dtype[0] == ">" else "<")
    else:
        data = data.astype("f4")
        mrcfile.write(path, data)
    source = open_source([path])
    monkeypatch.setattr(RawVoxels, "read", lambda *_: pytest.fail("it was read somewhere else first"))
    out = np.zeros(source.description.shape, source.description.dtype)
    source.read_into(Box((1, 0, 0), source.description.shape), out[1:])
    np.testing.assert_array_equal(out[1:], data[1:])
    assert not out[0].any()
    source.close()


def test_a_file_that_gets_shorter_while_it_is_read_is_an_error_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(bytes(1000))
    voxels = RawVoxels(path, np.dtype("u1"), (10, 100), 0)
    path.write_bytes(b"")
    with pytest.raises(BadInput, match="became shorter"):
        voxels.read(Box.whole((10, 100)))
    voxels.close()


# ----------------------------------------------------------------------------------------------------------- Zarr


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_arrays_of_both_versions(tmp_path: Path, version: int) -> None:
    data = noise((10, 20, 30), ">u2")
    made = zarr.create_array(tmp_path / "a.zarr", data=data.astype(">u2"), chunks=(4, 7, 8), zarr_format=version)  # type: ignore[arg-type]
    assert made.metadata.zarr_format == version
    source = open_source([tmp_path / "a.zarr"])
    assert source.description.name == "a" and source.description.grain == (4, 7, 8)
    holds(source, data, "zyx")
    zarr.create_array(
        tmp_path / "named.zarr", data=data, chunks=(5, 10, 30), shards=(10, 20, 30), dimension_names=["x", "t", "y"]
    )
    holds(open_source([tmp_path / "named.zarr"]), data, "xty")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_keeps_axes_scale_name_and_display_settings(tmp_path: Path, version: str) -> None:
    data = noise((2, 3, 8, 9, 10), "u2")
    block = {
        "version": version,
        "name": "embryo",
        "axes": [
            {"name": "t", "type": "time", "unit": "second"},
            {"name": "c", "type": "channel"},
            *({"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"),
        ],
        "datasets": [
            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [5, 1, 2, 0.5, 0.5]}]},
            {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": [5, 1, 2, 1, 1]}]},
        ],
    }
    omero = {"channels": [{"label": "DAPI"}]}
    attributes = {"multiscales": [block], "omero": omero}
    group = zarr.create_group(
        tmp_path / "e.ome.zarr",
        zarr_format=2 if version == "0.4" else 3,
        attributes=attributes if version == "0.4" else {"ome": {"version": version, **attributes}},
    )
    for name, array in (("0", data), ("1", data[..., ::2, ::2])):
        group.create_array(name, data=array, chunks=(1, 1, 4, 4, 4))
    source = open_source([tmp_path / "e.ome.zarr"])
    found = source.description
    assert found.name == "embryo" and found.scale == (5, 1, 2, 0.5, 0.5) and found.ome == {"omero": omero}
    assert [a.unit for a in found.axes] == ["second", None, "micrometer", "micrometer", "micrometer"]
    holds(source, data, "tczyx")


def test_zarr_groups_without_one_image_say_what_they_hold(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "g.zarr")
    with pytest.raises(BadInput, match="holds no image"):
        open_source([tmp_path / "g.zarr"])
    data = noise((4, 5, 6))
    group.create_array("only", data=data)
    holds(open_source([tmp_path / "g.zarr"]), data, "zyx")
    group.create_array("other", data=data)
    with pytest.raises(BadInput, match=r"0: only, 4 x 5 x 6 uint16; 1: other, .*name one, like .*g\.zarr:only"):
        open_source([tmp_path / "g.zarr"])
    holds(open_source([f"{tmp_path / 'g.zarr'}:other"]), data, "zyx")
    holds(open_source([tmp_path / "g.zarr" / "other"]), data, "zyx")


def write_ngff(path: Path, data: np.ndarray, name: str = "") -> None:
    """An image of one level, OME-Zarr 0.4."""
    axes = [{"name": n, "type": "space"} for n in "zyx"[-data.ndim :]]
    scale = [{"type": "scale", "scale": [2.0] * data.ndim}]
    group = zarr.open_group(path, mode="w", zarr_format=2)
    block = {"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    group.attrs["multiscales"] = [block | ({"name": name} if name else {})]
    group.create_array("0", data=data)


def test_an_image_of_several_in_a_zarr_is_chosen_by_place_name_or_number(tmp_path: Path) -> None:
    data = noise((3, 4, 5, 6))
    root = tmp_path / "positions.zarr"
    zarr.open_group(root, mode="w", zarr_format=2).create_group("OME")  # as bioformats2raw lays it out
    for number in range(3):
        write_ngff(root / str(number), data[number], f"pos{number}")
    with pytest.raises(BadInput, match=r"3 images \(0: 0, zyx 4 x 5 x 6 uint16; 1: 1, .*\): name one, like .*:0"):
        open_source([root])
    for part, number in (("0", 0), ("2", 2), ("pos1", 1), ("1/0", 1)):
        source = open_source([f"{root}:{part}"])
        assert source.description.scale == ((2.0,) * 3 if "/" not in part else (1.0,) * 3)
        holds(source, data[number], "zyx")
    with pytest.raises(BadInput, match=r"has no pos7: it holds 0: 0"):
        open_source([f"{root}:pos7"])
    plate = tmp_path / "plate.zarr"
    zarr.open_group(plate, mode="w", zarr_format=2)
    write_ngff(plate / "A" / "1" / "0", data[0])
    zarr.open_group(plate / "A", mode="a", zarr_format=2)
    zarr.open_group(plate / "A" / "1", mode="a", zarr_format=2)
    holds(open_source([plate]), data[0], "zyx")  # the only one there is


@pytest.mark.parametrize(
    ("dtype", "usual"),
    [("<u1", "|u1"), (">i1", "|i1"), ("|b1", "|b1"), ("<b1", "|b1"), ("=f4", "<f4"), ("uint16", "<u2"), (">u2", ">u2")],
)
@pytest.mark.parametrize("consolidated", [False, True])
def test_zarr_v2_types_as_other_programs_spell_them(tmp_path: Path, dtype: str, usual: str, consolidated: bool) -> None:
    data = noise((6, 5, 4), usual)
    group = zarr.open_group(tmp_path / "g", mode="w", zarr_format=2)
    group.create_array("a", data=data.astype(usual), chunks=(4, 4, 4))
    if consolidated:
        zarr.consolidate_metadata(tmp_path / "g", zarr_format=2)
    for name in ("g/a/.zarray", *(["g/.zmetadata"] if consolidated else [])):
        path = tmp_path / name
        text = path.read_text()
        assert f'"{usual}"' in text
        path.write_text(text.replace(f'"{usual}"', f'"{dtype}"'))
    for place in ("g", "g/a"):
        holds(open_source([tmp_path / place]), data, "zyx")


def test_a_zarr_with_a_damaged_chunk_or_metadata_is_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "z", data=noise((8, 8, 8)), chunks=(4, 4, 4))
    chunk = tmp_path / "z" / "c" / "1" / "0" / "1"
    good = chunk.read_bytes()
    chunk.write_bytes(good[:-9])
    source = open_source([tmp_path / "z"])
    with pytest.raises(BadInput, match="unreadable or cut short"):
        source.read(Box.whole((8, 8, 8)))
    before = source.fingerprint()
    chunk.write_bytes(good)
    with pytest.raises(BadInput, match="c/1/0/1 changed"):
        check_unchanged(before, source.fingerprint())
    (tmp_path / "z" / "zarr.json").write_text("{")
    with pytest.raises(BadInput, match="unreadable"):
        open_source([tmp_path / "z"])


# ----------------------------------------------------------------------------------------------------------- axes


def test_axes_can_be_named_and_are_put_into_the_order_of_ome() -> None:
    data = noise((2, 3, 4, 5))
    source = ArraySource(data)
    assert [a.name for a in arrange(source).description.axes] == list("czyx")
    renamed = arrange(source, "tzyx")
    assert renamed.description.axes[0].type == "time"
    holds(renamed, data, "tzyx")
    assert parse_axes("angle, z,y,x") == ["angle", "z", "y", "x"]
    for wrong in ("zzyx", "z yx", "", "z,,x", "zy/x"):
        with pytest.raises(BadInput, match="axes"):
            parse_axes(wrong)
    with pytest.raises(BadInput, match="4 axes"):
        arrange(source, "zyx")


def test_a_stack_named_otherwise_is_reordered_after_its_names(tmp_path: Path) -> None:
    data = noise((4, 9, 13), "u1")
    write_slices(tmp_path / "s", data)
    source = arrange(open_source([tmp_path / "s"]), "xyt")
    holds(source, data.transpose(2, 1, 0), "tyx")
