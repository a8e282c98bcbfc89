"""Slices by their numbers: gaps and doubles are named, and taken only as a user says; and slices in a ZIP."""

from __future__ import annotations

import io
import struct
import subprocess
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import volfs
from tests.kits.import_sources import holds
from tests.kits.mounts import refused
from tests.kits.mounts import volfs as command
from volfs.errors import BadInput
from volfs.ingest.readers import open_source
from volfs.ingest.readers.slice_numbers import SliceRules, planes
from volfs.model.box import Box
from volfs.testing.volumes import noise
from volfs.volume.image import image_at

STRICT = SliceRules()


def written(folder: Path, names: list[str], ending: str = ".png") -> np.ndarray:
    """A slice for each name; plane i belongs to name i."""
    folder.mkdir(parents=True, exist_ok=True)
    data = noise((len(names), 9, 13), "u1")
    for name, plane in zip(names, data, strict=True):
        if ending == ".tif":
            tifffile.imwrite(folder / f"{name}{ending}", plane)
        else:
            Image.fromarray(plane).save(folder / f"{name}{ending}")
    return data


# ------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["s001", "s002", "s003", "s005"], ["s004.png"]),
        (["a_0", "a_1", "a_4"], ["a_2.png", "a_3.png"]),
        (["z0000", "z0010", "z0030"], ["z0020.png"]),
        (["t0_z0", "t0_z1", "t1_z1"], ["t1_z0.png"]),
        (["9", "10", "12"], ["11.png"]),
        (["img 08 of 3", "img 09 of 3", "img 11 of 3"], ["img 10 of 3.png"]),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_missing_slices_are_named(tmp_path: Path, names: list[str], missing: list[str], listed: bool) -> None:
    written(tmp_path / "s", names)
    source = [tmp_path / "s" / f"{name}.png" for name in names] if listed else [tmp_path / "s"]
    with pytest.raises(BadInput, match="slices are missing") as refused:
        open_source(source)
    for name in missing:
        assert name in str(refused.value)
    assert "--gaps skip" in str(refused.value)


@pytest.mark.parametrize(
    "names",
    [
        ["s001", "s002", "s003"],
        ["s000", "s005", "s010", "s015"],  # every fifth
        ["b", "a", "c"],  # no numbers
        ["t0_z0", "t0_z1", "t1_z0", "t1_z1"],
        ["s1_e20", "s2_e35", "s3_e20"],  # another number besides
        ["2024-01-30_1", "2024-01-31_2", "2024-02-01_3"],
        ["a1", "a2", "b1", "b2"],  # two patterns
        ["7", "1000000"],  # two slices are no proof of anything
        ["z0.5", "z1.0", "z1.5", "z2.0"],  # one number each
        ["t1_z00.25", "t2_z00.75", "t3_z01.25"],
        ["s\u0668", "s\u0669", "s\u0661\u0660"],
    ],
)
def test_numbers_without_gaps_are_taken(names: list[str]) -> None:
    files = [f"{name}.png" for name in names]
    assert planes(files, STRICT) == list(range(len(files)))


@pytest.mark.parametrize(
    "names",
    [
        ["s\u0669", "s\u0661\u0660", "s\u0661\u0661"],
        ["s\uff19", "s10", "s\uff11\uff11"],
        ["s\u096f", "s\u0967\u0966", "s\u0967\u0967"],
    ],
)
def test_numbers_of_any_script_have_their_order(tmp_path: Path, names: list[str]) -> None:
    data = written(tmp_path / "s", names)
    holds(open_source([tmp_path / "s"]), data, "zyx")
    with pytest.raises(BadInput, match=r"slices are missing: .*\(1 of 5\)"):
        planes([*(f"{name}.png" for name in names), "s13.png"], STRICT)


@pytest.mark.parametrize("stranger", ["s1 (1)", "s002 copy", "thumbnail", "overview 3"])
def test_names_of_another_kind_among_slices_are_told_of(tmp_path: Path, stranger: str) -> None:
    written(tmp_path / "s", ["s001", "s002", "s003", stranger])
    [remark] = open_source([tmp_path / "s"]).description.remarks
    assert "of 2 kinds" in remark and "s001.png" in remark and f"{stranger}.png" in remark
    written(tmp_path / "alike", ["s001", "s002", "S3"])
    written(tmp_path / "words", ["front", "middle", "back"])
    for folder in ("alike", "words"):
        assert not open_source([tmp_path / folder]).description.remarks


