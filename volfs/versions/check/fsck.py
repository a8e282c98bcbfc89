"""Checking a store: everything is read, summed and decoded, and compared with everything that says what it should be.

Decided here: what must hold between versions, refs, the catalog and working copies, and the report. What must hold
inside one version is in :mod:`volfs.versions.check.proof`. Nothing is changed, except by ``rebuild_catalog``, which
first makes the index anew from the store's own files (:mod:`volfs.versions.commit.recover`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from volfs.catalog import MEND, Entry
from volfs.errors import Damaged, NotFound, VolfsError
from volfs.model.box import Index
from volfs.model.display import printable
from volfs.model.grid import split
from volfs.model.refs import RefKind
from volfs.storage.backend import read_document
from volfs.storage.files import FileLock
from volfs.storage.manifest import Manifest, Op, Record
from volfs.storage.payload import Payload
from volfs.storage.store_layout import DATASET_JSON, RECLAIM_JSON, parse_version_dir
from volfs.storage.trash import TRASH
from volfs.versions.access import access_in
from volfs.versions.check.proof import Finding, Proof
from volfs.versions.commit.recover import rebuild_catalog
from volfs.versions.committed.absences import Where, read_codes
from volfs.versions.committed.version import Version
from volfs.versions.committed.version_files import StoredVersion, VersionFiles, read_manifest, read_version
from volfs.versions.keys import covers, node_key
from volfs.versions.retention.reclamation import intended

if TYPE_CHECKING:
    from volfs.versions.dataset import Dataset
    from volfs.versions.store import Store

__all__ = ["Finding", "Report", "fsck", "rebuild_catalog"]

Progress = Callable[[int, int, str], object]


@dataclass(slots=True)
class Report:
    """The number of versions and payloads checked, and the findings. ``absent``: payloads that are known and not here,
    which is nothing wrong."""

    findings: list[Finding] = field(default_factory=list)
    datasets: int = 0
    versions: int = 0
    payloads: int = 0
    bytes: int = 0
    absent: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def fsck(
    store: Store,
    *,
    datasets: Iterable[str] | None = None,
    rebuild_catalog: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Check datasets (None: all). ``progress`` is called with (bytes read, bytes in all, dataset)."""
    if rebuild_catalog:
        _rebuild(store, progress)
    with ExitStack() as stack:
        # Who reads a store by another catalog still wants to know what is wrong with the store's own.
        if (own := store.by_own_catalog()) is not None:
            store = stack.enter_context(own)
        return _fsck(store, datasets, progress)


def _fsck(store: Store, datasets: Iterable[str] | None, progress: Progress | None) -> Report:
    report = Report()
    if datasets is None:
        report.findings += guarded("", "catalog.sqlite", _catalog(store))
        report.findings += _unknown_datasets(store)
    try:
        names = store.datasets()
    except VolfsError:  # told already
        names = []
    for name in names if datasets is None else datasets:
        report.datasets += 1
        if name in names:
            report.findings += guarded(name, f"datasets/{name}", _dataset(store, name, report, progress))
        else:
            _Check(store[name], report, progress)
    return report


def _catalog(store: Store) -> Iterator[Finding]:
    for what in store.catalog.check():
        yield Finding("", "catalog.sqlite", f"{what}; {MEND}")
    store.catalog.dataset_rows()


def _dataset(store: Store, name: str, report: Report, progress: Progress | None) -> Iterator[Finding]:
    try:
        dataset = store[name]
    except Damaged as error:
        yield Finding(name, f"datasets/{name}", printable(str(error)))
        return
    yield from _Check(dataset, report, progress).run()


