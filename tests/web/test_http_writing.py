"""Changing a branch by HTTP: uploads, commits, refs, rights, conditions, locks."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator

import bcrypt
import numpy as np
import pytest
from PIL import Image

import volfs
from tests.kits.http_servers import Answer, HttpServer, basic, http_server
from volfs.errors import ReadOnly
from volfs.testing.small_store import CELLS, make_store
from volfs.testing.waiting import until
from volfs.versions.access import Access

BRANCH = "/cells/branches/main"
TOKEN = "open sesame"
ALICE = basic("alice", "pa:ss")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    base = tmp_path_factory.mktemp("web")
    store = make_store(base / "store")
    with volfs.open_store(store) as opened:
        opened.create_dataset("mine").set_access(Access(mode=0o700))
    users = base / "users"
    users.write_text(f"# who may\nalice:{bcrypt.hashpw(b'pa:ss', bcrypt.gensalt(4)).decode()}\n")
    with http_server(store, base / "log", "--users", str(users), "--public", token=TOKEN) as running:
        yield running
        log = running.log.read_bytes()
        assert b"ERROR" not in log and b"Traceback" not in log, log.decode()


def png(plane: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(plane).save(out, "png")
    return out.getvalue()


def voxels(server: HttpServer, branch: str = BRANCH) -> np.ndarray:
    return np.load(io.BytesIO(server.get(f"{branch}/s0/volume.npy").body))


def commit(server: HttpServer, message: str, **headers: str) -> Answer:
    return server.ask("PUT", f"{BRANCH}/.volfs/commit", message.encode(), **headers)


def latest(server: HttpServer) -> dict[str, object]:
    return dict(server.get("/cells/versions/latest/version.json").json())


def test_a_browser_that_comes_with_the_token_looks_by_a_cookie_and_changes_nothing(server: HttpServer) -> None:
    nobody = {"Authorization": ""}
    for query in ("token=wrong", "token=", "token=open%20sesame&token=wrong"):
        assert server.get(f"/mine/?{query}", **nobody).status == 401
    entered = server.get("/mine/?token=open%20sesame", **nobody)
    assert entered.status == 303 and entered.headers["location"] == "/mine/"
    cookie, *rules = entered.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(rules)
    assert server.get("/mine/dataset.json", **nobody).status == 401
    assert server.get("/mine/dataset.json", Cookie=f"a=b; {cookie}", **nobody).status == 200
    assert server.get("/mine/dataset.json", Cookie="volfs=wrong", **nobody).status == 401
    before = latest(server)
    for method, path in (("PUT", f"{BRANCH}/files/x"), ("DELETE", f"{BRANCH}/files"), ("MKCOL", f"{BRANCH}/files/d")):
        assert server.ask(method, path, b"x", Cookie=cookie, **nobody).status == 401
    assert latest(server) == before
    # The way on never leads to another server.
    assert server.get("//elsewhere.example/?token=open%20sesame", **nobody).status == 400
    assert b"sesame" not in server.log.read_bytes()


def test_a_slice_and_a_box_are_put_and_committed_by_whom_the_server_knows(server: HttpServer) -> None:
    plane = np.full((40, 50), 7, np.uint8)
    assert server.ask("PUT", f"{BRANCH}/s0/xy/z00004.png", png(plane)).status == 204
    box = np.full((2, 8, 8), 9, np.uint8)
    file = io.BytesIO()
    np.save(file, box)
    assert server.ask("PUT", f"{BRANCH}/s0/cutout/z6-8_y0-8_x0-8.npy", file.getvalue()).status == 204
    expected = CELLS.copy()
    expected[4], expected[6:8, :8, :8] = plane, box
    assert np.array_equal(voxels(server), expected)
    answer = commit(server, "by hand\n", Authorization=ALICE)
    assert answer.status == 200 and answer.json()["state"] == "done", answer.body
    made = latest(server)
    assert made["message"] == "by hand" and made["author"] == "alice"
    assert np.array_equal(voxels(server, f"/cells/versions/{made['version']}"), expected)


def test_a_refused_commit_says_why(server: HttpServer) -> None:
    answer = commit(server, "nothing\n")
    assert answer.status == 422 and b"commit" in answer.body


def test_a_slice_that_is_none_changes_nothing_and_says_so(server: HttpServer) -> None:
    before = voxels(server)
    for data in (b"no picture at all", png(np.zeros((3, 3), np.uint8))):
        assert server.ask("PUT", f"{BRANCH}/s0/xy/z00001.png", data).status == 422
        assert np.array_equal(voxels(server), before)
        assert len(server.get(f"{BRANCH}/s0/xy/z00001.png").body) > 100


def test_a_volume_of_another_size_is_refused_before_it_is_sent(server: HttpServer) -> None:
    before = voxels(server)
    assert server.ask("PUT", f"{BRANCH}/s0/volume.npy", b"x" * 100).status == 422
    assert np.array_equal(voxels(server), before)


def test_side_files_and_directories_come_move_and_go(server: HttpServer) -> None:
    files = f"{BRANCH}/files"
    assert server.ask("MKCOL", f"{files}/a").status == 201
    assert server.ask("MKCOL", f"{files}/a").status == 405
    assert server.ask("MKCOL", f"{files}/none/b").status == 409
    assert server.ask("PUT", f"{files}/none/b", b"x").status == 409
    assert server.ask("PUT", f"{files}/a/one", b"1" * 1_000_000).status == 201
    assert server.ask("PUT", f"{files}/a/one", b"1").status == 204
    assert server.ask("PUT", f"{files}/a", b"1").status == 405
    assert server.ask("COPY", f"{files}/a", Destination=f"{server.url}{files}/b").status == 201
    assert server.ask("MOVE", f"{files}/a/one", Destination=f"{files}/b/two").status == 201
    assert server.ask("MOVE", f"{files}/b/one", Destination=f"{files}/b/two", Overwrite="F").status == 412
    assert server.names(f"{files}/a/") == [] and server.names(f"{files}/b/") == ["one", "two"]
    assert server.ask("COPY", f"{files}/b", Destination=f"{files}/b/c").status == 403
    assert server.ask("COPY", f"{files}/b", Destination="http://elsewhere.test/x").status == 400
    assert server.ask("COPY", f"{files}/b", Destination=f"{files}/../../x").status == 400
    for name in ("a", "b"):
        assert server.ask("DELETE", f"{files}/{name}").status == 204
    assert server.names(f"{files}/") == []
    assert server.ask("DELETE", f"{files}/a").status == 404
    for name in ("._one", ".DS_Store"):
        assert server.ask("PUT", f"{files}/{name}", b"mac").status == 403


def test_a_directory_of_the_head_moves_as_mv_moves_it(server: HttpServer) -> None:
    files = f"{BRANCH}/files"
    server.ask("MKCOL", f"{files}/deep")
    for name in ("x", "y"):
        server.ask("PUT", f"{files}/deep/{name}", name.encode())
    assert commit(server, "side files\n").status == 200
    assert server.ask("MOVE", f"{files}/deep", Destination=f"{files}/deeper").status == 201
    assert server.names(f"{files}/") == ["deeper"] and server.get(f"{files}/deeper/y").body == b"y"
    assert server.ask("DELETE", f"{files}/deeper").status == 204


def test_what_broke_off_leaves_what_was_there(server: HttpServer) -> None:
    path = f"{BRANCH}/files/kept"
    server.ask("PUT", path, b"kept")
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 9999999\r\n\r\n"
        client.sendall(head.encode() + b"x" * 300_000)
    # A request that comes later is answered later: by then the other is over.
    assert server.ask("PUT", f"{BRANCH}/files/later", b"x").status == 201
    until(lambda: server.names(f"{BRANCH}/files/") == ["kept", "later"])
    assert server.get(path).body == b"kept"
    server.ask("DELETE", path)
    server.ask("DELETE", f"{BRANCH}/files/later")


def test_of_many_who_make_the_same_file_one_does(server: HttpServer) -> None:
    answers: list[int] = []
    path = f"{BRANCH}/files/once"

    def make(number: int) -> None:
        answers.append(server.ask("PUT", path, b"%d" % number, If_None_Match="*").status)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [201] + [412] * 7
    tag = server.get(path).headers["etag"]
    assert server.ask("PUT", path, b"new", If_Match=tag).status == 204
    assert server.ask("PUT", path, b"newer", If_Match=tag).status == 412
    assert server.get(path).headers["etag"] != tag
    server.ask("DELETE", path)


def test_refs_are_made_and_removed_as_at_a_mount(server: HttpServer) -> None:
    assert server.ask("MKCOL", "/cells/branches/new").status == 201
    assert server.ask("MOVE", "/cells/branches/new", Destination=f"{server.url}/cells/branches/newer/").status == 201
    assert server.names("/cells/branches/") == ["exp", "main", "newer"]
    assert server.ask("DELETE", "/cells/branches/newer").status == 204
    assert server.ask("PUT", f"{BRANCH}/.volfs/tag", b"paper v1\n").status == 200
    assert server.get("/cells/tags/paper/version.json").json()["version"] == "v1"
    assert server.ask("DELETE", "/cells/tags/paper").status == 204
    assert server.names("/cells/tags/") == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/cells/versions/v1/s0/xy/z00000.png"),
        ("DELETE", "/cells/versions/v1"),
        ("DELETE", "/cells/versions/latest"),
        ("MKCOL", "/cells/versions/v9"),
        ("PUT", "/cells/versions/v1/files/new"),
        ("DELETE", "/cells"),
        ("DELETE", f"{BRANCH}/s0"),
        ("PUT", "/README.txt"),
        ("PROPPATCH", "/cells/versions/v1/version.json"),
        ("LOCK", "/cells/versions/v1/version.json"),
    ],
)  # fmt: skip
def test_nothing_else_can_be_changed(server: HttpServer, method: str, path: str) -> None:
    time = b"<set><prop><lastmodified>5</lastmodified></prop></set>"
    bodies = {
        "PROPPATCH": b'<propertyupdate xmlns="DAV:">' + time + b"</propertyupdate>",
        "LOCK": b'<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>',
        "PUT": b"x",
    }
    assert server.ask(method, path, bodies.get(method)).status in (403, 405, 409, 422)
    assert server.get("/cells/versions/v1/s0/xy/z00000.png").status == 200


def test_who_does_not_log_in_reads_what_all_may_and_writes_nothing(server: HttpServer) -> None:
    path = f"{BRANCH}/files/mine"
    for said in ("", "Bearer wrong", "Basic !!", "Basic", "Digest x", basic("alice", "wrong"), basic("bob", "pa:ss")):
        answer = server.ask("PUT", path, b"x", Authorization=said)
        assert answer.status == 401 and answer.headers.get_all("www-authenticate")[0].startswith("Basic "), said
    assert server.get("/cells/log.txt", Authorization="").status == 200
    assert server.get("/mine/", Authorization="").status == 401
    for said in (ALICE, basic("whoever", TOKEN), f"Bearer {TOKEN}"):
        assert server.get("/mine/", Authorization=said).status == 200
        assert server.ask("PUT", path, b"x", Authorization=said).status in (201, 204)
    assert server.ask("DELETE", path).status == 204


def test_a_slice_of_a_version_is_copied_back_into_a_branch(server: HttpServer) -> None:
    path = f"{BRANCH}/s0/xy/z00009.png"
    server.ask("PUT", path, png(np.full((40, 50), 1, np.uint8)))
    assert not np.array_equal(voxels(server)[9], CELLS[9])
    assert server.ask("COPY", "/cells/versions/v1/s0/xy/z00009.png", Destination=path).status == 204
    assert np.array_equal(voxels(server)[9], CELLS[9])
    assert server.ask("PUT", f"{BRANCH}/.volfs/discard", b"\n").status == 200


def test_who_works_beside_a_server_is_told_that_it_holds_the_branch(server: HttpServer) -> None:
    server.ask("PUT", f"{BRANCH}/files/held", b"x")
    with volfs.open_store(server.log.parent / "store") as opened:
        for work in (lambda branch: branch.commit("from elsewhere"), lambda branch: branch.put("files/b", b"x")):
            with pytest.raises(ReadOnly, match=f"the server at {server.url}/ .pid"):
                work(opened["cells"]["main"])
    assert server.ask("DELETE", f"{BRANCH}/files/held").status == 204


def test_what_has_just_changed_has_no_date_that_could_be_mistaken(server: HttpServer) -> None:
    path = f"{BRANCH}/files/fresh"
    server.ask("PUT", path, b"one")
    first = server.get(path)
    assert first.headers["last-modified"] is None and first.headers["etag"]
    server.ask("DELETE", path)


def test_a_lock_keeps_others_from_changing_what_one_works_on(server: HttpServer) -> None:
    path = f"{BRANCH}/files/locked"
    body = b'<lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>'
    taken = server.ask("LOCK", path, body, Timeout="Second-100", Authorization=ALICE)
    token = taken.headers["lock-token"]
    assert taken.status == 201 and b"Second-" in taken.body
    assert server.ask("LOCK", path, body).status == 423
    assert server.ask("PUT", path, b"x").status == 423
    assert server.ask("PUT", path, b"x", If=f"({token})").status == 423  # another's
    assert server.ask("PUT", path, b"x", If=f"({token})", Authorization=ALICE).status == 204
    assert server.ask("DELETE", f"{BRANCH}/files/", If="garbage").status == 400
    assert server.ask("UNLOCK", path, Lock_Token=token).status == 403
    assert server.ask("UNLOCK", path, Lock_Token=token, Authorization=ALICE).status == 204
    assert server.ask("DELETE", path).status == 204


def test_hostile_documents_are_refused(server: HttpServer) -> None:
    bomb = (
        b'<!DOCTYPE x [<!ENTITY a "aaaaa"><!ENTITY b "&a;&a;&a;">]><propfind xmlns="DAV:"><prop>&b;</prop></propfind>'
    )
    file = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><propfind xmlns="DAV:"><prop>&a;</prop></propfind>'
    for body, status in ((bomb, 400), (file, 400), (b"<a" * 1000, 400), (b"<a>" + b"x" * 300_000, 413)):
        answer = server.ask("PROPFIND", "/cells/", body, Depth="0")
        assert answer.status == status and b"root:" not in answer.body
    assert server.ask("PROPFIND", "/", Depth="infinity").status == 403
    assert server.ask("PROPFIND", "/", Depth="7").status == 400


def test_a_file_keeps_the_time_that_a_client_gives_it(server: HttpServer) -> None:
    path = f"{BRANCH}/files/old"
    assert server.ask("PUT", path, b"x", X_OC_Mtime="1000000000").headers["x-oc-mtime"] == "accepted"
    assert server.get(path).headers["last-modified"] == "Sun, 09 Sep 2001 01:46:40 GMT"
    body = (
        b'<D:propertyupdate xmlns:D="DAV:" xmlns:Z="urn:schemas-microsoft-com:"><D:set><D:prop>'
        b"<Z:Win32LastModifiedTime>Thu, 01 Jan 2004 00:00:00 GMT</Z:Win32LastModifiedTime>"
        b"<Z:Win32FileAttributes>00000020</Z:Win32FileAttributes></D:prop></D:set></D:propertyupdate>"
    )
    answer = server.ask("PROPPATCH", path, body)
    assert answer.status == 207 and b"200 OK" in answer.body and b"403" not in answer.body
    assert server.get(path).headers["last-modified"] == "Thu, 01 Jan 2004 00:00:00 GMT"
    server.ask("DELETE", path)
