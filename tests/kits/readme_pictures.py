"""Make the pictures of the README from the demonstration: ``python -m tests.kits.readme_pictures``.

`tests/product/test_pictures.py` fails when they show another tree or other voxels than a mount does today. A picture of
the tree carries its lines as text, too (iTXt chunk "tree" of PNG), since letters are drawn as Pillow has them.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

import volfs
from tests.kits.paths import DOCS
from tests.kits.trees import Client, run, serving
from volfs.ingest.demo_store import build

EDGE = 256
VERSION = "cells/versions/v3"
TREE, PLANES = DOCS / "img" / "browse.png", DOCS / "img" / "slices.png"
#: What the pictures show, below a version.
ACROSS, DOWN, SEGMENTED = "s0/xy/z00128.png", "s0/xz/y00128.png", "labels/cells/s0/xy/z00128.jpg"
#: The directories that the picture of the tree opens, below the dataset.
OPEN = re.compile(r"cells(/branches|/tags|/versions(/v3(/formats|/labels|/s0(/xy)?)?)?)?")

_PAPER, _INK, _DIM, _PROMPT = (26, 27, 31), (222, 222, 222), (150, 160, 180), (130, 220, 130)
_LINE, _INDENT, _TOP, _LEFT = 19, 26, 14, 16
_PICTURE_LEFT = 470


async def tree_lines(client: Client) -> list[str]:
    """The tree of the dataset as `tree` would print it: a tabulator for each level. Long directories are cut."""
    lines = ["cells/"]

    async def below(path: str, depth: int) -> None:
        entries = await client.ls(path)
        many = [name for name in sorted(entries) if re.fullmatch(r"[xyz]\d{5}\.png", name)]
        for name in sorted(entries):
            if name in many[3:]:
                continue
            attr, inner = entries[name], f"{path}/{name}"
            end = "/" if attr.is_dir else f" -> {await client.readlink(inner)}" if attr.is_link else ""
            lines.append("\t" * depth + name + end)
            if attr.is_dir and OPEN.fullmatch(inner):
                await below(inner, depth + 1)
        if len(many) > 3:
            lines.append("\t" * depth + f"… {len(many)} files in all")

    await below("cells", 1)
    return lines


def drawn_tree(lines: list[str], planes: list[tuple[str, Image.Image]]) -> Image.Image:
    """The lines with the branches of the tree, and the planes with their names beside them."""
    font = ImageFont.load_default(14)
    height = _TOP + (len(lines) + 2) * _LINE
    made = Image.new("RGB", (_PICTURE_LEFT + EDGE + 24, max(height, _TOP + 2 * (EDGE + 40))), _PAPER)
    draw = ImageDraw.Draw(made)
    draw.text((_LEFT, _TOP), "$ tree demo/mnt/cells", _PROMPT, font)
    depths = [line.count("\t") for line in lines]
    for row, (line, depth) in enumerate(zip(lines, depths, strict=True)):
        y = _TOP + (row + 1) * _LINE
        draw.text((_LEFT + depth * _INDENT, y), line.strip(), _INK if "…" not in line else _DIM, font)
        if depth:
            x, middle = _LEFT + depth * _INDENT - 18, y + _LINE // 2
            above = next(at for at in range(row - 1, -1, -1) if depths[at] <= depth)
            top = _TOP + (above + 1) * _LINE + (_LINE if depths[above] < depth else _LINE // 2)
            draw.line((x, top, x, middle), _DIM)
            draw.line((x, middle, x + 12, middle), _DIM)
    for (name, plane), top in zip(planes, plane_tops(), strict=True):
        made.paste(plane, (_PICTURE_LEFT, top))
        draw.text((_PICTURE_LEFT, top + EDGE + 6), name, _DIM, font)
    return made


def plane_tops() -> tuple[int, int]:
    """Where the two planes begin in the picture of the tree, in pixels from above."""
    return _TOP, _TOP + EDGE + 40


def boxes() -> dict[Path, dict[str, tuple[int, int]]]:
    """Which plane lies where in which picture, as (left, top)."""
    first, second = plane_tops()
    return {
        TREE: {ACROSS: (_PICTURE_LEFT, first), SEGMENTED: (_PICTURE_LEFT, second)},
        PLANES: {name: (at * (EDGE + 10), 0) for at, name in enumerate((ACROSS, DOWN, SEGMENTED))},
    }


def seen() -> tuple[list[str], dict[str, Image.Image]]:
    """The tree's lines and the planes, of a demonstration that is built for it."""
    planes: dict[str, Image.Image] = {}
    lines: list[str] = []

    async def look(store: Path) -> None:
        async with serving(store) as client:
            lines.extend(await tree_lines(client))
            for name in (ACROSS, DOWN, SEGMENTED):
                planes[name] = Image.open(io.BytesIO(await client.read(f"{VERSION}/{name}"))).convert("RGB")

    with TemporaryDirectory() as place:
        store = Path(place) / "store"
        with volfs.init_store(store) as opened:
            build(opened, EDGE)
        run(lambda: look(store))
    return lines, planes


def main() -> None:
    """Write both pictures."""
    lines, planes = seen()
    text = PngInfo()
    text.add_itxt("tree", "\n".join(lines))
    drawn = drawn_tree(lines, [(name, planes[name]) for name in (ACROSS, SEGMENTED)])
    drawn.save(TREE, optimize=True, pnginfo=text)
    row = Image.new("RGB", (3 * EDGE + 20, EDGE), "white")
    for name, place in boxes()[PLANES].items():
        row.paste(planes[name], place)
    row.save(PLANES, optimize=True)


if __name__ == "__main__":
    main()
