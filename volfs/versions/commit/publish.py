"""A directory as a :class:`~volfs.versions.ledger.Ledger`: how a complete version gets its place there, and what is
done when that was cut short.

Decided here: the order of rename, ref and index, all under the dataset's lock, and that a process which dies between
them leaves a store that the next one mends. Not decided here: how a version is written
(:mod:`volfs.versions.commit.version_writer`), nor what becomes of a working copy
(:mod:`volfs.versions.commit.protocol`).

Under the lock of the dataset:

1. the intent ``versions/.N.publish.json`` is written, naming the branch;
2. ``.N.partial`` is renamed to ``N``;
3. the change is logged (:mod:`volfs.versions.ref_log`), and the ref of the branch replaced: **the commit point**;
4. the catalog indexes the version, in one transaction with its mirror of the ref;
5. the lock of the version's maker, which lay in it until now, is removed, and then the intent: the one with the highest
   number stays as ``highest.json``, so that no number is given again when a version is taken away by hand.

Whoever takes the lock and finds an intent knows that its writer is dead, and calls :meth:`DirectoryLedger.settle`: a
ref that names version N means N is committed, so it is indexed; else N never was, and is removed, or given back to a
living maker. Nothing that no intent names is touched. A partial version whose writer no longer holds the lock inside it
is dead too: :meth:`DirectoryLedger.sweep`.

Where machines do not see each other's locks, all of that would take the living for dead. So who writes says so in the
lock and in the intent, what another machine has begun is let be for a day (:mod:`volfs.storage.claim`), and before the
ref is replaced every file of the version is looked for once more.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from volfs.errors import AlreadyThere, BadInput, Busy, Conflict, Damaged, NoSpace, NotFound, VolfsError
from volfs.model.bounded_map import BoundedMap
from volfs.model.names import MAX_VERSION, is_ref_name, is_remote_name
from volfs.model.refs import RefKind
from volfs.storage.claim import Claim, Fate, changed_since, is_abandoned, store_clock
from volfs.storage.crash import crash_point
from volfs.storage.files import (
    FileLock,
    fsync_dir,
    is_temporary,
    make_dirs,
    no_space,
    read_file,
    read_json,
    replace_durably,
    sweep_temporaries,
    unlink_durably,
    write_atomic,
    write_json,
)
from volfs.storage.store_layout import (
    PREVIOUS_REF,
    DatasetLayout,
    VersionLayout,
    parse_partial_dir,
    parse_publish_intent,
    parse_version_dir,
    partial_dir_name,
    version_dir_name,
)
from volfs.storage.trash import TRASH, delete_tree, empty_trash, throw_away
from volfs.versions.author import default_author
from volfs.versions.commit.retired_list import RetiredList
from volfs.versions.ledger import Cause, Draft, RefChange, RefRecord, Retirement, Stamp, T
from volfs.versions.ref_file import read_ref, write_ref
from volfs.versions.ref_log import RefLog

log = logging.getLogger(__name__)

_FOUND = "found so: the change before was cut short, or this one was made by hand or by a volfs that kept no log"
_Logged = tuple[RefChange, int]
_REFS_KEPT = 1 << 12
_MOST_BETWEEN = 1 << 16
"""Numbers that may be free, or of versions being written, between the newest version and one that is adopted."""
"""A change that a line of the log says, and the length of the log before it."""


class _FileState(NamedTuple):
    """What tells that a small file, which is only ever replaced, is another one."""

    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: str) -> _FileState | None:
        """None if there is none."""
        try:
            found = os.stat(path)
        except OSError:
            return None
        return cls(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def settled(self, now_ns: int) -> bool:
        """Whether a change after ``now_ns`` must show as another state."""
        return Stamp(self, max(self.mtime_ns, self.ctime_ns)).settled(now_ns)


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _refs_in(folder: str) -> Iterator[str]:
    """The names of the refs in a directory."""
    return (name[:-5] for name in _listed(folder) if name.endswith(".json") and not name.startswith("."))


class DirectoryLedger:
    """The refs and versions in the directory of one dataset.

    What another machine left half made counts as abandoned when it has not changed for ``dead_after`` seconds.
    """

    def __init__(self, layout: DatasetLayout, dead_after: float) -> None:
        self._layout = layout
        self._dead_after = dead_after
        #: By token: the held locks in the drafts of this object.
        self._alive: dict[str, FileLock] = {}
        #: Numbers by directory, of versions that were seen to exist.
        self._seen: dict[str, int] = {}
        self._retired = RetiredList(layout)
        self._log = RefLog(layout.ref_log)
        self._folders = {kind: os.fspath(layout.refs(kind)) for kind in RefKind}
        #: What was read of refs, with the file as it was then: of a dataset with many branches few move.
        self._read: BoundedMap[tuple[RefKind, str], tuple[_FileState, RefRecord]] = BoundedMap(_REFS_KEPT)
        #: The latest time of the medium's clock that was seen.
        self._now_ns = 0

    @contextmanager
    def locked(self, patience: float) -> Iterator[int]:
        lock = FileLock(self._layout.lock)
        if not self._layout.root.is_dir():
            raise NotFound(f"dataset {self._layout.root.name!r} was removed")
        with no_space("locking the dataset"):
            lock.lock({"pid": os.getpid()}, timeout=patience)
        try:
            now_ns = lock.path.stat().st_mtime_ns
            self._now_ns = max(self._now_ns, now_ns)
            yield now_ns
        finally:
            lock.release()

    def stamp(self) -> Stamp:
        folders = []
        for place in (self._layout.versions, self._layout.retired, *self._ref_folders()):
            try:
                found = place.stat()
                folders.append((found.st_ino, found.st_mtime_ns))
            except OSError:
                folders.append((0, 0))
        return Stamp(tuple(folders), max(time for _, time in folders))

    # -- refs ---------------------------------------------------------------------------------------------------

    def names(self, kind: RefKind) -> list[str]:
        folder = self._folders[kind]
        if kind is not RefKind.REMOTE:
            return sorted(_refs_in(folder))
        # A directory for each remote has its branches.
        return sorted(f"{remote}/{name}" for remote in _listed(folder) for name in _refs_in(f"{folder}/{remote}"))

    def has_ref(self, kind: RefKind, name: str) -> bool:
        return _is_file_name(kind, name) and os.path.lexists(self._layout.ref(kind, name))

    def ref(self, kind: RefKind, name: str) -> RefRecord:
        if not _is_file_name(kind, name):
            raise NotFound(f"there is no {kind.word} {name!r}")
        now_ns, known = self._now_ns, self._read.get((kind, name))
        state = _FileState.of(f"{self._folders[kind]}/{name}.json")
        if known is not None and known[0] == state:
            return known[1]
        found = read_ref(self._layout.ref(kind, name))
        # A file that has just been replaced may be replaced once more without looking otherwise.
        if state is not None and state.settled(now_ns):
            self._read.put((kind, name), (state, found))
        return found

    def where(self, kind: RefKind, name: str) -> str:
        return str(self._layout.ref(kind, name))

    def set_ref(
        self, kind: RefKind, name: str, record: RefRecord, expected: int | None, cause: Cause | None = None
    ) -> None:
        old = None
        if expected is None:
            self._check_free(kind, name)
        elif (old := self.ref(kind, name)).version != expected:
            raise Conflict(f"{kind.word} {name!r} moved from {_name(expected)} to {_name(old.version)} meanwhile")
        make_dirs(self._layout.ref(kind, name).parent)
        if old is not None and record.names_same(old):
            write_ref(self._layout.ref(kind, name), record)
            return
        with self._logged(kind, name, old, record, cause or Cause("made" if old is None else "moved")):
            write_ref(self._layout.ref(kind, name), record)

    def rename_ref(self, kind: RefKind, name: str, new_name: str, cause: Cause | None = None) -> None:
        record = self.ref(kind, name)
        self._check_free(kind, new_name)
        with self._logged(kind, new_name, None, record, cause or Cause("renamed"), was=name):
            replace_durably(self._layout.ref(kind, name), self._layout.ref(kind, new_name))

    def drop_ref(self, kind: RefKind, name: str, cause: Cause | None = None) -> bool:
        if not self.has_ref(kind, name):
            return False
        old = None
        with suppress(Damaged):  # it goes whatever it says
            old = self.ref(kind, name)
        with self._logged(kind, name, old, None, cause or Cause("removed")):
            unlink_durably(self._layout.ref(kind, name))
        return True

    def ref_log(self) -> Iterator[RefChange | Damaged]:
        while True:
            size = self._log.size()
            pending = self._came_to_nothing(self._log.last(size))
            if not pending or self._log.size() == size:  # else that look was of two moments
                break
        return islice(self._log.newest_first(size), int(pending), None)

    def _check_free(self, kind: RefKind, name: str) -> None:
        if self.has_ref(kind, name):
            raise AlreadyThere(f"there is a {kind.word} {name!r} already")

    @contextmanager
    def _logged(
        self,
        kind: RefKind,
        name: str,
        old: RefRecord | None,
        new: RefRecord | None,
        cause: Cause,
        was: str | None = None,
    ) -> Iterator[None]:
        """Log a change of a ref, which the block makes."""
        logged = self._announce(kind, name, old, new, cause, was)
        try:
            yield
        except BaseException:
            self._take_back(logged)
            raise

    def _announce(
        self,
        kind: RefKind,
        name: str,
        old: RefRecord | None,
        new: RefRecord | None,
        cause: Cause,
        was: str | None = None,
    ) -> _Logged:
        """Log a change of a ref that is about to be made."""
        self._settle_log()
        change = RefChange(time.time_ns(), cause.who or default_author(), kind, name, old, new, cause.why, was)
        length = self._log.append(change)
        crash_point("refs.logged")
        return change, length

    def _take_back(self, logged: _Logged) -> None:
        """Remove the line of a change that failed, if it was not made. Should that fail, too, the next line says so."""
        change, length = logged
        with suppress(OSError, VolfsError):
            if self._came_to_nothing(change):
                self._log.withdraw(length)

    def _settle_log(self) -> None:
        """Log what the last line does not say of its ref: that its change never came to be, or what others did."""
        last = self._log.last()
        if last is None:
            return
        with suppress(Damaged):  # one that cannot be read says nothing
            now = self._named(last.kind, last.name)
            if not _same(now, last.new):
                change = RefChange(time.time_ns(), default_author(), last.kind, last.name, last.new, now, _FOUND)
                self._log.append(change)

    def _came_to_nothing(self, change: RefChange | None) -> bool:
        """Whether a change, the last of all, was not made: its ref is what it was before."""
        if change is None or _same(change.old, change.new):
            return False
        with suppress(Damaged):
            now = self._named(change.kind, change.name)
            return _same(now, change.old) and not _same(now, change.new)
        return False

    def _named(self, kind: RefKind, name: str) -> RefRecord | None:
        """What is kept of a ref; None if there is none."""
        try:
            return self.ref(kind, name)
        except NotFound:
            return None

    # -- versions -----------------------------------------------------------------------------------------------

    def versions(self, above: int = 0) -> list[int]:
        names = _names(self._layout.versions)
        unsure = _intents(names)
        # Many thousand may be there: what was told once is not told anew.
        seen = self._seen
        for name in names:
            if name not in seen and (number := parse_version_dir(name)) is not None:
                seen[name] = number
        return sorted(n for name in names if (n := seen.get(name, 0)) > above and n not in unsure)

    def is_version(self, number: int) -> bool:
        # A listing that takes a while may have passed the place of an intent before that came.
        return not self._layout.publish_intent(number).exists() and self._layout.version(number).root.is_dir()

    def highest(self) -> int:
        try:
            number = read_json(self._layout.highest).get("version")
        except NotFound:
            return 0
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= MAX_VERSION:
            raise Damaged(f"{self._layout.highest} does not say which number was the highest")
        return number

    def reserve(self, at_least: int) -> Draft:
        """See :meth:`Ledger.reserve`. Numbers of writers that died are taken again."""
        make_dirs(self._layout.versions)
        number = _free(self._sweep(), self._unused(at_least))
        with no_space("reserving a version"):
            while (lock := self._make_partial(number)) is None:
                number += 1
        draft = Draft(number, partial_dir_name(number), secrets.token_hex(8))
        self._alive[draft.token] = lock
        return draft

    def _make_partial(self, number: int) -> FileLock | None:
        """Make the directory of a partial version, with the held lock in it that says whose it is.

        None if somebody has the number, whose lock is not seen here. It comes whole under its name: whoever sees it can
        tell that it is not dead.
        """
        partial = self._layout.partial(number)
        while True:
            draft = VersionLayout(self._layout.versions / f".{secrets.token_hex(8)}{TRASH}")
            draft.root.mkdir()
            lock = FileLock(draft.lock)
            try:
                lock.lock(Claim.mine().facts())
                draft.root.rename(partial.root)
            except OSError as error:
                lock.release()
                shutil.rmtree(draft.root, ignore_errors=True)
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    return None
                if error.errno != errno.ENOENT:  # which is: somebody swept up, and the draft has no name yet
                    raise
                continue
            lock.moved(partial.lock)
            if lock.in_place:
                return lock
            lock.release()
            throw_away(partial.root)

    def drafts(self) -> list[int]:
        return sorted(n for n in map(parse_partial_dir, _names(self._layout.versions)) if n is not None)

    def draft(self, number: int, token: str) -> Draft:
        return Draft(number, partial_dir_name(number), token)

    def renumber(self, draft: Draft, at_least: int) -> Draft:
        """See :meth:`Ledger.renumber`. Its maker's lock goes along."""
        number = _free(_names(self._layout.versions), self._unused(at_least))
        replace_durably(self._layout.partial(draft.number).root, self._layout.partial(number).root)
        return self.moved(draft, number)

    def moved(self, draft: Draft, number: int) -> Draft:
        if (lock := self._alive.get(draft.token)) is not None:
            lock.moved(self._layout.partial(number).lock)
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
        layout, number = self._layout, draft.number
        lock = self._alive.get(draft.token)
        self._check_expected(branch, expected)
        partial, final = layout.partial(number), layout.version(number)
        if not (partial.root.is_dir() if lock is None else lock.in_place):
            raise taken_away(number)
        intent, head = layout.publish_intent(number), layout.ref(RefKind.BRANCH, branch)
        logged: _Logged | None = None
        write_json(intent, {"version": number, "branch": branch, "by": Claim.mine().facts()})
        try:
            if expected is not None:
                # Putting the old ref back must not need space: the disk may be full by then.
                _keep(head, layout.previous_ref(number))
            replace_durably(partial.root, final.root)
            # Not before: from now on nobody takes it for a version whose writer is dead.
            _check_files(final, number, sizes)
            crash_point("commit.renamed")
            make_dirs(head.parent)
            before, record = self._named(RefKind.BRANCH, branch), RefRecord(number, content_id)
            logged = self._announce(RefKind.BRANCH, branch, before, record, cause or Cause("commit"))
            write_ref(head, record)
            crash_point("commit.ref")
            info = index()
        except BaseException:
            # Other writers wait for the lock, and readers go by the catalog: unless that knows the version (an
            # interrupt came late), nobody has seen it. If undoing fails, the intent stays, and the next to come settles
            # it.
            with suppress(VolfsError, OSError):
                if indexed():
                    self._conclude(number, exists=True)
                else:
                    if expected is None:
                        unlink_durably(head)
                    elif read_ref(head).version == number:
                        replace_durably(layout.previous_ref(number), head)
                    if logged is not None:
                        self._take_back(logged)
                    self._roll_back(number)
            raise
        crash_point("commit.indexed")
        self._conclude(number, exists=True)
        if lock is not None:
            self._alive.pop(draft.token).release()
        return info

    def free_number(self, at_least: int) -> int:
        return _free(self._sweep(), self._unused(at_least))

    def adopt(self, number: int, source: Path) -> None:
        unused = self._unused(0)
        if not 0 < number <= min(MAX_VERSION, unused + _MOST_BETWEEN):
            raise BadInput(f"v{number} cannot be the next version in {self._layout.versions}: the next is v{unused}")
        if self.is_version(number):
            raise AlreadyThere(f"there is a v{number} in {self._layout.versions} already")
        make_dirs(self._layout.versions)
        with no_space("giving a version its place"):
            if unused <= number:  # before it exists: whatever becomes of it, nobody is given its number again
                write_json(self._layout.highest, {"version": number})
            replace_durably(source, self._layout.version(number).root)

    def abandon(self, draft: Draft) -> None:
        lock = self._alive.pop(draft.token, None)
        if lock is None:
            return
        partial = self._layout.partial(draft.number)
        with suppress(OSError, VolfsError):
            if lock.in_place or not partial.lock.exists():  # else it is another's by now
                delete_tree(partial.root)
            self.reclaim()
        lock.release()

    def settle(self, index: Callable[[int], object]) -> list[int]:
        self._retired.settle()
        forward = []
        for number in sorted(_intents(_names(self._layout.versions))):
            intent = self._layout.publish_intent(number)
            committed = self._layout.version(number).root.is_dir() and self._is_named(intent, number)
            if committed:
                index(number)
                forward.append(number)
                crash_point("recover.indexed")
                self._conclude(number, exists=True)
            elif self._is_over(intent, number):
                self._roll_back(number)
        with suppress(NoSpace):  # the next change of a ref does it
            self._settle_log()
        return forward

    def sweep(self) -> None:
        """See :meth:`Ledger.sweep`: what its writer was writing beside it goes too.

        A writer of another machine is gone when nothing of its version has changed for some time.
        """
        self._sweep()

    def _sweep(self) -> list[str]:
        """:meth:`sweep`; the names that are left in ``versions/``."""
        names = _names(self._layout.versions)
        hidden = _hidden(names)
        sweep_temporaries(self._layout.versions, hidden)
        for folder in self._ref_folders():
            sweep_temporaries(folder)
        published_soon = _intents(hidden)
        for name in hidden:
            number = parse_partial_dir(name)
            # What is being published is for :meth:`settle`.
            if number is not None and number not in published_soon and self._is_dead(number):
                throw_away(self._layout.partial(number).root)
                names.remove(name)
        return names

    def reclaim(self) -> None:
        empty_trash(self._layout.versions)

    def bring_up_to_date(self) -> None:
        make_dirs(self._layout.versions)
        if not self._layout.highest.exists():
            refs = (self.ref(kind, name).version for kind in RefKind for name in self._readable(kind))
            write_json(self._layout.highest, {"version": max((*self.versions(), *refs), default=0)})
        self._retired.bring_up_to_date()

    # -- versions that were dropped -----------------------------------------------------------------------------

    def retired(self) -> frozenset[int]:
        return self._retired.numbers()

    def retirement(self, number: int) -> Retirement | None:
        return self._retired.retirement(number)

    def retire(
        self, versions: Mapping[int, str], retirement: Retirement, progress: Callable[[int, int], object]
    ) -> None:
        self._retired.add(versions, retirement, progress)

    def strays(self) -> Iterator[tuple[str, str]]:
        yield from self._retired.wrong()
        try:
            self.highest()
        except Damaged as error:
            yield self._layout.highest.name, f"{error}: the next version that is made mends it"
        for name in sorted(_names(self._layout.versions)):
            partial, intent = parse_partial_dir(name), parse_publish_intent(name)
            if partial is not None:
                if self._is_dead(partial):
                    yield f"versions/{name}", "is half written, and its writer is gone"
            elif intent is not None:
                # Its writer holds the dataset's lock as long as it lives.
                if not FileLock(self._layout.lock).locked_by_other():
                    yield f"versions/{name}", "a version was being published when its writer died"
            elif parse_version_dir(name) is not None:
                yield from self._half_written(f"versions/{name}")
            elif not name.endswith((TRASH, PREVIOUS_REF)):
                yield f"versions/{name}", "does not belong there"
        remotes = self._layout.refs(RefKind.REMOTE)
        for folder in self._ref_folders():
            for name in sorted(_names(folder)):
                of_remote = folder == remotes and is_remote_name(name) and (folder / name).is_dir()
                if not of_remote and (not name.endswith(".json") or name.startswith(".") or folder == remotes):
                    yield (folder / name).relative_to(self._layout.root).as_posix(), "does not belong there"

    # -- inside -------------------------------------------------------------------------------------------------

    def _ref_folders(self) -> list[Path]:
        """The directories in which files of refs lie, and that in which those of remotes do."""
        remotes = self._layout.refs(RefKind.REMOTE)
        inside = (remotes / name for name in sorted(_names(remotes)) if is_remote_name(name))
        return [*map(self._layout.refs, RefKind), *inside]

    def _half_written(self, folder: str) -> Iterator[tuple[str, str]]:
        """Files of a version under the names that they have while they are written: no backend lists them."""
        for where, _, names in os.walk(self._layout.root / folder):
            for name in filter(is_temporary, names):
                path = Path(where, name).relative_to(self._layout.root).as_posix()
                yield path, "was being written when its process died: remove it"

    def _check_expected(self, branch: str, expected: int | None) -> None:
        """Raise Conflict unless the branch stands where a commit onto it began (None: unless there is no such
        branch)."""
        if expected is None:
            if self.has_ref(RefKind.BRANCH, branch):
                raise Conflict(f"branch {branch!r} was made meanwhile: nothing was committed, try again")
            return
        try:
            head = self.ref(RefKind.BRANCH, branch).version
        except NotFound:
            raise Conflict(f"branch {branch!r} was removed meanwhile: nothing was committed") from None
        if head != expected:
            moved = f"moved from {_name(expected)} to {_name(head)} meanwhile"
            raise Conflict(f"branch {branch!r} {moved}: nothing was committed, try again")

    def _unused(self, at_least: int) -> int:
        """The lowest number that no version ever had, as far as is noted, not below ``at_least``."""
        try:
            return max(at_least, self.highest() + 1)
        except Damaged as error:  # those that are there tell, and the next that is published mends it
            log.error("%s", error)
            return at_least

    def _readable(self, kind: RefKind) -> Iterator[str]:
        """Names of the refs that can be read."""
        for name in self.names(kind):
            with suppress(Damaged, NotFound):
                self.ref(kind, name)
                yield name

    def _conclude(self, number: int, *, exists: bool = False) -> None:
        # Its maker's lock stayed in it until now: had it come to nothing, it would have been his again.
        lock = self._layout.version(number).lock
        if lock.exists():
            lock.unlink()
            fsync_dir(lock.parent)
        self._layout.previous_ref(number).unlink(missing_ok=True)
        intent = self._layout.publish_intent(number)
        if exists and self._unused(0) <= number:
            with suppress(FileNotFoundError):  # the process that was settling it died right here
                replace_durably(intent, self._layout.highest)
        else:
            unlink_durably(intent)

    def _roll_back(self, number: int) -> None:
        """Make a version not exist. It is given back to its maker if that lives, as that of an import does when the
        mount that was to publish it died; else it is removed."""
        final, partial = self._layout.version(number), self._layout.partial(number)
        if FileLock(final.lock).locked_by_other():
            replace_durably(final.root, partial.root)
        else:
            throw_away(final.root)
        if not FileLock(partial.lock).locked_by_other():
            throw_away(partial.root)
        self._conclude(number)

    def _is_over(self, intent: Path, number: int) -> bool:
        """Whether nobody can be publishing any more what an intent names. Its writer would hold the dataset's lock,
        which is held here; if it is of another machine, though, that may not mean a thing."""
        claim = None
        with suppress(NotFound, Damaged):
            claim = Claim.parse(read_json(intent).get("by"))
        fate = Fate.GONE if claim is None else claim.fate()
        if fate is Fate.UNKNOWN:
            since = store_clock(self._layout.lock) - int(self._dead_after * 1e9)
            places = (intent, self._layout.version(number).root, self._layout.partial(number).root)
            return not any(changed_since(place, since) for place in places)
        return fate is Fate.GONE

    def _is_named(self, intent: Path, number: int) -> bool:
        """Whether the branch that an intent to publish names stands at its version. An intent that cannot be read may
        have named any branch: nothing can have moved since, so then the branches themselves tell."""
        try:
            branch = read_json(intent).get("branch")
        except NotFound:
            return False
        except Damaged as error:
            log.warning("%s; whether v%d was committed is told by the branches", error, number)
            branch = None
        if isinstance(branch, str) and is_ref_name(branch):
            try:
                return self.ref(RefKind.BRANCH, branch).version == number
            except NotFound:
                return False
        return any(self.ref(RefKind.BRANCH, name).version == number for name in self.names(RefKind.BRANCH))

    def _is_dead(self, number: int) -> bool:
        """Whether nobody writes a partial version any more."""
        partial = self._layout.partial(number)
        return is_abandoned(FileLock(partial.lock), partial.root, store_clock(self._layout.lock), self._dead_after)


