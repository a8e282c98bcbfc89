"""zarr-python's own store tests, through its LocalStore on a directory under a mounted branch's ``zarr/``."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from zarr.core.buffer import Buffer, cpu
from zarr.storage import LocalStore
from zarr.testing.store import StoreTests

from tests.kits.judged import Mounted

_fresh = itertools.count()


class TestLocalStoreOnAMountedBranch(StoreTests[LocalStore, cpu.Buffer]):
    store_cls = LocalStore
    buffer_cls = cpu.Buffer

    async def get(self, store: LocalStore, key: str) -> Buffer:
        return self.buffer_cls.from_bytes((store.root / key).read_bytes())

    async def set(self, store: LocalStore, key: str, value: Buffer) -> None:
        target = store.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(value.to_bytes())

    @pytest.fixture
    def store_kwargs(self, judged: Mounted) -> dict[str, Any]:
        root = judged.branch("u8") / "zarr" / f"scratch{next(_fresh)}"
        root.mkdir()
        return {"root": str(root)}

    def test_store_repr(self, store: LocalStore) -> None:
        assert re.search(r"scratch\d+", str(store))

    def test_store_supports_writes(self, store: LocalStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: LocalStore) -> None:
        assert store.supports_listing

    async def test_empty_with_empty_subdir(self, store: LocalStore) -> None:
        assert await store.is_empty("")
        (store.root / "foo/bar").mkdir(parents=True)
        assert await store.is_empty("")

    def test_the_scratch_is_on_the_mount(self, judged: Mounted, store_kwargs: dict[str, Any]) -> None:
        assert Path(store_kwargs["root"]).is_relative_to(judged.mount)
