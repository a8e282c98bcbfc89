"""A dataset: its versions, branches and tags, and how a ref becomes a snapshot.

Decided here: the meaning of refs, and that a ref changes in its file and in the catalog's mirror of it in one go, under
the dataset's lock. Not decided here: how a version is found on disk (:mod:`volfs.versions.committed.version`), made
(:mod:`volfs.versions.commit.version_writer`) or given its place (:mod:`volfs.versions.commit.publish`), and what a
branch's working copy is (:mod:`volfs.versions.branch`).
"""

from __future__ import annotations

import logging
import operator
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, SupportsIndex

from volfs.catalog import Catalog, DatasetRow, NodeShape
from volfs.errors import AlreadyThere, BadInput, BadName, Busy, Damaged, NotAllowed, NotFound, VolfsError
from volfs.model.bounded_map import BoundedMap
from volfs.model.box import Box
from volfs.model.display import printable
from volfs.model.graph import VersionGraph, VersionInfo
from volfs.model.metadata import ArrayMeta, GroupMeta
from volfs.model.names import check_ref_name, is_remote_name
from volfs.model.ngff import parse_multiscale
from volfs.model.public_mapping import PublicMapping
from volfs.model.refs import RefKind, Refs, parse_ref
from volfs.storage.backend import Backend, change_document, read_document
from volfs.storage.crash import crash_point
from volfs.storage.files import FileLock
from volfs.storage.manifest import Manifest
from volfs.storage.payload import Payload, PayloadReader
from volfs.storage.store_layout import DATASET_JSON, VERSIONS, DatasetLayout
from volfs.storage.trash import delete_tree
from volfs.versions.access import KEY as ACCESS_KEY
from volfs.versions.access import Access, access_in
from volfs.versions.author import default_author
from volfs.versions.clone_parts import KEY as PARTS_KEY
from volfs.versions.clone_parts import CloneParts, parts_in
from volfs.versions.commit.branch_rename import rename, settle_renames
from volfs.versions.commit.mirror import catch_up
from volfs.versions.commit.writable_history import Progress
from volfs.versions.committed.absences import Absences
from volfs.versions.committed.lookups import Resolved
from volfs.versions.committed.version import Version, parse
from volfs.versions.committed.version_files import (
    NodeChanges,
    StoredVersion,
    VersionFiles,
    read_manifest,
    read_version,
)
from volfs.versions.dataset_file import REMOTES_KEY, DatasetFile, remotes_in
from volfs.versions.history import Opening, OpenStore
from volfs.versions.keys import is_key, node_key, node_path
from volfs.versions.ledger import Cause, Ledger, RefChange, RefRecord, Stamp
from volfs.versions.notes import Note, Notes
from volfs.versions.ref_expr import RefNames, offered
from volfs.versions.ref_file import how_to_mend
from volfs.versions.rules import PROTECT, REQUIRE_MESSAGE, Rules, checked, rules_in
from volfs.versions.snapshot import Derive, GroupNode, Snapshot
from volfs.versions.version_log import Wanted, ancestry, instant, matching
from volfs.versions.working.branch_lock import elsewhere

if TYPE_CHECKING:
    from volfs.versions.branch import Branch
    from volfs.versions.combine.merges import Combined
    from volfs.versions.combine.requests import RequestKind
    from volfs.versions.diff import Diff
    from volfs.versions.remotes.exchange import Exchange
    from volfs.versions.remotes.repair import Repair

log = logging.getLogger(__name__)

Tell = Callable[[int, int, str], object]
"""Called with the bytes that have come or gone, the number of bytes in all as far as it is known, and what they are."""

_VERSIONS_KEPT = 256
_METADATA_KEPT = 4096
_LOCK_PATIENCE = 60.0
"""Seconds to wait for another process that publishes or changes a ref."""
_CLOCKS_APART_NS = 10 * 10**9
"""How much earlier it may be where the store lies: a change that is younger may have been followed by another."""


class StoreOfDatasets(OpenStore, Protocol):
    """The store as its datasets know it."""

    @property
    def catalog(self) -> Catalog: ...

    @property
    def resolved(self) -> Resolved: ...

    @property
    def derive(self) -> Derive: ...

    def follow(self, dataset: Dataset) -> None:
        """Have the catalog of a store that is only read learn of the changes of others to a dataset."""


