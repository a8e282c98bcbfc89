"""Copies of files and directories of the tree, made without a mount.

Decided here: that a copy is written beside its place and appears there whole or not at all, and where in the tree each
format is. The bytes are those of the tree, read through it as a kernel would; zeros are left as holes.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trio

from volfs.errors import AlreadyThere, NotFound
from volfs.model.refs import RefKind
from volfs.storage.files import fsync_dir, no_space, open_new
from volfs.tree.contract.api import ROOT_INO, TreeApi, TreeOptions
from volfs.tree.contract.attrs import Attr
from volfs.tree.tree import Tree
from volfs.versions.branch import Branch
from volfs.versions.snapshot import Snapshot
from volfs.versions.store import Store
from volfs.views.volumes import FORMATS
from volfs.volume.image import image_at, no_image

#: Formats that are one file, by their names for people.
FILES = {one.ending[1:]: one.ending for one in FORMATS.values() if one.ending != ".raw.json"}
#: Those that are a directory of ``formats/``, by the ending there.
FOLDERS = {
    "zarr2": ".v2.zarr",
    "sharded-zarr": ".sharded.zarr",
    "n5": ".n5",
    "n5-zstd": ".zstd.n5",
    "precomputed": ".precomputed",
    "tiles": ".tiles",
}
#: And those with a place of their own.
OTHERS = ("zarr", "bdv", "slices", "files")

_PIECE = 4 << 20
#: Pieces and files that are under way at once.
_PARALLEL = 4

Report = Callable[[int, int], None]
"""Told of progress: bytes done, bytes in all."""


@dataclass(frozen=True, slots=True)
class Copied:
    """The numbers of an export."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """An export to ``out``: a copy of ``path`` in the tree; with ``parts``, a directory with copies of several paths,
    by their names in it; with ``planes``, copies of all directories of that name at ``path`` or below the directories
    of further axes there, ``t0003/c01/``, each in directories like those."""

    out: Path
    path: str = ""
    parts: Mapping[str, str] | None = None
    planes: str = ""

    @property
    def of_side_files(self) -> bool:
        """Whether ``path`` (DATASET/versions/REF/…) is one of side files, among which links are content."""
        return self.path.split("/")[3:4] == ["files"]


def wanted(
    snapshot: Snapshot, image_path: str, kind: str, out: Path, *, level: str = "s0", box: str = "", plane: str = "xy"
) -> list[Wanted]:
    """The exports that make an image in a format. ``box`` is the name of a cutout, without an ending, for files.

    Raises NotFound, saying what there is.
    """
    top = _top(snapshot)
    here = "/".join(part for part in (top, image_path) if part)
    if kind == "files":
        return [Wanted(out, f"{top}/files")]
    if kind == "zarr":
        return [Wanted(out, "/".join(part for part in (top, "zarr", image_path) if part))]
    name = image_path.rpartition("/")[2] or snapshot.dataset.name
    if kind == "bdv":
        both = (f"{name}.n5", f"{name}.xml")
        return [Wanted(out, parts={one: f"{here}/formats/{one}" for one in both})]
    if kind in FOLDERS:
        return [Wanted(out, f"{here}/formats/{name}{FOLDERS[kind]}")]
    image = image_at(snapshot, image_path)
    if image is None:
        raise no_image(snapshot, image_path)
    if image.level(level) is None:
        raise NotFound(f"there is no level {level}: the image has {', '.join(one.name for one in image.levels)}")
    folder = here if image.is_array else f"{here}/{level}"
    if kind == "slices":
        return [Wanted(out, folder, planes=plane)]
    made = f"{folder}/cutout/{box}{FILES[kind]}" if box else f"{folder}/volume{FILES[kind]}"
    found = [Wanted(out, made)]
    if kind == "raw":  # which says nothing about itself
        found.append(Wanted(out.with_name(f"{out.name}.json"), f"{made}.json"))
    if kind == "nhdr":  # which names the file of its voxels
        voxels = made.removesuffix("nhdr") + "raw"
        found.append(Wanted(out.with_name(voxels.rpartition("/")[2]), voxels))
    return found


def wanted_path(snapshot: Snapshot, path: str, out: Path) -> list[Wanted]:
    """The export of a path of a version or branch in the tree: ``s0/xz/y00034.iso.png``."""
    return [Wanted(out, f"{_top(snapshot)}/{path.strip('/')}")]


def _top(snapshot: Snapshot) -> str:
    folder = RefKind.BRANCH.directory if isinstance(snapshot, Branch) else "versions"
    return f"{snapshot.dataset.name}/{folder}/{snapshot.ref}"


def export(store: Store, jobs: Sequence[Wanted], report: Report, *, overwrite: bool = False) -> Copied:
    """Copy files and directories of the tree. Blocks.

    AlreadyThere if something is at the place of one, unless it may be overwritten; NotFound if the tree has no such
    path. Whatever happens, nothing half made is left.
    """
    for job in jobs:
        if not overwrite and os.path.lexists(job.out):
            raise AlreadyThere(f"{job.out} exists: choose another place, or say --overwrite")
        if not job.out.absolute().parent.is_dir():
            raise NotFound(f"{job.out.absolute().parent} does not exist: make that directory first")
    try:
        return trio.run(_export, store, jobs, report, overwrite)
    except BaseExceptionGroup as failures:
        raise _first(failures) from None


async def _export(store: Store, jobs: Sequence[Wanted], report: Report, overwrite: bool) -> Copied:
    tree = Tree(store, TreeOptions(uid=os.getuid(), gid=os.getgid(), read_only=True))
    async with trio.open_nursery() as nursery:
        await nursery.start(tree.run)
        try:
            return await _Export(tree, report).all(jobs, overwrite=overwrite)
        finally:
            with trio.CancelScope(shield=True):
                await tree.close()


def _first(failure: BaseException) -> BaseException:
    """The first failure: everything else under way was cancelled, and may have failed because of that."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


