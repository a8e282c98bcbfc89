"""Manual pages: one for every command, which groff reads without a complaint, with all that --help says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from tests.kits import cli_reference
from volfs.cli import COMMANDS
from volfs.cli.manual import pages, write

CONTEXTS = [(context.command_path, context) for context in cli_reference.every_command()]


def shown(page: Path) -> str:
    """A page as man(1) shows it; what groff complains of fails the test."""
    made = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-P-cbou", "-rLL=200n", "-rHY=0", str(page)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stderr == "", made.stderr
    return re.sub(r"\s+", " ", made.stdout.replace("\u2010", "-").replace("\u2212", "-"))


def test_every_command_has_a_page() -> None:
    assert set(pages()) == {"volfs.1", *(f"volfs-{name}.1" for name in COMMANDS)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages."""
    made = tmp_path_factory.mktemp("man")
    write(made)
    return made


@pytest.mark.parametrize(("name", "context"), CONTEXTS, ids=[name for name, _ in CONTEXTS])
def test_a_page_says_what_help_says(folder: Path, name: str, context: click.Context) -> None:
    text = shown(folder / f"{name.replace(' ', '-')}.1")
    for parameter in context.command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            for words in record:
                assert re.sub(r"\s+", " ", words) in text, f"{name}: {words}"
    examples = context.get_help().partition("Examples:\n")[2].partition("\n\n")[0]
    assert examples
    for line in examples.splitlines():
        assert line.strip() in text, f"{name}: {line.strip()}"
