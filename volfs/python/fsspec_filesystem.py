"""Keys of a store as an fsspec filesystem: ``volfs://DATASET@REF/KEY::/path/of/the/store``.

Decided here: how a URL names a key. fsspec chains URLs outwards, from what is meant to what it lies in, as in
``zip://file.txt::/data/archive.zip``: so the store comes last. It may be left out where `VOLFS_STORE` or the option
``store`` says it. ``DATASET`` alone is its default branch; a key is ``zarr/…`` or ``files/…``. The root lists datasets,
and no refs: they are known when they are named. Directories are there while something is in them. The store is opened
for writing by the first call that writes; a file is put when it is closed, whole. Errors are those of Python's
``open``.

It is the entry point `volfs` of ``fsspec.specs``. Not here: what keys mean (:mod:`volfs.versions.snapshot`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar

from fsspec.core import url_to_fs
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from volfs.errors import BadInput, NotAllowed, NotFound, VolfsError, WrongKind
from volfs.model.refs import parse_dataset_spec
from volfs.python.face import Face
from volfs.versions.snapshot import KeyInfo, Snapshot, WritableSnapshot
from volfs.versions.store import Store, shared_store
from volfs.volume.image import Image
from volfs.volume.level import Level
from volfs.volume.pyramid import settle

PROTOCOL = "volfs"


class VolfsFileSystem(AbstractFileSystem):
    """Keys of one store. ``fo``, ``target_protocol`` and ``target_options`` are fsspec's for what a URL lies in."""

    protocol = PROTOCOL
    root_marker = ""
    #: Everything is looked up when it is asked for: a branch may change any time.
    use_listings_cache: ClassVar[bool] = False

    def __init__(
        self,
        fo: str | None = None,
        store: str | os.PathLike[str] | None = None,
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if target_protocol not in (None, "file", "local"):
            raise ValueError(f"a volfs store is a directory of this machine, not of {target_protocol!r}")
        self._path = store or fo or os.environ.get("VOLFS_STORE")
        self._writes = False

    @property
    def fsid(self) -> str:
        return f"volfs-{self.store.id}"

    @property
    def store(self) -> Store:
        """The store, open in this process. Raises ValueError if none is named, and NotFound."""
        if self._path is None:
            raise ValueError("no store is named: volfs://DATASET@REF/KEY::/path/of/the/store, or set VOLFS_STORE")
        return shared_store(self._path, derive=settle, face=Face(), read_only=not self._writes)

    # -- looking ------------------------------------------------------------------------------------------------

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        with _as_os_error(path):
            if not path:
                return {"name": "", "size": 0, "type": "directory"}
            return _info(path, self._look(*self.locate(path)))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        with _as_os_error(path):
            if not path:
                found = [{"name": name, "size": 0, "type": "directory"} for name in self.store.datasets()]
            else:
                snapshot, key = self.locate(path)
                about = self._look(snapshot, key)
                if about.kind == "file":
                    found = [_info(path, about)]
                else:
                    found = [
                        _info(f"{path}/{name}", one)
                        for name, one in snapshot.list(key)
                        if not key or self._shown(snapshot, f"{key}/{name}", one)
                    ]
        return found if detail else [one["name"] for one in found]

    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(self.info(path).get("mtime", 0.0), UTC)

    def ukey(self, path: str) -> str:
        """Equal as long as the key has the same bytes."""
        found = self.info(path)
        return repr((self.store.id, *(found.get(name) for name in ("name", "size", "mtime", "version"))))

    # -- reading ------------------------------------------------------------------------------------------------

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        path = self._strip_protocol(path)
        with _as_os_error(path):
            snapshot, key = self._file(path)
            if (start or 0) < 0 or (end is not None and end < 0):
                start, end, _step = slice(start, end).indices(self.info(path)["size"])
            begin = start or 0
            return snapshot.read(key, begin, None if end is None else max(0, end - begin))

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> KeyFile:
        path = self._strip_protocol(path)
        if mode not in ("rb", "wb", "ab", "xb"):
            raise NotImplementedError(f"mode {mode!r}: a key is read, or put whole")
        if mode != "rb":
            with _as_os_error(path):
                branch, key = self.locate_for_writing(path)
                found = branch.stat(key)
                if found is not None and found.kind == "dir":
                    raise WrongKind(f"{path} is a directory", errno=errno.EISDIR)
                if found is not None and mode == "xb":
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        return KeyFile(
            self, path, mode, block_size or "default", autocommit=autocommit, cache_options=cache_options, **options
        )

    # -- writing ------------------------------------------------------------------------------------------------

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **_: Any) -> None:
        path = self._strip_protocol(path)
        with _as_os_error(path):
            branch, key = self.locate_for_writing(path)
            if not branch.put(key, bytes(value), only_new=mode == "create"):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        if self.isdir(path1):
            self.makedirs(path2, exist_ok=True)
        else:
            self.pipe_file(path2, self.cat_file(path1))

    def rm_file(self, path: str) -> None:
        path = self._strip_protocol(path)
        with _as_os_error(path):
            branch, key = self.locate_for_writing(path)
            branch.delete(key)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files, or directories with all that is in them; each of these in one step."""
        for one in self.expand_path(path, recursive=False):
            with _as_os_error(one):
                branch, key = self.locate_for_writing(one)
                found = branch.stat(key)
                if found is not None and found.kind == "dir":
                    if not recursive:
                        raise WrongKind(f"{one} is a directory", errno=errno.EISDIR)
                    branch.delete_tree(key)
                else:
                    branch.delete(key)

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Directories come with what is put into them: this says only whether there could be one."""
        if self.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self.makedirs(path, exist_ok=True)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        path = self._strip_protocol(path)
        if not exist_ok and self.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        with _as_os_error(path):
            self.locate_for_writing(path)

    def rmdir(self, path: str) -> None:
        path = self._strip_protocol(path)
        if self.isfile(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if self.ls(path, detail=False):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        with _as_os_error(path):
            branch, key = self.locate_for_writing(path)
            branch.delete_tree(key)

    # -- inside -------------------------------------------------------------------------------------------------

    def locate(self, path: str) -> tuple[Snapshot, str]:
        """The snapshot that a path leads into, and the key in it."""
        if path.startswith("/"):
            raise BadInput(f"{path!r} names no dataset: write volfs://DATASET@REF/KEY::/path/of/the/store")
        first, _, key = path.partition("/")
        spec = parse_dataset_spec(first)
        return self.store[spec.dataset].snapshot(spec.ref), key

    def _look(self, snapshot: Snapshot, key: str) -> KeyInfo:
        found = snapshot.stat(key)
        if found is None or not (key in ("", "zarr", "files") or self._shown(snapshot, key, found)):
            raise NotFound(f"{key} does not exist in {snapshot.ref}")
        return found

    def _shown(self, snapshot: Snapshot, key: str, found: KeyInfo) -> bool:
        """Whether a key is a file or leads to one: a working copy has empty directories too."""
        if found.kind == "file" or not isinstance(snapshot, WritableSnapshot):
            return True
        return any(self._shown(snapshot, f"{key}/{name}", one) for name, one in snapshot.list(key))

    def _file(self, path: str) -> tuple[Snapshot, str]:
        snapshot, key = self.locate(path)
        found = snapshot.stat(key)
        if found is not None and found.kind == "dir":
            raise WrongKind(f"{path} is a directory", errno=errno.EISDIR)
        return snapshot, key

    def locate_for_writing(self, path: str) -> tuple[WritableSnapshot, str]:
        self._writes = True
        snapshot, key = self.locate(path)
        if not isinstance(snapshot, WritableSnapshot):
            raise NotAllowed(f"{path}: a version never changes; name a branch")
        return snapshot, key


class KeyFile(AbstractBufferedFile):
    """A key that is read by ranges, or a new content that is put whole when the file is closed."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        found: bytes = self.fs.cat_file(self.path, start, end)
        return found

    def _initiate_upload(self) -> None:
        """Nothing is put before the end."""

    def _upload_chunk(self, final: bool = False) -> bool:
        if final and self.autocommit:
            self.commit()
        return False  # the buffer keeps all of it

    def commit(self) -> None:
        """Put the content. A transaction of fsspec's calls this at its end."""
        before = self.fs.cat_file(self.path) if "a" in self.mode and self.fs.exists(self.path) else b""
        self.fs.pipe_file(self.path, before + self.buffer.getvalue(), "create" if "x" in self.mode else "overwrite")

    def discard(self) -> None:
        """Forget the content: nothing was put."""


def voxels_at(url: str, options: dict[str, Any] | None = None) -> Image | Level:
    """The image or level at a URL, with or without ``zarr/`` before its path. Raises NotFound."""
    filesystem, path = url_to_fs(url, **(options or {}))
    if not isinstance(filesystem, VolfsFileSystem):
        raise BadInput(f"{url!r} names no volfs store: write volfs://DATASET@REF/zarr/PATH::/path/of/the/store")
    snapshot, key = filesystem.locate(path)
    space, _, below = key.partition("/")
    found: Image | Level = snapshot[below if space == "zarr" else key]
    return found


def _info(path: str, found: KeyInfo) -> dict[str, Any]:
    kind = "link" if found.is_link else "directory" if found.kind == "dir" else "file"
    return {"name": path, "size": found.size, "type": kind, "mtime": found.mtime_ns / 1e9, "version": found.version}


@contextmanager
def _as_os_error(path: str) -> Iterator[None]:
    """What volfs raises, as the OSError that a file would raise: FileNotFoundError, PermissionError…"""
    try:
        yield
    except VolfsError as error:
        raise OSError(error.errno, str(error), path) from error
