"""TIFF of every kind that other programs write (tifffile, libvips, Pillow), and files that hold several images."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image

from tests.kits.import_sources import holds, write_ome_set
from volfs.errors import BadInput
from volfs.ingest.axis_order import arrange
from volfs.ingest.readers import open_source
from volfs.testing.volumes import noise


def vips(array: np.ndarray) -> Any:
    height, width, bands = array.shape if array.ndim == 3 else (*array.shape, 1)
    made = pyvips.Image.new_from_memory(array.tobytes(), width, height, bands, "uchar")
    return made.copy(interpretation="srgb" if bands > 1 else "b-w")


def smooth(shape: tuple[int, ...]) -> np.ndarray:
    """A picture that JPEG keeps in shape."""
    return np.kron(noise((8, 8, *shape[2:]), "u1"), np.ones((shape[0] // 8, shape[1] // 8, *[1] * len(shape[2:]))))


# ------------------------------------------------------------------------------------------------- kinds of pixels


@pytest.mark.parametrize(
    "options",
    [
        {"tile": True, "tile_width": 16, "tile_height": 32},
        {"tile": True, "tile_width": 16, "tile_height": 16, "pyramid": True, "bigtiff": True},
        {"tile": False},
        {"Q": 90, "tile": True},  # no subsampling of colours
    ],
)
def test_colours_in_jpeg_are_rgb_as_libvips_writes_them(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "slide.tif"
    vips(smooth((64, 96, 3)).astype("u1")).tiffsave(str(path), compression="jpeg", **options)
    with tifffile.TiffFile(path) as judge:
        assert judge.pages.first.photometric.name in ("YCBCR", "RGB")
        expected = judge.series[0].levels[0].asarray()
    source = open_source([path])
    assert source.description.rgb
    holds(source, expected, "yxc")
    seen = np.asarray(Image.open(path).convert("RGB")).astype(int)  # libtiff decodes it, another library altogether
    assert abs(seen - expected).mean() < 2


def test_a_stack_of_colour_pages_in_jpeg_and_slices_of_them(tmp_path: Path) -> None:
    pages = np.stack([smooth((32, 48, 3)).astype("u1") + i for i in range(3)])
    tifffile.imwrite(tmp_path / "s.tif", pages, photometric="rgb", compression="jpeg", metadata=None)
    holds(open_source([tmp_path / "s.tif"]), tifffile.imread(tmp_path / "s.tif"), "zyxc")
    (tmp_path / "d").mkdir()
    for z, page in enumerate(pages):
        Image.fromarray(page).save(tmp_path / "d" / f"{z}.tif", compression="jpeg")
    expected = np.stack([tifffile.imread(tmp_path / "d" / f"{z}.tif") for z in range(3)])
    holds(open_source([tmp_path / "d"]), expected, "zyxc")


def packed(path: Path, rows: np.ndarray, bits: int, order: str = "<", kind: int = 1, data: bytes = b"") -> None:
    """A TIFF of one strip, whose samples of ``bits`` bits follow each other without a gap, rows beginning anew."""
    height, width = rows.shape
    for row in rows if not data else ():
        text = "".join(f"{n:0{bits}b}" for n in row)
        text += "0" * (-len(text) % 8)
        data += int(text, 2).to_bytes(len(text) // 8, "big")
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8 + 2 + 12 * 10 + 4), (277, 1)]
    tags += [(278, height), (279, len(data)), (339, kind)]
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    for code, value in tags:
        out += struct.pack(order + "HHII", code, 4, 1, value)
    path.write_bytes(out + bytes(4) + data)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [2, 4, 6, 10, 12, 14, 20, 31])
def test_packed_samples_of_any_width(tmp_path: Path, bits: int, order: str) -> None:
    rows = np.random.default_rng(bits).integers(0, 1 << bits, (20, 31))
    packed(tmp_path / "a.tif", rows, bits, order)
    dtype = "u1" if bits <= 8 else "u2" if bits <= 16 else "u4"
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), rows)
    holds(open_source([tmp_path / "a.tif"]), rows.astype(dtype), "yx")


@pytest.mark.parametrize("order", ["<", ">"])
def test_floats_of_24_and_16_bits(tmp_path: Path, order: str) -> None:
    rows = noise((20, 30), "f4")
    data = imagecodecs.float24_encode(rows, byteorder=order)
    packed(tmp_path / "a.tif", rows, 24, order, 3, data)
    holds(
        open_source([tmp_path / "a.tif"]), imagecodecs.float24_decode(data, byteorder=order).reshape(rows.shape), "yx"
    )
    half = noise((3, 9, 13), "f4").astype("f2")
    tifffile.imwrite(tmp_path / "h.tif", half, byteorder=order, photometric="minisblack", compression="zlib")
    holds(open_source([tmp_path / "h.tif"]), half, "zyx")


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits_as_libvips_writes_them(tmp_path: Path, depth: int) -> None:
    vips(noise((40, 50), "u1")).tiffsave(str(tmp_path / "a.tif"), bitdepth=depth)
    expected = tifffile.imread(tmp_path / "a.tif")
    holds(open_source([tmp_path / "a.tif"]), expected, "yx")
    seen = pyvips.Image.new_from_file(str(tmp_path / "a.tif")).numpy()
    np.testing.assert_array_equal(seen // (255 // ((1 << depth) - 1)) if seen.max() > 15 else seen, expected)


def test_numbers_of_a_palette_are_the_voxels(tmp_path: Path) -> None:
    labels = noise((20, 30), "u1")
    picture = Image.fromarray(labels, "P")
    picture.putpalette([n for i in range(256) for n in (i, 255 - i, 7)])
    picture.save(tmp_path / "a.tif")
    holds(open_source([tmp_path / "a.tif"]), labels, "yx")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4", "f8"])
def test_predictors_tiles_and_planes_of_samples(tmp_path: Path, dtype: str, order: str) -> None:
    data = noise((4, 40, 50), dtype)
    gray: dict[str, Any] = {"byteorder": order, "photometric": "minisblack", "metadata": None}
    for number, options in enumerate(
        [
            {"compression": "zlib", "predictor": True, "tile": (16, 16)},
            {"compression": "lzw", "predictor": True, "rowsperstrip": 7},
            {"compression": "zstd", "bigtiff": True, "tile": (32, 16)},
            {"tile": (16, 16)},
        ]
    ):
        tifffile.imwrite(tmp_path / f"{number}.tif", data, **gray, **options)
        holds(open_source([tmp_path / f"{number}.tif"]), data, "zyx")
    if dtype in ("u1", "u2"):
        planar = data[:3]
        options = {"planarconfig": "separate", "compression": "zlib", "predictor": True, "tile": (16, 32)}
        tifffile.imwrite(tmp_path / "p.tif", planar, photometric="rgb", byteorder=order, metadata=None, **options)
        holds(open_source([tmp_path / "p.tif"]), np.moveaxis(planar, 0, -1), "yxc")


def test_pixels_that_are_no_voxels_say_why(tmp_path: Path) -> None:
    colours = noise((16, 16, 4), "u1")
    tifffile.imwrite(tmp_path / "k.tif", colours, photometric="separated")
    Image.fromarray(colours[..., :3]).convert("YCbCr").save(tmp_path / "y.tif")
    packed(tmp_path / "s.tif", noise((8, 8), "u1").astype("i8"), 12, kind=2)
    # Three bytes are in the file's order to libtiff, and never to tifffile.
    packed(tmp_path / "t.tif", noise((8, 8), "u1").astype("i8"), 24)
    reasons = {"k": "SEPARATED", "y": "YCBCR", "s": "12 bits a sample", "t": "24 bits a sample"}
    for name, why in reasons.items():
        with pytest.raises(BadInput, match=why):
            open_source([tmp_path / f"{name}.tif"])


# --------------------------------------------------------------------------------------- one of several images


def positions(path: Path, data: np.ndarray, names: list[str]) -> None:
    with tifffile.TiffWriter(path, ome=True) as writer:
        for number, name in enumerate(names):
            size = {"PhysicalSizeX": number + 0.5, "PhysicalSizeXUnit": "nm"}
            meta = {"axes": "CYX", "Name": name, **size}
            writer.write(data[number], photometric="minisblack", metadata=meta)


def test_an_image_of_several_is_chosen_by_number_name_or_identifier(tmp_path: Path) -> None:
    data = noise((3, 2, 20, 30), "u2")
    positions(tmp_path / "a.ome.tif", data, ["pos 0", "pos 1", "B:2"])
    with pytest.raises(BadInput, match=r"3 images \(0: pos 0, cyx 2 x 20 x 30 uint16; 1: pos 1, .*\): name one, like"):
        open_source([tmp_path / "a.ome.tif"])
    for part, number in (("0", 0), ("1", 1), ("pos 1", 1), ("Image:1", 1), ("B:2", 2), ("2", 2)):
        source = open_source([f"{tmp_path / 'a.ome.tif'}:{part}"])
        assert source.description.scale[-1] == number + 0.5  # its own, and not the first one's
        holds(source, data[number], "cyx")
    with pytest.raises(BadInput, match=r"a\.ome\.tif has no pos 7: it holds 0: pos 0"):
        open_source([f"{tmp_path / 'a.ome.tif'}:pos 7"])


def test_images_of_one_name_are_told_apart_by_number(tmp_path: Path) -> None:
    data = noise((2, 2, 20, 30), "u2")
    positions(tmp_path / "a.ome.tif", data, ["same", "same"])
    with pytest.raises(BadInput, match=r"name one, like .*a\.ome\.tif:0"):
        open_source([tmp_path / "a.ome.tif"])
    with pytest.raises(BadInput, match="2 images called same"):
        open_source([f"{tmp_path / 'a.ome.tif'}:same"])
    holds(open_source([f"{tmp_path / 'a.ome.tif'}:1"]), data[1], "cyx")


def test_a_slide_with_a_label_and_an_overview(tmp_path: Path) -> None:
    slide, small = smooth((256, 320, 3)).astype("u1"), smooth((64, 80, 3)).astype("u1")
    text = "Aperio Image Library v11\n320x256 [0,0 320x256] (64x64) JPEG/RGB Q=30|AppMag = 20|MPP = 0.5"
    path = tmp_path / "slide.svs"
    with tifffile.TiffWriter(path, byteorder="<") as writer:
        jpeg: dict[str, Any] = {"compression": "jpeg", "photometric": "rgb", "metadata": None}
        writer.write(slide, tile=(64, 64), description=text, **jpeg)
        writer.write(small, description=text, **jpeg)  # a thumbnail
        writer.write(slide[::4, ::4], tile=(64, 64), description=text, **jpeg)
        writer.write(small[:32], description="Aperio Image Library\nlabel 80x32", subfiletype=1, **jpeg)
        writer.write(small[:48], description="Aperio Image Library\nmacro 80x48", subfiletype=9, **jpeg)
    with tifffile.TiffFile(path) as judge:
        expected = {series.name: series.levels[0].asarray() for series in judge.series}
    assert {"Baseline", "Label", "Macro"} <= set(expected)
    with pytest.raises(BadInput, match=r"0: Baseline, yxs 256 x 320 x 3 uint8; .*Label.*Macro.*name one"):
        open_source([path])
    for name, pixels in expected.items():
        holds(open_source([f"{path}:{name}"]), pixels, "yxc")


def test_pages_of_several_shapes_are_several_images(tmp_path: Path) -> None:
    data = noise((5, 40, 50), "u2")
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in (*data, data[0, :20]):
            writer.write(page, metadata=None, contiguous=False)
    with pytest.raises(BadInput, match=r"0: zyx 5 x 40 x 50 uint16; 1: yx 20 x 50 uint16|0: .*5 x 40 x 50.*20 x 50"):
        open_source([tmp_path / "a.tif"])
    holds(arrange(open_source([f"{tmp_path / 'a.tif'}:0"])), data, "zyx")
    holds(arrange(open_source([f"{tmp_path / 'a.tif'}:1"])), data[0, :20], "yx")


@pytest.mark.parametrize("gone", [[1], [0, 2], [1, 2]])
def test_ome_tiff_over_files_some_of_which_are_gone_names_them(tmp_path: Path, gone: list[int]) -> None:
    write_ome_set(tmp_path, noise((4, 20, 30), "u2"), gone)
    there = next(n for n in range(4) if n not in gone)
    with pytest.raises(BadInput) as refused:
        open_source([tmp_path / f"z{there}.ome.tif"])
    said = str(refused.value)
    assert f"lacks pages: {4 - len(gone)} of 4 are there" in said
    assert [n for n in range(4) if f"z{n}.ome.tif" in said.partition("lacks")[2]] == gone


def test_a_package_that_pixels_need_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", smooth((32, 48, 3)).astype("u1"), photometric="rgb", compression="jpeg")

    def without(*_: object, **__: object) -> None:
        raise ValueError("<COMPRESSION.JPEG: 7> requires the 'imagecodecs' package")

    source = open_source([tmp_path / "a.tif"])
    monkeypatch.setattr(tifffile.TiffPage, "asarray", without)
    from volfs.model.box import Box

    with pytest.raises(BadInput, match=r"a\.tif.* needs imagecodecs: pip install 'volfs\[import\]'"):
        source.read(Box.whole((32, 48, 3)))
