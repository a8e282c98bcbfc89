"""Versions by expressions, and branches under other names, by file operations alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import volfs
from tests.kits.cells import make_store
from tests.kits.trees import run, serving
from volfs.errors import AlreadyThere, BadInput, Busy, NotAllowed, NotFound, VolfsError
from volfs.tree.contract.api import RENAME_EXCHANGE
from volfs.tree.contract.attrs import FOREVER, SOON


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


def test_a_link_that_comes_to_lead_elsewhere_is_another_inode(store: Path) -> None:
    """A server of NFS asks once what the link of an inode says."""

    async def work() -> None:
        links = ("versions/latest", "versions/main", "versions/main~1", "diffs/main~1..main", "tags/moved")
        with volfs.open_store(store) as opened:
            opened["cells"].create_tag("moved", "main~1")
        async with serving(store) as client:

            async def seen() -> dict[str, tuple[int, str]]:
                return {
                    link: ((await client.stat(f"cells/{link}")).ino, await client.readlink(f"cells/{link}"))
                    for link in links
                }

            before = await seen()
            assert before == await seen()
            await client.write("cells/branches/main/files/more", b"more")
            await client.write("cells/branches/main/.volfs/commit", b"more")
            await client.write("cells/branches/main/.volfs/tag", b"other")
            await client.rename("cells/tags/other", "cells/tags/moved")
            after = await seen()
            for link in links:
                assert after[link][1] != before[link][1] and after[link][0] != before[link][0], link
                with pytest.raises(NotFound) as stale:
                    await client.tree.getattr(before[link][0])
                assert stale.value.errno == errno.ESTALE
                assert (await client.tree.getattr(after[link][0])).is_link

    run(work)


def test_any_expression_leads_to_its_version_and_is_not_listed(store: Path) -> None:
    async def work() -> None:
        with volfs.open_store(store, read_only=True) as opened:
            ids = {info.number: info.content_id for info in opened["cells"].versions()}
            newest = opened["cells"].resolve("main")
        async with serving(store) as client:
            listed = set(await client.ls("cells/versions"))
            expressions = {
                "main": newest,
                "main~1": newest - 1,
                "latest~1": newest - 1,
                "main^": newest - 1,
                "@2100-01-01": newest,
                "main@2100-01-01T12:00": newest,
                ids[1][:8]: 1,
                f"{ids[newest]}~1": newest - 1,
            }
            for name, number in expressions.items():
                assert await client.readlink(f"cells/versions/{name}") == f"v{number}"
                attr = await client.stat(f"cells/versions/{name}")
                assert attr.is_link and attr.entry_timeout == attr.attr_timeout == SOON
                assert attr.ino == await client.ino(f"cells/versions/{name}")
            assert set(await client.ls("cells/versions")) == listed
            assert (await client.stat("cells/versions/v1/version.json")).entry_timeout == FOREVER
            for name in ("nope", "main~99", "main^2", ".git", "v0", "@2000-01-01", "main@then", "~", "a b", "deadbeef"):
                assert not await client.exists(f"cells/versions/{name}")

    run(work)


def test_an_expression_follows_its_branch(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            before = await client.readlink("cells/versions/main")
            await client.write("cells/branches/main/files/notes", b"x")
            await client.write("cells/branches/main/.volfs/commit", b"more\n")
            assert await client.readlink("cells/versions/main~1") == before
            assert await client.readlink("cells/versions/main") != before

    run(work)


def test_mv_renames_a_branch_with_its_changes(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            await client.mkdir("cells/branches/try")
            await client.write("cells/branches/try/files/notes", b"mine")
            await client.rename("cells/branches/try", "cells/branches/kept")
            assert "try" not in await client.ls("cells/branches") and "kept" in await client.ls("cells/branches")
            assert await client.read("cells/branches/kept/files/notes") == b"mine"
            assert not await client.exists("cells/branches/try")
            parent = await client.ino("cells/branches")
            assert {(parent, b"try"), (parent, b"kept")} <= set(client.kernel.entries)
            await client.write("cells/branches/kept/files/more", b"yes")
            await client.write("cells/branches/kept/.volfs/commit", b"goes on\n")
            assert (await client.readlink("cells/versions/kept")).startswith("v")

    run(work)


def test_what_cannot_be_a_rename_of_a_branch_changes_nothing(store: Path) -> None:
    async def work() -> None:
        async with serving(store) as client:
            await client.mkdir("cells/branches/try")
            for new, error in (("main", AlreadyThere), ("v3", BadInput), ("a b", BadInput), ("HEAD", BadInput)):
                with pytest.raises(error):
                    await client.rename("cells/branches/try", f"cells/branches/{new}")
            with pytest.raises(NotFound):
                await client.rename("cells/branches/nope", "cells/branches/other")
            with pytest.raises(NotAllowed):
                await client.rename("cells/branches/try", "cells/tags/try")
            with pytest.raises(BadInput):
                await client.rename("cells/branches/try", "cells/branches/main", RENAME_EXCHANGE)
            await client.write("cells/branches/try/files/notes", b"x")
            handle = await client.open("cells/branches/try/files/notes", os.O_RDWR)
            with pytest.raises(Busy):
                await client.rename("cells/branches/try", "cells/branches/other")
            await client.close(handle)
            assert set(await client.ls("cells/branches")) >= {"main", "try"}
            assert await client.read("cells/branches/try/files/notes") == b"x"

    run(work)


def test_a_read_only_mount_renames_nothing(store: Path) -> None:
    async def work() -> None:
        async with serving(store, read_only=True) as client:
            with pytest.raises(VolfsError):
                await client.rename("cells/branches/main", "cells/branches/other")
            assert await client.readlink("cells/versions/main~1")

    run(work)
