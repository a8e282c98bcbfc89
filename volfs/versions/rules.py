"""What a dataset asks of new versions: branches that only merges move, and messages of a form.

Decided here: what is kept of it in ``dataset.json``, and when a rule is broken. It is held to wherever a version is
written or a head moved; who may write to a store can change it, so that it guards against mistakes and not against
people. Not here: reading and writing the file (:class:`volfs.versions.dataset.Dataset`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from volfs.errors import BadInput, Damaged, NotAllowed
from volfs.model.names import is_ref_name

PROTECT, REQUIRE_MESSAGE = "protect", "require_message"
"""Where they stand in ``dataset.json``."""


@dataclass(frozen=True, slots=True)
class Rules:
    """``protect``: branches that only merges and fast-forwards move. ``require_message``: a regular expression that is
    found in every message; "" for none."""

    protect: tuple[str, ...] = ()
    require_message: str = ""

    def facts(self) -> dict[str, Any]:
        """The members of ``dataset.json``; one that asks for nothing is absent."""
        facts = {PROTECT: list(self.protect), REQUIRE_MESSAGE: self.require_message}
        return {name: value for name, value in facts.items() if value}

    def check_message(self, message: str) -> None:
        """Raise BadInput unless a message is as it is asked for."""
        if self.require_message and re.search(self.require_message, message) is None:
            raise BadInput(f"the message does not match {self.require_message!r}, which this dataset requires")

    def check_grows(self, branch: str, head: int, parents: Sequence[int]) -> None:
        """NotAllowed if a new version with these parents is to become the head of a protected branch, and is no merge
        into it. A branch without a version (``head`` 0) takes its first."""
        if branch in self.protect and head and not (len(parents) > 1 and parents[0] == head):
            raise self.refusal(branch)

    def check_moves(self, branch: str, forward: bool) -> None:
        """NotAllowed if a protected branch is to be moved other than ``forward``, or to be removed or renamed."""
        if branch in self.protect and not forward:
            raise self.refusal(branch)

    @staticmethod
    def refusal(branch: str) -> NotAllowed:
        """The error for who would change a protected branch."""
        return NotAllowed(
            f"branch {branch!r} is protected: only merges and fast-forwards move it; work on another branch, and merge"
            " that (volfs merge)"
        )


def rules_in(document: Mapping[str, Any]) -> Rules:
    """The rules that a ``dataset.json`` states. Raises Damaged."""
    protect, required = document.get(PROTECT, []), document.get(REQUIRE_MESSAGE, "")
    try:
        if not isinstance(protect, list):
            raise TypeError
        return checked(Rules(tuple(protect), required))
    except (BadInput, TypeError):
        raise Damaged("dataset.json: its rules for new versions are none") from None


def checked(rules: Rules) -> Rules:
    """The same rules. BadInput unless they are names of branches and a regular expression."""
    for name in rules.protect:
        if not isinstance(name, str) or not is_ref_name(name):
            raise BadInput(f"{name!r} is not the name of a branch")
    try:
        re.compile(rules.require_message)
    except (re.error, TypeError) as error:
        raise BadInput(f"{rules.require_message!r} is no regular expression: {error}") from None
    return rules
