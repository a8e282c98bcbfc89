"""Ref files: a damaged one is an error for that ref, never another version, and harms no other."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from tests.kits.stores import START, new_store, volume, write_version
from volfs import open_store
from volfs.errors import AlreadyThere, BadName, Damaged, NotFound, VolfsError
from volfs.model.refs import RefKind
from volfs.storage.files import read_json
from volfs.versions.check.fsck import fsck
from volfs.versions.ref_file import read_ref

REFS = {"main": 3, "side": 2, "paper": 2, "old": 1}


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "store"
    with new_store(root) as store:
        dataset = store.create_dataset("cells")
        for number in range(3):
            write_version(dataset, volume((8, 8, 8), number), parent=number, time_ns=START + number * 10**10)
        dataset.create_branch("side", "v2")
        dataset.create_tag("paper", "v2")
        dataset.create_tag("old", "v1")
        write_version(store.create_dataset("other"), volume((8, 8, 8)))
    return root


def path_of(root, name):
    return root / "datasets/cells/refs" / ("heads" if name in ("main", "side") else "tags") / f"{name}.json"


def resolved(root, *, read_only=False) -> dict[str, int | str]:
    """The version that each ref names, or what it says instead; opened anew."""
    found: dict[str, int | str] = {}
    with open_store(root, read_only=read_only) as store:
        assert store["other"].resolve("main") == 1
        for name in REFS:
            try:
                found[name] = store["cells"].resolve(name)
            except VolfsError as error:
                assert isinstance(error, Damaged), error
                found[name] = str(error)
    return found


def test_a_ref_names_its_version_by_number_and_content_id(root):
    with open_store(root) as store:
        dataset = store["cells"]
        for name, number in REFS.items():
            ref = read_ref(path_of(root, name))
            assert (ref.version, ref.content_id) == (number, dataset.info(number).content_id)
        dataset.store.create_dataset("empty")
    assert read_json(root / "datasets/empty/refs/heads/main.json") == {"version": 0}


def test_a_flipped_bit_in_a_ref_is_damaged_and_never_another_version(root):
    path = path_of(root, "paper")
    raw = path.read_bytes()
    with open_store(root) as store:
        dataset = store["cells"]
        for at in range(len(raw)):
            for bit in range(8):
                damaged = bytearray(raw)
                damaged[at] ^= 1 << bit
                path.write_bytes(damaged)
                try:
                    assert dataset.read_ref(RefKind.TAG, "paper") == 2
                except Damaged as error:
                    assert "tags/paper.json" in str(error)
                    assert "paper" not in dataset.ref_files().tags


@pytest.mark.parametrize("name", REFS)
def test_a_damaged_ref_harms_itself_alone_and_is_mended_by_hand(root, name):
    path = path_of(root, name)
    path.write_bytes(path.read_bytes().replace(b'"version": ', b'"version": 1'))
    found = resolved(root)
    said = found.pop(name)
    assert isinstance(said, str)
    assert 'write {"version": 12} into it' in said
    assert found == {each: number for each, number in REFS.items() if each != name}
    with open_store(root, read_only=True) as store:
        findings = fsck(store, datasets=["cells"]).findings
    assert any(path.name in finding.where and "checksum" in finding.what for finding in findings)
    path.write_text(f'{{"version": {REFS[name]}}}')
    assert resolved(root) == REFS
    with open_store(root) as store:
        assert fsck(store).clean


def test_the_finding_of_a_damaged_branch_says_where_it_stood(root):
    path_of(root, "main").write_text("{")
    with open_store(root) as store:
        (finding,) = [one for one in fsck(store, datasets=["cells"]).findings if "main.json" in one.where]
    assert "the newest version made on 'main' is v3" in finding.what


def test_a_ref_of_a_version_whose_content_id_differs_is_damaged(root):
    path = path_of(root, "paper")
    shutil.copyfile(path_of(root, "old"), path)
    assert resolved(root)["paper"] == 1  # a whole document of this dataset
    document = read_json(path)
    path.write_text(json.dumps(document | {"version": 2}))
    said = resolved(root)["paper"]
    assert isinstance(said, str)
    assert "by the content id" in said


def test_refs_of_an_older_volfs_are_taken_as_they_are(root):
    for name, number in REFS.items():
        path_of(root, name).write_text(json.dumps({"version": number}, indent=2) + "\n")
    assert resolved(root) == REFS
    with open_store(root) as store:
        assert fsck(store).clean


HOSTILE = [
    "",
    "{",
    "[]",
    "{}",
    '{"version": null}',
    '{"version": true}',
    '{"version": 2.0}',
    '{"version": "2"}',
    '{"version": [2]}',
    '{"version": -1}',
    '{"version": 99}',
    '{"version": 1' + 30 * "0" + "}",
    '{"version": 1' + 9999 * "0" + "}",
    '{"version": 1e400}',
    '{"version": 2, "content_id": 5}',
    '{"version": 2, "content_id": "../.."}',
    '{"version": 2, "checksum": {}}',
    '{"version": 2, "checksum": {"crc32c": 5}}',
    '{"version": ' + 50_000 * "[" + "}",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", ["main", "paper"])
def test_a_hostile_ref_harms_itself_alone(root, name, text):
    path_of(root, name).write_text(text)
    found = resolved(root)
    assert isinstance(found.pop(name), str)
    assert found == {each: number for each, number in REFS.items() if each != name}
    with open_store(root) as store:
        assert [f for f in fsck(store).findings if path_of(root, name).name in f.where]


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "dangling"])
def test_a_ref_that_is_no_ordinary_file_harms_itself_alone(root, kind):
    path = path_of(root, "paper")
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("old.json" if kind == "link" else "nothing")
    found = resolved(root)
    assert isinstance(found.pop("paper"), str)
    assert found == {each: number for each, number in REFS.items() if each != "paper"}


@pytest.mark.parametrize("name", [b"\xff", b"a b", b"v7", b"latest", b"\x1b[31m", b"x" * 200])
def test_a_file_whose_name_is_no_refs_is_left_alone_and_named(root, name):
    (root / "datasets/cells/refs/tags" / f"{os.fsdecode(name)}.json").write_text('{"version": 1}')
    assert resolved(root) == REFS
    with open_store(root) as store:
        assert store["cells"].tags() == {"paper": 2, "old": 1}
        (finding,) = fsck(store).findings
    assert "rename or remove it" in finding.what
    assert (finding.where + finding.what).isprintable()


def test_a_branch_is_never_made_over_a_damaged_ref(root):
    path_of(root, "side").write_text("{")
    path_of(root, "old").write_text("{")
    with open_store(root) as store:
        dataset = store["cells"]
        loose = dataset.layout.working("side").root / "top/files/kept"
        loose.parent.mkdir(parents=True, exist_ok=True)
        loose.write_bytes(b"kept")
        for name in ("side", "old"):
            with pytest.raises(Damaged):
                dataset.create_branch(name, "v1")
            with pytest.raises(Damaged):
                dataset.create_tag(name, "v1")
        assert loose.read_bytes() == b"kept"
        dataset.delete_tag("old")
        dataset.create_tag("old", "v1")
    with pytest.raises(AssertionError):
        assert resolved(root) == REFS


@pytest.mark.parametrize("name", ["HEAD", "a..b", "..", "a..", "main..side"])
def test_names_that_mean_something_else_are_no_names_of_refs(root, name):
    with open_store(root) as store:
        for make in (store["cells"].create_branch, store["cells"].create_tag):
            with pytest.raises(BadName):
                make(name, "v1")


@pytest.mark.parametrize("name", ["HEAD", "a..b"])
def test_refs_so_named_by_an_older_volfs_are_still_there(root, name):
    path_of(root, name).write_text('{"version": 1}')
    with open_store(root) as store:
        assert store["cells"].resolve(name) == 1
        with pytest.raises(AlreadyThere):
            store["cells"]._check_free(name)
        assert fsck(store).clean
        store["cells"].delete_tag(name)
        with pytest.raises(NotFound):
            store["cells"].resolve(name)