def guarded(dataset: str, where: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings, and one more for an error that ends them early: data that cannot be checked is wrong."""
    try:
        yield from findings
    except Exception as error:
        what = str(error) if isinstance(error, VolfsError) else f"{type(error).__name__}: {error}"
        yield Finding(dataset, where, printable(f"cannot be checked further: {what}"))


# The parameter of fsck has the name of the function: the CLI's option is called so.
_rebuild = rebuild_catalog
_MODED = (Op.PUT, Op.TAKE, Op.DIRECTORY)


def _unknown_datasets(store: Store) -> Iterator[Finding]:
    try:
        known = store.catalog.datasets().keys() | store.broken.keys()
    except VolfsError:
        return
    for each in store.inventory.names():
        if each not in known:
            name = printable(each)
            yield Finding(
                name, f"datasets/{name}", "is no dataset: if nobody is making one of this name now, move it away"
            )


class _Check:
    """The check of one dataset."""

    def __init__(self, dataset: Dataset, report: Report, progress: Progress | None) -> None:
        self._dataset = dataset
        self._report = report
        self._progress = progress
        self._numbers = dataset.ledger.versions()
        self._done = 0
        self._total = 0

    def run(self) -> Iterator[Finding]:
        """All findings, part after part. An error that ends one part early harms no other."""
        for part in (self._dataset_file, self._strays, self._refs, self._ref_log, self._working, self._contents):
            yield from guarded(self._dataset.name, part.__name__.strip("_").replace("_", " "), part())

    def _contents(self) -> Iterator[Finding]:
        self._total = sum(self._size(number) for number in self._numbers)
        identities: dict[int, str] = {}
        proven: dict[int, tuple[StoredVersion, Manifest]] = {}
        for number in self._numbers:
            proof = Proof(self._dataset, number, identities, self._count)
            yield from guarded(self._dataset.name, f"v{number}", proof.findings())
            self._report.versions += 1
            if proof.stored is not None:
                identities[number] = proof.stored.info.content_id
            if proof.manifest is not None:
                self._report.absent += proof.absent
                self._report.payloads += int(np.count_nonzero(proof.manifest.records["op"] == Op.PUT)) - proof.absent
                if proof.stored is not None:
                    proven[number] = proof.stored, proof.manifest
                    yield from guarded(self._dataset.name, f"v{number}", self._taken(proof))
                    indexed = self._indexed(proof, proof.stored, proof.manifest)
                    yield from guarded(self._dataset.name, f"v{number}", indexed)
        yield from self._catalog_versions()
        yield from self._listed(proven)

    def _finding(self, where: str, what: str) -> Finding:
        return Finding(self._dataset.name, printable(where), printable(what))

    def _size(self, number: int) -> int:
        try:
            return read_version(VersionFiles.of(self._dataset.objects, number)).counts.bytes
        except VolfsError:
            return 0

    def _count(self, size: int) -> None:
        self._done += size
        self._report.bytes += size
        if self._progress is not None:
            self._progress(self._done, max(self._total, self._done), self._dataset.name)

    # -- around the versions ------------------------------------------------------------------------------------

    def _dataset_file(self) -> Iterator[Finding]:
        try:
            doc = read_document(self._dataset.backend, DATASET_JSON)
        except (NotFound, Damaged) as error:
            yield self._finding("dataset.json", str(error))
            return
        if doc.get("name") != self._dataset.name:
            yield self._finding("dataset.json", f"says the dataset is called {doc.get('name')!r}")
        try:
            access_in(doc)
        except Damaged as error:
            yield self._finding("dataset.json", str(error))
        if doc.get("default_branch") not in self._dataset.branches():
            yield self._finding("dataset.json", f"the default branch {doc.get('default_branch')!r} does not exist")

    def _strays(self) -> Iterator[Finding]:
        if intended(self._dataset.backend) is not None and not FileLock(self._dataset.layout.gc_lock).locked_by_other():
            what = (
                "bytes of dropped versions were going when the process died: opening the store for writing finishes it"
            )
            yield self._finding(RECLAIM_JSON, what)
        for where, what in self._dataset.ledger.strays():
            if not self._is_payload(where):
                yield self._finding(where, what)

    def _is_payload(self, where: str) -> bool:
        """Whether a file is that of a side file, which may be called as if it were half written."""
        folder, *name = where.removeprefix("versions/").split("/", 1)
        number = parse_version_dir(folder) if name else None
        if number is None:
            return False
        with suppress(VolfsError):
            return f"{folder}/{name[0]}" in read_manifest(VersionFiles.of(self._dataset.objects, number)).strings
        return False

    def _refs(self) -> Iterator[Finding]:
        mirrored = self._dataset.store.catalog.refs(self._dataset.id)
        there = set(self._numbers)
        for kind in RefKind:
            names, known = self._dataset.ledger.names(kind), mirrored[kind]
            for name in names:
                where = f"refs/{kind.folder}/{name}.json"
                try:
                    number = self._dataset.read_ref(kind, name)
                except VolfsError as error:
                    newest = self._dataset.newest_on(name) if kind is RefKind.BRANCH else 0
                    hint = f": the newest version made on {name!r} is v{newest}" if newest else ""
                    yield self._finding(where, f"{error}{hint}")
                    continue
                if number not in there and not (number == 0 and kind.may_be_empty):
                    yield self._finding(where, f"names v{number}, which is not there")
                if known.get(name) != number:
                    said = f"v{known[name]}" if name in known else "nothing"
                    yield self._finding(where, f"names v{number}, but the catalog says {said}")
            for name in sorted(known.keys() - set(names)):
                yield self._finding(f"refs/{kind.folder}/{name}.json", "is missing, but the catalog knows the ref")

    def _ref_log(self) -> Iterator[Finding]:
        for line in self._dataset.ledger.ref_log():
            if isinstance(line, Damaged):  # the other lines are none the worse for it
                yield self._finding("refs/log.jsonl", str(line))

    def _working(self) -> Iterator[Finding]:
        layout = self._dataset.layout
        heads = self._dataset.branches()
        for folder in sorted(layout.workings.iterdir()) if layout.workings.is_dir() else ():
            if folder.name not in heads and not folder.name.endswith(TRASH):
                yield self._finding(f"working/{folder.name}", "is the working copy of no branch")
                continue
            intent, lock = layout.working(folder.name).commit_intent, FileLock(layout.working(folder.name).lock)
            if intent.exists() and not lock.locked_by_other():
                yield self._finding(f"working/{folder.name}", "a commit was under way when its process died")
            if layout.working(folder.name).rename_intent.exists() and not lock.locked_by_other():
                yield self._finding(f"working/{folder.name}", "it was being renamed when its process died")
            try:
                if folder.name in heads:
                    self._dataset.branch(folder.name).base_version()
            except (Damaged, NotFound) as error:
                yield self._finding(f"working/{folder.name}/base.json", str(error))

    def _taken(self, proof: Proof) -> Iterator[Finding]:
        """Payloads that a merge took from another version and that are not there."""
        assert proof.manifest is not None
        owners: dict[int, tuple[set[Payload], set[Payload]]] = {}
        kept = proof.number not in self._dataset.dropped()
        for record in proof.manifest:
            if record.op != Op.TAKE or record.payload is None:
                continue
            if record.owner not in owners:
                owners[record.owner] = self._payloads_of(record.owner)
            there, dropped = owners[record.owner]
            if record.payload not in there:
                what = f"is taken from v{record.owner}, which has no such payload"
                yield proof.finding(what, key=record.name, payload=record.payload)
            elif kept and record.payload in dropped:
                what = f"is taken from v{record.owner}, with which it went"
                yield proof.finding(what, key=record.name, payload=record.payload)

    def _payloads_of(self, number: int) -> tuple[set[Payload], set[Payload]]:
        """All payloads that a version records, and those of them that went because it was dropped."""
        files = VersionFiles.of(self._dataset.objects, number)
        try:
            manifest = read_manifest(files)
            codes = read_codes(files, manifest)
        except VolfsError:
            return set(), set()
        dropped = np.flatnonzero(codes == Where.DROPPED).tolist()
        return {one.payload for one in manifest if one.payload is not None}, set(map(manifest.payload, dropped))

    # -- the catalog against the files --------------------------------------------------------------------------

    def _catalog_versions(self) -> Iterator[Finding]:
        for number in sorted(self._dataset.graph.versions.keys() - set(self._numbers)):
            yield self._finding(f"v{number}", "is in the catalog, but its directory is not there")

    def _indexed(self, proof: Proof, stored: StoredVersion, manifest: Manifest) -> Iterator[Finding]:
        """Differences between the catalog, at this version, and the version's manifest."""
        if proof.number not in self._dataset.graph:
            yield proof.finding("is not in the catalog: opening the store for writing, or --rebuild-catalog, mends it")
            return
        known, info = self._dataset.info(proof.number), stored.info
        for name in ("parents", "time_ns", "author", "message", "content_id"):
            if getattr(known, name) != getattr(info, name):
                yield proof.finding(f"the catalog has another {name}", key="version.json")
        try:
            version = self._dataset.version(proof.number)
            yield from self._indexed_keys(proof, version, manifest)
            yield from self._indexed_chunks(proof, version, manifest)
        except VolfsError as error:
            yield proof.finding(f"the catalog cannot be read here: {error}")

    def _indexed_keys(self, proof: Proof, version: Version, manifest: Manifest) -> Iterator[Finding]:
        for i in np.flatnonzero(manifest.records["ndim"] == 0).tolist():
            record = manifest.record(i)
            entry = version.catalog.entry(self._dataset.id, version.at, record.name)
            if record.payload is not None and (entry is None or entry.payload != record.payload):
                yield proof.finding("the catalog has other bytes for this key", key=record.name, payload=record.payload)
            elif entry is not None and record.op in _MODED and _kept(entry) != _kept(record):
                yield proof.finding("the catalog has another mode or time for this key", key=record.name)
            elif record.op == Op.REMOVE and entry is not None and entry.kind == "object":
                yield proof.finding("was removed, but the catalog has it", key=record.name)

    def _indexed_chunks(self, proof: Proof, version: Version, manifest: Manifest) -> Iterator[Finding]:
        for path, rows in manifest.chunks():
            array = version.array(path)
            records = manifest.records[rows]
            if array is None:
                if (records["op"] != Op.REMOVE).any():
                    yield proof.finding("the catalog has no such array", key=node_key(path))
                continue
            parent = version.dataset.graph.at(version.info.parents[0] if version.info.parents else 0)
            listed = {
                (change.block, int(cell))
                for change in version.catalog.changes(array.node, version.at, parent if parent.position else None)
                for cell in change.cells
                if change.version == version.number
            }
            coords_of = records["chunk"][:, : array.meta.ndim]
            # Block by block, so that each is resolved once and then let go of.
            order = np.lexsort((coords_of // np.array(array.block_shape)).T)
            at: Index | None = None
            for i, coords in zip(rows[order].tolist(), coords_of[order].tolist(), strict=True):
                where = split(coords, array.block_shape)
                key = node_key(path, array.meta.chunk_key(coords))
                payload = manifest.payload(i) if manifest.records["op"][i] != Op.REMOVE else None
                if where[0] != at:
                    at, found = where[0], version.catalog.block_map(array.node, version.at, where[0])
                indexed = found.payload(where[1]) if found.owner[where[1]] else None
                if indexed != payload or (where not in listed and payload is not None):
                    yield proof.finding("the catalog has other bytes for this chunk", key=key, payload=payload)
                listed.discard(where)
            for block, cell in sorted(listed):
                what = f"the catalog has a change of chunk {cell} of block {block} that the manifest has not"
                yield proof.finding(what, key=node_key(path))

    def _listed(self, proven: dict[int, tuple[StoredVersion, Manifest]]) -> Iterator[Finding]:
        """Differences between the keys that the catalog lists at each ref and those that all manifests up to there
        leave."""
        refs = self._dataset.refs().named.values()
        for number in sorted({number for named in refs for number in named.values()} - {0}):
            if number not in self._dataset.graph:
                continue
            chain = list(self._dataset.graph.first_parents(number))
            if not all(ancestor in proven for ancestor in chain):
                continue
            expected = _replay(proven[ancestor][1] for ancestor in reversed(chain))
            version = self._dataset.version(number)
            listed = set(_walk(version, self._dataset.id))
            for key in sorted(expected - listed):
                yield self._finding(f"v{number} {key}", "is committed, but the catalog does not list it")
            for key in sorted(listed - expected):
                yield self._finding(f"v{number} {key}", "is listed by the catalog, but was never committed")


def _kept(of: Entry | Record) -> tuple[int, int]:
    return of.mode, of.mtime_ns


def _replay(manifests: Iterable[Manifest]) -> set[str]:
    """The whole keys that are left after versions, oldest first. Chunks of understood arrays are not among them."""
    keys: set[str] = set()
    for manifest in manifests:
        rows = np.flatnonzero(manifest.records["ndim"] == 0).tolist()
        ops = manifest.records["op"]
        names = [(int(ops[i]), manifest.strings[manifest.records["name"][i]]) for i in rows]
        gone = [name for op, name in names if op == Op.REMOVE_SUBTREE]
        if gone:
            keys = {key for key in keys if not any(covers(name, key) for name in gone)}
        keys -= {name for op, name in names if op == Op.REMOVE}
        put = {name for op, name in names if op in (Op.PUT, Op.TAKE)}
        # A key put where a directory was replaces it, and the other way round.
        keys = {key for key in keys if not _replaced(key, put)} | put
    return keys


def _replaced(key: str, put: set[str]) -> bool:
    above = key
    while "/" in above:
        above = above.rpartition("/")[0]
        if above in put:
            return True
    return False


def _walk(version: Version, dataset: int, folder: str = "") -> Iterator[str]:
    """The keys of the catalog's entries at a version."""
    entry = version.catalog.entry(dataset, version.at, folder)
    if entry is None:
        return
    for name, child in version.catalog.list_entries(dataset, version.at, entry.dir_id):
        key = f"{folder}/{name}" if folder else name
        if child.kind == "dir":
            yield from _walk(version, dataset, key)
        else:
            yield key
