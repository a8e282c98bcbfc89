"""Where this checkout is, and what lies beside the tests."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "mount_examples"
PACKAGING = ROOT / "packaging"

#: What a build of the package reads besides the package.
BUILT_FROM = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
