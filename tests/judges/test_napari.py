"""napari itself, on a display that nobody sees: what it opens of a mount and of a store, and saves into a branch.

One napari does all that the tests look at: it takes seconds to start.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr

import volfs as volfs_package
from tests.kits.mounts import volfs
from volfs.testing.kit import mounted
from volfs.testing.waiting import PATIENCE

SHAPE = (12, 48, 80)
PLANE = 7

WATCHED = """
import json, sys
from pathlib import Path
import napari, numpy as np

jobs, out = json.loads(sys.argv[1]), Path(sys.argv[2])
viewer = napari.Viewer(show=True)

def told(layer):
    first = layer.data[0] if layer.multiscale else layer.data
    return {
        "kind": type(layer).__name__,
        "name": layer.name,
        "levels": [list(level.shape) for level in layer.data] if layer.multiscale else [list(layer.data.shape)],
        "scale": [float(each) for each in layer.scale],
        "translate": [float(each) for each in layer.translate],
        "units": [str(each) for each in layer.units],
        "axes": list(layer.axis_labels),
        "limits": [float(each) for each in getattr(layer, "contrast_limits", ())],
        "sum": int(np.asarray(first).astype("i8").sum()),
    }

answers = {}
for name, path in jobs["open"].items():
    viewer.layers.clear()
    answers[name] = [told(layer) for layer in viewer.open(path, plugin="volfs")]

viewer.layers.clear()
image, labels = viewer.open(jobs["seen"], plugin="volfs")
labels.visible = False
image.contrast_limits, image.interpolation2d = (0, 255), "nearest"
viewer.dims.set_current_step(0, jobs["plane"])
viewer.scale_bar.visible = False
np.save(out / "picture.npy", viewer.export_figure(scale_factor=1, flash=False))

data = np.asarray(labels.data[0] if labels.multiscale else labels.data).copy()
data[jobs["plane"], 10:20, 30:50] = 9
for name, path in jobs["save"].items():
    layer = napari.layers.Labels(data, name=name)
    try:
        answers[name] = viewer.layers.__class__([layer]).save(path, plugin="volfs")
    except Exception as error:
        answers[name] = f"{type(error).__name__}: {error}"
