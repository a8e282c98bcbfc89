"""Names, keys and refs: what can exist, and in which order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volfs.errors import BadInput, BadName
from volfs.model.names import check_dataset_name, check_key, check_ref_name, natural_key, version_number
from volfs.model.refs import (
    AsOf,
    Back,
    DatasetSpec,
    NthParent,
    RefExpr,
    id_digits,
    moment_of,
    parse_dataset_spec,
    parse_ref,
)


def test_z2_precedes_z10() -> None:
    names = ["z10.png", "z2.png", "Z1.png", "z02.png", "a", "z2b.png", "10", "9"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "Z1.png", "z02.png", "z2.png", "z2b.png", "z10.png"]


@given(st.lists(st.text(max_size=12)))
def test_any_names_can_be_sorted_and_the_order_is_total(names: list[str]) -> None:
    once = sorted(names, key=natural_key)
    names.reverse()
    assert once == sorted(names, key=natural_key)


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_numbers_sort_as_numbers(a: int, b: int) -> None:
    assert (natural_key(f"s{a}.tif") < natural_key(f"s{b}.tif")) == (a < b)


def test_digits_beyond_what_int_parses_still_sort() -> None:
    assert natural_key("z" + "9" * 5000) < natural_key("z1" + "0" * 5000)


@pytest.mark.parametrize("name", ["cells", "a.b_c+d-e", "2024", "v3", "x" * 128])
def test_ordinary_dataset_names_are_fine(name: str) -> None:
    check_dataset_name(name)


@pytest.mark.parametrize(
    "name", ["", ".volfs", "README.txt", "a/b", "a@b", "a b", "-x", "é", "x" * 129, "a\n", "a\0", "..", "~"]
)
def test_hostile_dataset_names_are_refused(name: str) -> None:
    with pytest.raises(BadName):
        check_dataset_name(name)


@pytest.mark.parametrize("name", ["latest", "v1", "v007", "exp@v3", "", ".hidden", "a/b", "main~1", "x\n"])
def test_refs_cannot_be_called_like_versions(name: str) -> None:
    with pytest.raises(BadName):
        check_ref_name(name)


@pytest.mark.parametrize("name", ["main", "v", "version1", "v1.0", "paper-2024", "README.txt"])
def test_ordinary_refs_are_fine(name: str) -> None:
    check_ref_name(name)


def test_versions_are_named_in_one_way_only() -> None:
    assert version_number("v12") == 12
    for other in ("v0", "v012", "12", "v", "v1x", "V1", "v99999999999", "v\u0661"):
        assert version_number(other) is None


@pytest.mark.parametrize(
    "key",
    [
        "zarr/zarr.json",
        "zarr/s0/c/0/0",
        "zarr/s0/c/0/0.__lock",
        "files/a b#?.txt",
        "files/\udcff",
        "zarr/é/x",
        "files/...",
    ],
)
def test_keys_take_what_programs_write(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "zarr",
        "zarr/",
        "files//x",
        "files/../x",
        "files/./x",
        "other/x",
        "/zarr/x",
        "zarr/a\0b",
        "zarr/\udcff",
        "files/\ud800",
        "files/" + "x" * 256,
        "files/" + "é" * 128,
        "files/" + "x/" * 2000 + "y",
        "",
    ],
)
def test_keys_that_no_filesystem_holds_are_refused(key: str) -> None:
    with pytest.raises(BadName):
        check_key(key)


def test_refs_lead_on_like_gits() -> None:
    assert parse_ref("main") == RefExpr("main") == parse_ref("main~0")
    assert parse_ref("main~") == RefExpr("main", (Back(1),))
    assert parse_ref("v12~3") == RefExpr("v12", (Back(3),))
    assert parse_ref("latest~~2") == RefExpr("latest", (Back(3),))
    assert parse_ref("main^") == RefExpr("main", (NthParent(1),))
    assert parse_ref("main^2~3^") == RefExpr("main", (NthParent(2), Back(3), NthParent(1)))
    assert parse_ref("0123ABCDef") == RefExpr("0123ABCDef")
    assert str(parse_ref("main~3")) == "main~3"
    assert str(parse_ref("main^2@2026-11-01T12:00~")) == "main^2@2026-11-01T12:00~1"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-01", 1793491200),
        ("2026-11-01Z", 1793491200),
        ("2026-11-01T12:00", 1793534400),
        ("2026-11-01T12:00:07", 1793534407),
        ("2026-11-01T12:00:07Z", 1793534407),
    ],
)
def test_a_time_is_the_beginning_of_a_day_or_a_minute_in_utc(text: str, seconds: int) -> None:
    assert moment_of(text) == seconds * 10**9
    assert parse_ref(f"main@{text}") == RefExpr("main", (AsOf(seconds * 10**9, text),))
    assert parse_ref(f"@{text}").base == ""


def test_digits_of_a_content_id_are_eight_or_more() -> None:
    assert id_digits("0123ABCD") == "0123abcd"
    assert id_digits("0" * 64) == "0" * 64
    for none in ("0123abc", "0123abcg", "0" * 65, "main", ""):
        assert id_digits(none) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "~", "~3", "^", "main~x", "main~-1", "a b", "main~1x", "v0", "main@v3", "main~" + "9" * 10),
        *("@", "main@", "main@2026-13-01", "main@2026-11-01T25:00", "main@20261101", "main@{1}", "main^x", "main^-"),
        *("main@2026-11-01@", "main@2026-11-01T12:00+01:00", "main:files/a", "^2", "main~3@yesterday"),
    ],
)
def test_what_is_no_ref_is_refused(text: str) -> None:
    with pytest.raises(BadName):
        parse_ref(text)


def test_targets_name_dataset_path_and_ref() -> None:
    assert parse_dataset_spec("cells") == DatasetSpec("cells", "", None)
    assert parse_dataset_spec("cells/labels/nuclei@v3") == DatasetSpec("cells", "labels/nuclei", "v3")
    assert parse_dataset_spec("cells@main~2") == DatasetSpec("cells", "", "main~2")
    assert parse_dataset_spec("cells/s0@main@2026-11-01") == DatasetSpec("cells", "s0", "main@2026-11-01")
    assert parse_dataset_spec("cells@@2026-11-01").ref == "@2026-11-01"
    assert parse_dataset_spec("cells/") == DatasetSpec("cells", "", None)
    assert str(parse_dataset_spec("cells/labels/nuclei@v3")) == "cells/labels/nuclei@v3"


@pytest.mark.parametrize("text", ["", "@v3", "/x", "cells@", "cells/../x", "cells//x", "cells@a@b", "a b"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_dataset_spec(text)
