"""Changes of the tree that take more than one of its operations: whole files, whole directories.

Decided here: a file is written beside its place and put there as a whole, so that nobody sees half of an upload, and
one that breaks off leaves what was there. Where nothing may be written beside, as among the files of a volume or in
``.volfs``, the bytes go into the file itself, as a program at a mount would do it. A directory that cannot be renamed
in one step is copied, as ``mv`` does. Not here: what a change means (``volfs.tree``), nor HTTP
(:mod:`volfs.web.authoring`).
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import AsyncIterator
from contextlib import suppress

import trio

from volfs.errors import VolfsError, WrongKind
from volfs.tree.contract.api import RENAME_NOREPLACE, TreeApi
from volfs.tree.contract.attrs import Attr, SetAttr
from volfs.web.credentials import Caller
from volfs.web.file_body import FileBodies
from volfs.web.places import Place, Places

#: Small pieces are gathered to so much before they are written.
_PIECE = 256 << 10
#: The longest text that a control file takes, and a little.
_LONGEST_ORDER = 2 << 20
#: Errors by which a directory says that no file may be made beside another.
_NOT_BESIDE = {errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.EROFS, errno.ENOENT}

Pieces = AsyncIterator[bytes | memoryview]


class TreeChanges:
    """Changes that one caller makes."""

    def __init__(self, tree: TreeApi, bodies: FileBodies, places: Places, caller: Caller) -> None:
        self._tree = tree
        self._bodies = bodies
        self._places = places
        self._caller = caller

    async def write(
        self, place: Place, pieces: Pieces, length: int | None, *, mtime_ns: int | None = None, only_new: bool = False
    ) -> bytes | None:
        """Have a file hold what ``pieces`` give, ``length`` bytes if that is known. None; or, of a control file, what
        came of its order, as JSON."""
        parent, name = place.folder.ino, place.names[-1]
        if self._caller.may(place.folder, os.W_OK):
            beside = b".%s.%s.part" % (name[:200], secrets.token_hex(6).encode())
            try:
                opened, attr = await self._tree.create(parent, beside, 0o644, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            except (VolfsError, OSError) as error:
                if not place.exists or error.errno not in _NOT_BESIDE:
                    raise
            else:
                await self._beside(parent, name, beside, opened.fh, attr, pieces, mtime_ns, only_new)
                return None
        if not place.exists:
            self._caller.need(place.folder, os.W_OK)
        self._caller.need(place.attr, os.W_OK)
        return await self._into(place.attr, pieces, length)

    async def _beside(
        self,
        parent: int,
        name: bytes,
        beside: bytes,
        fh: int,
        attr: Attr,
        pieces: Pieces,
        mtime_ns: int | None,
        only_new: bool,
    ) -> None:
        try:
            try:
                await self._pour(fh, pieces)
                if mtime_ns is not None:
                    await self._tree.setattr(attr.ino, SetAttr(mtime_ns=mtime_ns), fh)
                await self._tree.flush(fh)
            finally:
                with trio.CancelScope(shield=True):
                    await self._tree.release(fh)
            await self._tree.rename(parent, beside, parent, name, RENAME_NOREPLACE if only_new else 0)
        except BaseException:
            with trio.CancelScope(shield=True), suppress(VolfsError, OSError):
                await self._tree.unlink(parent, beside)
            raise

    async def _into(self, attr: Attr, pieces: Pieces, length: int | None) -> bytes | None:
        opened = await self._tree.open(attr.ino, os.O_RDWR, self._caller.author)
        try:
            if opened.direct_io:
                data = b"".join([bytes(piece) async for piece in _bounded(pieces)])
                await self._written(opened.fh, 0, data)
                await self._tree.flush(opened.fh)
                return bytes(await self._tree.read(opened.fh, 0, _LONGEST_ORDER))
            if length is not None and length != attr.size:
                await self._tree.setattr(attr.ino, SetAttr(size=length), opened.fh)
            written = await self._pour(opened.fh, pieces)
            if written != attr.size and length is None:
                await self._tree.setattr(attr.ino, SetAttr(size=written), opened.fh)
            await self._tree.flush(opened.fh)
        finally:
            with trio.CancelScope(shield=True):
                await self._tree.release(opened.fh)
        return None

    async def _pour(self, fh: int, pieces: Pieces) -> int:
        """Write all pieces, from the start of a file. Returns their bytes."""
        gathered, offset = bytearray(), 0
        async for piece in pieces:
            gathered += piece
            if len(gathered) >= _PIECE:
                offset += await self._written(fh, offset, bytes(gathered))
                gathered.clear()
        if gathered:
            offset += await self._written(fh, offset, bytes(gathered))
        return offset

    async def _written(self, fh: int, offset: int, data: bytes) -> int:
        done = 0
        while done < len(data):
            done += await self._tree.write(fh, offset + done, data[done:] if done else data)
        self._tree.meter.bytes_written += done
        return done

    async def make_folder(self, place: Place) -> None:
        """Make a directory."""
        self._caller.need(place.folder, os.W_OK)
        await self._tree.mkdir(place.folder.ino, place.names[-1], 0o755)

    async def remove(self, place: Place) -> None:
        """Remove a file, a link, or a directory with all that is in it."""
        self._caller.need(place.folder, os.W_OK)
        await self._remove(place.folder.ino, place.names[-1], place.attr)

    async def _remove(self, parent: int, name: bytes, attr: Attr) -> None:
        if not attr.is_dir:
            await self._tree.unlink(parent, name)
            return
        try:
            await self._tree.rmdir(parent, name)
            return
        except (VolfsError, OSError) as error:
            if error.errno != errno.ENOTEMPTY:
                raise
        self._caller.need(attr, os.W_OK)
        cookie = 0
        while entries := await self._places.batch(attr, cookie):
            for entry in entries:
                await self._remove(attr.ino, entry.name, entry.attr)
            cookie = entries[-1].cookie
        await self._tree.rmdir(parent, name)

    async def move(self, source: Place, to: Place) -> None:
        """Give a file or directory another name; what has that name is replaced."""
        self._caller.need(source.folder, os.W_OK)
        self._caller.need(to.folder, os.W_OK)
        if to.exists and (to.attr.is_dir or source.attr.is_dir):
            await self._remove(to.folder.ino, to.names[-1], to.attr)
        try:
            await self._tree.rename(source.folder.ino, source.names[-1], to.folder.ino, to.names[-1], 0)
        except (VolfsError, OSError) as error:
            if error.errno != errno.EXDEV:
                raise
            await self._copy(source.attr, to.folder, to.names[-1], deep=True)
            await self._remove(source.folder.ino, source.names[-1], source.attr)

    async def copy(self, source: Place, to: Place, *, deep: bool = True) -> None:
        """Copy a file, or a directory, with all that is in it if ``deep``; what is there is replaced."""
        if to.exists and (to.attr.is_dir or source.attr.is_dir):
            self._caller.need(to.folder, os.W_OK)
            await self._remove(to.folder.ino, to.names[-1], to.attr)
            to = Place(to.names, Attr(0, 0), to.folder)
        if source.attr.is_file:
            await self._copy_file(source.attr, to)
        else:
            await self._copy(source.attr, to.folder, to.names[-1], deep=deep)

    async def _copy(self, attr: Attr, folder: Attr, name: bytes, *, deep: bool) -> None:
        if attr.is_link:
            self._caller.need(folder, os.W_OK)
            await self._tree.symlink(folder.ino, name, await self._tree.readlink(attr.ino))
        elif attr.is_dir:
            self._caller.need(folder, os.W_OK)
            made = await self._tree.mkdir(folder.ino, name, stat.S_IMODE(attr.mode) | 0o700)
            cookie = 0
            while deep and (entries := await self._places.batch(attr, cookie)):
                for entry in entries:
                    await self._copy(entry.attr, made, entry.name, deep=True)
                cookie = entries[-1].cookie
        else:
            found = await self._places.look(folder.ino, name)
            await self._copy_file(attr, Place((name,), found, folder))

    async def _copy_file(self, attr: Attr, to: Place) -> None:
        self._caller.need(attr, os.R_OK)
        async with self._bodies.reading(attr.ino) as file:

            async def pieces() -> Pieces:
                offset = 0
                while len(data := await self._bodies.read(file, offset, _PIECE)):
                    yield data
                    offset += len(data)

            await self.write(to, pieces(), attr.size)


async def _bounded(pieces: Pieces) -> Pieces:
    total = 0
    async for piece in pieces:
        total += len(piece)
        if total > _LONGEST_ORDER:
            raise WrongKind("so long an order no control file takes", errno=errno.EFBIG)
        yield piece
