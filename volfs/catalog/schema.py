"""The catalog's schema: every table, column and invariant. This file is the reference.

The catalog is an index. All that it says about datasets, versions and payloads can be read back from the store's own
files (``volfs fsck --rebuild-catalog``), so its format may change by rebuilding, and losing its last transactions in a
power cut costs nothing that the store's recovery does not put back.

Decided here: the tables, their migrations, and the check that this volfs knows the format. Not decided here: how rows
are found (:mod:`.entries`, :mod:`.blocks`) or written (:mod:`.indexing`). Inodes lie in a file of their own with its
own schema (:mod:`.inodes`): they are no index of anything, and their writes must not look like commits.

Words used below
----------------
lineage, position
    Where a version lies in its dataset's graph: see :mod:`volfs.model.graph`. Lineage ids count from 1 within a
    dataset and a lineage's id is larger than that of every lineage it descends from. 0 means "none".
chain
    The (lineage, newest visible position) pairs along which a version sees changes. "Newest on the chain" is the first
    row, in descending (lineage, position) order, that lies on it.
node
    One incarnation of a directory: a row of ``dir``. Removing a path and creating it again makes a new incarnation, so
    the removal of a subtree is one row and nothing below it can be seen again. An array or group is its directory's
    incarnation.
cell
    The ordinal of a chunk inside its index block, in C order: 0 ≤ cell < number of chunks per block ≤ 65536.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from volfs.catalog.connections import transaction
from volfs.catalog.sums import MEND
from volfs.errors import Damaged, StoreFormat

if TYPE_CHECKING:
    from sqlite_utils import Database


class NewerFormat(StoreFormat):
    """A file that a newer volfs made, which may well be in use."""


class OlderFormat(StoreFormat):
    """A file that an older volfs made, which opening it for writing brings up to date."""


APPLICATION_ID = 0x766F6C66
"""SQLite's application_id of a catalog: "volf"."""

