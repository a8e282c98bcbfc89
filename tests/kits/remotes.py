"""Two stores of one dataset: a history with something of everything, connections within this process, comparisons."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from tests.kits.stores import START, array_json, chunk, every_chunk, meta_of, tree_of, volume, write_version
from volfs import open_store
from volfs.model.metadata import group_zarr_json
from volfs.versions.check.fsck import fsck
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.dataset import Dataset
from volfs.versions.remotes.address import Address
from volfs.versions.remotes.connection import Connection, Service, connected
from volfs.versions.remotes.message_frames import Frames
from volfs.versions.remotes.server import serve
from volfs.versions.store import Store

SHAPE = (16, 16, 16)


def history(dataset: Dataset) -> None:
    """Versions on three branches: shards and single chunks, metadata that changes, removals, an array made anew, side
    files with permission bits, times and links, a tag."""
    first = write_version(dataset, volume(SHAPE), files={"files/notes.txt": b"one", "files/dir/a": b"a"}, time_ns=START)
    second = write_version(dataset, volume(SHAPE, 1), parent=first, coords=[(0, 0, 1), (1, 1, 1)], message="chunks")
    with VersionWriter(dataset, "main", second) as writer:
        raw = array_json(volume(SHAPE, 2), (8, 8, 8), attributes={"seen": True})
        writer.array("s0", raw, created=False, shard_shape=(8, 8, 8), chunks=np.zeros((0, 3), np.int64))
        labels = volume(SHAPE, 3, "u1")
        writer.put("zarr/labels/zarr.json", group_zarr_json())
        made = array_json(labels, (8, 8, 8))
        array = writer.array("labels/nuclei", made, created=True, shard_shape=(8, 8, 8))
        for at in every_chunk(meta_of(made)):
            array.put(at, chunk(meta_of(made), labels, at))
        writer.put("files/run", b"#!/bin/sh\n", mode=0o755, mtime_ns=START - 7)
        writer.put("files/private/key", b"secret", mode=0o600, readers=0o600)
        writer.set_mode("files/private", 0o700)
        writer.put("files/link", b"notes.txt", mode=0o120000)
        writer.put("zarr/s0/notes.bin", b"x" * (3 << 20))
        writer.remove("files/dir/a")
        third = writer.publish("metadata, labels, side files", "tester").number
    dataset.create_branch("exp", second)
    write_version(dataset, volume(SHAPE, 5), parent=second, coords=[(1, 0, 0)], branch="exp", message="elsewhere")
    write_version(
        dataset, volume((8, 8), 6), parent=third, path="s0", chunks=(4, 4), created=True, message="another array"
    )
    with VersionWriter(dataset, "main", dataset.branches()["main"]) as writer:
        writer.remove_subtree("zarr/labels")
        writer.keep("files/run", _sha256(b"#!/bin/sh\n"), mode=0o700, mtime_ns=START - 7)
        writer.publish("removed, and other bits", "tester")
    dataset.create_tag("paper", second)
    dataset.create_branch("empty", first)


def _sha256(data: bytes) -> bytes:
    from hashlib import sha256

    return sha256(data).digest()


def same(one: Dataset, other: Dataset, *ids: str) -> None:
    """Both have these versions (or all that the first has), with the same keys and bytes."""
    theirs = {info.content_id: info.number for info in other.versions()}
    for info in one.versions():
        if ids and info.content_id not in ids:
            continue
        there = other.info(theirs[info.content_id])
        assert (there.author, there.message, there.time_ns) == (info.author, info.message, info.time_ns)
        assert tree_of(other.version(there.number)) == tree_of(one.version(info.number))


def whole(store: Store) -> None:
    """fsck finds nothing wrong."""
    with open_store(store.path, read_only=True) as looking:
        assert fsck(looking).findings == []


def files_of(root: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


Change = Callable[[bytes], bytes]


@contextmanager
def served(
    path: Path, service: Service = "fetch", *, heard: Change | None = None, said: Change | None = None
) -> Iterator[Connection]:
    """A connection to a store that a thread of this process serves. ``heard`` and ``said`` may alter what the server
    sends and gets, a piece at a time."""
    with _threads(path, heard, said) as (incoming, outgoing):
        yield Connection(Frames(incoming, outgoing, "there"), Address(str(path)), service)


@contextmanager
def in_this_process(address: Address, service: Service) -> Iterator[Connection]:
    """In the place of :func:`volfs.versions.remotes.connection.connected`: starting a process for each connection takes
    longer than all else."""
    with served(Path(address.path), service) if not address.host else connected(address, service) as connection:
        yield connection


@contextmanager
def _threads(path: Path, heard: Change | None, said: Change | None) -> Iterator[tuple[int, int]]:
    ours, theirs = socket.socketpair(), socket.socketpair()
    ends = [*ours, *theirs]

    def run() -> None:
        fd = theirs[1].fileno()
        serve(Frames(fd, fd, "here"), path, lambda root, read_only: open_store(root, read_only=read_only))
        with suppress(OSError):
            theirs[1].shutdown(socket.SHUT_RDWR)

    def carry(source: socket.socket, target: socket.socket, change: Change | None) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                target.sendall(piece if change is None else change(piece))
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    threads = [
        threading.Thread(target=run, daemon=True),
        threading.Thread(target=carry, args=(theirs[0], ours[1], heard), daemon=True),
        threading.Thread(target=carry, args=(ours[1], theirs[0], said), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield ours[0].fileno(), os.dup(ours[0].fileno())
    finally:
        with suppress(OSError):
            ours[0].shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(30)
        for end in ends:
            end.close()
