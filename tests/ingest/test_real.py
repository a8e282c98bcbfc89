"""Real head MRI and a label atlas, from the Debian package mricron-data. Opt in: VOLFS_TEST_DOWNLOADS=1."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

import volfs
from volfs.ingest.importer import import_source
from volfs.ingest.readers import open_source
from volfs.model.box import Box
from volfs.views import thumbnail
from volfs.views.slices import SliceGeometry

pytestmark = pytest.mark.skipif(
    os.environ.get("VOLFS_TEST_DOWNLOADS") != "1", reason="downloads 16 MB: set VOLFS_TEST_DOWNLOADS=1"
)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mricron")
    subprocess.run(["apt-get", "download", "mricron-data"], cwd=folder, check=True, capture_output=True)
    [package] = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return folder / "usr" / "share" / "mricron" / "templates"


def test_a_head_and_its_atlas_end_to_end(templates: Path, tmp_path: Path) -> None:
    with volfs.init_store(tmp_path / "store") as store:
        for name, path in (("ch2.nii.gz", ""), ("aal.nii.gz", "labels/aal"), ("ch2better.nii.gz", "better")):
            with open_source([templates / name]) as source:
                import_source(store, "head", path, source)
            image = volfs.images(store["head"]["latest"])[path]
            file = nibabel.load(templates / name)
            finest = image.levels[0]
            np.testing.assert_array_equal(
                finest.read(Box.whole(finest.shape)), np.asarray(file.dataobj.get_unscaled()).transpose()
            )
            assert finest.scale == pytest.approx(tuple(map(float, file.header.get_zooms()[::-1])))
            names = [axis.name for axis in image.axes]
            levels = [(SliceGeometry.of(names, level.shape, level.dtype), level) for level in image.levels]
            shown = [(geometry, level) for geometry, level in levels if geometry is not None]
            picture = np.asarray(Image.open(io.BytesIO(thumbnail.render(shown, is_label=image.is_label))))
            lit = picture.reshape(*picture.shape[:2], -1).max(axis=2) > 30
            assert lit[lit.shape[0] // 2, lit.shape[1] // 4 : -lit.shape[1] // 4].mean() > 0.3  # a brain in the middle
            assert not lit[:3, :3].any()  # and none in the corner
        atlas, head = volfs.images(store["head"]["latest"])["labels/aal"], volfs.images(store["head"]["v1"])[""]
        assert atlas.is_label and len(atlas.levels) == len(head.levels)
        fine, coarse = (level.read(Box.whole(level.shape)) for level in atlas.levels[:2])
        assert set(np.unique(coarse)) <= set(np.unique(fine))