(out / "answers.json").write_text(json.dumps(answers))
viewer.close()
"""


@dataclass(frozen=True)
class Seen:
    """What napari answered, the picture that it drew, and where the voxels are that it was given."""

    answers: dict[str, Any]
    picture: npt.NDArray[np.uint8]
    store: Path
    mount: Path
    image: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint16]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    assert shutil.which("xvfb-run"), "xvfb is missing: run `make judges`"
    root = tmp_path_factory.mktemp("napari")
    random = np.random.default_rng(3)
    image = random.integers(0, 256, SHAPE, np.uint8)
    labels = random.integers(0, 5, SHAPE, np.uint16)
    stain = random.integers(0, 4096, (2, *SHAPE), np.uint16)
    for name, volume in (("image", image), ("labels", labels), ("stain", stain)):
        np.save(root / f"{name}.npy", volume)
    store, mount, out = root / "store", root / "mnt", root / "out"
    out.mkdir()
    volfs(store, "init")
    volfs(
        store, "import", "brain", root / "image.npy", "--voxel-size", "40,4,4nm", "--chunks", "8,16,16", "--levels", "2"
    )
    volfs(store, "import", "brain/labels/cells", root / "labels.npy", "--labels", "--voxel-size", "40,4,4nm")
    volfs(store, "import", "stain", root / "stain.npy", "--axes", "czyx", "--voxel-size", "2,1,1um")
    with mounted(store, mount):
        main = mount / "brain/branches/main"
        jobs = {
            "open": {
                "dataset": f"{mount}/brain",
                "version": f"{mount}/brain/versions/v2",
                "a plane": f"{mount}/brain/versions/v2/s0/xy/z00007.png",
                "a label image": f"{mount}/brain/versions/v2/labels/cells",
                "a store": f"volfs://brain@v2::{store}",
                "labels of a store": f"volfs://brain@v2/labels/cells::{store}",
                "channels": f"{mount}/stain",
            },
            "seen": f"{mount}/brain/versions/v2",
            "plane": PLANE,
            "save": {
                "over": f"{main}/labels/cells",
                "new": f"{main}/labels/checked",
                "into a version": f"{mount}/brain/versions/v2/labels/cells",
                "elsewhere": f"{main}/s0",
                "of another shape": f"{mount}/stain/branches/main/labels/cells",
            },
        }
        command = ["xvfb-run", "-a", sys.executable, "-c", WATCHED, json.dumps(jobs), str(out)]
        settings = {"NAPARI_CONFIG": str(root / "napari.yaml"), "QT_QPA_PLATFORM": "xcb", "LIBGL_ALWAYS_SOFTWARE": "1"}
        ran = subprocess.run(
            command,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        answers = json.loads((out / "answers.json").read_text())
        yield Seen(answers, np.load(out / "picture.npy"), store, mount, image, labels)


@pytest.mark.parametrize("opened", ["dataset", "version", "a store"])
def test_an_image_comes_with_levels_voxel_size_units_and_its_labels(seen: Seen, opened: str) -> None:
    image, labels = seen.answers[opened]
    assert (image["kind"], labels["kind"]) == ("Image", "Labels")
    assert image["levels"] == [[12, 48, 80], [12, 24, 40]] and image["axes"] == ["z", "y", "x"]
    assert image["scale"] == labels["scale"] == [40, 4, 4] and image["units"] == ["nanometer"] * 3
    assert image["sum"] == int(seen.image.sum()) and labels["sum"] == int(seen.labels.sum())
    assert (image["name"], labels["name"]) == ("brain", "cells")


def test_a_plane_opens_the_image_that_it_is_of(seen: Seen) -> None:
    (image,) = seen.answers["a plane"]
    assert image["kind"] == "Image" and image["sum"] == int(seen.image.sum())


@pytest.mark.parametrize("opened", ["a label image", "labels of a store"])
def test_a_label_image_opens_alone(seen: Seen, opened: str) -> None:
    (labels,) = seen.answers[opened]
    assert labels["kind"] == "Labels" and labels["sum"] == int(seen.labels.sum())


def test_each_channel_is_a_layer(seen: Seen) -> None:
    first, second = seen.answers["channels"]
    assert first["kind"] == second["kind"] == "Image" and first["levels"][0] == list(SHAPE)
    assert first["scale"] == [2, 1, 1] and first["units"] == ["micrometer"] * 3 and first["sum"] != second["sum"]


def test_the_picture_that_napari_draws_is_the_slice(seen: Seen) -> None:
    voxels = seen.image[PLANE]
    drawn = seen.picture[..., 0]
    rows, columns = drawn.shape[0] / voxels.shape[0], drawn.shape[1] / voxels.shape[1]
    middle = np.ix_(
        ((np.arange(voxels.shape[0]) + 0.5) * rows).astype(int),
        ((np.arange(voxels.shape[1]) + 0.5) * columns).astype(int),
    )
    assert np.abs(drawn[middle].astype(int) - voxels).max() <= 1


def test_labels_are_saved_into_a_branch(seen: Seen) -> None:
    main = seen.mount / "brain/branches/main"
    expected = seen.labels.copy()
    expected[PLANE, 10:20, 30:50] = 9
    assert seen.answers["over"] == [f"{main}/labels/cells"]
    group = zarr.open_group(main / "zarr", mode="r")
    np.testing.assert_array_equal(group["labels/cells/s0"][...], expected)  # type: ignore[index]
    np.testing.assert_array_equal(group["labels/checked/s0"][...], expected)  # type: ignore[index]
    assert dict(group["labels"].attrs)["ome"]["labels"] == ["cells", "checked"]  # type: ignore[index,call-overload]
    made = json.loads((main / "labels/checked/s0/info.json").read_text())
    assert made["voxel_size"] == [40, 4, 4] and made["units"] == ["nanometer"] * 3
    assert (main / "labels/checked/s1").is_dir()
    assert "labels/cells" in volfs(seen.store, "status", "brain").stdout
    with volfs_package.open_store(seen.store, read_only=True) as store:
        np.testing.assert_array_equal(store["brain"]["v2"]["labels/cells/s0"][...], seen.labels)


@pytest.mark.parametrize(
    ("saved", "why"),
    [
        ("into a version", "a version never changes"),
        ("elsewhere", "name a label image of a branch"),
        ("of another shape", "stain"),
    ],
)
def test_what_cannot_be_saved_is_refused_in_one_line(seen: Seen, saved: str, why: str) -> None:
    assert why in str(seen.answers[saved]), seen.answers[saved]


def test_the_manifest_is_one_for_napari(seen: Seen) -> None:
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution("volfs")
    assert manifest.contributions.readers and manifest.contributions.writers
