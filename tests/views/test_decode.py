"""Written slices become voxels exactly, or are refused with a reason; unfinished ones are told from wrong ones."""

from __future__ import annotations

import io
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.kits.view_layouts import InMemory
from volfs.errors import BadInput
from volfs.testing.volumes import noise
from volfs.views import slices
from volfs.views.plane import Incomplete, PlaneSpec
from volfs.views.png_filters import unfilter
from volfs.views.slices import SliceGeometry


def plane_for(picture: np.ndarray) -> PlaneSpec:
    """A plane that such a picture fits, in an array of the same axis order."""
    names = "yxc" if picture.ndim == 3 else "yx"
    geometry = SliceGeometry.of(names, picture.shape, picture.dtype, rgb=picture.ndim == 3)
    assert geometry is not None
    return geometry.spec("xy", 0)


def saved(picture: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(out, kind, **options)
    return out.getvalue()


def tiff(picture: np.ndarray, **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, picture, **options)
    return out.getvalue()


def npy(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, picture)
    return out.getvalue()


def smooth(dtype: str, *shape: int) -> np.ndarray:
    """Something that makes encoders use every row filter."""
    yx = np.indices(shape[:2]).sum(0).reshape(*shape[:2], *(1,) * (len(shape) - 2))
    noise = np.random.default_rng(3).integers(0, 9, shape)
    return (yx * 257 + noise * noise + np.arange(shape[-1]) * 31).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_png_of_other_encoders(dtype: str, samples: int, level: int) -> None:
    picture = smooth(dtype, 61, 47, samples) if samples > 1 else smooth(dtype, 61, 47)
    for strategy in (0, 2, 3):
        data = imagecodecs.png_encode(picture, level=level, strategy=strategy)
        np.testing.assert_array_equal(slices.decode(".png", data, plane_for(picture)), picture)
    if dtype == "u1" or samples == 1:
        data = saved(picture, "PNG", optimize=level == 9)
        np.testing.assert_array_equal(slices.decode(".png", data, plane_for(picture)), picture)


def png_file(picture: np.ndarray, filters: list[int], *, interlaced: bool = False, idats: int = 1) -> bytes:
    """An independent, slow PNG encoder, straight from the specification."""
    rows, columns = picture.shape[:2]
    samples = picture.shape[2] if picture.ndim == 3 else 1
    pixel = samples * picture.dtype.itemsize
    passes = [picture]
    if interlaced:
        steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        passes = [picture[y::dy, x::dx] for y, x, dy, dx in steps]
    raw = b""
    for part in passes:
        if not part.size:
            continue
        above = bytes(part.shape[1] * pixel)
        for number, row in enumerate(part.astype(part.dtype.newbyteorder(">"))):
            line, kind = row.tobytes(), filters[number % len(filters)]
            out = bytearray()
            for i, value in enumerate(line):
                a = line[i - pixel] if i >= pixel else 0
                b, c = above[i], above[i - pixel] if i >= pixel else 0
                p = a + b - c
                paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
                out.append((value - [0, a, b, (a + b) // 2, paeth][kind]) & 255)
            raw += bytes([kind]) + out
            above = line
    packed = zlib.compress(raw)
    size = -(-len(packed) // idats)
    header = columns.to_bytes(4, "big") + rows.to_bytes(4, "big")
    header += bytes([8 * picture.dtype.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[samples], 0, 0, interlaced])
    chunks = [(b"IHDR", header), (b"tEXt", b"Comment\0hi")]
    chunks += [(b"IDAT", packed[at : at + size]) for at in range(0, len(packed), size)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
        for name, body in [*chunks, (b"IEND", b"")]
    )


@given(
    st.sampled_from(["u1", "u2"]),
    st.integers(1, 4),
    st.integers(1, 11),
    st.integers(1, 11),
    st.lists(st.integers(0, 4), min_size=1, max_size=6),
    st.booleans(),
    st.integers(1, 3),
)
def test_every_filter_interlacing_and_split_of_a_png(
    dtype: str, samples: int, rows: int, columns: int, filters: list[int], interlaced: bool, idats: int
) -> None:
    picture = noise((rows, columns, samples) if samples > 1 else (rows, columns), dtype, rows * columns)
    data = png_file(picture, filters, interlaced=interlaced, idats=idats)
    np.testing.assert_array_equal(slices.decode(".png", data, plane_for(picture)), picture)


def test_an_unknown_row_filter_is_refused() -> None:
    with pytest.raises(BadInput, match="filter"):
        unfilter(np.full((2, 3), 9, np.uint8), 1)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "u2", "i2", "u4", "i8", "u8", "f2", "f4", "f8", "c8"])
def test_tiff_of_any_dtype_and_byte_order(dtype: str, byteorder: str) -> None:
    picture = noise((31, 45), dtype)
    for options in ({}, {"rowsperstrip": 7}, {"bigtiff": True}, {"tile": (16, 16)}):
        if dtype == "?" and "tile" in options:
            continue
        data = tiff(picture, byteorder=byteorder, **options)
        np.testing.assert_array_equal(slices.decode(".tif", data, plane_for(picture)), picture)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "packbits", "lzma"])
def test_compressed_tiff(compression: str) -> None:
    for dtype in ("u1", "u2", "f4"):
        picture = smooth(dtype, 33, 29)
        for predictor in (False, True) if compression != "packbits" else (False,):
            data = tiff(picture, compression=compression, predictor=predictor)
            np.testing.assert_array_equal(slices.decode(".tif", data, plane_for(picture)), picture)


def test_colour_tiff_with_samples_together_or_apart_and_tiff_by_pillow() -> None:
    picture = smooth("u2", 21, 23, 3)
    for planar in ("contig", "separate"):
        data = tiff(
            picture if planar == "contig" else np.moveaxis(picture, -1, 0), photometric="rgb", planarconfig=planar
        )
        np.testing.assert_array_equal(slices.decode(".tif", data, plane_for(picture)), picture)
    gray = smooth("u1", 21, 23)
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate"):
        np.testing.assert_array_equal(
            slices.decode(".tif", saved(gray, "TIFF", compression=compression), plane_for(gray)), gray
        )
    indexed = Image.fromarray(gray).convert("P")
    indexed.putpalette([n for n in range(256) for _ in range(3)])
    np.testing.assert_array_equal(slices.decode(".tif", saved(indexed, "TIFF"), plane_for(gray)), np.asarray(indexed))


def test_npy_of_either_byte_order_and_memory_order() -> None:
    picture = noise((5, 7), "f4")
    for form in (picture, picture.astype(">f4"), np.asfortranarray(picture)):
        np.testing.assert_array_equal(slices.decode(".npy", npy(form), plane_for(picture)), picture)


def test_masks_come_as_one_bit_or_as_eight() -> None:
    mask = noise((19, 21), "?")
    plane = plane_for(mask)
    for values in (mask.astype("u1"), mask.astype("u1") * 255):
        np.testing.assert_array_equal(slices.decode(".png", saved(values, "PNG"), plane), mask)
        np.testing.assert_array_equal(slices.decode(".tif", tiff(values), plane), mask)
    np.testing.assert_array_equal(slices.decode(".png", saved(Image.fromarray(mask), "PNG"), plane), mask)
    np.testing.assert_array_equal(slices.decode(".tif", saved(Image.fromarray(mask), "TIFF"), plane), mask)
    inverted = tiff(~mask, software="someone else")  # tifffile marks one-bit pictures as zero is white
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(inverted))), mask)
    np.testing.assert_array_equal(slices.decode(".tif", inverted, plane), mask)
    with pytest.raises(BadInput, match="mask"):
        slices.decode(".png", saved(mask.astype("u1") * 7, "PNG"), plane)
    with pytest.raises(BadInput, match="mask"):
        slices.decode(".tif", tiff(mask.astype("u1") * 7), plane)


