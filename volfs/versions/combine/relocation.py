"""A node or a side file under another name.

Decided here: nothing is copied; lists in metadata that name what moved follow, and so do the levels of an image. Not
here: the lists that there are (:mod:`volfs.model.name_lists`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from volfs.errors import AlreadyThere, BadInput, NotFound
from volfs.model.name_lists import renamed_in
from volfs.model.names import check_key
from volfs.versions.combine.candidates import keys_below
from volfs.versions.combine.chunk_states import ChunkStates
from volfs.versions.combine.digests import Digests
from volfs.versions.commit.version_writer import VersionWriter
from volfs.versions.committed.version import Version
from volfs.versions.keys import NODE_JSON, covers, json_key, node_path, node_path_of_json, parents
from volfs.versions.snapshot import GroupNode


def check_move(version: Version, old: str, new: str) -> None:
    """Raise BadInput, NotFound or AlreadyThere unless what is at key ``old`` can be at ``new``."""
    for key in (old, new):
        check_key(key)
    if old.partition("/")[0] != new.partition("/")[0]:
        raise BadInput(f"{old} and {new} are of two kinds: nodes stay below zarr/, side files below files/")
    if covers(old, new):
        raise BadInput(f"{new} is {old} itself, or lies below it")
    if version.entry(old) is None:
        raise NotFound(f"there is no node or file {old} in {version.ref}")
    if version.stat(new) is not None:
        raise AlreadyThere(f"there is something at {new} in {version.ref} already")
    if (inside := version.array_above(new) or version.array_above(old)) is not None:
        raise BadInput(f"a chunk or file of an array cannot be moved: {json_key(inside[0].path)} says where they are")
    for above in parents(new):
        info = version.stat(above)
        if info is not None and info.kind == "file":
            raise BadInput(f"{above} is a file")
    group = new.rpartition("/")[0]
    if (path := node_path(group)) is not None and not isinstance(version.node(path), GroupNode):
        raise BadInput(f"there is no group at {group}")


def write_move(writer: VersionWriter, version: Version, old: str, new: str) -> None:
    """Write the move into a version on top of ``version``."""
    digests = Digests(version.dataset)
    states = ChunkStates(digests)
    entry = version.entry(old)
    assert entry is not None, "it was checked"
    if entry.kind == "dir":
        writer.remove_subtree(old)
        for folder, mode in _folder_modes(version, old):
            writer.set_mode(f"{new}{folder[len(old) :]}", mode)
    else:
        writer.remove(old)
    for key in keys_below(version, old):
        target = f"{new}{key[len(old) :]}"
        path = node_path_of_json(key)
        array = None if path is None else version.array(path)
        if array is not None:
            raw, rows = version.read(key), array.stored_rows()
            taking = writer.array(
                node_path(target.removesuffix(f"/{NODE_JSON}")) or "", raw, created=True, chunks=rows[:0]
            )
            changed = states.of(array, rows)["changed"].astype(np.int32)
            for lot in digests.taken(array.path, rows, changed):
                taking.take(lot.records, lot.files, lot.pieces)
            continue
        found = version.entry(key)
        assert found is not None and found.payload is not None, "it was listed"
        sha256, owner = digests.of_key(key, found)
        writer.take(target, found.payload, sha256, owner, mode=found.mode, mtime_ns=found.mtime_ns)
    for key, document in _renamed(version, old, new):
        writer.put(key, json.dumps(document, indent=2, ensure_ascii=False).encode())


def _folder_modes(version: Version, folder: str) -> Iterator[tuple[str, int]]:
    pending = [folder]
    while pending:
        where = pending.pop()
        entry = version.entry(where)
        if entry is not None and entry.kind == "dir":
            if entry.mode:
                yield where, entry.mode & 0o777
            found = version.catalog.list_entries(version.dataset.id, version.at, entry.dir_id)
            pending += [f"{where}/{name}" for name, child in found if child.kind == "dir"]


def _renamed(version: Version, old: str, new: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The metadata of the groups whose lists name what moves, as it is after that."""
    if node_path(old) is None:
        return
    for folder in {*parents(old), *parents(new)}:
        path = node_path(folder)
        if path is None or not isinstance(version.node(path), GroupNode):
            continue
        document = json.loads(version.read(json_key(path)))
        before, after = (key[len(folder) + 1 :] if covers(folder, key) else None for key in (old, new))
        if renamed_in(document, before, after):
            yield json_key(path), document
