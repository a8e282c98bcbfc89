"""How a complete version gets its place: the few steps that make it exist, and what is done when they were cut short.

Decided here: the order of rename, ref and index, all under the dataset's lock, and that a process which dies between
them leaves a store that the next one mends. Not decided here: how a version is written
(:mod:`volfs.versions.commit.version_writer`), nor what becomes of a working copy
(:mod:`volfs.versions.commit.protocol`).

Under the lock of the dataset:

1. the intent ``versions/.N.publish.json`` is written, naming the branch;
2. ``.N.partial`` is renamed to ``N``;
3. the ref of the branch is replaced: **the commit point**;
4. the catalog indexes the version, in one transaction with its mirror of the ref;
5. the lock of the version's maker, which lay in it until now, is removed, and then the intent.

Whoever takes the lock and finds an intent knows that its writer is dead, and calls :func:`settle`: a ref that names
version N means N is committed, so it is indexed; else N never was, and is removed, or given back to a living maker.
Nothing that no intent names is touched. A partial version whose writer no longer holds the lock inside it is dead too:
:func:`remove_dead_partials`.

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
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from volfs.errors import Busy, Conflict, Damaged, NoSpace, NotFound, VolfsError
from volfs.model.graph import VersionInfo
from volfs.model.names import is_ref_name
from volfs.model.refs import RefKind
from volfs.storage.claim import DAY_SECONDS, Claim, Fate, changed_since, is_abandoned, store_clock
from volfs.storage.crash import crash_point
from volfs.storage.files import (
    FileLock,
    fsync_dir,
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
    DatasetLayout,
    VersionLayout,
    parse_partial_dir,
    parse_publish_intent,
    parse_version_dir,
    version_dir_name,
)
from volfs.versions.commit.writable_history import WritableHistory
from volfs.versions.ref_file import read_ref, write_ref

log = logging.getLogger(__name__)

TRASH = ".trash"
"""Ending of a name given to what is being deleted: whatever holds such a name is nobody's any more."""


def reserve(layout: DatasetLayout, at_least: int, *, dead_after: float = DAY_SECONDS) -> tuple[int, FileLock]:
    """Take the next free version number, not below ``at_least``: a partial directory and the held lock inside it.

    Numbers of writers that died are taken again: what tells two writers of one number apart is their token.

    Call with the dataset's lock held. ``dead_after``: see :func:`remove_dead_partials`.
    """
    make_dirs(layout.versions)
    names = _names(layout.versions)
    if remove_dead_partials(layout, names, dead_after=dead_after):
        names = _names(layout.versions)
    number = max(at_least, 1 + max(_numbers(names, at_least), default=0))
    with no_space("reserving a version"):
        while (lock := _make_partial(layout, number)) is None:
            number += 1
    return number, lock


def _make_partial(layout: DatasetLayout, number: int) -> FileLock | None:
    """Make the directory of a partial version, with the held lock in it that says whose it is.

    None if somebody has the number, whose lock is not seen here. It comes whole under its name: whoever sees it can
    tell that it is not dead.
    """
    partial = layout.partial(number)
    while True:
        draft = VersionLayout(layout.versions / f".{secrets.token_hex(8)}{TRASH}")
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


def publish(
    dataset: WritableHistory,
    number: int,
    lock: FileLock | None,
    *,
    branch: str,
    expected: int | None,
    content_id: str,
    files: Mapping[str, int],
    index: Callable[[], VersionInfo],
) -> VersionInfo:
    """Give the complete, synced partial version ``number`` its place on ``branch``, which must stand at ``expected``;
    None makes the branch.

    ``lock`` is the one inside it; None if another process, its maker, holds that. ``content_id`` is the version's;
    ``files`` are the sizes of all that is in its directory; ``index`` makes the catalog know it. Call with the
    dataset's lock held; taking it has settled what others left. Raises Conflict, and changes nothing, when the branch
    has moved; Busy when others took files of the version away.
    """
    layout = dataset.layout
    check_expected(layout, branch, expected)
    partial, final = layout.partial(number), layout.version(number)
    if not (partial.root.is_dir() if lock is None else lock.in_place):
        raise taken_away(dataset, number)
    intent = layout.publish_intent(number)
    write_json(intent, {"version": number, "branch": branch, "by": Claim.mine().facts()})
    try:
        if expected is not None:
            # Putting the old ref back must not need space: the disk may be full by then.
            _keep(layout.head(branch), layout.previous_ref(number))
        replace_durably(partial.root, final.root)
        # Not before: from now on nobody takes it for a version whose writer is dead.
        _check_files(dataset, final, number, files)
        crash_point("commit.renamed")
        write_ref(layout.head(branch), number, content_id)
        crash_point("commit.ref")
        info = index()
    except BaseException:
        # Other writers wait for the lock, and readers go by the catalog: unless that knows the version (an interrupt
        # came late), nobody has seen it. If undoing fails, the intent stays, and the next to come settles it.
        with suppress(VolfsError, OSError):
            if number in dataset.graph:
                _conclude(layout, number)
            else:
                if expected is None:
                    unlink_durably(layout.head(branch))
                elif read_ref(layout.head(branch)) == number:
                    replace_durably(layout.previous_ref(number), layout.head(branch))
                _roll_back(layout, number)
        raise
    crash_point("commit.indexed")
    _conclude(layout, number)
    if lock is not None:
        lock.release()
    return info