def _same(one: RefRecord | None, other: RefRecord | None) -> bool:
    return other is None if one is None else one.names_same(other)


def taken_away(number: int, name: str = "", how: str = "is gone") -> Busy:
    """The error for a version that others took for a dead one while it was being written."""
    what = f"{version_dir_name(number)}/{name}" if name else f"the directory of v{number}"
    return Busy(
        f"{what} {how}: another machine took the version for abandoned while it was written; nothing was committed: try"
        " again, and see with `volfs doctor` whether the store's filesystem shares locks"
    )


def _check_files(layout: VersionLayout, number: int, sizes: Mapping[str, int]) -> None:
    """Raise Busy unless every file of a version is there, with its size."""
    for name, size in sizes.items():
        if name == layout.lock.name:
            continue  # its maker's, which goes
        try:
            found = (layout.root / name).lstat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise taken_away(number, name) from None
        if found != size:
            raise taken_away(number, name, f"has {found} bytes instead of {size}")


def _keep(ref: Path, previous: Path) -> None:
    """A second name for a ref as it is; a copy where the filesystem knows no links."""
    previous.unlink(missing_ok=True)
    try:
        previous.hardlink_to(ref)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"no space left publishing a version: free some and try again ({ref})") from error
        write_atomic(previous, read_file(ref))


