"""A commit in words: those of the command, which a branch's control file ``commit-words`` takes as well.

Decided here: the words, and that a request survives being written down. Not here: what is done
(:mod:`volfs.versions.branch_actions`).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from volfs.errors import BadInput

if TYPE_CHECKING:
    import argparse


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What is to be committed, and as what. ``keys``: only what is at and below them, all if there are none; ``leave``:
    keys that stay uncommitted. ``amend``: the newest version is made anew; without a message it keeps its own."""

    message: str | None = None
    author: str | None = None
    keys: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    amend: bool = False

    def __post_init__(self) -> None:
        if self.amend and self.meta:
            raise BadInput("--amend keeps what is said of the version: no --meta with it")
        if self.message is None and not self.amend:
            raise BadInput('a commit needs a message: --message "what changed"')

    @property
    def text(self) -> str:
        """The request as :meth:`read` takes it."""
        words = ["--amend"] if self.amend else []
        for name, value in (("message", self.message), ("author", self.author)):
            words += [] if value is None else [f"--{name}={value}"]
        words += [f"--leave={key}" for key in self.leave]
        words += [f"--meta={name}={value}" for name, value in self.meta.items()]
        return shlex.join([*words, "--", *self.keys])

    @classmethod
    def read(cls, text: str) -> CommitRequest:
        """Read the words in one text, quoted as for a shell. Raises BadInput."""
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise BadInput(f"the words of a commit are not quoted right: {error}") from None
        found = _parser().parse_args(words)
        return cls(
            found.message, found.author, tuple(found.keys), tuple(found.leave), settings_in(found.meta), found.amend
        )


def settings_in(settings: Iterable[str]) -> dict[str, str]:
    """What is said of a version, from NAME=VALUE each. Raises BadInput."""
    found: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or name in found:
            raise BadInput(f"{setting!r}: say NAME=VALUE, each name once")
        found[name] = value
    return found


def _parser() -> argparse.ArgumentParser:
    import argparse  # late: whoever opens a branch needs none

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise BadInput(f"{self.prog}: {message}")

    parser = Parser(prog="commit", add_help=False, allow_abbrev=False)
    parser.add_argument("-m", "--message")
    parser.add_argument("--author")
    parser.add_argument("--amend", action="store_true")
    parser.add_argument("--leave", action="append", default=[])
    parser.add_argument("--meta", action="append", default=[])
    parser.add_argument("keys", nargs="*", metavar="KEY")
    return parser
