"""Ordinary programs writing slices of a branch through a mount: cp, mv, tar, install, rsync, dd, shells, Python.

After each, what the mount serves is the new picture at once (from the kernel's caches too), the voxels are changed for
every other reader, and nothing else is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image

from tests.kits.judged import Mounted
from tests.kits.mounts import volfs
from volfs.testing.waiting import PATIENCE

Plane = NDArray[Any]


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(c) for c in command], check=True, capture_output=True, text=True, timeout=PATIENCE, **options
    )


def cp(source: Path, target: Path) -> None:
    run("cp", source, target)


def cp_archive(source: Path, target: Path) -> None:
    run("cp", "-a", source, target)


def mv(source: Path, target: Path) -> None:
    run("mv", source, target)


def install(source: Path, target: Path) -> None:
    run("install", "-m", "644", source, target)


def rsync(source: Path, target: Path) -> None:
    # rsync takes files of one size and one second for equal. Two PNGs of noise have one size, and the test before this
    # one changed the slice in this very second.
    os.utime(source, (1_000_000_000, 1_000_000_000))
    run("rsync", "-a", source, target)


def rsync_in_place(source: Path, target: Path) -> None:
    run("rsync", "--inplace", "--no-whole-file", source, target)


def tar(source: Path, target: Path) -> None:
    renamed = source.with_name(target.name)
    source.rename(renamed)
    archive = source.with_suffix(".tar")
    run("tar", "cf", archive, "-C", renamed.parent, renamed.name)
    run("tar", "xf", archive, "-C", target.parent)


def shell(source: Path, target: Path) -> None:
    run("sh", "-c", f"cat '{source}' > '{target}'")


def dd_small(source: Path, target: Path) -> None:
    run("dd", f"if={source}", f"of={target}", "bs=777")


def temporary_then_rename(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp42")
    shutil.copyfile(source, temporary)
    os.rename(temporary, target)


def in_place(source: Path, target: Path) -> None:
    with target.open("r+b") as file:
        file.write(source.read_bytes())


# An encoder's compressed PNG is shorter than the slice, and writing in place does not cut the rest off.
IN_PLACE = (in_place, rsync_in_place)
WAYS = [cp, cp_archive, mv, install, rsync, rsync_in_place, tar, shell, dd_small, temporary_then_rename, in_place]


PUTS = [(way, end) for way in WAYS for end in (".png", ".tif", ".npy") if end != ".png" or way not in IN_PLACE]


def picture(path: Path, plane: Plane) -> Path:
    if path.suffix == ".png":
        Image.fromarray(plane).save(path)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, plane)
    else:
        np.save(path, plane)
    return path


def new_plane(shape: tuple[int, ...], dtype: Any, seed: int) -> Plane:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)


@pytest.mark.parametrize(("way", "ending"), PUTS, ids=lambda value: value if isinstance(value, str) else value.__name__)
def test_a_picture_put_over_a_slice_is_what_everybody_reads(
    judged: Mounted, clean_branch: Callable[[str], Path], tmp_path: Path, way: Callable[[Path, Path], None], ending: str
) -> None:
    branch = clean_branch("u8")
    position = WAYS.index(way) + 1
    target = branch / "s0" / "xy" / f"z{position:05d}{ending}"
    before = np.load(branch / "s0" / "xy" / f"z{position:05d}.npy").copy()
    neighbour = np.load(branch / "s0" / "xy" / f"z{position + 1:05d}.npy").copy()
    plane = new_plane(before.shape, np.uint8, position)
    way(picture(tmp_path / f"new{ending}", plane), target)
    folder = branch / "s0" / "xy"
    np.testing.assert_array_equal(np.asarray(Image.open(folder / f"z{position:05d}.png")), plane)
    np.testing.assert_array_equal(tifffile.imread(folder / f"z{position:05d}.tif"), plane)
    np.testing.assert_array_equal(np.load(folder / f"z{position:05d}.npy"), plane)
    assert target.stat().st_size == len(target.read_bytes())
    voxels = zarr.open_array(str(branch / "zarr" / "s0"), mode="r")
    np.testing.assert_array_equal(voxels[position], plane)
    np.testing.assert_array_equal(voxels[position + 1], neighbour)
    np.testing.assert_array_equal(np.load(branch / "s0" / "xz" / "y00004.npy")[position], plane[4])
    np.testing.assert_array_equal(
        np.load(judged.version("u8") / "s0" / "xy" / f"z{position:05d}.npy"), judged.volumes["u8"][position]
    )
    listed = sorted(os.listdir(folder))
    assert listed == [f"z{z:05d}.png" for z in range(judged.volumes["u8"].shape[0])]


def test_no_stale_byte_after_a_rename_over_a_slice(
    judged: Mounted, clean_branch: Callable[[str], Path], tmp_path: Path
) -> None:
    """Two hundred tries: the name, reopened at once, has the new size and the new bytes."""
    branch = clean_branch("u8")
    target = branch / "s0" / "xy" / "z00020.npy"
    shape = judged.volumes["u8"].shape[1:]
    for attempt in range(200):
        plane = new_plane(shape, np.uint8, attempt)
        temporary = target.with_name(f"upload{attempt}.npy")
        np.save(temporary, plane)
        os.rename(temporary, target)
        data = target.read_bytes()
        assert len(data) == target.stat().st_size
        np.testing.assert_array_equal(np.load(target), plane, err_msg=f"try {attempt}")


@pytest.mark.parametrize("wrong", ["shape", "dtype"])
def test_a_picture_that_does_not_fit_is_refused_and_changes_nothing(
    judged: Mounted, clean_branch: Callable[[str], Path], tmp_path: Path, wrong: str
) -> None:
    branch = clean_branch("u8")
    target = branch / "s0" / "xy" / "z00030.tif"
    before = np.load(target.with_suffix(".npy")).copy()
    plane = new_plane((5, 6), np.uint8, 1) if wrong == "shape" else new_plane(before.shape, np.uint16, 1)
    source = picture(tmp_path / "bad.tif", plane)
    done = subprocess.run(["cp", str(source), str(target)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Invalid argument" in done.stderr
    np.testing.assert_array_equal(zarr.open_array(str(branch / "zarr" / "s0"), mode="r")[30], before)


def test_append_and_truncate_rebuild_a_slice(
    judged: Mounted, clean_branch: Callable[[str], Path], tmp_path: Path
) -> None:
    """A slice written in two goes: cut to nothing, half of it, closed, then the rest appended."""
    branch = clean_branch("u8")
    target = branch / "s0" / "xy" / "z00025.npy"
    plane = new_plane(judged.volumes["u8"].shape[1:], np.uint8, 9)
    data = picture(tmp_path / "new.npy", plane).read_bytes()
    half = len(data) // 2
    os.truncate(target, 0)
    assert target.stat().st_size == 0
    with target.open("ab") as file:
        file.write(data[:half])
    assert target.stat().st_size == half
    with target.open("ab") as file:
        file.write(data[half:])
    assert target.read_bytes() == data
    np.testing.assert_array_equal(zarr.open_array(str(branch / "zarr" / "s0"), mode="r")[25], plane)


def test_a_removed_slice_is_hidden_until_its_name_is_used(judged: Mounted, clean_branch: Callable[[str], Path]) -> None:
    branch = clean_branch("u8")
    target = branch / "s0" / "xy" / "z00003.png"
    voxels = np.load(target.with_suffix(".npy")).copy()
    os.unlink(target)
    assert not target.exists()
    np.testing.assert_array_equal(zarr.open_array(str(branch / "zarr" / "s0"), mode="r")[3], voxels)


def test_coarser_levels_follow_and_are_read_only(judged: Mounted, tmp_path: Path) -> None:
    volume = np.random.default_rng(5).integers(0, 256, (64, 256, 256), np.uint8)
    np.save(tmp_path / "tall.npy", volume)
    volfs(judged.store, "import", "tall", tmp_path / "tall.npy", "--levels", "2", "--chunks", "16,32,32")
    branch = judged.branch("tall")
    plane = new_plane(volume.shape[1:], np.uint8, 77)
    np.save(branch / "s0" / "xy" / "z00008.npy", plane)
    volume[8] = plane
    fine = volume.astype(np.float64).reshape(32, 2, 128, 2, 128, 2)
    expected = np.rint(fine.mean(axis=(1, 3, 5))).astype(np.uint8)  # rint: half to even
    np.testing.assert_array_equal(np.load(branch / "s1" / "xy" / "z00004.npy"), expected[4])
    np.testing.assert_array_equal(zarr.open_array(str(branch / "zarr" / "s1"), mode="r")[...], expected)
    with pytest.raises(PermissionError):
        np.save(branch / "s1" / "xy" / "z00004.npy", expected[4])
    volfs(judged.store, "commit", "tall", "-m", "one plane")
    latest = judged.mount / "tall" / "versions" / "latest"
    np.testing.assert_array_equal(zarr.open_array(str(latest / "zarr" / "s1"), mode="r")[...], expected)
    np.testing.assert_array_equal(zarr.open_array(str(latest / "zarr" / "s0"), mode="r")[...], volume)


def test_commit_branch_and_tag_by_files_alone(judged: Mounted, clean_branch: Callable[[str], Path]) -> None:
    dataset = judged.mount / "u64"
    branch = clean_branch("u64")
    (branch / "files" / "notes").mkdir()
    (branch / "files" / "notes" / "today.txt").write_text("seen: two nuclei\n")
    run("sh", "-c", f"echo 'notes of today' > '{branch}/.volfs/commit'")
    run("sh", "-c", f"echo 'notes of today' > '{branch}/.volfs/commit'")  # a retransmission is a no-op
    assert os.readlink(dataset / "versions" / "latest") == "v2"
    assert (dataset / "versions" / "v2" / "files" / "notes" / "today.txt").read_text() == "seen: two nuclei\n"
    assert not (dataset / "versions" / "v1" / "files" / "notes").exists()
    refused = subprocess.run(["sh", "-c", f"echo again > '{branch}/.volfs/commit'"], capture_output=True, check=False)
    assert refused.returncode != 0
    run("ln", "-s", "../versions/v1", dataset / "tags" / "paper")
    assert (dataset / "tags" / "paper" / "version.json").read_bytes() == (
        dataset / "versions" / "v1" / "version.json"
    ).read_bytes()
    run("mkdir", dataset / "branches" / "exp@v1")
    assert sorted(os.listdir(dataset / "branches")) == ["exp", "main"]
    assert not (dataset / "branches" / "exp" / "files" / "notes").exists()
    (dataset / "branches" / "exp" / "files" / "x").write_text("x")
    assert subprocess.run(["rmdir", str(dataset / "branches" / "exp")], capture_output=True, check=False).returncode
    run("sh", "-c", f"echo all > '{dataset}/branches/exp/.volfs/discard'")
    run("rmdir", dataset / "branches" / "exp")
    run("rm", dataset / "tags" / "paper")
    assert sorted(os.listdir(dataset / "branches")) == ["main"] and os.listdir(dataset / "tags") == []
    with pytest.raises(PermissionError):
        os.symlink("../versions/v1", dataset / "branches" / "link")
