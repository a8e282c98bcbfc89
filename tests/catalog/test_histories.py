"""Random histories against dictionaries: every lookup at every version, and again after a rebuild.

The histories fork, merge, remove, re-create and replace; limits are turned down so that a few dozen versions meet
owners, lists of lineages and listings that seek, as ten thousand would.
"""

from __future__ import annotations

import itertools
import random
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kits.example_counts import examples
from volfs.catalog import Catalog, NodeShape
from volfs.model.graph import VersionGraph, VersionInfo
from volfs.model.grid import join, split
from volfs.storage.manifest import Manifest, ManifestBuilder
from volfs.storage.payload import PIECE, Payload

SHAPE = NodeShape((2, 3))
GRID = (4, 5)
COORDS = list(itertools.product(range(GRID[0]), range(GRID[1])))
ARRAYS = ["s0", "g/s1", ""]
KEYS = [
    "files/a",
    "files/d",
    "files/d/x",
    "files/d/y",
    "files/d/e/z",
    "zarr/g/zarr.json",
    "zarr/s0/note",
    "zarr/s0/deep/note",
]

Chunk = tuple[int, int]


def array_key(path: str) -> str:
    return f"zarr/{path}" if path else "zarr"


def json_key(path: str) -> str:
    return f"{array_key(path)}/zarr.json"


@dataclass
class State:
    """What one version holds."""

    objects: dict[str, tuple[Payload, int]] = field(default_factory=dict)
    chunks: dict[str, dict[Chunk, tuple[Payload, int]]] = field(default_factory=dict)
    changed: dict[str, dict[Chunk, int]] = field(default_factory=dict)

    def remove_below(self, key: str) -> None:
        for other in [k for k in self.objects if k == key or k.startswith(key + "/")]:
            del self.objects[other]
        for path in list(self.chunks):
            if (array_key(path) + "/").startswith(key + "/"):
                del self.chunks[path], self.changed[path]

    def remove(self, key: str) -> None:
        self.objects.pop(key, None)
        for path in list(self.chunks):
            if key == json_key(path):
                del self.chunks[path], self.changed[path]

    def put(self, key: str, payload: Payload, version: int) -> None:
        parts = key.split("/")
        for i in range(1, len(parts)):
            self.objects.pop("/".join(parts[:i]), None)
        if key not in self.objects:
            self.remove_below(key)
        self.objects[key] = payload, version

    def directories(self) -> set[str]:
        above = {""}
        for key in self.objects:
            parts = key.split("/")
            above |= {"/".join(parts[:i]) for i in range(1, len(parts))}
        return above


