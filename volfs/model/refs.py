"""Names for versions: which kinds there are, and how people write them, ``cells/labels/nuclei@v3`` and ``main~3``.

Decided here: the kinds of refs that are kept in files, with all that the rooms above need to know of each, and the
grammar of ref expressions. Not here: whether such a dataset or version exists (:mod:`volfs.versions`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from volfs.errors import BadInput, BadName
from volfs.model.names import LATEST, check_dataset_name, check_key, check_ref_name, is_ref_name, version_number

_EXPR = re.compile(r"([^~]+)((?:~[0-9]{0,9})*)")


class RefKind(Enum):
    """A kind of refs that are kept in files, in the order in which a name is looked for."""

    BRANCH = "branch", "heads", "head", "branches"
    TAG = "tag", "tags", "tag", "tags"

    def __init__(self, word: str, folder: str, row: str, directory: str) -> None:
        #: In messages.
        self.word = word
        #: Its directory below ``refs/`` of a stored dataset.
        self.folder = folder
        #: In the catalog's table of refs.
        self.row = row
        #: Its directory in a mounted dataset.
        self.directory = directory

    @property
    def may_be_empty(self) -> bool:
        """Whether such a ref can stand before the first version, and name version 0."""
        return self is RefKind.BRANCH


NamedRefs = Mapping[RefKind, Mapping[str, int]]
"""The number of the version that each name stands for, by kind."""


def _no_refs() -> NamedRefs:
    return {kind: {} for kind in RefKind}


@dataclass(frozen=True, slots=True)
class Refs:
    """The refs of a dataset, of every kind."""

    named: NamedRefs = field(default_factory=_no_refs)

    def __getitem__(self, kind: RefKind) -> Mapping[str, int]:
        return self.named[kind]

    @property
    def heads(self) -> Mapping[str, int]:
        """The branches. One without a version has 0."""
        return self.named[RefKind.BRANCH]

    @property
    def tags(self) -> Mapping[str, int]:
        return self.named[RefKind.TAG]

    @property
    def by_name(self) -> dict[str, int]:
        """Refs of all kinds; of two of the same name, that of the first kind."""
        return {name: number for kind in reversed(RefKind) for name, number in self.named[kind].items()}


@dataclass(frozen=True, slots=True)
class RefExpr:
    """A version as written: ``base`` is a branch, a tag, ``vN`` or ``latest``; ``back`` counts first parents."""

    base: str
    back: int = 0

    def __str__(self) -> str:
        return f"{self.base}~{self.back}" if self.back else self.base


@dataclass(frozen=True, slots=True)
class DatasetSpec:
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
    if base != LATEST and version_number(base) is None and not is_ref_name(base):
        check_ref_name(base)
    return RefExpr(base, sum(int(step or "1") for step in steps.split("~")[1:]))


def parse_dataset_spec(text: str) -> DatasetSpec:
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
    return DatasetSpec(dataset, path, ref if at else None)
