"""``log``, ``show``, and the verbs that move, rename and force refs, as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import volfs as library
from tests.kits.cells import make_store
from tests.kits.mounts import answer, refused, volfs
from tests.kits.stores import START, new_store, volume, write_version
from volfs.versions.commit.version_writer import VersionWriter


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("history") / "store")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v1, v2 on main; v3, v4 on exp at v1; v5 merges; v6 on main."""
    root = tmp_path_factory.mktemp("merged") / "store"
    with new_store(root) as store:
        dataset = store.create_dataset("cells")
        write_version(dataset, volume((16, 16, 16)), time_ns=START)

        def change(parent: int, branch: str, corner: int, more: tuple[int, ...] = ()) -> None:
            number = dataset.next_number()
            if more:
                with VersionWriter(dataset, branch, parent, extra_parents=more) as writer:
                    writer.put("files/merged.txt", b"")
                    writer.publish("merge", "ada", START + number * 10**10)
                return
            write_version(
                dataset,
                volume((16, 16, 16), number),
                parent=parent,
                branch=branch,
                coords=[(corner,) * 3],
                created=False,
                message=f"change {number}",
                time_ns=START + number * 10**10,
            )

        change(1, "main", 0)
        dataset.create_branch("exp", "v1")
        change(1, "exp", 1)
        change(3, "exp", 0)
        change(2, "main", 0, more=(4,))
        change(5, "main", 1)
    return root


def versions(store: Path, *arguments: str) -> list[str]:
    return [version["version"] for version in answer(store, "log", *arguments)]


def test_log_follows_merges_paths_boxes_and_words(merged: Path) -> None:
    assert versions(merged, "cells") == ["v6", "v5", "v4", "v3", "v2", "v1"]
    assert versions(merged, "cells", "--first-parent") == ["v6", "v5", "v2", "v1"]
    assert versions(merged, "cells@exp") == ["v4", "v3", "v1"]
    assert versions(merged, "cells/s0") == ["v6", "v4", "v3", "v2", "v1"]
    assert versions(merged, "cells/s0", "--box", "a0-4_b0-4_c0-4") == ["v4", "v2", "v1"]
    assert versions(merged, "cells:files") == ["v5"]
    assert versions(merged, "cells", "--author", "ada") == ["v5"]
    assert versions(merged, "cells", "--grep", "change [23]") == ["v3", "v2"]
    assert versions(merged, "cells", "--since", "2100-01-01") == []
    assert versions(merged, "cells", "-n", "2") == ["v6", "v5"]
    assert versions(merged, "cells@main@2023-11-14T22:13:41") == ["v2", "v1"]


def test_a_graph_is_drawn_as_gits(merged: Path) -> None:
    lines = volfs(merged, "log", "cells", "--graph", "--oneline").stdout.splitlines()
    drawn = [line.split("v")[0].rstrip() for line in lines]
    assert drawn == ["*", "*", "|\\", "| *", "| *", "* |", "|/", "*"]
    assert "v4" in lines[3] and "change 4" in lines[3]


def test_stat_tells_keys_bytes_and_the_box_around_them(merged: Path) -> None:
    (change,) = answer(merged, "log", "cells@v6", "-n", "1", "--stat")[0]["changes"]
    assert change["path"] == "zarr/s0" and change["put"] == 1 and change["bytes"] > 0
    assert change["box"] == "a8-16_b8-16_c8-16"
    assert "a8-16_b8-16_c8-16" in volfs(merged, "log", "cells/s0", "--stat", "-n", "1").stdout


def test_show_tells_one_version_and_what_it_changed(merged: Path) -> None:
    said = answer(merged, "show", "cells@main~1")
    assert said["version"] == "v5" and said["parents"] == ["v2", "v4"] and said["message"] == "merge"
    assert [change["path"] for change in said["changes"]] == ["files"]
    shown = volfs(merged, "show", "cells").stdout
    assert shown.startswith("v6  (main)") and "change 6" in shown and "zarr/s0" in shown
    assert answer(merged, "show", f"cells@{said['content_id'][:8]}") == said
    assert "whole version" in refused(merged, "show", "cells/s0")


