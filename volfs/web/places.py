"""From names to an inode of the tree: what a URL leads to.

Decided here: that symbolic links are followed by the server, inside the tree, and nothing outside it is ever reached:
a link leads from the directory that it stands in, and one that leads above the root, or begins with a slash, leads
nowhere. That on the way a client needs the rights that the kernel would ask for. Not here: what is done there.

Served through, and not redirected: half of the clients do not follow a redirect but for GET, and with the others each
chunk below ``versions/latest`` would cost two requests.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

from volfs.errors import NotFound, VolfsError
from volfs.tree.contract.api import ROOT_INO, DirEntry, TreeApi
from volfs.tree.contract.attrs import FOREVER, Attr
from volfs.web.credentials import Caller
from volfs.web.entry_cache import EntryCache

_LINKS = 40
#: Entries of a directory that are looked at in one go.
BATCH = 500


@dataclass(frozen=True, slots=True)
class Place:
    """What a path leads to. ``names`` are those of the place itself, after links. ``attr.ino == 0``: nothing is there,
    and ``folder`` is the directory in which it would be. ``through``: a link was followed."""

    names: tuple[bytes, ...]
    attr: Attr
    folder: Attr
    through: bool = False

    @property
    def exists(self) -> bool:
        return bool(self.attr.ino)

    @property
    def lasting(self) -> bool:
        """True if this path shows these very bytes for ever: a file of a version, by the version's number."""
        return self.attr.entry_timeout >= FOREVER and not self.through


class Places:
    """Looks up paths for one caller."""

    def __init__(self, tree: TreeApi, caller: Caller, cache: EntryCache) -> None:
        self._tree = tree
        self._caller = caller
        self._cache = cache

    async def find(self, names: tuple[bytes, ...], *, follow: bool = True) -> Place:
        """The place that names lead to; the last one is followed too, if it is a link, unless told not to.

        Raises NotFound if a directory on the way is not there, NotAllowed if it may not be entered.
        """
        attrs = [await self._tree.getattr(ROOT_INO)]  # of the directories that lead to where we are
        here: list[bytes] = []
        ahead = list(reversed(names))
        attr, links = attrs[0], 0
        while ahead:
            name = ahead.pop()
            if name == b"..":
                if not here:
                    raise NotFound("this link leads out of the tree")
                here.pop()
                attrs.pop()
                attr = attrs[-1]
                continue
            folder = attrs[-1]
            if not folder.is_dir:
                raise NotFound("a name on the way is no directory", errno=errno.ENOTDIR)
            self._caller.need(folder, os.X_OK)
            attr = await self.look(folder.ino, name)
            if not attr.ino and ahead:
                raise NotFound(f"there is no {os.fsdecode(name)!r} there")
            if attr.is_link and (ahead or follow):
                links += 1
                if links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                ahead += reversed(_steps(await self._tree.readlink(attr.ino)))
                attr = folder
                continue
            here.append(name)
            attrs.append(attr)
        folder = attrs[-2] if len(attrs) > 1 else attrs[0]
        return Place(tuple(here), attr, folder, bool(links))

    async def look(self, folder: int, name: bytes) -> Attr:
        """The entry of a directory; one with the inode 0 if there is none."""
        known = self._cache.get(folder, name)
        if known is not None:
            return known
        changes = self._cache.changes
        try:
            attr = await self._tree.lookup(folder, name)
        except NotFound:
            return Attr(0, 0)
        self._cache.put(folder, name, attr, changes)
        return attr

    async def followed(self, names: tuple[bytes, ...], link: Attr) -> Attr:
        """What a link leads to; the link itself if that is nothing, or not for this caller."""
        try:
            found = await self.find(names)
        except (VolfsError, OSError):
            return link
        return found.attr if found.exists else link

    async def target(self, link: Attr) -> bytes:
        """Where a link leads, as it says itself."""
        return await self._tree.readlink(link.ino)

    async def batch(self, folder: Attr, cookie: int) -> list[DirEntry]:
        """At most :data:`BATCH` entries of a directory after a cookie; none at its end. Raises NotAllowed."""
        self._caller.need(folder, os.R_OK)
        return list(_first(await self._tree.readdir(folder.ino, cookie)))


def _steps(target: bytes) -> list[bytes]:
    if target.startswith(b"/"):
        raise NotFound("this link leads out of the tree")
    return [part for part in target.split(b"/") if part not in (b"", b".")]


def _first(entries: Iterator[DirEntry]) -> Iterator[DirEntry]:
    for _, entry in zip(range(BATCH), entries, strict=False):
        yield entry
