"""How people write what they mean: ``cells/labels/nuclei@v3`` and ``main~3``.

Decided here: the grammar. Not here: whether such a dataset or version exists (:mod:`volfs.versions`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from volfs.errors import BadInput, BadName
from volfs.model.names import check_dataset_name, check_key, check_ref_name, is_ref_name, version_number

_EXPR = re.compile(r"([^~]+)((?:~[0-9]{0,9})*)")


@dataclass(frozen=True, slots=True)
class RefExpr:
    """A version as written: ``base`` is a branch, a tag, ``vN`` or ``latest``; ``back`` counts first parents."""

    base: str
    back: int = 0

    def __str__(self) -> str:
        return f"{self.base}~{self.back}" if self.back else self.base


@dataclass(frozen=True, slots=True)
class Target:
    """A dataset, a hierarchy path in it ("" for the root), and a ref expression or None for the default."""

    dataset: str
    path: str = ""
    ref: str | None = None

    def __str__(self) -> str:
        return self.dataset + (f"/{self.path}" if self.path else "") + (f"@{self.ref}" if self.ref else "")


def parse_ref(text: str) -> RefExpr:
    """Parse ``main``, ``v12``, ``latest``, ``main~`` (one back), ``main~3``, ``main~~2`` (three back)."""
    match = _EXPR.fullmatch(text)
    if match is None:
        raise BadName(f"{text!r} is not a ref: write a branch, a tag, v12 or latest, with ~N to go back")
    base, steps = match.groups()
    if base != "latest" and version_number(base) is None and not is_ref_name(base):
        check_ref_name(base)
    return RefExpr(base, sum(int(step or "1") for step in steps.split("~")[1:]))


def parse_target(text: str) -> Target:
    """Parse ``DATASET[/PATH][@REF]``."""
    where, at, ref = text.partition("@")
    if at:
        parse_ref(ref)
    dataset, _, path = where.rstrip("/").partition("/")
    if not dataset:
        raise BadInput(f"{text!r} names no dataset: write DATASET, DATASET/PATH or DATASET@REF")
    check_dataset_name(dataset)
    if path:
        check_key(f"zarr/{path}")
    return Target(dataset, path, ref if at else None)
