"""Make the pictures of the tutorial by its own commands: ``python -m tests.kits.tutorial_pictures``.

`tests/product/test_tutorial.py` fails when they show other voxels than the commands give today.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from tests.kits.console_pages import run_page
from tests.kits.paths import DOCS

PAGE = DOCS / "tutorial.md"
EDGE, GAP = 256, 10
#: Which files that the page's commands leave are beside one another in which picture.
SHOWN = {
    DOCS / "img" / "tutorial.png": ("before.png", "after.png", "changed.png"),
    DOCS / "img" / "tutorial-merged.png": ("merged.png",),
    DOCS / "img" / "tutorial-conflict.png": ("theirs.png", "ours.png", "conflict.png"),
}


def drawn(place: Path, names: tuple[str, ...]) -> Image.Image:
    """The pictures ``names`` of a directory, twice as large as they are, side by side."""
    row = Image.new("RGB", (len(names) * (EDGE + GAP) - GAP, EDGE), "white")
    for at, name in enumerate(names):
        with Image.open(place / name) as picture:
            row.paste(picture.convert("RGB").resize((EDGE, EDGE), Image.Resampling.NEAREST), (at * (EDGE + GAP), 0))
    return row


def main() -> None:
    """Write them."""
    with TemporaryDirectory() as made:
        place = Path(made)
        try:
            run_page(PAGE, place)
        except AssertionError:
            subprocess.run([sys.executable, "-m", "volfs", "umount", place / "mnt"], check=False)
            raise
        for picture, names in SHOWN.items():
            drawn(place, names).save(picture, optimize=True)


if __name__ == "__main__":
    main()
