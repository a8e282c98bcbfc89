"""The page in Chromium: its pixels are the voxels, keys reach all of it, and nothing of a store is markup."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from selenium.webdriver.common.keys import Keys

import volfs
from tests.kits.chromium import Chromium, chromium
from tests.kits.http_servers import HttpServer, http_server
from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.source import ArraySource
from volfs.model.box import Box
from volfs.testing.small_store import CELLS, NUCLEI, SHAPE, add_image, make_store
from volfs.testing.volumes import image, segmentation
from volfs.views.colour import pseudo_colour, windowed
from volfs.views.difference import paint

ODD = "<b>odd #1?50%é&'\""
EVIL = "<img src=x onerror='document.title=\"owned\"'>"
MOVIE = image((2, 3, 6, 30, 40), "uint16")
WIDE = segmentation(SHAPE, "uint64") * np.uint64(2**40)
REAL = image((3, 20, 30), "float32")
TOKEN = "let me in"
SHEET = image((1100, 1300), "uint16")
RANDOM = np.random.default_rng(1)
KINDS = {
    "flag": ("zyx", RANDOM.integers(0, 2, (2, 20, 30)).astype(bool)),
    "half": ("zyx", RANDOM.random((2, 20, 30)).astype("f2")),
    "wave": ("zyx", (RANDOM.random((2, 20, 30)) + 1j * RANDOM.random((2, 20, 30))).astype("c8")),
    "negative": ("zyx", RANDOM.integers(-500, 500, (2, 20, 30)).astype("i2")),
    "long": ("zyx", RANDOM.integers(0, 2**50, (2, 20, 30)).astype("u8")),
    "flat": ("yx", RANDOM.integers(0, 255, (33, 44)).astype("u1")),
    "six": ("atczyx", RANDOM.integers(0, 255, (2, 2, 2, 2, 20, 30)).astype("u1")),
    "colour": ("cyx", RANDOM.integers(0, 255, (3, 33, 44)).astype("u1")),
}
GREW = CELLS.copy()
GREW[7, 5:20, 8:30] = 255
GREW[7, 25:30, 8:30] = 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    """Images of many kinds under awkward names, a merge, a tag, and texts that would be markup."""
    base = tmp_path_factory.mktemp("page")
    store = make_store(base / "store")
    with volfs.open_store(store) as opened:
        add_image(opened, "cells", ODD, REAL, "zyx", chunks=(3, 20, 30), levels=1)
        add_image(opened, "cells", "labels/wide", WIDE, "zyx", chunks=(16, 16, 16), levels=2, labels=True)
        for name, (axes, voxels) in KINDS.items():
            source = ArraySource(voxels)
            source.description = replace(source.description, rgb=name == "colour")
            import_source(opened, "kinds", name, source, ImportOptions(axes=axes, levels=1, message=name))
        add_image(opened, "sheet", "", SHEET, "yx", chunks=(256, 256), levels=3)
        add_image(opened, "movie", "", MOVIE, "tczyx", chunks=(1, 1, 6, 30, 40), levels=1)
        cells = opened["cells"]
        level = volfs.images(cells["main"])[""].levels[0]
        level.write(Box.whole(level.shape), GREW)
        cells["main"].commit(f"{EVIL}\n\n{EVIL} in the body", author=f"{EVIL} <a@b>")
        cells["exp"].put("files/notes.txt", b"notes")
        cells["exp"].commit("notes")
        cells.merge("exp", into="main")
        cells.create_tag("paper", "v2")
    with http_server(store, base / "log", token=TOKEN) as running:
        yield running
        assert b"ERROR" not in running.log.read_bytes()


@pytest.fixture(scope="module")
def browser(server: HttpServer) -> Iterator[Chromium]:
    """A browser that the server knows: what nobody else may see, its cookie shows it."""
    with chromium() as made:
        made.go(f"{server.url}/?token={quote(TOKEN)}", "h1")
        yield made


@pytest.fixture(autouse=True)
def no_rule_is_broken(browser: Chromium) -> Iterator[None]:
    browser.complaints()
    yield
    assert not browser.complaints()


def shown(browser: Chromium, server: HttpServer, place: str, size: tuple[int, int], **query: Any) -> np.ndarray:
    """The slice that the viewer shows at an address, a pixel for each voxel, shape (rows, columns, 3)."""
    asked = "&".join(f"{key}={quote(str(value))}" for key, value in {"zoom": 1, **query}.items())
    browser.go(f"{server.url}/#/{place}?{asked}", "canvas[data-state=ready]")
    return picture(browser, size)


def picture(browser: Chromium, size: tuple[int, int], selector: str = "canvas") -> np.ndarray:
    browser.wait(f"{selector}[data-state=ready]")
    left, top = (
        int(browser.ask(f"return document.querySelector('{selector}').dataset.{at}")) for at in ("left", "top")
    )
    return browser.canvas(selector)[top : top + size[0], left : left + size[1]]


def gray(voxels: np.ndarray) -> np.ndarray:
    return np.repeat(voxels[..., None], 3, axis=-1)


def test_the_start_shows_datasets_and_leads_by_keys_to_a_slice(browser: Chromium, server: HttpServer) -> None:
    browser.go(f"{server.url}/", ".card img")
    assert browser.text("h1") == "Datasets"
    names = browser.ask("return [...document.querySelectorAll('.card h2')].map(e => e.innerText)")
    assert names == ["cells", "kinds", "movie", "sheet"]
    browser.wait_for(lambda: browser.ask("return [...document.images].every(e => e.complete && e.naturalWidth > 0)"))
    browser.press(Keys.TAB)
    assert browser.focused() == "cells"
    browser.press(Keys.ENTER)
    browser.wait(".history .row")
    assert browser.text("h1") == "cells" and browser.focused() == "cells"
    # The newest version first: down the list, and into one.
    browser.ask("document.querySelector('.row a.name[tabindex=\"0\"]').focus()")
    newest = browser.focused()
    browser.press(Keys.ARROW_DOWN)
    assert int(browser.focused()[1:]) == int(newest[1:]) - 1
    browser.press(Keys.END)
    assert browser.focused() == "v1"
    browser.press(Keys.ENTER)
    browser.wait("li.image")
    assert browser.text("h1").startswith("v1")
    browser.press("u")
    browser.wait(".history")
    browser.press("?")
    browser.wait("dialog[open]")
    assert "one step up" in browser.text("dialog")
    browser.press(Keys.ESCAPE)


def test_a_version_says_who_when_why_and_what(browser: Chromium, server: HttpServer) -> None:
    browser.go(f"{server.url}/#/cells/versions/v2", "li.image:nth-child(2)")
    text = browser.text("main")
    for part in (
        "import labels/nuclei",
        "paper",
        "parents v1",
        "zarr/labels/nuclei/s0",
        "20 \u00d7 40 \u00d7 50",
        "4 \u00d7 4 \u00d7 4 nm",
        "uint32",
    ):
        assert part in text
    browser.ask("document.querySelector('li.image details:last-of-type').open = true")
    browser.wait("li.image .files a")
    files = browser.ask(
        "return [...document.querySelectorAll('li.image .files a')].map(e => [e.innerText, e.download, e.href])"
    )
    endings = {name for name, saved, _ in files if saved.startswith("cells-v2-s0.")}
    assert {".tif", ".nii", ".nrrd", ".npy", ".mrc", ".mha", ".h5"} <= endings
    assert {"cells.n5/", "cells.precomputed/"} <= {name for name, *_ in files}
    for _, _, href in files:
        assert server.ask("HEAD", href.removeprefix(server.url)).status == 200
    # Any name for a version leads to it.
    browser.go(f"{server.url}/#/cells/versions/paper", "li.image")
    assert browser.ask("return location.hash") == "#/cells/versions/v2"
    browser.ask("document.querySelector('.compare button:last-of-type').click()")
    browser.wait(".lines pre")
    assert "labels/nuclei" in browser.text(".lines pre")


def test_pixels_are_the_voxels_of_each_plane(browser: Chromium, server: HttpServer) -> None:
    for plane, at, voxels in (("xy", 7, CELLS[7]), ("xz", 11, CELLS[:, 11]), ("yz", 13, CELLS[:, :, 13])):
        found = shown(browser, server, "cells/versions/v2/view", voxels.shape, plane=plane, at=at, low=0, high=255)
        assert (found == gray(voxels)).all()
    coarse = np.load(io.BytesIO(server.get("/cells/versions/v2/s1/xy/z00003.npy").body))
    found = shown(browser, server, "cells/versions/v2/view", SHAPE[1:], at=7, low=0, high=255, level="s1")
    assert (found[::2, ::2] == gray(coarse)).all()


def test_sixteen_bits_channels_and_times_through_a_window(browser: Chromium, server: HttpServer) -> None:
    low, high = 1000, 30000
    found = shown(browser, server, "movie/versions/v1/view", (30, 40), at=2, t=1, c=2, low=low, high=high)
    assert (found == gray(windowed(MOVIE[1, 2, 2], (low, high)))).all()
    browser.ask("document.querySelector('canvas').focus()")
    browser.press("T", ".", ".")
    assert "t=0" in settled(browser, "at=4")
    found = picture(browser, (30, 40))
    assert (found == gray(windowed(MOVIE[0, 2, 4], (low, high)))).all()
    browser.press("a")  # percentiles of what is there
    settled(browser, "c=2")
    assert np.ptp(picture(browser, (30, 40)).astype(int)) > 200


def settled(browser: Chromium, part: str) -> str:
    browser.wait_for(lambda: part in browser.ask("return location.hash"))
    return str(browser.ask("return location.hash"))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_image_is_shown_by_its_voxels(browser: Chromium, server: HttpServer, kind: str) -> None:
    browser.go(f"{server.url}/#/kinds/branches/main/view/{kind}?zoom=1", "canvas[data-state=ready]")
    window = [
        float(part.partition("=")[2]) for part in settled(browser, "low=").split("&") if part[:3] in ("low", "hig")
    ]
    file = browser.ask("return [...document.querySelectorAll('.actions a')].find(e => e.href.endsWith('.npy')).href")
    voxels = np.load(io.BytesIO(server.get(file.removeprefix(server.url)).body))
    colour = kind == "colour"
    expected = voxels if colour else gray(windowed(voxels, (window[0], window[1])))
    assert voxels.ndim == 2 + colour and np.ptp(expected.astype(int)) > 200
    assert (picture(browser, voxels.shape[:2]) == expected).all()


def test_a_large_plane_comes_in_tiles_of_the_level_that_fits_the_zoom(browser: Chromium, server: HttpServer) -> None:
    window = {"low": 0, "high": 65535}
    browser.go(f"{server.url}/#/sheet/versions/v1/view?zoom=1&x=650&y=512&low=0&high=65535", "canvas[data-state=ready]")
    found = browser.canvas("canvas")
    left, top = (int(browser.ask(f"return document.querySelector('canvas').dataset.{at}")) for at in ("left", "top"))
    assert left < 0 and top < 0, "a corner of four tiles is in the middle"
    seen = windowed(SHEET, (0, 65535))[-top : found.shape[0] - top, -left : found.shape[1] - left]
    assert (found == gray(seen)).all()
    for zoom, level in ((0.5, "s1"), (0.25, "s2"), (0.1, "s2"), (0.6, "s0")):
        browser.go(f"{server.url}/#/sheet/versions/v1/view?zoom={zoom}&low=0&high=65535", "canvas[data-state=ready]")
        assert browser.ask("return document.querySelector('canvas').dataset.level") == level
    coarse = np.load(io.BytesIO(server.get("/sheet/versions/v1/s2/xy/z00000.npy").body))
    assert (
        shown(browser, server, "sheet/versions/v1/view", coarse.shape, **window | {"zoom": 0.25})
        == gray(windowed(coarse, (0, 65535)))
    ).all()


def test_labels_have_the_colours_that_they_have_everywhere(browser: Chromium, server: HttpServer) -> None:
    for path, labels in (("nuclei", NUCLEI), ("wide", WIDE)):
        found = shown(browser, server, f"cells/branches/main/view/labels/{path}", SHAPE[1:], at=5)
        assert (found == pseudo_colour(labels[5])).all()
    browser.ask(
        "const c = document.querySelector('canvas'), b = c.getBoundingClientRect();"
        "c.dispatchEvent(new PointerEvent('pointermove', {clientX: b.left + Number(c.dataset.left) + 20.5,"
        " clientY: b.top + Number(c.dataset.top) + 10.5}))"
    )
    assert f"value {WIDE[5, 10, 20]}" in browser.text(".readout") and "x 20" in browser.text(".readout")


def test_two_versions_side_by_side_and_as_a_difference(browser: Chromium, server: HttpServer) -> None:
    place, query = "cells/versions/v5/view", {"at": 7, "low": 0, "high": 255, "with": "versions/v2"}
    shown(browser, server, place, SHAPE[1:], mode="side", **query)
    for figure, voxels in (("figure:first-child canvas", CELLS[7]), ("figure:last-child canvas", GREW[7])):
        assert (picture(browser, SHAPE[1:], figure) == gray(voxels)).all()
    expected = paint(CELLS[7], GREW[7], CELLS[7] != GREW[7], (0.0, 255.0), is_label=False)
    assert (shown(browser, server, place, SHAPE[1:], mode="diff", **query) == expected).all()
    browser.ask("document.querySelector('canvas').focus()")
    browser.press("d")
    browser.wait("figure:nth-child(2) canvas[data-state=ready]")


def test_names_and_texts_are_never_markup(browser: Chromium, server: HttpServer) -> None:
    browser.go(f"{server.url}/#/cells/versions/v5", "li.image:nth-child(2)")
    assert EVIL in browser.text(".subject") and EVIL in browser.text(".message") and EVIL in browser.text(".title .dim")
    assert ODD in browser.text(".images")
    browser.go(f"{server.url}/#/cells", ".history .row")
    assert EVIL in browser.text(".rows")
    browser.go(
        f"{server.url}/#/cells/versions/v5/view/{quote(ODD, safe='')}?zoom=1&at=1&low=0&high=1",
        "canvas[data-state=ready]",
    )
    assert ODD in browser.text("h1") and ODD in browser.text("#trail")
    assert (picture(browser, REAL.shape[1:]) == gray(windowed(REAL[1], (0.0, 1.0)))).all()
    for href in browser.ask("return [...document.querySelectorAll('.actions a')].map(e => e.href)"):
        assert server.ask("HEAD", href.removeprefix(server.url)).status == 200
    assert not browser.ask("return document.querySelector('b, img[src=\"x\"]')")
    assert "owned" not in browser.driver.title
    browser.go(f"{server.url}/#/{quote(EVIL, safe='')}/versions/{quote(EVIL, safe='')}", ".failed")
    assert not browser.ask("return document.querySelector('main img')")
    assert [line for line in browser.complaints() if "404" not in line] == []


def test_a_narrow_window_shows_all_of_it_without_scrolling_sideways(browser: Chromium, server: HttpServer) -> None:
    browser.resize(360, 700)
    try:
        for place, ready in (
            ("", ".card img"),
            ("cells", ".row"),
            ("cells/versions/v5", "li.image"),
            ("cells/versions/v5/view", "canvas[data-state=ready]"),
        ):
            browser.go(f"{server.url}/#/{place}", ready)
            assert browser.ask("return document.documentElement.scrollWidth") <= 360, place
        assert browser.ask("return document.querySelector('canvas').getBoundingClientRect().width") > 300
    finally:
        browser.resize(1280, 900)


def test_every_control_has_a_name_and_text_has_contrast(browser: Chromium, server: HttpServer) -> None:
    for theme in ("light", "dark"):
        browser.ask("localStorage.setItem('theme', arguments[0])", theme)
        for place, ready in (
            ("", ".card .facts p"),
            ("cells", ".row"),
            ("cells/versions/v5", "li.image"),
            ("cells/versions/v5/view", "canvas[data-state=ready]"),
        ):
            browser.go(f"{server.url}/#/{place}", ready)
            assert browser.ask(NAMELESS) == [] and browser.ask(PALE) == [], (theme, place)
    browser.ask("localStorage.setItem('theme', 'auto')")


#: Controls that a screen reader could not name.
NAMELESS = """return [...document.querySelectorAll('a, button, input, select, canvas')].filter(e =>
  !e.closest('[aria-hidden=true]') && e.getClientRects().length &&
  !(e.getAttribute('aria-label') || e.innerText?.trim() || e.labels?.length || e.title)).map(e => e.outerHTML)"""
#: Texts of less contrast than WCAG's 4.5 to 1.
PALE = """
const lum = c => { const [r, g, b] = c.map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const parse = s => s.match(/[0-9.]+/g).map(Number);
const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
  if (c.length < 4 || c[3] > 0.5) return c.slice(0, 3); } return [255, 255, 255]; };
