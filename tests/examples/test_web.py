"""``mount_examples/nginx`` and ``mount_examples/caddy``: the real servers show a real mount as viewers need it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts

from tests.kits.cells import make_store
from tests.kits.examples import mounted_store, open_directory
from tests.kits.mounts import running, volfs
from tests.kits.paths import EXAMPLES
from tests.kits.web_servers import Site, serving
from volfs.testing.kit import daemon_pid, take_away


@pytest.fixture(scope="module")
def mount() -> Iterator[tuple[Path, Path]]:
    with mounted_store() as places:
        yield places


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def site(request: pytest.FixtureRequest, mount: tuple[Path, Path]) -> Iterator[Site]:
    with serving(request.param, *mount) as found:
        yield found


VERSION = "/cells/versions/v2"
SOME_FILES = [
    "zarr/zarr.json",
    "zarr/s0/c/0/0/0",
    "s0/xy/z00003.png",
    "s0/volume.tif",
    "s0/cutout/z2-7_y1-9.npy",
    "formats/cells.precomputed/info",
    "formats/cells.v2.zarr/s0/.zarray",
    "labels/nuclei/s0/volume.nrrd",
]


@pytest.mark.parametrize("name", SOME_FILES)
def test_every_byte_comes_as_the_mount_has_it(site: Site, name: str) -> None:
    expected = (site.mount / VERSION[1:] / name).read_bytes()
    answer, body = site.ask(f"{VERSION}/{name}", Accept_Encoding="gzip, zstd, br")
    assert (answer.status, body) == (200, expected)
    assert answer.headers["Content-Encoding"] is None and int(answer.headers["Content-Length"]) == len(expected)
    head, nothing = site.ask(f"{VERSION}/{name}", "HEAD")
    assert (int(head.headers["Content-Length"]), nothing) == (len(expected), b"")


@pytest.mark.parametrize(
    ("ask", "part"), [("5-14", slice(5, 15)), ("100-", slice(100, None)), ("-33", slice(-33, None))]
)
def test_byte_ranges_of_each_kind(site: Site, ask: str, part: slice) -> None:
    expected = (site.mount / VERSION[1:] / "s0/volume.tif").read_bytes()
    answer, body = site.ask(f"{VERSION}/s0/volume.tif", Range=f"bytes={ask}")
    assert (answer.status, body) == (206, expected[part])
    said = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers["Content-Range"])
    assert said is not None
    first, last, size = map(int, said.groups())
    assert (expected[first : last + 1], size) == (body, len(expected))
    beyond, _ = site.ask(f"{VERSION}/s0/volume.tif", Range=f"bytes={len(expected)}-")
    assert beyond.status == 416


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", [f"{VERSION}/zarr/zarr.json", f"{VERSION}/zarr/s0/c/9/9/9", f"{VERSION}/s0/"])
def test_pages_from_elsewhere_may_read_even_that_a_file_is_absent(site: Site, path: str, method: str) -> None:
    answer, _ = site.ask(path, method, Access_Control_Request_Method="GET", Access_Control_Request_Headers="range")
    expected = 204 if method == "OPTIONS" else 404 if "9/9/9" in path else 200
    assert answer.status == expected
    assert answer.headers.get_all("Access-Control-Allow-Origin") == ["*"]
    allowed = answer.headers["Access-Control-Allow-Headers"].lower()
    exposed = answer.headers["Access-Control-Expose-Headers"].lower()
    assert "range" in allowed and all(name in exposed for name in ("content-range", "content-length", "etag"))


def test_what_may_be_kept_and_what_is_asked_for_anew(site: Site) -> None:
    kept, _ = site.ask(f"{VERSION}/zarr/zarr.json")
    assert kept.headers.get_all("Cache-Control") == ["public, max-age=86400, immutable"]
    for path in ("/cells/versions/latest/zarr/zarr.json", "/cells/branches/main/zarr/zarr.json", "/cells/versions/"):
        anew, _ = site.ask(path)
        assert (anew.status, anew.headers.get_all("Cache-Control")) == (200, ["no-cache"]), path
    again, body = site.ask(f"{VERSION}/zarr/zarr.json", If_None_Match=kept.headers["ETag"])
    assert (again.status, body) == (304, b"")


@pytest.mark.parametrize("path", ["zarr/s0/c/9/9/9", ".volfs/status.json", "s0/nothing.png"])
def test_nobody_keeps_that_something_is_absent(site: Site, path: str) -> None:
    answer, _ = site.ask(f"{VERSION}/{path}")
    assert (answer.status, answer.headers.get_all("Cache-Control")) == (404, ["no-cache"])
    refused, _ = site.ask(f"{VERSION}/zarr/zarr.json", "PUT")
    assert (refused.status, refused.headers.get_all("Cache-Control")) == (405, ["no-cache"])


@pytest.mark.parametrize("kind", ["nginx", "caddy"])
def test_nobody_keeps_what_a_mount_answers_that_has_died(kind: str) -> None:
    with open_directory() as root:
        store, mountpoint = make_store(root / "store"), root / "mnt"
        mountpoint.mkdir()
        volfs(store, "mount", mountpoint, *(["--allow-other"] if os.geteuid() == 0 else []))
        try:
            with serving(kind, root, mountpoint) as site:
                asked = f"{VERSION}/zarr/s0/c/0/0/0"
                assert site.ask(asked)[0].status == 200
                daemon = daemon_pid(mountpoint)
                os.kill(daemon, signal.SIGKILL)
                while running(daemon):
                    time.sleep(0.01)
                answer, _ = site.ask(asked)
        finally:
            take_away(mountpoint)
    assert answer.status >= 400 and answer.headers.get_all("Cache-Control") == ["no-cache"]
    assert answer.headers.get_all("Access-Control-Allow-Origin") == ["*"]


def test_a_branch_that_changes_is_seen_at_once(site: Site) -> None:
    note = site.mount / "cells/branches/exp/files/note.txt"
    tags = []
    for text in (b"one", b"three"):
        note.write_bytes(text)
        answer, body = site.ask("/cells/branches/exp/files/note.txt")
        assert (answer.status, body) == (200, text)
        tags.append(answer.headers["ETag"])
    assert tags[0] != tags[1]


def test_nobody_writes_and_nobody_looks_behind(site: Site) -> None:
    for method in ("PUT", "POST", "DELETE", "MOVE"):
        answer, _ = site.ask("/cells/branches/main/zarr/zarr.json", method)
        assert answer.status == 405, method
    for path in ("/.volfs/stats.json", "/cells/branches/main/.volfs/status.json", "/cells/branches/main/.volfs/"):
        assert (site.mount / path[1:]).exists()
        assert site.ask(path)[0].status == 404, path


def test_a_directory_lists_all_its_slices(site: Site) -> None:
    answer, page = site.ask(f"{VERSION}/s0/xy/")
    assert answer.status == 200
    listed = {Path(name).name for name in re.findall(r'href="([^"?]+\.png)"', page.decode())}
    assert listed == set(os.listdir(site.mount / VERSION[1:] / "s0/xy"))


@pytest.mark.parametrize(
    ("driver", "path"),
    [
        ("zarr3", "zarr/s0/"),
        ("zarr", "formats/cells.v2.zarr/s0/"),
        ("zarr3", "formats/cells.sharded.zarr/s0/"),
        ("n5", "formats/cells.n5/setup0/timepoint0/s0/"),
        ("neuroglancer_precomputed", "formats/cells.precomputed/"),
    ],
)
def test_tensorstore_reads_every_voxel_by_url(site: Site, driver: str, path: str) -> None:
    store = {"driver": "http", "base_url": f"{site.address}{VERSION}/{path}"}
    found = np.asarray(ts.open({"driver": driver, "kvstore": store}).result().read().result())
    expected = np.load(site.mount / VERSION[1:] / "s0/volume.npy")
    if driver == "neuroglancer_precomputed":
        found = found[..., 0]
    np.testing.assert_array_equal(found if driver.startswith("zarr") else found.T, expected)


def test_the_links_that_are_printed_lead_to_the_image_and_its_labels(site: Site) -> None:
    import neuroglancer

    script = EXAMPLES / "viewer_links.py"
    command = [sys.executable, str(script), str(site.mount / "cells"), "--address", site.address]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    links = dict(re.findall(r"^  (\w+) +(http\S+)$", said, re.MULTILINE))
    state = neuroglancer.parse_url(links["Neuroglancer"])
    assert [layer.name for layer in state.layers] == ["cells", "nuclei (labels)"]
    vizarr = urllib.parse.parse_qs(urllib.parse.urlsplit(links["Vizarr"]).query)["source"]
    sources = [layer.source[0].url.removeprefix("zarr://") for layer in state.layers] + vizarr
    for source in sources:
        assert source.startswith(f"{site.address}{VERSION}/zarr/") and source.endswith("/")
        answer, body = site.ask(f"{source.removeprefix(site.address)}zarr.json")
        assert answer.status == 200 and b'"multiscales"' in body
    assert list(state.dimensions.names) == ["x", "y", "z"]
    np.testing.assert_allclose(state.dimensions.scales, [4e-9, 4e-9, 40e-9])
    np.testing.assert_allclose(state.position, [25, 20, 10])
