"""The Zarr hierarchy of a snapshot as a store for zarr-python, with no mount: writable where it is a branch.

Decided here: how zarr's requests map onto keys. Not here: what a snapshot shows (:mod:`volfs.versions.snapshot`).
Follows :class:`zarr.abc.store.Store` of zarr-python 3. Directories without files do not show, as in an object store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeVar

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.buffer.core import default_buffer_prototype

from volfs.errors import BadName, NotAllowed, NotFound, WrongKind
from volfs.model.names import check_key
from volfs.versions.history import Opening
from volfs.versions.snapshot import KeyInfo, Snapshot, WritableSnapshot

_T = TypeVar("_T")
_Entries = list[tuple[str, KeyInfo]]
_Buffers = list[Buffer | None]


class ZarrStore(Store):
    """The hierarchy under ``zarr/`` of a version or a branch. Can be pickled: it then opens the volfs store by path."""

    def __init__(self, snapshot: Snapshot, *, read_only: bool | None = None) -> None:
        branch = snapshot if isinstance(snapshot, WritableSnapshot) else None
        if read_only is None:
            read_only = branch is None or snapshot.dataset.store.read_only
        if branch is None and not read_only:
            raise NotAllowed(f"{snapshot.ref} is a version and never changes: write to a branch")
        super().__init__(read_only=read_only)
        self.snapshot = snapshot
        self._branch = branch
        self._opening = snapshot.dataset.store.opening()

    def with_read_only(self, read_only: bool = False) -> ZarrStore:
        return type(self)(self.snapshot, read_only=read_only)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZarrStore) and self._place == other._place

    def __hash__(self) -> int:
        return hash(self._place)

    def __repr__(self) -> str:
        path, dataset, ref = self._place
        return f"ZarrStore('{path}', '{dataset}@{ref}')"

    __str__ = __repr__

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._opening, self.snapshot.dataset.name, self.snapshot.ref, self.read_only)

    @property
    def _place(self) -> tuple[str, str, str]:
        dataset = self.snapshot.dataset
        return str(dataset.store.path.absolute()), dataset.name, self.snapshot.ref

    @property
    def supports_writes(self) -> bool:
        return self._branch is not None

    @property
    def supports_deletes(self) -> bool:
        return self._branch is not None

    @property
    def supports_listing(self) -> bool:
        return True

    # -- reading ------------------------------------------------------------------------------------------------

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The value of a key, or a range of it; None if there is no such key. Raises Damaged."""
        prototype = prototype or default_buffer_prototype()
        name = f"zarr/{key}"
        try:
            match byte_range:
                case None:
                    data = self.snapshot.read(name)
                case RangeByteRequest(start, end):
                    data = self.snapshot.read(name, start, max(0, end - start))
                case OffsetByteRequest(offset):
                    data = self.snapshot.read(name, offset)
                case SuffixByteRequest(suffix):
                    info = self.snapshot.stat(name)
                    data = self.snapshot.read(name, max(0, (info.size if info else 0) - suffix))
                case _:
                    raise TypeError(f"Unexpected byte_range, got {byte_range}.")
        except (NotFound, WrongKind, BadName):
            return None
        return prototype.buffer.from_bytes(data)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        await self._ensure_open()
        return await asyncio.to_thread(self.get_sync, key, prototype=prototype, byte_range=byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> _Buffers:
        return list(await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges)))

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self._size, key) is not None

    async def getsize(self, key: str) -> int:
        size = await asyncio.to_thread(self._size, key)
        if size is None:
            raise FileNotFoundError(key)
        return size

    def _size(self, key: str) -> int | None:
        info = self._stat(f"zarr/{key}")
        return info.size if info is not None and info.kind == "file" else None

    def _stat(self, name: str) -> KeyInfo | None:
        try:
            check_key(name)
        except BadName:
            return None
        return self.snapshot.stat(name)

    # -- listing ------------------------------------------------------------------------------------------------

    def list(self) -> AsyncIterator[str]:
        return self.list_prefix("")

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        folder, slash, start = prefix.rpartition("/")
        for name, info in await asyncio.to_thread(self._entries, folder + slash):
            if name.startswith(start):
                key = f"{folder}{slash}{name}"
                if info.kind == "file":
                    yield key
                else:
                    async for below in self.list_prefix(f"{key}/"):
                        yield below

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        folder = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
        for name in await asyncio.to_thread(self._names, folder):
            yield name

    def _names(self, folder: str) -> list[str]:  # type: ignore[valid-type]
        return [n for n, info in self._entries(folder) if info.kind == "file" or self._holds_files(f"{folder}{n}/")]

    def _holds_files(self, folder: str) -> bool:
        entries = self._entries(folder)
        return any(info.kind == "file" for _, info in entries) or any(
            self._holds_files(f"{folder}{name}/") for name, _ in entries
        )

    def _entries(self, folder: str) -> _Entries:
        """The entries of a directory, given with its final slash; none if it is not there."""
        name = f"zarr/{folder}"[:-1]
        if folder and self._stat(name) is None:
            return []
        try:
            return self.snapshot.list(name)
        except (NotFound, WrongKind):
            return []

    # -- writing ------------------------------------------------------------------------------------------------

    def set_sync(self, key: str, value: Buffer) -> None:
        """Put a key, in one step."""
        self._put(key, value, only_new=False)

    async def set(self, key: str, value: Buffer) -> None:
        await self._ensure_open()
        await asyncio.to_thread(self._put, key, value, only_new=False)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        await self._ensure_open()
        await asyncio.to_thread(self._put, key, value, only_new=True)

    def delete_sync(self, key: str) -> None:
        """Remove a key; one that is not there is fine."""
        branch = self._writable()
        try:
            branch.delete(f"zarr/{key}")
        except (NotFound, WrongKind):
            return

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self.delete_sync, key)

    async def delete_dir(self, prefix: str) -> None:
        """Remove all keys below a prefix, in one step. An array that is put there afterwards is a new one."""
        await asyncio.to_thread(self._delete_dir, prefix)

    def _delete_dir(self, prefix: str) -> None:
        branch = self._writable()
        name = f"zarr/{prefix}".rstrip("/")
        info = branch.stat(name) if name == "zarr" else self._stat(name)
        if info is not None and info.kind == "dir":
            branch.delete_tree(name)

    def _put(self, key: str, value: Buffer, *, only_new: bool) -> None:
        branch = self._writable()
        if not isinstance(value, Buffer):
            raise TypeError(f"expected a Buffer, got {type(value).__name__}")
        branch.put(f"zarr/{key}", value.as_buffer_like(), only_new=only_new)

    def _writable(self) -> WritableSnapshot:
        self._check_writable()
        assert self._branch is not None
        return self._branch


def _reopen(opening: Opening, dataset: str, ref: str, read_only: bool) -> ZarrStore:
    return ZarrStore(opening(dataset, ref), read_only=read_only)
