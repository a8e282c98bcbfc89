"""The pictures, stacks and arrays that scikit-image ships, against the libraries that decode them."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import skimage
import tifffile

import volfs
from volfs.ingest.importer import import_source
from volfs.ingest.readers import open_source
from volfs.model.box import Box

DATA = Path(skimage.__file__).parent / "data"
NAMES = sorted(path.name for path in DATA.iterdir() if path.suffix in (".png", ".jpg", ".tif", ".npy"))


def judged(path: Path) -> np.ndarray:
    """The voxels as another library gives them, the samples of a pixel as the first axis, if it has several."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix != ".tif":
        picture = imagecodecs.imread(path)
        return np.moveaxis(picture, -1, 0) if picture.ndim == 3 else picture
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        return np.moveaxis(series.asarray(), series.axes.index("S"), 0) if "S" in series.axes else series.asarray()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    with volfs.init_store(tmp_path_factory.mktemp("pictures") / "store") as opened:
        yield opened


def test_there_are_some() -> None:
    assert len(NAMES) > 20 and {Path(name).suffix for name in NAMES} == {".png", ".jpg", ".tif", ".npy"}


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_is_that_of_the_library(store, name: str) -> None:
    dataset = name.replace("_", "-").replace(".", "-")
    with open_source([DATA / name]) as source:
        import_source(store, dataset, "", source)
    finest = volfs.images(store[dataset]["latest"])[""].levels[0]
    want = judged(DATA / name)
    assert finest.dtype == want.dtype
    np.testing.assert_array_equal(finest.read(Box.whole(finest.shape)), want)
