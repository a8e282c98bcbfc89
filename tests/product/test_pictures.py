"""The pictures of the README show what a mount of the demonstration shows today."""

from __future__ import annotations

from PIL import Image, ImageChops

from tests.kits import readme_pictures as pictures
from tests.kits.paths import ROOT

AGAIN = "run: python -m tests.kits.readme_pictures"


def test_the_pictures_of_the_readme_are_of_the_tree_and_the_voxels_of_today() -> None:
    lines, planes = pictures.seen()
    with Image.open(pictures.TREE) as tree:
        assert tree.text["tree"].splitlines() == lines, AGAIN  # type: ignore[attr-defined]
    for picture, parts in pictures.boxes().items():
        with Image.open(picture) as shown:
            for name, (left, top) in parts.items():
                part = shown.convert("RGB").crop((left, top, left + pictures.EDGE, top + pictures.EDGE))
                most = max(high for _, high in ImageChops.difference(part, planes[name]).getextrema())
                # Another libjpeg rounds otherwise.
                assert most <= (8 if name.endswith(".jpg") else 0), f"{picture.name}: {name}: {AGAIN}"


def test_the_readme_shows_them() -> None:
    readme = (ROOT / "README.md").read_text()
    assert all(str(picture.relative_to(ROOT)) in readme for picture in pictures.boxes())
