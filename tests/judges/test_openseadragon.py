"""OpenSeadragon, unmodified, in headless Chromium, shows planes from a plain web server: its pixels are the voxels."""

from __future__ import annotations

import io
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.kits.chromium import chromium
from tests.kits.paths import ROOT
from tests.kits.view_folders import MemoryArray, array_meta, at, content, image_view, view_of, write_out
from volfs.views.folder import Folder, ImageView, LevelView, ViewFile
from volfs.views.folders import deepzoom

SCRIPT = Path(os.environ.get("OPENSEADRAGON", ROOT / "node_modules/openseadragon/build/openseadragon")) / (
    "openseadragon.min.js"
)
WIDTH, HEIGHT = 512, 384

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="OpenSeadragon is not there: npm install openseadragon")

PAGE = f"""<!doctype html><body style="margin:0;background:#000">
<div id="view" style="width:{WIDTH}px;height:{HEIGHT}px"></div><script src="openseadragon.min.js"></script><script>
const viewer = OpenSeadragon({{id: "view", tileSources: location.search.slice(1), showNavigationControl: false,
  drawer: "canvas", imageSmoothingEnabled: false, animationTime: 0, blendTime: 0, maxZoomPixelRatio: 16,
  minZoomImageRatio: 0.01, visibilityRatio: 0}});
</script></body>"""


class Handler(SimpleHTTPRequestHandler):
    asked: list[tuple[str, int]]

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        self.asked.append((self.path, int(code)))

    def log_message(self, format: str, *args: Any) -> None:
        return


