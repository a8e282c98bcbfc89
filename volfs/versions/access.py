"""Owner, group and mode of a dataset: kept in ``dataset.json``, beside the versions and not in them.

Decided here: what is kept, and in which form. Access belongs to the dataset as it is now, not to its history: taking a
reader's right away must close the old versions too. Numbers are kept, as NFS and the kernel know users by number. Not
here: who is held to it (the kernel, by what :mod:`volfs.tree.core.ownership` shows), nor reading and writing the file
(:class:`volfs.versions.dataset.Dataset`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from volfs.errors import Damaged

_IDS = 1 << 32
KEY = "access"
"""Where it stands in ``dataset.json``."""


@dataclass(frozen=True, slots=True)
class Access:
    """Owner, group and permission bits of a dataset. None: as whoever mounts it has it."""

    owner: int | None = None
    group: int | None = None
    mode: int | None = None

    def facts(self) -> dict[str, Any]:
        """The value kept in ``dataset.json``: members that are None are absent, the mode is text in octal."""
        mode = None if self.mode is None else f"{self.mode:04o}"
        facts = {"owner": self.owner, "group": self.group, "mode": mode}
        return {name: value for name, value in facts.items() if value is not None}


#: For a dataset whose ``dataset.json`` cannot be read: whatever it said, this is no wider.
CLOSED = Access(mode=0o700)


def access_in(document: Mapping[str, Any]) -> Access:
    """The access that a ``dataset.json`` states. Raises Damaged."""
    facts = document.get(KEY, {})
    if not isinstance(facts, Mapping):
        raise Damaged(f"dataset.json: {KEY!r} is not an object of owner, group and mode")
    mode = facts.get("mode")
    try:
        bits = None if mode is None else int(str(mode), 8)
    except ValueError:
        bits = -1
    if bits is not None and not 0 <= bits <= 0o777:
        raise Damaged(f"dataset.json: the mode {mode!r} is not an octal number up to 0777")
    return Access(_number(facts, "owner"), _number(facts, "group"), bits)


def _number(facts: Mapping[str, Any], name: str) -> int | None:
    value = facts.get(name)
    if value is None or (type(value) is int and 0 <= value < _IDS):
        return value
    raise Damaged(f"dataset.json: the {name} {value!r} is not the number of a user or group")
