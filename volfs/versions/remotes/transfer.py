"""Versions come from another store into a dataset: parents first, each wholly or not at all.

Decided here: the order of things, what is asked for in one question, and when a version that has arrived gets its
number and its place. Not here: which refs move afterwards (:mod:`volfs.versions.remotes.exchange`).

1. what is missing is found out (:mod:`volfs.versions.remotes.missing_versions`);
2. ``version.json`` and manifest of the next versions are told;
3. their files come into ``incoming/CONTENT_ID/``, proved as they come (:mod:`volfs.versions.remotes.arrival`);
4. under the dataset's lock each gets the next number, the parts that hold numbers are written, and the directory is
   renamed into its place: **the version exists**, though no ref names it; the catalog indexes it.

A process that dies at any moment leaves whole versions, and files in ``incoming/`` that the next attempt goes on with.
``incoming/lock`` is held meanwhile: one process receives for a dataset at a time, and whoever removes what no ref names
waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from itertools import islice

import numpy as np

from volfs.errors import Damaged, NotFound
from volfs.storage.claim import Claim, store_clock
from volfs.storage.crash import crash_point
from volfs.storage.files import FileLock, fsync_tree, make_dirs, no_space
from volfs.storage.manifest import Op
from volfs.storage.trash import delete_tree, empty_trash
from volfs.versions.author import default_author
from volfs.versions.commit.writable_history import WritableHistory
from volfs.versions.committed.absences import Where, may_be_taken
from volfs.versions.ledger import Retirement
from volfs.versions.remotes.arrival import Arrival, FileProof
from volfs.versions.remotes.local_form import LocalForm, taken_name
from volfs.versions.remotes.missing_versions import missing_versions
from volfs.versions.remotes.questions import MOST_IDS, Ancestor, Peer, WantedFile, WantedPayload

Progress = Callable[[int, int, str], object]
"""Called with the bytes that have come, the number of bytes that are to come as far as is known, and what comes."""

_PATIENCE = 60.0
_BATCH_VERSIONS = 64
_BATCH_BYTES = 32 << 20
"""Bytes of manifests that are held at once, unless one alone is larger."""
_KEPT_SECONDS = 14 * 86400.0
"""How long what has arrived of a version that nobody asked for again is kept."""


@contextmanager
def receiving(dataset: WritableHistory) -> Iterator[None]:
    """Be the only process that receives versions for a dataset. Busy if another one does."""
    dataset.store.check_writable()
    with no_space("receiving versions"):
        make_dirs(dataset.layout.incoming)
        dataset.layout.incoming.chmod(0o700)
    lock = FileLock(dataset.layout.incoming / "lock")
    lock.lock(Claim.mine().facts(), timeout=_PATIENCE)
    try:
        yield
    finally:
        lock.release()


class Payloads(Enum):
    """Which payloads come with versions that are received."""

    THEIRS = "those that are there: what is absent there is absent here"
    NONE = "none but metadata: others are brought in when all versions are there"
    ALL = "all; what was left out there, and is lacking here, is refused"


def receive(
    dataset: WritableHistory,
    peer: Peer,
    want: Sequence[str],
    count: Transferred,
    payloads: Payloads = Payloads.THEIRS,
) -> int:
    """Have the versions of these content ids, with all that they descend from, exist in the dataset. How many came.

    Called in :func:`receiving`. Damaged if the other end's are not what they say; what came before is kept.
    """
    numbers = {info.content_id: info.number for info in dataset.graph.versions.values()}
    missing = missing_versions(peer, want, numbers, newest(dataset))
    at = 0
    while at < len(missing):
        batch = _batch(missing, at)
        coming = numbers.keys() | {each.id for each in missing[: at + len(batch)]}
        _receive_batch(dataset, peer, batch, coming, numbers, count, payloads)
        at += len(batch)
    _sweep(dataset)
    return len(missing)


def newest(dataset: WritableHistory) -> list[str]:
    """Content ids of what refs name, newest first: what another store may know too."""
    graph = dataset.graph
    named = {number for refs in dataset.refs().named.values() for number in refs.values() if number in graph}
    return [graph.info(number).content_id for number in sorted(named, reverse=True)][:MOST_IDS]


# -- one batch --------------------------------------------------------------------------------------------------------


def _batch(missing: Sequence[Ancestor], at: int) -> Sequence[Ancestor]:
    size = 0
    for end in range(at, min(at + _BATCH_VERSIONS, len(missing))):
        size += missing[end].manifest
        if size > _BATCH_BYTES and end > at:
            return missing[at:end]
    return missing[at : at + _BATCH_VERSIONS]


def _receive_batch(
    dataset: WritableHistory,
    peer: Peer,
    batch: Sequence[Ancestor],
    coming: Collection[str],
    numbers: dict[str, int],
    count: Transferred,
    payloads: Payloads,
) -> None:
    arrivals = []
    for expected, told in zip(batch, peer.versions(batch), strict=True):
        arrival = Arrival.begin(told, expected, dataset.layout.incoming, peer.frames.other)
        takes = np.flatnonzero(arrival.manifest.records["op"] == Op.TAKE).tolist()
        gone = dataset.dropped()
        arrival.taken.extend(
            row for row in takes if (owner := arrival.owner(row)) not in coming or numbers.get(owner, 0) in gone
        )
        if payloads is Payloads.NONE:
            arrival.leave_out()
        elif payloads is Payloads.ALL:
            arrival.check_whole()
        arrivals.append(arrival)
    count.expect(sum(proof.size for arrival in arrivals for _, proof in arrival.proofs()))
    _receive_files(peer, arrivals, count)
    for arrival in arrivals:
        _receive_holed(peer, arrival, count)
        _receive_taken(peer, arrival, count)
        if payloads is Payloads.ALL:
            arrival.check_whole()
    for arrival in arrivals:
        arrival.begin_folder()
        with no_space("writing a version to disk"):
            fsync_tree(arrival.root)
    crash_point("receive.arrived")
    with dataset.locked(patience=_PATIENCE):
        numbers.update((info.content_id, info.number) for info in dataset.graph.versions.values())
        for arrival in arrivals:
            _settle(dataset, arrival, numbers)


def _receive_files(peer: Peer, arrivals: Sequence[Arrival], count: Transferred) -> None:
    """Have all files of some versions arrive: those that an earlier attempt has not left whole."""

    def wanted() -> Iterator[tuple[Arrival, str, FileProof]]:
        for arrival in arrivals:
            arrival.begin_folder()
            for name, proof in arrival.proofs():
                arrival.resume(name, proof)
                count(proof.done)
                if proof.done < proof.size or not arrival.path(name).exists():
                    yield arrival, name, proof

    ahead = wanted()
    while some := list(islice(ahead, MOST_IDS // 4)):
        asked = [WantedFile(arrival.id, name, proof.done) for arrival, name, proof in some]
        for (arrival, name, proof), (size, data) in zip(some, peer.files(asked), strict=True):
            arrival.receive(name, proof, size, data, count)


def _receive_holed(peer: Peer, arrival: Arrival, count: Transferred) -> None:
    """Have the payloads arrive of files in which others are absent."""
    for name in arrival.sizes:
        lacking = arrival.lacks(name)
        for start in range(0, len(lacking), MOST_IDS):
            some = lacking[start : start + MOST_IDS]
            answers = peer.payloads([WantedPayload(arrival.id, each.sha256) for each in some])
            for segment, answer in zip(some, answers, strict=True):
                if answer is None:
                    raise Damaged(
                        f"{peer.frames.other} lacks a payload of version {arrival.id[:12]}…, and does not say so"
                    )
                arrival.receive_into(name, segment, answer[1], count)
        arrival.close_file(name)


def _receive_taken(peer: Peer, arrival: Arrival, count: Transferred) -> None:
    """Have the payloads arrive that the version takes from versions which are not here."""
    records = arrival.manifest.records
    coming = [row for row in arrival.taken if arrival.codes[row] == Where.HERE]
    by_sum = {bytes(records["sha256"][row].item()): row for row in coming}
    # As a version's own it may be absent like any other.
    able = may_be_taken(arrival.manifest)
    wanted = [sha for sha in by_sum if not _is_whole(arrival, by_sum[sha])]
    for start in range(0, len(wanted), MOST_IDS):
        some = wanted[start : start + MOST_IDS]
        answers = peer.payloads([WantedPayload(arrival.id, sha) for sha in some])
        for sha, answer in zip(some, answers, strict=True):
            if answer is None:
                rows = [row for row in arrival.taken if bytes(records["sha256"][row].item()) == sha]
                if not able[rows].all():
                    raise Damaged(f"{peer.frames.other} does not have what version {arrival.id[:12]}… takes")
                arrival.codes[rows] = Where.LEFT_OUT
                continue
            name, proof = taken_name(sha), arrival.proof_of(by_sum[sha])
            arrival.receive(name, proof, answer[0], answer[1], count)


def _is_whole(arrival: Arrival, row: int) -> bool:
    proof = arrival.proof_of(row)
    name = taken_name(bytes(arrival.manifest.records["sha256"][row].item()))
    arrival.resume(name, proof)
    if 0 < proof.done < proof.size:
        arrival.path(name).unlink()
    return proof.done == proof.size and arrival.path(name).exists()


def _settle(dataset: WritableHistory, arrival: Arrival, numbers: dict[str, int]) -> None:
    """Give a version that has arrived its number and its place. With the dataset's lock."""
    known = numbers.get(arrival.id)
    if known is not None:  # it came here meanwhile, by another way
        arrival.drop()
        return
    number = dataset.ledger.free_number(dataset.next_number())
    try:
        form = LocalForm(dataset, arrival, number, numbers)
    except (Damaged, NotFound):
        arrival.drop()
        raise
    with no_space("writing a version to disk"):
        form.write()
        fsync_tree(arrival.root)
    crash_point("receive.written")
    dataset.ledger.adopt(number, arrival.root)
    crash_point("receive.adopted")
    dataset.index(form.stored, form.manifest)
    numbers[arrival.id] = number
    if arrival.retired:
        retirement = Retirement(store_clock(dataset.layout.lock), default_author(), "dropped where it came from")
        dataset.ledger.retire({number: arrival.id}, retirement, lambda at, total: None)
        dataset.catalog.set_retired(dataset.id, dataset.ledger.retired())
    crash_point("receive.indexed")


def _sweep(dataset: WritableHistory) -> None:
    """Remove what arrived of versions that are here by now, and what nobody has asked for again."""
    here = {info.content_id for info in dataset.graph.versions.values()}
    empty_trash(dataset.layout.incoming)
    for folder in dataset.layout.incoming.iterdir():
        with suppress(OSError):
            old = time.time() - folder.stat().st_mtime > _KEPT_SECONDS
            if folder.is_dir() and (folder.name in here or old):
                delete_tree(folder)


class Transferred:
    """The bytes that have come, for whoever watches."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done = 0
        self._total = 0

    def expect(self, size: int) -> None:
        self._total += size

    def __call__(self, size: int) -> None:
        self._done += size
        self._progress(self._done, max(self._total, self._done), "")
