"""P17 to P21: version control. What a long history costs, and merging, cloning and pulling beside git, cp and icechunk.

Times are those of stores that are open, unless the measure says otherwise. What asks no other process is measured by
the processor's time: it is what must not grow, and what else the machine does is left out of it.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np

import volfs
from tests.benchmarks import data
from tests.benchmarks.harness import Bench, Ratio, at_most, files_below, longer, measure, timed
from volfs import open_store
from volfs.model.box import Box
from volfs.model.metadata import group_zarr_json
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.dataset import Dataset
from volfs.versions.store import Store
from volfs.volume.image import image_at

_FEW = 10
"""Versions of the history that a long one is compared with."""
_BRANCHES = 50
_ASKED = 50
"""Questions in one pass."""
_LINES = 20
"""Versions that one pass of ``log`` asks for."""


# -- P17: what must not grow with history ----------------------------------------------------------------------------


@measure("P17", "version control in a long history")
def long_history(bench: Bench) -> Iterable[Ratio]:
    """The same questions and commits in two stores of as many chunks: many versions on fifty branches, and ten."""
    many = _many(bench)
    stores = [_branching_store(bench, many), _branching_store(bench, _FEW)]
    what = f"{many:,} versions, {math.prod(bench.scale.grid):,} chunks ÷ {_FEW} versions"
    with open_store(stores[0]) as old, open_store(stores[1]) as young:
        sides = [_Side(store, bench.scale.grid) for store in (old, young)]
        for name in ("log", "log of a box", "lookup of a version", "lookup of a chunk", "diff of neighbours", "commit"):
            passes = [getattr(side, name.replace(" ", "_")) for side in sides]
            for each in passes:
                each()  # what is remembered from here on
            (times,) = bench.in_turn(
                lambda passes=passes: [_worked(passes[0])], lambda passes=passes: [_worked(passes[1])], _runs(bench)
            )
            yield longer("P17", f"{name}, {what} (processor time)", times, at_most(1.2))
    mounted, listed = bench.in_turn(lambda: _mounted(bench, stores[0]), lambda: _mounted(bench, stores[1]))
    yield longer("P17", f"mount, {what} (time)", mounted, at_most(1.2))
    yield longer("P17", f"ls versions/, a name of it, {what} (time)", listed, at_most(1.2))


def _worked(action: Callable[[], object]) -> float:
    """Seconds that the processor worked, on whatever thread."""
    start = time.process_time()
    action()
    return time.process_time() - start


def _runs(bench: Bench) -> int:
    """Of what is short and varies."""
    return 3 * bench.scale.runs if bench.scale.runs > 1 else 1


def _many(bench: Bench) -> int:
    return max(bench.scale.versions, 2 * _FEW)


def _mounted(bench: Bench, store: Path) -> list[float]:
    """Seconds from starting the daemon to the first look at the newest version; of a listing of all, a name."""
    start = time.perf_counter()
    with bench.mounted(store, cold=False) as mount:
        (mount / "many" / "versions" / "latest" / "zarr" / "s0" / "zarr.json").read_bytes()
        seconds = time.perf_counter() - start
        names: list[str] = []
        listing = timed(lambda: names.extend(os.listdir(mount / "many" / "versions")))
    return [seconds, listing / len(names)]


class _Side:
    """One of the two stores, and a pass of each question. Nothing is asked twice that could be remembered by answer."""

    def __init__(self, store: Store, grid: tuple[int, int, int]) -> None:
        self._dataset = store["many"]
        self._pick = np.random.default_rng(12)
        self._grid = grid
        self._ids = [info.content_id for info in self._dataset.versions()]

    def log(self) -> None:
        for _ in range(_ASKED):
            assert list(islice(self._dataset.log(), _LINES))

    def log_of_a_box(self) -> None:
        edge = data.SMALL
        for _ in range(5):
            corner = [int(n) * edge for n in self._pick.integers(0, self._grid)]
            box = Box(tuple(corner), tuple(n + edge for n in corner))
            assert list(islice(self._dataset.log(path="s0", box=box), 1))

    def lookup_of_a_version(self) -> None:
        for _ in range(_ASKED):
            assert self._dataset.resolve("main~3")
            assert self._dataset.resolve(self._ids[int(self._pick.integers(len(self._ids)))][:12])

    def lookup_of_a_chunk(self) -> None:
        """Known places: what the first look into a part of a version costs is P16's."""
        array = self._dataset.version(self._dataset.resolve("main")).array("s0")
        assert array is not None
        for number in range(_ASKED * 4):
            assert array.payload((number % 4, number % 5, number % 3)) is not None

    def diff_of_neighbours(self) -> None:
        for back in range(3):
            found = list(self._dataset.diff(f"main~{back + 1}", f"main~{back}"))
            assert found

    def commit(self) -> None:
        branch = self._dataset.branch("main")
        z, y, x = (int(n) for n in self._pick.integers(0, self._grid))
        branch.put(f"zarr/s0/c/{z}/{y}/{x}", self._pick.bytes(data.SMALL**3))
        branch.commit("one chunk")


