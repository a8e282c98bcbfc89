"""The page about Python is true: every snippet on it runs, and gives what it says."""

from __future__ import annotations

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
