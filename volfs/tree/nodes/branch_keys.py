"""``zarr/`` and ``files/`` of a branch: directories in which any program may do anything.

Decided here: inodes (allocated per name, following renames and links), what is refused, and what the kernel is told
when a key is closed or moved. The semantics of the files themselves are those of
:class:`volfs.versions.working.working_copy.WorkingCopy`. Keys of levels that follow s0 show computed bytes
(:mod:`volfs.tree.images.computed_levels`, :mod:`volfs.tree.files.computed_key`). What is kept of a listing is in
:mod:`volfs.tree.files.key_listing`.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING

from volfs.errors import BadName, NotAllowed, NotFound, VolfsError, WrongKind
from volfs.model.names import check_key
from volfs.tree.branches.invalidation import KeyChange
from volfs.tree.branches.stages import SlicePath
from volfs.tree.contract.api import RENAME_EXCHANGE, DirEntry
from volfs.tree.contract.attrs import FILE_BLOCK_SIZE, SOON, Attr, SetAttr
from volfs.tree.core.node import Dir, Node, attr_of
from volfs.tree.core.open_files import Handle, wants_writing
from volfs.tree.files.computed_key import DerivedFile
from volfs.tree.files.key_handle import KeyHandle
from volfs.tree.files.key_listing import UNKNOWN, Facts, KeyListing, facts_of
from volfs.tree.images.computed_levels import DerivedKey, derived_key, derived_level, derived_names
from volfs.versions.keys import NODE_JSON
from volfs.versions.working.union import Entry

if TYPE_CHECKING:
    from volfs.tree.branches.mounted_branch import MountedBranch
    from volfs.tree.core.context import Shared

#: How long (s) the later pages of a listing show the names that its first page found.
_LISTING_SECONDS = 5.0


class BranchKeyDir(Dir):
    """A directory of keys in a branch."""

    def __init__(self, shared: Shared, ino: int, up: Dir, path: str, room: MountedBranch, key: str) -> None:
        super().__init__(shared, ino, up, path)
        self.room: MountedBranch = room
        self.key = key

    def _entry(self, key: str) -> Entry | None:
        return self.room.branch.working.look(lambda union: union.entry(key))

    # -- looking ----------------------------------------------------------------------------------------------------

    @property
    def cold(self) -> bool:
        return self.room.places.cold  # for knowing which keys are computed

    def load(self) -> None:
        self.room.places.load()

    def key_of(self, name: str) -> str:
        return f"{self.key}/{name}"

    def find(self, name: str) -> Node | None:
        key = self.key_of(name)
        try:
            check_key(key)
        except BadName:
            return None
        computed = self._computed(key)
        if computed is not None:
            return DerivedFile(self.shared, self.shared.inodes.name(self.ino, name), self, computed, self.room)
        entry = self._entry(key)
        if entry is not None:
            return self._node(name, key, entry)
        if self._derived_names().get(name):
            return self._folder(name, key)
        return None

    def _computed(self, key: str) -> DerivedKey | None:
        """The computed bytes of a key; None if it has none, is open for writing, or was just removed."""
        found = derived_key(self.room.places, key)
        if found is None or self.room.is_hidden(place_of(key)) or key in self.room.branch.working.open_for_writing():
            return None
        return found

    def _derived_names(self) -> dict[str, bool]:
        found = derived_names(self.room.places, self.key)
        return {name: deeper for name, deeper in found.items() if not self.room.is_hidden((self.key, name))}

    def _node(self, name: str, key: str, entry: Entry) -> Node:
        if entry.kind == "dir":
            return self._folder(name, key)
        kind = BranchKeyLink if entry.is_link else BranchKeyFile
        return kind(self.shared, self.shared.inodes.name(self.ino, name), self, key, entry)

    def _folder(self, name: str, key: str) -> BranchKeyDir:
        ino = self.shared.inodes.name(self.ino, name)
        return BranchKeyDir(self.shared, ino, self, f"{self.path}/{name}", self.room, key)

    def listing_cold(self, cookie: int) -> bool:
        listing = self._kept
        if listing is None or not cookie:
            return listing is None or listing.generation != self.room.generation()
        # Later pages show the names that the first one found, each with its attributes as they are now.
        return time.monotonic() - listing.when > _LISTING_SECONDS

    @property
    def _kept(self) -> KeyListing | None:
        found = self.shared.listings.get(self.ino)
        assert found is None or isinstance(found, KeyListing)
        return found

    def load_listing(self, cookie: int) -> None:
        working = self.room.branch.working
        generation = self.room.generation()
        listing = self._kept
        if listing is not None and listing.generation == generation:
            return
        found = working.look(
            lambda view: {name: facts_of(view.entry(self.key_of(name))) for name in view.names(self.key)}
        )
        computed: dict[str, Attr] = {}
        for name, deeper in self._derived_names().items():
            key = self.key_of(name)
            if deeper:
                found.setdefault(name, UNKNOWN)
            elif (derived := self._computed(key)) is not None:
                found.pop(name, None)
                ino = self.shared.inodes.name(self.ino, name)
                node = DerivedFile(self.shared, ino, self, derived, self.room)
                try:
                    node.load()
                except VolfsError:
                    found[name] = UNKNOWN  # listed, and an error when it is read
                else:
                    if node.exists:
                        computed[name] = node.attr()
        self.shared.listings.put(self.ino, KeyListing.of(generation, found, computed))

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        listing = self._kept
        if listing is None:  # pushed out just now, by larger ones
            self.load_listing(cookie)
            listing = self._kept
            assert listing is not None
        begin = bisect_right(listing.cookies, cookie)
        if begin == len(listing) > self.shared.listings.limit:
            self.shared.listings.drop(self.ino)  # too large to be kept longer than one listing of it takes
        fresh = listing.generation == self.room.generation()
        for at in range(begin, len(listing)):
            name = listing.names[at]
            attr = listing.computed.get(name)
            if attr is None:
                attr = self._listed(name, listing.facts_at(at) if fresh else UNKNOWN)
            if attr is not None:
                yield DirEntry(os.fsencode(name), attr, listing.cookies[at])

    def _listed(self, name: str, facts: Facts) -> Attr | None:
        """The attributes of a name in a listing; None if it was removed meanwhile."""
        key, mode = self.key_of(name), facts[0]
        if mode and not stat.S_ISDIR(mode):
            return _file_attr(self.room, key, self.shared.inodes.name(self.ino, name), facts)
        node = self._folder(name, key) if mode else self.find(name)
        return None if isinstance(node, DerivedFile) else attr_of(node)

    def attr(self) -> Attr:
        entry = self._entry(self.key)
        mtime = entry.info.mtime_ns if entry is not None else 0
        if entry is None and not self._derived_names():
            raise NotFound(f"{self.key} does not exist")
        if entry is not None and entry.kind != "dir":
            raise NotFound(f"{self.key} is no directory any more")
        mtime = max(mtime, self.room.touched(self.ino))
        if not mtime:
            base = self.room.branch.base
            mtime = base.time_ns if base else self.shared.started_ns
        attr = self.directory_attr(mtime, SOON, writable=self.room.writable)
        if entry is not None and (bits := entry.info.mode):
            attr = attr._replace(mode=stat.S_IFDIR | (bits if self.room.writable else bits & ~0o222))
        return attr

    async def change(self, changes: SetAttr, handle: Handle | None) -> None:
        if changes.size is not None:
            raise WrongKind(f"{self.key} is a directory", errno=errno.EISDIR)
        await set_times_and_mode(self.room, self.key, changes)
        if changes.mtime_ns is not None:
            self.room.dated(self.ino)

    # -- changing names ---------------------------------------------------------------------------------------------

    async def create(self, name: str, mode: int, flags: int) -> tuple[Node, Handle]:
        key, room = self.key_of(name), self.room
        check_key(key)
        await self._check_not_computed(key)
        async with room.renaming():
            there = self._entry(key)
            change = room.soon if there is None or flags & os.O_TRUNC or _on_top(there) else room.look
            file = await change(lambda: room.branch.working.open(key, flags | os.O_CREAT, stat.S_IMODE(mode)))
            if there is None:
                room.touch(self.ino)
            ino = self.shared.inodes.name(self.ino, name)
        entry: Entry | None
        if wants_writing(flags) and file.fd is not None:
            entry = Entry("file", room.branch.working.union().layers[0], os.fstat(file.fd), None)
        else:
            entry = self._entry(key)
        if entry is None or entry.kind != "file":
            file.close()
            raise NotFound(f"{key} was removed again")
        node = BranchKeyFile(self.shared, ino, self, key, entry)
        return node, KeyHandle(room, ino, file, flags)

    async def mkdir(self, name: str, mode: int) -> Attr:
        key, room = self.key_of(name), self.room
        async with room.renaming():
            await room.look(lambda: room.branch.working.mkdir(key, stat.S_IMODE(mode)))
            room.touch(self.ino)
        ino = self.shared.inodes.name(self.ino, name)
        return BranchKeyDir(self.shared, ino, self, f"{self.path}/{name}", room, key).attr()

    async def rmdir(self, name: str) -> None:
        key, room = self.key_of(name), self.room
        async with room.renaming():
            if self._entry(key) is not None or not isinstance(self.find(name), BranchKeyDir):
                await room.look(lambda: room.branch.working.rmdir(key))
            self._hide_computed(key)
            self.shared.nodes.discard(self.shared.inodes.name(self.ino, name))
            self.shared.inodes.removed(self.ino, name)
            room.touch(self.ino)

    async def unlink(self, name: str) -> None:
        key, room = self.key_of(name), self.room
        ino = self.shared.inodes.name(self.ino, name)
        async with room.renaming():
            if self._entry(key) is not None or not isinstance(self.find(name), DerivedFile):
                await room.look(lambda: room.branch.working.unlink(key))
            self._hide_computed(key)
            self._lost(ino, name)
            room.touch(self.ino)
        await self.moved(key)

    async def symlink(self, name: str, target: str) -> Node:
        key, room = self.key_of(name), self.room
        async with room.renaming():
            await room.look(lambda: room.branch.working.symlink(key, target))
            room.touch(self.ino)
        await self.moved(key)
        entry = self._entry(key)
        if entry is None:
            raise NotFound(f"{key} was removed again")
        return self._node(name, key, entry)

    async def link(self, node: Node, name: str) -> Node:
        room, target = self.room, self.key_of(name)
        if not isinstance(node, BranchKeyFile) or node.room is not room:
            raise NotAllowed("only keys of the same branch can share bytes", errno=errno.EXDEV)
        source = node.key
        async with room.renaming():
            await room.look(lambda: room.branch.working.link(source, target))
            self.shared.inodes.linked(node.ino, self.ino, name)
            room.touch(self.ino)
        await self.moved(target)
        entry = self._entry(target)
        if entry is None:
            raise NotFound(f"{target} was removed again")
        kind = BranchKeyLink if entry.is_link else BranchKeyFile
        return kind(self.shared, node.ino, self, target, entry)

    async def rename(self, name: str, to: Dir, new_name: str, flags: int) -> None:
        room = self.room
        if not isinstance(to, BranchKeyDir) or to.room is not room:
            raise NotAllowed("keys move within their branch", errno=errno.EXDEV)
        source, target = self.key_of(name), to.key_of(new_name)
        await self._check_not_computed(source)
        await self._check_not_computed(target)
        inodes = self.shared.inodes
        async with room.renaming():
            before, moving = self._entry(target), self._entry(source)
            change = room.soon if moving is not None and moving.kind == "file" and _on_top(moving) else room.look
            renamed = await change(lambda: room.branch.working.rename(source, target, flags))
            if renamed and flags & RENAME_EXCHANGE:
                inodes.exchanged((self.ino, name), (to.ino, new_name))
            elif renamed:
                if before is not None:
                    to._lost(inodes.name(to.ino, new_name), new_name)
                inodes.moved(inodes.name(self.ino, name), (self.ino, name), (to.ino, new_name))
            room.touch(self.ino)
            room.touch(to.ino)
            exchanged = before is not None and flags & RENAME_EXCHANGE and before.kind == "dir"
            if exchanged or (moving is not None and moving.kind == "dir"):
                self.shared.epoch += 1  # directories below have other keys now
                room.places.forget()
        await self.moved(source, target)

    async def sync(self) -> None:
        if self.room.held:
            await self.room.look(lambda: self.room.branch.working.fsync_dir(self.key))

    def _hide_computed(self, key: str) -> None:
        """Hide a removed key of a level that follows s0 for some seconds, as removed slices are: a program that removes
        a whole image must come to its end, whatever its order."""
        if derived_level(self.room.places, key) is not None:
            self.room.hide(place_of(key))

    async def moved(self, *keys: str) -> None:
        """Have the kernel forget what it keeps of these keys and of slices over them, before the request is
        answered."""
        if any(key.endswith(NODE_JSON) for key in keys):
            self.room.places.forget()
        await self.room.kernel.invalidate(KeyChange(keys))

    async def _check_not_computed(self, key: str) -> None:
        """Raise NotAllowed for a chunk of a committed level that follows s0: the chunk computed from s0 would count,
        and the write would be lost. While the array is new it may be written: a copy of a whole image brings it
        along."""
        await self.room.enter()
        found = derived_level(self.room.places, key)
        if found is None:
            return
        level, rel = found
        if level.array.meta.parse_chunk_key(rel) is None:
            return
        metadata = self.room.branch.stat(f"{key[: len(key) - len(rel)]}{NODE_JSON}")
        if metadata is not None and metadata.version:
            raise NotAllowed(f"{key}: {level.name} is computed from s0: write s0")

    def _lost(self, ino: int, name: str) -> None:
        """Record that a file lost this name. If it was the last one, its open handles keep the file."""
        self.shared.inodes.removed(self.ino, name)
        if self.shared.inodes.where(ino) is None:
            for handle in self.shared.files.at(ino):
                if isinstance(handle, KeyHandle):
                    handle.unlinked = True
                    self.shared.inodes.orphans[ino] = handle


class BranchKeyFile(Node):
    """A key of a branch."""

    def __init__(self, shared: Shared, ino: int, up: BranchKeyDir, key: str, entry: Entry) -> None:
        super().__init__(shared, ino, up)
        self.room: MountedBranch = up.room
        self.key = key
        self._entry = entry

    def attr(self) -> Attr:
        return _file_attr(self.room, self.key, self.ino, facts_of(self._entry))

    async def open(self, flags: int) -> Handle:
        if flags & os.O_DIRECTORY:
            raise WrongKind(f"{self.key} is a file", errno=errno.ENOTDIR)
        room, key = self.room, self.key
        flags &= ~(os.O_CREAT | os.O_EXCL)
        if wants_writing(flags):
            assert isinstance(self.up, BranchKeyDir)
            await self.up._check_not_computed(key)
            change = room.soon if flags & os.O_TRUNC or _on_top(self._entry) else room.look
            file = await change(lambda: room.branch.working.open(key, flags))
        else:
            file = await room.soon(
                lambda: room.branch.working.open(key, flags), change=False, drop=lambda late: late.close()
            )
        return KeyHandle(room, self.ino, file, flags)

    async def change(self, changes: SetAttr, handle: Handle | None) -> None:
        room, key, size = self.room, self.key, changes.size
        if size is not None:
            assert isinstance(self.up, BranchKeyDir)
            await self.up._check_not_computed(key)
            await room.look(lambda: room.branch.working.truncate(key, size))
            if key.endswith(NODE_JSON):
                room.places.forget()
            await room.kernel.invalidate_soon(KeyChange(through=self.ino))
        await set_times_and_mode(room, key, changes)


class BranchKeyLink(BranchKeyFile):
    """A side file of a branch that is a symbolic link. The client follows it, never this process."""

    async def open(self, flags: int) -> Handle:
        raise WrongKind(f"{self.key} is a symbolic link", errno=errno.ELOOP)

    async def readlink(self) -> bytes:
        room, working, key = self.room, self.room.branch.working, self.key
        if self._entry.st is not None:
            return os.fsencode(await room.soon(lambda: working.readlink(key), change=False))
        return os.fsencode(await self.shared.in_time(lambda: room.look(lambda: working.readlink(key))))


def _file_attr(room: MountedBranch, key: str, ino: int, facts: Facts) -> Attr:
    """The attributes of a key, from the facts of its listing."""
    (mode, size, mtime, blocks), shared = facts, room.shared
    room.kernel.note_size(key, ino, size, mtime)
    return shared.file_attr(
        ino,
        size,
        mtime,
        mode=mode if room.writable or stat.S_ISLNK(mode) else mode & ~0o222,
        nlink=max(1, shared.inodes.links(ino)),
        block_size=FILE_BLOCK_SIZE,
        stored_blocks=None if blocks < 0 else blocks,
    )


def _on_top(entry: Entry) -> bool:
    """Whether a file can be changed where it lies: otherwise its bytes are copied up first, which takes a while."""
    return entry.layer is not None and entry.layer.frozen is None


def place_of(key: str) -> SlicePath:
    """Directory and name of a key."""
    folder, _, name = key.rpartition("/")
    return folder, name


async def set_times_and_mode(room: MountedBranch, key: str, changes: SetAttr) -> None:
    """utimens and chmod of a key. Owners are the mounting user's, whatever an archiver says."""
    working = room.branch.working
    if changes.atime_ns is None and changes.mtime_ns is None and changes.mode is None:
        return
    if key in ("zarr", "files"):
        return
    await room.enter()
    info = room.branch.stat(key)
    if info is None:
        raise NotFound(f"{key} does not exist")
    if changes.mode is not None:
        mode = stat.S_IMODE(changes.mode)
        await room.look(lambda: working.chmod(key, mode))
    if changes.mtime_ns is not None or changes.atime_ns is not None:
        mtime = changes.mtime_ns if changes.mtime_ns is not None else info.mtime_ns
        atime = changes.atime_ns if changes.atime_ns is not None else mtime
        await room.look(lambda: working.utimens(key, atime, mtime))
