"""What a source says comes out of every format that has a place for it, as independent programs write and read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_rescale

import volfs
from tests.kits import round_trips
from tests.kits.round_trips import SAMPLES, brought, in_page, measure, table
from volfs.export import export, wanted_path
from volfs.ingest.importer import import_source
from volfs.ingest.readers import open_source
from volfs.versions.store import Store

Letters = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("round")


@pytest.fixture(scope="module")
def letters(folder: Path) -> Letters:
    return measure(folder)


def test_the_table_of_what_survives_is_what_is_measured(letters: Letters) -> None:
    assert in_page() == table(letters), "run python -m tests.kits.round_trips"


@pytest.mark.parametrize("kind", dict.fromkeys(sample.kind for sample in SAMPLES))
def test_an_ome_zarr_has_all_that_a_source_says(letters: Letters, kind: str) -> None:
    said = set(brought(kind)) - {"H"}
    assert said <= set(letters[kind, "zarr"]) and said <= set(letters[kind, "v2.zarr"])


@pytest.mark.parametrize(
    ("kind", "ending"),
    [("NIfTI", ".nii"), ("NRRD", ".nrrd"), ("MetaImage", ".mha"), ("MRC", ".mrc"), ("ImageJ TIFF", ".tif")],
)
def test_what_goes_out_as_it_came_in_has_the_same_header(letters: Letters, kind: str, ending: str) -> None:
    assert set(letters[kind, ending]) >= set("SH")


def test_what_has_no_other_place_is_in_info_json(letters: Letters, folder: Path) -> None:
    for number, sample in enumerate(SAMPLES):
        info = json.loads((folder / f"{number}/out/s0/info.json").read_text())
        assert info["source"]["format"], sample.kind
        if "rescale" in sample.facts:
            slope, intercept = sample.facts["rescale"]
            assert (info["rescale"]["slope"], info["rescale"]["intercept"]) == (slope, intercept), sample.kind


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with volfs.init_store(tmp_path_factory.mktemp("real") / "store") as made:
        yield made


def come_and_gone(store: Store, path: Path, kind: str) -> Path:
    """A file that was imported, and is shown again."""
    name = path.name.replace(".", "_")
    with open_source([path]) as source:
        import_source(store, name, "", source)
    out = store.path.parent / f"{name}.{kind}"
    export(store, wanted_path(store[name]["latest"], f"s0/volume.{kind}", out), lambda done, total: None)
    return out


@pytest.mark.parametrize(
    "name",
    [
        *("anatomical.nii", "functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "standard.nii.gz"),
        *("reoriented_anat_moved.nii", "resampled_anat_moved.nii"),
    ],
)
def test_the_nifti_files_that_nibabel_ships_come_out_as_they_went_in(real: Store, name: str) -> None:
    path = Path(nibabel.__file__).parent / "tests" / "data" / name
    source, found = nibabel.load(path), nibabel.load(come_and_gone(real, path, "nii"))
    np.testing.assert_array_equal(found.get_fdata(), source.get_fdata())
    np.testing.assert_allclose(found.affine, source.affine, rtol=1e-6, atol=1e-5)
    a, b = source.header, found.header
    assert a.get_xyzt_units() == b.get_xyzt_units() and a.get_zooms() == b.get_zooms()
    for field in ("qform_code", "sform_code", "intent_code", "cal_max", "cal_min", "toffset", "dim_info", "slice_code"):
        assert a[field] == b[field], field
    np.testing.assert_allclose(a.get_qform(), b.get_qform(), atol=1e-4)
    assert [one.get_code() for one in a.extensions] == [one.get_code() for one in b.extensions]
    assert [one.content for one in a.extensions] == [one.content for one in b.extensions]


@pytest.mark.parametrize("name", ["CT_small.dcm", "693_J2KI.dcm"])
@pytest.mark.filterwarnings("ignore")
def test_real_values_of_the_images_that_pydicom_ships_are_those_that_pydicom_gives(real: Store, name: str) -> None:
    path = Path(pydicom.__file__).parent / "data" / "test_files" / name
    made = pydicom.dcmread(path)
    expected = apply_rescale(made.pixel_array, made)
    seen = nibabel.load(come_and_gone(real, path, "nii")).get_fdata().T
    np.testing.assert_allclose(np.squeeze(seen), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["minc2_1_scale.mnc", "minc2_4d.mnc", "small.mnc", "minc2-no-att.mnc"])
def test_real_values_of_the_minc_files_that_nibabel_ships_are_those_that_nibabel_gives(real: Store, name: str) -> None:
    path = Path(nibabel.__file__).parent / "tests" / "data" / name
    seen = nibabel.load(come_and_gone(real, path, "nii")).get_fdata().T
    np.testing.assert_allclose(seen, nibabel.load(path).get_fdata(), rtol=1e-5)


def test_every_format_of_volume_files_that_says_anything_is_measured() -> None:
    from volfs.views.volumes import FORMATS

    silent = {".npy", ".raw", ".nhdr", ".imagej.tif"}  # no header, or the header of another
    assert set(FORMATS) - silent <= set(round_trips.OUT)
