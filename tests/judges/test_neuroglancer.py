"""Neuroglancer in headless Chromium, fed by a plain web server on a mount: its picture is the slice, voxel for voxel.

The client is the built one that the PyPI package ships, unmodified; the web server knows files, byte ranges and CORS,
and nothing of volfs.
"""

from __future__ import annotations

import functools
import http.server
import io
import os
import queue
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

import neuroglancer
import neuroglancer.webdriver
import numpy as np
import pytest
from PIL import Image

from tests.kits.mounts import volfs
from volfs.testing.kit import mounted
from volfs.testing.waiting import PATIENCE

SIDE = 256
PLANE = 100


class Files(http.server.SimpleHTTPRequestHandler):
    """Files, byte ranges, and leave for other origins to read them."""

    protocol_version = "HTTP/1.1"

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return

    def send_head(self) -> Any:
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if wanted is None or not path.is_file():
            return super().send_head()
        with path.open("rb") as file:
            return self._part(file, wanted[1], wanted[2])

    def _part(self, file: BinaryIO, first: str, last: str) -> BinaryIO:
        size = os.fstat(file.fileno()).st_size
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        file.seek(start)
        data = file.read(stop - start)
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        return io.BytesIO(data)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A web server on a directory, by its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    root = tmp_path_factory.mktemp("neuroglancer")
    volfs(None, "demo", root / "demo")
    with mounted(root / "demo" / "store", root / "mnt") as mount, served(mount) as address:
        yield mount / "cells/versions/v3", f"{address}/cells/versions/v3"


@dataclass
class Window:
    """Neuroglancer in a browser of its own."""

    viewer: neuroglancer.Viewer
    browser: neuroglancer.webdriver.Webdriver

    def picture(self, layers: dict[str, Any], position: list[float], size: tuple[int, int], **state: Any) -> np.ndarray:
        """What is shown once everything is loaded, shape (rows, columns, 4). A browser that does not answer is
        started anew, once.
        """
        with self.viewer.txn() as now:
            now.layers.clear()
            for name, layer in layers.items():
                now.layers[name] = layer
            # Without dimensions the view stays blank.
            now.dimensions = neuroglancer.CoordinateSpace(names=["x", "y", "z"], units=["nm"] * 3, scales=[8, 8, 8])
            now.position = position
            now.show_axis_lines = now.show_default_annotations = False
            for name, value in {"layout": "xy", "cross_section_scale": 1, "show_scale_bar": False, **state}.items():
                setattr(now, name, value)
        shot = self._shot(size)
        if shot is None:
            self.browser.reload_browser()
            shot = self._shot(size)
        assert shot is not None, f"Neuroglancer did not finish drawing {sorted(layers)} within {PATIENCE:.0f} s, twice"
        found: np.ndarray = np.array(Image.open(io.BytesIO(shot)).convert("RGBA"))
        assert found.shape == (size[1], size[0], 4)
        return found

    def _shot(self, size: tuple[int, int]) -> bytes | None:
        """A picture as PNG; None where none came. Neuroglancer itself waits for ever: so it does that aside."""
        answers: queue.Queue[bytes] = queue.Queue()

        def ask() -> None:
            answers.put(self.viewer.screenshot(size=list(size)).screenshot.image)

        threading.Thread(target=ask, daemon=True).start()
        try:
            return answers.get(timeout=PATIENCE)
        except queue.Empty:
            return None


