"""Names for versions: which kinds there are, and how people write them, ``cells/labels/nuclei@v3`` and ``main~3``.

Decided here: the kinds of refs that are kept in files, with all that the rooms above need to know of each, and the
grammar of ref expressions. Not here: whether such a dataset or version exists (:mod:`volfs.versions`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from volfs.errors import BadInput, BadName
from volfs.model.names import (
    LATEST,
    check_dataset_name,
    check_key,
    check_ref_name,
    is_ref_name,
    is_remote_branch,
    version_number,
)

_EXPR = re.compile(r"([^~^@]*)((?:~[0-9]{0,9}|\^[0-9]{0,9}|@[^~^@]+)*)")
_STEP = re.compile(r"([~^@])([^~^@]*)")
_DIGITS = re.compile(r"[0-9A-Fa-f]{8,64}")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?)?Z?")
_HOW = "write a branch, a tag, v12, latest or digits of a content id, with ~N, ^N or @2026-11-01 behind it"


class RefKind(Enum):
    """A kind of refs that are kept in files, in the order in which a name is looked for."""

    BRANCH = "branch", "heads", "head", "branches"
    TAG = "tag", "tags", "tag", "tags"
    REMOTE = "remote branch", "remotes", "remote", ""

    def __init__(self, word: str, folder: str, row: str, directory: str) -> None:
        #: In messages.
        self.word = word
        #: Its directory below ``refs/`` of a stored dataset.
        self.folder = folder
        #: In the catalog's table of refs.
        self.row = row
        #: Its directory in a mounted dataset; "" for a kind that a mount does not show.
        self.directory = directory

    @property
    def may_be_empty(self) -> bool:
        """Whether such a ref can stand before the first version, and name version 0."""
        return self is RefKind.BRANCH

    def takes(self, name: str) -> bool:
        """Whether a ref of this kind can have that name in a store. Branches of remotes are called ``origin/main``."""
        return is_remote_branch(name) if self is RefKind.REMOTE else is_ref_name(name)


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
    def remotes(self) -> Mapping[str, int]:
        """Branches of remotes, as they were last seen there."""
        return self.named[RefKind.REMOTE]

    @property
    def by_name(self) -> dict[str, int]:
        """Refs of all kinds; of two of the same name, that of the first kind."""
        return {name: number for kind in reversed(RefKind) for name, number in self.named[kind].items()}


@dataclass(frozen=True, slots=True)
class Back:
    """``~N``: N first parents back."""

    count: int

    def __str__(self) -> str:
        return f"~{self.count}"


@dataclass(frozen=True, slots=True)
class NthParent:
    """``^N``: the N-th parent, counted from 1; 0 is the version itself, as in git."""

    number: int

    def __str__(self) -> str:
        return f"^{self.number}"


@dataclass(frozen=True, slots=True)
class AsOf:
    """``@TIME``: the newest version on the line of first parents that is not younger. ``text`` as written."""

    time_ns: int
    text: str

    def __str__(self) -> str:
        return f"@{self.text}"


Step = Back | NthParent | AsOf


@dataclass(frozen=True, slots=True)
class RefExpr:
    """A version as written: ``base`` is a branch, a tag, ``vN``, ``latest``, or the first digits of a content id; ""
    stands for the default branch. ``steps`` lead on from there, from left to right."""

    base: str
    steps: tuple[Step, ...] = ()

    def __str__(self) -> str:
        return self.base + "".join(map(str, self.steps))


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A dataset, a hierarchy path in it ("" for the root), and a ref expression or None for the default."""

    dataset: str
    path: str = ""
    ref: str | None = None

    def __str__(self) -> str:
        return self.dataset + (f"/{self.path}" if self.path else "") + (f"@{self.ref}" if self.ref else "")


def parse_ref(text: str) -> RefExpr:
    """Parse ``main``, ``v12``, ``latest``, ``1f3a90c2`` (a content id), with any of ``~`` (one back), ``~3``, ``^2``
    (the second parent), ``@2026-11-01``, ``@2026-11-01T12:00`` (UTC) behind it. Raises BadName."""
    match = _EXPR.fullmatch(text)
    if match is None:
        raise BadName(f"{text!r} is not a ref: {_HOW}")
    base, behind = match.groups()
    steps: list[Step] = []
    for sign, rest in _STEP.findall(behind):
        if sign == "~":
            steps.append(Back(int(rest or "1")))
        elif sign == "^":
            steps.append(NthParent(int(rest or "1")))
        else:
            when = moment_of(rest)
            if when is None:
                raise BadName(f"{rest!r} is no time: write @2026-11-01 or @2026-11-01T12:00, which is UTC")
            steps.append(AsOf(when, rest))
    if not base and not (steps and isinstance(steps[0], AsOf)):
        raise BadName(f"{text!r} is not a ref: {_HOW}")
    named = is_ref_name(base) or is_remote_branch(base) or base == LATEST
    if base and not (named or version_number(base) is not None or moment_of(base) is not None):
        check_ref_name(base)
    return RefExpr(base, tuple(_joined(steps)))


def _joined(steps: list[Step]) -> list[Step]:
    """The steps, those back that follow each other as one: two expressions for the same are equal."""
    found: list[Step] = []
    for step in steps:
        last = found[-1] if found else None
        if isinstance(step, Back) and isinstance(last, Back):
            found[-1] = Back(last.count + step.count)
        else:
            found.append(step)
    return [step for step in found if step != Back(0)]


def id_digits(name: str) -> str | None:
    """The digits, if a name can be the beginning of a content id: 8 to 64 hexadecimal digits."""
    return name.lower() if _DIGITS.fullmatch(name) else None


def moment_of(text: str) -> int | None:
    """The time (ns) at which a day or a minute begins, in UTC: ``2026-11-01``, ``2026-11-01T12:00``. None for anything
    else."""
    if _MOMENT.fullmatch(text) is None:
        return None
    try:
        when = datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)
    except ValueError:
        return None
    # Through whole seconds: a float has not enough digits for ns.
    return int(when.timestamp()) * 10**9


def parse_dataset_spec(text: str) -> DatasetSpec:
    """Parse ``DATASET[/PATH][@REF]``. All behind the first @ is the ref, which may have one of its own."""
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