def _branching_store(bench: Bench, versions: int) -> Path:
    """The store of many chunks after so many versions, each of one changed chunk, on up to fifty branches; the newer
    half of them in turn on ``main``."""

    def make(path: Path) -> None:
        shutil.copytree(data.many_chunks_store(bench), path)
        grid, raw = bench.scale.grid, data.many_json(bench.scale.grid)
        pick = np.random.default_rng(4)
        with data.unsynced(), open_store(path) as store:
            dataset = store["many"]
            heads = {"main": 1}
            count = min(_BRANCHES, versions // 2)
            for number in range(2, versions + 1):
                if number % max(versions // count, 1) == 1 and len(heads) < count:
                    name = f"b{len(heads)}"
                    dataset.create_branch(name, number - 1)
                    heads[name] = number - 1
                name = "main" if number % 2 else sorted(heads)[int(pick.integers(len(heads)))]
                coords = tuple(int(n) for n in pick.integers(0, grid))
                with VersionWriter(dataset, name, heads[name]) as writer:
                    array = writer.array("s0", raw, created=False, chunks=np.array([coords]))
                    array.put(coords, number.to_bytes(data.SMALL**3, "little"))
                    heads[name] = writer.publish(f"change {number}").number

    return bench.once(f"branching-{versions}", make)


# -- P18: merging ----------------------------------------------------------------------------------------------------


@measure("P18", "merge of many chunks")
def large_merge(bench: Bench) -> Iterable[Ratio]:
    """Both sides have gone on, one of them in every chunk, or file, there is. Git writes them into a work tree, which
    is what a merge is there; each is of 64 bytes, so that it is their number that counts."""
    count = bench.scale.changed
    path = bench.root / "merging"
    side = math.ceil(count ** (1 / 3))
    sizes: list[float] = []
    repository = _git_history(bench.root / "merging-git", count)
    with open_store(_merging(path, (side, side, side)), create=False) as store:
        dataset = store["many"]
        before = dataset.branches()["main"]

        def ours() -> list[float]:
            dataset.move_branch("main", before)
            seconds = timed(lambda: dataset.merge("exp"))
            number = dataset.branches()["main"]
            assert number != before
            sizes.append(_bytes_of(dataset.layout.root / "versions" / f"{number:08d}") / side**3)
            return [seconds]

        def theirs() -> list[float]:
            repository("reset", "-q", "--hard", "one")
            return [timed(lambda: (repository("merge", "-q", "-m", "merge", "other"), os.sync()))]

        (times,) = bench.in_turn(ours, theirs)
    yield longer("P18", f"merge of {count:,} chunks ÷ git merge of as many files (time)", times, at_most(0.5))
    yield Ratio("P18", f"merge of {count:,} chunks, bytes written a chunk ÷ 150", max(sizes) / 150, at_most(1.0))


def _merging(path: Path, grid: tuple[int, int, int]) -> Path:
    raw = data.many_json(grid)
    with data.unsynced(), volfs.init_store(path) as store, store.new_dataset("many") as dataset:
        first = _whole(dataset, raw, grid, "main", 0, 1)
        dataset.create_branch("exp", first)
        _whole(dataset, raw, grid, "exp", first, 2)
        branch = dataset.branch("main")
        branch.put("files/notes.txt", b"another line of work\n")
        branch.commit("notes")
    return path


def _whole(dataset: Dataset, raw: bytes, grid: tuple[int, int, int], branch: str, parent: int, value: int) -> int:
    """A version of every chunk; its number."""
    with VersionWriter(dataset, branch, parent) as writer:
        if not parent:
            writer.put("zarr/zarr.json", group_zarr_json())
        array = writer.array("s0", raw, created=not parent)
        payload = bytes([value]) * data.SMALL**3
        for coords in np.ndindex(*grid):
            array.put(coords, payload)
        return writer.publish(f"all {value}").number


def _git_history(path: Path, count: int) -> Callable[..., object]:
    """A repository with the branches ``one``, checked out, and ``other``, which has changed all of its files."""
    path.mkdir()
    names = {f"{who}_{what}": "x" for who in ("GIT_AUTHOR", "GIT_COMMITTER") for what in ("NAME", "EMAIL")}

    def git(*arguments: str, text: bytes | None = None) -> object:
        settings = ("-c", "gc.auto=0", "-c", "advice.detachedHead=false")
        return subprocess.run(
            ["git", *settings, *arguments], cwd=path, env={**os.environ, **names}, input=text, check=True,
            capture_output=True,
        )  # fmt: skip

    def commit(branch: str, files: Iterable[tuple[str, bytes]], after: str | None) -> Iterator[bytes]:
        yield f"commit refs/heads/{branch}\ncommitter x <x> 1700000000 +0000\ndata 0\n".encode()
        if after is not None:
            yield f"from refs/heads/{after}\n".encode()
        for name, content in files:
            yield f"M 644 inline {name}\ndata {len(content)}\n".encode() + content + b"\n"

    def all_files(value: int) -> Iterator[tuple[str, bytes]]:
        for number in range(count):
            yield f"d{number // 1000}/{number}", number.to_bytes(8, "big") * 7 + bytes([value]) * 8

    git("init", "-q", "-b", "one")
    stream = b"".join(
        [
            *commit("one", all_files(1), None),
            *commit("other", all_files(2), "one"),
            *commit("one", [("notes", b"x")], None),
        ]
    )
    git("fast-import", "--quiet", text=stream)
    git("reset", "-q", "--hard", "one")
    return git


def _bytes_of(root: Path) -> int:
    return sum(path.stat().st_size for path in files_below(root))


# -- P19: a head that moved ------------------------------------------------------------------------------------------


@measure("P19", "commit onto a head that moved")
def moved_head(bench: Bench) -> Iterable[Ratio]:
    """A hundred chunks are written; meanwhile another process commits other ones, or none. Icechunk's sessions do the
    same: one is rebased onto the other's commit."""
    path = bench.root / "moved"
    shutil.copytree(data.many_chunks_store(bench), path)
    grid = bench.scale.grid
    count = min(100, grid[1] * grid[2])
    half = grid[0] // 2
    pick = np.random.default_rng(5)

    with open_store(path) as store, open_store(path, catalog=bench.root / "moved.sqlite") as elsewhere:
        branch, other = store["many"].branch("main"), elsewhere["many"].branch("main")

        def ours(*, moves: bool) -> list[float]:
            for number in range(count):
                key = f"zarr/s0/c/{pick.integers(half)}/{number // grid[2]}/{number % grid[2]}"
                branch.put(key, pick.bytes(data.SMALL**3))
            if moves:
                with VersionWriter(other.dataset, "main", _head(other.dataset)) as writer:
                    coords = (int(pick.integers(half, grid[0])), 0, 0)
                    array = writer.array("s0", data.many_json(grid), created=False, chunks=np.array([coords]))
                    array.put(coords, pick.bytes(data.SMALL**3))
                    writer.publish("meanwhile")
            return [timed(lambda: branch.commit("a hundred chunks"))]

        ours(moves=True)
        ours(moves=False)
        (times,) = bench.in_turn(lambda: ours(moves=True), lambda: ours(moves=False), _runs(bench))
        yield longer(
            "P19", f"commit of {count} chunks onto a head that moved ÷ onto one that stood (time)", times, at_most(1.5)
        )
        if find_spec("icechunk"):
            theirs = _icechunk_sessions(bench, count)
            (times,) = bench.in_turn(lambda: ours(moves=True), lambda: [theirs()], _runs(bench))
            yield longer(
                "P19", f"commit of {count} chunks onto a head that moved ÷ icechunk's rebase and commit (time)", times
            )


def _head(dataset: Dataset) -> int:
    dataset.store.refresh()
    return dataset.branches()["main"]


def _icechunk_sessions(bench: Bench, count: int) -> Callable[[], float]:
    """Seconds of a commit of so many chunks in a session whose branch has moved, rebased."""
    import icechunk
    import zarr

    edge = data.SMALL
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(bench.root / "icechunk-moved")))
    session = repository.writable_session("main")
    options = {"shape": (2 * edge, count * edge, edge), "chunks": (edge,) * 3, "dtype": "u1", "compressors": None}
    zarr.create_array(session.store, name="s0", fill_value=0, **options)  # type: ignore[arg-type]
    session.commit("an array")
    pick = np.random.default_rng(7)

    def voxels(*shape: int) -> np.ndarray:
        return pick.integers(1, 255, shape, dtype=np.uint8)

    def once() -> float:
        mine, other = repository.writable_session("main"), repository.writable_session("main")
        zarr.open_array(mine.store, path="s0", mode="r+")[:edge] = voxels(edge, count * edge, edge)
        zarr.open_array(other.store, path="s0", mode="r+")[edge:, :edge] = voxels(edge, edge, edge)
        other.commit("meanwhile")

        def commit() -> None:
            mine.rebase(icechunk.ConflictDetector())
            mine.commit("a hundred chunks")

        return timed(commit)

    return once


