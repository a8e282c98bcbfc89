"""A small store with the dataset ``cells``: what most tests of the tree, of mounts and of the command look at."""

from __future__ import annotations

from volfs.model.box import Index
from volfs.testing.small_store import CELLS, NUCLEI, make_store
from volfs.testing.small_store import add_image as add

__all__ = ["CELLS", "CHUNKS", "NUCLEI", "add", "make_store"]

#: Of :func:`make_store`. A tree has an entry for every plane of every axis: one that is walked as a whole is better of
#: a smaller ``shape``.
CHUNKS: Index = (16, 16, 16)
