"""The version that a ref expression names: ``main~3``, ``v12^2``, ``latest``, ``1f3a90c2``, ``main@2026-11-01``.

Decided here: in which order a name is looked for (a version's number, a branch, a tag, a content id), what ``latest``
is, and the error for what names nothing. Not here: the grammar (:mod:`volfs.model.refs`), nor which refs there are
(:mod:`volfs.versions.dataset`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from volfs.errors import BadInput, NotFound
from volfs.model.graph import VersionGraph
from volfs.model.names import LATEST, version_number
from volfs.model.refs import AsOf, Back, RefExpr, RefKind, Refs, id_digits, moment_of


class NamedVersions(Protocol):
    """A dataset as its refs are looked up in it."""

    @property
    def name(self) -> str: ...

    @property
    def default_branch(self) -> str: ...

    @property
    def graph(self) -> VersionGraph: ...

    def check_ref(self, name: str) -> None:
        """Raise Damaged if there is a ref of this name that cannot be read."""

    def check_latest(self, newest: int) -> None:
        """Raise Damaged if a version newer than ``newest`` is there that cannot be known."""

    def check_indexed(self, number: int) -> None:
        """Raise Damaged if a version is there that cannot be known."""

    def newest(self) -> int:
        """The version that ``latest`` names, of those that are known; 0 if there is none."""


@dataclass(frozen=True, slots=True)
class RefNames:
    """The names of one dataset's versions, with its refs as they are at a moment."""

    dataset: NamedVersions
    refs: Refs

    def resolve(self, expr: RefExpr) -> int:
        """The number of the version meant. Raises NotFound, or BadInput where digits begin several content ids."""
        number, graph = self._base(expr.base), self.dataset.graph
        for step in expr.steps:
            if isinstance(step, Back):
                number = graph.ancestor(number, step.count)
            elif isinstance(step, AsOf):
                number = graph.as_of(number, step.time_ns)
            else:
                number = graph.parent(number, step.number)
        return number

    def _base(self, base: str) -> int:
        dataset = self.dataset
        if base == LATEST:
            dataset.check_latest(dataset.graph.highest)
            newest = dataset.newest()
            if not newest:
                raise NotFound(f"dataset {dataset.name!r} has no version yet")
            return newest
        number = version_number(base)
        if number is not None:
            if number not in dataset.graph:
                dataset.check_indexed(number)
                raise NotFound(f"dataset {dataset.name!r} has no version v{number}")
            return number
        named = self.refs.by_name.get(base or dataset.default_branch)
        if named is None:
            dataset.check_ref(base or dataset.default_branch)
            return self._identified(base)
        if named == 0:
            raise NotFound(f"branch {base or dataset.default_branch!r} of dataset {dataset.name!r} has no version yet")
        return named

    def _identified(self, base: str) -> int:
        dataset = self.dataset
        digits = id_digits(base)
        found = [] if digits is None else dataset.graph.identified(digits)
        if len(found) > 1:
            shown = ", ".join(f"v{n} ({dataset.graph.info(n).content_id[: len(base) + 8]}…)" for n in found[:8])
            raise BadInput(f"{base!r} begins the content ids of several versions of dataset {dataset.name!r}: {shown}")
        if found:
            return found[0]
        when = moment_of(base)
        if when is not None:  # DATASET@2026-11-01: of the default branch
            return dataset.graph.as_of(self._base(""), when)
        if base == "HEAD":
            raise NotFound(
                f"HEAD is no ref here: the head of a branch has the branch's name, such as {dataset.default_branch}"
            )
        words = ", ".join(kind.word for kind in RefKind)
        offer = offered(self.refs.by_name)
        raise NotFound(f"dataset {dataset.name!r} has no {words} or version {base!r}{offer}")


def offered(names: Mapping[str, int]) -> str:
    """The end of a message about a name that is not there: those that are."""
    return f": there is {', '.join(sorted(names))}" if names else ""
