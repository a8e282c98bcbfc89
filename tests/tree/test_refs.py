"""Versions, branches and tags by file operations alone, and the control files of a branch."""

from __future__ import annotations

import errno
import json
import os
import pwd
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from trio.testing import MockClock

import volfs
from tests.kits.cells import CELLS, make_store
from tests.kits.slices import PLANE, png
from tests.kits.trees import run, serving
from volfs.errors import (
    AlreadyThere,
    BadInput,
    Busy,
    NotAllowed,
    NotFound,
    NothingToCommit,
    ReadOnly,
    VolfsError,
    WrongKind,
)
from volfs.testing.waiting import PATIENCE, until_async
from volfs.tree.branches import branch_actions
from volfs.tree.branches.order import Order
from volfs.versions.author import author_of
from volfs.versions.branch import Branch

MAIN = "cells/branches/main"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


def test_mkdir_makes_a_branch_and_rmdir_removes_it(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            before = (await client.stat("cells/branches")).mtime
            made = await client.mkdir("cells/branches/try")
            assert made.is_dir and made == await client.stat("cells/branches/try")
            assert (await client.stat("cells/branches")).mtime > before
            at = await client.mkdir("cells/branches/old@v1")
            assert at.entry_timeout == 0
            parent = await client.ino("cells/branches")
            assert (parent, b"old@v1") in client.kernel.entries
            # Servers of NFS and SMB look at what they made by the name they gave; for a while.
            assert await client.ino("cells/branches/old@v1") == at.ino == await client.ino("cells/branches/old")
            assert not await client.exists("cells/branches/try@v1")
            client.tree._context.note_made(parent, "old@v1", "gone")
            assert not await client.exists("cells/branches/old@v1")
            assert set(await client.ls("cells/branches")) == {"main", "exp", "try", "old"}
            assert "labels" not in await client.ls("cells/branches/old")
            for name, error in (("try", AlreadyThere), ("v3", VolfsError), ("a@v99", NotFound), ("b@", BadInput)):
                with pytest.raises(error):
                    await client.mkdir(f"cells/branches/{name}")
            with pytest.raises(NotAllowed) as refused:
                await client.symlink("cells/branches/link", "../versions/v1")
            assert refused.value.errno == errno.EPERM
            with pytest.raises(WrongKind) as wrong:
                await client.unlink("cells/branches/try")
            assert wrong.value.errno == errno.EISDIR
            await client.write("cells/branches/try/files/n", b"1")
            with pytest.raises(Busy):
                await client.rmdir("cells/branches/try")
            await client.order("cells/branches/try/.volfs/discard", "all")
            await client.rmdir("cells/branches/try")
            assert not await client.exists("cells/branches/try")
            with pytest.raises(NotAllowed):
                await client.rmdir("cells/branches/main")
            with pytest.raises(NotFound):
                await client.rmdir("cells/branches/absent")
            with pytest.raises(VolfsError):
                await client.write("cells/branches/file", b"x")

    run(work)


def test_ln_makes_a_tag_mv_moves_it_and_rm_removes_it(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            made = await client.symlink("cells/tags/paper", "../versions/v1")
            assert made.is_link and made.ino == await client.ino("cells/tags/paper")
            assert await client.readlink("cells/tags/paper") == "../versions/v1"
            assert (await client.stat("cells/tags/paper")).size == len("../versions/v1")
            await client.symlink("cells/tags/absolute", "/mnt/volumes/cells/versions/v2/")
            await client.symlink("cells/tags/bare", "latest")
            assert await client.readlink("cells/tags/bare") == "../versions/v2"
            with pytest.raises(AlreadyThere):
                await client.symlink("cells/tags/paper", "../versions/v2")
            for target, error in (("../versions/v9", NotFound), ("/etc/passwd", VolfsError), ("", BadInput)):
                with pytest.raises(error):
                    await client.symlink("cells/tags/bad", target)
            await client.rename("cells/tags/bare", "cells/tags/paper")  # ln -sf
            assert await client.readlink("cells/tags/paper") == "../versions/v2"
            assert set(await client.ls("cells/tags")) == {"paper", "absolute"}
            await client.unlink("cells/tags/paper")
            assert set(await client.ls("cells/tags")) == {"absolute"}
            for refused in (
                client.mkdir("cells/tags/dir"),
                client.write("cells/tags/file", b""),
                client.rmdir("cells/tags/absolute"),
            ):
                with pytest.raises(VolfsError):
                    await refused

    run(work)


def test_a_name_written_into_a_control_file_is_a_tag_for_those_who_cannot_make_links(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            tags = await client.ino("cells/tags")
            tag = f"{MAIN}/.volfs/tag"
            assert not await client.exists("cells/tags/shown")
            await client.order(tag, "shown\n")
            assert await client.readlink("cells/tags/shown") == "../versions/v2"
            assert (tags, b"shown") in client.kernel.entries
            await client.order(tag, "first v1")
            assert await client.readlink("cells/tags/first") == "../versions/v1"
            await client.order(tag, "first v1")  # as NFS clients do that heard nothing
            for text, error in (("first v2", AlreadyThere), ("x v9", NotFound), ("a b c", BadInput), (" ", BadInput)):
                with pytest.raises(error):
                    await client.order(tag, text)
            assert set(await client.ls("cells/tags")) == {"shown", "first"}

    run(work)


def test_a_commit_waits_for_a_file_that_was_synced_and_is_still_open_as_nfs_servers_keep_them(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            fh = await client.open_to_write(f"{MAIN}/files/far")
            await client.call("write", fh, 0, b"from far away")
            await client.call("fsync", fh, False)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.order, f"{MAIN}/.volfs/commit", "waited")
                await trio.sleep(1.0)  # longer than for a file that seems to be closed
                assert await client.readlink("cells/versions/latest") == "v2"
                await client.call("release", fh)
            assert await client.read("cells/versions/v3/files/far") == b"from far away"

    run(work)


def test_writing_a_message_commits_and_the_new_version_is_there_at_once(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            versions = await client.ino("cells/versions")
            assert not (await client.tree.lookup(versions, b"v3")).ino
            attr = await client.stat(f"{MAIN}/.volfs/commit")
            assert attr.size == 0 and attr.attr_timeout == 0
            opened = await client.tree.open(attr.ino, os.O_WRONLY | os.O_TRUNC)
            assert opened.direct_io
            await client.close(opened.fh)
            await client.write(f"{MAIN}/s0/xy/z00003.png", png(PLANE))
            await client.order(f"{MAIN}/.volfs/commit", "a first change")
            assert (versions, b"v3") in client.kernel.entries and (versions, b"latest") in client.kernel.entries
            assert await client.readlink("cells/versions/latest") == "v3"
            assert b"a first change" in await client.read("cells/log.txt")
            status = json.loads(await client.read(f"{MAIN}/.volfs/status.json"))
            assert status["clean"] and status["head"] == "v3"
            assert (status["action"]["state"], status["action"]["version"]) == ("done", 3)
            # The same again is the answer to a write that an NFS client sends twice.
            await client.order(f"{MAIN}/.volfs/commit", "a first change")
            assert await client.readlink("cells/versions/latest") == "v3"
            with pytest.raises(NothingToCommit):
                await client.order(f"{MAIN}/.volfs/commit", "something else")
            with pytest.raises(BadInput):
                await client.order(f"{MAIN}/.volfs/commit", "  ")
            status = json.loads(await client.read(f"{MAIN}/.volfs/status.json"))
            assert status["action"]["state"] == "failed" and status["action"]["error_kind"] == "NothingToCommit"
            assert await client.read(f"{MAIN}/.volfs/commit") == b""

    run(work)


def test_discard_goes_back_in_whole_or_in_part(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:

            async def change() -> None:
                await client.write(f"{MAIN}/s0/xy/z00003.png", png(PLANE))
                await client.write(f"{MAIN}/files/a", b"a")
                await client.write(f"{MAIN}/s0/xy/z00004.png", png(PLANE)[:100])

            discard = f"{MAIN}/.volfs/discard"
            await change()
            with pytest.raises(VolfsError):
                await client.order(discard, "nonsense")
            await client.order(discard, "files/a")
            assert not await client.exists(f"{MAIN}/files/a")
            await client.order(discard, "s0/xy/z00004.png")
            canonical = (await client.stat("cells/versions/v2/s0/xy/z00004.png")).size
            assert (await client.stat(f"{MAIN}/s0/xy/z00004.png")).size == canonical
            for everything in ("all", ""):
                await change()
                held = await client.open(f"{MAIN}/s0/xy/z00003.png")
                client.kernel.forget_all()
                await client.order(discard, everything)
                assert await client.ino(f"{MAIN}/s0/xy/z00003.png") in client.kernel.queued
                assert not client.kernel.awaited
                await client.close(held)
                status = json.loads(await client.read(f"{MAIN}/.volfs/status.json"))
                assert status["clean"] and not status["staged"]
                data = await client.read(f"{MAIN}/s0/xy/z00003.png")
                assert data == await client.read("cells/versions/v2/s0/xy/z00003.png")

    run(work)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("geändert\r\n".encode(), "geändert"),
        ("geändert\r\n".encode("utf-8-sig"), "geändert"),
        ("geändert\r\n".encode("utf-16"), "geändert"),  # as `>` of Windows PowerShell writes it
        ("geändert\r\n".encode("cp850"), None),  # and that of its older shell
        ("changed".encode("utf-16-le"), None),
        (b"\xff\xfe\x00", None),
    ],
)
def test_a_message_that_nobody_could_read_is_refused(store: Path, written: bytes, kept: str | None) -> None:
    async def work() -> None:
        async with serving(store) as client:
            await client.write(f"{MAIN}/files/new.txt", b"x")
            if kept is None:
                with pytest.raises(BadInput, match="nothing was committed"):
                    await client.order(f"{MAIN}/.volfs/commit", written)
                assert not json.loads(await client.read(f"{MAIN}/.volfs/status.json"))["clean"]
            else:
                await client.order(f"{MAIN}/.volfs/commit", written)
                assert json.loads(await client.read("cells/versions/v3/version.json"))["message"] == kept

    run(work)


def test_a_commit_holds_what_was_closed_before_though_the_kernel_tells_of_it_later(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            path = f"{MAIN}/files/late"
            fh = await client.open_to_write(path)
            await client.call("write", fh, 0, b"closed in time")
            await client.call("flush", fh)  # close(2) returns now
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.order, f"{MAIN}/.volfs/commit", "late")
                await trio.sleep(0.05)
                await client.call("release", fh)
            newest = await client.readlink("cells/versions/latest")
            assert await client.read(f"cells/versions/{newest}/files/late") == b"closed in time"
            # Whoever goes on writing is not waited for.
            fh = await client.open_to_write(path)
            await client.call("write", fh, 0, b"recording")
            await client.write(f"{MAIN}/files/other", b"x")
            await client.order(f"{MAIN}/.volfs/commit", "meanwhile")
            newest = await client.readlink("cells/versions/latest")
            assert await client.read(f"cells/versions/{newest}/files/late") == b"closed in time"
            await client.close(fh)
            assert await client.read(path) == b"recording"

    run(work)


def test_a_long_commit_goes_on_after_the_write_and_the_same_words_join_it(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, calls = threading.Event(), []
    commit = Branch.commit

    def slowly(self: Branch, message: str, *args: object, **options: object) -> object:
        calls.append(message)
        go.wait(PATIENCE)
        return commit(self, message)

    monkeypatch.setattr(Branch, "commit", slowly)

    async def work() -> None:
        async with serving(store, action_seconds=0.3) as client:
            await client.write(f"{MAIN}/files/a", b"a")
            began = time.monotonic()
            await client.order(f"{MAIN}/.volfs/commit", "long")
            assert time.monotonic() - began > 0.2  # and not until the commit is made, which waits for what comes below
            with pytest.raises(Busy):
                await client.order(f"{MAIN}/.volfs/commit", "another")
            with pytest.raises(Busy):
                await client.order(f"{MAIN}/.volfs/discard", "all")
            # Everybody else goes on meanwhile.
            await client.write(f"{MAIN}/files/b", b"b")
            assert await client.read("cells/versions/v2/s0/xy/z00001.png")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.order, f"{MAIN}/.volfs/commit", "long")
                await trio.sleep(0.1)
                go.set()
            assert calls == ["long"]
            await until_async(partial(client.leads_to, "cells/versions/latest", "v3"))
            assert await client.readlink("cells/versions/latest") == "v3"

    run(work)


def test_a_mount_ends_only_when_its_commit_has(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = Branch.commit

    def slowly(self: Branch, message: str, *args: object, **options: object) -> object:
        time.sleep(0.5)
        return commit(self, message)

    monkeypatch.setattr(Branch, "commit", slowly)

    async def work() -> None:
        async with serving(store, action_seconds=0.05) as client:
            await client.write(f"{MAIN}/files/a", b"a")
            await client.order(f"{MAIN}/.volfs/commit", "slow")

    run(work)
    with volfs.open_store(store) as opened:
        assert opened["cells"].info(3).message == "slow"


def test_another_process_s_refs_and_commits_are_seen_within_a_second(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            fh = await client.open(f"{MAIN}/s0/xy/z00003.png")
            assert not await client.exists("cells/branches/new")
            with volfs.open_store(store) as other:
                cells = other["cells"]
                cells.create_branch("new")
                cells.create_tag("paper", 1)
                branch = cells.branch("main")
                volfs.images(branch)[""].levels[0][3] = 7
                branch.commit("from elsewhere")
                other.create_dataset("fresh")
            await until_async(partial(client.was_told, await client.ino(f"{MAIN}/s0/xy/z00003.png")))
            await until_async(partial(client.exists, "fresh/branches/main"))
            assert await client.exists("cells/branches/new") and await client.exists("fresh/branches/main")
            assert await client.readlink("cells/versions/latest") == "v3"
            assert (await client.stat("cells/tags/paper")).is_link
            assert set(await client.read_fh(fh, 10**6)) != set(CELLS[3].tobytes())
            await client.close(fh)

    run(work)


def test_a_read_only_mount_changes_nothing(store: Path) -> None:
    async def work() -> None:
        async with serving(store, read_only=True) as client:
            for path in ("cells/branches", MAIN, f"{MAIN}/zarr", f"{MAIN}/s0/xy", f"{MAIN}/s0/xy/z00001.png"):
                assert not (await client.stat(path)).mode & 0o222, path
            for attempt in (
                client.mkdir("cells/branches/new"),
                client.rmdir(MAIN),
                client.symlink("cells/tags/t", "../versions/v1"),
                client.write(f"{MAIN}/files/a", b"a"),
                client.write(f"{MAIN}/s0/xy/z00001.png", b"a"),
                client.unlink(f"{MAIN}/zarr/zarr.json"),
                client.unlink(f"{MAIN}/s0/xy/z00001.png"),
                client.order(f"{MAIN}/.volfs/commit", "x"),
            ):
                with pytest.raises(ReadOnly) as refused:
                    await attempt
                assert refused.value.errno == errno.EROFS

    run(work)


def test_an_empty_dataset_and_an_empty_branch_can_be_filled(tmp_path: Path) -> None:
    with volfs.init_store(tmp_path / "store") as store:
        store.create_dataset("fresh")

    async def work() -> None:
        async with serving(tmp_path / "store") as client:
            assert not await client.ls("fresh/versions")
            assert set(await client.ls("fresh/branches/main")) == {".volfs", "zarr", "files"}
            assert json.loads(await client.read("fresh/dataset.json"))["latest"] is None
            await client.write("fresh/branches/main/files/a", b"a")
            await client.order("fresh/branches/main/.volfs/commit", "begin")
            assert await client.read("fresh/versions/v1/files/a") == b"a"

    run(work)


def test_a_commit_is_made_in_the_name_of_the_user_who_opened_the_file(store: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid

    async def work() -> None:
        async with serving(store) as client:
            await client.write(f"{MAIN}/files/new.txt", b"x")
            ino = await client.ino(f"{MAIN}/.volfs/commit")
            fh = (await client.call("open", ino, os.O_WRONLY, nobody)).fh
            await client.call("write", fh, 0, b"theirs\n")
            await client.close(fh)
            made = json.loads(await client.read("cells/versions/v3/version.json"))
            assert (made["message"], made["author"]) == ("theirs", author_of(nobody))
            assert made["author"].startswith("nobody@")

    run(work)


def test_a_message_ends_after_a_while_and_lines_that_come_later_are_refused(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volfs.tree.branches.draft._PATIENCE", 0.3)

    async def work() -> None:
        async with serving(store) as client:
            await client.write(f"{MAIN}/files/new.txt", b"x")
            fh = await client.open_to_write(f"{MAIN}/.volfs/commit")
            await client.call("write", fh, 0, b"Subject\n")
            assert not await client.exists("cells/versions/v3")
            await until_async(lambda: client.exists("cells/versions/v3"))
            with pytest.raises(BadInput, match="too late"):
                await client.call("write", fh, 8, b"Body\n")
            await client.call("write", fh, 0, b"Subject\n")  # sent again by an NFS client
            await client.call("release", fh)
            assert json.loads(await client.read("cells/versions/v3/version.json"))["message"] == "Subject"

    run(work)


def test_a_message_that_is_sent_twice_over_two_open_files_is_one_commit(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            await client.write(f"{MAIN}/files/new.txt", b"x")
            handles = [await client.open_to_write(f"{MAIN}/.volfs/commit") for _ in range(2)]
            for fh in handles:
                await client.call("write", fh, 0, b"Subject\n\nBody\n")
            with pytest.raises(Busy):
                await client.order(f"{MAIN}/.volfs/commit", "something else")
            for fh in handles:
                await client.call("fsync", fh, False)
                await client.call("release", fh)
            made = json.loads(await client.read("cells/versions/v3/version.json"))
            assert made["message"] == "Subject\n\nBody" and not await client.exists("cells/versions/v4")

    run(work)


def test_the_message_file_is_an_ordinary_file_that_a_commit_empties(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            path, commit = f"{MAIN}/.volfs/message", f"{MAIN}/.volfs/commit"
            assert (await client.stat(path)).size == 0
            with pytest.raises(BadInput, match="needs a message"):
                await client.order(commit, "-")
            await client.write(path, "Subject\n\nBody ä\n".encode(), piece=5)
            await client.append(path, b"Author: Ada <ada@example.org>\n")
            await client.write(f"{MAIN}/files/new.txt", b"x")
            await client.order(commit, "-")
            made = json.loads(await client.read("cells/versions/v3/version.json"))
            assert (made["message"], made["author"]) == ("Subject\n\nBody ä", "Ada <ada@example.org>")
            assert (await client.stat(path)).size == 0
            await client.order(commit, "-")  # sent again
            assert not await client.exists("cells/versions/v4")
            with pytest.raises(BadInput, match="64 KiB"):
                await client.write(path, bytes(70_000))

    run(work)


@pytest.mark.parametrize("seconds", [1, 100])
def test_what_is_asked_while_an_import_takes_its_place_waits_for_that(seconds: int) -> None:
    async def at_once() -> None:
        await trio.lowlevel.checkpoint()

    async def ask() -> None:
        publish, commit = Order("publish", "7 token"), Order("commit", "words")
        context = SimpleNamespace(options=SimpleNamespace(action_seconds=5.0), start=lambda work: None)
        branch = SimpleNamespace(actions=SimpleNamespace(last=None))
        mounted = SimpleNamespace(
            name="main", order=publish, settled=at_once, enter=at_once, context=context, branch=branch
        )

        async def end() -> None:
            await trio.sleep(seconds)
            mounted.order = None
            publish.done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(end)
            if seconds < 5:
                assert await branch_actions._begin(mounted, commit, lambda: None) is commit is mounted.order  # type: ignore[arg-type]
            else:
                with pytest.raises(Busy, match="a publish is going on"):
                    await branch_actions._begin(mounted, commit, lambda: None)  # type: ignore[arg-type]

    trio.run(ask, clock=MockClock(autojump_threshold=0))
