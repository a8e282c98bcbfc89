"""The SQLite index of a store: what is key K at version V, what changed, which inode is this.

``schema``         the reference for every table, column and invariant; ``connections`` those of one file, by thread
``values``         what the catalog answers with; ``sums`` the checksum of every row, ``compression`` small values in
                   zstd
``catalog``        :class:`Catalog`, the index of versions: what the rooms above ask
``version_rows``   from a manifest to rows: ``entry_rows`` the names, ``chunk_rows`` the chunks
``graphs``         datasets, refs and version graphs; ``dirs`` incarnations of directories
``lineages``       the newest row on a chain: ``entries`` of a name, ``block_maps`` of chunks; ``payload_files`` the
                   payload it is in
``chunk_changes``  what changed, in one version or after one; ``path_changes`` which versions changed a path,
                   ``path_counts`` what they changed there
``inode_table``    :class:`InodeTable`, the memory of inode numbers

What bytes mean is decided above this room, where they lie below it.
"""

from volfs.catalog.catalog import Catalog
from volfs.catalog.graphs import DatasetRow
from volfs.catalog.inode_table import InodeTable
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
