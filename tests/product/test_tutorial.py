"""The tutorial is true: its commands, run as they stand, answer what it says and give the pictures that it shows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from tests.kits import tutorial_pictures as pictures
from tests.kits.console_pages import run_page


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory in which somebody followed the page."""
    place = tmp_path_factory.mktemp("tutorial")
    try:
        assert run_page(pictures.PAGE, place) > 20
        yield place
    finally:
        if (place / "mnt").is_mount():  # a command before `umount` has failed
            subprocess.run([sys.executable, "-m", "volfs", "umount", place / "mnt"], check=True)


def test_what_is_exported_has_both_corrections(done: Path) -> None:
    with Image.open(done / "merged.png") as merged, Image.open(done / "after.png") as after:
        changed = ImageChops.difference(merged, after).getbbox()
    assert changed == (90, 80, 101, 101)


@pytest.mark.parametrize("picture", pictures.SHOWN, ids=lambda picture: picture.name)
def test_its_pictures_are_what_its_commands_give(done: Path, picture: Path) -> None:
    with Image.open(picture) as shown:
        difference = ImageChops.difference(shown.convert("RGB"), pictures.drawn(done, pictures.SHOWN[picture]))
    assert difference.getbbox() is None, "run: python -m tests.kits.tutorial_pictures"
    assert f"img/{picture.name}" in pictures.PAGE.read_text()
