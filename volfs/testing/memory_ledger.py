"""Memory as a :class:`~volfs.versions.ledger.Ledger`: for tests of what must not know where a dataset is kept.

A draft's objects lie under the version's own number from the start, as they would in a bucket, where nothing can be
renamed: readers go by the ledger, which does not list it yet.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from volfs.errors import AlreadyThere, BadInput, Busy, Conflict, Damaged, NotFound
from volfs.model.names import MAX_VERSION
from volfs.model.refs import RefKind
from volfs.storage.backend import Backend, read_object
from volfs.storage.store_layout import version_dir_name
from volfs.storage.trash import delete_tree
from volfs.versions.author import default_author
from volfs.versions.ledger import Cause, Draft, RefChange, RefRecord, Retirement, Stamp, T

_MOST_BETWEEN = 1 << 16


class MemoryLedger:
    """The refs and numbers of one dataset, whose ``versions/`` are ``objects``."""

    def __init__(self, objects: Backend) -> None:
        self._objects = objects
        self._turn = threading.Lock()
        self._refs: dict[RefKind, dict[str, RefRecord]] = {kind: {} for kind in RefKind}
        self._versions: set[int] = set()
        self._drafts: dict[int, str] = {}
        self._highest = 0
        self._retired: dict[int, Retirement] = {}
        self._changes = itertools.count(1)
        self._stamp = 0
        self._log: list[RefChange] = []

    @contextmanager
    def locked(self, patience: float) -> Iterator[int]:
        if not self._turn.acquire(timeout=patience):
            raise Busy("another thread changes refs or numbers")
        try:
            yield 1 << 62
        finally:
            self._turn.release()

    def stamp(self) -> Stamp:
        return Stamp(self._stamp, 0)

    # -- refs ---------------------------------------------------------------------------------------------------

    def names(self, kind: RefKind) -> list[str]:
        return sorted(self._refs[kind])

    def has_ref(self, kind: RefKind, name: str) -> bool:
        return name in self._refs[kind]

    def ref(self, kind: RefKind, name: str) -> RefRecord:
        try:
            return self._refs[kind][name]
        except KeyError:
            raise NotFound(f"{self.where(kind, name)} does not exist") from None

    def where(self, kind: RefKind, name: str) -> str:
        return f"memory/refs/{kind.folder}/{name}"

    def set_ref(
        self, kind: RefKind, name: str, record: RefRecord, expected: int | None, cause: Cause | None = None
    ) -> None:
        found = self._refs[kind].get(name)
        if expected is None and found is not None:
            raise AlreadyThere(f"there is a {kind.word} {name!r} already")
        if expected is not None and self.ref(kind, name).version != expected:
            raise Conflict(f"{kind.word} {name!r} has moved")
        self._refs[kind][name] = record
        if found is None or not record.names_same(found):
            self._note(kind, name, found, record, cause or Cause("made" if found is None else "moved"))
        self._changed()

    def rename_ref(self, kind: RefKind, name: str, new_name: str, cause: Cause | None = None) -> None:
        record = self.ref(kind, name)
        if new_name in self._refs[kind]:
            raise AlreadyThere(f"there is a {kind.word} {new_name!r} already")
        self._refs[kind][new_name] = self._refs[kind].pop(name)
        self._note(kind, new_name, None, record, cause or Cause("renamed"), was=name)
        self._changed()

    def drop_ref(self, kind: RefKind, name: str, cause: Cause | None = None) -> bool:
        found = self._refs[kind].pop(name, None)
        if found is not None:
            self._note(kind, name, found, None, cause or Cause("removed"))
        self._changed()
        return found is not None

    def ref_log(self) -> Iterator[RefChange | Damaged]:
        return reversed(tuple(self._log))

    def _note(
        self,
        kind: RefKind,
        name: str,
        old: RefRecord | None,
        new: RefRecord | None,
        cause: Cause,
        was: str | None = None,
    ) -> None:
        who = cause.who or default_author()
        self._log.append(RefChange(time.time_ns(), who, kind, name, old, new, cause.why, was))

    # -- versions -----------------------------------------------------------------------------------------------

    def versions(self, above: int = 0) -> list[int]:
        return sorted(number for number in self._versions if number > above)

    def is_version(self, number: int) -> bool:
        return number in self._versions

    def highest(self) -> int:
        return self._highest

    def reserve(self, at_least: int) -> Draft:
        number, token = self._free(at_least), secrets.token_hex(8)
        self._drafts[number] = token
        return self.draft(number, token)

    def drafts(self) -> list[int]:
        return sorted(self._drafts)

    def draft(self, number: int, token: str) -> Draft:
        return Draft(number, version_dir_name(number), token)

    def renumber(self, draft: Draft, at_least: int) -> Draft:
        made = self.draft(self._free(at_least), draft.token)
        for key in list(self._objects.list(draft.folder)):
            self._objects.put(made.folder + key.removeprefix(draft.folder), read_object(self._objects, key))
            self._objects.remove([key])
        self._drafts[made.number] = self._drafts.pop(draft.number)
        return made

    def moved(self, draft: Draft, number: int) -> Draft:
        return self.draft(number, draft.token)

    def publish(
        self,
        draft: Draft,
        *,
        branch: str,
        expected: int | None,
        content_id: str,
        sizes: Mapping[str, int],
        index: Callable[[], T],
        indexed: Callable[[], bool],
        cause: Cause | None = None,
    ) -> T:
        heads = self._refs[RefKind.BRANCH]
        before = heads.get(branch)
        if expected != (None if before is None else before.version):
            raise Conflict(f"branch {branch!r} has moved: nothing was committed, try again")
        for name, size in sizes.items():
            found = self._objects.stat(f"{draft.folder}/{name}")
            if found is None or found.size != size:
                raise Busy(f"{draft.folder}/{name} is not as it was written: nothing was committed")
        if self._drafts.get(draft.number) != draft.token:
            raise Busy(f"v{draft.number} was given up by others: nothing was committed")
        heads[branch] = RefRecord(draft.number, content_id)
        self._versions.add(draft.number)
        del self._drafts[draft.number]
        highest, self._highest = self._highest, max(self._highest, draft.number)
        try:
            result = index()
            self._note(RefKind.BRANCH, branch, before, heads[branch], cause or Cause("commit"))
            return result
        except BaseException:
            if not indexed():
                self._versions.discard(draft.number)
                self._drafts[draft.number] = draft.token
                self._highest = highest
                if before is None:
                    del heads[branch]
                else:
                    heads[branch] = before
            raise
        finally:
            self._changed()

    def free_number(self, at_least: int) -> int:
        return self._free(at_least)

    def adopt(self, number: int, source: Path) -> None:
        if not 0 < number <= min(MAX_VERSION, self._highest + 1 + _MOST_BETWEEN):
            raise BadInput(f"v{number} cannot be the next version: the next is v{self._highest + 1}")
        if number in self._versions:
            raise AlreadyThere(f"there is a v{number} already")
        for path in sorted(source.rglob("*")):
            if path.is_file():
                self._objects.put(f"{version_dir_name(number)}/{path.relative_to(source).as_posix()}", path)
        delete_tree(source)
        self._versions.add(number)
        self._highest = max(self._highest, number)
        self._changed()

    def abandon(self, draft: Draft) -> None:
        if self._drafts.get(draft.number) == draft.token:
            del self._drafts[draft.number]
            self._objects.remove(list(self._objects.list(draft.folder)))

    def settle(self, index: Callable[[int], object]) -> list[int]:
        """Nothing is left by processes that die: it dies with them."""
        return []

    def sweep(self) -> None:
        """See :meth:`settle`."""

    def reclaim(self) -> None:
        """What is given up is gone."""

    def bring_up_to_date(self) -> None:
        """All is kept from the start."""

    # -- versions that were dropped -----------------------------------------------------------------------------

    def retired(self) -> frozenset[int]:
        return frozenset(self._retired)

    def retirement(self, number: int) -> Retirement | None:
        return self._retired.get(number)

    def retire(
        self, versions: Mapping[int, str], retirement: Retirement, progress: Callable[[int, int], object]
    ) -> None:
        new = {
            number: replace(retirement, content_id=content_id)
            for number, content_id in versions.items()
            if number not in self._retired
        }
        self._retired |= new
        progress(len(new), len(new))
        self._changed()

    def lose(self, number: int) -> None:
        """Have a version vanish with all that it holds, as if somebody had taken it away by hand."""
        self._versions.discard(number)
        self._objects.remove(list(self._objects.list(version_dir_name(number))))
        self._changed()

    def strays(self) -> Iterator[tuple[str, str]]:
        return iter(())

    def _free(self, at_least: int) -> int:
        return max(at_least, 1 + max((*self._versions, *self._drafts, self._highest), default=0))

    def _changed(self) -> None:
        self._stamp = next(self._changes)
