"""The page about versions is true: its commands are run as they stand, and answer what it says."""

from __future__ import annotations

from pathlib import Path

from tests.kits.console_pages import run_page
from tests.kits.paths import DOCS


def test_the_commands_of_the_page_answer_what_it_says(tmp_path: Path) -> None:
    assert run_page(DOCS / "versioning.md", tmp_path) > 12
