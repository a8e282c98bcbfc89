"""``volfs open``: a browser, napari or Fiji gets the URL of what was named, from a server that ends with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

import volfs
from tests.judges import imagej
from tests.kits import fork_server
from tests.kits.paths import ROOT
from volfs.cli.frame import parse_dataset_arg
from volfs.errors import BadInput, NotFound
from volfs.testing.small_store import CELLS, make_store
from volfs.testing.waiting import PATIENCE
from volfs.web import viewers

BASE = "http://127.0.0.1:1/"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = make_store(tmp_path_factory.mktemp("open") / "store")
    with volfs.open_store(made) as opened:
        opened["cells"].create_tag("paper", "v1")
    yield made


def target(opened: volfs.Store, text: str) -> viewers.Target:
    found = viewers.Target.of(opened, parse_dataset_arg(text).spec)
    assert found is not None
    return found


def test_what_is_named_has_an_address_on_the_page_and_in_neuroglancer(store: Path) -> None:
    with volfs.open_store(store) as opened:
        for text, place in (
            ("cells", "cells"),
            ("cells@exp", "cells/branches/exp"),
            ("cells@paper", "cells/versions/v1"),
            ("cells@main~1", "cells/versions/v1"),
            ("cells/labels/nuclei", "cells/branches/main/view/labels/nuclei"),
        ):
            assert viewers.page_url(BASE, target(opened, text)) == f"{BASE}#/{place}"
        assert viewers.page_url(BASE, None) == BASE
        told = urllib.request.unquote(viewers.neuroglancer_url(BASE, target(opened, "cells@v2")).partition("#!")[2])
        layers = json.loads(told)["layers"]
        assert [
            (layer["type"], layer["source"].removeprefix(f"zarr://{BASE}cells/versions/v2/")) for layer in layers
        ] == [
            ("image", "zarr/"),
            ("segmentation", "zarr/labels/nuclei/"),
        ]
        with pytest.raises(NotFound, match="labels/nuclei"):
            target(opened, "cells/nuclei")


def command(store: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "volfs", "--store", str(store), "open", *words]


def test_the_browser_gets_the_page_and_the_server_ends_when_told(store: Path) -> None:
    environment = {**os.environ, "BROWSER": f"{sys.executable} -c pass %s"}
    with fork_server.Popen(command(store, "cells@v2"), stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        base, _, place = url.partition("#")
        assert place == "/cells/versions/v2"
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        asked = urllib.request.Request(base, headers={"Accept": "text/html"})
        with browser.open(asked, timeout=PATIENCE) as page:
            assert b"page.js" in page.read() and "token" not in page.url
        plain = base.partition("?")[0]
        assert browser.open(f"{plain}cells/dataset.json", timeout=PATIENCE).status == 200
        with pytest.raises(urllib.error.HTTPError, match="401"):  # another user of the machine
            urllib.request.urlopen(f"{plain}cells/dataset.json", timeout=PATIENCE)
        process.terminate()
        assert process.wait(PATIENCE) == 0


def program(folder: Path, name: str, script: str) -> dict[str, str]:
    """An environment in which a program is installed."""
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:/usr/bin:/bin"}


def test_imagej_opens_what_fiji_is_given(store: Path, tmp_path: Path) -> None:
    assert imagej.JAR.exists(), "ImageJ is not installed: run `sh .ci/setup tests`"
    inside = '$(printf %s "$2" | sed \'s/^open("//; s/");$//\')'
    script = (
        f'test "$1" = -eval && cd "{ROOT}" && exec {sys.executable} -m tests.judges.imagej "{inside}" > {tmp_path}/said'
    )
    done = fork_server.run(
        command(store, "cells@v2", "--with", "fiji"),
        env=program(tmp_path / "bin", "fiji", script),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "said").read_text()
    found = json.loads(said.partition("found ")[2])
    assert (found["slices"], found["height"], found["width"]) == CELLS.shape
    assert (found["min"], found["max"]) == (CELLS.min(), CELLS.max())


def test_napari_is_given_the_zarr_and_its_failure_is_told(store: Path, tmp_path: Path) -> None:
    script = f'echo "$@" > {tmp_path}/said; exit 3'
    done = fork_server.run(
        command(store, "cells/labels/nuclei@v2", "--with", "napari"),
        env=program(tmp_path / "bin", "napari", script),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "volfs: napari ended with status 3"
    said = (tmp_path / "said").read_text()
    assert said.startswith("--plugin napari-ome-zarr http://127.0.0.1:")
    assert said.strip().endswith("/cells/versions/v2/labels/nuclei/formats/nuclei.ome.zarr")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("cells", "--with", "fiji"), "Fiji is not installed"),
        (("cells@v9",), "has no version v9"),
        (("cellar",), "cellar"),
    ],
)
def test_what_is_not_there_or_not_installed_is_one_line(store: Path, words: tuple[str, ...], line: str) -> None:
    environment = {**os.environ, "PATH": "/nowhere"}
    done = fork_server.run(command(store, *words), env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and not done.stdout
    assert len(done.stderr.splitlines()) == 1 and line in done.stderr


def test_napari_is_looked_for_before_anything_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewers.shutil, "which", lambda name: None)
    monkeypatch.setattr(viewers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"napari is not installed: pip install 'napari\[all\]' napari-ome-zarr"):
        viewers.napari_command("http://127.0.0.1:1", cast("viewers.Target", None))