def test_the_log_of_refs(own: Path) -> None:
    volfs(own, "branch", "cells", "trial", "v1")
    volfs(own, "branch", "cells", "-f", "trial", "v2")
    volfs(own, "branch", "cells", "-m", "trial", "kept")
    volfs(own, "tag", "cells", "paper", "v1")
    volfs(own, "tag", "cells", "-f", "paper", "v2")
    volfs(own, "branch", "cells", "-d", "kept")
    found = answer(own, "log", "cells", "--refs")[:6]
    assert [(c["ref"], c["from"], c["to"]) for c in found] == [
        *(("kept", 2, None), ("paper", 1, 2), ("paper", None, 1)),
        *(("kept", None, 2), ("trial", 1, 2), ("trial", None, 1)),
    ]
    assert found[3]["was"] == "trial" and all(c["who"] and c["why"] for c in found)
    shown = volfs(own, "log", "cells", "--refs", "-n", "1").stdout
    assert "kept" in shown and "v2 removed" in shown
    path = own / "datasets/cells/refs/log.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"to": 2', b'"to": 1', 1))
    done = volfs(own, "log", "cells", "--refs", "--json")
    assert len(json.loads(done.stdout)) > 6 and "does not match its checksum" in done.stderr
    assert "refs/log.jsonl" in volfs(own, "fsck", ok=False).stdout


def test_branches_are_moved_and_renamed(own: Path) -> None:
    assert answer(own, "branch", "cells", "trial", "v1") == {"trial": 1}
    assert answer(own, "branch", "cells", "-f", "trial") == {"trial": 2}
    assert answer(own, "branch", "cells", "-f", "fresh@v1") == {"fresh": 1}
    assert answer(own, "branch", "cells", "-m", "trial", "kept") == {"kept": 2}
    assert answer(own, "tag", "cells", "-f", "paper", "v1") == {"paper": 1}
    assert answer(own, "tag", "cells", "-f", "paper") == {"paper": 2}
    assert "already" in refused(own, "tag", "cells", "paper", "v1")
    assert volfs(own, "tag", "cells", "paper", "v2").stderr == "volfs: tag 'paper' is at v2 already\n"
    assert volfs(own, "branch", "cells", "kept", "v2").stderr == "volfs: branch 'kept' is at v2 already\n"
    assert "already" in refused(own, "branch", "cells", "-m", "kept", "main")
    assert "no branch 'trial'" in refused(own, "branch", "cells", "-m", "trial", "other")
    with library.open_store(own) as opened:
        opened["cells"].branch("kept").put("files/notes", b"x")
    assert "uncommitted" in refused(own, "branch", "cells", "-f", "kept", "v1")


@pytest.mark.parametrize(
    "arguments",
    [
        ("branch", "cells", "-m", "a"),
        ("branch", "cells", "-m", "a", "b", "-d"),
        ("branch", "cells", "-f"),
        ("tag", "cells", "-f", "-d", "a"),
        ("log", "cells@v1", "--all"),
        ("log", "cells", "-n", "0"),
    ],
)
def test_wrong_usage_says_so(store: Path, arguments: tuple[str, ...]) -> None:
    assert volfs(store, *arguments, ok=False).returncode == 2


