"""Every command does what it says, without a mount; what it reports with --json is what it shows people."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import volfs as api
from tests.kits import fork_server
from tests.kits.cells import CELLS, NUCLEI, make_store
from tests.kits.mounts import answer, refused, volfs
from volfs.testing.kit import mounted
from volfs.testing.waiting import PATIENCE, until


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only looked at."""
    return make_store(tmp_path_factory.mktemp("cli") / "store", voxel_size="40,4,4nm")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """To be changed: a store with one small image."""
    store = tmp_path / "own"
    volfs(store, "init")
    np.save(tmp_path / "small.npy", CELLS[:8, :16, :16])
    volfs(store, "import", "small", tmp_path / "small.npy", "--chunks", "8,8,8", "--levels", "1")
    return store


def change(store: Path, branch: str = "main", value: int = 7) -> None:
    """Leave an uncommitted change: one voxel and a side file."""
    with api.open_store(store) as opened:
        level = api.images(opened["small"][branch])[""].levels[0]
        level[0, 0, 0] = value
        opened["small"].branch(branch).put("files/notes.txt", b"changed")


class TestInit:
    def test_makes_a_store_by_name_or_by_option(self, tmp_path: Path) -> None:
        said = answer(None, "init", tmp_path / "a")
        assert json.loads((tmp_path / "a" / "volfs.json").read_text())["id"] == said["id"]
        volfs(tmp_path / "b", "init")
        assert volfs(tmp_path / "b", "ls").stdout == ""

    def test_refuses_what_is_a_store_or_holds_other_things(self, store: Path, tmp_path: Path) -> None:
        assert "already" in refused(store, "init")
        (tmp_path / "file").touch()
        assert "holds other files" in refused(tmp_path, "init")


class TestLooking:
    def test_ls_lists_datasets(self, store: Path) -> None:
        assert volfs(store, "ls").stdout == "cells\n"
        (cells,) = answer(store, "ls")
        assert cells["name"] == "cells" and cells["versions"] == 2 and cells["latest"]["version"] == "v2"
        assert "cells" in volfs(store, "ls", "-l").stdout

    def test_ls_lists_keys_at_a_path_a_ref_or_a_key(self, store: Path) -> None:
        assert volfs(store, "ls", "cells").stdout == "files/\nzarr/\n"
        assert volfs(store, "ls", "cells@v1:zarr").stdout == "s0/\ns1/\nzarr.json\n"
        assert volfs(store, "ls", "cells/labels@v2").stdout == "nuclei/\nzarr.json\n"
        entries = {entry["key"]: entry for entry in answer(store, "ls", "-R", "cells@v2:zarr/s0")}
        assert entries["c/1/2/3"]["kind"] == "file" and entries["c/1/2/3"]["version"] == "v1"
        assert len([key for key in entries if key.count("/") == 3]) == 2 * 3 * 4
        assert volfs(store, "ls", "cells:zarr/zarr.json").stdout == "zarr.json\n"

    def test_info_tells_axes_shape_type_voxel_size_levels_and_refs(self, store: Path) -> None:
        said = answer(store, "info", "cells")
        assert said["branches"] == {"exp": "v2", "main": "v2"} and said["default_branch"] == "main"
        image, labels = said["images"]
        assert image["path"] == "" and image["kind"] == "image" and image["dtype"] == "uint8"
        assert [axis["name"] for axis in image["axes"]] == ["z", "y", "x"]
        assert image["levels"][0]["shape"] == list(CELLS.shape)
        assert image["levels"][0]["voxel_size"] == [40.0, 4.0, 4.0] and image["axes"][0]["unit"] == "nanometer"
        assert labels["path"] == "labels/nuclei" and labels["kind"] == "labels" and labels["dtype"] == "uint32"
        assert labels["levels"][0]["shape"] == list(NUCLEI.shape)
        (only,) = answer(store, "info", "cells/labels/nuclei@v2")["images"]
        assert only == labels
        shown = volfs(store, "info", "cells").stdout
        assert "40 x 4 x 4 nanometer" in shown and "label image" in shown

    def test_log_is_newest_first_and_follows_a_ref(self, store: Path) -> None:
        versions = answer(store, "log", "cells")
        assert [version["version"] for version in versions] == ["v2", "v1"]
        assert versions[0]["parents"] == ["v1"] and versions[0]["refs"] == ["exp", "main"]
        assert [version["version"] for version in answer(store, "log", "cells@main~1")] == ["v1"]
        assert len(answer(store, "log", "cells", "-n", "1")) == 1
        assert volfs(store, "log", "cells", "--oneline").stdout.startswith("v2  ")
        assert "import labels/nuclei" in volfs(store, "log", "cells").stdout

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (("ls", "nothing"), "no dataset 'nothing'"),
            (("info", "cells@v9"), "v9"),
            (("info", "cells/nowhere"), "nowhere"),
            (("ls", "cells:zarr/nowhere"), "zarr/nowhere"),
            (("log", "cells@nobody"), "nobody"),
            (("info", "a b"), "cannot be a dataset name"),
            (("status", "cells@v1"), "v1"),
        ],
    )
    def test_what_is_not_there_is_told_in_one_line(
        self, store: Path, arguments: tuple[str, ...], expected: str
    ) -> None:
        assert expected in refused(store, *arguments)

    def test_stats_count_what_is_stored(self, store: Path) -> None:
        said = answer(store, "stats")
        (cells,) = said["datasets"]
        assert cells["name"] == "cells" and cells["versions"] == 2 and cells["payloads"] > 20 and cells["stored"] > 0
        assert "uncommitted" in volfs(store, "stats").stdout

    def test_looking_needs_no_right_to_write(self, own: Path) -> None:
        """As a user who may only read would: nothing of the store may be changed."""
        before = {path: path.stat().st_mtime_ns for path in own.rglob("*") if "catalog" not in path.name}
        for command in (("ls",), ("info", "small"), ("log", "small"), ("status", "small"), ("stats",)):
            volfs(own, *command)
        assert {path: path.stat().st_mtime_ns for path in own.rglob("*") if "catalog" not in path.name} == before