const out = [];
for (const e of document.querySelectorAll('main *, header *')) {
  if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.getClientRects().length) continue;
  const [a, b] = [lum(parse(getComputedStyle(e).color).slice(0, 3)), lum(ground(e))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) out.push([e.className, e.textContent.slice(0, 30), ratio]);
}
return out;"""


def test_ten_thousand_versions_are_a_list_of_a_few_rows(browser: Chromium, server: HttpServer) -> None:
    browser.go(f"{server.url}/#/cells", ".history .row")
    count = 10_000
    blocks = []
    for number in range(count, 0, -1):
        parents = [number - 1] if number % 50 else [number - 1, max(1, number - 30)]
        named = ", ".join(f"v{parent}" for parent in parents if parent) or "none"
        blocks.append(
            f"v{number}\nparent  {named}\nauthor  somebody\ndate    2026-03-01T09:30:00Z\n\n    step {number}\n"
        )
    made = browser.ask_later(MADE, "\n".join(blocks))
    assert made["versions"] == count and made["rows"] < 80
    lanes: list[dict[str, Any]] = made["lanes"]
    assert check_lanes(lanes, count) < 6
    assert browser.ask("return document.querySelector('.history').scrollHeight") >= count * 40
    browser.ask("document.querySelector('.history').scrollTop = 250000")
    browser.wait_for(lambda: "step 519" in browser.text(".rows"))
    browser.ask("document.querySelector('.row a.name[tabindex=\"0\"]').focus({preventScroll: true})")
    browser.press(Keys.END)
    assert browser.focused() == "v1"
    assert browser.ask("return document.querySelectorAll('.row').length") < 80
    field = browser.driver.find_element("css selector", ".filter input")
    field.send_keys("step 4321")
    browser.wait_for(lambda: browser.text(".found") == "1 of 10000")
    assert browser.text(".rows").startswith("v4321")


MADE = """const done = arguments[arguments.length - 1];
const modules = [import('/.volfs/page/history.js'), import('/.volfs/page/tree.js')];
Promise.all(modules).then(([{history, lanes}, {parseLog}]) => {
  const versions = parseLog(arguments[0]);
  const view = document.querySelector('.view');
  view.replaceChildren(history('cells', versions, new Map()));
  const rows = () => view.querySelectorAll('.row').length;
  setTimeout(() => done({versions: versions.length, rows: rows(), lanes: lanes(versions).rows}), 300);
});"""


def check_lanes(rows: list[dict[str, Any]], count: int) -> int:
    """Every line that leaves a row arrives at the next, and each version's own lane is one of them. The widest row."""
    for row, after in pairwise(rows):
        leaving = {to for _, to, _ in row["lower"]}
        arriving = {begin for begin, _, _ in after["upper"]}
        assert leaving == arriving
        assert after["lane"] in {to for _, to, _ in after["upper"]}
    assert not rows[-1]["lower"] and len(rows) == count
    return max(len(row["lower"]) for row in rows)


