"""Checksums of the catalog's rows: what proves that a row is the one that was written, under its own key.

Decided here: what a sum covers, and the error when it does not match. A row that leads to bytes has the crc32c of its
columns, its key included (:func:`row_sum`, :func:`entry_sum`, :func:`block_sum`). A chunk's payload in a block row has
one of its own that covers the chunk's key and version (:func:`payload_checks`), so that a whole block is proved at once
by arithmetic on arrays.

A row that is *missing*, or lies under another key, cannot tell. So each table that is searched has a second index of
its keys alone, ``TABLE_keys``, and whoever searches the table searches that too: both must give the same keys
(:func:`paired`, and the UNION ALL statements of :mod:`.lineages`). One damaged page harms one of the two.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from volfs.catalog.values import PayloadArray
from volfs.errors import Damaged

MEND = "`volfs fsck --rebuild-catalog`, or the next opening for writing, makes it anew"

_HEAD = struct.Struct("<9q")
_ENTRY = struct.Struct("<13q")
_BLOCK = struct.Struct("<q")

# Odd, so that any flipped bit of a factor changes the product; random, so that it changes the upper half of it.
_WEIGHTS = np.array(
    [
        0x9E3779B97F4A7C15,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0xD6E8FEB86659FD93,
        0xA0761D6478BD642F,
        0xE7037ED1A0B428DB,
    ],
    np.uint64,
)
_RETRIES = 3


def mismatch(what: str) -> Damaged:
    """The error for a part of the catalog that is not what was written."""
    return Damaged(f"the catalog is damaged: {what}; {MEND}")


def row_sum(*values: object) -> int:
    """The sum of a row of numbers, texts, blobs and NULLs; the table's name comes first."""
    return crc32c(ascii(values).encode())


def check_row(said: object, *values: object) -> None:
    """Damaged unless ``said`` is the sum of the row."""
    if said != row_sum(*values):
        raise mismatch(f"a row of table {values[0]!s} does not match its checksum")


def entry_sum(directory: int, name: bytes, columns: tuple[Any, ...]) -> int:
    """The sum of a row of ``entry``; ``columns``: all from lineage to mtime_ns."""
    return crc32c(name, crc32c(_ENTRY.pack(directory, len(name), *columns)))


def block_sum(
    node: int,
    block: bytes,
    lineage: int,
    position: int,
    version: int,
    older_lineage: int,
    older_position: int,
    steps: int,
    cells: bytes,
    owners: bytes | None,
) -> int:
    """The sum of a row of ``block``, its payloads left out."""
    head = _HEAD.pack(
        node,
        lineage,
        position,
        version,
        older_lineage,
        older_position,
        steps,
        len(cells),
        -1 if owners is None else len(owners),
    )
    found = crc32c(cells, crc32c(block, crc32c(head)))
    return found if owners is None else crc32c(owners, found)


def block_seed(node: int, block: bytes) -> int:
    """The part of an index block in the checks of the payloads in it."""
    return crc32c(block, crc32c(_BLOCK.pack(node)))


def payload_checks(
    seeds: NDArray[np.uint64] | int, cells: NDArray[Any], versions: NDArray[Any] | int, payloads: PayloadArray
) -> NDArray[np.uint32]:
    """A checksum for each chunk's payload: it covers the chunk's block (by its :func:`block_seed`) and cell in it, the
    version that changed it, and where the payload lies. Never 0, so a payload that was never read does not match."""
    words = np.ascontiguousarray(payloads).view("<u8").reshape(-1, 3)
    total = words @ _WEIGHTS[:3]
    total += cells.astype(np.uint64) * _WEIGHTS[3]
    total += np.asarray(versions).astype(np.uint64) * _WEIGHTS[4]
    total += np.asarray(seeds, np.uint64) * _WEIGHTS[5]
    checks = (total >> np.uint64(32)).astype(np.uint32)
    found: NDArray[np.uint32] = np.maximum(checks, np.uint32(1))
    return found


def paired(
    cx: sqlite3.Connection, rows: str, keys: str, parameters: tuple[object, ...], *, width: int
) -> Iterator[tuple[Any, ...]]:
    """The rows of one statement, whose first ``width`` columns must be those of another over the index of the keys.

    A reader that stops early leaves the rest unchecked.
    """
    for _ in range(_RETRIES):
        found = cx.execute(rows, parameters)
        row = found.fetchone()
        proof = cx.execute(keys, parameters)
        key = proof.fetchone()
        # Two statements see one state of the file only while both are open: what is empty is not. So ask again.
        if (row is None) == (key is None):
            break
    if row is None and key is None:
        return
    for one, proved in chain([(row, key)], zip_longest(found, proof)):
        if one is None or proved is None or one[:width] != proved:
            table = rows.partition(" FROM ")[2].partition(" ")[0]
            raise mismatch(f"table {table} and the index of its keys differ")
        yield one
