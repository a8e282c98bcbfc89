"""Generated files: rendered once per change, of a size that is known before they are read.

Decided here: when a document is rendered again, its mtime, and that an open handle keeps the rendering it began with.
Not here: what documents say (:mod:`volfs.views.documents`), and which directory has which.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from volfs.errors import NotFound, VolfsError
from volfs.tree.contract.attrs import FOREVER, NEVER, SOON, Attr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.node import Dir, Node
from volfs.tree.core.open_files import BytesHandle, Handle, wants_writing
from volfs.tree.core.rendering import Rendering


@dataclass(frozen=True, slots=True)
class Document:
    """What there is to say: ``render`` gives the bytes, which depend on nothing that ``stamp`` does not name.

    ``mtime`` is that of the first rendering; later ones are as old as the change. ``lasting`` documents never change.
    ``pause``: it is live. Each open renders it anew, and reads that past the page cache; to those who only look at its
    attributes a rendering is good for so many seconds. ``heavy``: it reads voxels, or much else of the disk.
    """

    render: Callable[[], bytes]
    mtime: int
    stamp: Callable[[], Hashable] = lambda: 0
    lasting: bool = False
    pause: float = 0.0
    heavy: bool = False


class DocumentFile(Node):
    """A read-only file with generated content."""

    def __init__(self, context: TreeContext, ino: int, up: Dir, document: Document) -> None:
        super().__init__(context, ino, up)
        self._document = document

    @property
    def heavy(self) -> bool:
        return self._document.heavy

    @property
    def cold(self) -> bool:
        return not self._good(self.context.renderings.get(self.ino))

    def load(self) -> None:
        document, before = self._document, self.context.renderings.get(self.ino)
        stamp = document.stamp()
        error: VolfsError | None = None
        try:
            data = document.render()
        except NotFound:
            raise
        except VolfsError as failure:
            data, error = b"", failure
        if before is None:
            mtime = document.mtime
        elif before.data == data:
            mtime = before.mtime
        else:
            mtime = max(time.time_ns(), before.mtime + 1)
        self.context.renderings.put(self.ino, Rendering(stamp, data, mtime, time.monotonic(), error))

    def attr(self) -> Attr:
        """Of the newest rendering; while somebody has the file open, of the one that is being read."""
        rendering = self.context.renderings.get(self.ino)
        if rendering is None:  # pushed out between two requests
            self.load()
            rendering = self.context.renderings.get(self.ino)
            assert rendering is not None
        timeout = FOREVER if self._document.lasting and rendering.error is None else SOON
        # The size changes with the content, so it must be asked for each time.
        attr_timeout = timeout if self._document.lasting else NEVER
        return self.context.file_attr(
            self.ino, len(rendering.data), rendering.mtime, timeout=timeout, attr_timeout=attr_timeout
        )

    async def open(self, flags: int) -> Handle:
        if wants_writing(flags):
            raise await self.asked(self.refusal)
        if not await self.asked(lambda: self._good(self.context.renderings.get(self.ino), opening=True)):
            await self.prepare()
        rendering = self.context.renderings.get(self.ino)
        assert rendering is not None
        if rendering.error is not None:
            raise rendering.error
        return DocumentHandle(self.ino, rendering, lasting=self._document.lasting, live=self._document.pause > 0)

    def _good(self, rendering: Rendering | None, *, opening: bool = False) -> bool:
        if rendering is None:
            return False
        document = self._document
        if document.lasting and rendering.error is None:
            return True
        if not opening and (time.monotonic() - rendering.made < document.pause or self.context.files.at(self.ino)):
            return True
        return rendering.error is None and rendering.stamp == document.stamp()


class DocumentHandle(BytesHandle):
    """A document being read: its rendering does not change under the reader."""

    def __init__(self, ino: int, rendering: Rendering, *, lasting: bool, live: bool) -> None:
        super().__init__(ino, rendering.data)
        self.direct_io = live  # two who read at once have two renderings, and the kernel one page cache
        self._stamp = None if lasting else (rendering.mtime, len(rendering.data))

    def stamp(self) -> Hashable:
        return self._stamp

    def quick_stamp(self) -> Hashable:
        return self._stamp
