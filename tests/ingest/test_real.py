"""Real head MRI and label atlases, from the Debian package mricron-data.

16 MB that are downloaded: by a soak, or where VOLFS_TEST_DOWNLOADS=1.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

import volfs
from volfs.export import export, wanted_path
from volfs.ingest.importer import import_source
from volfs.ingest.readers import open_source
from volfs.model.box import Box
from volfs.views import thumbnail
from volfs.views.slices import SliceGeometry


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, soak: bool) -> Path:
    if not soak and os.environ.get("VOLFS_TEST_DOWNLOADS") != "1":
        pytest.skip("downloads 16 MB: say --soak, or set VOLFS_TEST_DOWNLOADS=1")
    folder = tmp_path_factory.mktemp("mricron")
    if shutil.which("apt-get") is None:
        pytest.skip("there is no apt-get to download a Debian package with")
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


def test_every_volume_comes_back_as_it_was(templates: Path, tmp_path: Path) -> None:
    volumes = sorted(templates.glob("*.nii.gz"))
    assert len(volumes) >= 12
    with volfs.init_store(tmp_path / "store") as store:
        for path in volumes:
            with open_source([path]) as source:
                import_source(store, "d", "", source)
            out = tmp_path / "out.nii"
            export(store, wanted_path(store["d"]["latest"], "s0/volume.nii", out), lambda done, total: None)
            was, now = nibabel.load(path), nibabel.load(out)
            assert np.array_equal(np.asarray(now.dataobj), np.asarray(was.dataobj)), path.name
            assert now.get_data_dtype() == was.get_data_dtype()
            for form in ("get_sform", "get_qform"):
                (matrix, code), (found, found_code) = (getattr(i, form)(coded=True) for i in (was, now))
                assert found_code == code, (path.name, form)
                if code:
                    np.testing.assert_allclose(found, matrix, atol=1e-5)
            for name in ("dim", "xyzt_units", "intent_code", "descrip", "cal_max"):
                np.testing.assert_array_equal(now.header[name], was.header[name], err_msg=f"{path.name}: {name}")
            np.testing.assert_array_equal(now.header.get_zooms(), was.header.get_zooms())
            itk_was, itk_now = (sitk.ReadImage(str(p)) for p in (path, out))
            for what in ("GetOrigin", "GetDirection", "GetSpacing"):
                assert getattr(itk_now, what)() == pytest.approx(getattr(itk_was, what)(), abs=1e-5), path.name
            store.remove_dataset("d")
            out.unlink()
