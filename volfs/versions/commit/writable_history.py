"""The dataset and its branches as those know them who add versions: Protocols.

Decided here: what commit, import and recovery ask beyond reading versions (:mod:`volfs.versions.history`). It is
answered by :class:`volfs.versions.dataset.Dataset` and :class:`volfs.versions.branch.Branch`, which stand above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from volfs.versions.committed.version import Version
from volfs.versions.history import History

if TYPE_CHECKING:
    from volfs.model.graph import VersionInfo
    from volfs.model.refs import Refs
    from volfs.storage.manifest import Manifest
    from volfs.versions.committed.version_files import StoredVersion
    from volfs.versions.rules import Rules
    from volfs.versions.snapshot import Derive
    from volfs.versions.working.interpreter import Interpreter
    from volfs.versions.working.status import Behind
    from volfs.versions.working.union import Union
    from volfs.versions.working.working_copy import WorkingCopy

Progress = Callable[[int, int, str], object]
"""Called with the number of versions indexed, the number of all that are to be, and the dataset's name."""


class WritableHistory(History[Version], Protocol):
    """One dataset whose history can grow."""

    def locked(
        self, patience: float | None = None, *, progress: Progress | None = None
    ) -> AbstractContextManager[None]:
        """Hold the dataset's lock: for moments, while a number is reserved, a version published or a ref changed.

        The catalog then knows what other processes did. Busy if another process keeps the lock ``patience`` seconds.
        """

    @property
    def rules(self) -> Rules:
        """What is asked of new versions. Raises Damaged."""

    def check_itself(self) -> None:
        """Raise NotFound if the dataset was removed, or if another has its name by now."""

    def refs(self) -> Refs:
        """Branches and tags, with the number of the version that each names; 0: a branch without a version."""

    def named_by_file(self, branch: str) -> int | None:
        """The version that a branch's own file names, 0 for none; None if there is no such branch. Raises Damaged."""

    def keep_up(self, branch: str) -> None:
        """Catch up if the catalog has another head for a branch than its file, whose lock the caller holds.

        NotFound if the branch does not exist, or was removed.
        """

    def resolve(self, ref: str | int) -> int:
        """The number of the version that a ref expression names. Raises NotFound."""

    def drop(self, *versions: str | int, why: str = "dropped") -> list[int]:
        """Drop versions that no branch or tag names: they are listed no more, and what they alone show goes in time."""

    def create_branch(self, name: str, at: str | int | None = None, *, who: str = "") -> None:
        """Make a branch at a version. Raises AlreadyThere."""

    def forget_branch(self, name: str) -> None:
        """Remove a branch that nobody writes to, if there is one, whatever it names."""

    def conflicts(self, number: int) -> tuple[Mapping[str, Any], ...]:
        """What version ``number`` has left open, as its ``version.json`` has it."""

    def is_open(self, number: int) -> bool:
        """Whether a version has open conflicts. One whose document cannot be read has none: reading it says why."""

    def forward_branch(self, name: str, number: int, expected: int, why: str) -> None:
        """Have a branch whose lock is held name another version that exists. Conflict unless it names ``expected``."""

    def next_number(self) -> int:
        """The number after the newest version that the catalog knows."""

    def index(self, stored: StoredVersion, manifest: Manifest, heads: Mapping[str, int] | None = None) -> VersionInfo:
        """Add a version to the catalog, in one transaction with the heads given. Idempotent."""

    def index_stored(self, number: int) -> VersionInfo:
        """Add a version that lies on disk to the catalog, with the refs as they are now. Idempotent."""

    def dropped(self) -> frozenset[int]:
        """Numbers of the versions that were dropped."""

    def mirror_refs(self) -> None:
        """Make the catalog's mirror equal the ref files. Call with the dataset's lock held."""

    def branch(self, name: str) -> WritableBranch:
        """The branch of that name with its working copy. Raises NotFound."""


class WritableBranch(Protocol):
    """One branch, whose head a commit or an import is to move."""

    @property
    def dataset(self) -> WritableHistory:
        """The dataset of the branch."""

    @property
    def ref(self) -> str:
        """The branch's name."""

    @property
    def head(self) -> VersionInfo | None:
        """The branch's newest version; None while nothing is committed."""

    @property
    def working(self) -> WorkingCopy:
        """The branch's uncommitted changes."""

    @property
    def interpreter(self) -> Interpreter:
        """Knows the meaning of keys in the working copy."""

    @property
    def turn(self) -> Lock:
        """Held by the thread that moves the head: the branch's own lock lets in all threads of its process."""

    @property
    def derive(self) -> Derive:
        """Adds to a commit the keys that are computed from others."""

    def base_version(self) -> Version | None:
        """The version that the working copy lies over; None while there is none."""

    def left_behind(self, union: Union) -> frozenset[str]:
        """Keys and whole directories that a commit now leaves in the working copy: a writer has files open there."""

    def writing(self) -> AbstractContextManager[None]:
        """Be the only writer for the length of a block; waits some seconds for another that is not a mount."""

    def follow(self) -> Behind | None:
        """Move the base to the head, or return the changes that keep it from following. Only with the lock."""

    def check_clean(self) -> None:
        """Raise Busy unless all of it is committed. Only with the lock."""

    def catch_up(self) -> None:
        """Follow a head that another process moved, if this process may write now."""

    def publish(self, number: int, token: str) -> VersionInfo:
        """Make a version the head, here or by the mount that holds the branch: one that was prepared, or one that
        exists, by the token of a :class:`volfs.versions.commit.head_move.HeadMove`. Raises Conflict, Busy."""

    def carry_over(self, number: int) -> VersionInfo:
        """Make what a version has changed since its parent the branch's next version, in its words, here or by the
        mount that holds the branch. MergeConflict where both have changed the same; then nothing has changed."""
