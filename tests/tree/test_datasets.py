"""Datasets are made and removed in the root of a mount: empty ones, and nothing else is lost by it."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import volfs
from tests.kits.mounts import answer, refused
from tests.kits.mounts import volfs as command
from tests.kits.trees import run, serving
from volfs.errors import AlreadyThere, BadName, VolfsError, WrongKind
from volfs.versions.first_version import begin, remove_empty


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with volfs.init_store(tmp_path / "store"):
        return tmp_path / "store"


async def error(work: Callable[[], Awaitable[object]]) -> int:
    """The errno that a request is refused with."""
    with pytest.raises(VolfsError) as caught:
        await work()
    return caught.value.errno


def test_a_directory_in_the_root_is_a_dataset_that_can_be_written_at_once(place: Path) -> None:
    async def work() -> None:
        async with serving(place) as client:
            await client.mkdir("scope")
            assert set(await client.ls("scope/versions")) == {"latest", "v1"}
            assert set(await client.ls("scope/branches")) == {"main"}
            assert not await client.ls("scope/versions/v1/zarr")
            await client.write("scope/branches/main/files/notes.txt", b"begun")
            await client.order("scope/branches/main/.volfs/commit", "noted")
            assert await client.read("scope/versions/v2/files/notes.txt") == b"begun"

    run(work)
    with volfs.open_store(place) as store:
        assert [info.message for info in store["scope"].versions()] == ["create scope", "noted"]


def test_a_dataset_that_still_is_empty_is_removed_by_rmdir(place: Path) -> None:
    async def work() -> None:
        async with serving(place) as client:
            await client.mkdir("scope")
            await client.ls("scope/branches/main")
            await client.rmdir("scope")
            assert not await client.exists("scope")
            await client.mkdir("scope")  # the name is free
            await client.write("scope/branches/main/files/notes.txt", b"1")
            assert await error(lambda: client.rmdir("scope")) == errno.ENOTEMPTY
            await client.order("scope/branches/main/.volfs/commit", "noted")
            assert await error(lambda: client.rmdir("scope")) == errno.ENOTEMPTY
            assert await client.read("scope/versions/v2/files/notes.txt") == b"1"

    run(work)


@pytest.mark.parametrize("more", ["branch", "tag", "version"])
def test_what_was_made_in_it_keeps_it(place: Path, more: str) -> None:
    with volfs.open_store(place) as store:
        dataset = begin(store, "scope")
        if more == "branch":
            dataset.create_branch("exp")
        elif more == "tag":
            dataset.create_tag("paper", "v1")
        else:
            main = dataset.branch("main")
            main.put("files/a", b"1")
            main.commit("a")
            main.delete("files/a")
            main.commit("nothing again")
        with pytest.raises(WrongKind, match="volfs rm scope"):
            remove_empty(store, "scope")
        assert list(store) == ["scope"]


def test_names_and_places_that_cannot_be_datasets_are_refused(place: Path) -> None:
    async def work() -> None:
        async with serving(place) as client:
            await client.mkdir("scope")
            assert await error(lambda: client.mkdir("scope")) == errno.EEXIST
            assert await error(lambda: client.mkdir("a b/")) in (errno.EINVAL, errno.ENOENT)
            assert await error(lambda: client.mkdir(".hidden")) == errno.EINVAL
            assert await error(lambda: client.write("file", b"")) == errno.EPERM
            assert await error(lambda: client.rmdir("nothing")) == errno.ENOENT
            assert await error(lambda: client.rmdir(".volfs")) == errno.EPERM
        async with serving(place, read_only=True) as client:
            assert await error(lambda: client.mkdir("other")) == errno.EROFS
            assert await error(lambda: client.rmdir("scope")) == errno.EROFS

    run(work)
    with volfs.open_store(place) as store:
        assert list(store) == ["scope"]


def test_the_command_makes_them_too(place: Path) -> None:
    assert command(place, "create", "scope", "plates").stdout == "scope: v1, empty\nplates: v1, empty\n"
    assert [each["name"] for each in answer(place, "create", "third")] == ["third"]
    assert "already" in refused(place, "create", "scope")
    assert "dataset name" in refused(place, "create", "a/b")
    with volfs.open_store(place) as store:
        assert list(store) == ["plates", "scope", "third"] and store["third"]["latest"].number == 1
        with pytest.raises(AlreadyThere):
            begin(store, "scope")
        with pytest.raises(BadName):
            begin(store, ".x")