# -- P20, P21: other stores ------------------------------------------------------------------------------------------


@measure("P20", "clone and pull")
def clones(bench: Bench) -> Iterable[Ratio]:
    """A clone proves every SHA-256, and has what it wrote on the disk; so has the copy, in the end."""
    source = data.em_store(bench)
    number = 0

    def ours() -> list[float]:
        nonlocal number
        number += 1
        path = bench.root / f"clone{number}"
        seconds = timed(lambda: volfs.clone(str(source), path))
        shutil.rmtree(path)
        return [seconds]

    def theirs() -> list[float]:
        path = bench.root / "copy"
        seconds = timed(lambda: (subprocess.run(["cp", "-a", str(source), str(path)], check=True), os.sync()))
        shutil.rmtree(path)
        return [seconds]

    (times,) = bench.in_turn(ours, theirs)
    yield longer("P20", "clone ÷ cp -a of the store and sync (time)", times, at_most(1.6))
    many = _many(bench)
    with _pulling(bench, many) as long, _pulling(bench, _FEW) as short:
        long()
        short()
        (times,) = bench.in_turn(lambda: [long()], lambda: [short()], _runs(bench))
    what = f"pull of one changed chunk, {many:,} versions in common ÷ {_FEW} (time)"
    yield longer("P20", what, times, at_most(1.5))