def files() -> dict[str, tuple[str, bytes, np.ndarray]]:
    """One good file of each format and kind of layout."""
    gray, colour = smooth("u2", 17, 13), smooth("u2", 17, 13, 3)
    return {
        "png": (".png", saved(gray, "PNG"), gray),
        "png colour": (".png", imagecodecs.png_encode(colour), colour),
        "tiff": (".tif", tiff(gray, metadata=None), gray),
        "tiff lzw": (".tif", tiff(gray, compression="lzw", metadata=None), gray),
        "tiff tail": (".tif", saved(gray, "TIFF", compression="tiff_lzw"), gray),
        "npy": (".npy", npy(gray), gray),
    }


@pytest.mark.parametrize("name", files())
def test_a_file_cut_short_anywhere_is_incomplete(name: str) -> None:
    ending, data, picture = files()[name]
    plane = plane_for(picture)
    np.testing.assert_array_equal(slices.decode(ending, data, plane), picture)
    for length in range(len(data)):
        with pytest.raises(Incomplete):
            slices.decode(ending, data[:length], plane)


@pytest.mark.parametrize("name", files())
def test_a_file_whose_beginning_is_not_written_yet_is_incomplete(name: str) -> None:
    ending, data, picture = files()[name]
    with pytest.raises(Incomplete):
        slices.decode(ending, bytes(16) + data[16:], plane_for(picture))


