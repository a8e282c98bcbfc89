"""A store made by an earlier volfs keeps its inodes, its NFS handles and its bytes.

``earlier_store.tar.xz`` is such a store, made through a mount: an image with levels, labels beyond 2³², a recording
with a time axis in shards, versions, tags, a branch with a commit and with changes that are not committed. ``.txt.xz``
lists how the volfs of then mounted it, one line for each name.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import stat
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

from volfs.testing.file_handles import handle_of
from volfs.testing.kit import mounted

HERE = Path(__file__).parent
AS_IT_WAS = HERE / "earlier_store.txt.xz"

LEFT_OUT = ("README.txt", ".volfs")
"""Says which mount it is, and what it has done."""
TWICE = {"em": ("main", "v1", "v2"), "movie": ("main",)}
"""Refs of each dataset that hold nothing that others do not."""


def names(top: Path) -> Iterator[Path]:
    """Every name below a mount that is compared, links not followed."""
    for folder, folders, files in os.walk(top):
        where = Path(folder)
        left_out = {*LEFT_OUT, *TWICE.get(where.relative_to(top).parts[0], ())} if where != top else set(LEFT_OUT)
        folders[:] = sorted(set(folders) - left_out)
        yield where
        links = [name for name in folders if (where / name).is_symlink()]
        yield from (where / name for name in sorted([*files, *links]) if name not in LEFT_OUT)


SINCE = ("diffs", "preview", "thumbnail.png")
"""Names that there were none of when the store was made: they, and what is below them, are not compared."""
SAY_MORE = ("info.json",)
"""Documents that say more than they did."""


def line(path: Path, top: Path) -> str:
    """Everything about a name that must stay as it was.

    A link has another inode with each target, as after `ln -sf`: servers of NFS keep by its inode what a link says.
    """
    seen = os.lstat(path)
    # The kernel's own form of a FUSE handle: the inode's halves, then the generation.
    assert bytes(handle_of(path)) == struct.pack("=III", seen.st_ino >> 32, seen.st_ino & 0xFFFFFFFF, 1), path
    if stat.S_ISREG(seen.st_mode):
        content = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    else:
        content = os.readlink(path) if stat.S_ISLNK(seen.st_mode) else "-"
    # The times of directories that a mount makes are its own.
    time = seen.st_mtime_ns if stat.S_ISREG(seen.st_mode) and "versions/" in path.as_posix() else 0
    return f"{path.relative_to(top)} {seen.st_ino} {seen.st_mode:o} {seen.st_nlink} {seen.st_size} {time} {content}"


def listing(top: Path) -> list[str]:
    return [line(path, top) for path in names(top) if path != top]


def test_a_store_made_earlier_keeps_its_inodes_handles_and_bytes(tmp_path: Path, mountpoint: Path) -> None:
    with tarfile.open(HERE / "earlier_store.tar.xz") as archive:
        archive.extractall(tmp_path, filter="fully_trusted")
    expected = lzma.decompress(AS_IT_WAS.read_bytes()).decode().splitlines()
    with mounted(tmp_path / "store", mountpoint):
        found = listing(mountpoint)
    assert len(expected) > 1000
    was, now = set(map(lasting, expected)), set(map(lasting, found))
    assert sorted(was - now) == [], "changed or gone"
    assert not {each for each in now - was if not set(each.split()[0].split("/")) & set(SINCE)}, "new"


def lasting(said: str) -> str:
    """Of a line what a later volfs must not change."""
    name, ino, mode, links, size, time, content = said.split(" ", 6)
    if stat.S_ISLNK(int(mode, 8)):
        ino = "-"
    if name.rpartition("/")[2] in SAY_MORE:
        size = content = "-"
    return f"{name} {ino} {mode} {links} {size} {time} {content}"
