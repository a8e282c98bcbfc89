"""One image of several in one source: what ``SOURCE:PART`` may say, and how a refusal lists what there is.

Every reader of containers asks :func:`choose`, so that the syntax and the list are the same for all of them. What
counts as an image is the reader's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volfs.errors import BadInput
from volfs.model.box import Index

_LISTED = 12


@dataclass(frozen=True, slots=True)
class Part:
    """An image of several. It goes by any of ``names``, of which a list shows the first, and by its number, counted
    from 0. ``axes`` are letters in the order of ``shape``, as far as they are known."""

    names: tuple[str, ...]
    shape: Index
    dtype: np.dtype[Any]
    axes: str = ""

    def __str__(self) -> str:
        axes = f"{self.axes} " if self.axes else ""
        return f"{axes}{' x '.join(map(str, self.shape))} {self.dtype.name}"


def choose(given: Path, parts: Sequence[Part], wanted: str | None, what: str = "images") -> int:
    """The number of the part that is wanted, or of the only one.

    A name counts before a number, if it is that of one part alone. BadInput, listing all, if there is no such part, or
    several and none was named.
    """
    if wanted is None:
        if len(parts) == 1:
            return 0
        if not parts:
            raise BadInput(f"{given} holds no {what}")
        raise BadInput(f"{given} holds {len(parts)} {what} ({listed(parts)}): name one{_like(given, parts)}")
    named = [number for number, part in enumerate(parts) if wanted in part.names]
    if len(named) == 1:
        return named[0]
    if wanted.isdecimal() and int(wanted) < len(parts):
        return int(wanted)
    if named:
        raise BadInput(f"{given} holds {len(named)} {what} called {wanted} ({listed(parts)}): name one by its number")
    raise BadInput(f"{given} has no {wanted}: it holds {listed(parts)}")


def listed(parts: Sequence[Part]) -> str:
    """All parts, in one line: numbers, names, axes, shapes and types."""
    rows = []
    for number, part in enumerate(parts[:_LISTED]):
        name = part.names[0] if part.names else ""
        rows.append(f"{number}: {name}{', ' if name else ''}{part}")
    if len(parts) > _LISTED:
        rows.append(f"… {len(parts) - 1}")
    return "; ".join(rows) or "none"


def _like(given: Path, parts: Sequence[Part]) -> str:
    """An example: a name that is unlike all others, else a number."""
    name = parts[0].names[0] if parts[0].names else "0"
    alone = sum(name in part.names for part in parts) == 1
    return f", like {given}:{name if alone else 0}"
