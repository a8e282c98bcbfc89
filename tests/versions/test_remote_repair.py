"""Bytes that a store has lost, brought back from another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import volfs
from tests.kits.remotes import files_of, history, in_this_process
from volfs import init_store, open_store
from volfs.errors import NotFound
from volfs.storage.manifest import Record
from volfs.versions.check.fsck import fsck
from volfs.versions.committed.version_files import VersionFiles, read_manifest
from volfs.versions.remotes import connection, exchange


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(connection, "connected", in_this_process)
    monkeypatch.setattr(exchange, "connected", in_this_process)
    with init_store(tmp_path / "one") as store:
        history(store.create_dataset("cells"))
    volfs.clone(str(tmp_path / "one"), tmp_path / "other")
    return tmp_path


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("harm", [flip, shorten, Path.unlink])
def test_every_payload_that_is_lost_comes_back(root: Path, harm: Callable[[Path], None]) -> None:
    """Each file that holds payloads is harmed, all at once; afterwards every byte is what it was."""
    versions = root / "other" / "datasets" / "cells" / "versions"
    before, modes = files_of(versions), {path: path.stat().st_mode for path in versions.rglob("key")}
    with open_store(root / "other") as store:
        held = {
            record.payload.file
            for info in store["cells"].versions()
            for record in _records(store["cells"], info.number)
            if record.payload is not None and record.payload.length
        }
    for name in held:
        harm(versions / name)
    with open_store(root / "other") as store:
        done = store["cells"].repair("origin")
        assert done.payloads and not done.left
    assert files_of(versions) == before
    assert {path: path.stat().st_mode for path in modes} == modes
    with open_store(root / "other", read_only=True) as store:
        assert fsck(store).findings == []
    with open_store(root / "other") as store:
        assert store["cells"].repair(str(root / "one")).payloads == 0


def test_what_the_other_store_has_lost_too_is_counted_and_stays(root: Path) -> None:
    for name in ("one", "other"):
        flip(root / name / "datasets" / "cells" / "versions" / "00000001" / "files" / "notes.txt")
    with open_store(root / "other") as store:
        done = store["cells"].repair("origin")
        assert (done.payloads, done.left) == (0, 1)
        with pytest.raises(NotFound):
            store["cells"].repair("nowhere")


def _records(dataset: volfs.Dataset, number: int) -> list[Record]:
    return list(read_manifest(VersionFiles.of(dataset.objects, number)))
