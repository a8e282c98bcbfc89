"""Dropping versions, and collecting what is not needed: both steps over one dataset.

Decided here: which versions are dropped, when their bytes go, and what of it is done under the dataset's lock. Not
here: what holds a version (:mod:`volfs.versions.retention.roots`), what shows a payload
(:mod:`volfs.versions.retention.shown`), how bytes go (:mod:`volfs.versions.retention.reclamation`).

Whatever is decided is decided under the lock of the dataset, from the files as they are then. Looking for bytes takes
long, and is done without it; before a version's payloads are said to be absent the lock is taken again, and what came
meanwhile is looked at. One process collects in a dataset at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

from volfs.errors import Busy
from volfs.model.thinning import Rule, surplus
from volfs.storage.claim import store_clock
from volfs.storage.files import FileLock
from volfs.versions.author import default_author
from volfs.versions.committed.version_files import VersionFiles
from volfs.versions.ledger import Retirement
from volfs.versions.retention.reclamation import Freed, begin, end, finish, intended, note_absent, take_away
from volfs.versions.retention.roots import (
    RetainedHistory,
    check_droppable,
    check_known,
    held_by_changes,
    held_by_log,
    held_by_refs,
    reached,
    under_way,
)
from volfs.versions.retention.shown import Shown

GRACE_SECONDS = 14 * 86_400.0
"""How long the bytes of a version that was dropped stay."""

Progress = Callable[[int, int, str], object]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be collected. ``grace`` in seconds; ``before_ns`` and ``keep`` drop versions as well
    (:func:`volfs.model.thinning.surplus`); with ``dry_run`` nothing is changed."""

    grace: float = GRACE_SECONDS
    before_ns: int | None = None
    keep: Sequence[Rule] = ()
    dry_run: bool = False

    @property
    def thins(self) -> bool:
        """Whether versions are dropped that are reached."""
        return self.before_ns is not None or bool(self.keep)


@dataclass(frozen=True, slots=True)
class Collected:
    """What was collected of a dataset, or would be. ``retired``: versions dropped now; ``reclaimed``: versions whose
    bytes went, as ``freed`` counts; ``later``: what goes when the grace of all dropped versions is over; ``waiting``:
    why no bytes went; ``unsure``: why nothing was dropped for not being reached."""

    dataset: str
    retired: tuple[int, ...] = ()
    reclaimed: tuple[int, ...] = ()
    freed: Freed = field(default_factory=Freed)
    later: Freed = field(default_factory=Freed)
    waiting: str = ""
    unsure: str = ""


def drop(dataset: RetainedHistory, numbers: Iterable[int], why: str, progress: Progress) -> list[int]:
    """Drop versions; the numbers of those that were not before. Busy if a branch, a tag or uncommitted changes hold one
    of them: then none is dropped. NotFound if there is none of a number."""
    with dataset.locked():
        wanted = sorted({dataset.info(number).number for number in numbers} - dataset.dropped())
        check_known(dataset)
        check_droppable(dataset, wanted)
        _retire(dataset, wanted, why, progress)
    return wanted


def collect(dataset: RetainedHistory, plan: Plan, progress: Progress) -> Collected:
    """Drop what is not needed, and take away the bytes of what was dropped longer ago than the grace.

    Raises Damaged if something cannot be read that might hold a version; Busy while another process collects, or,
    without grace, while anything is being written.
    """
    with _alone(dataset, plan):
        if not plan.dry_run:
            finish(dataset)
        with nullcontext() if plan.dry_run else dataset.locked():
            if not plan.dry_run:
                dataset.ledger.sweep()
            check_known(dataset)
            busy = under_way(dataset)
            if busy is not None and plan.grace <= 0:
                raise Busy(f"{busy}: without grace nobody else may use the store")
            now_ns = time.time_ns() if plan.dry_run else store_clock(dataset.layout.lock)
            new, unsure = _not_needed(dataset, plan, now_ns)
            if not plan.dry_run:
                _retire(dataset, new, "thinned by gc" if plan.thins else "not reached: gc", progress)
            # With the lock, so that none of it is named by what comes later.
            due = _due(dataset, now_ns - int(plan.grace * 1e9)) | (set(new) if plan.grace <= 0 else set())
            done = Collected(dataset.name, retired=tuple(new), waiting=busy or "", unsure=unsure)
            shown = Shown(dataset, due)
        if plan.dry_run:
            later, _ = _size(Shown(dataset, dataset.dropped() | set(new)), progress)
            now, numbers = (Freed(), ()) if busy else _size(shown, progress)
            return replace(done, later=later, freed=now, reclaimed=numbers)
        return done if busy else _reclaim(dataset, shown, due, done, progress)


