"""``volfs note``, ``volfs commit --meta``, and ``volfs config`` with protect= and require-message=: what is said of
versions, apart from them and in them, and what is asked of new ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import volfs as api
from tests.kits.cells import CELLS
from tests.kits.mounts import answer, refused, volfs
from volfs.storage.files import read_json, write_json
from volfs.testing.kit import mounted


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two versions of a small image."""
    store = tmp_path / "store"
    volfs(store, "init")
    np.save(tmp_path / "small.npy", CELLS[:8, :16, :16])
    volfs(store, "import", "small", tmp_path / "small.npy", "--chunks", "8,8,8", "--levels", "1")
    change(store, "main", "files/a")
    volfs(store, "commit", "small", "-m", "Second")
    return store


def change(store: Path, branch: str, key: str) -> None:
    with api.open_store(store) as opened:
        opened["small"].branch(branch).put(key, key.encode())


class TestNotes:
    def test_a_note_is_apart_from_the_version_and_found_by_its_content(self, store: Path) -> None:
        before = answer(store, "log", "small")
        volfs(store, "note", "small@v2", "Stained twice", "--author", "ada")
        volfs(store, "note", "small@v2", "Stained twice", "--author", "ada")  # said already
        volfs(store, "note", "small@main", "And cut", "--author", "bob")
        assert [(each["author"], each["text"]) for each in answer(store, "note", "small@v2")] == [
            ("ada", "Stained twice"),
            ("bob", "And cut"),
        ]
        assert re.search("ada: Stained twice\n.*bob: And cut\n", volfs(store, "note", "small@v2").stdout)
        assert answer(store, "note", "small@v1") == []
        assert "ada: Stained twice" in volfs(store, "log", "small").stdout
        assert "bob: And cut" in volfs(store, "show", "small@v2").stdout
        assert [len(each.get("notes", [])) for each in answer(store, "log", "small")] == [2, 0]
        assert [each["content_id"] for each in answer(store, "log", "small")] == [x["content_id"] for x in before]
        assert [path.stem for path in (store / "datasets/small/notes").iterdir()] == [before[0]["content_id"]]
        assert volfs(store, "fsck").stdout == "nothing is wrong\n"
        volfs(store, "note", "small@v2", "--delete")
        assert answer(store, "note", "small@v2") == []
        volfs(store, "note", "small@v2", "--delete")

    def test_a_note_needs_a_version_and_a_text(self, store: Path) -> None:
        assert "no version v9" in refused(store, "note", "small@v9", "text")
        assert "some text" in refused(store, "note", "small@v1", " ")
        assert volfs(store, "note", "small", "text", ok=False).returncode == 2
        assert "read-only" in refused(store, "--read-only", "note", "small@v1", "text")


class TestMeta:
    def test_what_is_said_of_a_version_is_in_it_and_in_its_content_id(self, store: Path, tmp_path: Path) -> None:
        change(store, "main", "files/b")
        made = answer(store, "commit", "small", "-m", "Third", "--meta", "instrument=SBEM-2", "--meta", "run.no=17=b")
        said = {"instrument": "SBEM-2", "run.no": "17=b"}
        document = store / "datasets/small/versions/00000003/version.json"
        assert read_json(document)["meta"] == said
        assert "meta" not in read_json(store / "datasets/small/versions/00000002/version.json")
        assert answer(store, "show", "small@v3")["meta"] == said
        assert "    instrument=SBEM-2\n    run.no=17=b\n" in volfs(store, "show", "small@v3").stdout
        with mounted(store, tmp_path / "mnt") as mount:
            shown = json.loads((mount / "small/versions/v3/version.json").read_text())
            assert shown["meta"] == said
            assert "meta" not in json.loads((mount / "small/versions/v2/version.json").read_text())
        assert volfs(store, "fsck").stdout == "nothing is wrong\n"
        change(store, "main", "files/c")
        amended = answer(store, "commit", "small", "--amend")
        assert amended["content_id"] != made["content_id"]
        assert answer(store, "show", "small")["meta"] == said
        altered = store / f"datasets/small/versions/{int(amended['version'][1:]):08d}/version.json"
        write_json(altered, {**read_json(altered), "meta": {**said, "instrument": "SBEM-3"}})
        assert "content id does not match" in volfs(store, "fsck", ok=False).stdout

    @pytest.mark.parametrize("meta", ["instrument", "=x", "a b=c", "x=\0"])
    def test_what_cannot_be_said_is_refused_and_nothing_is_committed(self, store: Path, meta: str) -> None:
        change(store, "main", "files/b")
        refused(store, "commit", "small", "-m", "Third", "--meta", meta)
        refused(store, "commit", "small", "-m", "Third", "--meta", "x=1", "--meta", "x=2")
        assert volfs(store, "commit", "small", "--amend", "--meta", "x=1", ok=False).returncode == 2
        assert answer(store, "branch", "small")["main"] == 2

    def test_a_mount_that_holds_the_branch_says_it(self, store: Path, tmp_path: Path) -> None:
        with mounted(store, tmp_path / "mnt") as mount:
            (mount / "small/branches/main/files/b").write_text("b")
            made = answer(store, "commit", "small", "-m", "Third", "--meta", "x=1", "--meta", "y=two words")
            shown = json.loads((mount / "small/versions" / made["version"] / "version.json").read_text())
            assert shown["meta"] == {"x": "1", "y": "two words"}


