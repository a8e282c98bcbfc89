"""The versions of a dataset that must stay, and why.

Decided here: what holds a version. Everything is read from the files, with the dataset's lock held; what cannot be read
ends the search with an error, since it might hold any version. Not here: what becomes of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from volfs.errors import Busy, Damaged
from volfs.model.graph import VersionGraph
from volfs.model.refs import RefKind
from volfs.storage.files import FileLock
from volfs.storage.trash import TRASH
from volfs.versions.commit.mirror import MirroredHistory
from volfs.versions.working.base_file import BaseFile


class RetainedHistory(MirroredHistory, Protocol):
    """A dataset of which versions can be dropped."""

    def read_ref(self, kind: RefKind, name: str) -> int:
        """The version that a ref names, proved by its content id. Raises NotFound, or Damaged."""


Holders = dict[int, list[str]]
"""What holds each version, in words."""


def held_by_refs(dataset: RetainedHistory) -> Holders:
    """The versions that refs name. Raises Damaged."""
    found: Holders = {}
    for kind in RefKind:
        for name in dataset.ledger.names(kind):
            if number := dataset.read_ref(kind, name):
                found.setdefault(number, []).append(f"{kind.word} {name!r}")
    return found


def held_by_changes(dataset: RetainedHistory) -> Holders:
    """The versions that uncommitted changes lie over, or were decided about. Raises Damaged."""
    found: Holders = {}
    workings = dataset.layout.workings
    for folder in sorted(workings.iterdir()) if workings.is_dir() else ():
        if folder.name.endswith(TRASH):
            continue
        base = BaseFile(dataset.layout.working(folder.name).base, lambda: False).read()
        for pin in () if base is None else (base.on, base.head):
            if pin is not None and pin.version:
                found.setdefault(pin.version, []).append(f"the uncommitted changes of branch {folder.name!r}")
    return found


def held_by_log(dataset: RetainedHistory, since_ns: int) -> tuple[Holders, str]:
    """The versions that refs named lately, before or after a change; and the damage to a line, which may have named any
    version, or ""."""
    found: Holders = {}
    damage = ""
    for change in dataset.ledger.ref_log():
        if isinstance(change, Damaged):
            damage = str(change)
            continue
        if change.time_ns < since_ns:
            break  # the newest come first
        for record in (change.old, change.new):
            if record is not None and record.version:
                found.setdefault(record.version, []).append(f"{change.kind.word} {change.name!r}, until lately")
    return found, damage


def reached(graph: VersionGraph, roots: Iterable[int]) -> set[int]:
    """The versions given and all that they descend from, by any parent."""
    found: set[int] = set()
    ahead = [number for number in roots if number in graph]
    while ahead:
        number = ahead.pop()
        if number not in found:
            found.add(number)
            ahead += graph.info(number).parents
    return found


def check_known(dataset: RetainedHistory) -> None:
    """Raise Damaged unless all versions of the dataset are known with their parents."""
    there = set(dataset.ledger.versions())
    for number in sorted(there - dataset.graph.versions.keys()):
        why = dataset.unindexed.get(number, "it is not in the catalog")
        raise Damaged(f"v{number} of dataset {dataset.name!r} cannot be read, so nothing can be dropped: {why}")


def under_way(dataset: RetainedHistory) -> str | None:
    """What is being written now, by whomever, that may take payloads of any version; None if nothing is."""
    for number in dataset.ledger.drafts():
        return f"v{number} of dataset {dataset.name!r} is being written"
    if FileLock(dataset.layout.root / "incoming" / "lock").locked_by_other():
        return f"versions of dataset {dataset.name!r} are arriving from another store"
    return None


def check_droppable(dataset: RetainedHistory, numbers: Iterable[int]) -> None:
    """Raise Busy, with the reason, if one of the versions must stay."""
    named, changed = held_by_refs(dataset), held_by_changes(dataset)
    for number in numbers:
        if number in named:
            raise _held(number, named, "move or delete it first")
        if number in changed:
            raise _held(number, changed, "commit or discard them first")


def _held(number: int, holders: Mapping[int, list[str]], then: str) -> Busy:
    return Busy(f"v{number} is held by {', '.join(holders[number])}: {then}")
