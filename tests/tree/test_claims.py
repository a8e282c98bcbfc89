"""Metadata may claim any shape: what looking around costs follows what is stored, in branches and in versions.

Chunks that are looked at are counted, not seconds: a listing that looks at what is claimed would never come to its end
on any machine.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import volfs
from tests.kits.trees import Client, run, serving
from volfs.model.box import Box
from volfs.model.metadata import array_zarr_json, group_zarr_json
from volfs.versions.branch import Branch
from volfs.versions.committed.array import VersionArray
from volfs.versions.working.branch_array import BranchArray
from volfs.views.folder import LISTED_WHOLE

HUGE = 2**24
RAW: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]

#: Name, shape, chunk shape, names of axes, more of the metadata; of each one chunk is stored, far from the origin.
CLAIMS: dict[str, tuple[tuple[int, ...], tuple[int, ...], str, dict[str, Any]]] = {
    "one": ((2**40,), (4096,), "x", {}),
    "two": ((HUGE, HUGE), (32, 32), "yx", {}),
    "single": ((HUGE, HUGE), (1, 1), "yx", {}),
    "filled": ((HUGE, HUGE), (32, 32), "yx", {"fill_value": 7}),
    "three": ((HUGE, HUGE, HUGE), (8, 8, 8), "zyx", {}),
    "planes": ((HUGE - 1, 64, 64), (1, 32, 32), "zyx", {}),
    "four": ((HUGE, HUGE, HUGE, HUGE), (1, 4, 8, 8), "tzyx", {}),
    "five": ((HUGE, HUGE, 300_000, HUGE, HUGE), (1, 1, 2, 4, 4), "tczyx", {}),
    "six": ((HUGE,) * 6, (1, 1, 1, 2, 4, 4), "abczyx", {}),
    "wide": ((2**62, 2**62), (2**31, 2**31), "yx", {}),
    "gzip": ((HUGE, HUGE), (16, 16), "yx", {"codecs": [*RAW, {"name": "gzip", "configuration": {"level": 1}}]}),
}


def place(name: str) -> tuple[int, ...]:
    """The chunk that is stored: one in the middle of the array."""
    shape, chunks, _, _ = CLAIMS[name]
    return tuple((n // c) // 2 for n, c in zip(shape, chunks, strict=True))


def payload(name: str) -> bytes:
    import gzip

    _, chunks, _, more = CLAIMS[name]
    raw = bytes(range(1, 256)) * (int(np.prod(chunks)) // 255 + 1)
    data = raw[: int(np.prod(chunks))]
    return gzip.compress(data) if "codecs" in more else data


def claim(branch: Branch, name: str) -> None:
    shape, chunks, axes, more = CLAIMS[name]
    raw = array_zarr_json(shape, "u1", chunks, dimension_names=tuple(axes), **{"codecs": RAW, **more})
    branch.put(f"zarr/{name}/zarr.json", raw)
    if np.prod([float(n) for n in chunks]) < 2**30:
        branch.put(f"zarr/{name}/c/" + "/".join(map(str, place(name))), payload(name))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``loose``: all claims in a branch; ``kept``: in a version. ``image``: a pyramid of which s0 claims the same."""
    path = tmp_path_factory.mktemp("claims") / "store"
    with volfs.init_store(path) as opened:
        for dataset in ("loose", "kept"):
            branch = opened.create_dataset(dataset).branch("main")
            with branch.writing():
                branch.put("zarr/zarr.json", group_zarr_json())
                for name in CLAIMS:
                    claim(branch, name)
            if dataset == "kept":
                branch.commit("claims")
    return path