class _Export:
    def __init__(self, tree: TreeApi, report: Report) -> None:
        self._tree = tree
        self._report = report
        self._limit = trio.CapacityLimiter(_PARALLEL)
        self._done = self._total = self._files = 0
        self._links = False

    async def all(self, jobs: Sequence[Wanted], *, overwrite: bool) -> Copied:
        found = [await self._parts(job) for job in jobs]
        for parts in found:
            for attr in parts.values():
                await self._measure(attr)
        places = [job.out.absolute() for job in jobs]
        made = [place.with_name(f".{place.name}.{os.getpid()}.partial") for place in places]
        try:
            for job, parts, partial in zip(jobs, found, made, strict=True):
                self._links = job.of_side_files
                if "" not in parts:
                    os.mkdir(partial)
                for name, attr in parts.items():
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    await self._copy(attr, partial / name if name else partial)
            for partial, place in zip(made, places, strict=True):
                if overwrite:
                    await trio.to_thread.run_sync(_remove, place)
                os.rename(partial, place)
                fsync_dir(place.parent)
        finally:
            with trio.CancelScope(shield=True):
                for partial in made:
                    await trio.to_thread.run_sync(_remove, partial)
        return Copied(self._files, self._done)

    async def _parts(self, job: Wanted) -> dict[str, Attr]:
        """The attributes of what is copied, by its name in ``out``: "" for ``out`` itself."""
        if job.planes:
            above = await self._look(job.path)
            return await self._planes(above.ino, job.planes) or {"": await self._look(f"{job.path}/{job.planes}")}
        return {name: await self._look(path) for name, path in (job.parts or {"": job.path}).items()}

    async def _planes(self, folder: int, plane: str, at: str = "") -> dict[str, Attr]:
        """The directories of a plane in or below a directory, by their paths from there without the plane's name."""
        attr = await self._tree.lookup(folder, plane.encode())
        if attr.ino:
            return {at: attr}
        found: dict[str, Attr] = {}
        for name, below in await self._list(folder):
            if below.is_dir and name[-1].isdecimal():  # those of an index end in it
                found |= await self._planes(below.ino, plane, f"{at}/{name}" if at else name)
        return found

    async def _look(self, path: str) -> Attr:
        ino, attr = ROOT_INO, await self._tree.getattr(ROOT_INO)
        for part in path.split("/"):
            attr = await self._tree.lookup(ino, os.fsencode(part))
            if not attr.ino:
                raise NotFound(await self._absent(ino, path, part))
            ino = attr.ino
        return attr

    async def _absent(self, folder: int, path: str, part: str) -> str:
        if path.split("/")[-2:-1] == ["cutout"]:
            return (
                f"there is no {path}: a box is ranges of voxels inside the level, such as z0-64_y100-612; "
                "`volfs info` says how large it is"
            )
        names = [os.fsdecode(entry.name) for entry in await self._tree.readdir(folder, 0)]
        like = [name for name in names if name.partition(".")[0] == part.partition(".")[0]] or names
        listed = ", ".join(like[:20]) or "none"
        return f"there is no {path}: this image has {listed} there; --path names anything that a mount shows"

    async def _list(self, ino: int) -> list[tuple[str, Attr]]:
        found: list[tuple[str, Attr]] = []
        cookie = 0
        while entries := list(await self._tree.readdir(ino, cookie)):
            found += [(os.fsdecode(entry.name), entry.attr) for entry in entries]
            cookie = entries[-1].cookie
        return found

    async def _measure(self, attr: Attr) -> None:
        """Add up the sizes of all files."""
        if attr.is_dir:
            for _, below in await self._list(attr.ino):
                await self._measure(below)
        elif attr.is_file:
            self._total += attr.size

    async def _copy(self, attr: Attr, out: Path) -> None:
        if attr.is_dir:
            await self._copy_folder(attr, out)
            # One pass over the disk's caches, instead of one for each of very many small files.
            await trio.to_thread.run_sync(os.sync)
        elif attr.is_link:
            await self._copy_link(attr, out)
        else:
            await self._copy_file(attr, out, durable=True)

    async def _copy_folder(self, attr: Attr, out: Path) -> None:
        os.mkdir(out, _own(attr.mode))
        files = []
        for name, below in await self._list(attr.ino):
            if below.is_dir:
                await self._copy_folder(below, out / name)
            elif below.is_file:
                files.append((name, below))
            elif below.is_link and self._links:
                await self._copy_link(below, out / name)
        async with trio.open_nursery() as nursery:
            for name, below in files:
                await self._limit.acquire_on_behalf_of(name)
                nursery.start_soon(self._one, name, below, out / name)
        os.utime(out, ns=(attr.mtime, attr.mtime))

    async def _one(self, name: str, attr: Attr, out: Path) -> None:
        try:
            await self._copy_file(attr, out, durable=False)
        finally:
            self._limit.release_on_behalf_of(name)

    async def _copy_link(self, attr: Attr, out: Path) -> None:
        """Copy a symbolic link of the side files as a link. Links that the tree makes are left out: their targets
        are."""
        os.symlink(await self._tree.readlink(attr.ino), out)
        os.utime(out, ns=(attr.mtime, attr.mtime), follow_symlinks=False)
        self._files += 1

    async def _copy_file(self, attr: Attr, out: Path, *, durable: bool) -> None:
        opened = await self._tree.open(attr.ino, os.O_RDONLY)
        try:
            with no_space("exporting"):
                fd = open_new(out, _own(attr.mode))
                try:
                    os.truncate(fd, attr.size)
                    await self._pieces(opened.fh, fd, attr.size)
                    if durable:
                        await trio.to_thread.run_sync(os.fsync, fd)
                finally:
                    os.close(fd)
        finally:
            with trio.CancelScope(shield=True):
                await self._tree.release(opened.fh)
        os.utime(out, ns=(attr.mtime, attr.mtime))
        self._files += 1

    async def _pieces(self, fh: int, fd: int, size: int) -> None:
        """Copy in order, some pieces at a time: the next ones are read while others are written."""
        turns = iter(range(0, size, _PIECE))

        async def work() -> None:
            for offset in turns:
                length = min(_PIECE, size - offset)
                data = await self._tree.read(fh, offset, length)
                if len(data) != length:
                    raise OSError(errno.EIO, f"the file ended at {offset + len(data)}: it changed while it was read")
                await trio.to_thread.run_sync(_write, fd, offset, data)
                self._done += length
                self._report(self._done, self._total)

        async with trio.open_nursery() as nursery:
            for _ in range(min(_PARALLEL, -(-size // _PIECE))):
                nursery.start_soon(work)


def _own(mode: int) -> int:
    """The permission bits of a copy, before the user's umask: those for reading, with writing for the same users."""
    bits = stat.S_IMODE(mode)
    return bits | (bits & 0o444) >> 1


def _write(fd: int, offset: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    if not np.frombuffer(view, np.uint8).any():
        return  # the file has its size already: a hole reads as zeros
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def _remove(path: Path) -> None:
    """Whatever is there, if anything."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        shutil.rmtree(path)
    else:
        path.unlink()
