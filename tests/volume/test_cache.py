"""The cache keeps what is worth keeping, decodes once, and notices who scans."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from tests.kits.memory_snapshots import MemoryDataset, put_array
from volfs.model.box import Box
from volfs.model.grid import ChunkGrid
from volfs.testing.waiting import PATIENCE, until
from volfs.volume import image_at
from volfs.volume.cache import BlockCache
from volfs.volume.maps import EntryMaps
from volfs.volume.travel import Travel
from volfs.volume.volume_context import store_context
from volfs.volume.workers import Workers

KIB = np.zeros(1024, "u1")


def block():
    return KIB.copy()


def test_the_cache_never_holds_more_than_it_may():
    cache = BlockCache(10_000)
    for i in range(100):
        cache.get_or_make(i, block)
        if i % 3:
            cache.get(i)
        assert cache.stats().bytes <= 10_000
    assert cache.stats().evicted > 80
    cache.resize(3000)
    assert cache.stats().bytes <= 3000
    cache.get_or_make("large", lambda: np.zeros(10_000, "u1"))
    assert "large" not in cache


def test_a_scan_does_not_displace_what_is_used_again():
    cache = BlockCache(20_000)
    hot = [f"hot{i}" for i in range(5)]
    for _ in range(2):
        for key in hot:
            cache.get_or_make(key, block)
    for i in range(1000):
        for _ in range(10):  # a walk through the slices of a slab touches its blocks again and again
            cache.get_or_make(i, block, scan=True)
    assert all(key in cache for key in hot)


def test_what_was_hot_once_makes_room_in_the_end():
    cache = BlockCache(20_000)
    for generation in range(5):
        for _ in range(4):
            for i in range(10):
                cache.get_or_make((generation, i), block)
    assert all((4, i) in cache for i in range(10))
    assert not any((0, i) in cache for i in range(10))


def test_a_slab_does_not_thrash_beside_a_hot_set_that_nobody_wants():
    cache = BlockCache(20_000)
    for _ in range(5):
        for i in range(12):
            cache.get_or_make(("hot", i), block)
    before = cache.stats().decoded
    for _ in range(50):
        for i in range(11):
            cache.get_or_make(("slab", i), block, scan=True)
    assert cache.stats().decoded - before <= 3 * 11


def test_a_block_wanted_by_many_at_once_is_made_once():
    cache = BlockCache(1 << 20)
    made, start = [], threading.Barrier(8)

    def make():
        made.append(1)
        time.sleep(0.02)
        return block()

    def want():
        start.wait()
        assert cache.get_or_make("a", make) is not None

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert cache.stats().misses == 1 and cache.stats().hits == 7


def test_an_error_is_raised_by_everyone_who_asks_and_not_kept():
    cache = BlockCache(1 << 20)

    def fail():
        time.sleep(0.01)
        raise OSError("no")

    failed = []

    def want():
        try:
            cache.get_or_make("a", fail)
        except OSError:
            failed.append(1)

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 4
    assert cache.get_or_make("a", block) is not None


def test_blocks_in_the_cache_cannot_be_written():
    cache = BlockCache(1 << 20)
    with pytest.raises(ValueError, match="read-only"):
        cache.get_or_make("a", block)[0] = 1


def test_work_may_ask_for_more_work_however_few_threads_there_are():
    for count in (1, 2):
        workers, done = Workers(count), []

        def outer(i, workers=workers, done=done):
            workers.each(done.append, [(i, j) for j in range(5)])

        workers.each(outer, range(5))
        assert sorted(done) == [(i, j) for i in range(5) for j in range(5)]
        workers.close()


def test_the_first_error_stops_the_work_and_is_raised():
    workers, done = Workers(2), []

    def work(i):
        if i == 3:
            raise KeyError(i)
        done.append(i)

    with pytest.raises(KeyError):
        workers.each(work, range(10_000))
    assert len(done) < 10_000
    workers.close()


def test_remembered_maps_are_bounded():
    maps = EntryMaps(100 * 384)
    for i in range(50):
        maps.put(i, {(j,): j for j in range(9)})
    assert maps.get(49) is not None and maps.get(0) is None
    maps.put(49, {})
    assert maps.get(40) is not None


# -- through a level ------------------------------------------------------------------------------------------------


def open_level(shape=(64, 32, 32), chunk=(8, 8, 8), *, cache_bytes=4 << 20, prefetch=True):
    voxels = np.random.default_rng(0).integers(0, 255, shape, dtype="u1")
    keys = {}
    put_array(keys, "a", voxels, chunk)
    dataset = MemoryDataset()
    snapshot = dataset.add(keys)
    context = store_context(dataset.store)
    context.cache.resize(cache_bytes)
    if not prefetch:
        context.workers.in_background = lambda job: None
    return image_at(snapshot, "a").levels[0], voxels


def plane(z, rows=(0, 32)):
    return Box((z, rows[0], 0), (z + 1, rows[1], 32))


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("cache_bytes", [60_000, 4 << 20])
def test_slices_in_order_decode_each_chunk_exactly_once(prefetch, cache_bytes):
    # A slab of 16 chunks of 512 bytes; the smaller cache holds about three slabs with its bookkeeping.
    level, voxels = open_level(prefetch=prefetch, cache_bytes=cache_bytes)
    for z in range(64):
        for rows in ((0, 20), (20, 32)):
            box = plane(z, rows)
            cached = level.read_cached(box)
            np.testing.assert_array_equal(level.read(box) if cached is None else cached, voxels[box.slices()])
    assert level.cache_stats().decoded == 8 * 16
    assert set(level.snapshot.reads.values()) == {1}


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2"])
def test_a_box_larger_than_a_part_of_the_cache_leaves_nothing_in_it_whatever_it_is_read_into(dtype):
    level, voxels = open_level(cache_bytes=200_000, prefetch=False)
    out = np.empty(voxels.shape, dtype)
    level.read(Box.whole(level.shape), out)
    np.testing.assert_array_equal(out, voxels)
    assert level.cache_stats().blocks == 0
    assert level.cache_stats().decoded == 8 * 16


def test_slices_in_order_ask_the_catalog_once_per_tile():
    level, _ = open_level()
    for z in range(64):
        level.read(plane(z))
    assert len(level.snapshot.looked_up) == 1
    for z in range(64):
        assert level.read_cached(plane(z)) is not None
    assert len(level.snapshot.looked_up) == 1


def test_the_next_slab_is_decoded_ahead_in_the_direction_of_travel():
    level, voxels = open_level()
    for z in (30, 29, 28):
        level.read(plane(z))
    until(lambda: level.read_cached(plane(20)) is not None)
    np.testing.assert_array_equal(level.read_cached(plane(20)), voxels[20:21])
    assert level.read_cached(plane(34)) is None


def test_a_reader_that_turns_has_its_prefetch_cancelled():
    level, _ = open_level()
    gate = threading.Event()
    for z in (17, 16):
        level.read(plane(z))
    level.snapshot.gate = gate.wait
    level.read(plane(18))  # turned before anything was guessed
    level.read(plane(19))
    level.read(plane(20))  # the slab of 24 is being fetched: its first chunk waits at the gate
    assert level.read_cached(plane(18)) is not None  # and back
    gate.set()
    time.sleep(0.05)
    assert level.cache_stats().decoded < 16 + 16


STACKS = ChunkGrid((2, 3, 64, 16, 16), (1, 1, 16, 8, 8))


def at(t: int, c: int, z: int) -> Box:
    return Box((t, c, z, 0, 0), (t + 1, c + 1, z + 1, 16, 16))


def guesses(travel: Travel, boxes: list[Box]) -> list[Box]:
    return [step.ahead.box for step in map(travel.note, boxes) if step.ahead is not None]


@pytest.mark.parametrize("last", [63, 60])  # of planes that are read elsewhere not all are told of
def test_who_goes_from_one_stack_to_the_next_has_the_one_after_that_decoded_ahead(last):
    travel = Travel(STACKS, lambda blocks: True)
    stack = [0, 1, 16, 17, 32, 33, 48, 49, last]
    one = guesses(travel, [at(0, 0, z) for z in stack])
    assert one == [at(0, 0, z) for z in (32, 48)], "one stack says nothing of others"
    assert guesses(travel, [at(0, 1, z) for z in stack]) == [at(0, 1, z) for z in (16, 32, 48)] + [at(0, 2, 0)]
    assert guesses(travel, [at(0, 2, z) for z in stack]) == [at(0, 2, z) for z in (16, 32, 48)] + [at(1, 0, 0)]
    for c in range(2):
        assert guesses(travel, [at(1, c, z) for z in stack])[-1] == at(1, c + 1, 0)
    assert guesses(travel, [at(1, 2, z) for z in stack]) == [at(1, 2, z) for z in (16, 32, 48)], "there is no other"


@pytest.mark.parametrize("jump", [at(0, 2, 0), at(0, 1, 1), at(1, 0, 0)])
def test_who_goes_to_another_stack_than_the_next_is_somebody_else(jump):
    travel = Travel(STACKS, lambda blocks: True)
    guesses(travel, [at(0, 0, z) for z in (0, 1, 48, 49, 63)])
    assert not travel.note(jump).scan
    t, c, z = jump.start[:3]
    assert guesses(travel, [at(t, c, z + i) for i in (1, 2)])[0].start[:3] == (t, c, 16)


def test_two_readers_of_one_level_are_told_apart():
    level, _ = open_level()
    for i in range(3):
        level.read(plane(i))
        level.read(plane(60 - i))
    until(lambda: level.read_cached(plane(8)) is not None)
    until(lambda: level.read_cached(plane(48)) is not None)


def test_a_scan_of_slices_leaves_the_hot_set_in_memory():
    level, _ = open_level((256, 32, 32), cache_bytes=100_000)
    hot = [plane(z) for z in (3, 130)]
    for _ in range(3):
        for box in hot:
            level.read(box)
    for z in range(20, 120):
        level.read(plane(z))
    assert all(level.read_cached(box) is not None for box in hot)


def test_large_reads_go_past_the_cache_and_use_what_is_in_it():
    level, voxels = open_level(cache_bytes=100_000)
    level.read(plane(0))
    np.testing.assert_array_equal(level[...], voxels)
    stats = level.cache_stats()
    assert stats.blocks == 4, "the rows of blocks of the first plane"
    assert stats.decoded == 8 * 16


def test_a_cached_read_does_no_io_at_all():
    level, voxels = open_level()
    box = Box((3, 3, 3), (20, 20, 20))
    assert level.read_cached(box) is None
    level.read(box)
    level.snapshot.gate = lambda: pytest.fail("read from disk")
    level.snapshot.looked_up.clear()
    np.testing.assert_array_equal(level.read_cached(box), voxels[box.slices()])
    assert not level.snapshot.looked_up


def test_prefetch_on_request():
    level, voxels = open_level()
    box = Box((0, 0, 0), (8, 32, 32))
    level.prefetch(box)
    until(lambda: level.read_cached(box) is not None)
    np.testing.assert_array_equal(level.read_cached(box), voxels[:8])


def test_what_is_made_ahead_is_counted_by_what_comes_of_it() -> None:
    cache = BlockCache(4 * (1024 + 512))
    for name in "abcd":
        cache.get_or_make(name, block, ahead=True)
    said = cache.stats()
    assert (said.prefetched, said.prefetched_bytes) == (4, 4 * 1024)
    assert (said.hits, said.misses) == (0, 0), "nobody has asked for anything"
    cache.get_or_make("a", block, ahead=True)
    assert cache.stats().prefetch_used == 0, "making ahead what is there already is no use of it"
    assert cache.get("a") is not None and cache.get("a") is not None
    assert cache.get_all(["b"], scan=True) is not None
    assert cache.get_or_make("c", block, scan=True).max() == 0
    said = cache.stats()
    assert (said.prefetch_used, said.prefetch_used_bytes) == (3, 3 * 1024), "each counts once"
    assert (said.hits, said.misses) == (4, 0)
    for name in "efgh":
        cache.get_or_make(name, block)
    said = cache.stats()
    assert (said.prefetch_wasted, said.prefetch_wasted_bytes) == (1, 1024), "d left unseen"
    cache.get_or_make("i", block, ahead=True)
    cache.clear()
    assert cache.stats().prefetch_wasted == 2


def test_whoever_waits_for_what_is_being_made_ahead_uses_it() -> None:
    cache = BlockCache(4 * (1024 + 512))
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> np.ndarray:
        begun.set()
        assert go_on.wait(PATIENCE)
        return block()

    def never() -> np.ndarray:
        raise AssertionError("it is being made")

    ahead = threading.Thread(target=lambda: cache.get_or_make("a", slowly, ahead=True))
    ahead.start()
    assert begun.wait(PATIENCE)
    reader = threading.Thread(target=lambda: cache.get_or_make("a", never))
    reader.start()
    go_on.set()
    ahead.join(PATIENCE)
    reader.join(PATIENCE)
    said = cache.stats()
    assert (said.prefetched, said.prefetch_used, said.hits, said.misses) == (1, 1, 1, 0)
