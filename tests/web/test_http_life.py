"""A server under load and at its end: memory, slow clients, damage, signals, and what keeps it from starting."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr

import volfs
from tests.kits.http_servers import HttpServer, http_server
from volfs.errors import BadInput
from volfs.model.ngff import axis, ome_attributes, pyramid
from volfs.testing.waiting import PATIENCE, until
from volfs.web.credentials import Gate
from volfs.web.listener import Listener

SHAPE = (100_000, 64, 64)
VOLUME = "/wide/versions/v1/s0/volume.raw"
READERS = 200
#: Slices that are stored, in ten chunks.
LAYERS = 640


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume of 100,000 slices, of which almost nothing is stored; and one that is damaged."""
    path = tmp_path_factory.mktemp("wide") / "store"
    with volfs.init_store(path) as made:
        for name in ("wide", "bad"):
            branch = made.create_dataset(name).branch("main")
            image = pyramid(name, tuple(axis(one, "nm") for one in "zyx"), (4.0, 4.0, 4.0), [(1, 1, 1)])
            group = zarr.create_group(branch.zarr_store(), attributes=ome_attributes(image))
            array = group.create_array("s0", shape=SHAPE, chunks=(64, 64, 64), dtype="u1")
            array[:LAYERS] = np.random.default_rng(0).integers(0, 255, (LAYERS, 64, 64), "u1")
            branch.commit("almost nothing")
    (shard,) = (
        file
        for file in (path / "datasets/bad/versions").rglob("*")
        if file.is_file() and file.stat().st_size > 1_000_000
    )
    with shard.open("r+b") as file:
        file.seek(shard.stat().st_size * 7 // 10)
        file.write(b"\xff" * 1000)
    return path


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[HttpServer]:
    with http_server(store, store.parent / "log", "--cache-size", "64M") as running:
        yield running


def memory(server: HttpServer) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


def stalled(server: HttpServer, path: str) -> socket.socket:
    """A client that asks for a file and takes nothing of it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", server.port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


def test_a_listing_of_100_000_slices_is_whole_and_takes_no_memory(server: HttpServer) -> None:
    before = memory(server)
    entries = server.get("/wide/versions/v1/s0/xy/?format=json").json()["entries"]
    assert [entry["name"] for entry in entries] == [f"z{index:05}.png" for index in range(SHAPE[0])]
    assert memory(server) - before < 40 << 20
    page = server.get("/wide/versions/v1/s0/xy/")
    assert page.body.count(b"<a href=") == SHAPE[0] + 1
    assert memory(server) - before < 40 << 20


def test_200_readers_of_ranges_take_bounded_memory_and_delay_no_other(server: HttpServer) -> None:
    size = int(np.prod(SHAPE))
    server.get(VOLUME, Range="bytes=0-99")
    before = memory(server)
    slow = [stalled(server, VOLUME) for _ in range(READERS // 2)]
    most = 0

    def read(number: int) -> bool:
        nonlocal most
        first = number * 1_000_003 % (size - 300_000)
        answer = server.get(VOLUME, Range=f"bytes={first}-{first + 299_999}")
        most = max(most, memory(server))
        return answer.status == 206 and len(answer.body) == 300_000

    with ThreadPoolExecutor(READERS) as pool:
        assert all(pool.map(read, range(READERS)))
    assert server.get("/wide/log.txt").status == 200
    # Cache of voxels, pieces of all answers, and what 300 connections take.
    assert max(most, memory(server)) - before < (64 + 64 + 100) << 20
    for client in slow:
        client.close()


def test_the_work_for_a_client_that_went_ends(server: HttpServer) -> None:
    def under_way() -> int:
        return int(server.get("/.volfs/stats.json").json()["in_flight"].get("GET", 0))

    client = stalled(server, VOLUME)
    until(lambda: under_way() >= 2)
    client.close()
    until(lambda: under_way() == 1)


def test_damage_is_an_error_with_a_line_in_the_log_and_never_a_whole_answer(server: HttpServer) -> None:
    base = "/bad/versions/v1/s0"
    bad = [index for index in range(0, LAYERS, 64) if server.get(f"{base}/xy/z{index:05}.png").status == 500]
    assert len(bad) == 1 and bad[0] >= 256
    said = server.get(f"{base}/xy/z{bad[0]:05}.png").body
    assert b"log" in said and b"/" not in said
    assert b"ERROR" in server.log.read_bytes() and b"Traceback" not in server.log.read_bytes()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(f"GET {base}/volume.raw HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.settimeout(PATIENCE)
        taken = b""
        while len(taken) < 5_000_000 and (piece := client.recv(1 << 20)):
            taken += piece
    assert taken.startswith(b"HTTP/1.1 200") and len(taken) < 5_000_000
    assert server.get("/bad/log.txt").status == 200


def test_two_servers_of_a_store_see_each_other_and_a_signal_ends_one_cleanly_whatever_clients_do(
    server: HttpServer, store: Path, tmp_path: Path
) -> None:
    onlooker = server
    with http_server(store, tmp_path / "log", "--public", token="open-sesame") as server:
        path = "/wide/branches/main/files/unfinished"
        for number in range(12):
            assert server.ask("PUT", path, b"%d" % number).status in (201, 204)
            seen = onlooker.get(path)
            assert (seen.status == 200 and int(seen.body) <= number) or (seen.status == 404 and not number), seen
        assert server.ask("DELETE", path).status == 204
        idle = socket.create_connection(("127.0.0.1", server.port))
        half = socket.create_connection(("127.0.0.1", server.port))
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\nContent-Length: 99\r\n\r\n"
        half.sendall(head.encode() + b"x")
        taking_nothing = stalled(server, VOLUME)
        until(lambda: len(server.names("/wide/branches/main/files/")) == 1)
        began = time.monotonic()
        assert server.end(signal.SIGINT) == 0
        assert time.monotonic() - began < 60
        for client in (idle, half, taking_nothing):
            client.close()
    log = (tmp_path / "log").read_text()
    assert "finishing" in log and "Traceback" not in log
    with volfs.open_store(store) as opened:
        assert opened["wide"]["main"].is_clean()


def test_what_keeps_it_from_starting_is_said_in_one_line(server: HttpServer, store: Path, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("alice:plain\n")
    for given, words in (
        ({"users": users}, "line 1 is not NAME:HASH"),
        ({"users": tmp_path / "none"}, "cannot be read"),
        ({"token": ""}, "empty token"),
    ):
        with pytest.raises(BadInput, match=words):
            Gate(**given)
    for address in ("nowhere.invalid:1", "127.0.0.1:99999"):
        with pytest.raises(BadInput, match=f"nothing can listen at {address}"):
            Listener([address])
    listen = ("--listen", f"127.0.0.1:{server.port}")
    for module, words in (("hypercorn", "pip install 'volfs[serve]'"), ("nothing", "in use")):
        program = f"import sys; sys.modules[{module!r}] = None; from volfs.cli import main; main()"
        command = [sys.executable, "-c", program, "serve", str(store), *listen]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        said = done.stderr.strip()
        assert done.returncode == 1 and words in said and "\n" not in said, said
