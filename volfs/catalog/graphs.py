"""Datasets, refs, dropped versions and version graphs, out of their tables.

Decided here: that a graph handed out never changes: new versions, of whichever process, give a new graph. And that
datasets, versions and refs are what was written, all of them: a dataset's row says how many versions it has, which is
the newest, and what the sum of its refs is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from volfs.catalog.compression import compress, decompress
from volfs.catalog.connections import transaction
from volfs.catalog.sums import MEND, check_row, mismatch, row_sum
from volfs.errors import NotFound, StoreFormat
from volfs.model.graph import Fork, VersionGraph, VersionInfo
from volfs.model.refs import NamedRefs, RefKind, Refs

_COLUMNS = (
    "dataset, number, parents, lineage, position, fork_lineage, fork_position, time_ns, author, message, content_id,"
    " ordinal"
)
_KINDS = {kind.row: kind for kind in RefKind}
_STORES = "SELECT id, sum FROM store"
_VERSIONS = f"SELECT seq, sum, {_COLUMNS} FROM version WHERE dataset = ? AND seq > ? ORDER BY seq"
_DATASET = "id, name, uuid, created_ns, root, versions, newest, refs"


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A row of ``dataset``."""

    id: int
    name: str
    uuid: str
    created_ns: int
    root: int
    versions: int = 0
    newest: str = ""
    refs: int = 0

    @property
    def values(self) -> tuple[object, ...]:
        return self.id, self.name, self.uuid, self.created_ns, self.root, self.versions, self.newest, self.refs

    @classmethod
    def read(cls, row: tuple[Any, ...]) -> DatasetRow:
        """From the columns and the sum. Damaged if they are not what was written."""
        check_row(row[-1], "dataset", *row[:-1])
        return cls(*row[:-1])


def check_store(cx: sqlite3.Connection, path: Path, store: str, *, claim: bool) -> None:
    """Raise StoreFormat unless this is the catalog of the store with this id. ``claim``: make it that if it is new."""
    rows = cx.execute(_STORES).fetchall()
    if not rows and claim:
        with transaction(cx, "IMMEDIATE"):  # whoever comes first; the others find it claimed
            rows = cx.execute(_STORES).fetchall()
            if not rows:
                rows = [(store, row_sum("store", store))]
                cx.execute("INSERT INTO store (id, sum) VALUES (?, ?)", rows[0])
    if len(rows) != 1:
        raise mismatch(f"it names {len(rows) or 'no'} stores that it is the index of")
    check_row(rows[0][1], "store", rows[0][0])
    if rows[0][0] != store:
        raise StoreFormat(f"{path} is the catalog of another store (id {rows[0][0]!r}); {MEND}")


def load_datasets(cx: sqlite3.Connection) -> list[DatasetRow]:
    """All datasets, by name."""
    return [DatasetRow.read(row) for row in cx.execute(f"SELECT {_DATASET}, sum FROM dataset ORDER BY name")]


def load_dataset(cx: sqlite3.Connection, dataset: int) -> DatasetRow | None:
    """One dataset, None if there is none of this id."""
    row = cx.execute(f"SELECT {_DATASET}, sum FROM dataset WHERE id = ?", (dataset,)).fetchone()
    if row is not None and row[0] != dataset:
        raise mismatch(f"dataset {dataset} is not found")
    return DatasetRow.read(row) if row is not None else None


def store_dataset(cx: sqlite3.Connection, row: DatasetRow) -> None:
    """Make the row of a dataset that is there say this."""
    cx.execute(
        "UPDATE dataset SET name = ?, uuid = ?, created_ns = ?, root = ?, versions = ?, newest = ?, refs = ?, sum = ?"
        " WHERE id = ?",
        (*row.values[1:], row_sum("dataset", *row.values), row.id),
    )


def load_graph(
    cx: sqlite3.Connection, dataset: int, known: VersionGraph | None, last_seq: int
) -> tuple[VersionGraph, int]:
    """The graph with all versions after ``last_seq`` added, and the last seq. ``known`` itself stays as it is."""
    rows = cx.execute(_VERSIONS, (dataset, last_seq)).fetchall()
    graph = known if known is not None and not rows else known.copy() if known is not None else VersionGraph()
    for seq, total, *columns in rows:
        check_row(total, "version", dataset, *columns[1:])
        _, number, parents, lineage, position, fork_lineage, fork_position, time_ns, author, message, content, n = (
            columns
        )
        if n != len(graph) + 1:
            raise mismatch(f"a version before v{number} is missing")
        info = VersionInfo(
            number=number,
            parents=tuple(map(int, parents.split())),
            lineage=lineage,
            position=position,
            time_ns=time_ns,
            author=_from_text(author),
            message=_from_text(message),
            content_id=content,
        )
        graph.add(info, (fork_lineage, fork_position) if fork_lineage else None)
        last_seq = seq
    # Asked after the versions, so it may know of more by now, which whoever asks next will see; never of less.
    row = load_dataset(cx, dataset)
    if row is not None and (row.versions < len(graph) or (row.versions > len(graph) and not _more(cx, row, last_seq))):
        raise mismatch(f"dataset {row.name} has {row.versions} versions, of which {len(graph)} were found")
    return graph, last_seq


