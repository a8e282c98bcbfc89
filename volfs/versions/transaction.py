"""A block of changes to a branch that becomes one version, or nothing.

Decided here: that such a block begins with a branch that has no uncommitted changes, so that what the block did can be
told from what was there, and that an error in it takes back all. Not here: the commit itself
(:mod:`volfs.versions.branch_actions`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from volfs.errors import Busy
from volfs.model.graph import VersionInfo
from volfs.model.names import check_message


class Transaction:
    """What came of a block: :attr:`version`, once it has ended; None if it changed nothing."""

    def __init__(self) -> None:
        self.version: VersionInfo | None = None


class CleanBranch(Protocol):
    """A branch as a transaction knows it."""

    @property
    def ref(self) -> str: ...

    def writing(self) -> AbstractContextManager[None]: ...

    def is_clean(self) -> bool: ...

    def undo(self) -> None:
        """Take back every uncommitted change."""

    def commit(self, message: str, author: str | None = None) -> VersionInfo: ...


@contextmanager
def transaction(branch: CleanBranch, message: str, author: str | None) -> Iterator[Transaction]:
    """See :meth:`volfs.versions.branch.Branch.transaction`."""
    check_message(message)
    with branch.writing():
        if not branch.is_clean():
            raise Busy(f"branch {branch.ref!r} has uncommitted changes: commit or discard them first")
        outcome = Transaction()
        try:
            yield outcome
        except BaseException:
            branch.undo()
            raise
        if not branch.is_clean():
            outcome.version = branch.commit(message, author)