class Histories:
    """Makes versions at random, as manifests and as states."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.states: dict[int, State] = {0: State()}
        self.made: list[tuple[VersionInfo, Manifest, dict[str, NodeShape]]] = []
        self.serial = 0

    def payload(self, version: int) -> Payload:
        self.serial += 1
        name = self.random.choice([f"{version:08d}/shared", f"{version:08d}/own/{self.serial}"])
        if self.random.random() < 0.1:
            return Payload(name, self.serial << 24, 2 * PIECE + 1, self.serial, np.arange(3, dtype="<u4").tobytes())
        return Payload(name, self.serial, 7, self.serial)

    def make(self, number: int) -> None:
        pick = self.random
        known = [info.number for info, _, _ in self.made]
        parents: list[int] = []
        if known and pick.random() > 0.05:
            # Mostly a recent version, so that histories grow long; sometimes any, so that they fork.
            parents = [max(known) if pick.random() < 0.6 else pick.choice(known)]
            if pick.random() < 0.1:
                parents += [other for other in [pick.choice(known)] if other not in parents]
        state = deepcopy(self.states[parents[0] if parents else 0])
        builder = ManifestBuilder()
        sha = bytes(32)
        nodes: dict[str, NodeShape] = {}

        for key in pick.sample([*KEYS, "files", "zarr/s0", "zarr/g", "zarr/g/s1"], k=pick.choice([0, 0, 0, 1, 2])):
            builder.remove_subtree(key)
            state.remove_below(key)
        puts: set[str] = set()
        for path in pick.sample(ARRAYS, k=pick.choice([0, 1, 1, 2])):
            if path not in state.chunks or pick.random() < 0.1:
                puts.add(json_key(path))
                nodes[path] = SHAPE if path not in state.chunks else NodeShape((4, 4))
        for key in pick.sample(KEYS, k=pick.choice([0, 1, 2])):
            if not any(key.startswith(p + "/") or p.startswith(key + "/") for p in puts | {json_key(p) for p in nodes}):
                puts.add(key)
        for key in pick.sample([*KEYS, *map(json_key, ARRAYS)], k=pick.choice([0, 0, 1, 2])):
            if key not in puts:
                builder.remove(key)
                state.remove(key)
        for key in sorted(puts):
            payload = self.payload(number)
            builder.put(key, payload, sha)
            state.put(key, payload, number)
        for path in nodes:
            state.chunks.setdefault(path, {})
            state.changed.setdefault(path, {})
        for path in sorted(state.chunks):
            if pick.random() < 0.2:
                continue
            count = pick.choice([1, 1, 2, 3, len(COORDS)])
            for coords in pick.sample(COORDS, k=count):
                change = pick.random()
                others = [s.chunks[path][coords] for s in self.states.values() if coords in s.chunks.get(path, {})]
                if change < 0.25:
                    builder.remove_chunk(path, coords)
                    state.chunks[path].pop(coords, None)
                elif change < 0.35 and others:
                    payload, owner = pick.choice(others)
                    builder.take_chunk(path, coords, payload, sha, owner)
                    state.chunks[path][coords] = payload, number
                else:
                    payload = self.payload(number)
                    builder.put_chunk(path, coords, payload, sha)
                    state.chunks[path][coords] = payload, number
                state.changed[path][coords] = number
        self.states[number] = state
        info = VersionInfo(number, tuple(parents), 0, 0, number * 10**9, "me", f"v{number}", f"id{number}")
        self.made.append((info, builder.build(), nodes))


def check(catalog: Catalog, dataset: int, graph: VersionGraph, number: int, state: State, deep: bool) -> None:
    at = graph.at(number)
    directories = state.directories()
    for key in {*KEYS, *map(json_key, ARRAYS), *directories, "nothing", "files/d/e/nothing", "files/a/below"}:
        entry = catalog.entry(dataset, at, key)
        if key in state.objects:
            payload, version = state.objects[key]
            assert entry is not None
            assert (entry.kind, entry.payload, entry.version) == ("object", payload, version), key
        elif key in directories:
            assert entry is not None and entry.kind == "dir", key
            listed = catalog.list_entries(dataset, at, entry.dir_id)
            inside = {k[len(key) + 1 if key else 0 :] for k in [*state.objects, *directories] if k.startswith(key)}
            expected = sorted({k.split("/")[0] for k in inside if k} if not key else below(key, state, directories))
            assert [name for name, _ in listed] == expected, key
            for name, found in listed:
                assert catalog.entry(dataset, at, f"{key}/{name}" if key else name) == found
        else:
            assert entry is None, key
    for path, chunks in state.chunks.items():
        entry = catalog.entry(dataset, at, array_key(path))
        assert entry is not None
        check_array(catalog, graph, number, entry.dir_id, chunks, state.changed[path], deep)


def below(key: str, state: State, directories: set[str]) -> set[str]:
    prefix = key + "/"
    return {k[len(prefix) :].split("/")[0] for k in [*state.objects, *directories] if k.startswith(prefix)}


def check_array(
    catalog: Catalog,
    graph: VersionGraph,
    number: int,
    node: int,
    chunks: dict[Chunk, tuple[Payload, int]],
    changed: dict[Chunk, int],
    deep: bool,
) -> None:
    at = graph.at(number)
    shape = catalog.block_shape(node)
    assert shape is not None
    maps = {}
    for coords in COORDS:
        block, cell = split(coords, shape)
        found = catalog.chunk(node, at, block, cell)
        expected = chunks.get(coords)
        assert (None if found is None else (found.payload, found.version)) == expected, coords
        whole = maps.setdefault(block, catalog.block_map(node, at, block))
        assert whole.owner[cell] == (expected[1] if expected else 0)
        assert whole.changed[cell] == changed.get(coords, 0)
        if expected:
            assert whole.payload(cell) == expected[0]
            assert cell in whole.present()
    newest = {}
    for block, versions in catalog.newest_changes(node, at):
        for cell in np.flatnonzero(versions):
            newest[join(block, int(cell), shape)] = int(versions[cell])
    assert newest == changed
    if not deep:
        return
    for since in [*graph.first_parents(number)][1:6]:
        recent: dict[Chunk, int] = {}
        for change in catalog.changes(node, at, graph.at(since)):
            for cell in change.cells.tolist():
                coords = join(change.block, cell, shape)
                assert recent.get(coords, change.version) >= change.version
                recent.setdefault(coords, change.version)
        line = set(graph.first_parents(since))
        assert recent == {coords: version for coords, version in changed.items() if version not in line}


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volfs.catalog.chunk_rows.MAX_STEPS", 5)
    monkeypatch.setattr("volfs.catalog.chunk_changes.MAX_STEPS", 2)
    monkeypatch.setattr("volfs.catalog.chunk_changes._PAGE", 2)
    monkeypatch.setattr("volfs.catalog.lineages.SEEKS", 1)
    monkeypatch.setattr("volfs.catalog.entries._ROWS_PER_NAME", 3)
    monkeypatch.setattr("volfs.catalog.entries._PAGE", 2)


@settings(max_examples=examples(12), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_every_version_of_a_random_history_is_what_a_dict_says_also_after_a_rebuild(
    seed: int, tight: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    histories = Histories(seed)
    path = tmp_path_factory.mktemp("histories")
    with Catalog.open(path / "catalog.sqlite", create=True) as catalog:
        other = catalog.add_dataset("other", 0)
        dataset = catalog.add_dataset("cells", 0)
        for number in range(1, 41):
            histories.make(number)
            made = histories.made[-1]
            catalog.index_version(dataset, *made)
            if number % 5 == 0:
                # The same manifests in a second dataset must not disturb the first.
                parentless = VersionInfo(number, (), 0, 0, 0, "", "", "")
                builder = ManifestBuilder()
                builder.put("files/a", Payload("x", 0, 1, 0), bytes(32))
                catalog.index_version(other, parentless, builder.build(), {})
            check(catalog, dataset, catalog.graph(dataset), number, histories.states[number], deep=False)
        graph = catalog.graph(dataset)
        for number, state in histories.states.items():
            if number:
                check(catalog, dataset, graph, number, state, deep=True)
        assert catalog.check() == []
    with Catalog.open(path / "rebuilt.sqlite", create=True) as catalog:
        dataset = catalog.add_dataset("cells", 0)
        # Any order with parents first gives the same answers, whatever lineages it makes.
        waiting = list(histories.made)
        indexed: set[int] = set()
        while waiting:
            ready = [made for made in waiting if set(made[0].parents) <= indexed]
            made = histories.random.choice(ready[:3])
            waiting.remove(made)
            catalog.index_version(dataset, *made)
            indexed.add(made[0].number)
        graph = catalog.graph(dataset)
        for number, state in histories.states.items():
            if number:
                check(catalog, dataset, graph, number, state, deep=False)


def test_a_long_hot_history_with_forks_answers_like_a_dict_at_every_version(tmp_path: Path) -> None:
    """With the real limits: 300 versions that change one block, from branches that fork again and again."""
    pick = random.Random(7)
    shape = NodeShape((2, 2, 2))
    cells = list(itertools.product(range(2), repeat=3))
    states: dict[int, dict[tuple[int, ...], int]] = {}
    with Catalog.open(tmp_path / "catalog.sqlite", create=True) as catalog:
        dataset = catalog.add_dataset("cells", 0)
        for number in range(1, 301):
            parent = 0 if number == 1 else pick.choice([number - 1] * 6 + [pick.randint(1, number - 1)])
            builder = ManifestBuilder()
            if number == 1:
                builder.put("zarr/zarr.json", Payload("1/zarr.json", 0, 1, 0), bytes(32))
            state = dict(states.get(parent, {}))
            for coords in pick.sample(cells, k=1 if pick.random() < 0.9 else 8):
                builder.put_chunk("", coords, Payload(f"{number}/c", number, 1, number), bytes(32))
                state[coords] = number
            states[number] = state
            info = VersionInfo(number, (parent,) if parent else (), 0, 0, number, "", "", "")
            catalog.index_version(dataset, info, builder.build(), {"": shape} if number == 1 else {})
        graph = catalog.graph(dataset)
        (steps,) = catalog._cx().execute("SELECT max(steps) FROM block").fetchone()
        assert steps <= 16
        for number, state in states.items():
            at = graph.at(number)
            entry = catalog.entry(dataset, at, "zarr")
            assert entry is not None
            whole = catalog.block_map(entry.dir_id, at, (0, 0, 0))
            for cell, coords in enumerate(cells):
                found = catalog.chunk(entry.dir_id, at, (0, 0, 0), cell)
                assert (found.version if found else 0) == state.get(coords, 0) == whole.owner[cell]
                if found:
                    assert (
                        found.payload
                        == whole.payload(cell)
                        == Payload(f"{found.version}/c", found.version, 1, found.version)
                    )