class TestChanges:
    def test_status_commit_and_discard(self, own: Path) -> None:
        assert "nothing" in volfs(own, "status").stdout
        change(own)
        (said,) = answer(own, "status")
        assert said["dataset"] == "small" and said["branch"] == "main" and not said["clean"]
        assert set(said["changes"]) == {"files", "zarr/s0"} and said["changes"]["zarr/s0"]["put"] == 1
        assert answer(own, "status", "small") == said
        made = answer(own, "commit", "small", "-m", "One voxel", "--author", "somebody")
        assert made["version"] == "v2" and made["message"] == "One voxel" and made["author"] == "somebody"
        assert answer(own, "status", "small")["clean"]
        change(own, value=8)
        volfs(own, "discard", "small", "zarr/s0", "--yes")
        assert set(answer(own, "status", "small")["changes"]) <= {"files"}
        with api.open_store(own, read_only=True) as opened:
            assert api.images(opened["small"]["main"])[""].levels[0][0, 0, 0] == 7

    def test_a_commit_of_nothing_is_told(self, own: Path) -> None:
        assert "nothing" in refused(own, "commit", "small", "-m", "Nothing").lower()

    def test_a_commit_without_message_or_terminal_is_told(self, own: Path) -> None:
        change(own)
        assert "--message" in refused(own, "commit", "small")

    def test_discard_asks_first_on_a_terminal_and_takes_a_script_at_its_word(self, own: Path) -> None:
        change(own)
        terminal, end = os.openpty()
        asked = fork_server.Popen(
            [sys.executable, "-m", "volfs", "--store", own, "discard", "small"], stdin=end, stderr=subprocess.PIPE
        )
        os.close(end)
        os.write(terminal, b"n\n")
        assert asked.stderr is not None and b"Discard all uncommitted changes of small@main?" in asked.stderr.read()
        assert asked.wait() != 0
        os.close(terminal)
        assert not answer(own, "status", "small")["clean"]
        volfs(own, "discard", "small", "files/notes.txt")
        assert "files" not in answer(own, "status", "small")["changes"]
        volfs(own, "discard", "small")
        assert answer(own, "status", "small")["clean"]

    def test_what_does_not_decode_stands_in_the_way_and_is_named(self, own: Path) -> None:
        with api.open_store(own) as opened:
            opened["small"].branch("main").put("zarr/s0/c/0/0/0", b"no chunk")
        assert "zarr/s0/c/0/0/0" in volfs(own, "status").stdout
        assert answer(own, "status", "small")["held"][0]["key"] == "zarr/s0/c/0/0/0"
        assert "zarr/s0/c/0/0/0" in refused(own, "commit", "small", "-m", "Broken")
        with api.open_store(own) as opened:
            opened["small"].branch("main").put("files/rest.txt", b"the rest")
        volfs(own, "commit", "small", "-m", "The rest", "--leave", "zarr/s0/c/0/0/0")
        assert set(answer(own, "status", "small")["changes"]) == {"zarr/s0"}

    def test_what_a_mount_left_of_slices_is_told_and_discarded_without_a_mount(
        self, own: Path, mountpoint: Path
    ) -> None:
        wrong, half = io.BytesIO(), io.BytesIO()
        Image.fromarray(CELLS[0, :9, :5]).save(wrong, "PNG")
        Image.fromarray(CELLS[0, :16, :16]).save(half, "PNG")
        with mounted(own, mountpoint):
            planes = mountpoint / "small/branches/main/s0/xy"
            with pytest.raises(OSError, match="Invalid argument"):
                (planes / "z00005.png").write_bytes(wrong.getvalue())
            (planes / "z00006.png").write_bytes(half.getvalue()[:60])
        said = volfs(own, "status", "small").stdout
        for words in ("s0/xy/z00005.png", "5 x 9", "16 x 16", "s0/xy/z00006.png"):
            assert words in said, said
        told = answer(own, "status", "small")
        left = {each["path"]: each for each in (*told["staged"], *told["rejected"])}
        assert set(left) == {"s0/xy/z00005.png", "s0/xy/z00006.png"} and "5 x 9" in left["s0/xy/z00005.png"]["reason"]
        change(own)
        committed = volfs(own, "commit", "small", "-m", "Without the slices").stderr
        assert "s0/xy/z00005.png" in committed and "5 x 9" in committed, committed
        assert "z00007" in refused(own, "discard", "small", "s0/xy/z00007.png")
        volfs(own, "discard", "small", "s0/xy/z00005.png")
        assert "z00005" not in volfs(own, "status", "small").stdout
        assert "z00006" in volfs(own, "status", "small").stdout
        volfs(own, "discard", "small", "s0/xy/z00006.png")
        told = answer(own, "status", "small")
        assert told["clean"] and not told["staged"] and not told["rejected"]

    def test_branches(self, own: Path) -> None:
        volfs(own, "branch", "small", "exp")
        volfs(own, "branch", "small", "old@v1")
        volfs(own, "branch", "small", "older", "v1")
        assert answer(own, "branch", "small") == {"exp": 1, "main": 1, "old": 1, "older": 1}
        change(own, "exp")
        assert "uncommitted" in refused(own, "branch", "small", "--delete", "exp")
        volfs(own, "commit", "small@exp", "-m", "On exp")
        assert answer(own, "branch", "small")["exp"] == 2 and answer(own, "branch", "small")["main"] == 1
        for name in ("exp", "old", "older"):
            volfs(own, "branch", "small", "--delete", name)
        assert volfs(own, "branch", "small").stdout == "main  v1  default\n"
        assert "no branch" in refused(own, "branch", "small", "--delete", "exp")
        assert "cannot be a branch" in refused(own, "branch", "small", "v7")

    def test_tags(self, own: Path) -> None:
        volfs(own, "tag", "small", "paper")
        change(own)
        volfs(own, "commit", "small", "-m", "More")
        assert answer(own, "tag", "small") == {"paper": 1}
        assert [version["version"] for version in answer(own, "log", "small@paper")] == ["v1"]
        assert "already" in refused(own, "tag", "small", "paper", "v2")
        volfs(own, "tag", "small", "--delete", "paper")
        assert answer(own, "tag", "small") == {}

    def test_rm_of_a_key_comes_back_with_discard_and_of_a_dataset_does_not(self, own: Path) -> None:
        volfs(own, "rm", "small/s0")
        assert "s0/" not in volfs(own, "ls", "small:zarr").stdout
        volfs(own, "discard", "small", "--yes")
        assert "s0/" in volfs(own, "ls", "small:zarr").stdout
        assert "--yes" in refused(own, "rm", "small")
        volfs(own, "rm", "small", "--yes")
        assert volfs(own, "ls").stdout == "" and not (own / "datasets" / "small").exists()

    def test_the_author_is_taken_from_the_environment(self, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VOLFS_AUTHOR", "Ada <ada@example.org>")
        change(own)
        assert answer(own, "commit", "small", "-m", "By Ada")["author"] == "Ada <ada@example.org>"


class TestImport:
    def test_options_reach_the_import(self, tmp_path: Path) -> None:
        store = tmp_path / "store"
        volfs(store, "init")
        np.save(tmp_path / "v.npy", np.zeros((2, 6, 40, 40), np.uint16))
        options = ("--axes", "czyx", "--voxel-size", "50,10,10nm", "--chunks", "4,16,16", "--shard", "8,32,32")
        made = answer(store, "import", "v", tmp_path / "v.npy", *options, "--levels", "1", "-m", "Said so")
        assert made["version"] == "v1" and made["message"] == "Said so"
        (image,) = answer(store, "info", "v")["images"]
        assert [axis["name"] for axis in image["axes"]] == ["c", "z", "y", "x"]
        assert len(image["levels"]) == 1 and image["levels"][0]["voxel_size"][1:] == [50.0, 10.0, 10.0]
        assert image["levels"][0]["chunk_shape"] == [1, 4, 16, 16]

    def test_bad_options_and_sources_change_nothing(self, tmp_path: Path) -> None:
        store = tmp_path / "store"
        volfs(store, "init")
        np.save(tmp_path / "v.npy", np.zeros((6, 40, 40), np.uint16))
        (tmp_path / "bad.npy").write_bytes(b"\x93NUMPY")
        for arguments in (
            ("v", "absent.npy"),
            ("v", tmp_path / "bad.npy"),
            ("v", tmp_path / "v.npy", "--axes", "zy"),
            ("v", tmp_path / "v.npy", "--chunks", "0,1,1"),
            ("v", tmp_path / "v.npy", "--voxel-size", "huge"),
            ("v@main", tmp_path / "v.npy"),
            ("a b", tmp_path / "v.npy"),
        ):
            refused(store, "import", *arguments)
        assert volfs(store, "ls").stdout == ""
        assert volfs(store, "import", "v", tmp_path / "v.npy", "--levels", "many", ok=False).returncode == 2

    def test_ctrl_c_ends_it_with_130_and_leaves_nothing(self, tmp_path: Path) -> None:
        store = tmp_path / "store"
        volfs(store, "init")
        np.save(tmp_path / "v.npy", np.random.default_rng(0).integers(0, 256, (300, 512, 512), np.uint8))
        command = [sys.executable, "-m", "volfs", "--store", str(store), "import", "v", str(tmp_path / "v.npy")]
        process = fork_server.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        until(lambda: list(store.glob("datasets/v/versions/.*")))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130 and out == "" and err.strip() == "volfs: interrupted"
        assert volfs(store, "ls").stdout == "" and list((store / "datasets").iterdir()) == []


class TestFsck:
    def test_a_sound_store_is_said_to_be_sound(self, own: Path) -> None:
        assert volfs(own, "fsck").stdout == "nothing is wrong\n"
        assert answer(own, "fsck")["findings"] == []

    def test_a_flipped_bit_is_found_and_named(self, own: Path) -> None:
        (shard, *_) = [p for p in own.glob("datasets/small/versions/00000001/zarr/s0/c/**/*") if p.is_file()]
        data = bytearray(shard.read_bytes())
        data[5] ^= 4
        shard.write_bytes(data)
        done = volfs(own, "fsck", ok=False)
        assert done.returncode == 1 and "small" in done.stdout and "s0" in done.stdout
        done = volfs(own, "fsck", "--json", ok=False)
        assert done.returncode == 1 and json.loads(done.stdout)["findings"][0]["dataset"] == "small"

    def test_a_lost_catalog_is_made_anew(self, own: Path) -> None:
        expected = answer(own, "log", "small")
        for path in own.glob("catalog.sqlite*"):
            path.unlink()
        volfs(own, "fsck", "--rebuild-catalog")
        assert answer(own, "log", "small") == expected

    def test_a_catalog_that_is_garbage_is_set_aside_and_made_anew(self, own: Path) -> None:
        expected = answer(own, "log", "small")
        for path in own.glob("catalog.sqlite-*"):
            path.unlink()
        (own / "catalog.sqlite").write_bytes(bytes(range(256)) * 64)
        assert "--rebuild-catalog" in refused(own, "ls")
        assert "set aside" in volfs(own, "fsck", "--rebuild-catalog").stderr
        assert answer(own, "log", "small") == expected


class TestDemo:
    def test_it_makes_three_versions_a_tag_a_branch_and_a_label_image(self, tmp_path: Path) -> None:
        said = answer(None, "demo", tmp_path / "demo", "--edge", "96")
        store = Path(said["store"])
        assert said["mounted"] is False and Path(said["mountpoint"]).is_dir()
        assert [version["version"] for version in answer(store, "log", "cells")] == ["v3", "v2", "v1"]
        assert answer(store, "branch", "cells") == {"exp": 3, "main": 3} and answer(store, "tag", "cells") == {
            "first": 2
        }
        assert [image["path"] for image in answer(store, "info", "cells")["images"]] == ["", "labels/cells"]
        (status,) = answer(store, "status")
        assert status["branch"] == "exp"
        with api.open_store(store, read_only=True) as opened:
            before, after = (api.images(opened["cells"][ref])["labels/cells"].levels[0][:] for ref in ("v2", "v3"))
            assert (before != after).any() and set(np.unique(after)) <= set(np.unique(before))
        assert volfs(store, "fsck").stdout == "nothing is wrong\n"

    def test_again_it_keeps_what_is_there(self, tmp_path: Path) -> None:
        first = answer(None, "demo", tmp_path / "demo", "--edge", "64")
        ident = json.loads((Path(first["store"]) / "volfs.json").read_text())["id"]
        done = volfs(None, "demo", tmp_path / "demo", "--edge", "64")
        assert json.loads((Path(first["store"]) / "volfs.json").read_text())["id"] == ident
        assert "volfs --store" in done.stdout