class Dataset(PublicMapping[Snapshot]):
    """One dataset of an open store: a mapping of its snapshots by their refs. Thread-safe.

    It lists branches, tags and versions, oldest first, without those that were dropped, and knows all other ref
    expressions: ``dataset["main~3"]``, and the number of a version. Made by :class:`~volfs.versions.store.Store`.
    """

    #: What ``dir()`` shows, and `docs/python.md` describes.
    PUBLIC: ClassVar[tuple[str, ...]] = (
        *("name", "store", "default_branch", "access", "set_access"),
        *("versions", "info", "version", "resolve", "snapshot", "latest", "log", "diff", "kept", "dropped", "drop"),
        *("notes", "add_note", "delete_notes", "rules", "set_rules"),
        *("branches", "branch", "create_branch", "rename_branch", "move_branch", "delete_branch"),
        *("tags", "create_tag", "rename_tag", "delete_tag", "ref_log"),
        *("merge", "cherry_pick", "revert", "restore"),
        *("uuid", "remotes", "set_remote", "clone_parts", "fetch", "pull", "push", "repair"),
    )

    def __init__(
        self,
        store: StoreOfDatasets,
        row: DatasetRow,
        layout: DatasetLayout,
        backend: Backend,
        ledger: Ledger,
        default_branch: str,
    ) -> None:
        self.store = store
        self.name = row.name
        self.id = row.id
        self._row = row
        #: Whether :meth:`check_itself` has found it removed.
        self.gone = False
        self.layout = layout
        self.catalog = store.catalog
        self._default_branch = default_branch
        self.backend = backend
        self.ledger = ledger
        self.objects = backend.below(VERSIONS)
        self.reader = PayloadReader(self.objects, Absences(self.objects, row.name).why)
        self._guard = threading.RLock()
        self._versions: BoundedMap[int, Version] = store.caches.add("versions", BoundedMap(_VERSIONS_KEPT))
        self._branches: dict[str, Branch] = {}
        self._times: dict[int, int] = {}
        self._conflicts: dict[int, tuple[Mapping[str, Any], ...]] = {}
        self._metadata: BoundedMap[tuple[str, int], ArrayMeta | GroupMeta | None] = store.caches.add(
            "metadata", BoundedMap(_METADATA_KEPT)
        )
        self._told: set[str] = set()
        #: Versions that lie in the store and are not in the catalog, and why.
        self.unindexed: dict[int, str] = {}
        self._caught: Stamp | None = None
        self._filed: tuple[Stamp | None, Refs, Refs] | None = None

    def __repr__(self) -> str:
        return f"<dataset {self.name!r}>"

    def _repr_html_(self) -> str:
        return self.store.face.html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.store.opening(), self.name, self._row.uuid)

    def __iter__(self) -> Iterator[str]:
        refs = self.refs()
        yield from dict.fromkeys(name for kind in RefKind for name in refs[kind])
        yield from (f"v{number}" for number in self.kept())

    def __len__(self) -> int:
        return len(self.refs().by_name) + len(self.kept())

    @property
    def default_branch(self) -> str:
        """The branch that is meant when none is named."""
        if self._default_branch not in self.refs().heads:  # another process may have renamed it
            with suppress(NotFound, Damaged):
                self._default_branch = DatasetFile.read(self.backend, self.name).default_branch
        return self._default_branch

    # -- versions -----------------------------------------------------------------------------------------------

    @property
    def graph(self) -> VersionGraph:
        """All versions, as the catalog knows them now."""
        return self.catalog.graph(self.id)

    def versions(self) -> list[VersionInfo]:
        """Every version, oldest first, dropped ones too."""
        found = self.graph.versions
        return [found[number] for number in sorted(found)]

    def dropped(self) -> frozenset[int]:
        """Numbers of the versions that were dropped: their history stays, and what they alone show goes."""
        return self.catalog.retired(self.id)

    def ever_had(self, key: str) -> bool:
        """Whether any version has, or had, a key or a directory of them. The index alone is read."""
        if not key:
            return True
        found = self.catalog.path_changes(self.id, key, below=False)
        return bool(found.versions or found.nodes)

    def changes_below(self, path: str, numbers: Collection[int]) -> dict[int, dict[str, NodeChanges]]:
        """What some versions changed at a node or key and in it, by version and place, as
        :attr:`VersionChanges.nodes` has all of it. The index alone is read."""
        key = path if is_key(path) else node_key(path)
        found = self.catalog.path_counts(self.id, key, numbers)
        return {
            number: {where: NodeChanges(c.put, c.removed, c.bytes, c.chunks) for where, c in places.items()}
            for number, places in found.items()
        }

    def sides_of_conflicts(self, number: int) -> dict[str, int]:
        """The versions between which version ``number`` has left conflicts open: ``base`` (of several the newest),
        ``ours`` and ``theirs``, of several combinations those of the first; without those that are empty."""
        info, first = self.info(number), next(iter(self.conflicts(number)), {})
        if "theirs" in first:
            found = {side: self.resolve(first[side]) if first[side] else 0 for side in ("ours", "theirs")}
            bases: Sequence[int] = [self.resolve(each) for each in first["bases"]]
        else:
            found = dict(zip(("ours", "theirs"), info.parents, strict=False))
            bases = self.graph.merge_bases(*info.parents[:2]) if len(info.parents) > 1 else ()
        return {side: each for side, each in {"base": max(bases, default=0), **found}.items() if each}

    def check_shown(self, snapshot: Snapshot) -> None:
        """Raise NotFound for a version that was dropped: no tree shows it."""
        if isinstance(snapshot, Version) and snapshot.number in self.dropped():
            raise NotFound(f"{snapshot.ref} of dataset {self.name!r} was dropped")

    def kept(self) -> list[int]:
        """Numbers of the versions that were not dropped, ascending."""
        return sorted(self.graph.versions.keys() - self.dropped())

    def info(self, number: int) -> VersionInfo:
        """Parents, author, message and time of a version. Raises NotFound, or Damaged if it is there and cannot be
        indexed."""
        graph = self.graph
        if number not in graph:
            self.check_indexed(number)
        return graph.info(number)

    def check_indexed(self, number: int) -> None:
        """Raise Damaged if a version lies in the store that the catalog does not know, and will not by itself."""
        if number in self._not_indexed(number - 1):
            why = self.unindexed.get(number, "opening the store for writing indexes it")
            raise Damaged(f"v{number} of dataset {self.name!r} is not in the catalog: {why}")

    def _not_indexed(self, above: int) -> set[int]:
        """Versions in the store, from the one after ``above`` on, that the catalog does not know. In a store open for
        writing, those that cannot be indexed."""
        if not self.store.read_only:
            return {number for number in self.unindexed if number > above}
        return set(self.ledger.versions(above)) - self.graph.versions.keys()

    def drop(
        self,
        *versions: str | int,
        why: str = "dropped",
        progress: Callable[[int, int, str], object] = lambda done, total, what: None,
    ) -> list[int]:
        """Drop versions; the numbers of those that were not before. Mounts and other machines list them no more within
        a second or so. History and ids stay; payloads that no other version shows go with :meth:`Store.gc`, after its
        grace. Busy, and nothing is dropped, if a branch, a tag or uncommitted changes hold one of them."""
        from volfs.versions.retention.collector import drop  # late: few do

        self.store.check_writable()
        return drop(self, map(self.resolve, versions), why, progress)

    def log(
        self,
        ref: str | int | None = None,
        *,
        all: bool = False,
        first_parent: bool = False,
        path: str | None = None,
        box: Box | None = None,
        author: str | None = None,
        grep: str | None = None,
        since: str | int | None = None,
        until: str | int | None = None,
    ) -> Iterator[VersionInfo]:
        """The versions that a ref descends from (None: the default branch), itself among them, newest first; with
        ``all`` those of every branch, and of none.

        ``path``: those that changed a node of the hierarchy, or a key (``files/notes.txt``), or anything in it; with
        ``box``, in voxels, the chunks of the array or of the image's s0 there. ``author`` and ``grep`` are regular
        expressions; times are ns, or texts as :func:`volfs.versions.version_log.instant` reads them. Raises NotFound,
        BadInput.
        """
        numbers: Iterable[int]
        if all:
            numbers = sorted(self.graph.versions, reverse=True)
        else:
            numbers = ancestry(self.graph, [self._start(ref)], first_parent=first_parent)
        key = None if path is None else path if is_key(path) else node_key(path)
        if key is not None and box is not None:
            key = self._array_key(key, ref)
        since_ns, until_ns = (instant(time) if isinstance(time, str) else time for time in (since, until))
        return matching(self, numbers, Wanted(author, grep, since_ns, until_ns, key, box))

    def diff(self, a: str | int | None = None, b: str | int | None = None, *, branch: str | None = None) -> Diff:
        """What differs between the versions that two refs name; without ``b``, between ``a`` (else the head) and the
        uncommitted changes of ``branch`` (else of the default branch).

        Iterate over it for nodes and side files; voxels are decoded when they are asked for. Raises NotFound.
        """
        from volfs.versions.diff import Diff, touched_between, touched_by

        if b is not None:
            if a is None:
                raise BadInput("to compare two versions name both")
            old, new = self.resolve(a), self.resolve(b)
            return Diff(self.version(old), self.version(new), touched_between(self, old, new))
        shown = self.branch(branch or self.default_branch)
        head = shown.head
        number = self.resolve(a) if a is not None else 0 if head is None else head.number
        return Diff(self.version(number) if number else None, shown, touched_by(self, number, shown))

    def _start(self, ref: str | int | None) -> int:
        """The version that a log begins at; 0 for a default branch without one."""
        if ref is None:
            return self.refs().heads.get(self.default_branch, 0)
        return self.resolve(ref)

    def _array_key(self, key: str, ref: str | int | None) -> str:
        """The key of the array that is meant by that of a group: the s0 of its image."""
        start, at = self._start(ref), node_path(key)
        node = self.version(start).node(at) if start and at is not None else None
        image = parse_multiscale(node.attributes) if isinstance(node, GroupNode) else None
        return key if image is None or at is None else node_key(at, image.levels[0].path)

    def time_of(self, number: int) -> int:
        """The time (ns) of a version. Raises NotFound."""
        known = self._times.get(number)
        if known is None:
            known = self._times[number] = self.info(number).time_ns
        return known

    def metadata(self, payload: Payload) -> ArrayMeta | GroupMeta | None:
        """A committed ``zarr.json``, parsed; None where volfs does not interpret it. Equal ones are shared."""
        key = payload.file, payload.offset
        return self._metadata.get_or_make(key, lambda: parse(self.reader.read(payload)))

    def version(self, number: int) -> Version:
        """The snapshot of version ``number``. Raises NotFound."""
        with self._guard:
            version = self._versions.get(number)
            if version is None:
                version = Version(self, self.info(number), self.graph.at(number), self.store.resolved)
                self._versions.put(number, version)
            return version

    # -- refs ---------------------------------------------------------------------------------------------------

    def refs(self) -> Refs:
        """Branches and tags, with the version each names (0: a branch without one).

        Who may not write cannot have the catalog catch up with the files: then it is these that are asked.
        """
        mirrored = self.catalog.refs(self.id)
        if not self.store.read_only:
            return mirrored
        stamp = self.ledger.stamp()
        held = self._filed
        if held is None or held[0] != stamp or held[1] is not mirrored:
            settled = stamp.settled(time.time_ns())
            held = self._filed = stamp if settled else None, mirrored, self.filed_refs(mirrored)
        return held[2]

    def filed_refs(self, mirrored: Refs) -> Refs:
        """The refs as their files say; those of versions that the catalog will soon know, and does not yet, are as they
        were. One of a version that it cannot know stays what it is, so that it is an error and not an older version."""
        files, versions = self.ref_files(), self.graph.versions
        soon = {n for refs in files.named.values() for n in refs.values() if n and n not in versions}
        soon -= self.unindexed.keys()

        def known(refs: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
            found = {name: before.get(name) if number in soon else number for name, number in refs.items()}
            return {name: number for name, number in found.items() if number is not None}

        return Refs({kind: known(refs, mirrored[kind]) for kind, refs in files.named.items()})

    def branches(self) -> dict[str, int]:
        """Version number by branch; 0 for a branch without a version."""
        return dict(self.refs().heads)

    def tags(self) -> dict[str, int]:
        """Version number by tag."""
        return dict(self.refs().tags)

    def branch(self, name: str) -> Branch:
        """The branch ``name`` with its working copy: the same object every time. Raises NotFound."""
        with self._guard:
            if name not in self.refs().heads and not self._came(name):
                self._branches.pop(name, None)
                self.check_ref(name)
                raise NotFound(f"dataset {self.name!r} has no branch {name!r}{offered(self.branches())}")
            branch = self._branches.get(name)
            if branch is None:
                from volfs.versions.branch import Branch  # late: who only reads needs nothing of working copies

                branch = self._branches[name] = Branch(self, name, self.store.derive)
            return branch

    def resolve(self, ref: str | int) -> int:
        """The number of the version that a ref expression names: a branch, a tag, ``v12``, ``latest``, digits of a
        content id, with ``~N``, ``^N`` or ``@2026-11-01`` behind it (:mod:`volfs.versions.ref_expr`).

        Raises NotFound, also for a branch that has no version yet.
        """
        if isinstance(ref, int):
            return self.info(ref).number
        return RefNames(self, self.refs()).resolve(parse_ref(ref))

    def newest(self) -> int:
        """The newest version that is kept and not half merged, as the catalog knows them; 0 if there is none. This is
        what decides which versions ``latest`` passes over."""
        highest = self.graph.highest
        if highest not in self.dropped() and not (highest and self.is_open(highest)):
            return highest
        return next((number for number in reversed(self.kept()) if not self.is_open(number)), 0)

    def latest(self) -> VersionInfo | None:
        """The version that ``latest`` names, as far as the catalog knows; None while there is none."""
        number = self.newest()
        return self.graph.info(number) if number else None

    def _resolve_now(self, ref: str | int) -> int:
        """:meth:`resolve` by the ref files, for a new ref. Busy for a version that was dropped. Call with the dataset's
        lock held."""
        number = (
            self.info(ref).number if isinstance(ref, int) else RefNames(self, self.ref_files()).resolve(parse_ref(ref))
        )
        if number in self.dropped():
            raise Busy(f"v{number} of dataset {self.name!r} was dropped: no branch or tag can begin there")
        return number

    def is_open(self, number: int) -> bool:
        """Whether a version has open conflicts. One whose document cannot be read has none: reading it says why."""
        try:
            return bool(self.conflicts(number))
        except VolfsError:
            return False

    def check_latest(self, newest: int) -> None:
        """Raise Damaged if a version newer than ``newest`` lies in the store that the catalog does not know."""
        if newer := max(self._not_indexed(newest) - self.dropped(), default=0):
            self.check_indexed(newer)

    def snapshot(self, ref: str | int | None = None) -> Snapshot:
        """The snapshot that a ref expression names; a branch's name, or None for the default branch, gives the branch
        with its uncommitted changes."""
        if ref is None:
            return self.branch(self.default_branch)
        if isinstance(ref, str):
            expr = parse_ref(ref)
            if expr.base and not expr.steps and (expr.base in self.refs().heads or self._came(expr.base)):
                return self.branch(expr.base)
        return self.version(self.resolve(ref))

    # -- other stores -------------------------------------------------------------------------------------------

    @property
    def uuid(self) -> str:
        """The id in ``dataset.json``, which clones of the dataset have too; "" for one that an older volfs made, until
        it is opened for writing."""
        return DatasetFile.read(self.backend, self.name).id

    def remotes(self) -> dict[str, str]:
        """The address of each remote, by name. Raises Damaged."""
        return remotes_in(read_document(self.backend, DATASET_JSON), self.backend.where(DATASET_JSON))

    def set_remote(self, name: str, address: str | None) -> None:
        """Name the address of a remote: a path, or ``ssh://host/path``. None removes it. Raises BadName or BadInput."""
        self.store.check_writable()
        self.check_itself()
        if not is_remote_name(name):
            raise BadName(f"{name!r} cannot be a remote's name")
        from volfs.versions.remotes.address import Address  # late: who only reads has no remotes

        written = None if address is None else str(Address.parse(address))

        def with_remote(document: dict[str, Any]) -> dict[str, Any]:
            self.check_itself()
            known = remotes_in(document, self.backend.where(DATASET_JSON))
            known.pop(name, None)
            known |= {} if written is None else {name: written}
            document.pop(REMOTES_KEY, None)
            return {**document, **({REMOTES_KEY: known} if known else {})}

        change_document(self.backend, DATASET_JSON, with_remote)

    @property
    def clone_parts(self) -> CloneParts:
        """Which parts of each version it has, if it is a partial clone, and which refs it follows. Raises Damaged."""
        return parts_in(read_document(self.backend, DATASET_JSON), self.backend.where(DATASET_JSON))

    def set_clone_parts(self, parts: CloneParts) -> None:
        """Write down which parts it is to have: for who makes clones and fetches."""
        self.store.check_writable()
        facts = parts.facts()

        def with_parts(document: dict[str, Any]) -> dict[str, Any]:
            self.check_itself()
            document.pop(PARTS_KEY, None)
            return {**document, **({PARTS_KEY: facts} if facts else {})}

        change_document(self.backend, DATASET_JSON, with_parts)

    def fetch(
        self,
        remote: str = "origin",
        refs: Sequence[str] = (),
        *,
        depth: int | None = None,
        since: str | None = None,
        levels: str | None = None,
        box: str | None = None,
        paths: Sequence[str] = (),
        deepen: int | None = None,
        whole: bool = False,
        progress: Tell | None = None,
    ) -> Exchange:
        """Have the versions of a remote's branches and tags here; see :func:`volfs.versions.remotes.exchange.fetch`.

        Into a partial clone a part more comes if ``depth``, ``since``, ``levels`` (``"s2-"``), ``box`` (``"z0-64"``) or
        ``paths`` say which; ``deepen`` brings so many versions more, ``whole`` all that was left out.
        """
        from volfs.versions.remotes import exchange
        from volfs.versions.remotes.partial_clone import Wish, part_of

        part = part_of(depth, since, levels, box, paths)
        return exchange.fetch(self, remote, refs, progress, wish=Wish(part, deepen, whole))

    def pull(self, remote: str = "origin", branch: str | None = None, *, progress: Tell | None = None) -> Exchange:
        """Fetch a branch, and move ours forward to it; see :func:`volfs.versions.remotes.exchange.pull`."""
        from volfs.versions.remotes import exchange

        return exchange.pull(self, remote, branch, progress)

    def repair(self, source: str, *, progress: Tell | None = None) -> Repair:
        """Bring back bytes that are lost here: from a remote by its name, or from a store by its address."""
        from volfs.versions.remotes import exchange

        return exchange.mend(self, source, progress)

    def push(
        self,
        remote: str = "origin",
        refs: Sequence[str] = (),
        *,
        force_with_lease: bool = False,
        progress: Tell | None = None,
    ) -> Exchange:
        """Have a remote's branches and tags stand where ours do; see :func:`volfs.versions.remotes.exchange.push`."""
        from volfs.versions.remotes import exchange

        return exchange.push(self, remote, refs, force_with_lease=force_with_lease, progress=progress)

    # -- access -------------------------------------------------------------------------------------------------

    @property
    def access(self) -> Access:
        """Owner, group and mode, as they are now. Raises Damaged."""
        return access_in(read_document(self.backend, DATASET_JSON))

    def set_access(self, access: Access) -> None:
        """Change owner, group and mode. Mounts see it within a second or so."""
        self.store.check_writable()
        self.check_itself()
        facts = access.facts()

        def with_access(document: dict[str, Any]) -> dict[str, Any]:
            self.check_itself()  # again: if this is another dataset's document by now, that is not replaced
            document.pop(ACCESS_KEY, None)
            return {**document, **({ACCESS_KEY: facts} if facts else {})}

        change_document(self.backend, DATASET_JSON, with_access)

    @property
    def rules(self) -> Rules:
        """What is asked of new versions, as it is now. Raises Damaged."""
        return rules_in(read_document(self.backend, DATASET_JSON))

    def set_rules(self, rules: Rules) -> None:
        """Change what is asked of new versions. BadInput for a name or an expression that is none."""
        self.store.check_writable()
        self.check_itself()
        checked(rules)

        def with_rules(document: dict[str, Any]) -> dict[str, Any]:
            self.check_itself()
            kept = {name: value for name, value in document.items() if name not in (PROTECT, REQUIRE_MESSAGE)}
            return {**kept, **rules.facts()}

        change_document(self.backend, DATASET_JSON, with_rules)

    def __getitem__(self, ref: str | SupportsIndex | None) -> Snapshot:
        if ref is not None and not isinstance(ref, str):
            try:
                ref = operator.index(ref)
            except TypeError:
                raise NotFound(f"{ref!r} is no ref: give a branch, a tag, v12, latest, or a version's number") from None
        return self.snapshot(ref)

    def create_branch(self, name: str, at: str | int | None = None, *, who: str = "") -> None:
        """Make a branch at a version; None means where the default branch stands. Raises AlreadyThere.

        ``who`` is for the log of refs, here and below: "" is the user whose process this is.
        """
        check_ref_name(name)
        self.store.check_writable()
        with self.locked():
            number = self.named_by_file(self.default_branch) or 0 if at is None else self._resolve_now(at)
            self._check_free(name)
            # What an earlier branch of that name left behind is not this branch's.
            delete_tree(self.layout.working(name).root)
            cause = Cause(f"branch made at {self.default_branch if at is None else at}", who)
            self.ledger.set_ref(RefKind.BRANCH, name, self._record(number), None, cause)
            self.mirror_refs()

    def move_branch(self, name: str, to: str | int, *, who: str = "") -> None:
        """Have a branch stand at another version, wherever that lies. One that stands there already stays.

        Busy if the branch has uncommitted changes, ReadOnly if another process writes to it; a mount is asked to do it.
        NotFound if there is no such branch or version.
        """
        self.store.check_writable()
        branch = self.branch(name)
        if branch.actions.move(self.resolve(to), self.read_ref(RefKind.BRANCH, name)):
            return
        with branch.still():
            with self.locked():
                number, before = self._resolve_now(to), self.read_ref(RefKind.BRANCH, name)
                if number != before:
                    self.rules.check_moves(name, not before or self.graph.is_ancestor(before, number))
                    cause = Cause(f"branch -f: moved to {to}", who)
                    self.ledger.set_ref(RefKind.BRANCH, name, self._record(number), before, cause)
                    self.mirror_refs()
            branch.follow()

    def rename_branch(self, name: str, new_name: str, *, who: str = "") -> None:
        """Give a branch another name, with its uncommitted changes; the default branch stays that. One that was renamed
        so already stays.

        Raises NotFound, AlreadyThere; Busy if somebody writes to it. A mount that holds it is asked to do it.
        """
        check_ref_name(new_name)
        self.store.check_writable()
        if name not in self.refs().heads and self._was(new_name, name):
            return
        branch = self.branch(name)
        if name == new_name:
            return
        self.rules.check_moves(name, forward=False)
        if branch.actions.rename(new_name):
            return
        with branch.retiring(force=True), self.locked():
            self._check_free(new_name)
            rename(self, name, new_name, Cause(f"branch -m: renamed from {name}", who))
            self.mirror_refs()
            with self._guard:
                self._branches.pop(name, None)

    def _was(self, name: str, old: str) -> bool:
        """Whether a branch has its name since it was renamed from ``old``."""
        if name not in self.refs().heads:
            return False
        changes = (change for change in self.ledger.ref_log() if isinstance(change, RefChange))
        mine = (change for change in changes if change.kind is RefKind.BRANCH and name == change.name)
        made = next((change for change in mine if change.old is None), None)
        return made is not None and made.was == old

    def create_tag(self, name: str, at: str | int, *, force: bool = False, who: str = "") -> None:
        """Tag a version. Raises AlreadyThere; with ``force`` a tag that is there moves."""
        check_ref_name(name)
        self.store.check_writable()
        with self.locked():
            number = self._resolve_now(at)
            if self.conflicts(number):
                raise NotAllowed(f"v{number} has open conflicts, and cannot be tagged: `volfs resolve` closes them")
            if force and self.ledger.has_ref(RefKind.TAG, name):
                before = self.read_ref(RefKind.TAG, name)
                if number == before:
                    return
                cause = Cause(f"tag -f: moved to {at}", who)
                self.ledger.set_ref(RefKind.TAG, name, self._record(number), before, cause)
            else:
                self._check_free(name)
                self.ledger.set_ref(RefKind.TAG, name, self._record(number), None, Cause(f"tagged {at}", who))
            self.mirror_refs()

    def rename_tag(self, name: str, new_name: str, *, replace: bool = False, who: str = "") -> None:
        """Give a tag another name; with ``replace`` that of a tag which is there, and goes. Raises NotFound,
        AlreadyThere."""
        check_ref_name(new_name)
        self.store.check_writable()
        with self.locked():
            if not self.ledger.has_ref(RefKind.TAG, name):
                raise NotFound(f"dataset {self.name!r} has no tag {name!r}{offered(self.tags())}")
            if name == new_name:
                return
            if replace:
                self.ledger.drop_ref(RefKind.TAG, new_name, Cause(f"tag {name} took its name", who))
            self._check_free(new_name)
            self.ledger.rename_ref(RefKind.TAG, name, new_name, Cause(f"renamed from {name}", who))
            self.mirror_refs()

    def merge(
        self,
        ref: str,
        into: str | None = None,
        *,
        conflicts: Literal["refuse", "ours", "theirs"] = "refuse",
        message: str | None = None,
        squash: bool = False,
    ) -> Combined:
        """Merge the version that a ref expression names into a branch (None: the default branch).

        The answer has the branch's version, and what is in conflict, if ``conflicts`` does not decide all of it: then
        nothing has changed. See :meth:`~volfs.versions.branch.Branch.combine` for all that can be said.
        """
        return self._combine("merge", into, (ref,), conflicts, message, ("--squash",) if squash else ())

    def combine(
        self,
        bases: Sequence[str | int],
        theirs: str | int,
        onto: str | None = None,
        *,
        select: Sequence[str] = (),
        box: str | None = None,
        conflicts: Literal["refuse", "ours", "theirs"] = "refuse",
        message: str | None = None,
    ) -> Combined:
        """Put what a version has changed since others, its bases, onto a branch (None: the default branch).

        ``select``: keys and directories, all if there are none; ``box``: these voxels of their arrays alone. Merge and
        its kin are calls of this with their own bases. ReadOnly while a mount writes to the branch.
        """
        from volfs.versions.combine.combined_version import Change, Words  # late: who only reads needs nothing of it
        from volfs.versions.combine.decisions import Order, Orders
        from volfs.versions.combine.key_selection import Selection, parse_box
        from volfs.versions.combine.merges import combine_onto

        self.store.check_writable()
        numbers, other = tuple(map(self.resolve, bases)), self.resolve(theirs)
        part = None if box is None else parse_box(box)
        if box is not None and part is None:
            raise BadInput(f"{box!r} is no box: write one such as z10-40_y0-64_x128-192")
        change = Change(numbers, other, Selection(tuple(key.strip("/") for key in select), part))
        since = ", ".join(f"v{number}" for number in numbers) or "nothing"
        words = Words(message or f"combine v{other} since {since}")
        orders = Orders.of(() if conflicts == "refuse" else (Order(conflicts),))
        branch = self.branch(onto or self.default_branch)
        with branch.writing():
            return combine_onto(branch, change, words, orders)

    def cherry_pick(
        self,
        ref: str,
        onto: str | None = None,
        *,
        conflicts: Literal["refuse", "ours", "theirs"] = "refuse",
        message: str | None = None,
    ) -> Combined:
        """Make the changes of a version once more, on a branch. See :meth:`merge`."""
        return self._combine("cherry-pick", onto, (ref,), conflicts, message)

    def revert(
        self,
        ref: str,
        on: str | None = None,
        *,
        conflicts: Literal["refuse", "ours", "theirs"] = "refuse",
        message: str | None = None,
    ) -> Combined:
        """Take back the changes of a version, by a new version on a branch. See :meth:`merge`."""
        return self._combine("revert", on, (ref,), conflicts, message)

    def restore(
        self,
        keys: Sequence[str],
        source: str,
        on: str | None = None,
        *,
        box: str | None = None,
        message: str | None = None,
    ) -> Combined:
        """Give keys of a branch the content that they have in another version, by reference."""
        return self._combine("restore", on, keys, "refuse", message, (), (("--from", source), ("--box", box)))

    def _combine(
        self,
        kind: RequestKind,
        branch: str | None,
        positional: Sequence[str],
        conflicts: str,
        message: str | None,
        flags: Sequence[str] = (),
        values: Sequence[tuple[str, str | None]] = (),
    ) -> Combined:
        from volfs.versions.combine.requests import words_of  # late: who only reads needs nothing of it

        side = () if conflicts == "refuse" else (f"--{conflicts}",)
        words = words_of(positional, flags=(*side, *flags), values=(*values, ("--message", message)))
        return self.branch(branch or self.default_branch).combine(kind, words)

    def conflicts(self, number: int) -> tuple[Mapping[str, Any], ...]:
        """What version ``number`` has left open, as its ``version.json`` has it."""
        known = self._conflicts.get(number)
        if known is None:
            several = len(self.info(number).parents) > 1  # others have none, and need not be read
            known = read_version(VersionFiles.of(self.objects, number)).conflicts if several else ()
            self._conflicts[number] = known
        return known

    def knows_conflicts(self, number: int) -> bool:
        """Whether :meth:`conflicts` reads nothing."""
        return number in self._conflicts

    def forget_branch(self, name: str) -> None:
        """Remove a branch that nobody writes to, if there is one, whatever it names."""
        with self.locked():
            if self.ledger.drop_ref(RefKind.BRANCH, name, Cause("branch removed")):
                self.mirror_refs()
        with self._guard:
            self._branches.pop(name, None)

    def forward_branch(self, name: str, number: int, expected: int, why: str) -> None:
        """Have a branch whose lock is held name another version that exists. Conflict unless it names ``expected``."""
        with self.locked():
            self.rules.check_moves(name, not expected or self.graph.is_ancestor(expected, number))
            self.ledger.set_ref(RefKind.BRANCH, name, self._record(number), expected, Cause(why))
            crash_point("combine.forwarded")
            self.mirror_refs()

    def delete_branch(self, name: str, force: bool = False, *, who: str = "") -> None:
        """Remove a branch; its versions stay. Busy if somebody writes to it, or it has changes and not ``force``."""
        self.store.check_writable()
        branch = self.branch(name)
        if name == self.default_branch:
            raise NotAllowed(f"{name!r} is the default branch of dataset {self.name!r}: it cannot be removed")
        self.rules.check_moves(name, forward=False)
        with branch.retiring(force), self.locked():
            cause = Cause("branch removed", who)
            self.store.reserve.freeing(lambda: self.ledger.drop_ref(RefKind.BRANCH, name, cause))
            # After the ref: a crash in between must not leave the branch without what was uncommitted.
            self.store.reserve.freeing(lambda: delete_tree(self.layout.working(name).root))
            self.store.reserve.freeing(self.mirror_refs)
            with self._guard:
                self._branches.pop(name, None)

    def delete_tag(self, name: str, *, who: str = "") -> None:
        """Remove a tag; the version stays."""
        self.store.check_writable()
        with self.locked():
            cause = Cause("tag removed", who)
            if not self.store.reserve.freeing(lambda: self.ledger.drop_ref(RefKind.TAG, name, cause)):
                raise NotFound(f"dataset {self.name!r} has no tag {name!r}{offered(self.tags())}")
            self.store.reserve.freeing(self.mirror_refs)

    def ref_log(self) -> Iterator[RefChange | Damaged]:
        """Every change of a branch or tag, newest first, also of those that are gone; damage where a line cannot be
        read."""
        return self.ledger.ref_log()

    # -- notes --------------------------------------------------------------------------------------------------

    def notes(self, ref: str | int) -> list[Note]:
        """What was said of a version later, oldest first."""
        return Notes(self.backend).read(self.info(self.resolve(ref)).content_id)

    def noted(self) -> frozenset[str]:
        """The content ids of all versions with notes."""
        return Notes(self.backend).noted()

    def add_note(self, ref: str | int, text: str, author: str | None = None) -> None:
        """Say something of a version, which stays what it is. A repeat of the newest note is none."""
        self.store.check_writable()
        self.check_itself()
        content_id, notes, by = self.info(self.resolve(ref)).content_id, Notes(self.backend), author or default_author()
        before = notes.read(content_id)
        if not before or (before[-1].author, before[-1].text) != (by, text):
            notes.add(content_id, [Note(time.time_ns(), by, text)])

    def delete_notes(self, ref: str | int) -> None:
        """Remove all notes on a version. That there are none is fine."""
        self.store.check_writable()
        self.check_itself()
        Notes(self.backend).remove(self.info(self.resolve(ref)).content_id)

    def _check_free(self, name: str) -> None:
        for kind in RefKind:
            if self.ledger.has_ref(kind, name):
                self.check_ref(name)
                raise AlreadyThere(f"dataset {self.name!r} has a {kind.word} {name!r} already")

    # -- for the rest of this room ------------------------------------------------------------------------------

    @contextmanager
    def locked(self, patience: float | None = None, *, progress: Progress | None = None) -> Iterator[None]:
        """Hold the dataset's lock: for moments, while a number is reserved, a version published or a ref changed.

        Whoever takes it first catches up with what others did (:mod:`volfs.versions.commit.mirror`), and then decides
        by the ref files. Busy if others keep it for ``patience`` seconds.
        """
        self.check_itself()
        with self.ledger.locked(_LOCK_PATIENCE if patience is None else patience) as now_ns:
            self.check_itself()
            self._catch_up(self.ledger.stamp(), now_ns, progress)
            yield

    def check_itself(self) -> None:
        """Raise NotFound if the dataset was removed, or if another has its name by now.

        With a lock of the dataset or of a branch held, it stays what it is.
        """
        try:
            file = DatasetFile.read(self.backend, self.name)
        except Damaged:
            return  # whoever needs what it says is told
        except NotFound:
            self.gone = True
            raise NotFound(f"dataset {self.name!r} was removed") from None
        if not file.is_of(self._row.created_ns, self._row.uuid):
            self.gone = True
            raise NotFound(f"dataset {self.name!r} was removed, and another one has its name now")

    def look_around(self) -> None:
        """Catch up with the changes of other processes, if there are any. Busy while another process makes one."""
        stamp = self.ledger.stamp()
        if self._caught == stamp:
            return
        if self.store.read_only:
            self._caught = None
            now_ns = time.time_ns() - _CLOCKS_APART_NS
            self.store.follow(self)
            self._caught = stamp if stamp.settled(now_ns) else None
            return
        with self.locked(patience=0):
            pass

    def named_by_file(self, branch: str) -> int | None:
        """The version that a branch's own file names, 0 for none; None if there is no such branch. Raises Damaged."""
        try:
            return self.read_ref(RefKind.BRANCH, branch)
        except NotFound:
            return None

    def keep_up(self, branch: str) -> None:
        """Catch up if the catalog has another head for a branch than its file, whose lock the caller holds.

        NotFound if there is no such branch, or no more.
        """
        self.check_itself()
        head = self.named_by_file(branch)
        if head is None or head != self.refs().heads.get(branch):
            with self.locked():
                pass
            if head is None:
                raise NotFound(f"branch {branch!r} of dataset {self.name!r} was removed")

    def _catch_up(self, stamp: Stamp, now_ns: int, progress: Progress | None) -> None:
        settled = stamp.settled(now_ns)
        if settled and stamp == self._caught:
            return
        self._caught = None
        try:
            settle_renames(self)
            catch_up(self, progress)
        except VolfsError as error:  # what is decided under the lock goes by the files
            self.tell_once(f"the catalog cannot take over what other processes did: {error}")
        else:
            self._caught = stamp if settled else None

    def _came(self, branch: str) -> bool:
        """Whether a branch that the catalog does not know was made by others."""
        if self.store.read_only or not self.ledger.has_ref(RefKind.BRANCH, branch):
            return False
        with self.locked():
            return branch in self.refs().heads

    def next_number(self) -> int:
        """The number after the newest version that the catalog knows."""
        return self.graph.highest + 1

    def index(self, stored: StoredVersion, manifest: Manifest, heads: Mapping[str, int] | None = None) -> VersionInfo:
        """Make the catalog know a version, in one transaction with its mirror of the refs given. Idempotent."""
        shapes = {path: NodeShape(array.block_shape) for path, array in stored.arrays.items()}
        refs = {RefKind.BRANCH: dict(heads or {})}
        return self.catalog.index_version(self.id, stored.info, manifest, shapes, refs)

    def index_stored(self, number: int) -> VersionInfo:
        """Make the catalog know a version that lies on disk, and where its branch stands. Idempotent."""
        files = VersionFiles.of(self.objects, number)
        info = self.index(read_version(files), read_manifest(files))
        self.mirror_refs()
        return info

    def ref_files(self) -> Refs:
        """Branches and tags as their files say: the truth that the catalog mirrors.

        One that is damaged is left out and logged: :meth:`check_ref` says why, and it harms no other.
        """
        found: dict[RefKind, dict[str, int]] = {kind: {} for kind in RefKind}
        for kind, refs in found.items():
            for name in self.ledger.names(kind):
                try:
                    refs[name] = self.read_ref(kind, name)
                except NotFound:
                    continue  # removed meanwhile
                except Damaged as error:
                    self.tell_once(str(error))
        return Refs(found)

    def read_ref(self, kind: RefKind, name: str) -> int:
        """The version that a ref names, proved by its content id. Raises NotFound, or Damaged."""

        def where() -> str:
            return self.ledger.where(kind, name)

        if not kind.takes(name) and self.ledger.has_ref(kind, name):
            raise Damaged(f"{printable(where())} has a name that no ref can have: rename or remove it")
        ref = self.ledger.ref(kind, name)
        if not ref.version and not kind.may_be_empty:
            raise Damaged(f"{where()} names no version; {how_to_mend(where())}")
        if not ref.version and not ref.sealed and self.newest_on(name):
            raise Damaged(
                f"{where()} names no version, though there are versions made on this branch; {how_to_mend(where())}"
            )
        if ref.version:
            try:
                there = self._content_id(ref.version)
            except NotFound:
                raise Damaged(f"{where()} names v{ref.version}, which is not there; {how_to_mend(where())}") from None
            if ref.content_id not in (None, there):
                raise Damaged(
                    f"{where()} names v{ref.version} by the content id {str(ref.content_id)[:12]}…, but v{ref.version}"
                    f" is {there[:12]}…; {how_to_mend(where())}"
                )
        return ref.version

    def check_ref(self, name: str) -> None:
        """Raise Damaged if there is a branch or a tag of this name whose file cannot be read: the catalog does not know
        such a one."""
        for kind in RefKind:
            if kind.takes(name):
                with suppress(NotFound):
                    self.read_ref(kind, name)

    def seal_refs(self) -> None:
        """Give refs that an older volfs or a person wrote a checksum and their versions' content ids. Call with the
        dataset's lock held."""
        for kind in RefKind:
            for name in self.ledger.names(kind):
                with suppress(NotFound, Damaged):
                    if not self.ledger.ref(kind, name).sealed:
                        number = self.read_ref(kind, name)
                        self.ledger.set_ref(kind, name, self._record(number), number)

    def newest_on(self, branch: str) -> int:
        """The newest version whose ``version.json`` names the branch; 0 if there is none."""
        for number in reversed(self.ledger.versions()):
            with suppress(VolfsError):
                if read_version(VersionFiles.of(self.objects, number)).branch == branch:
                    return number
        return 0

    def _content_id(self, number: int) -> str:
        """The content id of a version, which the catalog may not know yet. "" for the empty version 0."""
        if number == 0:
            return ""
        known = self.graph.versions.get(number)
        return (known or read_version(VersionFiles.of(self.objects, number)).info).content_id

    def _record(self, number: int) -> RefRecord:
        return RefRecord(number, self._content_id(number) or None)

    def tell_once(self, defect: str) -> None:
        """Log, once, a defect that keeps the catalog from knowing all of the dataset."""
        if defect not in self._told:
            self._told.add(defect)
            log.error("dataset %s: %s", self.name, defect)

    def mirror_refs(self) -> None:
        """Make the catalog's mirror equal the ref files. Call with the dataset's lock held."""
        self.catalog.set_refs(self.id, self.ref_files().named)

    def open_branches(self) -> list[Branch]:
        """Branches handed out so far."""
        with self._guard:
            return list(self._branches.values())

    def close(self) -> None:
        """Release the branches held, close files."""
        with self._guard:
            branches = list(self._branches.values())
            self._branches.clear()
            self._versions.clear()
        for branch in branches:
            branch.close()
        self.reader.close()


def _reopened(opening: Opening, name: str, uuid: str) -> Dataset:
    """The dataset of a pickle. NotFound if another has its name by now."""
    dataset: Dataset = opening.store()[name]
    if dataset._row.uuid != uuid:
        raise NotFound(f"dataset {name!r} is another one now than the one that was pickled")
    return dataset


def check_unused(dataset: Dataset) -> None:
    """Raise Busy if a process (this one too) holds a branch of the dataset for writing."""
    workings = dataset.layout.workings
    for name in sorted(os.listdir(workings)) if workings.is_dir() else ():
        working = dataset.layout.working(name)
        lock = FileLock(working.lock)
        held = lock.path.parent.is_dir() and lock.locked_by_other()
        if held or elsewhere(working, dataset.store.dead_after) is not None:
            owner = lock.owner() or {}
            who = owner.get("mountpoint") or f"process {owner.get('pid', '?')}"
            raise Busy(f"branch {name!r} of dataset {dataset.name!r} is being written by {who}: stop it first")