@pytest.fixture(scope="module")
def window() -> Iterator[Window]:
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing: apt-get install chromium chromium-driver (make test does)", False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SE_OFFLINE", "true")  # the driver is here: Selenium need not look for one
        patch.setenv("SE_AVOID_STATS", "true")
        neuroglancer.set_server_bind_address("127.0.0.1")
        viewer = neuroglancer.Viewer()
        browser = neuroglancer.webdriver.Webdriver(
            viewer,
            headless=True,
            docker=True,  # no sandbox of its own: tests run as root
            print_logs=False,
            extra_command_line_args=["--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
        )
        try:
            yield Window(viewer, browser)
        finally:
            browser.driver.quit()
            neuroglancer.stop()


GRAY = "#uicontrol invlerp normalized(range=[0, 255])\nvoid main() { emitGrayscale(normalized()); }"
TILTED = [-0.36, 0.31, 0.12, 0.87]  # the view from a corner, as a quaternion


@pytest.mark.parametrize(
    ("source", "corner"),
    [
        ("precomputed://{}/formats/cells.precomputed", 0.5),
        ("zarr://{}/formats/cells.ome.zarr/", 0.0),
        ("zarr://{}/zarr/", 0.0),
        ("zarr2://{}/formats/cells.v2.zarr/", 0.0),
        ("zarr://{}/formats/cells.sharded.zarr/", 0.0),
        ("n5://{}/formats/cells.n5/setup0/timepoint0/s0/", 0.5),
    ],
)
def test_the_picture_is_the_slice(demonstration: tuple[Path, str], window: Window, source: str, corner: float) -> None:
    """``corner``: positions count from the corner of voxel 0, where the format says so, or from its centre."""
    version, address = demonstration
    expected = np.load(version / f"s0/xy/z{PLANE:05}.npy")
    layer = neuroglancer.ImageLayer(source=source.format(address), shader=GRAY)
    middle = SIDE / 2 - 0.5 + corner
    shown = window.picture({"image": layer}, [middle, middle, PLANE + corner], (SIDE, SIDE))[..., 0]
    assert alike(shown, expected) > 0.99
    beside = np.load(version / f"s0/xy/z{PLANE + 1:05}.npy")
    shifted = np.roll(expected, 1, axis=1)
    assert max(alike(shown, beside), alike(shown, shifted), alike(shown, expected.T)) < 0.98, "else this proves little"


def alike(shown: np.ndarray, expected: np.ndarray) -> float:
    return float(np.corrcoef(shown.ravel().astype(float), expected.ravel().astype(float))[0, 1])


@pytest.mark.parametrize(
    ("source", "corner"),
    [
        ("precomputed://{}/labels/cells/formats/cells.precomputed", 0.5),
        ("zarr://{}/zarr/labels/cells/", 0.0),
        ("zarr2://{}/formats/cells.v2.zarr/labels/cells/", 0.0),
    ],
)
def test_labels_are_a_segmentation(demonstration: tuple[Path, str], window: Window, source: str, corner: float) -> None:
    version, address = demonstration
    labels = np.load(version / f"labels/cells/s0/xy/z{PLANE:05}.npy")
    layer = neuroglancer.SegmentationLayer(source=source.format(address), hide_segment_zero=True)
    middle = SIDE / 2 - 0.5 + corner
    position, black = [middle, middle, PLANE + corner], "#000000"
    shown = window.picture({"cells": layer}, position, (SIDE, SIDE), cross_section_background_color=black)
    coloured = shown[..., :3].max(axis=2) > 40
    assert (coloured == (labels > 0)).mean() > 0.999
    for label in np.argsort(np.bincount(labels[labels > 0]))[-5:]:
        assert len(np.unique(shown[labels == label][:, :3], axis=0)) == 1, "one label, one colour"


def test_the_demonstration_in_four_panels(demonstration: tuple[Path, str], window: Window, tmp_path: Path) -> None:
    """As people see it; with VOLFS_PICTURES set the picture is kept there, for the documentation."""
    _, address = demonstration
    layers = {
        "image": neuroglancer.ImageLayer(source=f"zarr://{address}/zarr/", shader=GRAY),
        "cells": neuroglancer.SegmentationLayer(source=f"zarr://{address}/zarr/labels/cells/", selected_alpha=0.35),
    }
    shown = window.picture(
        layers,
        [128, 128, 128],
        (760, 760),
        layout="4panel",
        cross_section_scale=0.68,
        projection_scale=400,
        projection_orientation=TILTED,
        show_scale_bar=True,
    )
    assert all(panel.std() > 20 for half in np.split(shown[..., :3], 2) for panel in np.split(half, 2, axis=1))
    kept = Path(os.environ.get("VOLFS_PICTURES", tmp_path)) / "neuroglancer.png"
    Image.fromarray(shown[..., :3]).quantize(128).save(kept, optimize=True)
    assert kept.stat().st_size < 300_000