def test_slices_of_the_same_number_are_named(tmp_path: Path) -> None:
    names = ["s1", "s01", "S3", "s3", "s2"]
    data = written(tmp_path / "s", names)
    with pytest.raises(BadInput, match="the same number") as refused:
        open_source([tmp_path / "s"])
    said = str(refused.value)
    assert "s1.png" in said and "s01.png" in said and "S3.png" in said and "s3.png" in said and "s2.png" not in said
    order = sorted(names, key=lambda name: (int(name[1:]), name.casefold().lstrip("s"), name))
    for rule in ("first", "last"):
        source = open_source([tmp_path / "s"], SliceRules(duplicates=rule))  # type: ignore[arg-type]
        shape = source.description.shape
        assert shape == (3, 9, 13)
        seen = source.read(Box.whole(shape))
        for z, alternatives in enumerate((("s1", "s01"), ("s2",), ("s3", "S3"))):
            assert any(np.array_equal(seen[z], data[names.index(name)]) for name in alternatives), (rule, z, order)
    both = [
        open_source([tmp_path / "s"], SliceRules(duplicates=rule)).read(Box.whole((3, 9, 13)))  # type: ignore[arg-type]
        for rule in ("first", "last")
    ]
    assert not np.array_equal(both[0][0], both[1][0]) and np.array_equal(both[0][1], both[1][1])


def test_gaps_are_left_out_filled_or_taken_from_the_nearest(tmp_path: Path) -> None:
    names = ["s02", "s03", "s04", "s07", "s09"]
    data = written(tmp_path / "s", names)
    holds(open_source([tmp_path / "s"], SliceRules(gaps="skip")), data, "zyx")
    zeros = np.zeros_like(data[0])
    filled = np.stack([*data[:3], zeros, zeros, data[3], zeros, data[4]])
    holds(open_source([tmp_path / "s"], SliceRules(gaps="fill")), filled, "zyx")
    nearest = np.stack([*data[:3], data[2], data[3], data[3], data[3], data[4]])
    holds(open_source([tmp_path / "s"], SliceRules(gaps="nearest")), nearest, "zyx")
    # Filled planes lie in the order of numbers, however a shell lists the files.
    listed = [tmp_path / "s" / f"{name}.png" for name in reversed(names)]
    holds(open_source(listed, SliceRules(gaps="fill")), filled, "zyx")


def test_a_plane_of_several_numbers_is_taken_from_its_own_run() -> None:
    names = ["t0_z0", "t0_z1", "t0_z2", "t1_z1", "t1_z2"]
    assert planes(names, SliceRules(gaps="fill")) == [0, 1, 2, None, 3, 4]
    assert planes(names, SliceRules(gaps="nearest")) == [0, 1, 2, 3, 3, 4]


def test_rules_for_slices_are_refused_where_they_mean_nothing(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise((3, 9, 13), "u1"), photometric="minisblack")
    np.save(tmp_path / "a.npy", noise((3, 9, 13), "u1"))
    for name in ("a.tif", "a.npy"):
        with pytest.raises(BadInput, match=r"not read as slices .*leave out --gaps and --duplicates"):
            open_source([tmp_path / name], SliceRules(gaps="skip"))


def test_the_command_names_what_is_missing_and_takes_it_as_it_is_told(tmp_path: Path) -> None:
    data = written(tmp_path / "s", ["1", "01", "2", "4"])
    arguments = (tmp_path / "store", "import", "d", tmp_path / "s")
    command(tmp_path / "store", "init")
    for options, said in (
        ([], "same number: 01.png and 1.png"),
        (["--duplicates", "last"], "missing: 3.png"),
        (["--gaps", "skip"], "same number"),
    ):
        assert said in refused(*arguments, *options).replace("1.png and 01.png", "01.png and 1.png")
    command(*arguments, "--duplicates", "first", "--gaps", "fill")
    with volfs.open_store(tmp_path / "store") as opened:
        level = image_at(opened["d"]["latest"], "").levels[0]  # type: ignore[union-attr]
        assert level.shape == (4, 9, 13) and not level[2].any()
        np.testing.assert_array_equal(level[1], data[2])


