"""Manual pages of the command: the text of --help, in troff for man(1).

Decided here: how a help text becomes a page. Not here: what it says, which is each command's docstring. A build of the
package writes them into share/man, and `make man` where one can look at them.

Run as ``python -m volfs.cli.manual DIRECTORY``.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from volfs import __version__
from volfs.cli import GROUPS, SUMMARY_LENGTH, main


def pages() -> dict[str, str]:
    """The pages by their names, ``volfs.1`` and ``volfs-commit.1``."""
    top = _context(main, "volfs", None)
    made = {"volfs.1": _page(top)}
    for group in GROUPS.values():
        for name in group:
            command = main.get_command(top, name)
            assert command is not None
            made[f"volfs-{name}.1"] = _page(_context(command, name, top))
    return made


def write(folder: Path) -> list[Path]:
    """Write all pages into ``folder``; returns where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in pages().items():
        written.append(folder / name)
        written[-1].write_text(text, encoding="utf-8")
    return written


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return click.Context(command, info_name=name, parent=parent, **command.context_settings)


def _page(context: click.Context) -> str:
    command, called = context.command, context.command_path
    summary, _, rest = inspect.cleandoc(command.help or "").partition("\n\n")
    lines = [
        f'.TH "{called.replace(" ", "-").upper()}" 1 "" "volfs {__version__}" "volfs"',
        ".SH NAME",
        f"{_plain(called.replace(' ', '-'))} \\- {_plain(_line(summary).rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_plain(called)}",
        _plain(" ".join(command.collect_usage_pieces(context))),
    ]
    text, examples = _parts(rest)
    if text:
        lines += [".SH DESCRIPTION", *text]
    lines += [".SH OPTIONS", *_options(context)]
    if isinstance(command, click.Group):
        lines += _commands(context)
    if examples:
        lines += [".SH EXAMPLES", ".nf", *map(_plain, examples), ".fi"]
    other = (
        "volfs(1)" if context.parent else ", ".join(f"volfs-{name}(1)" for group in GROUPS.values() for name in group)
    )
    lines += [".SH SEE ALSO", _plain(other)]
    return "\n".join(lines) + "\n"


def _parts(text: str) -> tuple[list[str], list[str]]:
    """The paragraphs as troff, and the lines of the examples."""
    made: list[str] = []
    examples: list[str] = []
    for paragraph in text.split("\n\n"):
        first, _, more = paragraph.partition("\n")
        if first.strip() != "\b":
            made += [".PP", _plain(_line(paragraph))] if paragraph.strip() else []
        elif more.startswith("Examples:"):
            examples = [line.strip() for line in more.splitlines()[1:]]
        else:
            made += [".PP", ".nf", *map(_plain, more.splitlines()), ".fi"]
    return made, examples


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            yield ".TP"
            yield f".B {_plain(record[0])}"
            yield _plain(_line(record[1]))


def _commands(context: click.Context) -> Iterator[str]:
    yield ".SH COMMANDS"
    for title, group in GROUPS.items():
        yield f".SS {_plain(title)}"
        for name in group:
            command = main.get_command(context, name)
            assert command is not None
            yield ".TP"
            yield f".BR {_plain(f'volfs-{name}')} (1)"
            yield _plain(command.get_short_help_str(SUMMARY_LENGTH))


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _plain(text: str) -> str:
    """Text in which nothing is a command of troff."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    escaped = re.sub(r"[^\x00-\x7f]", lambda letter: f"\\[u{ord(letter[0]):04X}]", escaped)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


if __name__ == "__main__":
    for path in write(Path(sys.argv[1])):
        print(path)
