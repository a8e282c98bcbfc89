"""Make the pictures of docs/serve.md from the page itself, in Chromium: ``python -m tests.kits.page_pictures``.

`tests/product/test_pictures.py` fails when the slice in them has other voxels than the demonstration today. Where a
slice lies in its picture stands there as text (iTXt chunk "slice" of PNG): left, top, pixels of a voxel.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from PIL.PngImagePlugin import PngInfo

import volfs
from tests.kits.chromium import Chromium, chromium
from tests.kits.http_servers import HttpServer, http_server
from tests.kits.paths import DOCS
from volfs.ingest.demo_store import build

EDGE = 256
AT = 128
PLANES = f"cells/versions/v3/view?plane=xy&at={AT}&low=0&high=255&zoom=2&x=128&y=128"
VERSION, SLICES = DOCS / "img" / "page_version.png", DOCS / "img" / "page_slices.png"
PICTURES = {
    VERSION: ("cells/versions/v3", "li.image:nth-child(2)", (1180, 730)),
    SLICES: (PLANES, "canvas[data-state=ready]", (1180, 760)),
}


@contextmanager
def demonstration() -> Iterator[HttpServer]:
    """A server of the demonstration."""
    os.environ["VOLFS_AUTHOR"] = "Ada Example"
    with TemporaryDirectory() as place:
        store = Path(place) / "store"
        with volfs.init_store(store) as opened:
            build(opened, EDGE)
        with http_server(store, Path(place) / "log") as server:
            yield server


def shot(browser: Chromium, server: HttpServer, place: str, ready: str, size: tuple[int, int]) -> Image.Image:
    """The page at an address, once all of its pictures are there."""
    browser.resize(*size)
    browser.go(f"{server.url}/#/{place}", ready)
    browser.wait_for(lambda: browser.ask("return [...document.images].every(e => e.complete && e.naturalWidth > 0)"))
    time.sleep(0.5)  # for fonts and the last frame: it is a picture for people
    return Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())).convert("RGB")


def main() -> None:
    """Write them."""
    with demonstration() as server, chromium() as browser:
        for path, (place, ready, size) in PICTURES.items():
            picture, told = shot(browser, server, place, ready, size), PngInfo()
            if "canvas" in ready:
                box = browser.ask(
                    "const b = document.querySelector('canvas').getBoundingClientRect(); return [b.left, b.top]"
                )
                inside = browser.ask(
                    "const d = document.querySelector('canvas').dataset; return [d.left, d.top, d.zoom]"
                )
                told.add_itxt("slice", f"{int(box[0]) + int(inside[0])} {int(box[1]) + int(inside[1])} {inside[2]}")
            picture.save(path, optimize=True, pnginfo=told)


if __name__ == "__main__":
    main()
