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
from volfs.tree.contract.attrs import FILE_BLOCK_SIZE, NEVER, SOON, Attr, SetAttr
from volfs.tree.core.context import LISTED_NAME_BYTES
from volfs.tree.core.node import Dir, Node, attr_of
from volfs.tree.core.open_files import Handle, wants_writing
from volfs.tree.files.computed_key import ComputedKeyFile
from volfs.tree.files.key_handle import KeyHandle
from volfs.tree.files.key_listing import UNKNOWN, Facts, KeyListing, facts_of
from volfs.tree.images.computed_levels import ComputedKey, computed_key, computed_level, computed_names
from volfs.versions.keys import NODE_JSON
from volfs.versions.working.union import Entry

if TYPE_CHECKING:
    from volfs.tree.branches.mounted_branch import MountedBranch
    from volfs.tree.core.context import TreeContext

#: How long (s) the later pages of a listing show the names that its first page found.
_LISTING_SECONDS = 5.0


class BranchKeyDir(Dir):
    """A directory of keys in a branch."""

    def __init__(self, context: TreeContext, ino: int, up: Dir, path: str, mounted: MountedBranch, key: str) -> None:
        super().__init__(context, ino, up, path)
        self.mounted: MountedBranch = mounted
        self.key = key
        # What was lent to the front last, and how far the branch had walked then.
        self._lent: tuple[object, int] = None, 0

    def _entry(self, key: str) -> Entry | None:
        return self.mounted.branch.working.look(lambda union: union.entry(key))

    # -- looking ----------------------------------------------------------------------------------------------------

    @property
    def cold(self) -> bool:
        return self.mounted.images.cold  # for knowing which keys are computed

    def load(self) -> None:
        self.mounted.images.load()

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
            return ComputedKeyFile(self.context, self.context.inodes.name(self.ino, name), self, computed, self.mounted)
        entry = self._entry(key)
        if entry is not None:
            return self._node(name, key, entry)
        if self._derived_names().get(name):
            return self._folder(name, key)
        if self.context.lender is not None:
            self._lend_at_once()
        return None

    def _computed(self, key: str) -> ComputedKey | None:
        """The computed bytes of a key; None if it has none, is open for writing, or was just removed."""
        found = computed_key(self.mounted.images, key)
        if (
            found is None
            or self.mounted.is_hidden(place_of(key))
            or key in self.mounted.branch.working.open_for_writing()
        ):
            return None
        return found

    def _derived_names(self) -> dict[str, bool]:
        found = computed_names(self.mounted.images, self.key)
        return {name: deeper for name, deeper in found.items() if not self.mounted.is_hidden((self.key, name))}

    def _node(self, name: str, key: str, entry: Entry) -> Node:
        if entry.kind == "dir":
            return self._folder(name, key)
        kind = BranchKeyLink if entry.is_link else BranchKeyFile
        return kind(self.context, self.context.inodes.name(self.ino, name), self, key, entry)

    def _folder(self, name: str, key: str) -> BranchKeyDir:
        ino = self.context.inodes.name(self.ino, name)
        return BranchKeyDir(self.context, ino, self, f"{self.path}/{name}", self.mounted, key)

    def listing_cold(self, cookie: int) -> bool:
        listing = self._kept
        if listing is None or not cookie:
            return listing is None or listing.generation != self.mounted.generation()
        # Later pages show the names that the first one found, each with its attributes as they are now.
        return time.monotonic() - listing.when > _LISTING_SECONDS

    @property
    def _kept(self) -> KeyListing | None:
        found = self.context.listings.get(self.ino)
        assert found is None or isinstance(found, KeyListing)
        return found

    def load_listing(self, cookie: int) -> None:
        working = self.mounted.branch.working
        generation = self.mounted.generation()
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
                ino = self.context.inodes.name(self.ino, name)
                node = ComputedKeyFile(self.context, ino, self, derived, self.mounted)
                try:
                    node.load()
                except VolfsError:
                    found[name] = UNKNOWN  # listed, and an error when it is read
                else:
                    if node.exists:
                        computed[name] = node.attr()
        self.context.listings.put(self.ino, KeyListing.of(generation, found, computed))

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        listing = self._kept
        if listing is None:  # pushed out just now, by larger ones
            self.load_listing(cookie)
            listing = self._kept
            assert listing is not None
        begin = bisect_right(listing.cookies, cookie)
        if begin == len(listing) > self.context.listings.limit // LISTED_NAME_BYTES:
            self.context.listings.pop(self.ino)  # too large to be kept longer than one listing of it takes
        fresh = listing.generation == self.mounted.generation()
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
            return _file_attr(self.mounted, key, self.context.inodes.name(self.ino, name), facts)
        node = self._folder(name, key) if mode else self.find(name)
        return None if isinstance(node, ComputedKeyFile) else attr_of(node)

    def attr(self) -> Attr:
        entry = self._entry(self.key)
        mtime = entry.info.mtime_ns if entry is not None else 0
        if entry is None and not self._derived_names():
            raise NotFound(f"{self.key} does not exist")
        if entry is not None and entry.kind != "dir":
            raise NotFound(f"{self.key} is no directory any more")
        mtime = max(mtime, self.mounted.touched(self.ino))
        if not mtime:
            base = self.mounted.branch.base
            mtime = base.time_ns if base else self.context.started_ns
        attr = self.directory_attr(mtime, SOON, writable=self.mounted.writable)
        if entry is not None and (bits := entry.info.mode):
            attr = attr._replace(mode=stat.S_IFDIR | (bits if self.mounted.writable else bits & ~0o222))
        return attr

    async def change(self, changes: SetAttr, handle: Handle | None) -> None:
        if changes.size is not None:
            raise WrongKind(f"{self.key} is a directory", errno=errno.EISDIR)
        await set_times_and_mode(self.mounted, self.key, changes)
        if changes.mtime_ns is not None:
            self.mounted.dated(self.ino)

    # -- changing names ---------------------------------------------------------------------------------------------

    async def create(self, name: str, mode: int, flags: int) -> tuple[Node, Handle]:
        key, mounted = self.key_of(name), self.mounted
        check_key(key)
        await self._check_not_computed(key)
        async with mounted.renaming():
            working, permissions = mounted.branch.working, stat.S_IMODE(mode)
            file = await mounted.soon(lambda: working.open_quickly(key, flags | os.O_CREAT, permissions))
            if file is None:
                file = await mounted.look(lambda: working.open(key, flags | os.O_CREAT, permissions))
            if file.made:
                mounted.touch(self.ino)
            ino = self.context.inodes.name(self.ino, name)

        def opened() -> Entry | None:
            if wants_writing(flags) and file.fd is not None:
                return Entry("file", mounted.branch.working.union().layers[0], os.fstat(file.fd), None)
            return self._entry(key)

        entry = await mounted.asked(opened)
        if entry is None or entry.kind != "file":
            await mounted.asked(file.close)
            raise NotFound(f"{key} was removed again")
        self._lend()
        node = BranchKeyFile(self.context, ino, self, key, entry)
        return node, KeyHandle(mounted, ino, file, flags)

    async def mkdir(self, name: str, mode: int) -> Attr:
        key, mounted = self.key_of(name), self.mounted
        async with mounted.renaming():
            await mounted.soon(lambda: mounted.branch.working.mkdir(key, stat.S_IMODE(mode)))
            mounted.touch(self.ino)
        ino = self.context.inodes.name(self.ino, name)
        made = BranchKeyDir(self.context, ino, self, f"{self.path}/{name}", mounted, key)
        return await made.asked(made.attr)

    async def rmdir(self, name: str) -> None:
        key, mounted = self.key_of(name), self.mounted
        async with mounted.renaming():
            if await mounted.asked(
                lambda: self._entry(key) is not None or not isinstance(self.find(name), BranchKeyDir)
            ):
                await mounted.look(lambda: mounted.branch.working.rmdir(key))
            await mounted.asked(lambda: self._hide_computed(key))
            self.context.nodes.pop(self.context.inodes.name(self.ino, name))
            self.context.inodes.removed(self.ino, name)
            mounted.touch(self.ino)

    async def unlink(self, name: str) -> None:
        key, mounted = self.key_of(name), self.mounted
        ino = self.context.inodes.name(self.ino, name)
        async with mounted.renaming():
            if await mounted.asked(
                lambda: self._entry(key) is not None or not isinstance(self.find(name), ComputedKeyFile)
            ):
                await mounted.look(lambda: mounted.branch.working.unlink(key))
            await mounted.asked(lambda: self._hide_computed(key))
            self._lost(ino, name)
            mounted.touch(self.ino)
        await self.moved(key)

    async def symlink(self, name: str, target: str) -> Node:
        key, mounted = self.key_of(name), self.mounted
        async with mounted.renaming():
            await mounted.look(lambda: mounted.branch.working.symlink(key, target))
            mounted.touch(self.ino)
        await self.moved(key)
        entry = await mounted.asked(lambda: self._entry(key))
        if entry is None:
            raise NotFound(f"{key} was removed again")
        return self._node(name, key, entry)

    async def link(self, node: Node, name: str) -> Node:
        mounted, target = self.mounted, self.key_of(name)
        if not isinstance(node, BranchKeyFile) or node.mounted is not mounted:
            raise NotAllowed("only keys of the same branch can be hard links of each other", errno=errno.EXDEV)
        source = node.key
        async with mounted.renaming():
            await mounted.look(lambda: mounted.branch.working.link(source, target))
            self.context.inodes.linked(node.ino, self.ino, name)
            mounted.touch(self.ino)
        await self.moved(target)
        entry = await mounted.asked(lambda: self._entry(target))
        if entry is None:
            raise NotFound(f"{target} was removed again")
        kind = BranchKeyLink if entry.is_link else BranchKeyFile
        return kind(self.context, node.ino, self, target, entry)

    async def rename(self, name: str, to: Dir, new_name: str, flags: int) -> None:
        mounted = self.mounted
        if not isinstance(to, BranchKeyDir) or to.mounted is not mounted:
            raise NotAllowed("keys move within their branch", errno=errno.EXDEV)
        source, target = self.key_of(name), to.key_of(new_name)
        await self._check_not_computed(source)
        await self._check_not_computed(target)
        inodes = self.context.inodes
        async with mounted.renaming():
            working = mounted.branch.working
            renaming = await mounted.soon(lambda: working.rename_quickly(source, target, flags))
            if renaming is None:
                renaming = await mounted.look(lambda: working.rename(source, target, flags))
            if renaming.moved and flags & RENAME_EXCHANGE:
                inodes.exchanged((self.ino, name), (to.ino, new_name))
            elif renaming.moved:
                if renaming.replaced:
                    to._lost(inodes.name(to.ino, new_name), new_name)
                inodes.moved(inodes.name(self.ino, name), (self.ino, name), (to.ino, new_name))
            for handle in self.context.files.at(inodes.name(to.ino, new_name)):
                handle.renamed()
            if flags & RENAME_EXCHANGE:
                for handle in self.context.files.at(inodes.name(self.ino, name)):
                    handle.renamed()
            mounted.touch(self.ino)
            mounted.touch(to.ino)
            if renaming.folder or (flags & RENAME_EXCHANGE and renaming.replaced_folder):
                self.context.names_moved()  # directories below have other keys now
                mounted.images.forget()
        await self.moved(source, target)

    async def sync(self) -> None:
        mounted = self.mounted
        if mounted.held:
            await mounted.look(lambda: mounted.branch.working.fsync_dir(self.key))
            self._lend()

    def _lend_at_once(self) -> None:
        """:meth:`_lend`, if nothing must be waited for."""
        with self.mounted.branch.working.at_once() as free:
            if free:
                self._lend()

    def _lend(self) -> None:
        """Have the front answer syncs of this directory, if it can: that of a file that was made here is followed by
        one, where the file gets its name; and look-ups in it, if it shows nothing but what lies there."""
        mounted, lender = self.mounted, self.context.lender
        if lender is None or mounted.onlookers is None or mounted.far or not mounted.held:
            return
        folder, walk = mounted.branch.working.anchor(self.key), mounted.onlookers.walk
        if folder is None or (folder, walk) == self._lent:
            return
        mounted.see_owner()
        known = not mounted.images.cold  # which keys are computed
        watch = mounted.onlookers if known and self._is_plain() else None
        lender.lend_folder(self.ino, folder, watch, walk, mounted.touched(self.ino))
        self._lent = folder, walk if known else walk - 1

    def _is_plain(self) -> bool:
        """True if all names in it are those in the top layer: the base has none, and none are computed."""
        if computed_level(self.mounted.images, self.key) is not None:
            return False
        entry = self.mounted.branch.working.union().entry(self.key)
        return entry is not None and entry.kind == "dir" and entry.below is None and len(entry.dirs) == 1

    def _hide_computed(self, key: str) -> None:
        """Hide a removed key of a level that follows s0 for some seconds, as removed slices are: a program that removes
        a whole image must come to its end, whatever its order."""
        if computed_level(self.mounted.images, key) is not None:
            self.mounted.hide(place_of(key))

    async def moved(self, *keys: str) -> None:
        """Have the kernel forget what it keeps of these keys and of slices over them, before the request is
        answered."""
        if any(key.endswith(NODE_JSON) for key in keys):
            self.mounted.images.forget()
        await self.mounted.kernel.invalidate(KeyChange(keys))

    async def _check_not_computed(self, key: str) -> None:
        """Raise NotAllowed for a chunk of a committed level that follows s0: the chunk computed from s0 would count,
        and the write would be lost. While the array is new it may be written: a copy of a whole image brings it
        along."""
        await self.mounted.enter()
        await self.mounted.asked(lambda: self._refuse_computed(key))

    def _refuse_computed(self, key: str) -> None:
        found = computed_level(self.mounted.images, key)
        if found is None:
            return
        level, rel = found
        if level.array.meta.parse_chunk_key(rel) is None:
            return
        metadata = self.mounted.branch.stat(f"{key[: len(key) - len(rel)]}{NODE_JSON}")
        if metadata is not None and metadata.version:
            raise NotAllowed(f"{key}: {level.name} is computed from s0: write s0")

    def _lost(self, ino: int, name: str) -> None:
        """Record that a file lost this name. If it was the last one, its open handles keep the file."""
        self.context.inodes.removed(self.ino, name)
        if self.context.inodes.where(ino) is None:
            for handle in self.context.files.at(ino):
                if isinstance(handle, KeyHandle):
                    handle.unlinked = True
                    self.context.inodes.orphans[ino] = handle


