"""The SQLite index of a store: what is key K at version V, what changed, which inode is this.

:class:`Catalog` is the index of versions, :class:`InodeTable` the memory of inode numbers; ``schema.py`` is the
reference for every table. What bytes mean is decided above this room, where they lie below it.
"""

from volfs.catalog.catalog import Catalog
from volfs.catalog.graphs import DatasetRow
from volfs.catalog.inodes import InodeTable
from volfs.catalog.schema import NewerFormat, OlderFormat
from volfs.catalog.sums import MEND
from volfs.catalog.values import PAYLOAD, BlockChange, BlockMap, ChunkRow, Entry, NodeShape, Refs

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
    "Refs",
]
