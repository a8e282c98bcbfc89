"""The tree by HTTP: bytes, ranges, conditions, listings, and what no client may reach."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

import volfs
from tests.kits.http_servers import HttpServer, http_server
from volfs.testing.small_store import CELLS, make_store

SLICE = "/cells/versions/v2/s0/xy/z00003.png"
VOLUME = "/cells/versions/v2/s0/volume.npy"
EVIL = "<img src=x onerror=alert(1)>&\"'.html"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    base = tmp_path_factory.mktemp("web")
    store = make_store(base / "store")
    with volfs.open_store(store) as opened:
        branch = opened["cells"]["exp"]
        branch.put(f"files/{EVIL}", b"<script>alert(1)</script>")
        branch.put("files/picture.svg", b"<svg/>")
    with http_server(store, base / "log") as running:
        yield running
        assert b"ERROR" not in running.log.read_bytes()


def test_a_slice_and_a_volume_have_the_voxels_of_the_version(server: HttpServer) -> None:
    picture = server.get(SLICE)
    assert picture.status == 200 and picture.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture.body))), CELLS[3])
    volume = server.get(VOLUME)
    assert np.array_equal(np.load(io.BytesIO(volume.body)), CELLS)
    head = server.ask("HEAD", VOLUME)
    assert head.body == b"" and int(head.headers["content-length"]) == len(volume.body)


def test_any_range_is_that_part_of_the_whole(server: HttpServer) -> None:
    whole = server.get(VOLUME).body
    size = len(whole)
    for text, part in (
        ("0-0", whole[:1]),
        ("100-9999", whole[100:10000]),
        ("-17", whole[-17:]),
        (f"{size - 5}-{size + 5}", whole[-5:]),
        ("0-", whole),
    ):
        answer = server.get(VOLUME, Range=f"bytes={text}")
        assert answer.status == 206 and answer.body == part
        first = size - len(part) if text.startswith("-") else int(text.split("-")[0])
        assert answer.headers["content-range"] == f"bytes {first}-{first + len(part) - 1}/{size}"
    several = server.get(VOLUME, Range="bytes=0-9,20-29")
    kind, _, boundary = several.headers["content-type"].partition("; boundary=")
    assert several.status == 206 and kind == "multipart/byteranges"
    parts = several.body.split(f"\r\n--{boundary}".encode())
    assert [part.partition(b"\r\n\r\n")[2] for part in parts[1:-1]] == [whole[:10], whole[20:30]]


@pytest.mark.parametrize("text", [f"{1 << 40}-", "-0", "0-9,5-20", ",".join(f"{n * 3}-{n * 3}" for n in range(200))])
def test_a_range_that_is_not_there_or_costs_more_than_it_gives_is_refused(server: HttpServer, text: str) -> None:
    answer = server.get(VOLUME, Range=f"bytes={text}")
    assert answer.status == 416 and answer.headers["content-range"] == f"bytes */{CELLS.nbytes + 128}"


@pytest.mark.parametrize("text", ["lines=0-1", "bytes=5-2", "bytes=x-y", "bytes", "bytes=" + "9" * 5000 + "-"])
def test_what_is_no_range_asks_for_the_whole(server: HttpServer, text: str) -> None:
    answer = server.get(VOLUME, Range=text)
    assert answer.status == 200 and len(answer.body) == CELLS.nbytes + 128


def test_a_copy_that_is_still_right_is_not_sent_again(server: HttpServer) -> None:
    first = server.get(SLICE)
    tag, date = first.headers["etag"], first.headers["last-modified"]
    for headers in ({"If_None_Match": tag}, {"If_None_Match": f'W/"x", W/{tag}'}, {"If_Modified_Since": date}):
        again = server.get(SLICE, **headers)
        assert again.status == 304 and not again.body and again.headers["etag"] == tag
    assert server.get(SLICE, If_None_Match='"other"', If_Modified_Since=date).status == 200
    assert server.get(SLICE, If_Match='"other"').status == 412
    assert server.get(SLICE, If_Match=tag).status == 200
    assert server.get(SLICE, Range="bytes=0-3", If_Range=tag).status == 206
    assert server.get(SLICE, Range="bytes=0-3", If_Range='"other"').status == 200
    assert server.get(SLICE, If_Modified_Since="yesterday").status == 200


def test_only_what_is_inside_a_version_may_be_kept_without_asking(server: HttpServer) -> None:
    assert "immutable" in server.get(SLICE).headers["cache-control"]
    for path in (
        SLICE.replace("versions/v2", "branches/main"),
        SLICE.replace("v2", "latest"),
        SLICE.replace("v2", "main~1"),
        "/cells/branches/main/.volfs/status.json",
        "/cells/log.txt",
        "/.volfs/stats.json",
        "/cells/versions/v2/",
    ):
        answer = server.get(path)
        assert answer.status == 200, path
        assert "immutable" not in answer.headers["cache-control"] and "no-" in answer.headers["cache-control"], path


def test_links_of_the_tree_are_served_through_and_say_where_they_lead(server: HttpServer) -> None:
    for expression in ("latest", "main", "main~0"):
        answer = server.get(SLICE.replace("v2", expression))
        assert answer.status == 200 and answer.body == server.get(SLICE).body
        assert answer.headers["content-location"] == "../../../../../cells/versions/v2/s0/xy/z00003.png"
    assert (
        server.get("/cells/versions/v2/s0/chunks/zarr.json").body
        == server.get("/cells/versions/v2/zarr/s0/zarr.json").body
    )
    assert server.get("/cells/versions/nothing/").status == 404


def test_a_listing_has_all_that_a_client_needs(server: HttpServer) -> None:
    listing = server.get("/cells/versions/", Accept="application/json").json()
    assert listing["path"] == "/cells/versions/"
    assert [entry["name"] for entry in listing["entries"]] == ["latest", "v1", "v2"]
    latest = listing["entries"][0]
    assert latest["type"] == "directory" and latest["link"] == "v2" and latest["href"] == "./latest/"
    (picture,) = (
        entry
        for entry in server.get("/cells/versions/v2/?format=json").json()["entries"]
        if "size" in entry and entry["name"] == "thumbnail.png"
    )
    assert picture["type"] == "file" and picture["size"] == len(server.get("/cells/versions/v2/thumbnail.png").body)
    assert picture["mtime"].endswith("Z")
    moved = server.get("/cells/versions?format=json")
    assert moved.status == 301 and moved.headers["location"] == "./versions/?format=json"
    assert (
        server.get("/cells/versions/", Accept="text/html,application/json;q=0.5")
        .headers["content-type"]
        .startswith("text/html")
    )


def test_no_name_in_a_store_is_markup_and_no_file_is_a_page(server: HttpServer) -> None:
    page = server.get("/cells/branches/exp/files/")
    assert b"<img" not in page.body and b"&lt;img src=x" in page.body
    assert "script-src" not in page.headers["content-security-policy"]
    assert "default-src 'none'" in page.headers["content-security-policy"]
    entries = {
        entry["name"]: entry["href"] for entry in server.get("/cells/branches/exp/files/?format=json").json()["entries"]
    }
    evil = server.get(f"/cells/branches/exp/files/{entries[EVIL][2:]}")
    assert evil.body == b"<script>alert(1)</script>"
    assert evil.headers["content-type"].startswith("text/plain") and evil.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in server.get("/cells/branches/exp/files/picture.svg").headers["content-security-policy"]


def test_a_file_that_others_replace_is_there_at_every_moment(server: HttpServer) -> None:
    store = server.log.parent / "store"
    with volfs.open_store(store) as opened:
        branch = opened["cells"]["exp"]
        for number in range(15):
            branch.put("files/replaced", b"%d" % number)
            answer = server.get("/cells/branches/exp/files/replaced")
            assert answer.status == 200 and int(answer.body) <= number
        branch.delete("files/replaced")


def test_viewers_of_other_servers_may_read(server: HttpServer) -> None:
    asked = server.ask(
        "OPTIONS",
        SLICE,
        Origin="https://viewer.test",
        Access_Control_Request_Method="GET",
        Access_Control_Request_Headers="range",
        Access_Control_Request_Private_Network="true",
    )
    assert asked.status == 200 and "GET" in asked.headers["access-control-allow-methods"]
    assert "Range" in asked.headers["access-control-allow-headers"]
    assert asked.headers["access-control-allow-private-network"] == "true"
    for answer in (
        server.get(SLICE, Origin="https://viewer.test"),
        server.get("/nothing", Origin="https://viewer.test"),
    ):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "Content-Range" in answer.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "path, status",
    [
        ("/../../../../etc/passwd", 400),
        ("/%2e%2e/%2e%2e/%2e%2e/etc/passwd", 400),
        ("/cells/..%2f..%2f..%2fetc/passwd", 400),
        ("/cells/%2e/", 400),
        ("//etc/passwd", 400),
        ("/cells//versions/", 400),
        ("/cells/%00", 400),
        ("/cells/%ff%fe", 404),
        ("/cells/%zz", 404),
        ("/cells/" + "a" * 300, 414),
        ("/" + "a" * 20000, 414),
        ("/cells" + "/a" * 4000, 404),
        ("/cells/versions/v2/s0/xy/z00003.png/", 404),
        ("/cells/versions/v2/s0/xy/z00003.png/x", 404),
        ("/.volfs/page/../../../etc/passwd", 400),
        ("/.volfs/page/nothing.js", 404),
        ("*", 400),
        ("/nothing?" + "&".join("abcdefghijklmnopqrstuvwxyz"), 404),
        ("http://elsewhere.test/nothing", 404),
        ("http://elsewhere.test", 400),
    ],
)  # fmt: skip
def test_a_hostile_path_never_leaves_the_tree(server: HttpServer, path: str, status: int) -> None:
    answer = server.get(path)
    assert answer.status == status and b"root:" not in answer.body


def test_whatever_is_no_http_ends_one_connection_and_not_the_server(server: HttpServer) -> None:
    for bytes_ in (
        b"\0\xff" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 10000 + b"\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: x\r\n"
        b"sec-websocket-version: 13\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\4\1\5\0\0\0\1\xff\xff\xff\xff",
    ):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(bytes_)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
    assert server.get(SLICE).status == 200


def test_nobody_writes_where_nobody_can_log_in(server: HttpServer) -> None:
    for method in ("PUT", "DELETE", "MKCOL", "PROPPATCH", "LOCK", "POST", "PATCH", "NONSENSE"):
        assert server.ask(method, "/cells/branches/main/files/a.txt", b"x").status in (403, 405), method
    assert "a.txt" not in server.names("/cells/branches/main/files/")
