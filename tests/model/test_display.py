"""Text of strangers on a terminal."""

from __future__ import annotations

import pytest

from volfs.model.display import printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain über 日本語 🧠", "plain über 日本語 🧠"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\nv9 forged\r\n", r"a\nv9 forged\r\n"),
        ("tab\tnul\0", r"tab\tnul\x00"),
        ("\x9b31m", r"\x9b31m"),
        ("lie \u202e rtl \u2066x", r"lie \u202e rtl \u2066x"),
        ("line\u2028separator", r"line\u2028separator"),
        ("\udcff", r"\xff"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_would_do_harm_on_a_terminal_is_escaped_and_the_rest_is_not(text, shown):
    assert printable(text) == shown
    printable(text).encode("utf-8")


def test_lines_stay_lines_however_they_end():
    assert printable_lines("one\ntwo\r\nthree\rfour\x1b\n") == ["one", "two", "three", r"four\x1b", ""]
