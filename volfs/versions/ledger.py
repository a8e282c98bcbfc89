"""One dataset's truth about its refs and its numbers: the port through which everything above asks and changes it.

Decided here: what a ledger promises. A version *exists* once its ledger lists it, for as long as the dataset does: one
that was dropped is *retired*, which is said of it and takes nothing away. No number is given to a second version, not
even when somebody has taken the first away by hand. A branch or tag *is* what its ledger says. Every catalog mirrors
that. Not here: what is in a version (its objects are in a
:class:`~volfs.storage.backend.Backend`), what the number in a ref means (:mod:`volfs.versions.dataset`), and who may
write to a branch. A directory is one ledger (:mod:`volfs.versions.commit.publish`), memory another
(:mod:`volfs.testing.memory_ledger`); whoever writes a third has
:class:`volfs.testing.ledger_conformance.LedgerConformance` judge it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from volfs.errors import Damaged
from volfs.model.refs import RefKind

T = TypeVar("T")

_FINE_NS, _COARSE_NS = 50_000_000, 2_000_000_000
"""Two changes within that time may leave a medium with one time; the longer where times are whole seconds."""


@dataclass(frozen=True, slots=True)
class RefRecord:
    """What is kept of a branch or a tag. ``version`` is 0 for a branch that has none yet; ``content_id`` is None where
    it is not known. ``sealed``: the record is whole, and proved by a checksum."""

    version: int
    content_id: str | None = None
    sealed: bool = True

    def names_same(self, other: RefRecord | None) -> bool:
        """Whether both name the same version, as far as is known."""
        if other is None or self.version != other.version:
            return False
        return None in (self.content_id, other.content_id) or self.content_id == other.content_id


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a ref changes, and who has it changed: for the log of refs. "": the user whose process this is."""

    why: str
    who: str = ""


