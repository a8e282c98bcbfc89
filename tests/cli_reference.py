"""Write the reference part of ``docs/cli.md`` from the command itself: ``python -m tests.cli_reference``.

`tests/test_docs.py` fails when the page and the program differ.
"""

from __future__ import annotations

from pathlib import Path

import click

from volfs.cli import main

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"
BEGIN = "<!-- from here on: python -m tests.cli_reference -->"


def commands(command: click.Command, name: str) -> list[tuple[str, click.Command]]:
    """The command and, for a group, all its subcommands, in the order they are listed by --help."""
    found = [(name, command)]
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for child in command.list_commands(context):
            sub = command.get_command(context, child)
            if sub is not None and not sub.hidden:
                found += commands(sub, f"{name} {child}")
    return found


def reference() -> str:
    """Markdown: one heading and the --help text for every command."""
    parts = []
    for name, command in commands(main, "volfs"):
        context = click.Context(command, info_name=name, terminal_width=100, max_content_width=100)
        parts.append(f"## `{name}`\n\n```\n{command.get_help(context).rstrip()}\n```\n")
    return "\n".join(parts)


def page() -> str:
    """The whole page: what stands above the marker stays, what is below is made anew."""
    kept = PAGE.read_text().partition(BEGIN)[0]
    return f"{kept}{BEGIN}\n\n{reference()}"


if __name__ == "__main__":
    PAGE.write_text(page())