def test_gaps_without_end_are_refused_without_taking_memory() -> None:
    for rule in (SliceRules(), SliceRules(gaps="fill")):
        with pytest.raises(BadInput, match="slices are"):
            planes(["s1.png", "s2.png", "s99999999999999999999.png"], rule)
    with pytest.raises(BadInput, match="missing"):
        planes(["a1_1.png", "a1_9999999999999.png", "a9999999999999_1.png"], SliceRules())


@given(st.sets(st.integers(0, 60), min_size=3, max_size=40), st.sampled_from(["fill", "nearest", "skip"]))
def test_filled_planes_are_where_their_numbers_say(numbers: set[int], rule: str) -> None:
    there = sorted(numbers)
    names = [f"s{n:03}.png" for n in there]
    found = planes(names, SliceRules(gaps=rule))  # type: ignore[arg-type]
    if rule == "skip":
        assert found == list(range(len(names)))
        return
    step = int(np.gcd.reduce([n - there[0] for n in there]))
    wanted = range(there[0], there[-1] + 1, step)
    assert len(found) == len(wanted)
    for number, index in zip(wanted, found, strict=True):
        if number in numbers:
            assert index == there.index(number)
        elif rule == "fill":
            assert index is None
        else:
            assert index is not None
            assert abs(there[index] - number) == min(abs(n - number) for n in there)


# ----------------------------------------------------------------------------------------------------------- ZIP


def zipped(path: Path, folder: Path, prefix: str = "", **options: object) -> None:
    with zipfile.ZipFile(path, "w", **options) as out:  # type: ignore[call-overload]
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                out.write(file, prefix + str(file.relative_to(folder)))


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_slices_in_a_zip(tmp_path: Path, method: int, ending: str) -> None:
    data = written(tmp_path / "s", [f"z{n}" for n in (8, 9, 10, 11)], ending)
    (tmp_path / "s" / "notes.txt").write_text("not a slice")
    zipped(tmp_path / "brain.zip", tmp_path / "s", "scan/", compression=method)
    source = open_source([tmp_path / "brain.zip"])
    assert source.description.name == "brain"
    holds(source, data, "zyx")


def test_a_zip_as_macos_and_other_programs_make_it(tmp_path: Path) -> None:
    data = written(tmp_path / "s" / "scan", ["z1", "z2", "z3"])
    zipped(tmp_path / "a.zip", tmp_path / "s")
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as out:
        out.writestr("__MACOSX/scan/._z1.png", b"a resource fork")
        out.writestr("scan/.DS_Store", b"a desktop")
        out.writestr("../../outside.png", b"leads out of the archive, and nowhere")
    holds(open_source([tmp_path / "a.zip"]), data, "zyx")
    subprocess.run(["python3", "-m", "zipfile", "-c", tmp_path / "b.zip", tmp_path / "s" / "scan"], check=True)
    holds(open_source([tmp_path / "b.zip"]), data, "zyx")
    (tmp_path / "b.zip").rename(tmp_path / "no ending")
    holds(open_source([tmp_path / "no ending"]), data, "zyx")


def test_directories_in_a_zip_are_parts(tmp_path: Path) -> None:
    left = written(tmp_path / "s" / "left", ["1", "2"])
    written(tmp_path / "s" / "right" / "deep", ["1", "2", "3"])
    zipped(tmp_path / "a.zip", tmp_path / "s")
    with pytest.raises(BadInput, match=r"slices in 2 directories \(left, right/deep\): name one, like .*a\.zip:left"):
        open_source([tmp_path / "a.zip"])
    holds(open_source([f"{tmp_path / 'a.zip'}:left"]), left, "zyx")
    with pytest.raises(BadInput, match="no slices in middle: they are in left, right/deep"):
        open_source([f"{tmp_path / 'a.zip'}:middle"])


