"""What another store sends is believed in nothing: streams that are cut or altered at any byte, and stores that lie."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zstandard
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

import volfs
from tests.kits.example_counts import examples
from tests.kits.remotes import SHAPE, Change, files_of, same, served
from tests.kits.stores import START, volume, write_version
from volfs import init_store, open_store
from volfs.errors import Damaged, VolfsError
from volfs.model.refs import Refs
from volfs.storage.json_document import dump_document, load_document
from volfs.storage.manifest import Manifest, Op
from volfs.storage.store_layout import MANIFEST, VERSION_JSON, version_dir_name
from volfs.versions.check.fsck import fsck
from volfs.versions.dataset import Dataset
from volfs.versions.remotes import connection, exchange
from volfs.versions.remotes.message_frames import PIECE, Frames
from volfs.versions.remotes.missing_versions import missing_versions
from volfs.versions.remotes.partial_clone import Wish
from volfs.versions.remotes.questions import Ancestor
from volfs.versions.remotes.supplier import Supplier


@dataclass(frozen=True)
class Pair:
    """Two stores of one dataset, as they are before each attempt; in ``theirs`` and ``ours`` are versions that the
    other lacks."""

    root: Path
    heard: int
    said: int

    def fresh(self, name: str) -> Path:
        place = self.root / f"{name}-now"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.root / name, place)
        return place


Act = Callable[[Dataset, connection.Connection], None]


def fetch(ours: Dataset, link: connection.Connection) -> None:
    exchange.fetch_from(ours, link, "origin", (), None)


def push(ours: Dataset, link: connection.Connection) -> None:
    there = link.open(ours.uuid)
    update = exchange._update(ours, "origin", there, "mine", False)
    assert update is not None
    supplier = Supplier(ours, link.frames, [ours.branches()["mine"]], whole=True)
    assert exchange._push(link, supplier, [update]).whys == [None]


def more(ours: Dataset, link: connection.Connection) -> None:
    """All that was left out of a partial clone, and what is new."""
    exchange.fetch_from(ours, link, "origin", (), None, wish=Wish(whole=True))
    assert not ours.clone_parts.partial


ACTS: dict[str, Act] = {"fetch": fetch, "push": push, "more": more}


def make(root: Path, act: str) -> Pair:
    with init_store(root / "theirs") as theirs:
        write_version(theirs.create_dataset("cells"), volume(SHAPE), time_ns=START)
    volfs.clone(str(root / "theirs"), root / "ours", paths=["zarr/s0/c/0"] if act == "more" else ())
    with open_store(root / "theirs") as theirs:
        dataset = theirs["cells"]
        write_version(dataset, volume(SHAPE, 1), parent=1, coords=[(0, 0, 0), (1, 1, 1)], files={"files/a": b"a" * 999})
        write_version(dataset, volume(SHAPE, 2), parent=2, coords=[(0, 1, 0)])
    with open_store(root / "ours") as ours:
        ours["cells"].create_branch("mine")
        write_version(ours["cells"], volume(SHAPE, 3), parent=1, coords=[(0, 0, 1)], branch="mine")
    pair = Pair(root, 0, 0)
    with open_store(pair.fresh("ours")) as ours, served(pair.fresh("theirs"), "push") as link:
        ACTS[act](ours["cells"], link)
        heard, said = link.frames.heard_bytes, link.frames.said_bytes
    return Pair(root, heard, said)


@pytest.fixture(scope="module", params=ACTS)
def acting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Pair]:
    return request.param, make(tmp_path_factory.mktemp(request.param), request.param)


def flip(at: int, bit: int) -> Change:
    """Alter one bit of a stream."""
    done = 0

    def change(piece: bytes) -> bytes:
        nonlocal done
        if done <= at < done + len(piece):
            altered = bytearray(piece)
            altered[at - done] ^= 1 << bit
            piece, done = bytes(altered), done + len(piece)
        else:
            done += len(piece)
        return piece

    return change


def cut(at: int) -> Change:
    """End a stream after some bytes."""
    done = 0

    def change(piece: bytes) -> bytes:
        nonlocal done
        keep = piece[: max(0, at - done)]
        done += len(piece)
        if len(keep) < len(piece):
            if keep:
                raise _Last(keep)
            raise BrokenPipeError
        return piece

    return change


class _Last(OSError):
    """The last bytes before a cut; they are lost with it, which is a cut a little earlier."""


def refs_of(path: Path) -> Refs:
    with open_store(path, read_only=True) as store:
        return store["cells"].refs()


def attempt(act: str, pair: Pair, heard: Change | None, said: Change | None) -> None:
    """It fails with one line, moves no ref here, leaves both stores whole, and the repeat finishes."""
    ours, theirs = pair.fresh("ours"), pair.fresh("theirs")
    before = refs_of(ours), refs_of(theirs)
    with (
        open_store(ours) as store,
        pytest.raises(VolfsError) as error,
        served(theirs, "push", heard=heard, said=said) as link,
    ):
        ACTS[act](store["cells"], link)
    assert len(str(error.value).splitlines()) == 1
    assert refs_of(ours) == before[0]
    if act != "push":
        assert refs_of(theirs) == before[1]
    with open_store(ours) as store, served(theirs, "push") as link:
        if act != "push" or refs_of(theirs) == before[1]:  # else it was done, and only the word of it was lost
            ACTS[act](store["cells"], link)
        for path in (ours, theirs):
            with open_store(path, read_only=True) as looking:
                assert fsck(looking).findings == []
                if act != "push" and path == theirs:
                    same(looking["cells"], store["cells"])


@given(where=st.floats(0, 0.999999), bit=st.integers(0, 7), direction=st.sampled_from(["heard", "said"]))
@settings(max_examples=examples(17), deadline=None)
def test_a_stream_that_is_altered_at_any_bit_is_found_out_and_changes_nothing(
    acting: tuple[str, Pair], where: float, bit: int, direction: str
) -> None:
    act, pair = acting
    change = flip(int(where * getattr(pair, direction)), bit)
    attempt(act, pair, change if direction == "heard" else None, change if direction == "said" else None)


@given(where=st.floats(0, 0.999999), direction=st.sampled_from(["heard", "said"]))
@settings(max_examples=examples(17), deadline=None)
def test_a_stream_that_ends_at_any_byte_is_an_error_and_the_repeat_goes_on(
    acting: tuple[str, Pair], where: float, direction: str
) -> None:
    act, pair = acting
    change = cut(int(where * getattr(pair, direction)))
    attempt(act, pair, change if direction == "heard" else None, change if direction == "said" else None)


def frame(kind: int, body: bytes, *, length: int | None = None, magic: bytes = b"vfs1") -> bytes:
    before = struct.pack("<4sB3xII", magic, kind, len(body) if length is None else length, crc32c(body))
    return before + struct.pack("<I", crc32c(before)) + body


class TestFrames:
    def frames(self, raw: bytes) -> Frames:
        held = os.memfd_create("stream")
        os.pwrite(held, raw, 0)
        return Frames(held, held, "there")

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"Welcome to this machine, and a nice day",
            pytest.param(frame(1, b"", length=0xFFFFFFFF), id="larger than any"),
            pytest.param(frame(2, b"", length=PIECE + 1), id="data larger than a piece"),
            pytest.param(frame(9, b""), id="unknown kind"),
        ],
    )
    def test_what_is_no_frame_is_refused_before_memory_is_taken(self, raw: bytes) -> None:
        with pytest.raises(VolfsError):
            self.frames(raw).hear()

    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"[]", b"null", b"{}", b'{"say": 1}', b'{"say":"other"}', b"[" * 100_000, b'{"say":"x","a":' * 9],
    )
    def test_what_is_no_message_is_refused(self, body: bytes) -> None:
        with pytest.raises(Damaged):
            self.frames(frame(1, body)).hear("hello")

    def test_an_error_of_the_other_end_is_what_it_was_there(self) -> None:
        body = json.dumps({"say": "error", "kind": "NoSpace", "message": "no \x1b[2Jspace"}).encode()
        for read in (lambda frames: frames.hear("file"), lambda frames: list(frames.data(5))):
            with pytest.raises(volfs.errors.NoSpace, match=r"there: no .*space") as error:
                read(self.frames(frame(1, body)))
            assert "\x1b" not in str(error.value)

    @pytest.mark.parametrize("kind", ["SystemExit", "BadInput\n", "Any", 3])
    def test_an_error_of_no_kind_of_ours_is_an_error(self, kind: object) -> None:
        body = json.dumps({"say": "error", "kind": kind, "message": "x"}).encode()
        with pytest.raises(VolfsError):
            self.frames(frame(1, body)).hear()

    def test_data_is_neither_more_nor_less_than_was_announced(self) -> None:
        for raw in (frame(2, b"toolong"), frame(2, b""), frame(1, b'{"say":"file"}')):
            with pytest.raises(Damaged):
                list(self.frames(raw).data(3))


class TestHistories:
    """What the other end says of its history, however it lies."""

    def peer(self, graph: dict[str, Sequence[str]]) -> Any:
        def history(want: Sequence[str], have: Sequence[str], most: int) -> list[Ancestor]:
            return [Ancestor(each, tuple(graph[each]), 1) for each in want if each in graph]

        return SimpleNamespace(history=history, frames=SimpleNamespace(other="there"))

    def test_parents_come_first(self) -> None:
        graph = {"d": ["b", "c"], "c": ["a"], "b": ["a"], "a": []}
        found = [each.id for each in missing_versions(self.peer(graph), ["d"], {}, [])]
        assert sorted(found) == [*"abcd"] and found[0] == "a" and found[-1] == "d"
        assert [each.id for each in missing_versions(self.peer(graph), ["d"], {"a", "b"}, [])] == ["c", "d"]

    @pytest.mark.parametrize("graph", [{"a": ["a"]}, {"a": ["b"], "b": ["a"]}, {"a": ["b"], "b": ["c"], "c": ["b"]}])
    def test_loops_of_parents_are_refused(self, graph: dict[str, Sequence[str]]) -> None:
        with pytest.raises(Damaged, match="descend from themselves"):
            missing_versions(self.peer(graph), ["a"], {}, [])

    def test_a_parent_that_is_nowhere_is_refused(self) -> None:
        with pytest.raises(Damaged, match="no end"):
            missing_versions(self.peer({"a": ["b"]}), ["a"], {}, [])


# -- stores that lie --------------------------------------------------------------------------------------------------


def _manifest(change: Callable[[list[str], np.ndarray], object]) -> Callable[[Path], None]:
    def alter(version: Path) -> None:
        path = version / MANIFEST
        manifest = Manifest.from_bytes(path.read_bytes())
        strings, records = list(manifest.strings), manifest.records.copy()
        change(strings, records)
        path.write_bytes(Manifest(strings, records, manifest.pieces).to_bytes())

    return alter


def _names(old: str, new: str) -> Callable[[Path], None]:
    def change(strings: list[str], records: np.ndarray) -> None:
        assert any(old in text for text in strings)
        strings[:] = [text.replace(old, new) for text in strings]

    return _manifest(change)


def _columns(**values: Any) -> Callable[[Path], None]:
    def change(strings: list[str], records: np.ndarray) -> None:
        row = int(np.flatnonzero((records["op"] == Op.PUT) & (records["ndim"] > 0))[0])
        for name, value in values.items():
            records[name][row] = value

    return _manifest(change)


def _document(**values: Any) -> Callable[[Path], None]:
    def alter(version: Path) -> None:
        path = version / VERSION_JSON
        document, _ = load_document(path.read_bytes(), path)
        path.write_bytes(dump_document(document | values))

    return alter


def _file(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def alter(version: Path) -> None:
        path = version / name
        path.write_bytes(change(path.read_bytes()))

    return alter


def _raw_manifest(raw: bytes) -> Callable[[Path], None]:
    return _file(MANIFEST, lambda _: raw)


def _bomb() -> bytes:
    """A manifest of a few kilobytes that unpacks to gigabytes, and does not say so."""
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return b"".join(compressor.compress(bytes(1 << 20)) for _ in range(64)) + compressor.flush()


OWN = version_dir_name(2)
LIES = {
    "a file above the store": _names(f"{OWN}/files/a", f"{OWN}/../../../x"),
    "an absolute file": _names(f"{OWN}/files/a", "/etc/passwd"),
    "a file of another version": _names(f"{OWN}/files/a", f"{version_dir_name(1)}/zarr/zarr.json"),
    "a file that is the manifest": _names(f"{OWN}/files/a", f"{OWN}/{MANIFEST}"),
    "a file that is the lock": _names(f"{OWN}/files/a", f"{OWN}/lock"),
    "a file below a file": _names(f"{OWN}/files/a", f"{OWN}/zarr/s0/c/0/0/0/x"),
    "a key above the store": _names("files/a", "files/../../x"),
    "a key that is none": _names("files/a", "other/a"),
    "an array above the store": _names("s0", "../s0"),
    "another name of an array": _names("s0", "s1"),
    "another sum": _columns(sha256=bytes(32)),
    "another checksum": _columns(crc32c=7),
    "another length": _columns(length=3),
    "another offset": _columns(offset=3),
    "a length without bounds": _columns(length=2**61),
    "another chunk": _columns(chunk=(1, 0, 1, 0, 0, 0)),
    "a chunk of other axes": _columns(ndim=2),
    "a removal in the place of a chunk": _columns(op=Op.REMOVE, file=0xFFFFFFFF),
    "an owner that is not there": _columns(op=Op.TAKE, owner=77),
    "an owner that has no such payload": _columns(op=Op.TAKE, owner=1),
    "no manifest": _raw_manifest(b"none"),
    "an empty manifest": _raw_manifest(b""),
    "a manifest that unpacks to gigabytes": _raw_manifest(_bomb()),
    "another author": _document(author="somebody else"),
    "another message": _document(message="something else"),
    "another time": _document(time_ns=START + 99 * 10**9),
    "another parent": _document(parents=[]),
    "another number": _document(version=3),
    "another content id": _document(content_id="0" * 64),
    "arrays that are none": _document(arrays={"s0": {"block_shape": [1], "shard_chunks": [1], "complete": 1}}),
    "shards of other shapes": _document(
        arrays={"s0": {"block_shape": [2, 2, 2], "shard_chunks": [1, 1, 2], "complete": False}}
    ),
    "an array that is not there": _document(
        arrays={
            "s0": {"block_shape": [2, 2, 2], "shard_chunks": [1, 1, 1], "complete": False},
            "x": {"block_shape": [2], "shard_chunks": [1], "complete": False},
        }
    ),
    "other bytes of a file": _file("files/a", lambda data: data[:-1] + b"b"),
    "a shorter file": _file("files/a", lambda data: data[:-1]),
    "a longer file": _file("files/a", lambda data: data + b"x"),
}


@pytest.fixture(scope="module")
def liars(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make(tmp_path_factory.mktemp("liars"), "fetch")


@pytest.mark.parametrize("lie", LIES)
def test_a_store_that_lies_is_found_out_and_changes_nothing(liars: Pair, lie: str) -> None:
    ours, theirs = liars.fresh("ours"), liars.fresh("theirs")
    version = theirs / "datasets" / "cells" / "versions" / OWN
    before = files_of(ours / "datasets")
    LIES[lie](version)
    with open_store(ours) as store:
        with pytest.raises(VolfsError) as error, served(theirs) as link:
            fetch(store["cells"], link)
        assert len(str(error.value).splitlines()) == 1
        assert [info.number for info in store["cells"].versions()] == [1, 2]
    after = files_of(ours / "datasets")
    arrived = {name for name in after.keys() - before.keys() if not name.startswith("cells/incoming/")}
    assert not arrived and all(after[name] == data for name, data in before.items() if not name.endswith("lock"))
    assert sorted(path.name for path in ours.parent.iterdir()) == ["ours", "ours-now", "theirs", "theirs-now"]
    # The truth is taken afterwards, whatever the lie has left.
    shutil.rmtree(version)
    shutil.copytree(liars.root / "theirs" / "datasets" / "cells" / "versions" / OWN, version)
    with open_store(ours) as store, served(theirs) as link:
        fetch(store["cells"], link)
        with open_store(theirs) as other:
            same(other["cells"], store["cells"])
    with open_store(ours, read_only=True) as looking:
        assert fsck(looking).findings == []