@dataclass
class Browser:
    driver: Any
    root: Path
    port: int
    asked: list[tuple[str, int]] = field(default_factory=list)

    def show(self, descriptor: str) -> None:
        self.asked.clear()
        self.driver.get(f"http://127.0.0.1:{self.port}/page.html?/{descriptor}")
        self.settle()

    def settle(self) -> None:
        self.driver.execute_async_script(
            "const done = arguments[0], look = () => {"
            " const item = viewer.world.getItemAt(0);"
            " if (item && item.getFullyLoaded()) { viewer.forceRedraw(); setTimeout(done, 100); }"
            " else setTimeout(look, 20); }; look();"
        )

    def ask(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def seen(self) -> np.ndarray:
        with Image.open(io.BytesIO(self.driver.get_screenshot_as_png())) as picture:
            return np.asarray(picture.convert("RGB"))[:HEIGHT, :WIDTH]

    @property
    def tiles(self) -> list[str]:
        assert all(code in (200, 304) for path, code in self.asked if path != "/favicon.ico"), self.asked
        return [path for path, _ in self.asked if path.endswith(".png")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    root = tmp_path_factory.mktemp("web")
    (root / "page.html").write_text(PAGE)
    shutil.copy(SCRIPT, root)
    asked: list[tuple[str, int]] = []
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(type("Asked", (Handler,), {"asked": asked}), directory=str(root))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with chromium(size=(800, 700)) as opened:
            yield Browser(opened.driver, root, server.server_port, asked)
    finally:
        server.shutdown()
        server.server_close()


def pattern(shape: tuple[int, ...]) -> np.ndarray:
    """Something smooth that is nowhere the same: a picture of it cannot be shifted, flipped or turned unnoticed."""
    down, across = np.meshgrid(*(np.linspace(0, 1, n) for n in shape[-2:]), indexing="ij")
    plane = 60 + 110 * across + 60 * down**2 + 20 * np.sin(9 * across * down)
    slabs = np.arange(int(np.prod(shape[:-2]))).reshape(*shape[:-2], 1, 1)
    return (plane + slabs).astype(np.uint8)


def folder(image: ImageView) -> Folder:
    made = deepzoom.folder(image)
    assert made is not None
    return made


def write_one(made: Folder, name: str, path: Path) -> None:
    """One Deep Zoom image of many."""
    tiles, descriptor = at(made, f"{name}_files"), at(made, f"{name}.dzi")
    assert isinstance(tiles, Folder) and isinstance(descriptor, ViewFile)
    write_out(tiles, path / f"{name}_files")
    (path / f"{name}.dzi").write_bytes(content(descriptor))


def correlated(seen: np.ndarray, plane: np.ndarray) -> float:
    """How much a screenshot of a picture that fills the view looks like a plane, from afar."""
    rows, columns = plane.shape
    scale = min(WIDTH / columns, HEIGHT / rows)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    expected = np.zeros((HEIGHT, WIDTH))
    left, top = (WIDTH - size[0]) // 2, (HEIGHT - size[1]) // 2
    expected[top : top + size[1], left : left + size[0]] = np.asarray(Image.fromarray(plane).resize(size))
    return float(np.corrcoef(expected.ravel(), seen[..., 0].ravel())[0, 1])


def test_a_plane_is_shown_whole_and_voxel_by_voxel(browser: Browser) -> None:
    voxels = pattern((3, 700, 1000))
    write_one(folder(image_view(voxels, chunks=(1, 128, 128), levels=3)), "xy/z00001", browser.root / "a.tiles")
    browser.show("a.tiles/xy/z00001.dzi")
    assert browser.ask("return viewer.world.getItemAt(0).getContentSize().toString()") == "(1000,700)"
    assert correlated(browser.seen(), voxels[1]) > 0.99
    # One pixel of the screen for one voxel, from (300, 200) on: tiles meet there, and every pixel is a voxel.
    browser.ask(
        "const item = viewer.world.getItemAt(0);"
        f"viewer.viewport.fitBounds(item.imageToViewportRectangle(300, 200, {WIDTH}, {HEIGHT}), true)"
    )
    browser.settle()
    assert any("_files/10/" in tile for tile in browser.tiles)
    seen = browser.seen()
    assert np.array_equal(seen[..., 0], voxels[1, 200 : 200 + HEIGHT, 300 : 300 + WIDTH])
    assert np.array_equal(seen[..., 0], seen[..., 2])


def test_colours_are_those_of_the_voxels(browser: Browser) -> None:
    voxels = np.stack([pattern((HEIGHT, WIDTH)), pattern((HEIGHT, WIDTH))[::-1], pattern((HEIGHT, WIDTH))[:, ::-1]])
    image = image_view(voxels, "cyx", chunks=(3, 128, 128), sample="c")
    write_out(folder(image), browser.root / "rgb.tiles")
    browser.show("rgb.tiles/xy/z00000.dzi")
    assert np.array_equal(browser.seen(), voxels.transpose(1, 2, 0))


def test_sixteen_bits_are_shown_by_their_upper_eight(browser: Browser) -> None:
    plane = pattern((HEIGHT, WIDTH)).astype(np.uint16) << 8
    write_out(folder(image_view(plane, "yx", chunks=(128, 128))), browser.root / "b.tiles")
    browser.show("b.tiles/xy/z00000.dzi")
    assert np.abs(browser.seen()[..., 0].astype(int) - (plane >> 8)).max() <= 1


def test_an_image_without_coarse_levels_and_planes_across_it_are_shown_from_afar(browser: Browser) -> None:
    voxels = pattern((300, 90, 1200)).swapaxes(0, 1).copy()
    meta = array_meta(voxels.shape, voxels.dtype, (45, 150, 300))
    alone = LevelView("s0", MemoryArray(meta, voxels), (1.0,) * 3, (0.0,) * 3)
    made = folder(view_of([alone], "zyx"))
    for name, plane in (("xy/z00017", voxels[17]), ("xz/y00299", voxels[:, 299]), ("yz/x01199", voxels[..., 1199])):
        write_one(made, name, browser.root / "c.tiles")
        browser.show(f"c.tiles/{name}.dzi")
        assert correlated(browser.seen(), plane) > 0.97
        assert browser.tiles


def test_a_level_that_is_said_to_be_absent_is_not_asked_for(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepzoom, "MOST_VOXELS", 1 << 18)
    voxels = pattern((1200, 1500))
    write_out(folder(image_view(voxels, "yx", chunks=(256, 256))), browser.root / "d.tiles")
    assert not (browser.root / "d.tiles/xy/z00000_files/8").exists()
    browser.show("d.tiles/xy/z00000.dzi")
    assert correlated(browser.seen(), voxels) > 0.99
    assert {tile.split("/")[-2] for tile in browser.tiles} <= {"9", "10", "11"}