def test_neuroglancer_is_shown_by_the_same_server_and_has_what_it_needs(browser: Chromium, server: HttpServer) -> None:
    browser.go(f"{server.url}/#/cells/versions/v2", "a[href*=neuroglancer]")
    goal = browser.ask("return document.querySelector('li.image a[href*=neuroglancer]').href")
    browser.go(goal, ".neuroglancer-viewer")
    client = server.get("/.volfs/neuroglancer/v/volfs/")
    assert client.headers["content-security-policy"].startswith("default-src 'self'")
    browser.wait_for(
        lambda: bool(browser.ask("return window.viewer?.layerManager?.managedLayers?.[0]?.layer?.isReady"))
    )
    state = json.loads(browser.ask("return JSON.stringify(window.viewer.state.toJSON())"))
    assert state["layers"][0]["source"] == f"zarr://{server.url}/cells/versions/v2/zarr/"
    assert state["dimensions"]["x"] == [4e-09, "m"]
    complaints = [line for line in browser.complaints() if "404" not in line]  # it asks for Zarr v2 as well
    assert not complaints


def test_the_page_and_its_policy(server: HttpServer) -> None:
    page = server.get("/", Accept="text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy and "http" not in policy
    assert b"http" not in page.body.replace(b'"http', b"") and b"style=" not in page.body
    assert server.get("/.volfs/page/nothing.js").status == server.get("/.volfs/page/").status - 200 + 404
    assert server.get("/.volfs/neuroglancer/v/other/").status == 404
    for path in (Path(volfs.__file__).parent / "web" / "page").iterdir():
        text = path.read_text()
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text and "document.write" not in text, path
        assert "://" not in text.replace("http://www.w3.org/2000/svg", "").replace("zarr://", ""), path
