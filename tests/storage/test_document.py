"""Documents with a checksum: what was written is read, and no damaged bit or byte makes another value of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volfs.errors import Damaged
from volfs.storage.json_document import CHECKSUM, dump_document
from volfs.storage.json_document import load_document as load

DOCUMENTS = [
    {"version": 12, "content_id": "5f" * 32},
    {"version": 0},
    {"format": 1, "id": "a2f0b7be-6a0c-4d0e-9d0f-0a1b2c3d4e5f"},
    {
        "version": 3,
        "writer": "x",
        "message": "über\n \x1b[31m \udcff crc32c",
        "parents": [],
        "arrays": {"a": {"crc32c": "x"}},
    },
    {
        "rejected": [
            {"path": "s0/xy/z00011.png", "reason": '"quoted" \\ 1.5', "since": 1.25, "again": None, "yes": True}
        ]
    },
    {},
]


def load_document(raw: bytes, name: str) -> dict[str, object]:
    return load(raw, name)[0]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text().filter(lambda name: name != CHECKSUM), json_values, max_size=5))
def test_what_is_written_is_read_whatever_it_is(value):
    assert load_document(dump_document(value), "x.json") == value


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_is_plain_ascii_json_that_any_program_reads(document):
    raw = dump_document(document)
    assert raw.isascii()
    assert {name: each for name, each in json.loads(raw).items() if name != CHECKSUM} == document


def values_after(damage) -> list[object]:
    """What is read after each damage that is not found: none may differ from what was written."""
    found = []
    for raw in damage:
        try:
            found.append(load_document(bytes(raw), "x.json"))
        except Damaged as error:
            assert str(error).startswith("x.json")
            assert "\n" not in str(error)
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_flipped_bit_anywhere_is_found_or_changes_nothing(document):
    raw = dump_document(document)

    def flips():
        for at in range(len(raw)):
            for bit in range(8):
                damaged = bytearray(raw)
                damaged[at] ^= 1 << bit
                yield damaged

    assert all(value == document for value in values_after(flips()))


@pytest.mark.parametrize("document", DOCUMENTS[:3])
def test_a_damaged_byte_anywhere_is_found_or_changes_nothing(document):
    raw = dump_document(document)
    damage = (raw[:at] + bytes([byte]) + raw[at + 1 :] for at in range(len(raw)) for byte in range(256))
    assert all(value == document for value in values_after(damage))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_cut_short_or_with_a_tail_is_found_or_changes_nothing(document):
    raw = dump_document(document)
    damage = [raw[:length] for length in range(len(raw))] + [raw + b"\0" * 9, raw + raw, raw + b"\n"]
    assert all(value == document for value in values_after(damage))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_of_an_older_volfs_or_of_a_person_needs_no_checksum(document):
    assert load(json.dumps(document).encode(), "x.json") == (document, False)
    assert load(dump_document(document), "x.json") == (document, True)
    assert (
        load_document(json.dumps(document, indent=4, ensure_ascii=False).encode("utf-8", "surrogatepass"), "x")
        == document
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_another_program_may_lay_a_document_out_anew(document):
    again = json.dumps(json.loads(dump_document(document)), sort_keys=True, separators=(",", ":")).encode()
    assert load_document(again, "x.json") == document


def test_an_edited_document_says_how_to_have_it_taken():
    raw = dump_document({"version": 12}).replace(b"12", b"13")
    with pytest.raises(Damaged, match=r'was edited.*remove its member "checksum"'):
        load_document(raw, "x.json")