def _check_files(dataset: WritableHistory, layout: VersionLayout, number: int, files: Mapping[str, int]) -> None:
    """Raise Busy unless every file of a version is there, with its size."""
    for name, size in files.items():
        try:
            found = (layout.root / name).lstat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise taken_away(dataset, number, name) from None
        if found != size:
            raise taken_away(dataset, number, name, f"has {found} bytes instead of {size}")


def taken_away(dataset: WritableHistory, number: int, name: str = "", how: str = "is gone") -> VolfsError:
    """The error for a version of which something is not there any more: NotFound if the dataset is not; else others
    took it for a dead one while it was being written."""
    try:
        dataset.check_itself()
    except NotFound as error:
        return NotFound(f"{error}, while v{number} of it was being written: nothing was committed")
    what = f"{version_dir_name(number)}/{name}" if name else f"the directory of v{number}"
    return Busy(
        f"{what} {how}: another machine has taken it away while it was written (does its filesystem share locks?"
        " `volfs doctor` tells); nothing was committed, try again"
    )


def _keep(ref: Path, previous: Path) -> None:
    """A second name for a ref as it is; a copy where the filesystem knows no links."""
    previous.unlink(missing_ok=True)
    try:
        previous.hardlink_to(ref)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"no space left publishing a version: free some and try again ({ref})") from error
        write_atomic(previous, read_file(ref))


def renumber(layout: DatasetLayout, number: int, at_least: int) -> int:
    """Give a partial version the next free number, not below ``at_least``. Call with the dataset's lock held.

    Its maker's lock goes along. Returns the number.
    """
    free = max(at_least, 1 + max(_numbers(_names(layout.versions), at_least), default=0))
    replace_durably(layout.partial(number).root, layout.partial(free).root)
    return free


def _conclude(layout: DatasetLayout, number: int) -> None:
    # Its maker's lock stayed in it until now: had it come to nothing, it would have been his again.
    lock = layout.version(number).lock
    if lock.exists():
        lock.unlink()
        fsync_dir(lock.parent)
    layout.previous_ref(number).unlink(missing_ok=True)
    unlink_durably(layout.publish_intent(number))


def check_expected(layout: DatasetLayout, branch: str, expected: int | None) -> None:
    """Raise Conflict unless the branch stands where a commit onto it began (None: unless there is no such branch)."""
    if expected is None:
        if os.path.lexists(layout.head(branch)):
            raise Conflict(f"branch {branch!r} was made meanwhile: nothing was committed, try again")
        return
    try:
        head = read_ref(layout.head(branch))
    except NotFound:
        raise Conflict(f"branch {branch!r} was removed meanwhile: nothing was committed") from None
    if head != expected:
        moved = f"moved from {_name(expected)} to {_name(head)} meanwhile"
        raise Conflict(f"branch {branch!r} {moved}: nothing was committed, try again")


def settle(dataset: WritableHistory) -> list[int]:
    """Finish or undo what processes that died while publishing left. Call with the dataset's lock held.

    Returns the numbers that were rolled forward.
    """
    layout = dataset.layout
    forward = []
    for number in pending(layout):
        intent = layout.publish_intent(number)
        committed = layout.version(number).root.is_dir() and _is_named(layout, intent, number)
        if committed:
            dataset.index_stored(number)
            forward.append(number)
            crash_point("recover.indexed")
            _conclude(layout, number)
        elif _is_over(dataset, intent, number):
            _roll_back(layout, number)
    return forward


def _is_over(dataset: WritableHistory, intent: Path, number: int) -> bool:
    """Whether nobody can be publishing any more what an intent names. Its writer would hold the dataset's lock, which
    is held here; if it is of another machine, though, that may not mean a thing."""
    claim = None
    with suppress(NotFound, Damaged):
        claim = Claim.parse(read_json(intent).get("by"))
    fate = Fate.GONE if claim is None else claim.fate()
    if fate is Fate.UNKNOWN:
        since = store_clock(dataset.layout.lock) - int(dataset.store.dead_after * 1e9)
        places = (intent, dataset.layout.version(number).root, dataset.layout.partial(number).root)
        return not any(changed_since(place, since) for place in places)
    return fate is Fate.GONE


def _is_named(layout: DatasetLayout, intent: Path, number: int) -> bool:
    """Whether the branch that an intent to publish names stands at its version. An intent that cannot be read may have
    named any branch: nothing can have moved since, so then the branches themselves tell."""
    try:
        branch = read_json(intent).get("branch")
    except NotFound:
        return False
    except Damaged as error:
        log.warning("%s; whether v%d was committed is told by the branches", error, number)
        branch = None
    if isinstance(branch, str) and is_ref_name(branch):
        try:
            return read_ref(layout.head(branch)) == number
        except NotFound:
            return False
    return any(read_ref(path) == number for path in layout.heads.glob("[!.]*.json"))