TABLES = """
-- Every `sum` is the crc32c of its row, key included (see sums.py). Every index TABLE_keys holds the keys of its table
-- a second time: who searches the table searches it too, and what they do not agree on is damaged.

-- The store that this is the index of, by the id in its volfs.json. One row.
CREATE TABLE store (
    id   TEXT NOT NULL,
    sum  INTEGER NOT NULL
);

-- Datasets of the store. Ids are never reused (AUTOINCREMENT), so caches keyed by them stay true after a removal.
CREATE TABLE dataset (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL UNIQUE,
    uuid        TEXT NOT NULL,              -- the id in its dataset.json; '' if that has none
    created_ns  INTEGER NOT NULL,
    root        INTEGER NOT NULL,           -- dir.id of the directory that holds zarr/ and files/
    versions    INTEGER NOT NULL,           -- how many rows of `version` it has
    newest      TEXT NOT NULL,              -- content id of the version indexed last; '' while there is none
    refs        INTEGER NOT NULL,           -- the sum of all its rows of `ref`
    sum         INTEGER NOT NULL
);

-- Versions, in the order they were indexed: a reader picks up what is new with seq > last seen. Rows never change.
CREATE TABLE version (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset       INTEGER NOT NULL,
    number        INTEGER NOT NULL,
    parents       TEXT NOT NULL,            -- numbers joined by spaces, first parent first; each < number
    lineage       INTEGER NOT NULL,
    position      INTEGER NOT NULL,         -- 1 for a root, else the first parent's + 1
    fork_lineage  INTEGER NOT NULL,         -- where `lineage` was forked; both 0 unless this version begins one so
    fork_position INTEGER NOT NULL,
    time_ns       INTEGER NOT NULL,
    author        TEXT NOT NULL,
    message       TEXT NOT NULL,
    content_id    TEXT NOT NULL,
    ordinal       INTEGER NOT NULL,         -- counts the versions of the dataset from 1, in order of seq
    sum           INTEGER NOT NULL,         -- of all columns but seq
    UNIQUE (dataset, number),
    UNIQUE (dataset, lineage, position)
);

-- Mirror of the ref files, which are the truth. A branch without a version yet has version 0.
CREATE TABLE ref (
    dataset  INTEGER NOT NULL,
    kind     TEXT NOT NULL CHECK (kind IN ('head', 'tag', 'remote')),
    name     TEXT NOT NULL,
    version  INTEGER NOT NULL,
    PRIMARY KEY (dataset, kind, name)
) WITHOUT ROWID;

-- Mirror of which versions were dropped, which their directories say. A dataset of which none was has no row.
CREATE TABLE retired (
    dataset  INTEGER PRIMARY KEY,
    numbers  BLOB NOT NULL,                 -- zstd of the numbers, ascending, little-endian u32 each
    sum      INTEGER NOT NULL
);

-- Incarnations of directories. parent and name never change, and lead to the dataset's root (parent 0).
CREATE TABLE dir (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset      INTEGER NOT NULL,
    parent       INTEGER NOT NULL,
    name         BLOB NOT NULL,             -- one component, UTF-8 with undecodable bytes as they are
    born         INTEGER NOT NULL,          -- number of the version that created it; 0 for the root
    block_shape  BLOB,                      -- arrays: chunks per index block and axis, big-endian u32 each; else NULL
                                            -- set once: the first version that knows the array decides
    sum          INTEGER NOT NULL
);
CREATE INDEX dir_dataset ON dir (dataset);

-- Changes of names. The newest row on the chain says what the name is. Chunks of understood arrays have none.
-- Invariants: a directory that a version sees holds, in that version, at least one name or chunk (empty directories are
-- not versioned: as in an object store, a directory vanishes with its last name, by a row of kind 0 in its parent).
CREATE TABLE entry (
    dir       INTEGER NOT NULL,
    name      BLOB NOT NULL,
    lineage   INTEGER NOT NULL,
    position  INTEGER NOT NULL,
    version   INTEGER NOT NULL,             -- the version that made this change (older than the row's own place only
                                            -- where a name was carried over into a new incarnation of its directory)
    kind      INTEGER NOT NULL,             -- 0 removed, 1 directory, 2 object
    child     INTEGER NOT NULL,             -- kind 1: dir.id; else 0
    file      INTEGER NOT NULL,             -- kind 2: the payload (see block.payloads); else 0
    offset    INTEGER NOT NULL,
    length    INTEGER NOT NULL,
    crc32c    INTEGER NOT NULL,
    mode      INTEGER NOT NULL,             -- kind 2: as in the manifest; kind 1: S_IFDIR and permission bits;
                                            -- 0: nothing is said
    mtime_ns  INTEGER NOT NULL,             -- kind 2: the time that a side file was given; else 0
    sum       INTEGER NOT NULL,
    PRIMARY KEY (dir, name, lineage, position)
) WITHOUT ROWID;
CREATE INDEX entry_keys ON entry (dir, name, lineage, position);

-- Changes of chunks: one row per index block and version that changed any chunk in it.
-- A lookup walks a row, the row it names as older, and so on, until a row lists the cell, carries owners, or is the
-- oldest. Naming the older row keeps the walk on the chain whatever other lineages add in between.
CREATE TABLE block (
    node            INTEGER NOT NULL,       -- dir.id of the array
    block           BLOB NOT NULL,          -- block coordinates, big-endian u32 each: byte order is C order
    lineage         INTEGER NOT NULL,
    position        INTEGER NOT NULL,
    version         INTEGER NOT NULL,       -- = number of the version at (lineage, position)
    older_lineage   INTEGER NOT NULL,       -- the newest row of this block on the version's own chain before this one;
    older_position  INTEGER NOT NULL,       -- 0, 0 if there is none or this row lists every cell of the block
    steps           INTEGER NOT NULL,       -- cost of the longest walk from here: 1, or the older row's + 1 (+ HOP when
                                            -- it is in another lineage); never above MAX_STEPS
    cells           BLOB NOT NULL,          -- the cells changed, ascending, little-endian u16 each
    owners          BLOB,                   -- zstd of one little-endian i32 per cell of the block: the version that
                                            -- changed it last as of this row, removals included; 0 never changed.
                                            -- There when the walk would cost more than MAX_STEPS without. steps is 1
    sum             INTEGER NOT NULL,       -- of all columns to here
    payloads        BLOB NOT NULL,          -- per cell listed: file u4, offset u8, length u8, crc32c u4, little-endian;
                                            -- file 0: the chunk was removed
    checks          BLOB NOT NULL,          -- per cell listed: a checksum of its payload, which covers the chunk's key
                                            -- and version too, little-endian u32
    PRIMARY KEY (node, block, lineage, position)
) WITHOUT ROWID;
CREATE INDEX block_keys ON block (node, block, lineage, position);

-- Which lineages changed a name or a block, for those that more than one lineage changed: (lineage, first position in
-- it) as little-endian u32 pairs, ascending. A seek that lands beside its chain a few times gives up and finds its
-- lineage here, so deep forks cost nothing. Names and blocks that one lineage changed have no row.
CREATE TABLE entry_lineages (
    dir       INTEGER NOT NULL,
    name      BLOB NOT NULL,
    lineages  BLOB NOT NULL,
    sum       INTEGER NOT NULL,
    PRIMARY KEY (dir, name)
) WITHOUT ROWID;
CREATE TABLE block_lineages (
    node      INTEGER NOT NULL,
    block     BLOB NOT NULL,
    lineages  BLOB NOT NULL,
    sum       INTEGER NOT NULL,
    PRIMARY KEY (node, block)
) WITHOUT ROWID;

-- The same changes by version: which blocks of an array a version changed.
CREATE TABLE touched (
    node      INTEGER NOT NULL,
    lineage   INTEGER NOT NULL,
    position  INTEGER NOT NULL,
    version   INTEGER NOT NULL,
    blocks    BLOB NOT NULL,                -- zstd of the block coordinates (as in block.block), ascending, end to end
    sum       INTEGER NOT NULL,
    PRIMARY KEY (node, lineage, position)
) WITHOUT ROWID;
CREATE INDEX touched_keys ON touched (node, lineage, position);

-- Names of payload files, relative to the dataset's versions directory. File id f is name number f % 256 of the group
-- f // 256. Group 0 does not exist, so file id 0 can mean "no payload". Groups belong to one version each.
CREATE TABLE file_group (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset  INTEGER NOT NULL,
    names    BLOB NOT NULL,                 -- the names joined by NUL; as a zstd frame when long
    sum      INTEGER NOT NULL
);

-- crc32c of each 1 MiB piece (little-endian u32 each) of the payloads longer than one, whoever points at them.
CREATE TABLE piece (
    file    INTEGER NOT NULL,
    offset  INTEGER NOT NULL,
    crcs    BLOB NOT NULL,
    sum     INTEGER NOT NULL,
    PRIMARY KEY (file, offset)
) WITHOUT ROWID;
"""

