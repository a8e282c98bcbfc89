"""An action of a branch that is under way: a commit, a discard or another that a control file asked for."""

from __future__ import annotations

import trio

from volfs.tree.branches.draft import Draft
from volfs.versions.working.status import Action, ActionKind


class Order:
    """One of them: whoever asks for the same joins it. ``draft``: its message is still being written."""

    def __init__(self, kind: ActionKind, text: str, draft: Draft | None = None) -> None:
        self._kind = kind
        self._text = text
        self.draft = draft
        self.done = trio.Event()
        self.error: Exception | None = None
        #: Its description for whoever asked for it.
        self.action = Action.begin(kind, text)

    @property
    def words(self) -> tuple[str, str]:
        """The kind of action, and its message or path."""
        return self._kind, self._text if self.draft is None else self.draft.so_far()