class BranchKeyFile(Node):
    """A key of a branch."""

    def __init__(self, context: TreeContext, ino: int, up: BranchKeyDir, key: str, entry: Entry) -> None:
        super().__init__(context, ino, up)
        self.mounted: MountedBranch = up.mounted
        self.key = key
        self._entry = entry

    def attr(self) -> Attr:
        return _file_attr(self.mounted, self.key, self.ino, facts_of(self._entry))

    async def open(self, flags: int) -> Handle:
        if flags & os.O_DIRECTORY:
            raise WrongKind(f"{self.key} is a file", errno=errno.ENOTDIR)
        mounted, key = self.mounted, self.key
        flags &= ~(os.O_CREAT | os.O_EXCL)
        if wants_writing(flags):
            assert isinstance(self.up, BranchKeyDir)
            await self.up._check_not_computed(key)
            change = mounted.soon if flags & os.O_TRUNC or _on_top(self._entry) else mounted.look
            file = await change(lambda: mounted.branch.working.open(key, flags))
        else:
            file = await mounted.soon(
                lambda: mounted.branch.working.open(key, flags), change=False, drop=lambda late: late.close()
            )
        return KeyHandle(mounted, self.ino, file, flags)

    async def change(self, changes: SetAttr, handle: Handle | None) -> None:
        mounted, key, size = self.mounted, self.key, changes.size
        if size is not None:
            assert isinstance(self.up, BranchKeyDir)
            await self.up._check_not_computed(key)
            await mounted.look(lambda: mounted.branch.working.truncate(key, size))
            if key.endswith(NODE_JSON):
                mounted.images.forget()
            await mounted.kernel.invalidate_soon(KeyChange(through=self.ino))
        await set_times_and_mode(mounted, key, changes)


