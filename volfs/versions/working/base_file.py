"""``working/B/base.json``: the version that a working copy lies over, and the decisions about a newer head.

Decided here: the document, and how a reader learns cheaply that it changed. Not here: when it is written
(:mod:`volfs.versions.working.working_copy`, :mod:`volfs.versions.commit.protocol`), and when it may follow the head
(:mod:`volfs.versions.commit.follower`).

No document means that the base is the head: a branch without changes reads as its head, whoever moves that. It is
written before the first change, and removed with the last.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volfs.errors import Damaged, NotFound
from volfs.model.graph import VersionInfo
from volfs.storage.files import read_json, unlink_durably, write_json

_RACY_NS = 50_000_000
"""A document changed as recently as this may change again without its times telling."""


_ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Pin:
    """A version by number and content id; 0 and "" for none."""

    version: int
    content_id: str

    @classmethod
    def of(cls, info: VersionInfo | None) -> Pin:
        return cls(0, "") if info is None else cls(info.number, info.content_id)

    def to_json(self) -> dict[str, Any]:
        return {"version": self.version, "content_id": self.content_id}


@dataclass(frozen=True, slots=True)
class Base:
    """The document. ``kept``: keys, whole arrays by their directory, that stay as the working copy has them
    over ``head``, which the branch had when that was decided."""

    on: Pin
    head: Pin | None = None
    kept: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        doc = self.on.to_json()
        if self.head is not None and self.kept:
            doc["kept"] = {**self.head.to_json(), "keys": sorted(self.kept)}
        return doc


class BaseFile:
    """The document of one working copy. Thread-safe. ``owned`` is true while only this object can change it."""

    def __init__(self, path: Path, owned: Callable[[], bool]) -> None:
        self._path = path
        self._name = str(path)
        self._owned = owned
        self._known: tuple[object, Base | None] | None = None
        self._mutex = threading.Lock()
        #: Counts what was found out while the lock was not held: an answer from before does not count after.
        self._turns = 0

    def read(self) -> Base | None:
        """The base; None if it is the head. Raises Damaged."""
        known = self._known
        if known is not None and self._owned():
            return known[1]
        turn, stamp = self._turns, self._stamp()
        if known is not None and stamp is not None and known[0] == stamp:
            return known[1]
        base = None if stamp == _ABSENT else self._load()
        with self._mutex:
            if turn == self._turns:
                self._known = stamp, base
        return base

    def write(self, base: Base) -> None:
        """Name the base, durably. Only with the branch's lock."""
        if self._known is not None and self._known[1] == base and self._owned():
            return
        self.reread()
        write_json(self._path, base.to_json())
        self._learn(base)

    def remove(self) -> None:
        """Let the base be the head, durably. Only with the branch's lock."""
        if self._known is not None and self._known[1] is None and self._owned():
            return
        self.reread()
        unlink_durably(self._path)
        self._learn(None)

    def reread(self) -> None:
        """Others may have written until now."""
        with self._mutex:
            self._turns += 1
            self._known = None

    def _learn(self, base: Base | None) -> None:
        with self._mutex:
            self._turns += 1
            self._known = None, base

    def _stamp(self) -> object:
        """Differs once the document has changed; None while that is uncertain."""
        try:
            found = os.stat(self._name)
        except (FileNotFoundError, NotADirectoryError):
            return _ABSENT
        if time.time_ns() - found.st_ctime_ns < _RACY_NS:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size

    def _load(self) -> Base | None:
        try:
            doc = read_json(self._path)
        except NotFound:
            return None
        try:
            kept = doc.get("kept")
            if kept is None:
                return Base(_pin(doc))
            return Base(_pin(doc), _pin(kept), frozenset(map(str, kept["keys"])))
        except (KeyError, TypeError, AttributeError) as error:
            raise Damaged(
                f"{self._path} does not say which version the uncommitted changes lie over ({error}): remove it if they"
                " were made on the branch's newest version"
            ) from None


def _pin(doc: Any) -> Pin:
    version, content_id = doc["version"], doc["content_id"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 0 or not isinstance(content_id, str):
        raise TypeError(f"{version!r}, {content_id!r}")
    return Pin(version, content_id)
