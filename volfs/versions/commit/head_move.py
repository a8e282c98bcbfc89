"""A branch's head moves to a version that exists already: a fast-forward, or what replaces it on purpose.

Decided here: that it moves only from where it was expected to stand, only forward unless that was asked for, and never
under uncommitted changes that touch what moves. Not here: who holds the branch
(:mod:`volfs.versions.branch_actions`), and how the base of the working copy follows
(:mod:`volfs.versions.commit.follower`).
"""

from __future__ import annotations

from dataclasses import dataclass

from volfs.errors import BadInput, Conflict
from volfs.model.graph import VersionInfo
from volfs.model.refs import RefKind
from volfs.storage.crash import crash_point
from volfs.versions.commit.movement import base_of, moved
from volfs.versions.commit.overlap import CommittedSide, Overlap, WorkingSide, named, overlap
from volfs.versions.commit.protocol import settle_own
from volfs.versions.commit.writable_history import WritableBranch
from volfs.versions.ledger import Cause, RefRecord
from volfs.versions.working.union import Union

_PATIENCE = 3600.0
_FORWARD, _FORCED, _CLEAN = "forward", "forced", "clean"


@dataclass(frozen=True, slots=True)
class HeadMove:
    """The order to make version ``to`` the head of a branch whose head is ``expected`` (0: it has none). ``forced``:
    also if it does not descend from that."""

    to: int
    expected: int
    forced: bool = False
    clean: bool = False
    """Only if all of the branch is committed."""

    @property
    def token(self) -> str:
        """The order as the token beside a number, as a mount is told to publish."""
        return f"{_CLEAN if self.clean else _FORCED if self.forced else _FORWARD} {self.expected}"

    @classmethod
    def parse(cls, number: int, token: str) -> HeadMove | None:
        """The order that a token is; None if it is that of a prepared version."""
        word, _, expected = token.partition(" ")
        if word not in (_FORWARD, _FORCED, _CLEAN):
            return None
        if not expected.isdecimal() or len(expected) > 18:
            raise BadInput(f"{token!r} does not say where the branch stands")
        return cls(number, int(expected), word != _FORWARD, word == _CLEAN)


def move_head(branch: WritableBranch, move: HeadMove) -> VersionInfo:
    """Carry out the order; the caller holds the lock. Again is fine. Conflict, and nothing has changed, if the branch
    stands elsewhere, would not move forward, or has uncommitted changes to what would move."""
    dataset = branch.dataset
    if move.to not in dataset.graph:
        with dataset.locked():
            pass  # taking it catches up with the process that has received the version
    info = dataset.info(move.to)
    with branch.turn:
        settle_own(branch)
        branch.follow()
        here = branch.head.number if branch.head is not None else 0
        if here == move.to:
            return info
        if here != move.expected:
            raise Conflict(
                f"branch {branch.ref!r} has moved to {_name(here)} meanwhile: nothing was changed, try again"
            )
        forward = not here or dataset.graph.is_ancestor(here, move.to)
        dataset.rules.check_moves(branch.ref, forward)
        if not forward and not move.forced:
            raise Conflict(f"v{move.to} does not descend from {_name(here)}, the head of branch {branch.ref!r}")
        if move.clean:
            branch.check_clean()
        else:
            _check_uncommitted(branch, move.to)
        with dataset.locked(patience=_PATIENCE):
            record = RefRecord(move.to, info.content_id)
            why = "replaced by another line of versions" if move.forced else "moved forward"
            cause = Cause(f"branch -f: moved to v{move.to}" if move.clean else why)
            dataset.ledger.set_ref(RefKind.BRANCH, branch.ref, record, here, cause)
            crash_point("head.moved")
            dataset.mirror_refs()
        branch.follow()
    return info


def _check_uncommitted(branch: WritableBranch, to: int) -> None:
    """Raise Conflict if uncommitted changes touch what differs between their base and a version."""
    newer = branch.dataset.version(to)

    def see(union: Union) -> Overlap:
        base = base_of(union)
        if next(union.changes(), None) is None:
            return Overlap(frozenset(), {})  # the versions between are not looked at
        movement = moved(branch.dataset, 0 if base is None else base.number, to)
        return overlap(base, WorkingSide(union, branch.interpreter), CommittedSide(base, newer, movement))

    keys = sorted(branch.working.look(see).keys)
    if keys:
        raise Conflict(
            f"branch {branch.ref!r} has uncommitted changes to keys that differ in v{to}: {named(keys)}; commit or"
            " discard them first"
        )


def _name(number: int) -> str:
    return f"v{number}" if number else "no version"