def _more(cx: sqlite3.Connection, row: DatasetRow, last_seq: int) -> bool:
    """Whether versions came after ``last_seq``."""
    return cx.execute(_VERSIONS, (row.id, last_seq)).fetchone() is not None


def insert_version(cx: sqlite3.Connection, dataset: int, info: VersionInfo, fork: Fork | None) -> None:
    """Write a placed version."""
    row = load_dataset(cx, dataset)
    if row is None:
        raise mismatch(f"there is no dataset {dataset}")
    values = (
        dataset,
        info.number,
        " ".join(map(str, info.parents)),
        info.lineage,
        info.position,
        *(fork or (0, 0)),
        info.time_ns,
        _to_text(info.author),
        _to_text(info.message),
        info.content_id,
        row.versions + 1,
    )
    marks = ", ".join("?" * (len(values) + 1))
    cx.execute(f"INSERT INTO version ({_COLUMNS}, sum) VALUES ({marks})", (*values, row_sum("version", *values)))
    store_dataset(cx, replace(row, versions=row.versions + 1, newest=info.content_id))


def load_refs(cx: sqlite3.Connection, dataset: int) -> Refs:
    """The mirrored refs. NotFound if the dataset is not there, or not any more."""
    # One statement, so that the dataset's row and its refs are of one moment. A dataset without refs has one row.
    rows = cx.execute(
        "SELECT dataset.refs, ref.kind, ref.name, ref.version FROM dataset LEFT JOIN ref ON ref.dataset = dataset.id"
        " WHERE dataset.id = ?",
        (dataset,),
    ).fetchall()
    named: dict[RefKind, dict[str, int]] = {kind: {} for kind in RefKind}
    found = [row[1:] for row in rows if row[1] is not None]
    if not rows:
        raise NotFound(f"there is no dataset with id {dataset}")
    if rows[0][0] != _refs_sum(dataset, found):
        raise mismatch("the refs of a dataset do not match their checksum")
    for row, name, version in found:
        named[_KINDS[row]][name] = version
    return Refs(named)


def put_refs(cx: sqlite3.Connection, dataset: int, refs: NamedRefs) -> None:
    """Set these refs; the others stay."""
    if any(refs.values()):
        load_refs(cx, dataset)  # what stays is proved before it is summed anew
        _put(cx, dataset, refs)


def replace_refs(cx: sqlite3.Connection, dataset: int, refs: NamedRefs) -> None:
    """Make these all the refs of their kinds; the other kinds stay."""
    if len(refs) < len(RefKind):
        load_refs(cx, dataset)
    for kind in refs:
        cx.execute("DELETE FROM ref WHERE dataset = ? AND kind = ?", (dataset, kind.row))
    _put(cx, dataset, refs)


def load_retired(cx: sqlite3.Connection, dataset: int) -> frozenset[int]:
    """Numbers of the versions that were dropped."""
    row = cx.execute("SELECT dataset, numbers, sum FROM retired WHERE dataset = ?", (dataset,)).fetchone()
    if row is None:
        return frozenset()
    check_row(row[2], "retired", *row[:2])
    return frozenset(np.frombuffer(decompress(row[1]), "<u4").tolist())


def replace_retired(cx: sqlite3.Connection, dataset: int, numbers: Iterable[int]) -> None:
    """Make these all the versions that were dropped."""
    packed = compress(np.array(sorted(numbers), "<u4").tobytes())
    row = (dataset, packed, row_sum("retired", dataset, packed))
    cx.execute("INSERT OR REPLACE INTO retired (dataset, numbers, sum) VALUES (?, ?, ?)", row)


def _put(cx: sqlite3.Connection, dataset: int, refs: NamedRefs) -> None:
    cx.executemany(
        "INSERT OR REPLACE INTO ref (dataset, kind, name, version) VALUES (?, ?, ?, ?)",
        [(dataset, kind.row, name, version) for kind, named in refs.items() for name, version in named.items()],
    )
    _sum_refs(cx, dataset)


def _sum_refs(cx: sqlite3.Connection, dataset: int) -> None:
    rows = cx.execute("SELECT kind, name, version FROM ref WHERE dataset = ?", (dataset,)).fetchall()
    row = load_dataset(cx, dataset)
    if row is not None:
        store_dataset(cx, replace(row, refs=_refs_sum(dataset, rows)))


def _refs_sum(dataset: int, rows: list[tuple[Any, ...]]) -> int:
    return row_sum("ref", dataset, *sorted(rows)) if rows else 0


def _to_text(text: str) -> str | bytes:
    # A message written through a file may hold bytes that are no UTF-8; SQLite takes them as a blob.
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")
    return text


def _from_text(stored: str | bytes) -> str:
    return stored if isinstance(stored, str) else stored.decode("utf-8", "surrogateescape")
