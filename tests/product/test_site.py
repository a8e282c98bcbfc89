"""The site of the documentation: all pages, no dead link, nothing from another server."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.kits.paths import DOCS, PACKAGING, ROOT


class Linked(HTMLParser):
    """What a page loads by itself, and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in ("img", "script", "iframe", "source") and "src" in given:
            self.loaded.append(given["src"])
        elif tag == "link" and {"stylesheet", "icon", "preload"} & set(given.get("rel", "").split()):
            self.loaded.append(given["href"])
        elif tag == "a" and "href" in given:
            self.links.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make docs` builds it. A link to a page or heading that is not there is an error (``-W``)."""
    made = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-c", PACKAGING / "site"]
    built = subprocess.run([*command, ROOT, made], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return made


def test_every_page_is_on_it(site: Path) -> None:
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *DOCS.glob("*.md"),
        *(ROOT / "mount_examples").glob("*/README.md"),
    ]
    built = [site / page.relative_to(ROOT).with_suffix(".html") for page in pages]
    assert len(built) > 20 and not [page for page in built if not page.exists()]
    assert (site / "index.html").read_text() == (site / "README.html").read_text()


def test_its_pages_load_nothing_from_elsewhere_and_link_to_what_is_there(site: Path) -> None:
    for page in site.rglob("*.html"):
        seen = Linked()
        seen.feed(page.read_text())
        for target in seen.loaded + seen.links:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                assert target in seen.links, f"{page}: loads {target}"
            elif parts.path:
                assert (page.parent / unquote(parts.path)).exists(), f"{page}: {target}"