def test_a_key_may_be_written_as_a_path(merged: Path) -> None:
    one = [answer(merged, "log", f"cells{key}") for key in (":zarr/s0", "/zarr/s0", "/s0")]
    assert one[0] and one[0] == one[1] == one[2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("log", "cells@HEAD"), "HEAD is no ref here"),
        (("log", "cells@main~99"), "version before it"),
        (("log", "cells@main^2"), "no ^2 of it"),
        (("log", "cells@main@yesterday"), "no time"),
        (("log", "cells", "--grep", "("), "no regular expression"),
        (("log", "cells", "--since", "soon"), "no time"),
        (("log", "cells/nowhere"), "ever had"),
        (("log", "cells", "--box", "q0-4"), "is no box"),
        (("log", "cells:files", "--box", "z0-4"), "a box are those of an array"),
        (("blame", "cells/labels", "0,0,0"), "there is none at labels"),
        (("blame", "cells", "0,0"), "is no voxel of an array"),
        (("blame", "cells", "0,0,999999"), "is no voxel of an array"),
        (("blame", "cells", "here"), "is no voxel: write"),
        (("show", "cells@v9"), "no version v9"),
        (("ls", "cells@main@2000-01-01:zarr"), "younger"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(store: Path, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in refused(store, *arguments)


def test_a_time_in_a_ref_is_no_key(store: Path) -> None:
    now = answer(store, "ls", "cells@main@2100-01-01T12:00")
    assert now == answer(store, "ls", "cells@latest") == answer(store, "ls", "cells@@2100-01-01T12:00:00")
    keys = answer(store, "ls", "cells@main@2100-01-01T12:00:zarr")
    assert keys == answer(store, "ls", "cells@latest:zarr")


def test_diff_tells_what_changed_and_its_exit_status_is_gits(own: Path) -> None:
    assert answer(own, "diff", "cells") == []
    assert volfs(own, "diff", "cells", "--exit-code").stdout == ""
    with library.open_store(own) as opened:
        branch = opened["cells"].branch("main")
        level = library.images(branch)[""].levels[0]
        level[0, 0, :3] = level[0, 0, :3] ^ 1
        branch.put("files/notes.txt", b"a\nb\n")
    found = {each["key"]: each for each in answer(own, "diff", "cells")}
    assert found["zarr/s0"]["voxels"] == {"count": 3, "box": "z0-1_y0-1_x0-3", "largest": 1, "mean": 1}
    assert found["files/notes.txt"]["lines"][-2:] == ["+a", "+b"]
    shown = volfs(own, "diff", "cells").stdout
    assert "3 voxels in z0-1_y0-1_x0-3, largest difference 1" in shown and "+b" in shown
    stat = {each["key"]: each for each in answer(own, "diff", "cells", "--stat")}
    assert "voxels" not in stat["zarr/s0"] and stat["zarr/s0"]["chunks"]["changed"] == 1
    assert volfs(own, "diff", "cells", "--exit-code", ok=False).returncode == 1
    assert {each["key"] for each in answer(own, "diff", "cells", "v1", "v2")} >= {"zarr/labels/nuclei/s0"}
    assert "no version v9" in refused(own, "diff", "cells", "v1", "v9")
    assert "whole versions" in refused(own, "diff", "cells/s0")
    assert volfs(own, "diff", "cells@main", "v1", "v2", ok=False).returncode == 2


def test_blame_tells_who_wrote_a_voxel_and_its_chunk(merged: Path) -> None:
    with library.open_store(merged, read_only=True) as opened:
        dataset = opened["cells"]
        six = dataset.version(6)
        level = library.images(six)["s0"].levels[0]
        assert level.blame().ravel().tolist() == [2, 1, 1, 1, 1, 1, 1, 6]
    said = answer(merged, "blame", "cells/s0@main", "15,15,15")
    assert said["voxel"]["version"] == said["chunk"]["version"] == "v6" and said["uncommitted"] == []
    assert answer(merged, "blame", "cells/s0", "0,0,15")["voxel"]["version"] == "v1"
    shown = volfs(merged, "blame", "cells/s0", "0,0,0").stdout.splitlines()
    assert [line.split()[:2] for line in shown] == [["voxel", "v2"], ["chunk", "v2"]] and "change 2" in shown[0]
