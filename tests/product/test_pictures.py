"""The pictures of the README and of the page show what a mount of the demonstration shows today."""

from __future__ import annotations

from PIL import Image, ImageChops

from tests.kits import page_pictures
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

    with Image.open(page_pictures.SLICES) as shown:
        left, top, zoom = map(int, shown.text["slice"].split())  # type: ignore[attr-defined]
        part = shown.crop((left, top, left + pictures.EDGE * zoom, top + pictures.EDGE * zoom))
        seen = part.resize((pictures.EDGE, pictures.EDGE), Image.Resampling.NEAREST)
        assert seen.tobytes() == planes[pictures.ACROSS].tobytes(), "run: python -m tests.kits.page_pictures"


def test_the_readme_shows_them() -> None:
    readme = (ROOT / "README.md").read_text()
    assert all(str(picture.relative_to(ROOT)) in readme for picture in pictures.boxes())
