"""The versions of a dataset that were dropped, as the directory of a dataset keeps that.

Decided here: where it is written, and in which order. The truth is a document ``retired.json`` in the directory of each
version, so that one damaged document harms one version alone. A document of the same name in the dataset's directory
lists all of them, so that nobody has to look into ten thousand directories, and changes with each, so that other
machines notice. Not here: which versions are dropped, and what becomes of their bytes
(:mod:`volfs.versions.retention`).

Under the lock of the dataset:

1. the list is replaced by one that names the new versions and, as ``pending``, what is to be written of them: from then
   on they are dropped;
2. each gets its ``retired.json``;
3. the list is replaced by one without ``pending``.

Whoever takes the lock and finds a list with ``pending`` finishes 2 and 3. A list that is gone or damaged is made anew
from the directories.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from volfs.errors import Damaged, NotFound
from volfs.model.graph import is_time
from volfs.model.names import MAX_VERSION
from volfs.storage.crash import crash_point
from volfs.storage.files import read_json, write_json
from volfs.storage.store_layout import DatasetLayout, parse_version_dir
from volfs.versions.ledger import Retirement

log = logging.getLogger(__name__)

_Identity = tuple[int, int, int] | None


class RetiredList:
    """The dropped versions of one dataset. What changes it is called with the dataset's lock held."""

    def __init__(self, layout: DatasetLayout) -> None:
        self._layout = layout
        self._known: tuple[_Identity, frozenset[int]] | None = None

    def numbers(self) -> frozenset[int]:
        """Numbers of the dropped versions."""
        identity = self._identity()
        known = self._known
        if known is not None and known[0] == identity:
            return known[1]
        try:
            found = frozenset(_numbers_in(read_json(self._layout.retired)["versions"]))
        except NotFound:
            found = self._marked()
        except (Damaged, KeyError, TypeError, ValueError) as error:
            log.error(
                "%s cannot be read (%s): each version is asked whether it was dropped", self._layout.retired, error
            )
            found = self._marked()
        self._known = identity, found
        return found

    def retirement(self, number: int) -> Retirement | None:
        """What is written of one. Raises Damaged."""
        try:
            return _retirement(
                read_json(self._layout.version(number).retired), str(self._layout.version(number).retired)
            )
        except NotFound:
            return None

    def add(self, versions: Mapping[int, str], retirement: Retirement, progress: Callable[[int, int], object]) -> None:
        """Drop versions, given with their content ids."""
        before = self.numbers()
        new = {number: content_id for number, content_id in sorted(versions.items()) if number not in before}
        if not new:
            return
        facts = {"time_ns": retirement.time_ns, "who": retirement.who, "why": retirement.why}
        pending = {**facts, "versions": [[number, content_id] for number, content_id in new.items()]}
        self._write(before | new.keys(), pending)
        crash_point("retire.listed")
        self._mark(new, retirement, progress)
        self._write(before | new.keys())
        crash_point("retire.done")

    def settle(self) -> None:
        """Finish what a process began that died. Raises Damaged."""
        try:
            document = read_json(self._layout.retired)
            _numbers_in(document["versions"])
        except (NotFound, Damaged, KeyError, TypeError, ValueError):
            self._write(self._marked())
            return
        pending = document.get("pending")
        if pending is None:
            return
        try:
            versions = {int(number): str(content_id) for number, content_id in pending["versions"]}
            retirement = Retirement(int(pending["time_ns"]), str(pending["who"]), str(pending["why"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"{self._layout.retired} does not say which versions are being dropped ({error})") from None
        self._mark(versions, retirement, lambda done, total: None)
        self._write(self.numbers())

    def bring_up_to_date(self) -> None:
        """Make the list if there is none."""
        if not self._layout.retired.exists():
            self._write(self.numbers())

    def wrong(self) -> Iterable[tuple[str, str]]:
        """What does not fit, for a check: (where, what)."""
        where = self._layout.retired.name
        try:
            document = read_json(self._layout.retired)
            said = _numbers_in(document["versions"])
        except NotFound:
            said, document = set(), {}
            if marked := self._marked():
                yield where, f"is missing, though {len(marked)} versions were dropped: opening the store mends it"
        except (Damaged, KeyError, TypeError, ValueError) as error:
            yield where, f"cannot be read ({error}): opening the store for writing makes it anew"
            return
        if "pending" in document:
            yield where, "versions were being dropped when the process died: opening the store for writing finishes it"
            return
        marked = self._marked()
        for number in sorted(number for number in said ^ marked if self._layout.version(number).root.is_dir()):
            what = "is listed as dropped, but does not say so itself" if number in said else "says that it was dropped"
            yield f"versions/{self._layout.version(number).root.name}", f"{what}, and {where} does not agree"

    # -- inside -------------------------------------------------------------------------------------------------

    def _identity(self) -> _Identity:
        try:
            found = os.stat(self._layout.retired)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _marked(self) -> frozenset[int]:
        """Those whose directories say that they were dropped. Looks into each."""
        try:
            names = os.listdir(self._layout.versions)
        except FileNotFoundError:
            return frozenset()
        numbers = (number for name in names if (number := parse_version_dir(name)) is not None)
        return frozenset(number for number in numbers if os.path.lexists(self._layout.version(number).retired))

    def _mark(
        self, versions: Mapping[int, str], retirement: Retirement, progress: Callable[[int, int], object]
    ) -> None:
        when = datetime.fromtimestamp(retirement.time_ns // 10**9, UTC).isoformat().replace("+00:00", "Z")
        for done, (number, content_id) in enumerate(versions.items()):
            progress(done, len(versions))
            layout = self._layout.version(number)
            if layout.root.is_dir():  # else somebody has taken it away by hand
                facts = {"time": when, "time_ns": retirement.time_ns, "who": retirement.who, "why": retirement.why}
                write_json(layout.retired, {"version": number, "content_id": content_id, **facts})
            crash_point("retire.marked")
        progress(len(versions), len(versions))

    def _write(self, numbers: Iterable[int], pending: Mapping[str, Any] | None = None) -> None:
        ranges = _ranges(numbers)
        write_json(self._layout.retired, {"versions": ranges} | ({} if pending is None else {"pending": pending}))


def _ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Numbers as [first, last] of each run."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def _numbers_in(ranges: Any) -> set[int]:
    found: set[int] = set()
    for first, last in ranges:
        if not 0 < first <= last <= MAX_VERSION:
            raise ValueError(f"{first} to {last} are no versions")
        found.update(range(first, last + 1))
    return found


def _retirement(document: Mapping[str, Any], where: str) -> Retirement:
    time_ns, who, why = document.get("time_ns"), document.get("who"), document.get("why")
    content_id = document.get("content_id", "")
    if not is_time(time_ns) or not all(isinstance(text, str) for text in (who, why, content_id)):
        raise Damaged(f"{where} does not say when and why the version was dropped")
    return Retirement(time_ns, str(who), str(why), str(content_id))
