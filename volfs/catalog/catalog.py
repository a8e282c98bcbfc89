"""The catalog of one store: what is key K at version V, what changed, which versions and refs are there.

A :class:`Catalog` may be used by any number of threads, and any number of processes may have the same file open. Reads
are autocommit and never wait; they are short enough to be made inline by an event loop. :meth:`Catalog.index_version`
is the only way a version gets in, all or nothing.

Decided here: the interface of this room, and what is cached: graphs, directory paths and entries, all of committed
versions, which never change, and datasets and refs, for as long as nobody has written to the file. Not decided here:
anything about the bytes behind a payload, and inodes (:mod:`.inodes`).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import struct
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from volfs.catalog import block_maps, chunk_changes, dirs, entries, graphs, path_changes, schema, version_rows
from volfs.catalog.connections import Connections, translate
from volfs.catalog.graphs import DatasetRow
from volfs.catalog.path_changes import PathChanges
from volfs.catalog.path_counts import PlaceCounts, counts_of_path
from volfs.catalog.payload_files import FileNames
from volfs.catalog.sums import mismatch
from volfs.catalog.values import BlockChange, BlockMap, ChunkRow, Entry, NodeShape
from volfs.errors import AlreadyThere, Damaged, NotFound, VolfsError
from volfs.model.bounded_map import BoundedMap, Caches
from volfs.model.box import Box, Index
from volfs.model.graph import At, VersionGraph, VersionInfo
from volfs.model.refs import NamedRefs, Refs
from volfs.storage.files import read_file, unlink_durably, write_atomic
from volfs.storage.manifest import Manifest

_NO_DIRECTORY = 0
_PATHS_KEPT = 65536
_ENTRIES_KEPT = 8192
_SHAPES_KEPT = 65536
_LARGE = 20_000
"""Records from which indexing is worth a larger page cache."""
_UNLIKELY = (struct.error, LookupError, TypeError, ValueError, ArithmeticError)
"""What damaged rows lead to before a sum is looked at."""
_DAMAGE = (Damaged, sqlite3.Error, *_UNLIKELY)
_SQLITE_IOERR = 10

log = logging.getLogger(__name__)
_R = TypeVar("_R")
_Place = tuple[int, int, int, str]


class Catalog:
    """The index of a store. Make it with :meth:`open`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._cx = connections.get
        self.caches = Caches()
        self._files = self.caches.add("payload_names", FileNames())
        self._lock = threading.Lock()
        self._suspected = False
        self._graphs: dict[int, tuple[int, VersionGraph, int]] = {}
        self._datasets: tuple[int, dict[str, DatasetRow]] | None = None
        self._refs: dict[int, tuple[int, Refs]] = {}
        self._retired: dict[int, tuple[int, frozenset[int]]] = {}
        self._roots: dict[int, int] = {}
        self._shapes: BoundedMap[int, tuple[int, NodeShape]] = self.caches.add("array_shapes", BoundedMap(_SHAPES_KEPT))
        # By dataset, lineage, position and key. The order of leaving is that of coming: a hit asks for no lock.
        self._paths: BoundedMap[_Place, int] = self.caches.add("directory_ids", BoundedMap(_PATHS_KEPT))
        self._entries: BoundedMap[_Place, Entry | None] = self.caches.add("entries", BoundedMap(_ENTRIES_KEPT))

    @classmethod
    def open(cls, path: Path, create: bool = False, *, read_only: bool = False, store: str = "") -> Catalog:
        """Open the catalog file of the store with this id, or make it.

        NotFound if it is not there and ``create`` is not set; StoreFormat if it is another file, of another store or
        from a newer volfs; Damaged if SQLite cannot read it.
        """
        connections = Connections(Path(path), read_only=read_only)

        def prepare(connection: sqlite3.Connection) -> None:
            if read_only:
                schema.check(connection, connections.path)
            else:
                schema.migrate(connection, connections.path)
            graphs.check_store(connection, connections.path, store, claim=not read_only)

        connections.open(prepare, create=create and not read_only)
        return cls(connections)

    @property
    def path(self) -> Path:
        return self._connections.path

    def close(self) -> None:
        """Close the file, for all threads."""
        self._connections.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def data_version(self) -> int:
        """Changes whenever this or another process has committed anything to the catalog. A few microseconds."""
        return self._guard(self._connections.data_version)

    @property
    def written(self) -> int:
        """Changes whenever this process has committed anything to the catalog. Takes no time at all."""
        return self._connections.written

    @property
    def statements(self) -> int:
        """How many statements this process has run on the catalog."""
        return self._connections.statements

    def check(self) -> list[str]:
        """The defects that SQLite finds in the file; empty if there are none."""
        rows = self._guard(lambda: self._cx().execute("PRAGMA integrity_check").fetchall())
        return [row[0] for row in rows if row[0] != "ok"]

    # --- datasets, versions, refs ---

    def dataset_rows(self) -> Mapping[str, DatasetRow]:
        """The row of each dataset, by name."""
        seen = self.data_version()
        held = self._datasets
        if held is None or held[0] != seen:
            rows = self._guard(lambda: graphs.load_datasets(self._cx()))
            held = self._datasets = seen, {row.name: row for row in rows}
        return held[1]

    def datasets(self) -> dict[str, int]:
        """Dataset ids by name."""
        return {name: row.id for name, row in self.dataset_rows().items()}

    def add_dataset(self, name: str, created_ns: int, uuid: str = "") -> int:
        """Add an empty dataset; returns its id. ``uuid`` is the id in the dataset's own files. AlreadyThere if the name
        is taken."""
        with self._write() as cx:
            if cx.execute("SELECT 1 FROM dataset WHERE name = ?", (name,)).fetchone():
                raise AlreadyThere(f"there is a dataset {name} already")
            dataset = cx.execute(
                "INSERT INTO dataset (name, uuid, created_ns, root, versions, newest, refs, sum)"
                " VALUES (?, ?, ?, 0, 0, '', 0, 0)",
                (name, uuid, created_ns),
            ).lastrowid
            assert dataset is not None
            root = dirs.add(cx, dataset, 0, b"", 0)
            graphs.store_dataset(cx, DatasetRow(dataset, name, uuid, created_ns, root))
        return dataset

    def drop_dataset(self, dataset: int) -> None:
        """Forget a dataset with all its versions. NotFound if there is none."""
        with self._write() as cx:
            if cx.execute("SELECT 1 FROM dataset WHERE id = ?", (dataset,)).fetchone() is None:
                raise NotFound(f"there is no dataset with id {dataset}")
            # Pieces are reached through the groups of their files, rows of nodes through their directories.
            for (group,) in cx.execute("SELECT id FROM file_group WHERE dataset = ?", (dataset,)).fetchall():
                first = group * schema.GROUP
                cx.execute("DELETE FROM piece WHERE file BETWEEN ? AND ?", (first, first + schema.GROUP - 1))
            for table, column in (
                ("entry", "dir"),
                ("entry_lineages", "dir"),
                ("block", "node"),
                ("block_lineages", "node"),
                ("touched", "node"),
            ):
                cx.execute(f"DELETE FROM {table} WHERE {column} IN (SELECT id FROM dir WHERE dataset = ?)", (dataset,))
            for table in ("file_group", "dir", "version", "ref", "retired"):
                cx.execute(f"DELETE FROM {table} WHERE dataset = ?", (dataset,))
            cx.execute("DELETE FROM dataset WHERE id = ?", (dataset,))
        with self._lock:
            self._graphs.pop(dataset, None)
            self._refs.pop(dataset, None)
            self._retired.pop(dataset, None)
            self._roots.pop(dataset, None)
        self._shapes.clear()
        for kept in (self._paths, self._entries):
            kept.pop_where(lambda place: place[0] == dataset)

    def clear(self) -> None:
        """Remove all rows, damaged ones too. Ids of datasets and directories are not given again."""
        with self._write() as cx:
            for table in ("dataset", "version", "ref", "retired", "dir", "entry", "entry_lineages"):
                cx.execute(f"DELETE FROM {table}")
            for table in ("block", "block_lineages", "touched", "file_group", "piece"):
                cx.execute(f"DELETE FROM {table}")
        with self._lock:
            for known in (self._graphs, self._refs, self._retired, self._roots):
                known.clear()
            self._datasets = None
        for kept in (self._paths, self._entries, self._shapes):
            kept.clear()
        self._suspected = False
        self.clear_suspicion(self.path)

    def graph(self, dataset: int) -> VersionGraph:
        """The versions of a dataset, as of now. The graph returned never changes; ask again to see new versions."""
        seen = self.data_version()
        held = self._graphs.get(dataset)
        if held is not None and held[0] == seen:
            return held[1]
        with self._lock:
            held = self._graphs.get(dataset)
            if held is not None and held[0] == seen:
                return held[1]
            _, known, last = held if held is not None else (0, None, 0)
            graph, last = self._guard(lambda: graphs.load_graph(self._cx(), dataset, known, last))
            self._graphs[dataset] = (seen, graph, last)
            self.caches.add("chains", graph.chains)
        return graph

    def _graph_of(self, dataset: int, at: At) -> VersionGraph:
        """A graph that knows all that ``at`` sees: any does that knows its first link, without asking for news."""
        held = self._graphs.get(dataset)
        return held[1] if held is not None and held[1].has(at.lineage, at.position) else self.graph(dataset)

    def refs(self, dataset: int) -> Refs:
        """The refs, as mirrored."""
        seen = self.data_version()
        held = self._refs.get(dataset)
        if held is None or held[0] != seen:
            held = self._refs[dataset] = seen, self._guard(lambda: graphs.load_refs(self._cx(), dataset))
        return held[1]

    def set_refs(self, dataset: int, refs: NamedRefs) -> None:
        """Make these all the refs of their kinds; the other kinds stay."""
        with self._write() as cx:
            graphs.replace_refs(cx, dataset, refs)

    def mirror_refs(self, dataset: int, read: Callable[[], Refs]) -> None:
        """Make these all the refs that ``read`` finds in their files, which others change and mirror here, too."""
        with self._write() as cx:
            graphs.replace_refs(cx, dataset, read().named)

    def retired(self, dataset: int) -> frozenset[int]:
        """Numbers of the versions that were dropped, as mirrored."""
        seen = self.data_version()
        held = self._retired.get(dataset)
        if held is None or held[0] != seen:
            held = self._retired[dataset] = seen, self._guard(lambda: graphs.load_retired(self._cx(), dataset))
        return held[1]

    def set_retired(self, dataset: int, numbers: Iterable[int]) -> None:
        """Make these all the versions that were dropped."""
        with self._write() as cx:
            graphs.replace_retired(cx, dataset, numbers)

    def copy_to(self, path: Path) -> None:
        """Write a copy of the whole catalog, as it is now, into a new file."""

        def copy() -> None:
            with closing(sqlite3.connect(path)) as target:
                self._cx().backup(target)

        self._guard(copy)

    def move_to(self, path: Path) -> None:
        """Copy the catalog to another file and use that one from now on, for writing. All ids stay."""
        self.copy_to(path)
        self._connections.move(path)

    def index_version(
        self,
        dataset: int,
        info: VersionInfo,
        manifest: Manifest,
        nodes: Mapping[str, NodeShape],
        refs: NamedRefs | None = None,
    ) -> VersionInfo:
        """Index a version, in one transaction with the refs given (others stay); the version as placed in the graph.

        ``nodes``: the index shape of each array, by hierarchy path, that this version creates; for arrays that exist
        the shape they have is kept, so giving it again does no harm. Indexing a version twice changes nothing but the
        refs; NotFound if a parent is missing, Damaged if another version has this number.
        """
        with self._write(large=len(manifest) > _LARGE) as cx:
            graph, _ = graphs.load_graph(cx, dataset, *self._graphs.get(dataset, (0, None, 0))[1:])
            known = graph.versions.get(info.number)
            if known is None:
                info = version_rows.index(cx, dataset, self._root(dataset), graph, info, manifest, nodes)
            elif known.content_id != info.content_id:
                raise mismatch(f"it has another version v{info.number}")
            else:
                info = known
            graphs.put_refs(cx, dataset, refs or {})
        # Taken in now, so that indexing many versions reads each once.
        self.graph(dataset)
        return info

    # --- names ---

    def entry(self, dataset: int, at: At, key: str) -> Entry | None:
        """The entry of a key: an object, a directory, or None. "" is the root. Keys of chunks have no entries."""
        memo = (dataset, at.lineage, at.position, key)
        # None is an answer, too: programs ask for files that are not there again and again.
        found = self._entries.peek(memo, ...)
        if found is ...:
            found = self._guard(lambda: self._entry(dataset, at, key))
            self._entries.put(memo, found)
        return found

    def _entry(self, dataset: int, at: At, key: str) -> Entry | None:
        if not key:
            return Entry("dir", self._root(dataset), None, 0)
        above, _, name = key.rpartition("/")
        directory = self._directory(dataset, at, above)
        if directory is None:
            return None
        cx = self._cx()
        row = entries.find(cx, directory, entries.encode(name), at)
        return self._spell(cx, row) if row is not None else None

    def _directory(self, dataset: int, at: At, path: str) -> int | None:
        if not path:
            return self._root(dataset)
        memo = (dataset, at.lineage, at.position, path)
        found = self._paths.peek(memo)
        if found is None:
            entry = self._entry(dataset, at, path)
            # That there is none is worth remembering too: directories of chunks have none, and a million names below.
            found = entry.dir_id if entry is not None and entry.kind == "dir" else _NO_DIRECTORY
            self._paths.put(memo, found)
        return found or None

    def list_entries(self, dataset: int, at: At, dir_id: int) -> list[tuple[str, Entry]]:
        """The names in a directory, in byte order of their UTF-8. Chunks of arrays are not among them."""

        def read() -> list[tuple[str, Entry]]:
            cx = self._cx()
            found = entries.listing(cx, dir_id, at)
            return [(entries.decode(name), self._spell(cx, row)) for name, row in found]

        return self._guard(read)

    def _spell(self, cx: sqlite3.Connection, row: entries.EntryRow) -> Entry:
        if row.kind == entries.DIRECTORY:
            return Entry("dir", row.child, None, row.version, row.mode)
        payload = self._files.payload(cx, row.file, row.offset, row.length, row.crc32c)
        return Entry("object", 0, payload, row.version, row.mode, row.mtime_ns)

    def born(self, dir_id: int) -> int:
        """The version that made this incarnation of a directory; 0 for a dataset's root."""
        found = self._guard(lambda: dirs.find(self._cx(), dir_id))
        if found is None:
            raise NotFound(f"there is no directory {dir_id}")
        return found.born

    # --- chunks ---

    def node_shape(self, node: int) -> NodeShape | None:
        """The index shape of an array, None for a directory that is none."""
        known = self._shapes.peek(node) or self._guard(lambda: self._load_shape(node))
        return None if known is None else known[1]

    def block_shape(self, node: int) -> Index | None:
        """Chunks per index block and axis of an array, None for a directory that is none."""
        shape = self.node_shape(node)
        return shape.block_shape if shape is not None else None

    def _load_shape(self, node: int) -> tuple[int, NodeShape] | None:
        found = dirs.find(self._cx(), node)
        if found is None or found.shape is None:
            return None
        known = found.dataset, found.shape
        self._shapes.put(node, known)
        return known

    def _node(self, node: int) -> tuple[int, NodeShape]:
        known = self._shapes.peek(node) or self._load_shape(node)
        if known is None:
            raise NotFound(f"directory {node} is no array")
        return known

    def chunk(self, node: int, at: At, block: Index, cell: int) -> ChunkRow | None:
        """One chunk; None where the version has none. ``block``, ``cell``: see :func:`volfs.model.grid.split`."""

        def read() -> ChunkRow | None:
            cx = self._cx()
            dataset = self._node(node)[0]
            found = block_maps.find_chunk(
                cx, node, block_maps.block_key(block), cell, at, lambda: self._graph_of(dataset, at)
            )
            if found is None or not found[1]:
                return None
            return ChunkRow(self._files.payload(cx, *found[1:]), found[0])

        return self._guard(read)

    def block_map(self, node: int, at: At, block: Index) -> BlockMap:
        """All chunks of one block."""

        def read() -> BlockMap:
            dataset, shape = self._node(node)
            return block_maps.block_map(
                self._cx(),
                self._files,
                node,
                block_maps.block_key(block),
                shape.cells,
                at,
                lambda: self._graph_of(dataset, at),
            )

        return self._guard(read)

    def file_name(self, file_id: int) -> str:
        """A payload file, relative to its dataset's versions directory."""
        return self._guard(lambda: self._files.name(self._cx(), file_id))

    # --- changes ---

    def newest_changes(self, node: int, at: At) -> Iterator[tuple[Index, NDArray[np.int32]]]:
        """For each block ever changed on the chain: per cell, the version that changed it last (put or removed; 0:
        never). Costs by blocks, not by their histories."""
        return self._guard_each(lambda: chunk_changes.newest_changes(self._cx(), node, self._node(node)[1].cells, at))

    def changes(self, node: int, at: At, since: At | None) -> Iterator[BlockChange]:
        """Every change to an array on the chain, newest first, without those that ``since`` sees.

        ``since`` must be an ancestor by first parents, else BadInput. Costs by what changed in between.
        """
        return self._guard_each(
            lambda: chunk_changes.changes_since(self._cx(), node, self._node(node)[1].cells, at, since)
        )

    def path_changes(self, dataset: int, key: str, *, below: bool = True) -> PathChanges:
        """The versions, on whatever branch, that changed a key, or with ``below`` anything in it. Costs by the changes
        there and the names below, not by the versions."""
        path = [entries.encode(part) for part in key.split("/")]
        return self._guard(lambda: path_changes.changes_of_path(self._cx(), self._root(dataset), path, below=below))

    def box_changes(self, node: int, chunks: Box) -> set[int]:
        """The versions, on whatever branch, that put or removed a chunk of an array in a box of chunk coordinates."""
        return self._guard(lambda: path_changes.changes_in_box(self._cx(), node, self._node(node)[1], chunks))

    def path_counts(self, dataset: int, key: str, numbers: Collection[int]) -> dict[int, dict[str, PlaceCounts]]:
        """What some versions changed at a key and in it, by version and directory. Costs as :meth:`path_changes`."""
        path = [entries.encode(part) for part in key.split("/")]

        def shape_of(node: int) -> NodeShape | None:
            return None if self.block_shape(node) is None else self._node(node)[1]

        found = self._guard(lambda: counts_of_path(self._cx(), self._root(dataset), path, numbers, shape_of))
        return {
            number: {os.fsdecode(where): each for where, each in places.items()} for number, places in found.items()
        }

    # --- inside ---

    def _root(self, dataset: int) -> int:
        root = self._roots.get(dataset)
        if root is None:
            row = graphs.load_dataset(self._cx(), dataset)
            if row is None:
                raise NotFound(f"there is no dataset with id {dataset}")
            root = self._roots[dataset] = row.root
        return root

    def _guard(self, read: Callable[[], _R]) -> _R:
        """Run a read; any error that damaged rows cause becomes Damaged."""
        try:
            return read() if self._connections.stamp is None else self._connections.steady(read)
        except _DAMAGE as error:
            raise self._damage(error)  # noqa: B904 (its cause is set)

    def _guard_each(self, read: Callable[[], Iterator[_R]]) -> Iterator[_R]:
        try:
            if self._connections.stamp is None:
                yield from read()
            else:
                yield from self._connections.steady(lambda: list(read()))
        except _DAMAGE as error:
            raise self._damage(error)  # noqa: B904 (its cause is set)

    @contextmanager
    def _write(self, *, large: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction, see :meth:`Connections.write`."""
        try:
            with self._connections.write(large=large) as cx:
                yield cx
        except Damaged as error:
            self._suspect(error)
            raise

    def _damage(self, error: Exception) -> VolfsError:
        """The error to raise for one that a read ended in."""
        if isinstance(error, sqlite3.Error):
            found = translate(error, self.path)
            found.__cause__ = error
        elif isinstance(error, Damaged):
            found = error
        else:
            found = mismatch(f"a row cannot be understood ({type(error).__name__}: {error})")
            found.__cause__ = error
        if isinstance(found, Damaged):
            self._suspect(found)
        return found

    def _suspect(self, error: Damaged) -> None:
        """Leave a note for the next who opens the file for writing: it will be made anew."""
        cause = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
        if self._suspected or self._connections.read_only or cause == _SQLITE_IOERR:
            return
        self._suspected = True
        log.error("%s", error)
        with suppress(OSError):
            write_atomic(_note(self.path), f"{error}\n".encode("utf-8", "backslashreplace"))

    @property
    def suspected(self) -> bool:
        """Whether this process has found something damaged in the file."""
        return self._suspected

    @staticmethod
    def suspicion(path: Path) -> str | None:
        """The damage that an earlier process met in the catalog at ``path``; None if none is recorded."""
        try:
            return read_file(_note(path))[:1000].decode("utf-8", "replace").strip()
        except (OSError, Damaged):
            return None

    @staticmethod
    def clear_suspicion(path: Path) -> None:
        """The catalog at ``path`` is not that one any more."""
        unlink_durably(_note(path))


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.suspect")