def go_on(dataset: RetainedHistory) -> None:
    """Finish what a process left that died while it took bytes away. For every opening; cheap if there is nothing."""
    if intended(dataset.backend) is None:
        return
    lock = FileLock(dataset.layout.gc_lock)
    if lock.try_lock():
        try:
            finish(dataset)
        finally:
            lock.release()


def _reclaim(
    dataset: RetainedHistory, shown: Shown, due: Collection[int], done: Collected, progress: Progress
) -> Collected:
    numbers: list[int] = []
    freed = Freed()
    # One version after the other: the manifest of each may have millions of records.
    for each in shown.unshown(lambda at, total: progress(at, total, dataset.name)):
        with dataset.locked():
            busy = under_way(dataset)
            if busy is not None:
                done = replace(done, waiting=busy)
                break
            for number in sorted(n for n in dataset.graph.versions if n > shown.newest):
                shown.take_in(number)
            rows = each.rows & ~shown.is_taken(each.manifest, each.rows)
            if not rows.any():
                continue
            if not numbers:
                begin(dataset.backend, due)
            numbers.append(each.number)
            files = VersionFiles.of(dataset.objects, each.number)
            codes = note_absent(files, each.codes, rows)
        size = replace(each, rows=rows)
        freed += Freed(int(rows.sum()), size.bytes, take_away(files, each.manifest, codes))
    if numbers:
        end(dataset.backend)
    return replace(done, reclaimed=tuple(numbers), freed=freed)


def _not_needed(dataset: RetainedHistory, plan: Plan, now_ns: int) -> tuple[list[int], str]:
    """The versions to drop that are not dropped yet; and why none is for not being reached, if that cannot be told."""
    graph, dropped = dataset.graph, dataset.dropped()
    named = held_by_refs(dataset)
    held = named.keys() | held_by_changes(dataset).keys()
    lately, damage = held_by_log(dataset, now_ns - int(plan.grace * 1e9))
    # A line that cannot be read may have named any version. It is passed over once it is older than the grace.
    found = set() if damage else graph.versions.keys() - reached(graph, held | lately.keys())
    if plan.thins:
        found |= surplus(graph, dropped, plan.keep, before_ns=plan.before_ns, ends=named) - held
    unsure = f"{damage}: mend or remove that line, or wait until it is older than the grace" if damage else ""
    return sorted(found - dropped), unsure


def _due(dataset: RetainedHistory, before_ns: int) -> set[int]:
    """The dropped versions whose grace is over."""
    found = set()
    for number in dataset.dropped():
        retirement = dataset.ledger.retirement(number)
        if retirement is not None and retirement.time_ns <= before_ns:
            found.add(number)
    return found


def _retire(dataset: RetainedHistory, numbers: Collection[int], why: str, progress: Progress) -> None:
    """Drop versions, with the dataset's lock held, in the store and in the catalog."""
    if not numbers:
        return
    retirement = Retirement(store_clock(dataset.layout.lock), default_author(), why)
    versions = {number: dataset.info(number).content_id for number in numbers}
    dataset.ledger.retire(versions, retirement, lambda at, total: progress(at, total, dataset.name))
    dataset.catalog.set_retired(dataset.id, dataset.ledger.retired())


@contextmanager
def _alone(dataset: RetainedHistory, plan: Plan) -> Iterator[None]:
    """Be the only process that collects in the dataset."""
    if plan.dry_run:
        yield
        return
    lock = FileLock(dataset.layout.gc_lock)
    if not lock.try_lock():
        raise Busy(f"another process collects in dataset {dataset.name!r}")
    try:
        yield
    finally:
        lock.release()


def _size(shown: Shown, progress: Progress) -> tuple[Freed, tuple[int, ...]]:
    """What of the dropped versions nobody shows, and of which it is."""
    total, numbers = Freed(), []
    for each in shown.unshown(lambda at, count: progress(at, count, "looking")):
        total += Freed(int(each.rows.sum()), each.bytes)
        numbers.append(each.number)
    return total, tuple(numbers)