@pytest.mark.parametrize("name", files())
@given(st.data())
def test_a_damaged_file_is_refused_or_gives_a_picture_of_the_right_shape(name: str, data: st.DataObject) -> None:
    ending, good, picture = files()[name]
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    try:
        seen = slices.decode(ending, bytes(bad), plane_for(picture))
    except BadInput:
        return
    assert seen.shape == picture.shape and seen.dtype == picture.dtype
    if ending == ".png":  # every byte of a PNG that matters is under a checksum
        np.testing.assert_array_equal(seen, picture)


@pytest.mark.parametrize("ending", slices.ENDINGS)
@given(st.binary(max_size=300))
def test_noise_is_refused(ending: str, noise: bytes) -> None:
    heads = {".png": b"\x89PNG\r\n\x1a\n", ".tif": b"II*\x00\x08\x00\x00\x00", ".npy": b"\x93NUMPY\x01\x00\x76\x00"}
    plane = plane_for(smooth("u2", 5, 6))
    for data in (noise, heads[ending] + noise):
        with pytest.raises(BadInput):
            slices.decode(ending, data, plane)


def test_what_was_expected_and_what_came_is_said() -> None:
    plane = plane_for(smooth("u2", 40, 30))
    wrong = smooth("u2", 41, 30)
    for ending, data in ((".png", saved(wrong, "PNG")), (".tif", tiff(wrong)), (".npy", npy(wrong))):
        with pytest.raises(BadInput, match="expected 30 x 40 uint16, got 30 x 41 uint16") as caught:
            slices.decode(ending, data, plane)
        assert not isinstance(caught.value, Incomplete)
    small = smooth("u1", 40, 30)
    for ending, data in ((".png", saved(small, "PNG")), (".tif", tiff(small)), (".npy", npy(small))):
        with pytest.raises(BadInput, match="expected 30 x 40 uint16, got 30 x 40 uint8"):
            slices.decode(ending, data, plane)
    colour = smooth("u1", 40, 30, 3)
    with pytest.raises(BadInput, match="got 30 x 40 uint8, 3 samples"):
        slices.decode(".png", saved(colour, "PNG"), plane)