@pytest.mark.parametrize("prefix", ["/data/", "a\\b\\", "C:\\scan\\", "./"])
def test_a_zip_of_paths_that_lead_elsewhere_is_only_read(tmp_path: Path, prefix: str) -> None:
    data = written(tmp_path / "s", ["s9", "s10", "s11"])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("s10", "s11", "s9"):
            archive.writestr(f"{prefix}{name}.png", (tmp_path / "s" / f"{name}.png").read_bytes())
    holds(open_source([tmp_path / "a.zip"]), data, "zyx")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], r"a\.zip is empty"),
        (["../s1.png", "../s2.png"], r"holds no slices .* but \.\./s1\.png, \.\./s2\.png"),
        (["__MACOSX/._s1.png"], "holds no slices .* but __MACOSX"),
        (["a.txt"], r"holds no slices .* but a\.txt"),
    ],
)
def test_a_zip_without_slices_says_what_is_in_it(tmp_path: Path, names: list[str], said: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    with pytest.raises(BadInput, match=said):
        open_source([tmp_path / "a.zip"])


def test_gaps_in_a_zip_are_named_too(tmp_path: Path) -> None:
    written(tmp_path / "s", ["1", "2", "4"])
    zipped(tmp_path / "a.zip", tmp_path / "s")
    with pytest.raises(BadInput, match=r"3\.png"):
        open_source([tmp_path / "a.zip"])


def bomb(path: Path, name: str, size: int, data: bytes) -> None:
    """A member that says that it is ``size`` bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(name, data)
    raw = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", raw, raw.index(mark) + at, size)
    path.write_bytes(raw)


def test_zips_that_are_traps_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    written(tmp_path / "s", ["1"])
    picture = (tmp_path / "s" / "1.png").read_bytes()
    bomb(tmp_path / "huge.zip", "1.png", (1 << 32) - 2, picture)
    with pytest.raises(BadInput, match="not a slice, or a trap"):
        open_source([tmp_path / "huge.zip"])
    # A real bomb: a picture with 200 MiB of zeros behind it, one when packed.
    with (
        zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out,
        out.open("1.png", "w", force_zip64=True) as member,
    ):
        member.write(picture)
        for _ in range(200):
            member.write(bytes(1 << 20))
    with pytest.raises(BadInput, match="far more than a picture"):
        open_source([tmp_path / "bomb.zip"]).read(Box.whole((9, 13)))
    # A header that promises a picture that so few bytes cannot hold.
    header = b"IHDR" + (1 << 30).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    with zipfile.ZipFile(tmp_path / "header.zip", "w") as out:
        out.writestr("1.png", b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + header + bytes(4))
    with pytest.raises(BadInput, match="promises more"):
        open_source([tmp_path / "header.zip"])


def test_zips_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    data = written(tmp_path / "s", ["1", "2"])
    zipped(tmp_path / "a.zip", tmp_path / "s")
    whole = (tmp_path / "a.zip").read_bytes()
    for length in (4, len(whole) // 2, len(whole) - 3):
        (tmp_path / "cut.zip").write_bytes(whole[:length])
        with pytest.raises(BadInput, match=r"cut\.zip is unreadable or cut short"):
            open_source([tmp_path / "cut.zip"])
    flipped = bytearray(whole)
    flipped[whole.index(b"IDAT") + 20] ^= 4
    (tmp_path / "flip.zip").write_bytes(flipped)
    with pytest.raises(BadInput, match=r"flip\.zip:1\.png"):
        open_source([tmp_path / "flip.zip"]).read(Box.whole(data.shape))
    encrypted = bytearray(whole)
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := whole.find(mark, start)) >= 0:
            encrypted[start + at] |= 1
            start += 4
    (tmp_path / "secret.zip").write_bytes(encrypted)
    with pytest.raises(BadInput, match="is encrypted: unpack"):
        open_source([tmp_path / "secret.zip"])
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as out:
        out.writestr("a.zarr/zarr.json", b"{}")
    with pytest.raises(BadInput, match=r"holds no slices .*a\.zarr/zarr\.json: unpack it"):
        open_source([tmp_path / "none.zip"])
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as out:
        for number in range(2):
            buffer = io.BytesIO()
            Image.fromarray(data[number]).save(buffer, "PNG")
            with pytest.warns(UserWarning) if number else nullcontext():
                out.writestr("1.png", buffer.getvalue())
    with pytest.raises(BadInput, match=r"1\.png more than once"):
        open_source([tmp_path / "twice.zip"])
