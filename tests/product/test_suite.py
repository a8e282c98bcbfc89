"""The suite itself: tests stand in rooms, share kits, and know nothing of each other."""

from __future__ import annotations

import re

from tests.kits.paths import ROOT
from tests.kits.times import SLOW

TESTS = ROOT / "tests"
IMPORT = re.compile(r"(?:from|import) tests[\w.]*(?:\.| import )(?:test_\w+|conftest)\b.*")


def test_no_module_imports_a_test_module() -> None:
    """Not in the code that it hands to another process either."""
    wrong = {str(file.relative_to(TESTS)): IMPORT.findall(file.read_text()) for file in TESTS.rglob("*.py")}
    assert not any(wrong.values()), {file: lines for file, lines in wrong.items() if lines}


def test_files_that_come_first_are_there() -> None:
    assert [file for file in SLOW if not (TESTS / file).is_file()] == []


def test_every_test_stands_in_a_room() -> None:
    rooms = {file.relative_to(TESTS).parts[0] for file in TESTS.rglob("test_*.py")}
    assert "kits" not in rooms and not list(TESTS.glob("test_*.py"))
    code = {path.parent.name for path in (ROOT / "volfs").glob("*/__init__.py")}
    assert code <= rooms, f"without tests: {sorted(code - rooms)}"
