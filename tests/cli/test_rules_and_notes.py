"""``volfs note``, and ``volfs config`` with protect= and require-message=: said apart from versions, and asked of new
ones."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import volfs as api
from tests.kits.cells import CELLS
from tests.kits.mounts import answer, refused, volfs
from volfs.storage.files import read_json
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