def pending(layout: DatasetLayout) -> list[int]:
    """Numbers of the versions that an intent to publish names."""
    return sorted(n for n in map(parse_publish_intent, _hidden(layout.versions)) if n is not None)


def published(layout: DatasetLayout, *, but: Collection[str] = frozenset()) -> list[int]:
    """Numbers of the versions on disk, in order, those with an intent to publish left out.

    ``but`` are directories that need no look: the cost of the rest is small beside that of telling many thousand.
    """
    names = [name for name in _names(layout.versions) if name not in but]
    unsure = {n for n in map(parse_publish_intent, _hidden_of(names)) if n is not None}
    return sorted(n for n in map(parse_version_dir, names) if n is not None and n not in unsure)


def is_untouched(layout: DatasetLayout) -> bool:
    """Whether a dataset is as it was made: no version, no tag, and nothing in a working copy."""
    try:
        committed = any(read_ref(path) for kind in RefKind for path in layout.refs(kind).glob("*.json"))
    except Damaged:
        return False
    loose = (path for folder in ("top", "staged", "frozen-*") for path in layout.workings.glob(f"*/{folder}/**/*"))
    return not committed and not any(path.is_file() for path in loose)


def remove_dead_partials(
    layout: DatasetLayout, names: Sequence[str] | None = None, *, dead_after: float = DAY_SECONDS
) -> list[int]:
    """Throw away partial versions whose writer is gone, and what it was writing beside them. Call with the dataset's
    lock held. Returns their numbers.

    A writer of another machine is gone when nothing of its version has changed for ``dead_after`` seconds.
    ``names``: of the directory of versions, if they are known.
    """
    hidden = _hidden_of(_names(layout.versions) if names is None else names)
    sweep_temporaries(layout.versions, hidden)
    for kind in RefKind:
        sweep_temporaries(layout.refs(kind))
    published_soon = {n for n in map(parse_publish_intent, hidden) if n is not None}
    removed = []
    for name in hidden:
        number = parse_partial_dir(name)
        # What is being published is for :func:`settle`.
        if number is not None and number not in published_soon and is_dead(layout, number, dead_after):
            throw_away(layout.partial(number).root)
            removed.append(number)
    return removed


def is_dead(layout: DatasetLayout, number: int, dead_after: float) -> bool:
    """Whether nobody writes a partial version any more."""
    partial = layout.partial(number)
    return is_abandoned(FileLock(partial.lock), partial.root, store_clock(layout.lock), dead_after)


def throw_away(path: Path) -> Path | None:
    """Take a directory's name away, durably. What it holds is deleted later: that may take long, this does not.

    Returns where it lies now, None if there was nothing.
    """
    trash = path.with_name(f".{path.name.lstrip('.')[:180]}.{secrets.token_hex(4)}{TRASH}")
    try:
        replace_durably(path, trash)
    except FileNotFoundError:
        return None
    return trash


def empty_trash(folder: Path) -> None:
    """Delete what was thrown away in a directory, whoever did. Needs no lock."""
    for name in _hidden(folder):
        if name.endswith(TRASH):
            shutil.rmtree(folder / name, ignore_errors=True)


def delete_tree(path: Path) -> None:
    """Remove a directory so that it is gone at once under its name, and for good should the process die meanwhile."""
    trash = throw_away(path)
    if trash is not None:
        shutil.rmtree(trash, ignore_errors=True)


def _roll_back(layout: DatasetLayout, number: int) -> None:
    """Have a version not exist. If its maker is alive, as that of an import is when the mount that was to publish it
    died, it is his again; else it goes."""
    final, partial = layout.version(number), layout.partial(number)
    if FileLock(final.lock).locked_by_other():
        replace_durably(final.root, partial.root)
    else:
        throw_away(final.root)
    if not FileLock(partial.lock).locked_by_other():
        throw_away(partial.root)
    _conclude(layout, number)


def _numbers(names: Sequence[str], at_least: int) -> list[int]:
    """The numbers from ``at_least`` on that are taken: published, partial or between the two."""
    # Every commit asks, and many thousand versions may be there: only the few names that can matter are looked at.
    first = version_dir_name(at_least)
    shown = [name for name in names if name >= first or len(name) > len(first)]
    found = [parse(name) for name in _hidden_of(names) for parse in (parse_partial_dir, parse_publish_intent)]
    return [number for number in (*map(parse_version_dir, shown), *found) if number is not None]


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _hidden(folder: Path) -> list[str]:
    """Names that begin with a dot, in order: everything that passes, a handful among many thousand versions."""
    return _hidden_of(_names(folder))


def _hidden_of(names: Sequence[str]) -> list[str]:
    return sorted([name for name in names if name[0] == "."])


def _name(number: int) -> str:
    return f"v{number}" if number else "no version"