def test_what_is_not_exact_or_not_voxels_is_refused() -> None:
    gray = smooth("u1", 40, 32)
    plane = plane_for(gray)
    cases = {
        "palette": (".png", saved(Image.fromarray(gray).convert("P"), "PNG")),
        "not a PNG": (".png", saved(gray, "JPEG")),
        "lossy": (".tif", tiff(gray, compression="jpeg")),
        "several pages": (".tif", tiff(np.stack([gray] * 3), photometric="minisblack")),
        "photometric": (".tif", tiff(gray, photometric="miniswhite")),
        "not a TIFF": (".tif", saved(gray, "PNG")),
        "not an NPY": (".npy", b"PK\x03\x04" + bytes(99)),
        "after its array": (".npy", npy(gray) + b"x"),
        "not taken": (".npy", npy(np.full((40, 32), "x"))),
    }
    for reason, (ending, data) in cases.items():
        with pytest.raises(BadInput, match=reason) as caught:
            slices.decode(ending, data, plane)
        assert not isinstance(caught.value, Incomplete), reason


def test_a_tiff_with_too_few_strips_or_tags_without_values_is_refused() -> None:
    picture = smooth("u2", 17, 13)
    good = saved(picture, "TIFF", compression="tiff_lzw")
    with tifffile.TiffFile(io.BytesIO(good)) as file:
        tags = {number: file.pages.first.tags[number].offset for number in (258, 278)}
    fewer_rows = bytearray(good)
    fewer_rows[tags[278] + 8 : tags[278] + 12] = (9).to_bytes(4, "little")
    no_values = bytearray(good)
    no_values[tags[258] + 4 : tags[258] + 8] = bytes(4)
    for bad, reason in ((fewer_rows, "1 of 2 strips"), (no_values, "got 13 x 17")):
        with pytest.raises(BadInput, match=reason):
            slices.decode(".tif", bytes(bad), plane_for(picture))


def test_a_bomb_is_refused_before_it_takes_memory() -> None:
    plane = plane_for(smooth("u2", 8, 8, 3))
    header = plane.columns.to_bytes(4, "big") + plane.rows.to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(50_000_000), 9)), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        len(b).to_bytes(4, "big") + n + b + zlib.crc32(n + b).to_bytes(4, "big") for n, b in chunks
    )
    with pytest.raises(BadInput, match="do not fill"):
        slices.decode(".png", bomb, plane)
    huge = (1 << 30).to_bytes(4, "big") * 2 + bytes([16, 0, 0, 0, 0])
    start = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + huge
    with pytest.raises(BadInput, match="expected 8 x 8"):
        slices.decode(".png", start + zlib.crc32(b"IHDR" + huge).to_bytes(4, "big"), plane)


def test_deflated_tiff_needs_no_imagecodecs_and_is_bounded_then(monkeypatch: pytest.MonkeyPatch) -> None:
    from volfs.views import tiff_decode

    monkeypatch.setattr(tiff_decode, "find_spec", lambda name: None)
    picture = smooth("u2", 40, 30)
    np.testing.assert_array_equal(slices.decode(".tif", tiff(picture, compression="zlib"), plane_for(picture)), picture)
    with pytest.raises(BadInput, match=r"volfs\[import\]"):
        slices.decode(".tif", tiff(picture, compression="lzw"), plane_for(picture))
    data = bytearray(tiff(np.zeros((4000, 3000), "u2"), compression="zlib", metadata=None, rowsperstrip=4000))
    data = bytearray(bytes(data).replace((4000).to_bytes(4, "little"), (40).to_bytes(4, "little")))
    data = bytearray(bytes(data).replace((4000).to_bytes(2, "little"), (40).to_bytes(2, "little")))
    data = bytearray(bytes(data).replace((3000).to_bytes(2, "little"), (30).to_bytes(2, "little"), 1))
    with pytest.raises(BadInput, match="overflow"):
        slices.decode(".tif", data, plane_for(picture))


def test_volfs_reads_back_its_own_slices_of_raw_bytes() -> None:
    array = np.arange(60, dtype=np.uint8).reshape(4, 5, 3).view("V3")[..., 0]
    plane = plane_for(array)
    layout = slices.layout(".npy", plane)
    assert layout is not None
    data = layout.read(InMemory(array), 0, 10**6)
    assert slices.decode(".npy", data, plane).tobytes() == array.tobytes()