class Looks:
    """What was asked of arrays, in chunks: of answers, and of arrays that were made to hold them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Counter[str] = Counter()
        self.chunks = 0
        for kind in (VersionArray, BranchArray):
            for name in ("payloads", "present", "indices", "newest", "newest_along"):
                self._watch(monkeypatch, kind, name)

    def _watch(self, monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
        before = getattr(kind, name)

        def counted(array: Any, *args: Any) -> Any:
            box = next((arg for arg in args if isinstance(arg, Box)), None)
            if name in ("present", "newest_along") and box is not None:
                room = box.size if name == "present" else box.shape[args[0]]
                assert room <= LISTED_WHOLE, f"{name} is asked about {room} chunks of {array.path}"
            if name == "newest":
                room = int(np.prod([float(array.meta.grid.grid_shape[axis]) for axis in args[0]]))
                assert room <= LISTED_WHOLE, f"times of {room} chunks of {array.path}"
            found = before(array, *args)
            self.calls[name] += 1
            self.chunks += found.size if isinstance(found, np.ndarray) else len(found)
            return found

        monkeypatch.setattr(kind, name, counted)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Looks]:
    return Looks(monkeypatch)


#: Directories in which every number has an entry, whether anything is stored or not: they go on with their cookies.
_ENDLESS = frozenset({"xy", "xz", "yz"})


async def walk(client: Client, path: str) -> list[str]:
    """Every directory to its end, but for slices; below each, a few."""
    seen, waiting = [], [(path, await client.ino(path))]
    while waiting:
        here, ino = waiting.pop()
        cookie, names, folders = 0, 0, []
        while True:
            entries = list(await client.tree.readdir(ino, cookie)) if not _is_slices(here) else await first(client, ino)
            for name, attr, at in entries:
                names += 1
                cookie = at
                if attr.is_dir:
                    folders.append((f"{here}/{os.fsdecode(name)}", attr.ino))
            if not entries or _is_slices(here):
                break
        assert names <= LISTED_WHOLE + 100, here
        waiting += folders[:1] + folders[-1:]
        seen.append(here)
    return seen


def _is_slices(path: str) -> bool:
    return path.rpartition("/")[2] in _ENDLESS and ".dzi" not in path and "formats" not in path


async def first(client: Client, ino: int) -> list[Any]:
    """The first page of a listing, and one from its middle, as a kernel asks for them."""
    found = []
    for cookie in (0, HUGE // 2):
        for entry in await client.tree.readdir(ino, cookie):
            found.append(entry)
            if len(found) % 1000 == 0:
                break
    return found


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize("where", ["loose/branches/main", "kept/versions/v1"])
def test_every_listing_below_an_array_ends(store: Path, looks: Looks, where: str, name: str) -> None:
    async def work() -> None:
        async with serving(store) as client:
            shown = await client.ls(f"{where}/formats")
            formats = [f"{where}/formats/{each}/{name}" for each, attr in shown.items() if attr.is_dir]
            for top in (f"{where}/{name}", f"{where}/zarr/{name}", *formats):
                if await client.exists(top):
                    await walk(client, top)

    run(work, 300)
    assert looks.chunks < 3_000_000, looks.calls
    assert sum(looks.calls.values()) < 60_000, looks.calls


@pytest.mark.parametrize("where", ["loose/branches/main", "kept/versions/v1"])
def test_what_is_stored_is_found_by_listing_alone(store: Path, where: str) -> None:
    dataset = where.partition("/")[0]
    y, x = (str(n) for n in place("two"))

    async def work() -> None:
        async with serving(store) as client:
            v2 = f"{where}/formats/{dataset}.v2.zarr/two"
            assert {name for name in await client.ls(v2) if name[0] != "."} == {y}
            assert list(await client.ls(f"{v2}/{y}")) == [x]
            found = [name for name in await client.ls(f"{where}/two/formats") if name.endswith(".precomputed")]
            scales = await client.ls(f"{where}/two/formats/{found[0]}")
            (scale,) = (name for name, attr in scales.items() if attr.is_dir)
            (chunk,) = await client.ls(f"{where}/two/formats/{found[0]}/{scale}")
            assert await client.read(f"{where}/two/formats/{found[0]}/{scale}/{chunk}") == payload("two")
            n5 = next(name for name in await client.ls(f"{where}/two/formats") if name.endswith(".n5"))
            assert set(await client.ls(f"{where}/two/formats/{n5}/setup0/timepoint0/s0")) == {"attributes.json", x}
            assert set(await client.ls(f"{where}/zarr/two/c")) == {y}
            assert (await client.stat(f"{where}/two/formats/{n5}/setup0/timepoint0/s0/0")).is_dir

    run(work, 300)


def test_a_removed_chunk_of_a_branch_is_listed_no_more(tmp_path: Path) -> None:
    with volfs.init_store(tmp_path / "store") as opened:
        branch = opened.create_dataset("d").branch("main")
        branch.put("zarr/zarr.json", group_zarr_json())
        claim(branch, "two")
        key = "zarr/two/c/" + "/".join(map(str, place("two")))
        branch.put("zarr/two/c/3/4", payload("two"))
        branch.commit("two chunks")
        array = branch.node("two")
        whole = Box((0, 0), (HUGE // 32, HUGE // 32))
        assert isinstance(array, BranchArray)
        assert array.indices(0, whole) == [3, place("two")[0]] and array.indices(1, whole) == [4, place("two")[1]]
        branch.delete(key)
        branch.put("zarr/two/c/5/4", payload("two"))
        assert array.indices(0, whole) == [3, 5] and array.indices(1, whole) == [4]
        branch.delete_tree("zarr/two/c/3")
        assert array.indices(0, whole) == [5]
        assert array.indices(0, Box((0, 0), (5, HUGE))) == [] == array.indices(1, Box((0, 5), (HUGE, HUGE)))
        branch.commit("one chunk")
        version = opened["d"]["v2"].node("two")
        assert isinstance(version, VersionArray) and version.indices(0, whole) == [5]


def test_times_of_millions_of_slices_are_told_where_somebody_looks(tmp_path: Path, looks: Looks) -> None:
    """Of the slices of a version, and of those that a branch changes, only the ones that a change crosses are newer."""
    with volfs.init_store(tmp_path / "store") as opened:
        branch = opened.create_dataset("d").branch("main")
        branch.put("zarr/zarr.json", group_zarr_json())
        claim(branch, "planes")
        first = branch.commit("first").time_ns
        branch.put(f"zarr/planes/c/{HUGE // 4}/0/1", payload("planes"))
        branch.commit("second")
        branch.put(f"zarr/planes/c/{HUGE // 8}/0/1", payload("planes"))

    async def work() -> None:
        async with serving(tmp_path / "store") as client:
            for where, newer in (("versions/v2", {HUGE // 4}), ("branches/main", {HUGE // 4, HUGE // 8})):
                folder = f"d/{where}/planes/xy"
                ino = await client.ino(folder)
                for at in (0, HUGE // 8, HUGE // 4, HUGE // 2):
                    page = list(await client.tree.readdir(ino, 3 + at - 1))
                    assert page
                    times = {int(name[1:].partition(b".")[0]): attr.mtime for name, attr, _ in page}
                    assert {n for n, time in times.items() if time > first} == newer & times.keys()
                    assert (await client.stat(f"{folder}/z{at:08}.png")).mtime == times[at]

    run(work, 300)
    assert looks.calls["newest_along"] <= 16


def test_metadata_that_would_have_every_chunk_read_differently_are_an_error_and_no_endless_work(tmp_path: Path) -> None:
    from tests.kits.memory_snapshots import put_pyramid

    keys: dict[str, Any] = {}
    put_pyramid(keys, "", np.ones((64, 64, 64), "u1"), (8, 16, 16), levels=2)
    with volfs.init_store(tmp_path / "store") as opened:
        branch = opened.create_dataset("d").branch("main")
        for key, stored in keys.items():
            branch.put(key, stored.data)
        branch.commit("image")
        document = json.loads(branch.read("zarr/s0/zarr.json"))
        document["shape"], document["fill_value"] = [HUGE] * 3, 5
        branch.put("zarr/s0/zarr.json", json.dumps(document).encode())
        levels = volfs.images(branch)[""].levels
        with pytest.raises(volfs.VolfsError, match="make it anew"):
            levels[1].derived_keys()
        assert levels[0].read(Box((0, 0, 0), (4, 4, 4))).tolist() == np.ones((4, 4, 4), "u1").tolist()
