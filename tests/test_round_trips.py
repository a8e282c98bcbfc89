"""What a source says comes out of every format that has a place for it, as independent programs write and read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import round_trips
from tests.round_trips import SAMPLES, brought, in_page, measure, table

Letters = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("round")


@pytest.fixture(scope="module")
def letters(folder: Path) -> Letters:
    return measure(folder)


def test_the_table_of_what_survives_is_what_is_measured(letters: Letters) -> None:
    assert in_page() == table(letters), "run python -m tests.round_trips"


@pytest.mark.parametrize("kind", dict.fromkeys(sample.kind for sample in SAMPLES))
def test_an_ome_zarr_has_all_that_a_source_says(letters: Letters, kind: str) -> None:
    said = set(brought(kind)) - {"H"}
    assert said <= set(letters[kind, "zarr"]) and said <= set(letters[kind, "v2.zarr"])


@pytest.mark.parametrize(
    ("kind", "ending"), [("NIfTI", ".nii"), ("NRRD", ".nrrd"), ("MetaImage", ".mha"), ("MRC", ".mrc")]
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


def test_every_format_of_volume_files_that_says_anything_is_measured() -> None:
    from volfs.views.volumes import FORMATS

    silent = {".npy", ".raw", ".nhdr", ".imagej.tif"}  # no header, or the header of another
    assert set(FORMATS) - silent <= set(round_trips.OUT)
