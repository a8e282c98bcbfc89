"""Three-way merges of values, JSON and text. ``git merge-file`` judges the text."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from volfs.model.three_way import (
    ABSENT,
    CONFLICT,
    LONGEST_TEXT,
    differences,
    merge_json,
    merge_lines,
    merge_text,
    merge_values,
    same_json,
)

VALUES = st.sampled_from([ABSENT, "a", "b", "c"])


@given(VALUES, VALUES, VALUES)
def test_a_value_that_one_side_changed_stands_and_a_removal_is_a_value(base: Any, ours: Any, theirs: Any) -> None:
    merged = merge_values(base, ours, theirs)
    changed = {side for side in (ours, theirs) if side != base}
    assert merged == (CONFLICT if len(changed) > 1 else next(iter(changed), base))
    assert merge_values(base, theirs, ours) == merged


JSON = st.recursive(
    st.sampled_from([None, True, 1, 1.0, "x", []]),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@given(JSON, JSON, JSON)
def test_json_merges_by_key_whichever_side_is_which(base: Any, ours: Any, theirs: Any) -> None:
    merged, other = merge_json(base, ours, theirs), merge_json(base, theirs, ours)
    assert (merged is CONFLICT) == (other is CONFLICT)
    if merged is CONFLICT:
        return
    assert same_json(merged, other)
    assert same_json(merge_json(ours, merged, ours), merged)
    assert same_json(merge_json(theirs, theirs, merged), merged)
    for key in "abc":
        sides = [side.get(key, ABSENT) if isinstance(side, dict) else ABSENT for side in (base, ours, theirs)]
        if isinstance(merged, dict) and all(isinstance(side, dict) for side in (base, ours, theirs)):
            assert same_json(merged.get(key, ABSENT), merge_json(*sides))


def test_json_that_one_side_removed_and_the_other_changed_is_a_conflict() -> None:
    assert merge_json({"a": {"b": 1}}, {}, {"a": {"b": 2}}) is CONFLICT
    assert merge_json({"a": {"b": 1}}, {}, {"a": {"b": 1}, "c": 3}) == {"c": 3}
    assert merge_json({"a": 1}, {"a": True}, {"a": 1})["a"] is True
    assert merge_json(ABSENT, {"a": 1}, {"b": 2}) == {"a": 1, "b": 2}


LINES = st.lists(st.sampled_from("abcd"), max_size=8)


@given(LINES, LINES)
def test_differences_are_the_fewest(base: list[str], side: list[str]) -> None:
    hunks = differences(base, side)
    assert hunks is not None
    made, at = [], 0
    for hunk in hunks:
        made += base[at : hunk.start] + side[hunk.to_start : hunk.to_stop]
        at = hunk.stop
    assert made + base[at:] == side
    longest = [[0] * (len(side) + 1) for _ in range(len(base) + 1)]
    for i, one in enumerate(base):
        for j, other in enumerate(side):
            longest[i + 1][j + 1] = longest[i][j] + 1 if one == other else max(longest[i][j + 1], longest[i + 1][j])
    edits = sum(h.stop - h.start + h.to_stop - h.to_start for h in hunks)
    assert edits == len(base) + len(side) - 2 * longest[-1][-1]


@st.composite
def edited(draw: st.DrawFn) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """A text of lines that are all different, and two edits of it: what is the same is never in doubt."""
    base = [b"line %d\n" % number for number in range(draw(st.integers(0, 9)))]

    def edit(name: bytes) -> list[bytes]:
        made: list[bytes] = []
        for number, line in enumerate(base):
            what = draw(st.sampled_from(["keep"] * 6 + ["drop", "change", "add", "same"]))
            if what == "add":
                made.append(b"new %d by %s\n" % (number, name))
            made += {"drop": [], "change": [b"%d by %s\n" % (number, name)], "same": [b"%d\n" % number]}.get(
                what, [line]
            )
        if draw(st.booleans()):
            made.append(b"end by %s\n" % draw(st.sampled_from([name, b"both"])))
        return made

    return base, edit(b"ours"), edit(b"theirs")


@given(edited())
def test_git_merges_text_the_same(tmp_path_factory: Any, texts: tuple[list[bytes], list[bytes], list[bytes]]) -> None:
    folder: Path = tmp_path_factory.getbasetemp()
    paths = [folder / name for name in ("base", "ours", "theirs")]
    for path, lines in zip(paths, texts, strict=True):
        path.write_bytes(b"".join(lines))
    merged = merge_text(*(b"".join(lines) for lines in texts))
    base, ours, theirs = paths
    judge = subprocess.run(["git", "merge-file", "-p", "-q", ours, base, theirs], capture_output=True)
    assert judge.returncode >= 0
    assert merged == (judge.stdout if judge.returncode == 0 else None)


def test_text_that_cannot_be_merged_by_line_is_a_conflict() -> None:
    assert merge_text(b"a\nb\n", b"A\nb\n", b"a\nB\n") is None, "changes that touch"
    assert merge_text(b"a\n\0", b"a\n\0b", b"c\na\n\0") is None
    assert merge_text(b"a\nb\nc\n", b"A\nb\nc\n", b"a\nb\n\xff\n") is None
    long = b"x" * LONGEST_TEXT
    assert merge_text(b"a\nb\nc\n", b"A\nb\nc\n", b"a\nb\n" + long) is None
    assert merge_lines([b"%d" % i for i in range(3000)], [b""], [b"x"]) is None, "rewritten from end to end"
    assert merge_text(b"a\r\nb\r\nc", b"A\r\nb\r\nc", b"a\r\nb\r\nC") == b"A\r\nb\r\nC"


def test_documents_of_metadata_merge_by_key() -> None:
    from volfs.model.name_lists import merge_documents

    def doc(**attributes: object) -> bytes:
        return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}).encode()

    merged = merge_documents(doc(a=1, b=1), doc(a=2, b=1), doc(a=1, b=3))
    assert merged is not None and json.loads(merged)["attributes"] == {"a": 2, "b": 3}
    assert merge_documents(doc(a=1), doc(a=2), doc(a=3)) is None
    assert merge_documents(doc(a=1), doc(), doc(a=3)) is None