@contextmanager
def _pulling(bench: Bench, versions: int) -> Iterator[Callable[[], float]]:
    """What commits a chunk in a store of so many versions, and tells how long its clone takes to pull it."""
    source, path = bench.root / f"pulled-{versions}", bench.root / f"pulling-{versions}"
    shutil.copytree(_branching_store(bench, versions), source)
    with data.unsynced():
        volfs.clone(str(source), path)
    pick = np.random.default_rng(9)
    with open_store(source) as there, open_store(path) as here:
        branch = there["many"].branch("main")

        def pull() -> float:
            z, y, x = (int(n) for n in pick.integers(0, bench.scale.grid))
            branch.put(f"zarr/s0/c/{z}/{y}/{x}", pick.bytes(data.SMALL**3))
            branch.commit("one chunk")
            return timed(lambda: here["many"].pull())

        yield pull


@measure("P21", "bytes that move")
def moved_bytes(bench: Bench) -> Iterable[Ratio]:
    """Of a partial clone: all that the two ends say to each other. Of a commit: all files of the dataset, the catalog
    aside, by how much they have grown."""
    source = data.em_store(bench)
    z, y, x = (max(size // 2 // 64 * 64, 64) for size in bench.scale.em)
    box = f"z0-{z}_y0-{y}_x0-{x}"
    path = bench.root / "partial"
    done = volfs.clone(str(source), path, box=box)["em"]
    with open_store(source, read_only=True) as store:
        array = store["em"].version(1).array("s0")
        assert array is not None
        cells = np.ndindex(z // 64, y // 64, x // 64)
        payloads = sum(found.payload.length for cell in cells if (found := array.payload(cell)) is not None)
    yield Ratio("P21", "partial clone of a box, bytes moved ÷ payloads of the box", done.bytes / payloads, at_most(1.1))
    path = bench.root / "written-bytes"
    shutil.copytree(source, path)
    with open_store(path) as store:
        image, branch = image_at(store["em"].branch("main"), ""), store["em"].branch("main")
        assert image is not None
        before = _bytes_of(path / "datasets")
        voxels = data.em(data.CHUNK)[::-1].copy()
        image.levels[0].write(Box((0, 0, 0), data.CHUNK), voxels)
        number = branch.commit("one chunk").number
        array = store["em"].version(number).array("s0")
        found = None if array is None else array.payload((0, 0, 0))
        assert found is not None
        grown = _bytes_of(path / "datasets") - before
    yield Ratio(
        "P21",
        "commit of one chunk, bytes of files ÷ (payload + 8 KiB)",
        grown / (found.payload.length + 8192),
        at_most(1.0),
    )
