"""Write the reference part of ``docs/cli.md`` from the command itself: ``python -m tests.kits.cli_reference``.

`tests/product/test_docs.py` fails when the page and the program differ.
"""

from __future__ import annotations

import click

from tests.kits.paths import DOCS
from volfs.cli import main

PAGE = DOCS / "cli.md"
BEGIN = "<!-- from here on: python -m tests.kits.cli_reference -->"


def commands(context: click.Context) -> list[click.Context]:
    """The context of a command and, for a group, those of all its subcommands, in the order of --help."""
    found, command = [context], context.command
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            sub = command.get_command(context, child)
            if sub is not None and not sub.hidden:
                found += commands(_context(sub, child, context))
    return found


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    # As when it is run: a command remembers its help option from whoever asked first.
    settings = {**command.context_settings, "terminal_width": 100, "max_content_width": 100}
    return click.Context(command, info_name=name, parent=parent, **settings)


def every_command() -> list[click.Context]:
    """``volfs`` itself and all its commands."""
    return commands(_context(main, "volfs"))


def reference() -> str:
    """Markdown: one heading and the --help text for every command."""
    return "\n".join(
        f"## `{context.command_path}`\n\n```\n{context.get_help().rstrip()}\n```\n" for context in every_command()
    )


def page() -> str:
    """The whole page: what stands above the marker stays, what is below is made anew."""
    kept = PAGE.read_text().partition(BEGIN)[0]
    return f"{kept}{BEGIN}\n\n{reference()}"


if __name__ == "__main__":
    PAGE.write_text(page())
