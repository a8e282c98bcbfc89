"""A store and the reference model side by side: any sequence of writes, commits, refs, discards and reopenings."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import tifffile
from hypothesis import HealthCheck, note, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import volfs
from tests.kits.stores import tree_of, voxels_of
from volfs.errors import Held, NothingToCommit
from volfs.model.box import Box
from volfs.model.metadata import array_zarr_json, group_zarr_json
from volfs.testing.model import ModelDataset
from volfs.versions.branch import Branch
from volfs.versions.snapshot import ArrayNode
from volfs.views import slices
from volfs.volume.image import image_at

RAW = [{"name": "bytes", "configuration": {"endian": "little"}}]


def meta(shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str = "u2", **options: Any) -> bytes:
    codecs = RAW if np.dtype(dtype).itemsize > 1 else [{"name": "bytes"}]
    return array_zarr_json(shape, dtype, chunks, codecs=codecs, **options)


METAS = [
    meta((6, 5), (2, 3)),
    meta((9, 5), (2, 3)),
    meta((3, 4), (2, 3)),
    meta((6, 5), (2, 3), attributes={"note": "the same voxels"}),
    meta((6, 5), (2, 3), fill_value=7),
    meta((6, 5), (2, 3), "i2"),
    meta((6, 5), (3, 3)),
    group_zarr_json({"name": "a group"}),
    b"{ this is not JSON",
]
SLICE_WRITERS = (".npy", ".tif")
ROOTS = st.sampled_from(["zarr/a", "zarr/g/b"])
SIDE = st.sampled_from(["files/notes.txt", "files/sub/x", "files/sub/y", "zarr/extra.bin", "zarr/g/readme"])
COORDS = st.tuples(st.integers(0, 4), st.integers(0, 2))
PREFIXES = st.sampled_from(["zarr/a", "zarr/a/c", "zarr/a/c/1", "zarr/g", "zarr/g/b", "files/sub", "zarr/a/zarr.json"])


def chunk_key(root: str, coords: tuple[int, int]) -> str:
    return f"{root}/c/{coords[0]}/{coords[1]}"


def look_at(node: ArrayNode) -> tuple[Any, ...]:
    """Times of the newest change along each axis; those of single slabs are the same."""
    times = tuple(node.newest((axis,)) for axis in range(2))
    for axis, along in enumerate(times):
        for i, when in enumerate(along):
            start, stop = [0, 0], list(node.meta.grid.grid_shape)
            start[axis], stop[axis] = i, i + 1
            assert node.newest_in(Box(tuple(start), tuple(stop))) == when
    return times


class StoreAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="volfs-stateful-"))
        self.store = volfs.init_store(self.root / "store")
        self.dataset = self.store.create_dataset("cells")
        self.model = ModelDataset()
        self.on = "main"
        self.seen: dict[str, tuple[Any, ...]] = {}

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.root)

    @property
    def branch(self) -> Branch:
        return self.dataset.branch(self.on)

    @property
    def state(self) -> dict[str, bytes]:
        return self.model.branches[self.on].state

    @initialize()
    def begin(self) -> None:
        self.put_key("zarr/zarr.json", group_zarr_json())
        self.put_key("zarr/a/zarr.json", METAS[0])

    def put_key(self, key: str, data: bytes) -> None:
        self.branch.put(key, data)
        self.model.put(self.on, key, data)

    # -- keys ---------------------------------------------------------------------------------------------------

    @rule(key=SIDE, data=st.binary(max_size=5))
    def put_side_file(self, key: str, data: bytes) -> None:
        self.put_key(key, data)

    @rule(root=ROOTS, raw=st.sampled_from(METAS))
    def put_metadata(self, root: str, raw: bytes) -> None:
        self.put_key(f"{root}/zarr.json", raw)

    @rule(root=ROOTS, coords=COORDS, seed=st.integers(0, 9), size=st.sampled_from([12, 12, 12, 12, 18, 5, 0]))
    def put_chunk(self, root: str, coords: tuple[int, int], seed: int, size: int) -> None:
        self.put_key(chunk_key(root, coords), np.random.default_rng(seed).bytes(size))

    @precondition(lambda self: self.state)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.state)))
        self.branch.delete(key)
        self.model.delete(self.on, key)

    @rule(prefix=PREFIXES)
    def delete_tree(self, prefix: str) -> None:
        self.branch.delete_tree(prefix)
        self.model.delete_tree(self.on, prefix)

    @precondition(lambda self: self.state)
    @rule(data=st.data(), to=SIDE)
    def rename(self, data: st.DataObject, to: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.state)))
        if not any(k.startswith(to.rpartition("/")[0] + "/") for k in self.state) or key == to:
            return
        self.branch.working.rename(key, to)
        moved = self.state[key]
        self.model.delete(self.on, key)
        self.model.put(self.on, to, moved)

    # -- arrays -------------------------------------------------------------------------------------------------

    @rule(root=ROOTS, seed=st.integers(0, 99), fill=st.booleans())
    def write_voxels(self, root: str, seed: int, fill: bool) -> None:
        array = self.model.array(self.state, root)
        if array is None or self.model.blocked(self.on):
            return
        chance = np.random.default_rng(seed)
        start = [int(chance.integers(0, n)) for n in array.shape]
        stop = [int(chance.integers(a + 1, n + 1)) for a, n in zip(start, array.shape, strict=True)]
        shape = [b - a for a, b in zip(start, stop, strict=True)]
        voxels = chance.integers(0, 9, shape).astype(array.dtype)
        if fill:
            voxels[:] = array.fill
        image = image_at(self.branch, root.removeprefix("zarr/"))
        assert image is not None
        image.levels[0].write(Box(tuple(start), tuple(stop)), voxels)
        self.model.write(self.on, root, tuple(map(slice, start, stop)), voxels)

    @rule(root=ROOTS, seed=st.integers(0, 99), ending=st.sampled_from(SLICE_WRITERS))
    def write_slice(self, root: str, seed: int, ending: str) -> None:
        """A whole picture by another program's encoder, as a mount takes one that was copied over a slice."""
        array = self.model.array(self.state, root)
        if array is None or self.model.blocked(self.on):
            return
        image = image_at(self.branch, root.removeprefix("zarr/"))
        assert image is not None
        level = image.levels[0]
        geometry = slices.SliceGeometry.of([axis.name for axis in level.axes], level.shape, level.dtype)
        assert geometry is not None
        plane = geometry.spec("xy", 0)
        picture = np.random.default_rng(seed).integers(0, 9, plane.shape).astype(array.dtype)
        file = io.BytesIO()
        if ending == ".npy":
            np.save(file, picture)
        else:
            tifffile.imwrite(file, picture)
        level.write(plane.box, slices.decode(ending, file.getvalue(), plane))
        self.model.write(self.on, root, plane.box.slices(), plane.voxels(picture))

    # -- versions and refs --------------------------------------------------------------------------------------

    @rule()
    def commit(self) -> None:
        blocked = self.model.blocked(self.on)
        note(f"blocked: {blocked}")
        try:
            info = self.branch.commit(f"version of {self.on}")
        except Held as error:
            assert blocked and any(key in str(error) for key in blocked)
            return
        except NothingToCommit:
            assert not blocked and self.state == self.model.versions[self.model.branches[self.on].head]
            return
        assert not blocked
        if info.number in self.model.versions:  # the same message again, and nothing new
            assert self.state == self.model.versions[info.number]
            return
        self.model.commit(self.on, info.number)
        assert self.branch.is_clean()
        assert tree_of(self.dataset.version(info.number)) == self.model.versions[info.number]

    @rule(prefix=st.one_of(st.just(""), PREFIXES))
    def discard(self, prefix: str) -> None:
        self.branch.discard(prefix)
        self.model.discard(self.on, prefix)

    @precondition(lambda self: len(self.model.branches) < 4)
    @rule(data=st.data())
    def create_branch(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.versions)))
        if not number:
            return
        name = f"b{len(self.model.branches)}"
        self.dataset.create_branch(name, f"v{number}")
        self.model.create_branch(name, number)

    @rule(data=st.data())
    def switch(self, data: st.DataObject) -> None:
        self.on = data.draw(st.sampled_from(sorted(self.model.branches)))
        self.seen.clear()

    @rule(data=st.data())
    def tag(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.versions)))
        if number:
            name = f"t{len(self.model.tags)}"
            self.dataset.create_tag(name, f"v{number}")
            self.model.tags[name] = number

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = volfs.open_store(self.root / "store")
        self.dataset = self.store["cells"]

    @rule(data=st.data())
    def look_back(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.versions)))
        if not number:
            return
        version = self.dataset.version(number)
        files = self.model.versions[number]
        assert tree_of(version) == files
        for root in ("zarr/a", "zarr/g/b"):
            if self.model.array(files, root) is not None:
                voxels = self.model.voxels(files, root)
                np.testing.assert_array_equal(voxels_of(version, root[5:]), voxels)
                node = version.node(root[5:])
                assert isinstance(node, ArrayNode)
                self._check_times(node, voxels, version.base.parents, root)

    def _check_times(self, node: ArrayNode, voxels: Any, parents: tuple[int, ...], root: str) -> None:
        times = look_at(node)
        for number in parents:
            before = self.dataset.version(number).node(root[5:])
            if isinstance(before, ArrayNode):
                old = self.model.voxels(self.model.versions[number], root)
                self._compare(node, voxels, times, before.meta, old, look_at(before))

    # -- what always holds --------------------------------------------------------------------------------------

    @invariant()
    def the_branch_shows_what_the_model_shows(self) -> None:
        assert tree_of(self.branch) == self.state

    @invariant()
    def refs_are_the_same(self) -> None:
        assert self.dataset.branches() == {name: b.head for name, b in self.model.branches.items()}
        assert self.dataset.tags() == self.model.tags

    @invariant()
    def arrays_read_the_same_and_their_times_tell_every_change(self) -> None:
        for root in ("zarr/a", "zarr/g/b"):
            node = self.branch.node(root[5:])
            array = self.model.array(self.state, root)
            assert (node is not None and isinstance(node, ArrayNode)) == (array is not None)
            if array is None or self.model.blocked(self.on):
                self.seen.pop(root, None)
                continue
            assert isinstance(node, ArrayNode)
            voxels = self.model.voxels(self.state, root)
            np.testing.assert_array_equal(voxels_of(self.branch, root[5:]), voxels)
            times = look_at(node)
            if root in self.seen:
                self._compare(node, voxels, times, *self.seen[root])
            self.seen[root] = node.meta, voxels, times

    def _compare(self, node: ArrayNode, voxels: Any, times: Any, before: Any, old: Any, old_times: Any) -> None:
        """Where a slab of chunks reads differently than at the last look, its time is another one."""
        for axis in range(2):
            size, was = node.meta.chunk_shape[axis], before.chunk_shape[axis]
            for i in range(min(len(times[axis]), len(old_times[axis]))):
                now_slab = np.take(voxels, range(i * size, min((i + 1) * size, voxels.shape[axis])), axis)
                old_slab = np.take(old, range(i * was, min((i + 1) * was, old.shape[axis])), axis)
                if now_slab.dtype != old_slab.dtype or not np.array_equal(now_slab, old_slab):
                    assert times[axis][i] != old_times[axis][i], (axis, i)

    @invariant()
    def the_status_names_what_a_commit_would_refuse(self) -> None:
        blocked = self.model.blocked(self.on)
        status = self.branch.status()
        assert {key for key, _ in status.held} >= blocked or not blocked
        assert bool(status.held) == bool(blocked), (status.held, blocked)
        if status.clean:
            assert self.state == self.model.versions[self.model.branches[self.on].head]


def test_the_store_does_what_the_model_does(soak: bool) -> None:
    run_state_machine_as_test(
        StoreAgainstModel,
        settings=settings(
            deadline=None,
            max_examples=3000 if soak else 15,
            stateful_step_count=30,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_model_reads_arrays_as_numpy_would() -> None:
    model = ModelDataset()
    volume = np.arange(30, dtype="<u2").reshape(6, 5)
    model.put("main", "zarr/a/zarr.json", METAS[0])
    model.write("main", "zarr/a", (slice(0, 6), slice(0, 5)), volume)
    np.testing.assert_array_equal(model.voxels(model.branches["main"].state, "zarr/a"), volume)
    assert json.loads(METAS[0])["shape"] == [6, 5]
    model.write("main", "zarr/a", (slice(0, 2), slice(0, 3)), np.zeros((2, 3), "<u2"))
    assert "zarr/a/c/0/0" not in model.branches["main"].state
