"""Caches: what leaves a bounded map, what is pinned, what threads see."""

from __future__ import annotations

import gc
import re
import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import volfs
from volfs.model.bounded_map import BoundedMap, Caches, Usage


def test_the_least_recently_used_leaves_first_and_is_handed_back() -> None:
    kept: BoundedMap[int, str] = BoundedMap(2)
    assert kept.put(1, "a") == kept.put(2, "b") == []
    assert kept.get(1) == "a" and kept.peek(2) == "b"
    assert kept.put(3, "c") == ["b"], "a look without a use saves nothing"
    assert (kept.get(1), kept.get(2), kept.get(3)) == ("a", None, "c")


def test_none_is_a_value_too() -> None:
    kept: BoundedMap[int, str | None] = BoundedMap(2)
    made: list[int] = []
    assert [kept.get_or_make(1, lambda: made.append(1)) for _ in range(3)] == [None, None, None]  # type: ignore[func-returns-value]
    assert made == [1] and kept.get(1, "nothing") is None and kept.get(2, "nothing") == "nothing"


def test_the_newest_stays_even_if_it_alone_is_too_heavy() -> None:
    kept: BoundedMap[int, bytes] = BoundedMap(100, len)
    kept.put(1, bytes(60))
    assert kept.put(2, bytes(500)) == [bytes(60)]
    assert kept.usage() == Usage(1, 100, 500)
    assert kept.put(3, b"") == [bytes(500)]


def test_pinned_values_stay_whatever_the_limit() -> None:
    kept: BoundedMap[int, int] = BoundedMap(1)
    kept.pin(1, 10)
    kept.put(2, 20)
    kept.put(3, 30)
    assert (kept.get(1), kept.get(2), kept.get(3)) == (10, None, 30)
    kept.put(1, 11)
    kept.unpin(1)
    assert (kept.get(1), kept.get(3)) == (11, None)
    kept.pin(1, 12)
    assert kept.pop(1) == 12 and len(kept) == 0


def test_a_value_that_is_unpinned_is_there_all_the_time() -> None:
    kept: BoundedMap[int, int] = BoundedMap(1)
    there: list[int] = []
    lock = kept._lock

    class Watched:
        def __enter__(self) -> None:
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            there.append(len(kept))
            lock.release()

    kept.pin(1, 10)
    kept._lock = Watched()  # type: ignore[assignment]
    kept.unpin(1)
    assert there and 0 not in there, "another thread would have found none, and have made another"


@given(st.lists(st.tuples(st.sampled_from(["put", "get", "pop", "some"]), st.integers(0, 5), st.integers(0, 9))))
def test_a_map_is_a_list_in_order_of_use(steps: list[tuple[str, int, int]]) -> None:
    kept: BoundedMap[int, bytes] = BoundedMap(20, len)
    order: list[tuple[int, int]] = []
    for what, key, size in steps:
        found = next((one for one in order if one[0] == key), None)
        if what == "put":
            gone = kept.put(key, bytes(size))
            order = [one for one in order if one[0] != key] + [(key, size)]
            expected = []
            while sum(length for _, length in order) > 20 and len(order) > 1:
                expected.append(bytes(order.pop(0)[1]))
            assert gone == expected
        elif what == "some":
            assert sorted(kept.pop_where(lambda one: one % 2 == 0)) == sorted(bytes(n) for k, n in order if k % 2 == 0)
            order = [one for one in order if one[0] % 2]
        else:
            assert (kept.get(key) if what == "get" else kept.pop(key)) == (None if found is None else bytes(found[1]))
            order = [one for one in order if one[0] != key] + ([found] if what == "get" and found else [])
        assert kept.usage() == Usage(len(order), 20, sum(length for _, length in order))
    kept.clear()
    assert kept.usage() == Usage(0, 20, 0)


def test_threads_that_look_while_others_push_out_see_whole_values() -> None:
    kept: BoundedMap[tuple[int, str], int] = BoundedMap(50)
    wrong: list[object] = []

    def work(start: int) -> None:
        try:
            for number in range(start, start + 20_000):
                key = (number % 120, "name")
                wrong.extend(found for found in (kept.peek(key), kept.get(key)) if found not in (None, key[0]))
                kept.put(key, key[0])
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 40, 80)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and kept.usage() == Usage(50, 50)


def test_caches_of_one_name_are_listed_as_one_while_they_are_used() -> None:
    caches = Caches()
    one: BoundedMap[int, bytes] = caches.add("bytes", BoundedMap(100, len))
    other: BoundedMap[int, bytes] = caches.add("bytes", BoundedMap(50, len))
    counted: BoundedMap[int, int] = caches.add("numbers", BoundedMap(3))
    one.put(1, bytes(10))
    other.put(1, bytes(5))
    counted.put(1, 1)
    used = caches.usage()
    assert used == {"bytes": Usage(2, 150, 15), "numbers": Usage(1, 3)}
    assert used["bytes"].facts() == {"items": 2, "bytes": 15, "max_bytes": 150}
    assert used["numbers"].facts() == {"items": 1, "max_items": 3}
    del other
    gc.collect()
    assert caches.usage()["bytes"] == Usage(1, 100, 10)


#: What keeps an order and is no cache of this kind, or is one with rules of its own.
OTHERS = {
    "model/bounded_map.py": "the one",
    "volume/cache.py": "two segments and the names of what left them, listed as blocks",
}


def test_there_is_no_other_kind_of_cache() -> None:
    """No module keeps an order of use by itself, or forgets everything when there is too much."""
    root = Path(volfs.__file__).parent
    own = re.compile(r"OrderedDict|if len\(.*\) >=? .*:\n\s+\S+\.clear\(\)")
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if own.search(path.read_text())}
    assert found == set(OTHERS)