MAX_STEPS = 16
"""A walk down a block's rows never costs more than this."""
HOP = 3
"""What going on in another lineage costs besides the row itself: a seek of its own."""
GROUP = 256
"""Names per file group."""


def run_script(db: Database, sql: str) -> None:
    """Execute the statements one by one: executescript() would commit the transaction that a migration runs in."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            db.execute(statement)
            statement = ""


def _replaced(db: Database) -> None:
    """A format of which nothing is taken over: :func:`_create` makes all tables anew."""


def _create(db: Database) -> None:
    """Make all tables. What an older format held is indexed again by the opening that does this, from the store's own
    files, with the sums that it did not have."""
    for kind, name in db.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall():
        if kind == "table":
            db.execute(f'DROP TABLE "{name}"')
    run_script(db, TABLES)


MIGRATIONS: Sequence[Callable[[Database], None]] = (_replaced, _replaced, _replaced, _replaced, _create)
"""Migration i brings ``user_version`` i to i + 1. Released ones never change what they lead to."""


def migrate(
    connection: sqlite3.Connection,
    path: Path,
    *,
    application_id: int = APPLICATION_ID,
    migrations: Sequence[Callable[[Database], None]] = MIGRATIONS,
    what: str = "catalog",
) -> None:
    """Create the tables or bring them up to date. Raises StoreFormat for a newer format or another kind of file.

    Several processes may open at once: whoever gets the write lock migrates, the others find it done.
    """
    if _format(connection, path, application_id, len(migrations), what) == len(migrations):
        return
    # Here, because most openings find nothing to do and the import takes a tenth of the time in which a mount comes.
    from sqlite_utils import Database

    # sqlite-utils knows how to change tables in place (transform), which migrations after the first will need.
    db = Database(connection, execute_plugins=False)
    for number, step in enumerate(migrations):
        with transaction(connection, "IMMEDIATE"):
            if _format(connection, path, application_id, len(migrations), what) == number:
                step(db)
                connection.execute(f"PRAGMA application_id = {application_id}")
                connection.execute(f"PRAGMA user_version = {number + 1}")


def check(
    connection: sqlite3.Connection,
    path: Path,
    *,
    application_id: int = APPLICATION_ID,
    latest: int = len(MIGRATIONS),
    what: str = "catalog",
) -> None:
    """Raise StoreFormat unless the file holds exactly the format of this volfs: for opening without writing."""
    if _format(connection, path, application_id, latest, what) != latest:
        raise OlderFormat(f"{path}: an older {what}; open the store once for writing to bring it up to date")


def _format(connection: sqlite3.Connection, path: Path, application_id: int, latest: int, what: str) -> int:
    try:
        # Under one look: another process may be making the tables between two.
        with transaction(connection, "DEFERRED"):
            (found_id,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise Damaged(f"{path}: not a readable {what} ({' '.join(str(error).split())[:200]}); {MEND}") from None
    if version == 0 and found_id == 0 and tables == 0:
        return 0
    if found_id != application_id:
        raise StoreFormat(f"{path}: an SQLite file, but not a {what} of volfs")
    if version > latest:
        raise NewerFormat(f"{path}: {what} format {version}, made by a newer volfs; this one knows up to {latest}")
    return int(version)
