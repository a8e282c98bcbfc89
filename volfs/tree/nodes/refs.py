"""``versions/``, ``branches/`` and ``tags/``: refs as directories and links, made and removed by file operations.

Decided here: which file operation means what for a ref, and with which error it is refused. Not here: what refs are
(:mod:`volfs.versions.dataset`), nor what a snapshot shows (:mod:`volfs.tree.nodes.snapshot`).
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from typing import ClassVar

from volfs.errors import AlreadyThere, BadInput, Damaged, NotAllowed, NotFound, ReadOnly, VolfsError, WrongKind
from volfs.model.names import LATEST, check_ref_name, version_number
from volfs.model.refs import RefKind
from volfs.tree.branches.registry import BranchRegistry
from volfs.tree.contract.api import RENAME_EXCHANGE, RENAME_NOREPLACE, DirEntry
from volfs.tree.contract.attrs import NEVER, SOON, Attr
from volfs.tree.core.context import TreeContext
from volfs.tree.core.node import FIRST_COOKIE, Dir, Link, Node, SmallDir, attr_of
from volfs.tree.nodes.branch import BranchDir
from volfs.tree.nodes.snapshot import VersionDir
from volfs.versions.dataset import Dataset

MEANT = "\0"
"""Between the name of a link and what it leads to, in the path that its inode is derived from. No name has it. A link
that comes to lead elsewhere is another inode, as after ``ln -sf``, and the inode that it had is stale: servers of NFS
keep for good what the link of an inode says."""


class RefsDir(SmallDir):
    """One of them. Nothing in it is ever cold."""

    def __init__(self, context: TreeContext, ino: int, up: Dir, path: str, open_dataset: Callable[[], Dataset]) -> None:
        super().__init__(context, ino, up, path)
        self._open_dataset = open_dataset

    def listing_cold(self, cookie: int) -> bool:
        return False

    @property
    def opened(self) -> Dataset:
        return self._open_dataset()

    def check_writable(self) -> None:
        if not self.context.writable:
            raise ReadOnly("this mount is read-only")

    async def changing(self, work: Callable[[], None]) -> None:
        """Change refs, in a thread; whatever was looked up before is looked up again."""
        self.check_writable()
        try:
            await self.context.look(self.dataset, work)
        finally:
            self.context.names_moved()


class VersionsDir(RefsDir):
    """``versions/``: every version that was not dropped, and ``latest``. Nothing here is made or removed by hand.

    Any other expression for a version (``main~3``) leads to it by name: a link that no listing shows.
    """

    slots: ClassVar[dict[str, int]] = {LATEST: 1}

    def __init__(self, context: TreeContext, ino: int, up: Dir, path: str, open_dataset: Callable[[], Dataset]) -> None:
        super().__init__(context, ino, up, path, open_dataset)
        self.far = context.is_far(self.dataset)  # a ref that the catalog does not know is looked for in the store

    def names(self) -> Sequence[str]:
        numbers = self.opened.kept()
        return [*([LATEST] if numbers else []), *(f"v{number}" for number in numbers)]

    def find(self, name: str) -> Node | None:
        dataset = self.opened
        if name == LATEST:
            try:
                latest = dataset.info(dataset.resolve(name))
            except NotFound:
                return None
            # Another target is another inode, as after `ln -sf`: servers of NFS keep what a link says by its inode.
            ino = self.context.inodes.file(self.ino, self.slots[LATEST] + latest.number)
            return Link(self.context, ino, self, f"v{latest.number}", latest.time_ns, SOON)
        name, _, _ = name.partition(MEANT)
        number = version_number(name)
        if number is None:
            return self._meant(name)
        if number in dataset.dropped():
            return None
        try:
            version = dataset.version(number)
        except NotFound:
            return None
        path = f"{self.path}/{name}"
        return VersionDir(self.context, self.context.inodes.directory(path), self, path, version)

    def _meant(self, expression: str) -> Node | None:
        dataset = self.opened
        try:
            version = dataset.info(dataset.resolve(expression))
        except (NotFound, BadInput):
            return None
        if version.number in dataset.dropped():
            return None
        # By the hour it may be another version: the link may be kept for a second, what it leads to for ever.
        ino = self.context.inodes.directory(f"{self.path}/{expression}{MEANT}{version.number}")
        return Link(self.context, ino, self, f"v{version.number}", version.time_ns, SOON)

    def numbered(self, ordinal: int) -> Node | None:
        return self.find(LATEST)

    def attr(self) -> Attr:
        graph, dropped = self.opened.graph, self.opened.dropped()
        newest = graph.latest_ns or self.context.started_ns
        return self.directory_attr(self.context.clock.mtime(self.path, (len(graph), len(dropped)), newest), SOON)

    def entries(self, cookie: int) -> Iterator[DirEntry]:
        numbers = self.opened.kept()
        if numbers and cookie < FIRST_COOKIE:
            with suppress(Damaged):  # an error for those who ask for it, and for no listing
                attr = attr_of(self.find(LATEST))
                if attr is not None:
                    yield DirEntry(LATEST.encode(), attr, FIRST_COOKIE)
        for number in numbers[bisect_right(numbers, max(0, cookie - FIRST_COOKIE)) :]:
            attr = attr_of(self.find(f"v{number}"))
            if attr is not None:
                yield DirEntry(b"v%d" % number, attr, FIRST_COOKIE + number)

    def refusal(self) -> VolfsError:
        return NotAllowed("a version is made by a commit, and never changed")


class NamedRefsDir(RefsDir):
    """The directory of a kind of refs, named and removed by hand."""

    lenient = True
    kind: ClassVar[RefKind]
    #: How one is made, for messages.
    usage: ClassVar[str]

    def __init__(self, context: TreeContext, ino: int, up: Dir, path: str, open_dataset: Callable[[], Dataset]) -> None:
        super().__init__(context, ino, up, path, open_dataset)
        self.far = context.is_far(self.dataset)  # a name that the catalog does not know is looked for in the store

    def names(self) -> Sequence[str]:
        return sorted(self.opened.refs()[self.kind])

    def content(self) -> Hashable:
        """Changes whenever the directory does."""
        return tuple(self.names())

    def attr(self) -> Attr:
        mtime = self.context.clock.mtime(self.path, self.content(), self.context.started_ns)
        return self.directory_attr(mtime, SOON, writable=self.context.writable)

    async def check_there(self, name: str) -> None:
        """Raise NotFound unless there is such a ref."""
        if name not in (await self.asked(self.opened.refs))[self.kind]:
            raise NotFound(f"there is no {self.kind.word} {name!r}")

    def refusal(self) -> VolfsError:
        if not self.context.writable:
            return ReadOnly("this mount is read-only")
        return NotAllowed(f"{self.kind.directory}/ holds {self.usage}")


class BranchesDir(NamedRefsDir):
    """``branches/``: mkdir makes one, mv renames it, rmdir removes it."""

    kind = RefKind.BRANCH
    usage = "branches only: mkdir makes one, mv renames it, rmdir removes it"

    def __init__(
        self,
        context: TreeContext,
        ino: int,
        up: Dir,
        path: str,
        open_dataset: Callable[[], Dataset],
        branches: BranchRegistry,
    ) -> None:
        super().__init__(context, ino, up, path, open_dataset)
        self._branches = branches

    def find(self, name: str) -> Node | None:
        heads = self.opened.refs().heads
        if name not in heads:
            name = self.context.just_made(self.ino, name) or name
            if name not in heads:
                self.opened.check_ref(name)
                return None
        path = f"{self.path}/{name}"
        mounted = self._branches.get(self.opened, name)
        return BranchDir(self.context, self.context.inodes.directory(path), self, path, mounted)

    async def mkdir(self, name: str, mode: int) -> Attr:
        """``exp``, at the default branch's head; ``exp@v3``, which makes ``exp``. The name with @ is never listed, and
        leads there for a few seconds only: servers of NFS and SMB look at what they have made, by the name they gave.
        """
        branch, at, ref = name.partition("@")
        dataset = self.opened
        if at and not ref:
            raise BadInput(f"{name}: say at which version, as in {branch}@v3")
        await self.changing(lambda: dataset.create_branch(branch, ref or None))
        node = await self.asked(lambda: self.find(branch))
        if node is None:
            raise NotFound(f"branch {branch!r} was removed again")
        attr = await node.asked(node.attr)
        self.context.notifier.queue_entry(self.ino, os.fsencode(branch))
        if at:
            self.context.note_made(self.ino, name, branch)
            attr = attr._replace(entry_timeout=NEVER, attr_timeout=NEVER)
            self.context.notifier.queue_entry(self.ino, os.fsencode(name))
        return attr

    async def rmdir(self, name: str) -> None:
        dataset = self.opened
        await self.check_there(name)
        self.check_writable()
        mounted = await self.asked(lambda: self._branches.get(dataset, name))
        await mounted.retire()
        await self.changing(lambda: dataset.delete_branch(name))
        self._branches.discard(mounted)

    async def rename(self, name: str, to: Dir, new_name: str, flags: int) -> None:
        """Another name for a branch, with its uncommitted changes. Over another branch none is put."""
        dataset = self.opened
        if not isinstance(to, BranchesDir) or to.ino != self.ino:
            raise NotAllowed("a branch belongs to its dataset", errno=errno.EXDEV)
        if flags & RENAME_EXCHANGE:
            raise BadInput("branches cannot be exchanged")
        await self.check_there(name)
        self.check_writable()
        check_ref_name(new_name)
        if name == new_name:
            return
        if new_name in (await self.asked(dataset.refs)).heads:
            raise AlreadyThere(f"there is a branch {new_name!r} already")
        mounted = await self.asked(lambda: self._branches.get(dataset, name))
        await mounted.retire()
        await self.changing(lambda: dataset.rename_branch(name, new_name))
        self._branches.discard(mounted)
        for each in (name, new_name):  # the kernel takes the directory that it knows for the one of the new name
            self.context.notifier.queue_entry(self.ino, os.fsencode(each))

    async def unlink(self, name: str) -> None:
        await self.check_there(name)
        raise WrongKind(f"{name} is a directory: rmdir removes a branch", errno=errno.EISDIR)

    async def symlink(self, name: str, target: str) -> Node:
        raise NotAllowed("a branch cannot be a link: mkdir makes one, mkdir NAME@v3 at a version")


class TagsDir(NamedRefsDir):
    """``tags/``: ln -s makes one, rm removes it, mv renames it or puts it over another."""

    kind = RefKind.TAG
    usage = "links to versions only: ln -s ../versions/v3 NAME makes one"

    def content(self) -> Hashable:
        return tuple(sorted(self.opened.refs().tags.items()))

    def find(self, name: str) -> Node | None:
        name, _, _ = name.partition(MEANT)
        dataset = self.opened
        number = dataset.refs().tags.get(name)
        if number is None:
            dataset.check_ref(name)
            return None
        ino = self.context.inodes.directory(f"{self.path}/{name}{MEANT}{number}")
        return Link(self.context, ino, self, f"../versions/v{number}", dataset.info(number).time_ns, SOON)

    async def symlink(self, name: str, target: str) -> Node:
        dataset = self.opened
        self.check_writable()
        number = await self.asked(lambda: _version_meant(dataset, target))
        await self.changing(lambda: dataset.create_tag(name, number))
        node = await self.asked(lambda: self.find(name))
        if node is None:
            raise NotFound(f"tag {name!r} was removed again")
        return node

    async def unlink(self, name: str) -> None:
        dataset = self.opened
        await self.changing(lambda: dataset.delete_tag(name))

    async def rmdir(self, name: str) -> None:
        await self.check_there(name)
        raise WrongKind(f"{name} is a link: rm removes a tag")

    async def rename(self, name: str, to: Dir, new_name: str, flags: int) -> None:
        dataset = self.opened
        if not isinstance(to, TagsDir) or to.ino != self.ino:
            raise NotAllowed("a tag belongs to its dataset", errno=errno.EXDEV)
        if flags & RENAME_EXCHANGE:
            raise BadInput("tags cannot be exchanged")
        number = (await self.asked(dataset.refs)).tags.get(name)
        if number is None:
            raise NotFound(f"there is no tag {name!r}")
        check_ref_name(new_name)
        if name == new_name:
            return

        if flags & RENAME_NOREPLACE and new_name in (await self.asked(dataset.refs)).tags:
            raise AlreadyThere(f"there is a tag {new_name!r} already")
        await self.changing(lambda: dataset.rename_tag(name, new_name, replace=True))


def _version_meant(dataset: Dataset, target: str) -> int:
    """The version that a link's target names: ``../versions/v3``, another ref's path, or a ref alone.

    Relative and absolute paths count by their end: where the mount stands is nothing that a link here depends on.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    folders = {"versions", "..", *(kind.directory for kind in RefKind)}
    if not parts or (len(parts) > 1 and parts[-2] not in folders):
        raise BadInput(f"{target!r} names no version: link to ../versions/v3")
    return dataset.resolve(parts[-1])
