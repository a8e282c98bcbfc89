"""git is the judge of merges: random histories, replayed with a voxel as a file through ``git merge-tree``.

The same result and the same conflicts, where nothing is deleted; else perhaps a conflict more, never one less: a chunk
is removed as a whole, and git knows nothing of chunks.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.kits.stores import array_at, array_json, chunk, meta_of, new_store
from volfs.model.metadata import group_zarr_json
from volfs.versions.combine.merges import Combined
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.dataset import Dataset

SHAPE, CHUNKS = (4, 3), (2, 2)
CELLS = [(y, x) for y in range(2) for x in range(2)]
VOXELS = [(y, x) for y in range(SHAPE[0]) for x in range(SHAPE[1])]
RAW = array_json(np.zeros(SHAPE, "u1"), CHUNKS)
GONE = -1
"""A voxel of a chunk that is not stored."""


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return Judge(tmp_path_factory.mktemp("judge"))


class Judge:
    """A bare git repository in which each voxel is a file."""

    def __init__(self, path: Path) -> None:
        self._env = {
            **os.environ,
            **{f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }
        self._path = path
        self._time = 1_700_000_000
        self.git("init", "-q", "--bare", ".")
        self._blobs = {
            (voxel, value): self.git("hash-object", "-w", "--stdin", text=f"voxel {voxel} alone\n{value}\n").strip()
            for voxel in VOXELS
            for value in range(4)
        }
        self._values = {blob: value for (_, value), blob in self._blobs.items()}

    def git(self, *arguments: str, text: str | None = None, allow: tuple[int, ...] = (0,)) -> str:
        settings = ("-c", "merge.renames=false", "-c", "merge.directoryRenames=false")
        ran = subprocess.run(
            ["git", *settings, *arguments], cwd=self._path, env=self._env, capture_output=True, text=True, input=text
        )
        assert ran.returncode in allow, ran.stderr
        return ran.stdout

    def commit(self, voxels: np.ndarray, parents: list[str]) -> str:
        lines = [
            f"100644 blob {self._blobs[at, int(voxels[at])]}\t{at[0]}-{at[1]}\n" for at in VOXELS if voxels[at] != GONE
        ]
        tree = self.git("mktree", text="".join(sorted(lines, key=lambda line: line.partition("\t")[2]))).strip()
        # Each a second later than the one before, as versions are: git takes several bases in the order of their dates.
        self._time += 1
        self._env["GIT_COMMITTER_DATE"] = self._env["GIT_AUTHOR_DATE"] = f"{self._time} +0000"
        return self.git("commit-tree", tree, *(word for p in parents for word in ("-p", p)), "-m", "x").strip()

    def merge(self, ours: str, theirs: str, base: str | None = None) -> tuple[np.ndarray, set[tuple[int, ...]]]:
        """The voxels, and those in conflict."""
        if base is not None:  # another base than history has: a history is made up that has it
            root = self.git("commit-tree", f"{base}^{{tree}}", "-m", "x").strip()
            ours, theirs = (
                self.git("commit-tree", f"{side}^{{tree}}", "-p", root, "-m", name).strip()
                for side, name in ((ours, "ours"), (theirs, "theirs"))
            )
        out = self.git("merge-tree", "--write-tree", "--name-only", "--no-messages", ours, theirs, allow=(0, 1)).split(
            "\n"
        )
        found = np.full(SHAPE, GONE, np.int16)
        for line in self.git("ls-tree", out[0]).splitlines():
            facts, _, name = line.partition("\t")
            found[_at(name)] = self._values.get(facts.split()[2], GONE)
        return found, {_at(name) for name in out[1:] if name}


def _at(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.split("-")))


@dataclass
class History:
    """One random history, in a dataset and in git. ``voxels`` and ``commits`` by version number."""

    dataset: Dataset
    judge: Judge
    rng: random.Random
    removals: bool
    voxels: dict[int, np.ndarray] = field(default_factory=dict)
    commits: dict[int, str] = field(default_factory=dict)
    judged: int = 0
    crossed: int = 0
    conflicts: int = 0

    def begin(self) -> None:
        first = np.zeros(SHAPE, np.int16)
        with VersionWriter(self.dataset, "main", 0) as writer:
            writer.put("zarr/zarr.json", group_zarr_json())
            array = writer.array("s0", RAW, created=True)
            for cell in CELLS:
                array.put(cell, chunk(meta_of(RAW), first.astype("u1"), cell))
            self._made(writer.publish("begun").number, first, [])
        for name in ("b1", "b2"):
            self.dataset.create_branch(name, 1)

    def _made(self, number: int, voxels: np.ndarray, parents: list[int]) -> None:
        self.voxels[number] = voxels
        self.commits[number] = self.judge.commit(voxels, [self.commits[p] for p in parents])
        assert np.array_equal(read(self.dataset, number), voxels)

    def step(self) -> None:
        names = ["main", "b1", "b2"]
        branch, other = self.rng.sample(names, 2)
        heads = self.dataset.branches()
        what = self.rng.random()
        if what < 0.5:
            self.edit(branch)
        elif what < 0.6:
            self.pick(branch, self.rng.choice(sorted(self.voxels)), revert=False)
        elif what < 0.7:
            line = list(self.dataset.graph.first_parents(heads[branch]))
            self.pick(branch, self.rng.choice(line), revert=True)
        else:
            self.merge(branch, heads[other])
            if self.rng.random() < 0.5:
                self.merge(other, heads[branch])  # crosswise

    def edit(self, branch: str) -> None:
        head = self.dataset.branches()[branch]
        voxels = self.voxels[head].copy()
        cell = self.rng.choice(CELLS)
        part = tuple(slice(c * n, (c + 1) * n) for c, n in zip(cell, CHUNKS, strict=True))
        gone = self.removals and self.rng.random() < 0.3 and voxels[part].max() != GONE
        if gone:
            voxels[part] = GONE
        else:
            voxels[part][voxels[part] == GONE] = 0
            for at in self.rng.sample(
                [at for at in VOXELS if all(s.start <= i < s.stop for i, s in zip(at, part, strict=True))], k=1
            ):
                voxels[at] = self.rng.randrange(4)
        with VersionWriter(self.dataset, branch, head) as writer:
            array = writer.array("s0", RAW, created=False)
            if gone:
                array.remove(cell)
            else:
                array.put(cell, chunk(meta_of(RAW), voxels.astype("u1"), cell))
            number = writer.publish("edited").number
        self._made(number, voxels, [head])

    def merge(self, branch: str, theirs: int) -> None:
        graph, ours = self.dataset.graph, self.dataset.branches()[branch]
        if graph.is_ancestor(theirs, ours):
            assert not self.dataset.merge(f"v{theirs}", branch).made
            return
        if graph.is_ancestor(ours, theirs):
            found = self.dataset.merge(f"v{theirs}", branch)
            assert found.made and self.dataset.branches()[branch] == theirs
            return
        self.crossed += len(graph.merge_bases(ours, theirs)) > 1
        judged = self.judge.merge(self.commits[ours], self.commits[theirs])
        self._combined(branch, "merge", f"v{theirs}", judged, [ours, theirs])

    def pick(self, branch: str, number: int, *, revert: bool) -> None:
        parents = self.dataset.info(number).parents
        if len(parents) != 1:
            return
        ours = self.dataset.branches()[branch]
        base, theirs = (number, parents[0]) if revert else (parents[0], number)
        judged = self.judge.merge(self.commits[ours], self.commits[theirs], self.commits[base])
        self._combined(branch, "revert" if revert else "cherry-pick", f"v{number}", judged, [ours, theirs], parents=1)

    def _combined(
        self,
        branch: str,
        kind: str,
        ref: str,
        judged: tuple[np.ndarray, set[tuple[int, ...]]],
        sides: list[int],
        parents: int = 2,
    ) -> None:
        ours, number = self.dataset.branch(branch), max(self.dataset.graph.versions)
        voxels, conflicts = judged
        found: Combined = ours.combine(kind, ref)  # type: ignore[arg-type]
        self.judged += 1
        if found.conflicts:
            assert not found.made and self.dataset.branches()[branch] == sides[0]
            counted = sum(each.voxels for each in found.conflicts)
            where = (kind, ref, branch, sides, found.conflicts, conflicts)
            assert counted == len(conflicts) if not self.removals else counted >= len(conflicts), where
            self.conflicts += bool(conflicts)
            side = self.rng.choice(["ours", "theirs"])
            found = ours.combine(kind, f"{ref} --{side}")  # type: ignore[arg-type]
            assert not found.conflicts
            expected = voxels.copy()
            for at in conflicts:
                expected[at] = self.voxels[sides[side == "theirs"]][at]
            made = read(self.dataset, self.dataset.branches()[branch])
            if self.removals:
                # Where volfs found more in conflict the side that was chosen counts.
                more = made != expected
                assert np.array_equal(made[more], self.voxels[sides[side == "theirs"]][more])
                expected = made
        else:
            assert not conflicts
            expected = voxels
        head = self.dataset.branches()[branch]
        assert np.array_equal(read(self.dataset, head), expected), (kind, ref, branch)
        if found.made:
            assert head > number and len(self.dataset.info(head).parents) == parents
            self._made(head, expected, list(self.dataset.info(head).parents))


def read(dataset: Dataset, number: int) -> np.ndarray:
    """The voxels of a version; GONE where a chunk is not stored."""
    array = array_at(dataset.version(number))
    found = np.full(SHAPE, GONE, np.int16)
    for cell in CELLS:
        payload = array.payload(cell)
        if payload is not None:
            box = array.meta.grid.chunk_box(cell)
            found[box.slices()] = array.codec.decode(payload.read())[tuple(slice(n) for n in box.shape)]
    return found


@pytest.mark.parametrize("removals", [False, True])
def test_git_merges_picks_and_reverts_the_same(tmp_path: Path, judge: Judge, removals: bool, soak: bool) -> None:
    counts = {"judged": 0, "crossed": 0, "conflicts": 0}
    for seed in range(200 if soak else 4):
        path = tmp_path / str(seed)
        with new_store(path) as store:
            history = History(store.create_dataset("cells"), judge, random.Random(seed), removals)
            history.begin()
            for _ in range(25):
                history.step()
            for name in counts:
                counts[name] += getattr(history, name)
        shutil.rmtree(path)
    assert all(counts.values()), counts
