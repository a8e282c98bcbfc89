"""What is asked of a branch, in words: those of the command, which the branch's control files take as well.

Decided here: the words of each request, and their defaults. Not here: what they do
(:mod:`volfs.versions.combine.merges`).
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, get_args

from volfs.errors import BadInput
from volfs.model.names import check_message
from volfs.versions.combine.combination import IdRule
from volfs.versions.combine.decisions import CHOICES, Choice, Order, Orders, Side

RequestKind = Literal["merge", "cherry-pick", "revert", "rebase", "restore", "mv", "resolve"]
KINDS: tuple[RequestKind, ...] = get_args(RequestKind)

LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``refs``: the versions that it is about; ``keys`` those of ``restore``, ``source`` where from.

    ``mainline``: which parent of a merge it is compared with, from 1. ``on``: the branch that is made for what is in
    conflict. ``choice``: what ``resolve`` makes of conflicts.
    """

    kind: RequestKind
    refs: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    source: str | None = None
    box: str | None = None
    orders: tuple[Order, ...] = ()
    strict: bool = False
    no_ff: bool = False
    squash: bool = False
    newest: bool = False
    allow_unrelated: bool = False
    ids: IdRule = "refuse"
    on: str | None = None
    choice: Choice | None = None
    mainline: int | None = None
    message: str | None = None
    author: str | None = field(default=None, compare=False)

    @property
    def decided(self) -> Orders:
        """Who wins which conflict."""
        return Orders.of(self.orders, self.strict)

    @classmethod
    def parse(cls, kind: RequestKind, words: Sequence[str]) -> Request:
        """Read the words that follow the command and the dataset. Raises BadInput."""
        found = vars(_parser(kind).parse_args(list(words)))
        orders = [Order.parse(side, text) for side, text in found.pop("orders", None) or ()]
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in found.items()}
        request = cls(kind, orders=tuple(orders), **values)
        if request.message is not None:
            check_message(request.message)
        if len(request.refs) > 1 and not request.newest:
            raise BadInput("versions are merged one at a time; --newest lays any number over each other")
        if request.newest and (request.orders or request.strict or request.on or request.ids != "refuse"):
            raise BadInput(
                "--newest has no conflicts: --ours, --theirs, --strict, --on, --relabel and --no-ids do not go with it"
            )
        if request.on is not None and request.squash:
            raise BadInput("--on keeps both sides for `volfs resolve`: it does not go with --squash")
        return request

    @classmethod
    def read(cls, kind: RequestKind, text: str) -> Request:
        """Read the words in one text, quoted as for a shell. Raises BadInput."""
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise BadInput(f"the words of {kind} are not quoted right: {error}") from None
        return cls.parse(kind, words)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{self.prog}: {message}")


class _Decide(argparse.Action):
    """Collects --ours and --theirs in the order in which they come."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        side: Side = "ours" if option_string == "--ours" else "theirs"
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or ()), (side, values or "")])


def _parser(kind: RequestKind) -> _Parser:
    parser = _Parser(prog=kind, add_help=False, allow_abbrev=False)
    # Of a merge, git's -m says which parent counts.
    parser.add_argument(*(("--message",) if _WORDS[kind] is _pick else ("-m", "--message")))
    parser.add_argument("--author")
    if kind not in ("restore", "mv", "resolve"):
        parser.add_argument("--ours", "--theirs", dest="orders", action=_Decide, nargs="?")
        parser.add_argument("--strict", action="store_true")
        parser.add_argument("--relabel", dest="ids", action="store_const", const="relabel", default="refuse")
        parser.add_argument("--no-ids", dest="ids", action="store_const", const="ignore", default="refuse")
    _WORDS[kind](parser)
    return parser


def _merge(parser: _Parser) -> None:
    parser.add_argument("refs", nargs="+", metavar="REF")
    for name in ("--no-ff", "--squash", "--newest", "--allow-unrelated"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--on")


def _pick(parser: _Parser) -> None:
    parser.add_argument("refs", nargs=1, metavar="REF")
    parser.add_argument("-m", "--mainline", type=int)
    parser.add_argument("--on")


def _restore(parser: _Parser) -> None:
    parser.add_argument("keys", nargs="+", metavar="KEY")
    parser.add_argument("--from", dest="source", required=True)
    parser.add_argument("--box")


def _resolve(parser: _Parser) -> None:
    parser.add_argument("choice", choices=CHOICES)
    parser.add_argument("keys", nargs="*", metavar="KEY|BOX")


def _rebase(parser: _Parser) -> None:
    parser.add_argument("refs", nargs=1, metavar="ONTO")
    parser.add_argument("--on")


def _mv(parser: _Parser) -> None:
    parser.add_argument("keys", nargs=2, metavar="KEY")


_WORDS: dict[RequestKind, Callable[[_Parser], None]] = {
    "merge": _merge,
    "cherry-pick": _pick,
    "revert": _pick,
    "restore": _restore,
    "resolve": _resolve,
    "rebase": _rebase,
    "mv": _mv,
}


def words_of(
    positional: Sequence[str],
    *,
    orders: Sequence[tuple[Side, str]] = (),
    flags: Sequence[str] = (),
    values: Sequence[tuple[str, str | None]] = (),
) -> str:
    """The text of a request, as :meth:`Request.read` takes it."""
    words = [*flags, *(f"--{side}={text}" for side, text in orders)]
    words += [f"{name}={value}" for name, value in values if value is not None]
    return shlex.join([*words, "--", *positional])
