"""``merge``, ``cherry-pick``, ``revert`` and ``restore`` as commands, and by files of a mount."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.kits import fork_server
from tests.kits.mounts import answer, refused, volfs
from volfs import init_store, open_store
from volfs.testing.kit import mounted
from volfs.testing.waiting import PATIENCE, until


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """``cells`` with a file, changed in other places on ``main`` and ``exp``."""
    path = tmp_path / "store"
    with init_store(path) as opened:
        dataset = opened.create_dataset("cells")
        commit(path, "main", note="a\nb\nc\n")
        dataset.create_branch("exp")
    commit(path, "main", note="a\nb\nours\n")
    commit(path, "exp", note="theirs\nb\nc\n", other="more\n")
    return path


def commit(store: Path, branch: str, **files: str) -> None:
    with open_store(store) as opened:
        into = opened["cells"].branch(branch)
        for name, text in files.items():
            into.put(f"files/{name}", text.encode())
        into.commit(f"on {branch}")


def read(store: Path, name: str, ref: str = "main") -> str:
    with open_store(store, read_only=True) as opened:
        return opened["cells"][ref].read(f"files/{name}").decode()


def test_merge_says_the_version_and_a_repeat_changes_nothing(store: Path) -> None:
    assert volfs(store, "merge", "cells", "exp").stdout == "v4  merge exp\n"
    assert read(store, "note") == "theirs\nb\nours\n" and read(store, "other") == "more\n"
    again = volfs(store, "merge", "cells", "exp")
    assert again.stdout == "v4  merge exp\n" and again.stderr == "volfs: main has v3 already\n"
    forward = answer(store, "merge", "cells@exp", "main")
    assert forward["version"]["version"] == "v4" and forward["made"] and forward["conflicts"] == []


def test_conflicts_are_listed_with_exit_status_1(store: Path) -> None:
    commit(store, "exp", note="theirs\nb\ntheirs\n")
    done = volfs(store, "merge", "cells", "exp", ok=False)
    assert done.returncode == 1 and done.stdout == "files/note: changed by both\n"
    assert done.stderr.startswith("volfs: 1 conflict: nothing was changed")
    done = volfs(store, "merge", "cells", "exp", "--json", ok=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["conflicts"] == [{"key": "files/note", "why": "changed by both"}]
    assert volfs(store, "merge", "cells", "exp", "--theirs", "files/note", "-m", "theirs").stdout == "v5  theirs\n"
    assert read(store, "note") == "theirs\nb\ntheirs\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("merge", "cells", "nobody"), "or version 'nobody'"),
        (("merge", "cells@nobody", "exp"), "has no branch 'nobody'"),
        (("merge", "cells", "exp", "--ours=s0"), "neither a key"),
        (("revert", "cells", "v3"), "does not have v3"),
        (("cherry-pick", "cells", "v3", "-m", "2"), "there is no -m 2"),
        (("cherry-pick", "cells", "v3", "-m", "x"), "invalid int value"),
        (("restore", "cells", "files/none", "--from", "v1"), "neither in v1"),
        (("restore", "cells", "none", "--from", "v1"), "is not a key"),
        (("merge", "cells", "exp", "-m", " "), "needs a message"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(store: Path, words: tuple[str, ...], said: str) -> None:
    assert said in refused(store, *words)
    with open_store(store, read_only=True) as opened:
        assert opened["cells"].branches() == {"main": 2, "exp": 3}


def test_uncommitted_changes_in_the_way_are_named(store: Path) -> None:
    with open_store(store) as opened:
        opened["cells"].branch("main").put("files/other", b"mine")
    assert "uncommitted changes to keys that this version changes: files/other" in refused(
        store, "merge", "cells", "exp"
    )
    assert volfs(store, "cherry-pick", "cells", "v2").stderr.startswith("volfs: there is nothing to change")


def test_unrelated_histories_need_to_be_told(store: Path, tmp_path: Path) -> None:
    with open_store(store) as opened:
        dataset = opened["cells"]
        from volfs.versions.commit.version_writer import VersionWriter

        dataset.create_branch("bare", 1)
        with VersionWriter(dataset, "bare", 0) as writer:
            writer.put("files/alone", b"x")
            writer.prepare("of its own", None)
            from volfs.versions.commit.placement import publish_new

            publish_new(writer, "apart", "made")
    assert "no version in common" in refused(store, "merge", "cells", "apart")
    volfs(store, "merge", "cells", "apart", "--allow-unrelated")
    assert read(store, "alone") == "x" and read(store, "note") == "a\nb\nours\n"


def test_a_mount_that_holds_the_branch_merges_and_takes_the_words_by_file(store: Path, mountpoint: Path) -> None:
    with mounted(store, mountpoint):
        branch = mountpoint / "cells" / "branches" / "main"
        (branch / "files/held").write_text("the mount has the branch now")
        volfs(store, "merge", "cells", "exp", "--author", "Ada")
        until(lambda: (branch / "files/other").exists(), "the mount shows it")
        assert (branch / "files/note").read_text() == "theirs\nb\nours\n"
        assert (branch / "files/held").read_text() == "the mount has the branch now"
        with open_store(store, read_only=True) as opened:
            info = opened["cells"].info(4)
        assert info.author == "Ada" and info.parents == (2, 3)
        (branch / ".volfs/revert").write_text("v4 -m 1")
        until(lambda: not (branch / "files/other").exists(), "the mount shows it")
        (branch / ".volfs/restore").write_text("files/other --from v3 -m 'back again'")
        until(lambda: (branch / "files/other").exists(), "the mount shows it")
        assert (branch / "files/other").read_text() == "more\n"
        action = json.loads((branch / ".volfs/status.json").read_text())["action"]
        assert (action["kind"], action["state"], action["version"]) == ("restore", "done", 6)
        with pytest.raises(OSError, match="Invalid argument"):
            (branch / ".volfs/merge").write_text("exp --bogus")
        assert "--bogus" in (branch / ".volfs/errors.txt").read_text().splitlines()[-1]
        (branch / "files/note").write_text("a\nb\nx\n")
        (branch / ".volfs/commit").write_text("x")
        refusal = refused(store, "revert", "cells", "v2")
        assert "files/note: changed by both" in refusal


def test_a_mount_shows_what_is_open_and_closes_it_by_file(store: Path, mountpoint: Path) -> None:
    commit(store, "exp", note="theirs\nb\ntheirs\n")
    assert volfs(store, "merge", "cells", "exp", "--on", "merging", ok=False).returncode == 1
    with mounted(store, mountpoint):
        branch = mountpoint / "cells" / "branches" / "merging"
        assert (branch / "files/note").read_text() == "a\nb\nours\n"
        assert sorted(os.listdir(branch / ".volfs/merge")) == ["base", "ours", "theirs"]
        assert (branch / ".volfs/merge/theirs/files/note").read_text() == "theirs\nb\ntheirs\n"
        assert (branch / ".volfs/merge/base/files/note").read_text() == "a\nb\nc\n"
        listed = json.loads((branch / ".volfs/conflicts.json").read_text())
        assert listed == [{"key": "files/note", "why": "changed by both"}]
        assert os.readlink(mountpoint / "cells/versions/latest") == "v4"
        (branch / "files/note").write_text("mended\n")
        (branch / ".volfs/commit").write_text("mended by hand")
        (branch / ".volfs/resolve").write_text("mine files/note")
        until(lambda: not (branch / ".volfs/conflicts.json").exists(), "it is closed")
        until((branch / ".volfs/merge").is_file, "the control file is there again")
        assert (branch / "files/note").read_text() == "mended\n"
        main = mountpoint / "cells" / "branches" / "main"
        (main / ".volfs/merge").write_text("merging")
        until(lambda: (main / "files/note").read_text() == "mended\n", "main moves forward")
        (main / "files/held").write_text("main is the mount's")
        picked = volfs(store, "revert", "cells", "v1", "--on", "back", ok=False)
        assert picked.returncode == 1 and "files/note: changed by ours, removed by theirs" in picked.stdout
        back = mountpoint / "cells" / "branches" / "back"
        until((back / ".volfs/conflicts.json").exists)
        assert sorted(os.listdir(back / ".volfs/merge")) == ["base", "ours"], "and theirs is empty"
        (back / ".volfs/resolve").write_text("ours")
        until(lambda: not (back / ".volfs/conflicts.json").exists(), "it is closed")
        (main / ".volfs/merge").write_text("back")
        assert (main / "files/note").read_text() == "mended\n"


POINTS = ["combine.decided", "combine.written", "combine.prepared", "commit.renamed", "commit.ref", "commit.indexed"]


@pytest.mark.parametrize("point", [*POINTS, "combine.forwarded"])
def test_a_kill_at_any_step_leaves_nothing_half_made_and_the_repeat_finishes(store: Path, point: str) -> None:
    if point == "combine.forwarded":
        volfs(store, "branch", "cells", "behind", "v1")
    into = "cells@behind" if point == "combine.forwarded" else "cells"
    command = [sys.executable, "-m", "volfs", "--store", str(store), "merge", into, "exp"]
    environment = {**os.environ, "VOLFS_CRASH_AT": point}
    done = fork_server.run(command, env=environment, capture_output=True, timeout=PATIENCE)
    assert done.returncode == -9, done.stderr
    volfs(store, "fsck")
    volfs(store, *command[5:])
    branch = into.partition("@")[2] or "main"
    assert read(store, "other", branch) == "more\n"
    with open_store(store, read_only=True) as opened:
        dataset = opened["cells"]
        assert len(dataset.versions()) == (3 if branch == "behind" else 4)
        assert dataset.branches()[branch] == (3 if branch == "behind" else max(dataset.graph.versions))
        assert not list(dataset.layout.root.glob("versions/.*.partial"))
        assert not list(dataset.layout.working(branch).root.glob("tmp/*"))


@pytest.mark.parametrize(
    "point", ["rebase.picked", "rebase.picked:2", "commit.ref", "commit.ref:2", "combine.forwarded", "rebase.moved"]
)
def test_a_rebase_that_is_killed_has_moved_the_branch_once_or_not_at_all(store: Path, point: str) -> None:
    commit(store, "exp", third="3\n")
    command = [sys.executable, "-m", "volfs", "--store", str(store), "rebase", "cells@exp", "main"]
    environment = {**os.environ, "VOLFS_CRASH_AT": point}
    done = fork_server.run(command, env=environment, capture_output=True, timeout=PATIENCE)
    assert done.returncode == -9, done.stderr
    with open_store(store) as opened:
        head = opened["cells"].branches()["exp"]
        moved = point in ("combine.forwarded", "rebase.moved")
        assert (head > 4) == moved, "the old head is v4"
    volfs(store, *command[5:])
    assert read(store, "third", "exp") == "3\n" and read(store, "note", "exp") == "theirs\nb\nours\n"
    with open_store(store) as opened:
        dataset = opened["cells"]
        line = list(dataset.graph.first_parents(dataset.branches()["exp"]))
        assert len(line) == 4 and line[2:] == [2, 1]
        dataset.branch("exp").combine("rebase", "v1")
        assert not list(dataset.layout.root.glob("versions/.*.partial"))
    volfs(store, "fsck")


def test_commands_rebase_and_move(store: Path) -> None:
    assert volfs(store, "rebase", "cells@exp", "main").stdout == "v4  on exp\n"
    again = volfs(store, "rebase", "cells@exp", "main")
    assert again.stdout == "v4  on exp\n" and again.stderr == "volfs: exp stands on v2 already\n"
    assert volfs(store, "mv", "cells@exp", "files/other", "files/more/other").stdout.startswith("v5  mv files/other")
    assert read(store, "more/other", "exp") == "more\n"
    assert "there is something at files/note" in refused(store, "mv", "cells@exp", "files/more/other", "files/note")
