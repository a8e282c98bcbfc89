"""The pages about Python are true: every snippet on them runs, and gives what it says."""

from __future__ import annotations

import re
from pathlib import Path

import volfs
from tests.kits.cells import make_store
from tests.kits.paths import DOCS
from tests.kits.snippets import run_page


def test_every_snippet_of_the_page_runs_and_gives_what_it_says(tmp_path: Path) -> None:
    path = make_store(tmp_path / "store")
    with volfs.open_store(path) as store:
        store["cells"].create_tag("paper", "v1")
    names: dict[str, object] = {}
    try:
        assert run_page(DOCS / "python.md", {"/data/store": str(path)}, names) > 15
    finally:
        store = names["store"]
        assert isinstance(store, volfs.Store)
        store.close()


def test_every_snippet_of_the_page_about_testing_runs_and_gives_what_it_says(tmp_path: Path) -> None:
    assert run_page(DOCS / "testing.md", {}, {"tmp_path": tmp_path}) >= 3


def test_every_module_of_the_test_kit_is_on_its_page() -> None:
    page = (DOCS / "testing.md").read_text()
    kit = Path(volfs.__file__).parent / "testing"
    assert {path.stem for path in kit.glob("[!_]*.py")} <= set(re.findall(r"\w+", page))