class TestRules:
    def test_a_protected_branch_is_moved_by_merges_and_fast_forwards_alone(self, store: Path, tmp_path: Path) -> None:
        volfs(store, "branch", "small", "exp")
        volfs(store, "branch", "small", "other")
        volfs(store, "config", "small", "protect=main,other")
        assert answer(store, "config", "small")["protect"] == ["main", "other"]
        change(store, "main", "files/b")
        for command in (
            ("commit", "small", "-m", "No"),
            ("import", "small", tmp_path / "small.npy"),
            ("branch", "small", "other", "--delete"),
            ("branch", "small", "other", "another", "-m"),
            ("branch", "small", "other", "v1", "-f"),
        ):
            assert "is protected" in refused(store, *command), command
        assert answer(store, "status", "small")["clean"] is False, "nothing of it is lost"
        volfs(store, "discard", "small")
        assert "is protected" in refused(store, "revert", "small", "v2")
        change(store, "exp", "files/c")
        volfs(store, "commit", "small@exp", "-m", "On exp")
        volfs(store, "merge", "small", "exp")
        assert answer(store, "branch", "small")["main"] == 3
        change(store, "exp", "files/d")
        volfs(store, "commit", "small@exp", "-m", "On exp again")
        volfs(store, "merge", "small", "exp", "--no-ff", "-m", "Merge exp")
        assert answer(store, "branch", "small")["main"] == 5
        volfs(store, "config", "small", "protect=")
        change(store, "main", "files/b")
        volfs(store, "commit", "small", "-m", "Yes")
        assert "protect" not in read_json(store / "datasets/small/dataset.json")
        volfs(store, "config", "small", "protect=main")
        change(store, "main", "files/e")
        assert "is protected" in refused(store, "commit", "small", "--amend")
        assert answer(store, "branch", "small")["main"] == 6

    def test_messages_are_as_they_are_asked_for(self, store: Path, tmp_path: Path) -> None:
        volfs(store, "config", "small", r"require-message=^[A-Z]+-\d+: ")
        change(store, "main", "files/b")
        assert "does not match" in refused(store, "commit", "small", "-m", "no number")
        assert "does not match" in refused(store, "import", "small", tmp_path / "small.npy")
        with mounted(store, tmp_path / "mnt") as mount:
            control = mount / "small" / "branches" / "main" / ".volfs" / "commit"
            with pytest.raises(OSError):
                control.write_text("no number\n")
            control.write_text("LAB-7: by file\n")
        assert answer(store, "log", "small")[0]["message"] == "LAB-7: by file"

    @pytest.mark.parametrize("setting", ["protect=../x", "require-message=(", "protected=main"])
    def test_what_is_no_rule_is_refused(self, store: Path, setting: str) -> None:
        before = (store / "datasets/small/dataset.json").read_bytes()
        refused(store, "config", "small", setting)
        assert (store / "datasets/small/dataset.json").read_bytes() == before
