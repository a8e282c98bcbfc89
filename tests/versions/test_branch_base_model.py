"""Any changes on both sides of a head that moves, against dictionaries: what goes along, what a decision leaves."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.kits.stores import SECOND, START, array_at, chunk, new_store, tree_of, volume, write_version
from volfs.model.metadata import group_zarr_json
from volfs.versions.branch import Branch
from volfs.versions.check.fsck import fsck
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.dataset import Dataset

SHAPE = (16, 16, 16)
FILES = [f"files/{name}" for name in ("a", "b", "d/a", "d/b", "d/e/c", "new", "d/new", "d/e/new")]
FOLDERS = ["files/d", "files/d/e"]
CHUNKS = [(z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1)]
Tree = dict[str, bytes]


def change_here(branch: Branch, dice: random.Random) -> set[str]:
    """Some changes of a working copy; returns the directories removed."""
    removed = set()
    for _ in range(dice.randint(1, 5)):
        kind, key, at = dice.choice(["put", "put", "delete", "tree", "chunk", "gone", "region"]), *pick(dice)
        if kind == "put":
            branch.put(key, b"mine %d" % dice.randint(0, 2))
        elif kind == "delete" and branch.stat(key) is not None:
            branch.delete(key)
        elif kind == "tree":
            folder = dice.choice(FOLDERS)
            branch.delete_tree(folder)
            removed.add(folder)
        elif kind == "chunk":
            branch.put(chunk_key(at), chunk(array_at(branch).meta, volume(SHAPE, dice.randint(5, 6)), at))
        elif kind == "gone" and branch.stat(chunk_key(at)) is not None:
            branch.delete(chunk_key(at))
        elif kind == "region":
            folder = f"zarr/s0/c/{at[0]}"
            branch.delete_tree(folder)
            removed.add(folder)
    return removed


def change_there(dataset: Dataset, dice: random.Random, moves: int) -> None:
    """A version that another has made, behind the back of who holds the branch."""
    parent = dataset.branches()["main"]
    version = dataset.version(parent)
    with VersionWriter(dataset, "main", parent) as writer:
        array = None
        done = set()
        for _ in range(dice.randint(1, 4)):
            kind, key, at = dice.choice(["put", "put", "delete", "tree", "chunk", "gone"]), *pick(dice)
            if kind == "tree":
                key = dice.choice(FOLDERS)
            elif kind in ("chunk", "gone"):
                key = chunk_key(at)
            if any(one == key or one.startswith(f"{key}/") or key.startswith(f"{one}/") for one in done):
                continue
            there = version.stat(key)
            if kind == "put":
                writer.put(key, b"mine 1" if dice.random() < 0.2 else b"theirs %d" % dice.randint(0, 2))
            elif kind == "delete" and there is not None:
                writer.remove(key)
            elif kind == "tree" and there is not None:
                writer.remove_subtree(key)
            elif kind == "chunk" or (kind == "gone" and there is not None):
                array = array or writer.array("s0", version.read("zarr/s0/zarr.json"), created=False)
                if kind == "chunk":
                    array.put(at, chunk(version.array("s0").meta, volume(SHAPE, dice.randint(6, 7)), at))
                else:
                    array.remove(at)
            done.add(key)
        if writer.empty:
            writer.put("files/moved", b"%d" % moves)
        writer.prepare("moved", time_ns=START + (10 + moves) * SECOND)
        writer.place()


def pick(dice: random.Random) -> tuple[str, tuple[int, int, int]]:
    return dice.choice(FILES), dice.choice(CHUNKS)


def chunk_key(at: tuple[int, int, int]) -> str:
    return f"zarr/s0/c/{'/'.join(map(str, at))}"


def covered(key: str, units: set[str] | tuple[str, ...]) -> bool:
    return any(key == unit or key.startswith(f"{unit}/") for unit in units)


@pytest.mark.parametrize("seed", range(12))
def test_any_changes_on_both_sides(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    with new_store(tmp_path / "store") as store:
        for name in ("one", "two", "three"):
            dataset = store.create_dataset(name)
            some = {key: b"base" for key in FILES if "new" not in key}
            files = {**some, "zarr/labels/zarr.json": group_zarr_json()}
            coords = dice.sample(CHUNKS, 6)
            write_version(dataset, volume(SHAPE), files=files, coords=coords, time_ns=START)
            meet(dataset, dice)
        assert fsck(store).findings == []


def meet(dataset: Dataset, dice: random.Random) -> None:
    branch = dataset.branch("main")
    base = tree_of(dataset["v1"])
    removed = change_here(branch, dice)
    mine = tree_of(branch)
    if branch.is_clean():
        return
    for moves in range(dice.randint(1, 2)):
        change_there(dataset, dice, moves)
    head = tree_of(dataset.version(dataset.branches()["main"]))
    assert tree_of(branch) == mine, "reads go over the base"
    keys = {*base, *mine, *head}
    ours = {key for key in keys if mine.get(key) != base.get(key)}
    theirs = {key for key in keys if head.get(key) != base.get(key)}
    behind = branch.behind()
    assert behind is not None
    units = set(behind.keys)
    for key in ours & theirs:
        if mine.get(key) != head.get(key):
            assert covered(key, units), key
    for unit in units:
        assert any(covered(key, {unit}) for key in ours | removed), f"{unit} was not changed here"
    side = dice.choice(["ours", "theirs"])
    # A directory of which a part is dropped alone is no longer removed as a whole, but name by name.
    apart = [
        unit
        for unit in sorted(units)
        if not any(covered(one, {unit}) or covered(unit, {one}) for one in units - {unit})
    ]
    for unit in dice.sample(apart, min(1, len(apart))):
        branch.update(side, [unit])
    if units:
        assert branch.update(side) is None
    else:
        with branch.writing():
            pass
    assert branch.behind() is None
    expected: Tree = {}
    for key in keys:
        from_mine = key in ours or (key in theirs and covered(key, removed) and key not in mine)
        if covered(key, units):
            # What was dropped is the head's; what stays is all that was changed here, and what is new in a directory
            # that was removed here stays away.
            from_mine = from_mine and side == "ours"
        found = (mine if from_mine else head).get(key)
        if found is not None:
            expected[key] = found
    assert tree_of(branch) == expected
    if expected != head:
        branch.commit("decided")
        assert tree_of(dataset["latest"]) == expected