class BranchKeyLink(BranchKeyFile):
    """A side file of a branch that is a symbolic link. The client follows it, never this process."""

    async def open(self, flags: int) -> Handle:
        raise WrongKind(f"{self.key} is a symbolic link", errno=errno.ELOOP)

    async def readlink(self) -> bytes:
        mounted, working, key = self.mounted, self.mounted.branch.working, self.key
        if self._entry.st is not None:
            return os.fsencode(await mounted.soon(lambda: working.readlink(key), change=False))
        return os.fsencode(await self.context.in_time(lambda: mounted.look(lambda: working.readlink(key))))


def _file_attr(mounted: MountedBranch, key: str, ino: int, facts: Facts) -> Attr:
    """The attributes of a key, from the facts of its listing."""
    (mode, size, mtime, blocks), context = facts, mounted.context
    mounted.kernel.note_size(key, ino, size, mtime)
    return context.file_attr(
        ino,
        size,
        mtime,
        mode=mode if mounted.writable or stat.S_ISLNK(mode) else mode & ~0o222,
        nlink=max(1, context.inodes.links(ino)),
        # A commit or an import may merge metadata at any moment: who trusts an old size reads half a document.
        attr_timeout=NEVER if key.endswith(f"/{NODE_JSON}") else None,
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


async def set_times_and_mode(mounted: MountedBranch, key: str, changes: SetAttr) -> None:
    """utimens and chmod of a key. Owners are the mounting user's, whatever an archiver says."""
    working = mounted.branch.working
    if changes.atime_ns is None and changes.mtime_ns is None and changes.mode is None:
        return
    if key in ("zarr", "files"):
        return
    await mounted.enter()
    info = await mounted.asked(lambda: mounted.branch.stat(key))
    if info is None:
        raise NotFound(f"{key} does not exist")
    if changes.mode is not None:
        mode = stat.S_IMODE(changes.mode)
        await mounted.look(lambda: working.chmod(key, mode))
    if changes.mtime_ns is not None or changes.atime_ns is not None:
        mtime = changes.mtime_ns if changes.mtime_ns is not None else info.mtime_ns
        atime = changes.atime_ns if changes.atime_ns is not None else mtime
        await mounted.look(lambda: working.utimens(key, atime, mtime))
