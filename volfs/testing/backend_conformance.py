"""What every :class:`~volfs.storage.backend.Backend` must do, as tests that anyone can run against one of their own::

    class TestMyBackend(BackendConformance):
        @pytest.fixture
        def backend(self, tmp_path):
            return MyBackend(...)          # empty

pytest collects the class and runs each method against a new, empty backend.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from volfs.errors import BadInput, Damaged, NotFound, WrongKind
from volfs.storage.backend import Backend, Bounded, From, Last, Span, change_document, read_document, tagged_object
from volfs.storage.json_document import dump_document

NAMES = ("a", "a-b/x", "a.b", "b/c/d", "b/c.d", "b/ce", "été/x", "z")
"""Keys of which a directory's own order, or that of code points of some encodings, is another than that of bytes."""


class BackendConformance:
    """The tests. A subclass gives the fixture ``backend``."""

    @pytest.fixture
    def backend(self) -> Backend:
        raise NotImplementedError("a subclass says which backend is tested")

    # -- one object ---------------------------------------------------------------------------------------------

    def test_what_was_put_is_got_whole(self, backend: Backend) -> None:
        for data in (b"", b"bytes", bytes(range(256)) * 5000):
            backend.put("versions/00000001/x", data)
            assert tagged_object(backend, "versions/00000001/x")[0] == data

    def test_what_is_not_there_is_not_found(self, backend: Backend) -> None:
        backend.put("a/b", b"x")
        for key, error in (("b", NotFound), ("a/c", NotFound), ("a/b/c", NotFound), ("a", Damaged)):
            with pytest.raises(error):
                backend.get(key)
            with pytest.raises(error):
                backend.ranges(key, [Bounded(0, 1)])
            assert backend.stat(key) is None

    def test_a_file_can_be_put(self, backend: Backend, tmp_path: Path) -> None:
        data = bytes(range(256)) * 10000
        (tmp_path / "source").write_bytes(data)
        backend.put("a/b", tmp_path / "source")
        assert tagged_object(backend, "a/b")[0] == data
        assert (tmp_path / "source").read_bytes() == data

    @pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/./b", "a/..", "nul\0"])
    def test_a_key_has_one_form(self, backend: Backend, key: str) -> None:
        for use in (
            lambda: backend.get(key),
            lambda: backend.put(key, b""),
            lambda: backend.ranges(key, [From(0)]),
            lambda: backend.create(key, b""),
            lambda: backend.stat(key),
            lambda: backend.remove([key]),
        ):
            with pytest.raises(BadInput):
                use()

    def test_names_need_not_be_text(self, backend: Backend) -> None:
        backend.put("files/\udcff\udc80", b"1")
        assert list(backend.list("files")) == ["files/\udcff\udc80"]
        assert tagged_object(backend, "files/\udcff\udc80")[0] == b"1"

    def test_no_key_is_a_directory_of_another_one(self, backend: Backend) -> None:
        backend.put("a/b", b"1")
        for key in ("a", "a/b/c", "a/b/c/d"):
            with pytest.raises(WrongKind):
                backend.put(key, b"2")
        backend.remove(["a/b"])
        backend.put("a", b"3")
        assert list(backend.list()) == ["a"]

    def test_stat_gives_size_and_time(self, backend: Backend) -> None:
        backend.put("a/b", b"12345")
        first = backend.stat("a/b")
        assert first is not None and first.size == 5
        backend.put("a/b", b"123456")
        second = backend.stat("a/b")
        assert second is not None and second.size == 6 and second.time_ns >= first.time_ns

    def test_removing_is_for_those_that_are_there_and_others(self, backend: Backend) -> None:
        backend.put("a/b", b"1")
        backend.put("a/c", b"2")
        backend.remove(["a/b", "a/x", "y/z", "a/c/d"])
        assert list(backend.list()) == ["a/c"]
        backend.remove([])

    # -- ranges -------------------------------------------------------------------------------------------------

    def test_a_range_is_exact(self, backend: Backend) -> None:
        data = bytes(range(100))
        backend.put("a", data)
        spans: list[Span] = [
            Bounded(10, 5),
            Bounded(0, 0),
            From(90),
            From(0),
            From(100),
            Last(7),
            Last(0),
            Last(100),
            Bounded(0, 100),
        ]
        whole = [data[10:15], b"", data[90:], data, b"", data[93:], b"", data, data]
        assert [bytes(part) for part in backend.ranges("a", spans)] == whole
        assert backend.ranges("a", []) == []

    @pytest.mark.parametrize("span", [Bounded(99, 2), Bounded(101, 1), From(101), Last(101), Bounded(0, 2**62)])
    def test_a_range_that_is_not_all_there_is_damage(self, backend: Backend, span: Span) -> None:
        backend.put("a", bytes(100))
        with pytest.raises(Damaged):
            backend.ranges("a", [Bounded(0, 1), span])

    def test_what_is_resident_is_the_same(self, backend: Backend) -> None:
        backend.put("a", bytes(range(100)))
        backend.ranges("a", [From(0)])
        found = backend.resident("a", Bounded(10, 20))
        assert found is None or bytes(found) == bytes(range(10, 30))
        assert backend.resident("a", Bounded(90, 20)) is None
        assert backend.resident("b", Bounded(0, 1)) is None

    def test_bytes_that_an_object_lacks_are_put_into_their_places(self, backend: Backend) -> None:
        backend.put("a/b", b"0123456789")
        backend.patch("a/b", [(3, b"xyz"), (0, bytearray(b"-"))])
        assert tagged_object(backend, "a/b")[0] == b"-12xyz6789"
        backend.patch("a/b", [(12, memoryview(b"end"))])
        assert tagged_object(backend, "a/b")[0] == b"-12xyz6789\0\0end"
        with pytest.raises(NotFound):
            backend.patch("a/c", [(0, b"x")])

        def cut_short() -> Iterator[tuple[int, bytes]]:
            yield 1, b"AB"
            raise Damaged("what comes ends here")

        with pytest.raises(Damaged):
            backend.patch("a/b", cut_short())
        assert tagged_object(backend, "a/b")[0] == b"-ABxyz6789\0\0end"

    def test_parts_of_an_object_go_and_the_rest_stays_where_it_is(self, backend: Backend) -> None:
        data = bytes(range(1, 251)) * 400
        backend.put("a/shard", data)
        backend.put("a/other", data)
        spans = [Bounded(10, 20_000), Bounded(50_000, 3)]
        for _ in range(2):
            freed = backend.hollow("a/shard", spans, b"new end")
        expected = bytearray(data[:-7] + b"new end")
        for span in spans if freed else ():
            expected[span.offset : span.offset + span.length] = bytes(span.length)
        assert tagged_object(backend, "a/shard")[0] == expected
        assert backend.ranges("a/shard", [Bounded(20_010, 100)]) == [data[20_010:20_110]]
        assert tagged_object(backend, "a/other")[0] == data
        with pytest.raises(NotFound):
            backend.hollow("a/none", spans, b"")

    def test_an_object_put_anew_is_read_anew(self, backend: Backend) -> None:
        backend.put("a", b"old")
        backend.ranges("a", [From(0)])
        backend.put("a", b"newer")
        assert [bytes(part) for part in backend.ranges("a", [From(0)])] == [b"newer"]
        backend.remove(["a"])
        with pytest.raises(NotFound):
            backend.ranges("a", [From(0)])

    # -- lists --------------------------------------------------------------------------------------------------

    def test_keys_are_listed_in_the_order_of_their_bytes(self, backend: Backend) -> None:
        for name in reversed(NAMES):
            backend.put(name, b"")
        ordered = sorted(NAMES, key=str.encode)
        assert list(backend.list()) == ordered
        for name in (*NAMES, "a-", "b", "b/", "b/c", "b/c/", "c", "zz"):
            assert list(backend.list(after=name)) == [key for key in ordered if key.encode() > name.encode()]

    def test_a_prefix_is_a_directory(self, backend: Backend) -> None:
        for name in NAMES:
            backend.put(name, b"")
        assert list(backend.list("b")) == ["b/c.d", "b/c/d", "b/ce"]
        assert list(backend.list("b/c")) == ["b/c/d"]
        assert list(backend.list("b", after="b/c.d")) == ["b/c/d", "b/ce"]
        assert list(backend.list("a")) == [] == list(backend.list("nothing/there"))

    def test_from_below_keys_are_shorter(self, backend: Backend) -> None:
        backend.put("a/b/c", b"1")
        backend.put("a/d", b"2")
        below = backend.below("a")
        assert list(below.list()) == ["b/c", "d"]
        assert tagged_object(below, "b/c")[0] == b"1"
        below.below("b").put("e", b"3")
        assert list(backend.list("a", after="a/b/c")) == ["a/b/e", "a/d"]
        assert list(below.list(after="b/e")) == ["d"]

    # -- documents ----------------------------------------------------------------------------------------------

    def test_a_document_is_changed_by_what_it_says(self, backend: Backend) -> None:
        backend.put("doc", dump_document({"count": 0}))

        def count(_: int) -> None:
            change_document(backend, "doc", lambda found: {"count": found["count"] + 1})

        _at_once(count)
        change_document(backend, "doc", lambda found: None)
        assert read_document(backend, "doc") == {"count": 8}
        with pytest.raises(NotFound):
            read_document(backend, "nothing")
        backend.put("doc", b"no document")
        with pytest.raises(Damaged, match=re.escape(backend.where("doc"))):
            read_document(backend, "doc")

    def test_get_tells_that_nothing_has_changed(self, backend: Backend) -> None:
        backend.put("doc", b"1")
        _, tag = tagged_object(backend, "doc")
        assert backend.get("doc", tag) is None
        backend.put("doc", b"2")
        changed = backend.get("doc", tag)
        assert changed is not None and changed[0] == b"2" and changed[1] != tag

    def test_create_makes_what_is_not_there(self, backend: Backend) -> None:
        assert backend.create("doc", b"1")
        assert not backend.create("doc", b"2")
        assert tagged_object(backend, "doc")[0] == b"1"

    def test_replace_goes_by_the_tag(self, backend: Backend) -> None:
        backend.put("doc", b"1")
        _, first = tagged_object(backend, "doc")
        assert backend.replace("doc", b"2", first)
        assert not backend.replace("doc", b"3", first)
        data, second = tagged_object(backend, "doc")
        assert data == b"2"
        backend.remove(["doc"])
        assert not backend.replace("doc", b"4", second)
        assert list(backend.list()) == []

    def test_of_many_that_create_one_is_told_so(self, backend: Backend) -> None:
        made: list[int] = []

        def create(i: int) -> None:
            if backend.create("doc", str(i).encode()):
                made.append(i)

        _at_once(create)
        assert len(made) == 1
        assert tagged_object(backend, "doc")[0] == str(made[0]).encode()

    def test_who_reads_meanwhile_sees_one_or_the_other(self, backend: Backend) -> None:
        backend.put("doc", b"a" * 5000)
        seen: set[bytes] = set()
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                seen.add(tagged_object(backend, "doc")[0])

        reader = threading.Thread(target=read)
        reader.start()
        for i in range(30):
            backend.put("doc", bytes([97 + i % 2]) * 5000)
        stop.set()
        reader.join()
        assert seen <= {b"a" * 5000, b"b" * 5000}

    # -- batches ------------------------------------------------------------------------------------------------

    def test_a_batch_is_there_when_it_is_synced(self, backend: Backend) -> None:
        batch = backend.batch("versions/00000001")
        with batch.open("zarr/c/0") as out:
            out.write(b"one")
            out.suspend()
            out.write(bytearray(b"two"))
            out.flush()
            out.write(memoryview(b"three"))
            assert out.size == 11
        assert out.size == 11
        with batch.open("version.json", 0o600) as out:
            pass
        assert batch.sync() == {"version.json": 0, "zarr/c/0": 11}
        assert tagged_object(backend, "versions/00000001/zarr/c/0")[0] == b"onetwothree"
        assert list(backend.list()) == ["versions/00000001/version.json", "versions/00000001/zarr/c/0"]

    def test_what_is_aborted_in_a_batch_never_was(self, backend: Backend) -> None:
        batch = backend.batch("v")
        out = batch.open("a")
        out.write(b"1")
        out.abort()
        with pytest.raises(ZeroDivisionError), batch.open("b") as out:
            out.write(b"1")
            raise ZeroDivisionError
        out = batch.open("c")
        out.close()
        out.abort()
        assert batch.sync() == {"c": 0}
        assert list(backend.list()) == ["v/c"]

    def test_a_name_in_a_batch_can_be_written_again(self, backend: Backend) -> None:
        batch = backend.batch("v")
        for data in (b"longer", b"short"):
            with batch.open("a") as out:
                out.write(data)
        assert batch.sync() == {"a": 5}
        with backend.batch("v").open("b") as out:
            out.write(b"x")
        assert backend.batch("v").sync() == {"a": 5, "b": 1}

    def test_no_name_in_a_batch_is_a_directory_of_another_one(self, backend: Backend) -> None:
        batch = backend.batch("v")
        batch.open("a/b").close()
        for name in ("a", "a/b/c"):
            with pytest.raises(WrongKind):
                batch.open(name)
        with pytest.raises(BadInput):
            batch.open("../a")

    def test_many_threads_write_one_batch(self, backend: Backend) -> None:
        batch = backend.batch("v")

        def write(i: int) -> None:
            with batch.open(f"c/{i}/0") as out:
                for _ in range(20):
                    out.write(bytes([i]) * 100)

        _at_once(write)
        assert batch.sync() == {f"c/{i}/0": 2000 for i in range(8)}
        assert all(tagged_object(backend, f"v/c/{i}/0")[0] == bytes([i]) * 2000 for i in range(8))


def _at_once(action: object) -> None:
    assert callable(action)
    threads = [threading.Thread(target=action, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
