"""The SQLite index of a store: what is key K at version V, what changed, which inode is this.

``schema``       the reference for every table, column and invariant; ``connections`` those of one file, by thread
``values``       what the catalog answers with; ``sums`` the checksum of every row, ``compress`` small values in zstd
``catalog``      :class:`Catalog`, the index of versions: what the rooms above ask
``indexing``     from a manifest to rows: ``index_entries`` the names, ``index_blocks`` the chunks
``graphs``       datasets, refs and version graphs; ``dirs`` incarnations of directories
``lineages``     the newest row on a chain: ``entries`` of a name, ``blocks`` of chunks; ``files`` the payload it is in
``changes``      what changed, in one version or after one
``inodes``       :class:`InodeTable`, the memory of inode numbers; ``recent`` a mapping of what was used lately

What bytes mean is decided above this room, where they lie below it.
"""

from volfs.catalog.catalog import Catalog
from volfs.catalog.graphs import DatasetRow
from volfs.catalog.inodes import InodeTable
from volfs.catalog.schema import NewerFormat, OlderFormat
from volfs.catalog.sums import MEND
from volfs.catalog.values import PAYLOAD, BlockChange, BlockMap, ChunkRow, Entry, NodeShape

__all__ = [
    "MEND",
    "PAYLOAD",
    "BlockChange",
    "BlockMap",
    "Catalog",
    "ChunkRow",
    "DatasetRow",
    "Entry",
    "InodeTable",
    "NewerFormat",
    "NodeShape",
    "OlderFormat",
]