def _free(names: Sequence[str], at_least: int) -> int:
    """The next number that none of the names in ``versions/`` takes: published, partial or between the two."""
    # Every commit asks, and many thousand versions may be there: only the few names that can matter are looked at.
    first = version_dir_name(at_least)
    shown = [name for name in names if name >= first or len(name) > len(first)]
    hidden = [parse(name) for name in _hidden(names) for parse in (parse_partial_dir, parse_publish_intent)]
    taken = [number for number in (*map(parse_version_dir, shown), *hidden) if number is not None]
    return max(at_least, 1 + max(taken, default=0))


def _is_file_name(kind: RefKind, name: str) -> bool:
    """Whether a name, even one that an older volfs allowed, can be that of a ref's file."""
    return kind.takes(name) if kind is RefKind.REMOTE else "/" not in name and "\0" not in name


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _intents(names: Sequence[str]) -> set[int]:
    """Numbers of the versions that intents to publish name."""
    return {number for number in map(parse_publish_intent, _hidden(names)) if number is not None}


def _hidden(names: Sequence[str]) -> list[str]:
    """Names that begin with a dot, in order: everything that passes, a handful among many thousand versions."""
    return sorted([name for name in names if name[0] == "."])


def _name(number: int) -> str:
    return f"v{number}" if number else "no version"
