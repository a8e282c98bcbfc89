"""The documentation as a site, by Sphinx: `make docs`.

The pages are those of the repository, where they lie, so that their links hold in both. Decided here: their order in
the navigation, and how they look. Nothing is asked of another server: the site works where there is no internet.
"""

from __future__ import annotations

import shutil
from itertools import chain
from pathlib import Path

from sphinx.application import Sphinx

import volfs

ROOT = Path(__file__).parents[2]

project = "volfs"
author = "The volfs authors"
release = volfs.__version__
extensions = ["myst_parser", "sphinx_copybutton"]
root_doc = "README"
#: What the navigation shows, in order: all pages that there are, which a test checks.
CONTENTS = {
    "Begin": ["docs/tutorial", "docs/questions", "docs/glossary"],
    "Use": ["docs/layout", "docs/versioning", "docs/git", "docs/remotes", "docs/viewers", "docs/formats", "docs/cli"],
    "Python": ["docs/python", "docs/testing"],
    "Run": [
        "docs/mounting",
        "docs/sharing",
        "docs/serve",
        "docs/rest",
        "docs/monitoring",
        "docs/performance",
        "docs/conformance",
        "packaging/README",
        "mount_examples/README",
    ],
    "Trust": ["docs/SEMANTICS", "docs/storage", "docs/design", "CONTRIBUTING", "CHANGELOG"],
}
EXAMPLES = sorted(f"{path.parent.name}/README" for path in ROOT.glob("mount_examples/*/README.md"))
_PAGES = [root_doc, *chain.from_iterable(CONTENTS.values()), *(f"mount_examples/{each}" for each in EXAMPLES)]
include_patterns = [f"{page}.md" for page in _PAGES]
exclude_patterns = [
    path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in ("docs", "packaging", "mount_examples")
]

# Headings are what links lead to, as where a repository is shown.
myst_heading_anchors = 4
# `…` and quotation marks are as they were typed.
smartquotes = False
# Blocks of configuration for which there is no lexer are shown as they are.
suppress_warnings = ["misc.highlighting_failure"]
pygments_dark_style = "github-dark"

html_theme = "furo"
html_title = f"volfs {release}"
html_copy_source = False
html_show_sourcelink = False
copybutton_prompt_text = r"\$ |> "
copybutton_prompt_is_regexp = True


def _tree(pages: list[str], *options: str) -> str:
    lines = "\n".join([*options, ":hidden:", *(f"/{page}" for page in pages)])
    return f"\n\n```{{toctree}}\n{lines}\n```\n"


def _add_contents(app: Sphinx, page: str, text: list[str]) -> None:
    """The navigation, which a reader of the files does without."""
    if page == root_doc:
        text[0] += "".join(_tree(pages, f":caption: {title}") for title, pages in CONTENTS.items())
    elif page == "mount_examples/README":
        text[0] += _tree([f"mount_examples/{each}" for each in EXAMPLES])


def _begin_with_readme(app: Sphinx, error: Exception | None) -> None:
    """A server shows `index.html` to who names no page."""
    if error is None and app.builder.name == "html":
        shutil.copyfile(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> None:
    app.connect("source-read", _add_contents)
    app.connect("build-finished", _begin_with_readme)
