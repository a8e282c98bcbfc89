"""Two stores of one dataset and the reference model side by side: any sequence of writes, commands of version control,
exchanges between the two, dropping, reopening, and catalogs made anew.

All versions of both are what the model says, element by element (:mod:`tests.kits.flat_history`), zarr-python reads the
same voxels, and coarser levels are what a fresh pyramid of s0 is.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, note, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import volfs
from tests.kits.flat_history import Element, FlatHistory, State, differing, merge
from tests.kits.memory_snapshots import put_pyramid
from tests.kits.remotes import in_this_process
from tests.kits.stores import array_json
from volfs.errors import (
    Absent,
    AlreadyThere,
    BadInput,
    Busy,
    Conflict,
    NotAllowed,
    NotFound,
    NothingToCommit,
)
from volfs.model.box import Box
from volfs.versions.branch import Branch
from volfs.versions.check.fsck import fsck
from volfs.versions.commit_request import CommitRequest
from volfs.versions.dataset import Dataset
from volfs.versions.remotes import connection, exchange
from volfs.versions.snapshot import ArrayNode, Snapshot
from volfs.versions.store import Store
from volfs.volume.downsample import downsample
from volfs.volume.image import image_at

SHAPE, CHUNKS = (8, 8), (4, 4)
SMALL = (4, 4)
ARRAYS = ("s0", "a", "b")
"""The first level of an image that volfs keeps; two names for a plain array, which is at one of them or at none."""
FILES = ("files/x", "files/d/y")
BRANCHES = ("main", "exp", "fix")
NAMES = ("A", "B")


@pytest.fixture(autouse=True)
def _served_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "connected", in_this_process)
    monkeypatch.setattr(exchange, "connected", in_this_process)


# -- what a store shows, as the model has it -------------------------------------------------------------------------


def elements_of(snapshot: Snapshot) -> dict[Element, Any]:
    """A snapshot as the model has it."""
    found: dict[Element, Any] = {("file", key): snapshot.read(key) for key in FILES if snapshot.stat(key) is not None}
    for path in ARRAYS:
        node = snapshot.node(path)
        if not isinstance(node, ArrayNode):
            continue
        found["node", path] = True
        document = json.loads(snapshot.read(f"zarr/{path}/zarr.json"))
        found |= {("attribute", path, key): value for key, value in document.get("attributes", {}).items()}
        grid = node.meta.grid
        for coords, payload in node.payloads(Box.whole(grid.grid_shape)).items():
            box = grid.chunk_box(coords)
            block = np.frombuffer(payload.read(), "u1").reshape(CHUNKS)
            for at in np.ndindex(*box.shape):
                found["voxel", path, *(int(s + i) for s, i in zip(box.start, at, strict=True))] = int(block[at])
    return found


def voxels_in(state: State, path: str) -> np.ndarray:
    """All voxels of an array: what is not stored is zero."""
    out = np.zeros(SHAPE if path == "s0" else SMALL, "u1")
    for kind, where, *at in state:
        if kind == "voxel" and where == path:
            out[tuple(at)] = state[kind, where, *at]
    return out


def check_other_readers(snapshot: Snapshot, state: State) -> None:
    """zarr-python reads the voxels, and the coarser level is that of a fresh pyramid."""
    store = snapshot.zarr_store()
    for path in ARRAYS:
        if ("node", path) in state:
            array = zarr.open_array(store=store, path=path, mode="r")
            np.testing.assert_array_equal(array[:], voxels_in(state, path))
    coarse = zarr.open_array(store=store, path="s1", mode="r")
    np.testing.assert_array_equal(coarse[:], downsample(voxels_in(state, "s0"), (2, 2), "mean"))


def chunk_of(element: Element) -> tuple[Any, ...]:
    """What of an element is written as one: its chunk, or its key."""
    kind, path, *at = element
    if kind == "voxel":
        return ("voxel", path, *(i // n for i, n in zip(at, CHUNKS, strict=True)))
    return (kind, path) if kind == "file" else ("node", path)


# -- one of the two stores -------------------------------------------------------------------------------------------


@dataclass
class Working:
    """A branch as the model has it: the version it stands on, and what it shows."""

    head: str
    state: dict[Element, Any]


@dataclass
class Side:
    """A store, and what the model says of it."""

    name: str
    path: Path
    store: Store
    branches: dict[str, Working] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    remotes: dict[str, str] = field(default_factory=dict)

    @property
    def dataset(self) -> Dataset:
        return self.store["cells"]

    @property
    def numbers(self) -> dict[str, int]:
        """Version numbers by content id."""
        return {info.content_id: info.number for info in self.dataset.versions()}

    def ident(self, number: int) -> str:
        return self.dataset.info(number).content_id

    @property
    def shaken(self) -> set[str]:
        """Versions that were dropped: of their payloads some may be absent."""
        return {self.ident(number) for number in self.dataset.dropped()}

    def branch(self, name: str) -> Branch:
        return self.dataset.branch(name)

    def reopen(self) -> None:
        self.store.close()
        self.store = volfs.open_store(self.path)

    def pick(self, n: int) -> str:
        """A branch that is there."""
        return sorted(self.branches)[n % len(self.branches)]

    def version(self, n: int) -> str:
        """A version that was not dropped and is not half merged, by its content id; newer ones more often."""
        kept = [number for number in self.dataset.kept() if not self.dataset.conflicts(number)]
        return self.ident(kept[-1 - (n * n // 7) % len(kept)])


KINDS = ("work", "work", "edit", "record", "combine", "combine", "refs", "exchange", "retain", "open")
KEYS = ("files", "files/x", "zarr/s0", "zarr/a", "zarr/b", "zarr")


class TwoStores(RuleBasedStateMachine):
    place: Path
    """Where the stores are made."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir=self.place))
        self.history = FlatHistory()
        self.sides: dict[str, Side] = {}
        self.count = 0

    def teardown(self) -> None:
        try:
            for side in self.sides.values():
                self.check_all(side)
        finally:
            for side in self.sides.values():
                side.store.close()
            shutil.rmtree(self.root)

    @initialize()
    def begin(self) -> None:
        keys: dict[str, Any] = {}
        voxels = np.arange(64, dtype="u1").reshape(SHAPE)
        put_pyramid(keys, "", voxels, CHUNKS, levels=2, factors=[(2, 2)], codecs=[{"name": "bytes"}])
        store = volfs.init_store(self.root / "A")
        branch = store.create_dataset("cells").branch("main")
        with branch.writing():
            for key, stored in keys.items():
                branch.put(key, stored.data)
            small = np.arange(100, 116, dtype="u1").reshape(SMALL)
            branch.put("zarr/a/zarr.json", array_json(small, CHUNKS, codecs=[{"name": "bytes"}]))
            branch.put("zarr/a/c/0/0", small.tobytes())
            branch.put("files/x", b"\0first")
        branch.commit("begun")
        one = self.sides["A"] = Side("A", self.root / "A", store)
        self.history.add(one.ident(1), (), elements_of(one.dataset.version(1)))
        self._move(one, "main", one.ident(1))
        self.clone("A", "B")

    def clone(self, source: str, into: str) -> None:
        there = self.sides[source]
        volfs.clone(str(there.path / "cells"), self.root / into)
        side = self.sides[into] = Side(into, self.root / into, volfs.open_store(self.root / into))
        side.dataset.set_remote("origin", None)
        side.dataset.set_remote(source.lower(), str(there.path))
        there.dataset.set_remote(into.lower(), str(side.path))
        side.remotes = {f"origin/{name}": branch.head for name, branch in there.branches.items()}
        side.tags = dict(there.tags)
        self._move(side, "main", there.branches["main"].head)

    # -- helpers --------------------------------------------------------------------------------------------------

    def _move(self, side: Side, branch: str, head: str) -> None:
        side.branches[branch] = Working(head, dict(self.history.versions[head].state))

    def _next(self) -> int:
        self.count += 1
        return self.count

    def remote_refs(self, side: Side) -> dict[str, str]:
        return {name: side.ident(number) for name, number in side.dataset.refs().remotes.items()}

    def same(self, side: Side, branch: str) -> bool:
        """Whether a branch shows what its head is."""
        working = side.branches[branch]
        return working.state == self.history.versions[working.head].state

    def clean(self, side: Side, branch: str) -> bool:
        """Whether nothing lies over the head, not even what is the same."""
        return self.same(side, branch) and side.branch(branch).is_clean()

    def open_for(self, side: Side, *idents: str) -> bool:
        """Whether payloads of some versions, or of what they are compared with, may be absent."""
        return any(ident in side.shaken for ident in idents)

    def learn(self, side: Side, number: int, parents: Sequence[str], expected: State) -> str:
        """A version that was made: it has the parents and the content that the model says."""
        info = side.dataset.info(number)
        assert tuple(side.ident(parent) for parent in info.parents) == tuple(parents)
        found = elements_of(side.dataset.version(number))
        assert not (wrong := differing(expected, found)), (number, [(e, expected.get(e), found.get(e)) for e in wrong])
        check_other_readers(side.dataset.version(number), found)
        if info.content_id not in self.history.versions:
            self.history.add(info.content_id, parents, found)
        assert self.history.versions[info.content_id].state == found
        return info.content_id

    # -- what is done ---------------------------------------------------------------------------------------------

    @rule(
        kind=st.sampled_from(
            ["work", "work", "edit", "record", "combine", "combine", "refs", "exchange", "retain", "open"]
        ),
        seed=st.integers(0, 2**32 - 1),
    )
    def step(self, kind: str, seed: int) -> None:
        """One thing of a kind; all else about it is drawn by the seed."""
        dice = random.Random(seed)
        name, on, which = dice.choice(NAMES), dice.randrange(41), dice.randrange(41)
        winner = dice.choice(["", "--ours", "--theirs"])
        getattr(self, f"_{kind}")(dice, name, on, which, winner)

    def _work(self, dice: random.Random, name: str, on: int, which: int, winner: str) -> None:
        for _ in range(dice.choice([1, 1, 2, 3])):
            self._edit(dice, name, on, which, winner)
        self.commit(name, on)

    def _edit(self, dice: random.Random, name: str, on: int, which: int, winner: str) -> None:
        path, flag = dice.choice(ARRAYS), dice.random() < 0.2
        match dice.choices(["write", "file", "attribute", "remove"], [10, 3, 2, 1])[0]:
            case "write":
                self.write(name, on, path, which, flag)
            case "file":
                self.put_file(name, on, dice.choice(FILES), flag)
            case "attribute":
                self.set_attribute(name, on, path, dice.choice("uv"), dice.randrange(3))
            case "remove":
                self.remove_array(name, on, dice.choice("ab"))

    def _record(self, dice: random.Random, name: str, on: int, which: int, winner: str) -> None:
        match dice.choice(["commit", "keys", "amend", "discard"]):
            case "commit":
                self.commit(name, on)
            case "keys":
                self.commit_keys(name, on, dice.choice(KEYS))
            case "amend":
                self.amend(name, on)
            case "discard":
                self.discard(name, on)

    def _combine(self, dice: random.Random, name: str, on: int, which: int, winner: str) -> None:
        match dice.choices(["merge", "pick", "rebase", "restore", "mv", "aside"], [6, 5, 3, 2, 1, 2])[0]:
            case "merge":
                self.merge_versions(name, on, which, winner, dice.choice(["", "", "--no-ff", "--squash"]))
            case "pick":
                self.pick_version(name, on, which, winner, dice.random() < 0.5, dice.choice([1, 2]))
            case "rebase":
                self.rebase(name, on, which, winner)
            case "restore":
                keys = dice.sample(KEYS, dice.choice([1, 1, 2]))
                self.restore(name, on, which, keys, dice.randrange(20), dice.random() < 0.4)
            case "mv":
                pairs = [("zarr/a", "zarr/b"), ("zarr/b", "zarr/a"), FILES, FILES[::-1]]
                self.move_key(name, on, dice.choice(pairs))
            case "aside":
                self.merge_aside(name, on, which, dice.choice(["ours", "theirs"]))

    def _refs(self, dice: random.Random, name: str, on: int, which: int, winner: str) -> None:
        new = dice.choice(BRANCHES[1:])
        match dice.choices(["make", "delete", "rename", "move", "tag"], [6, 1, 1, 2, 2])[0]:
            case "make":
                self.create_branch(name, new, which)
            case "delete":
                self.delete_branch(name, on, dice.random() < 0.5)
            case "rename":
                self.rename_branch(name, on, new)
            case "move":
                self.move_branch(name, on, which)
            case "tag":
                self.tag(name, dice.choice(["t0", "t1"]), which, dice.random() < 0.4)

    def _exchange(self, dice: random.Random, name: str, on: int, which: int, winner: str) -> None:
        match dice.choice(["fetch", "pull", "push", "push"]):
            case "fetch":
                self.fetch(name)
            case "pull":
                self.pull(name, on)
            case "push":
                self.push(name, on, dice.random() < 0.3)

    def _retain(self, dice: random.Random, name: str, on: int, which: int, winner: str) -> None:
        if dice.random() < 0.6:
            self.drop(name, which)
        else:
            self.collect(name)

    def _open(self, dice: random.Random, name: str, on: int, which: int, winner: str) -> None:
        match dice.choices(["reopen", "rebuild", "clone"], [3, 3, 1])[0]:
            case "reopen":
                self.reopen(name)
            case "rebuild":
                self.rebuild_the_catalog(name)
            case "clone":
                self.clone_anew(name)

    # -- changes --------------------------------------------------------------------------------------------------

    def write(self, name: str, on: int, path: str, seed: int, empty: bool) -> None:
        """Voxels of a box. A chunk that has become all zeros is not stored, as Zarr clients have it."""
        side = self.sides[name]
        branch = side.pick(on)
        working = side.branches[branch]
        if ("node", path) not in working.state or self.open_for(side, working.head):
            return
        chance = np.random.default_rng(seed)
        shape = SHAPE if path == "s0" else SMALL
        start = [int(chance.integers(0, n)) for n in shape]
        stop = [int(chance.integers(a + 1, min(a + 4, n) + 1)) for a, n in zip(start, shape, strict=True)]
        if empty:
            start = [a // 4 * 4 for a in start]
            stop = [a + 4 for a in start]
        block = chance.integers(1, 5, [b - a for a, b in zip(start, stop, strict=True)]).astype("u1")
        if empty:
            block[:] = 0
        image = image_at(side.branch(branch), "" if path == "s0" else path)
        assert image is not None
        image.levels[0].write(Box(tuple(start), tuple(stop)), block)
        volume = voxels_in(working.state, path)
        volume[tuple(map(slice, start, stop))] = block
        for y in range(start[0] // 4, -(-stop[0] // 4)):
            for x in range(start[1] // 4, -(-stop[1] // 4)):
                part = volume[4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
                for i, j in np.ndindex(4, 4):
                    element = ("voxel", path, 4 * y + i, 4 * x + j)
                    working.state.pop(element, None)
                    if part.any():
                        working.state[element] = int(part[i, j])

    def put_file(self, name: str, on: int, key: str, remove: bool) -> None:
        side = self.sides[name]
        branch = side.pick(on)
        state = side.branches[branch].state
        if remove:
            if ("file", key) in state:
                side.branch(branch).delete(key)
                del state["file", key]
            return
        data = b"\0%d" % (self._next() % 5)
        side.branch(branch).put(key, data)
        state["file", key] = data

    def set_attribute(self, name: str, on: int, path: str, attribute: str, value: int) -> None:
        side = self.sides[name]
        branch = side.pick(on)
        state = side.branches[branch].state
        if ("node", path) not in state or self.open_for(side, side.branches[branch].head):
            return
        document = json.loads(side.branch(branch).read(f"zarr/{path}/zarr.json"))
        document.setdefault("attributes", {})[attribute] = value
        side.branch(branch).put(f"zarr/{path}/zarr.json", json.dumps(document).encode())
        state["attribute", path, attribute] = value

    def remove_array(self, name: str, on: int, path: str) -> None:
        side = self.sides[name]
        branch = side.pick(on)
        state = side.branches[branch].state
        if ("node", path) in state:
            side.branch(branch).delete_tree(f"zarr/{path}")
            for element in [each for each in state if each[1] == path]:
                del state[element]

    def discard(self, name: str, on: int) -> None:
        side = self.sides[name]
        branch = side.pick(on)
        side.branch(branch).discard()
        self._move(side, branch, side.branches[branch].head)

    # -- commits --------------------------------------------------------------------------------------------------

    def commit(self, name: str, on: int) -> None:
        side = self.sides[name]
        branch = side.pick(on)
        working = side.branches[branch]
        try:
            info = side.branch(branch).commit(f"change {self._next()}")
        except NothingToCommit:
            assert self.same(side, branch)
            return
        ident = self.learn(side, info.number, [working.head], working.state)
        self._move(side, branch, ident)

    def commit_keys(self, name: str, on: int, key: str) -> None:
        """What is at and below a key; the rest stays uncommitted."""
        side = self.sides[name]
        branch = side.pick(on)
        working = side.branches[branch]
        try:
            request = CommitRequest(f"change {self._next()} of {key}", keys=(key,))
            info = side.branch(branch).actions.commit_as_asked(request)
        except (BadInput, NothingToCommit):
            return
        before = dict(self.history.versions[working.head].state)
        for element in differing(before, working.state, lambda each: below(key, each)):
            before.pop(element, None)
            if element in working.state:
                before[element] = working.state[element]
        ident = self.learn(side, info.number, [working.head], before)
        side.branches[branch].head = ident

    def amend(self, name: str, on: int) -> None:
        side = self.sides[name]
        branch = side.pick(on)
        working = side.branches[branch]
        head = working.head
        named = [each.head for each_name, each in side.branches.items() if each_name != branch]
        named += [*side.tags.values(), *side.remotes.values()]
        held = any(self.history.is_ancestor(head, other) for other in named)
        parents = self.history.versions[head].parents
        try:
            info = side.branch(branch).amend(f"amended {self._next()}")
        except NotAllowed:
            assert held
            return
        except Absent:
            assert self.open_for(side, head, *parents)
            return
        assert not held
        ident = self.learn(side, info.number, parents, working.state)
        self._move(side, branch, ident)

    # -- combining ------------------------------------------------------------------------------------------------

    def merge_versions(self, name: str, on: int, which: int, winner: str, how: str) -> None:
        side = self.sides[name]
        branch, theirs = side.pick(on), side.version(which)
        ours = side.branches[branch].head
        words = f"{how} {winner} -- v{side.numbers[theirs]}" if winner else f"{how} v{side.numbers[theirs]}"
        if self.history.is_ancestor(theirs, ours):
            assert not side.branch(branch).combine("merge", words).made
            return
        forward = self.history.is_ancestor(ours, theirs)
        if forward and not how:
            if self.clean(side, branch):
                assert side.branch(branch).combine("merge", words).made
                self._move(side, branch, theirs)
            return
        bases = self.history.bases([ours], theirs)
        if not bases:  # the first version was amended
            with pytest.raises(BadInput, match="in common"):
                side.branch(branch).combine("merge", words)
            return
        parents = [ours] if how == "--squash" else [ours, theirs]
        self.combined(side, branch, "merge", words, bases, theirs, winner, parents)

    def pick_version(self, name: str, on: int, which: int, winner: str, revert: bool, mainline: int) -> None:
        side = self.sides[name]
        branch = side.pick(on)
        ours = side.branches[branch].head
        ident = side.version(which)
        if revert and not self.history.is_ancestor(ident, ours):
            return
        parents = self.history.versions[ident].parents
        if not parents:
            return
        before = parents[min(mainline, len(parents)) - 1]
        words = f"-m {mainline} " if len(parents) > 1 else ""
        words += f"{winner} -- v{side.numbers[ident]}" if winner else f"v{side.numbers[ident]}"
        base, theirs = (ident, before) if revert else (before, ident)
        self.combined(side, branch, "revert" if revert else "cherry-pick", words, [base], theirs, winner, [ours])

    def combined(
        self,
        side: Side,
        branch: str,
        kind: Any,
        words: str,
        bases: Sequence[str],
        theirs: str,
        winner: str,
        parents: Sequence[str],
    ) -> None:
        """Combine, and compare with the model's merge."""
        working = side.branches[branch]
        ours = working.head
        states = [self.history.versions[each].state for each in (*bases, ours, theirs)]
        base = self.history.base_state(bases)
        judged = merge(base, self.history.versions[ours].state, self.history.versions[theirs].state)
        note(f"{side.name} {kind} {words} on {branch}: {len(judged.conflicts)} conflicts")
        try:
            found = side.branch(branch).combine(kind, words)
        except Absent:
            assert self.open_for(side, ours, theirs, *self.history.ancestors(bases))
            return
        except Conflict:
            assert not self.clean(side, branch)
            return
        loose = LooseNodes(states)
        if found.conflicts:
            assert not found.made and not winner
            assert judged.conflicts or loose.any, found.conflicts
            return
        assert winner or not judged.conflicts, sorted(judged.conflicts)
        expected = judged.decided(self.history.versions[theirs].state, winner.removeprefix("--"))
        head = side.dataset.branches()[branch]
        assert found.version is not None and found.version.number == head
        if not found.made:
            assert side.ident(head) == ours
            wrong = differing(expected, self.history.versions[ours].state, lambda each: each not in loose)
            assert not wrong and len(parents) == 1, wrong
            return
        if winner:
            expected = loose.accept(
                expected,
                elements_of(side.dataset.version(head)),
                self.history.versions[sided(winner, ours, theirs)].state,
            )
        ident = self.learn(side, head, parents, expected)
        self._put_under(side, branch, ident)

    def _put_under(self, side: Side, branch: str, ident: str) -> None:
        """The head has moved: what is uncommitted stays over it."""
        working = side.branches[branch]
        before, after = (self.history.versions[each].state for each in (working.head, ident))
        changed = {chunk_of(each) for each in differing(before, working.state)}
        state = {each: value for each, value in after.items() if chunk_of(each) not in changed}
        state |= {each: value for each, value in working.state.items() if chunk_of(each) in changed}
        side.branches[branch] = Working(ident, state)

    def rebase(self, name: str, on: int, which: int, winner: str) -> None:
        side = self.sides[name]
        branch, onto = side.pick(on), side.version(which)
        head = side.branches[branch].head
        words = f"{winner} -- v{side.numbers[onto]}" if winner else f"v{side.numbers[onto]}"
        if self.history.is_ancestor(onto, head):
            assert not side.branch(branch).combine("rebase", words).made
            return
        if not self.history.bases([head], onto):
            with pytest.raises(BadInput, match="in common"):
                side.branch(branch).combine("rebase", words)
            return
        picked = []
        for ident in self.history.line(head):
            if self.history.is_ancestor(ident, onto):
                break
            picked.append(ident)
        try:
            found = side.branch(branch).combine("rebase", words)
        except Absent:
            assert self.open_for(side, onto, *self.history.ancestors([head]))
            return
        except Conflict:
            assert not self.clean(side, branch)
            return
        loose = LooseNodes([self.history.versions[each].state for each in (*self.history.line(head), onto)])
        made = [] if found.conflicts else self._made_since(side, branch, onto)
        tip, state = onto, self.history.versions[onto].state
        for ident in reversed(picked):
            before = self.history.versions[ident].parents
            base = self.history.versions[before[0]].state if before else {}
            theirs = self.history.versions[ident].state
            judged = merge(base, state, theirs)
            if found.conflicts:
                if judged.conflicts or loose.any:
                    return  # refused, as it is to be
                state = judged.state
                continue
            assert winner or not judged.conflicts
            expected = judged.decided(theirs, winner.removeprefix("--"))
            new = elements_of(side.dataset.version(made[0])) if made else None
            if new is None or (expected == state and new != expected):  # left out: there is nothing to change
                wrong = differing(expected, state, lambda each: each not in loose)
                assert not wrong, wrong
                continue
            if winner:
                expected = loose.accept(expected, new, theirs if winner == "--theirs" else state)
            tip = self.learn(side, made.pop(0), [tip], expected)
            state = self.history.versions[tip].state
        assert not found.conflicts, found.conflicts
        assert not made and side.ident(side.dataset.branches()[branch]) == tip
        self._put_under(side, branch, tip)

    def _made_since(self, side: Side, branch: str, onto: str) -> list[int]:
        found = []
        for number in side.dataset.graph.first_parents(side.dataset.branches()[branch]):
            if side.ident(number) == onto:
                return found[::-1]
            found.append(number)
        raise AssertionError("the branch does not stand on what it was rebased onto")

    def restore(self, name: str, on: int, which: int, keys: list[str], seed: int, boxed: bool) -> None:
        side = self.sides[name]
        branch, source = side.pick(on), side.version(which)
        ours = side.branches[branch].head
        before, after = (self.history.versions[each].state for each in (ours, source))
        words = [*keys, "--from", f"v{side.numbers[source]}"]
        part = None
        if boxed:
            start = seed % 3, seed % 5
            part = Box(start, (start[0] + 3, start[1] + 2))
            keys = ["zarr/s0"]
            words = [*keys, "--box", f"y{start[0]}-{part.stop[0]}_x{start[1]}-{part.stop[1]}", *words[-2:]]
        try:
            found = side.branch(branch).combine("restore", " ".join(words))
        except NotFound:
            assert any(not any(below(key, each) for each in (*before, *after)) for key in keys)
            return
        except Absent:
            assert self.open_for(side, ours, source)
            return
        except Conflict:
            assert not self.clean(side, branch)
            return
        assert not found.conflicts
        expected = dict(before)
        for element in differing(before, after, lambda each: any(below(key, each) for key in keys)):
            if part is None:
                expected.pop(element, None)
                if element in after:
                    expected[element] = after[element]
        if not found.made:
            assert part is not None or not differing(before, expected)
            return
        head = side.dataset.branches()[branch]
        if part is not None:
            volume = voxels_in(before, "s0")
            volume[part.slices()] = voxels_in(after, "s0")[part.slices()]
            shown = elements_of(side.dataset.version(head))
            np.testing.assert_array_equal(voxels_in(shown, "s0"), volume)
            expected = {each: value for each, value in before.items() if each[:2] != ("voxel", "s0")}
            expected |= {each: value for each, value in shown.items() if each[:2] == ("voxel", "s0")}
        self._put_under(side, branch, self.learn(side, head, [ours], expected))

    def move_key(self, name: str, on: int, names: tuple[str, str]) -> None:
        side = self.sides[name]
        branch = side.pick(on)
        working = side.branches[branch]
        before = self.history.versions[working.head].state
        old, new = names
        there = [any(below(key, each) for each in before) for key in names]
        try:
            found = side.branch(branch).combine("mv", f"{old} {new}")
        except (NotFound, AlreadyThere, BadInput):
            assert there != [True, False]
            return
        except Absent:
            assert self.open_for(side, working.head)
            return
        except Conflict:
            assert not self.clean(side, branch)
            return
        if not found.made:
            assert there == [False, True]
            return
        assert there == [True, False]
        expected = {}
        for (kind, at, *rest), value in before.items():
            moved = below(old, (kind, at, *rest))
            expected[kind, (new if kind == "file" else new.removeprefix("zarr/")) if moved else at, *rest] = value
        head = side.dataset.branches()[branch]
        self._put_under(side, branch, self.learn(side, head, [working.head], expected))

    def merge_aside(self, name: str, on: int, which: int, choice: str) -> None:
        """A merge on a branch of its own: what is open is closed there, and then the branch goes forward."""
        side = self.sides[name]
        branch, theirs = side.pick(on), side.version(which)
        ours = side.branches[branch].head
        here, there = (self.history.versions[each].state for each in (ours, theirs))
        bases = self.history.bases([ours], theirs)
        if not bases or self.history.is_ancestor(theirs, ours) or not self.clean(side, branch):
            return
        judged = merge(self.history.base_state(bases), here, there)
        loose = LooseNodes([*(self.history.versions[each].state for each in bases), here, there])
        try:
            found = side.branch(branch).combine("merge", f"--on aside v{side.numbers[theirs]}")
        except Absent:
            assert self.open_for(side, ours, theirs, *self.history.ancestors(bases))
            return
        assert found.made and side.ident(side.dataset.branches()[branch]) == ours
        assert found.left_open if judged.conflicts else (loose.any or not found.left_open)
        number = side.dataset.branches()["aside"]
        shown = elements_of(side.dataset.version(number))
        draft = self.learn(side, number, [ours, theirs], loose.accept(judged.state, shown, here))
        self._move(side, "aside", draft)
        if found.left_open:
            with pytest.raises(NotAllowed):
                side.dataset.create_tag("half", "aside")
            with pytest.raises(BadInput):
                side.branch(branch).combine("merge", "aside")
            left = side.branch("aside").combine("resolve", choice).left_open
            assert not left
            number = side.dataset.branches()["aside"]
            shown = elements_of(side.dataset.version(number))
            chosen = there if choice == "theirs" else here
            expected = loose.accept(judged.decided(there, choice), shown, chosen)
            draft = self.learn(side, number, [ours, theirs], expected)
        assert side.branch(branch).combine("merge", "aside").made
        self._move(side, branch, draft)
        side.dataset.delete_branch("aside")
        del side.branches["aside"]

    # -- refs -----------------------------------------------------------------------------------------------------

    def create_branch(self, name: str, new: str, which: int) -> None:
        side = self.sides[name]
        ident = side.version(which)
        if new in side.branches or new in side.tags:
            with pytest.raises(AlreadyThere):
                side.dataset.create_branch(new, side.numbers[ident])
            return
        side.dataset.create_branch(new, side.numbers[ident])
        self._move(side, new, ident)

    def delete_branch(self, name: str, on: int, force: bool) -> None:
        side = self.sides[name]
        branch = side.pick(on)
        try:
            side.dataset.delete_branch(branch, force)
        except NotAllowed:
            assert branch == side.dataset.default_branch
            return
        except Busy:
            assert not force and not self.clean(side, branch)
            return
        del side.branches[branch]

    def rename_branch(self, name: str, on: int, new: str) -> None:
        side = self.sides[name]
        old = side.pick(on)
        if old == "main" or new in side.branches or new in side.tags:
            return
        side.dataset.rename_branch(old, new)
        side.branches[new] = side.branches.pop(old)

    def move_branch(self, name: str, on: int, which: int) -> None:
        side = self.sides[name]
        branch, ident = side.pick(on), side.version(which)
        try:
            side.dataset.move_branch(branch, side.numbers[ident])
        except Busy:
            assert not self.clean(side, branch)
            return
        self._move(side, branch, ident)

    def tag(self, name: str, tag: str, which: int, remove: bool) -> None:
        side = self.sides[name]
        if remove and tag in side.tags:
            side.dataset.delete_tag(tag)
            del side.tags[tag]
            return
        ident = side.version(which)
        side.dataset.create_tag(tag, side.numbers[ident], force=True)
        side.tags[tag] = ident

    # -- dropping -------------------------------------------------------------------------------------------------

    def held(self, side: Side) -> set[str]:
        """The versions that a ref of a store names."""
        return {each.head for each in side.branches.values()} | {*side.tags.values(), *side.remotes.values()}

    def drop(self, name: str, which: int) -> None:
        side = self.sides[name]
        ident = side.version(which)
        if ident in self.held(side):
            with pytest.raises(Busy):
                side.dataset.drop(side.numbers[ident])
        else:
            assert side.dataset.drop(side.numbers[ident]) == [side.numbers[ident]]

    def collect(self, name: str) -> None:
        side = self.sides[name]
        before = side.shaken
        side.store.gc(grace=0)
        assert side.shaken - before == self.history.versions.keys() & side.numbers.keys() - before - (
            self.history.ancestors(self.held(side))
        )

    # -- exchanges ------------------------------------------------------------------------------------------------

    def other(self, side: Side) -> Side:
        return self.sides["B" if side.name == "A" else "A"]

    def onto_dropped(self, into: Side, *idents: str) -> bool:
        """Whether versions that a store lacks descend from one that it has dropped: what they inherit may have gone."""
        shaken = into.shaken
        missing = self.history.ancestors(idents) - into.numbers.keys()
        return any(parent in shaken for each in missing for parent in self.history.ancestors([each]))

    def fetch(self, name: str) -> None:
        side = self.sides[name]
        there = self.other(side)
        if self.onto_dropped(side, *(each.head for each in there.branches.values()), *there.tags.values()):
            return
        side.dataset.fetch(there.name.lower())
        side.remotes |= {f"{there.name.lower()}/{each}": working.head for each, working in there.branches.items()}
        side.tags = {tag: ident for tag, ident in there.tags.items() if tag not in side.branches} | side.tags

    def pull(self, name: str, on: int) -> None:
        side = self.sides[name]
        there = self.other(side)
        branch = there.pick(on)
        theirs = there.branches[branch].head
        if (branch not in side.branches and branch in side.tags) or self.onto_dropped(side, theirs):
            return
        note(f"{name} pulls {branch}")
        remote = there.name.lower()
        ours = side.branches[branch].head if branch in side.branches else None
        dirty = ours is not None and not self.clean(side, branch)
        try:
            side.dataset.pull(remote, branch)
        except Absent:
            assert self.open_for(side, *self.history.ancestors([theirs, *([ours] if ours else [])]))
            side.remotes[f"{remote}/{branch}"] = theirs
            return
        except (Conflict, BadInput) as error:
            side.remotes[f"{remote}/{branch}"] = theirs
            assert ours is not None
            bases = self.history.bases([ours], theirs)
            states = [self.history.versions[each].state for each in (*bases, ours, theirs)]
            judged = merge(self.history.base_state(bases), *states[-2:])
            assert dirty or judged.conflicts or LooseNodes(states).any or not bases, error
            return
        except Busy:
            side.remotes[f"{remote}/{branch}"] = theirs
            assert theirs in side.shaken
            return
        side.remotes[f"{remote}/{branch}"] = theirs
        if ours is None:
            self._move(side, branch, theirs)
        elif self.history.is_ancestor(theirs, ours):
            pass
        elif self.history.is_ancestor(ours, theirs):
            self._put_under(side, branch, theirs)
        else:
            bases = self.history.bases([ours], theirs)
            states = [self.history.versions[each].state for each in (ours, theirs)]
            judged = merge(self.history.base_state(bases), *states)
            assert not judged.conflicts
            ident = self.learn(side, side.dataset.branches()[branch], [ours, theirs], judged.state)
            self._put_under(side, branch, ident)

    def push(self, name: str, on: int, lease: bool) -> None:
        side = self.sides[name]
        there = self.other(side)
        branch, remote = side.pick(on), there.name.lower()
        ours = side.branches[branch].head
        before = there.branches.get(branch)
        if self.onto_dropped(there, ours):
            return
        note(f"{name} pushes {branch}")
        forward = before is None or self.history.is_ancestor(before.head, ours)
        seen = side.remotes.get(f"{remote}/{branch}")
        try:
            side.dataset.push(remote, [branch], force_with_lease=lease)
        except Conflict:
            allowed = lease and (before is None or seen == before.head)
            dirty = before is not None and not self.clean(there, branch)
            refused = branch in there.tags or ours in there.shaken  # no branch begins at what was dropped
            assert dirty or refused or not (allowed if lease else forward)
            there.store.refresh()
            return
        except Absent:
            assert self.open_for(side, *self.history.ancestors([ours]))
            return
        except AlreadyThere:
            assert branch in there.tags
            return
        there.store.refresh()
        if before is not None and before.head == ours:
            return
        assert forward or lease
        if before is None:
            self._move(there, branch, ours)
        else:
            self._put_under(there, branch, ours)
        side.remotes[f"{remote}/{branch}"] = ours

    def clone_anew(self, name: str) -> None:
        """One of the stores is lost, and cloned from the other."""
        side = self.sides.pop(name)
        side.store.close()
        shutil.rmtree(side.path)
        self.clone(self.other(side).name, name)

    # -- other machines -------------------------------------------------------------------------------------------

    def reopen(self, name: str) -> None:
        self.sides[name].reopen()

    def rebuild_the_catalog(self, name: str) -> None:
        side = self.sides[name]
        side.store.close()
        for path in side.path.glob("catalog.sqlite*"):
            path.unlink()
        side.store = volfs.open_store(side.path)

    # -- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def both_are_what_the_model_says(self) -> None:
        for side in self.sides.values():
            refs = side.dataset.refs()
            heads = {name: side.ident(number) for name, number in refs.heads.items()}
            assert heads == {name: each.head for name, each in side.branches.items()}
            assert {name: side.ident(number) for name, number in refs.tags.items()} == side.tags
            assert self.remote_refs(side) == side.remotes
            for name, working in side.branches.items():
                if not self.open_for(side, working.head):
                    found = elements_of(side.branch(name))
                    wrong = differing(working.state, found)
                    assert not wrong, (side.name, name, [(e, working.state.get(e), found.get(e)) for e in wrong])

    def check_all(self, side: Side) -> None:
        """Every version that was not dropped, by our own reading and zarr-python's."""
        for number in side.dataset.kept():
            ident = side.ident(number)
            version = side.dataset.version(number)
            assert elements_of(version) == self.history.versions[ident].state, (side.name, number)
            check_other_readers(version, self.history.versions[ident].state)
        for ident in side.shaken & self.history.versions.keys():
            try:
                found = elements_of(side.dataset.version(side.numbers[ident]))
            except Absent:
                continue
            assert found == self.history.versions[ident].state
        assert fsck(side.store).findings == []


def sided(winner: str, ours: str, theirs: str) -> str:
    return theirs if winner == "--theirs" else ours


def below(key: str, element: Element) -> bool:
    """Whether an element is at or below a key."""
    at = str(element[1]) if element[0] == "file" else f"zarr/{element[1]}"
    return at == key or at.startswith(f"{key}/")


class LooseNodes:
    """The arrays of which something is not stored at one of several states: chunks and nodes are removed as a whole,
    of which the model knows nothing, so there may be more in conflict than it says."""

    def __init__(self, states: Sequence[State]) -> None:
        every = {each for state in states for each in state if each[0] in ("voxel", "node")}
        self._paths = {each[1] for each in every if any(each not in state for state in states)}
        self.any = bool(self._paths)

    def __contains__(self, element: Element) -> bool:
        return element[0] != "file" and element[1] in self._paths

    def accept(self, expected: State, found: State, chosen: State) -> dict[Element, Any]:
        """What is expected, where more than the model says may have been decided by the side that was chosen."""
        accepted = dict(expected)
        for element in differing(expected, found, lambda each: each in self):
            if found.get(element) == chosen.get(element):
                accepted.pop(element, None)
                if element in found:
                    accepted[element] = found[element]
        return accepted


def test_two_stores_do_what_the_model_does(tmp_path: Path, soak: bool) -> None:
    machine = type("Machine", (TwoStores,), {"place": tmp_path})
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None,
            max_examples=3000 if soak else 5,
            stateful_step_count=50 if soak else 30,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
