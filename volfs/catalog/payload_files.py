"""Names of payload files, and piece checksums: from the small numbers in index rows to :class:`Payload`.

File names are kept in compressed groups of 256 (neighbouring chunk files have nearly the same name), so a commit of a
million single-chunk files costs a few bytes a name. Groups never change: those in use are kept decoded in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from volfs.catalog.compression import compress, decompress
from volfs.catalog.schema import GROUP
from volfs.catalog.sums import check_row, mismatch, row_sum
from volfs.model.bounded_map import BoundedMap
from volfs.storage.payload import PIECE, Payload

_NAME_BYTES = 100
"""What a file name takes in memory, about."""
_NAMES_BYTES = _NAME_BYTES << 18
_SHORT = 256
"""Bytes up to which a group is not worth compressing."""
_ZSTD = b"\x28\xb5\x2f\xfd"
"""How every zstd frame begins, and no payload's name: names begin with a version's digits."""


def add_files(cx: sqlite3.Connection, dataset: int, names: Sequence[str]) -> list[int]:
    """Give each file name an id, in order."""
    ids: list[int] = []
    for start in range(0, len(names), GROUP):
        group = names[start : start + GROUP]
        packed = "\0".join(group).encode("utf-8", "surrogateescape")
        if len(packed) > _SHORT or packed.startswith(_ZSTD):
            packed = compress(packed)
        cursor = cx.execute("INSERT INTO file_group (dataset, names, sum) VALUES (?, ?, 0)", (dataset, packed))
        made = cursor.lastrowid
        assert made is not None
        cx.execute("UPDATE file_group SET sum = ? WHERE id = ?", (row_sum("file_group", made, dataset, packed), made))
        first = made * GROUP
        ids.extend(range(first, first + len(group)))
    return ids


class FileNames(BoundedMap[int, list[str]]):
    """File ids to names, by group. Thread-safe."""

    def __init__(self) -> None:
        super().__init__(_NAMES_BYTES, lambda names: len(names) * _NAME_BYTES)

    def name(self, cx: sqlite3.Connection, file: int) -> str:
        """The name of file id ``file``, relative to the dataset's versions directory."""
        group, number = divmod(file, GROUP)
        # The order of leaving is that of loading, not of use: moving on every hit would cost more than a rare reload.
        names = self.peek(group)
        if names is None:
            names = self._load(cx, group)
        if number >= len(names):
            raise mismatch(f"it names payload file {number} of group {group}, which has {len(names)}")
        return names[number]

    def _load(self, cx: sqlite3.Connection, group: int) -> list[str]:
        row = cx.execute("SELECT id, dataset, names, sum FROM file_group WHERE id = ?", (group,)).fetchone()
        if row is None:
            raise mismatch(f"it names a payload file that it does not know (group {group})")
        check_row(row[3], "file_group", group, *row[1:3])
        packed: bytes = row[2]
        joined = decompress(packed) if packed.startswith(_ZSTD) else packed
        names = joined.decode("utf-8", "surrogateescape").split("\0")
        self.put(group, names)
        return names

    def payload(self, cx: sqlite3.Connection, file: int, offset: int, length: int, crc: int) -> Payload:
        """The payload that an index row points at."""
        pieces = self.pieces(cx, file, offset) if length > PIECE else None
        return Payload(self.name(cx, file), offset, length, crc, pieces)

    def pieces(self, cx: sqlite3.Connection, file: int, offset: int) -> bytes | None:
        """The piece checksums of the payload there, if it has some."""
        row = cx.execute("SELECT crcs, sum FROM piece WHERE file = ? AND offset = ?", (file, offset)).fetchone()
        if row is None:
            return None
        check_row(row[1], "piece", file, offset, row[0])
        found: bytes = row[0]
        return found