@dataclass(frozen=True, slots=True)
class RefChange:
    """One change of a ref. ``old`` is None for a new one, ``new`` for one that was removed; ``was``: the name that it
    had before, if it was renamed."""

    time_ns: int
    who: str
    kind: RefKind
    name: str
    old: RefRecord | None
    new: RefRecord | None
    why: str
    was: str | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A version being written, which nobody sees. Its objects lie in ``folder``, below ``versions/``. ``token`` tells
    its writer from any other that had the number before."""

    number: int
    folder: str
    token: str


@dataclass(frozen=True, slots=True)
class Retirement:
    """That a version was dropped: when, by the clock of the medium, by whom, and why. ``content_id``: which version."""

    time_ns: int
    who: str
    why: str
    content_id: str = ""


@dataclass(frozen=True, slots=True)
class Stamp:
    """Equal values mean that no version or ref has come, gone, moved or been retired. ``changed_ns``: when one did
    last, by the clock of the medium; 0 if every change makes another value."""

    value: Hashable
    changed_ns: int

    def settled(self, now_ns: int) -> bool:
        """Whether a change after ``now_ns`` must show as another value."""
        return now_ns - self.changed_ns > (_FINE_NS if self.changed_ns % 10**9 else _COARSE_NS)


class Ledger(Protocol):
    """Thread-safe, and shared by all processes that have the dataset open. What says "locked" is called in
    :meth:`locked`."""

    def locked(self, patience: float) -> AbstractContextManager[int]:
        """Be the only one who changes refs and numbers, for moments; the time now (ns), by the clock of the medium.
        Busy if others are for ``patience`` seconds, NotFound if the dataset was removed."""

    def stamp(self) -> Stamp:
        """Changes with anything that this ledger says of refs and versions. Cheap."""

    # -- refs ---------------------------------------------------------------------------------------------------

    def names(self, kind: RefKind) -> list[str]:
        """Names of all refs of a kind, sorted, damaged ones too."""

    def has_ref(self, kind: RefKind, name: str) -> bool:
        """Whether there is such a ref, if perhaps a damaged one. Cheap."""

    def ref(self, kind: RefKind, name: str) -> RefRecord:
        """What is kept of a ref. Raises NotFound, or Damaged with how to mend it."""

    def where(self, kind: RefKind, name: str) -> str:
        """How a message names a ref: so that a person finds it."""

    def set_ref(
        self, kind: RefKind, name: str, record: RefRecord, expected: int | None, cause: Cause | None = None
    ) -> None:
        """Make a ref durably what ``record`` says. ``expected``: the version that it names until now, else Conflict;
        None makes a new one, AlreadyThere if there is one. Locked.

        Every change of a ref is logged (:meth:`ref_log`), but one that only says more of the same version."""

    def rename_ref(self, kind: RefKind, name: str, new_name: str, cause: Cause | None = None) -> None:
        """Give a ref another name, durably and in one step. NotFound if there is none, AlreadyThere if a ref of its
        kind has the new name. Locked."""

    def drop_ref(self, kind: RefKind, name: str, cause: Cause | None = None) -> bool:
        """Remove a ref, whatever it says, durably. False if there is none. Locked."""

    def ref_log(self) -> Iterator[RefChange | Damaged]:
        """Every change of a ref, newest first, also of refs that are gone; damage in place of what cannot be read.

        A change is logged no later than it is made, and no change that came to nothing is shown. One that was made by
        other means (by hand, by a volfs that kept no log) is seen at the next change, if at all."""

    # -- versions -----------------------------------------------------------------------------------------------

    def versions(self, above: int = 0) -> list[int]:
        """Numbers of the versions that exist and are greater than ``above``, ascending."""

    def is_version(self, number: int) -> bool:
        """Whether one exists, and is not about to come to nothing."""

    def highest(self) -> int:
        """The highest number that a version ever had; 0 while there was none. Raises Damaged."""

    def reserve(self, at_least: int) -> Draft:
        """Begin a version: under the next number that nobody has or a version ever had, not below ``at_least``.
        Locked."""

    def drafts(self) -> list[int]:
        """Numbers of the versions that are being written, by whomever, ascending."""

    def draft(self, number: int, token: str) -> Draft:
        """A version that another process is writing, which has told its number and token."""

    def renumber(self, draft: Draft, at_least: int) -> Draft:
        """Give a version, whoever is writing it, the next free number, not below ``at_least``, and all its objects
        their new folder. Locked."""

    def moved(self, draft: Draft, number: int) -> Draft:
        """This process's draft, to which another process has given another number."""

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
        """Have a version exist, as the head of ``branch``: all of it at once, durably. Its objects are then in the
        folder of its number. Locked.

        ``expected``: the version that the branch names until now, else Conflict; None makes the branch. ``sizes``: of
        all objects of the version, by name; Busy if one is not as it should be. When the branch has moved ``index``
        runs, whose result is returned; if it raises, and ``indexed`` is false, nothing has changed. A process that dies
        in between leaves what :meth:`settle` finishes or undoes.
        """

    def free_number(self, at_least: int) -> int:
        """The next number that nobody has, not below ``at_least``. Locked: as long as it is, those after it are free,
        too."""

    def adopt(self, number: int, source: Path) -> None:
        """Have a version exist that lies complete and durable in a directory of this machine, under a free number: all
        of it at once, durably. No ref names it. The directory is gone then. Locked. If the process dies meanwhile, the
        version exists or is in the directory still. BadInput for a number that cannot be the next, AlreadyThere for one
        that a version has: then nothing has changed."""

    def abandon(self, draft: Draft) -> None:
        """Give up this process's draft, with all its objects. One that exists by now, or is another's, stays."""

    def settle(self, index: Callable[[int], object]) -> list[int]:
        """Finish or undo what processes that died while publishing or retiring left; the numbers that exist now, each
        given to ``index``. Locked."""

    def sweep(self) -> None:
        """Give up the drafts of processes that are gone. Locked."""

    def reclaim(self) -> None:
        """Free the space of what was given up. May take long."""

    def bring_up_to_date(self) -> None:
        """Note down what an older volfs did not, and a new dataset has from the start. Idempotent. Locked."""

    # -- versions that were dropped -----------------------------------------------------------------------------

    def retired(self) -> frozenset[int]:
        """Numbers of the versions that were dropped. They exist still. Cheap while there is no new one."""

    def retirement(self, number: int) -> Retirement | None:
        """When and why a version was dropped; None if it was not. Raises Damaged."""

    def retire(
        self, versions: Mapping[int, str], retirement: Retirement, progress: Callable[[int, int], object]
    ) -> None:
        """Drop versions, durably and all of them: a process that dies in between leaves what :meth:`settle` finishes.
        ``versions``: their content ids, by number. One that is retired already stays as it is. ``progress`` is told how
        many are done, of how many. Locked."""

    def strays(self) -> Iterator[tuple[str, str]]:
        """What is kept and should not be there, or was left half done: (where, what), for a check."""
