"""Every path of docs/rest.md that is read is there, on the small store."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest

from tests.kits.http_servers import HttpServer, http_server
from tests.kits.paths import DOCS
from volfs.testing.small_store import CELLS, make_store

PAGE = (DOCS / "rest.md").read_text()
ROWS = [row.split(" | ")[1] for row in PAGE.splitlines() if row.startswith("| `")]
PLACES = {"V": "/cells/versions/v2", "D": "/cells", "B": "/cells/branches/main"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpServer]:
    base = tmp_path_factory.mktemp("rest")
    with http_server(make_store(base / "store", voxel_size="8,4,4nm"), base / "log", token="open-sesame") as running:
        yield running


def test_every_path_that_is_read_is_there(server: HttpServer) -> None:
    wanted = [path for row in ROWS for path in re.findall(r"`GET ([^`…]+)`", row)]
    assert len(wanted) > 35
    missing = {}
    for path in wanted:
        url = re.sub(r"^[VD](?=/)", lambda found: PLACES[found[0]], path)
        status = server.get(url).status
        if status != 200:
            missing[path] = status
    assert not missing


def test_chunks_and_boxes_are_written_as_it_says(server: HttpServer) -> None:
    box = np.full((16, 16, 32), 3, np.uint8)
    assert server.ask("PUT", "/cells/branches/main/s0/cutout/z0-16_y8-24_x0-32.raw", box.tobytes()).status == 204
    chunk = server.get("/cells/versions/v2/zarr/s0/c/0/1/2").body
    assert server.ask("PUT", "/cells/branches/main/zarr/s0/c/0/1/2", chunk).status in (201, 204)
    expected = CELLS.copy()
    expected[:16, 8:24, :32] = 3
    assert server.get("/cells/branches/main/s0/volume.raw").body == expected.tobytes()
    assert server.ask("PUT", "/cells/branches/main/.volfs/commit", b"a box").json()["state"] == "done"
