"""Datasets, refs and version graphs, out of their tables.

Decided here: that a graph handed out never changes: new versions, of whichever process, give a new graph.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from volfs.catalog.values import Refs
from volfs.model.graph import Fork, VersionGraph, VersionInfo

_VERSIONS = (
    "SELECT seq, number, parents, lineage, position, fork_lineage, fork_position, time_ns, author, message, content_id"
    " FROM version WHERE dataset = ? AND seq > ? ORDER BY seq"
)


def load_graph(
    cx: sqlite3.Connection, dataset: int, known: VersionGraph | None, last_seq: int
) -> tuple[VersionGraph, int]:
    """The graph with all versions after ``last_seq`` added, and the last seq. ``known`` itself stays as it is."""
    rows = cx.execute(_VERSIONS, (dataset, last_seq)).fetchall()
    if known is not None and not rows:
        return known, last_seq
    graph = known.copy() if known is not None else VersionGraph()
    for seq, number, parents, lineage, position, fork_lineage, fork_position, time_ns, author, message, content in rows:
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
    return graph, last_seq


def insert_version(cx: sqlite3.Connection, dataset: int, info: VersionInfo, fork: Fork | None) -> None:
    """Write a placed version."""
    cx.execute(
        "INSERT INTO version (dataset, number, parents, lineage, position, fork_lineage, fork_position, time_ns,"
        " author, message, content_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
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
        ),
    )


def load_refs(cx: sqlite3.Connection, dataset: int) -> Refs:
    """The mirrored refs."""
    heads: dict[str, int] = {}
    tags: dict[str, int] = {}
    for kind, name, version in cx.execute("SELECT kind, name, version FROM ref WHERE dataset = ?", (dataset,)):
        (heads if kind == "head" else tags)[name] = version
    return Refs(heads, tags)


def put_refs(cx: sqlite3.Connection, dataset: int, kind: str, refs: Mapping[str, int]) -> None:
    """Set these refs, and no others."""
    cx.executemany(
        "INSERT OR REPLACE INTO ref (dataset, kind, name, version) VALUES (?, ?, ?, ?)",
        [(dataset, kind, name, version) for name, version in refs.items()],
    )


def replace_refs(cx: sqlite3.Connection, dataset: int, kind: str, refs: Mapping[str, int]) -> None:
    """Make these all the refs of their kind."""
    cx.execute("DELETE FROM ref WHERE dataset = ? AND kind = ?", (dataset, kind))
    put_refs(cx, dataset, kind, refs)


def _to_text(text: str) -> str | bytes:
    # A message written through a file may hold bytes that are no UTF-8; SQLite takes them as a blob.
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")
    return text


def _from_text(stored: str | bytes) -> str:
    return stored if isinstance(stored, str) else stored.decode("utf-8", "surrogateescape")
