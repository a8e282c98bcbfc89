"""The shard shape follows the density of a change; content ids follow what a version says, not how it is packed."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from volfs.model.metadata import ArrayMeta, array_zarr_json, parse_node
from volfs.storage.manifest import ManifestBuilder
from volfs.storage.payload import Payload
from volfs.versions.commit.shard_shape import LARGEST, choose_shard, dense_shard
from volfs.versions.committed import content_id as ids
from volfs.versions.committed.version_files import changes, changes_root

BLOCK = (4, 8, 8)
CHUNK = 512 * 1024


def coords(box: tuple[range, ...]) -> np.ndarray:
    return np.array(list(itertools.product(*box)), dtype=np.int64)


def test_a_whole_array_packs_into_the_largest_shards() -> None:
    assert dense_shard(BLOCK, CHUNK) == BLOCK
    assert choose_shard(BLOCK, CHUNK, coords((range(8), range(16), range(16)))) == BLOCK


def test_one_chunk_stays_one_file() -> None:
    assert choose_shard(BLOCK, CHUNK, np.array([[1000, 2000, 3000]])) == (1, 1, 1)


def test_scattered_chunks_stay_single_files() -> None:
    scattered = np.random.default_rng(0).integers(0, 10_000, (5000, 3))
    assert choose_shard(BLOCK, CHUNK, scattered) == (1, 1, 1)


def test_a_compact_change_becomes_few_files() -> None:
    shape = choose_shard(BLOCK, CHUNK, coords((range(5), range(10, 15), range(3, 9))))
    assert np.prod(shape) > 8


def test_a_shard_never_holds_more_than_the_largest_allowed() -> None:
    shape = dense_shard((4, 4, 4), 64 * 2**20)
    assert np.prod(shape) * 64 * 2**20 <= LARGEST
    assert dense_shard((4, 4, 4), 2 * LARGEST) == (1, 1, 1)


@given(st.tuples(*[st.sampled_from([1, 2, 4, 8, 16])] * 3), st.integers(1, 2 * LARGEST))
def test_a_shard_divides_the_index_block(block: tuple[int, ...], chunk_bytes: int) -> None:
    shape = dense_shard(block, chunk_bytes)
    assert all(b % s == 0 for b, s in zip(block, shape, strict=True))


def test_choosing_for_a_million_chunks_takes_a_moment() -> None:
    changed = np.random.default_rng(1).integers(0, 200, (1_000_000, 3))
    began = time.process_time()
    choose_shard((8, 16, 16), CHUNK, changed)
    assert time.process_time() - began < 20


change = st.builds(
    ids.Change, st.binary(min_size=1, max_size=5), st.sampled_from([1, 2, 3]), st.binary(min_size=32, max_size=32)
)


@given(st.lists(change, max_size=12), st.randoms())
def test_the_tree_does_not_depend_on_the_order_changes_come_in(changes: list[ids.Change], random) -> None:
    shuffled = list(changes)
    random.shuffle(shuffled)
    assert ids.tree_root(changes) == ids.tree_root(shuffled)


@given(st.lists(change, min_size=1, max_size=12, unique=True), st.data())
def test_any_altered_change_shows_in_the_tree(changes: list[ids.Change], data) -> None:
    which = data.draw(st.integers(0, len(changes) - 1))
    other = data.draw(change.filter(lambda c: c != changes[which]))
    assert ids.tree_root(changes) != ids.tree_root([*changes[:which], other, *changes[which + 1 :]])


@given(st.lists(change, max_size=12))
def test_a_missing_change_shows_in_the_tree(changes: list[ids.Change]) -> None:
    assert ids.tree_root(changes) != ids.tree_root([*changes, ids.Change(b"k", 1, bytes(32))])


def test_a_mode_shows_in_the_tree_and_its_absence_changes_nothing() -> None:
    plain = [ids.Change(b"files/a", 1, bytes(32))]
    moded = {ids.tree_root([ids.Change(b"files/a", 1, bytes(32), mode)]) for mode in (b"", b"\xed\1", b"\x80\1")}
    assert len(moded) == 3
    assert ids.tree_root(plain) in moded


def test_the_id_covers_parents_author_time_and_message() -> None:
    base = {"parents": ["aa"], "author": "me", "message": "m", "time_ns": 5, "root": bytes(32)}
    altered = [
        base,
        base | {"parents": ["ab"]},
        base | {"parents": ["aa", "aa"]},
        base | {"author": "you"},
        base | {"message": "n"},
        base | {"time_ns": 6},
        base | {"root": bytes(31) + b"\1"},
    ]
    assert len({ids.content_id(**fields) for fields in altered}) == len(altered)


def test_the_content_id_covers_what_is_said_of_a_version_if_anything_is() -> None:
    facts: dict[str, Any] = {"parents": ["aa"], "author": "me", "message": "m", "time_ns": 5, "root": bytes(32)}
    assert ids.content_id(**facts) == ids.content_id(**facts, meta={})
    said = [{}, {"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": "1"}]
    assert len({ids.content_id(**facts, meta=meta) for meta in said}) == len(said)
    assert ids.content_id(**facts, meta={"a": "1", "b": "2"}) == ids.content_id(**facts, meta={"b": "2", "a": "1"})
    assert ids.content_id(**facts) == "68c1a23f65d9d33bfb91de6d42f34b66669903798ca6204d809dcaa06d805dc0"


def test_the_root_of_the_tree_is_that_of_rfc_6962() -> None:
    import hashlib

    def h(data: bytes) -> bytes:
        return hashlib.sha256(data).digest()

    leaves = [h(b"\0\1" + bytes([k]) + b"\0" + bytes(32)) for k in range(5)]
    left = h(b"\1" + h(b"\1" + leaves[0] + leaves[1]) + h(b"\1" + leaves[2] + leaves[3]))
    assert ids.tree_root(ids.Change(bytes([k]), 1, bytes(32)) for k in range(5)) == h(b"\1" + left + leaves[4])


KEYS = st.text("a/c012", min_size=1, max_size=4).map(str.encode)
MODES = st.sampled_from([b"", b"\xed\1"])


@given(
    st.lists(st.tuples(KEYS, st.binary(min_size=32, max_size=32)), max_size=12),
    st.lists(st.builds(ids.Change, KEYS, st.sampled_from([1, 2, 3, 5]), st.just(b""), MODES), max_size=6),
)
def test_puts_in_columns_have_the_root_that_changes_one_by_one_have(
    puts: list[tuple[bytes, bytes]], others: list[ids.Change]
) -> None:
    plain = [ids.Change(key, ids.PUT, digest) for key, digest in puts]
    columns = sorted(key + b"\0" + digest for key, digest in puts)
    assert ids.tree_root_of_puts(columns, others) == ids.tree_root([*plain, *others])


@given(st.data())
def test_a_manifest_has_one_root_whichever_way_it_is_summed(data: st.DataObject) -> None:
    builder, metas = ManifestBuilder(), {}
    payload = Payload("00000001/x", 0, 1, 0)
    for path in data.draw(st.sets(st.sampled_from(["", "a", "a/b", "b"]))):
        separator = data.draw(st.sampled_from(["/", "."]))
        kind = data.draw(st.sampled_from(["default", "v2"]))
        encoding = {"name": kind, "configuration": {"separator": separator}}
        raw = json.loads(array_zarr_json((4000, 4000), "u1", (1, 1)))
        meta = parse_node(json.dumps({**raw, "chunk_key_encoding": encoding}).encode())
        assert isinstance(meta, ArrayMeta)
        metas[path] = meta
        for at in data.draw(st.sets(st.tuples(st.integers(0, 3999), st.integers(0, 12)), max_size=9)):
            digest = data.draw(st.binary(min_size=32, max_size=32))
            match data.draw(st.integers(0, 2)):
                case 0:
                    builder.put_chunk(path, at, payload, digest)
                case 1:
                    builder.take_chunk(path, at, payload, digest, 1)
                case _:
                    builder.remove_chunk(path, at)
    for key in data.draw(st.sets(st.sampled_from(["zarr/zarr.json", "zarr/a/c/1/x", "files/a", "files/ä"]))):
        builder.put(key, payload, bytes(32), mode=data.draw(st.sampled_from([0, 0o755])) if key[0] == "f" else 0)
    builder.remove_subtree("zarr/gone")
    manifest = builder.build()
    assert changes_root(manifest, metas) == ids.tree_root(changes(manifest, metas))
