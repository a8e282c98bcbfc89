"""Documents of a store, damaged bit by bit or hostile on purpose: what they describe is right or an error, the rest is
as it was, and fsck names each."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits.stores import START, array_at, new_store, volume, write_version
from volfs import open_store
from volfs.errors import Damaged, NotFound, StoreFormat, VolfsError
from volfs.model.box import Box
from volfs.storage.directory_backend import DirectoryBackend
from volfs.storage.files import read_json, write_json
from volfs.versions.check.fsck import fsck
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.committed.version_files import VersionFiles, read_version
from volfs.versions.dataset_file import DatasetFile
from volfs.versions.ref_file import read_ref

DOCUMENTS = {
    "volfs.json": "volfs.json",
    "dataset": "datasets/cells/dataset.json",
    "head": "datasets/cells/refs/heads/main.json",
    "tag": "datasets/cells/refs/tags/paper.json",
    "version": "datasets/cells/versions/00000002/version.json",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("documents") / "store"
    with new_store(root) as store:
        dataset = store.create_dataset("cells")
        for number in range(3):
            write_version(dataset, volume((8, 8, 8), number), parent=number, time_ns=START + number * 10**10)
        dataset.create_tag("paper", "v2")
        write_version(store.create_dataset("other"), volume((8, 8, 8), 9))
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shutil.copytree(whole, tmp_path / "store")
    return tmp_path / "store"


def shown(root: Path, *, read_only: bool = False) -> dict[str, Any]:
    """The voxels under every ref, or the error; what cannot be opened at all is an error for everything."""
    found: dict[str, Any] = {}
    names = ["v1", "v2", "v3", "main", "paper", "latest"]
    try:
        with open_store(root, read_only=read_only) as store:
            for dataset, ref in [*(("cells", name) for name in names), ("other", "main")]:
                try:
                    number = store[dataset].resolve(ref)
                    array = array_at(store[dataset].version(number))
                    payloads = array.payloads(Box.whole(array.meta.grid.grid_shape))
                    found[f"{dataset}@{ref}"] = [payloads[at].read() for at in sorted(payloads)]
                except VolfsError as error:
                    found[f"{dataset}@{ref}"] = error
    except VolfsError as error:
        found["store"] = error
    return found


def flips(raw: bytes) -> Iterator[bytes]:
    for at in range(len(raw)):
        for bit in range(8):
            damaged = bytearray(raw)
            damaged[at] ^= 1 << bit
            yield bytes(damaged)


def test_every_flip_in_every_document_is_found_or_changes_nothing(root):
    backend = DirectoryBackend(root / "datasets/cells", root / "lock")
    readers = {
        "volfs.json": lambda path: read_json(path),
        "dataset": lambda path: DatasetFile.read(backend, "cells"),
        "head": read_ref,
        "tag": read_ref,
        "version": lambda path: read_version(VersionFiles.of(backend.below("versions"), 2)),
    }
    for kind, name in DOCUMENTS.items():
        path = root / name
        raw = path.read_bytes()
        right = readers[kind](path)
        found = 0
        for damaged in flips(raw):
            path.write_bytes(damaged)
            try:
                assert readers[kind](path) == right, (kind, damaged)
            except Damaged as error:
                assert path.name in str(error)
                found += 1
        path.write_bytes(raw)
        assert found > len(raw)


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_store_with_a_flipped_bit_shows_the_right_voxels_or_an_error_and_fsck_names_it(root, kind, soak):
    path = root / DOCUMENTS[kind]
    raw = path.read_bytes()
    right = shown(root)
    assert not [error for error in right.values() if isinstance(error, Exception)]
    every = list(flips(raw))
    for damaged in random.Random(1).sample(every, 400 if soak else 4):
        path.write_bytes(damaged)
        for read_only in (True, False):
            for ref, seen in shown(root, read_only=read_only).items():
                assert isinstance(seen, Damaged | StoreFormat) or seen == right[ref], (ref, damaged)
                assert kind == "volfs.json" or not (ref == "other@main" and isinstance(seen, Exception))
        if read_json_or_none(path) != json.loads(raw) and kind != "volfs.json":
            with open_store(root, read_only=True) as store:
                assert [one for one in fsck(store).findings if path.name in one.where + one.what]
        path.write_bytes(raw)
        assert shown(root) == right


def read_json_or_none(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


HOSTILE: list[Any] = [
    None,
    True,
    -1,
    0,
    10**30,
    10**40,
    1.5,
    float("inf"),
    "",
    "x",
    "\x00\x1b[31m\n\udcff",
    "../../../etc/passwd",
    "x" * 100_000,
    [],
    [[[[]]]],
    [10**30],
    [-1],
    [None],
    {},
    {"a": {"b": 10**30}},
]


@pytest.mark.parametrize("kind", ["dataset", "head", "tag", "version"])
@pytest.mark.parametrize("sealed", [True, False])
def test_hostile_values_in_every_field_of_every_document_harm_what_they_describe_alone(
    root, kind, sealed, caplog, soak
):
    caplog.set_level(logging.CRITICAL)
    path = root / DOCUMENTS[kind]
    whole = read_json(path)
    right = shown(root)
    pick = random.Random(3)
    for field in whole:
        for value in HOSTILE if soak else pick.sample(HOSTILE, 3):
            document = {**whole, field: value}
            if sealed:
                write_json(path, document)
            else:
                path.write_text(json.dumps(document))
            for suffix in ("", "-wal", "-shm") if kind == "version" else ():
                (root / f"catalog.sqlite{suffix}").unlink(missing_ok=True)
            got = shown(root)
            assert got["other@main"] == right["other@main"], (field, value)
            for ref, seen in got.items():
                if isinstance(seen, Exception):
                    assert isinstance(seen, Damaged | NotFound), (field, value, seen)
                elif not (kind in ("head", "tag") and not sealed):  # a number without a checksum is taken at its word
                    assert seen == right[ref] or field == "version", (field, value, ref)
            with open_store(root, read_only=True) as store:
                assert store.datasets() == ["cells", "other"]
                fsck(store)
    write_json(path, whole)
    assert shown(root) == right


@pytest.mark.parametrize("text", ["", "\0" * 100, "[" * 200_000, '{"a":' * 100_000, "null", "[]", '{"version": NaN}'])
@pytest.mark.parametrize("kind", ["dataset", "head", "tag", "version"])
def test_what_is_no_document_harms_what_it_stands_for_alone(root, kind, text):
    right = shown(root)
    (root / DOCUMENTS[kind]).write_text(text)
    got = shown(root)
    assert got["other@main"] == right["other@main"]
    assert all(isinstance(seen, Damaged) or seen == right[ref] for ref, seen in got.items())
    with open_store(root, read_only=True) as store:
        assert [one for one in fsck(store).findings if one.dataset == "cells"]


def test_an_intent_that_cannot_be_read_is_settled_by_what_the_branches_say(root):
    intent = root / "datasets/cells/versions/.00000003.publish.json"
    intent.write_text("{")
    right = {**shown(root)}
    assert not intent.exists()
    assert not isinstance(right["cells@main"], Exception)
    with open_store(root) as store:
        assert fsck(store).clean


def test_a_version_outside_the_times_that_can_be_kept_is_not_made(root):
    with open_store(root) as store, VersionWriter(store["cells"], "main", 3) as writer:
        writer.put("files/x", b"x")
        with pytest.raises(VolfsError, match="between 1970 and 2262"):
            writer.publish("late", time_ns=10**40)
