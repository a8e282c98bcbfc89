"""Text of strangers on a terminal: messages, authors, names of files.

Decided here: which characters are shown as escapes, because they would move the cursor, change colours, begin a line
that looks like another's, or turn the direction of writing. What is stored, and what programs are given, stays as it
is. Not here: where text is shown.
"""

from __future__ import annotations

import re

# C0 and C1 controls, line and paragraph separators, what turns the direction of writing, and undecodable bytes.
_HARMFUL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]")
# JSON has no other control characters than the line ends of its own layout.
_HARMFUL_IN_JSON = re.compile(_HARMFUL.pattern.replace("\x00-\x1f", ""))
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: str) -> str:
    """The text as one line that any terminal shows unchanged: characters that would do harm are escaped as Python
    writes them."""
    return _HARMFUL.sub(_escape, text)


def printable_lines(text: str) -> list[str]:
    """:func:`printable` for text of several lines, a string for each line, without line ends."""
    return [printable(line) for line in re.split("\r\n|\n|\r", text)]


def printable_json(text: str) -> str:
    """An equal JSON document in which characters that would do harm on a terminal are escaped."""
    return _HARMFUL_IN_JSON.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _escape(found: re.Match[str]) -> str:
    character = found.group()
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python's os functions give it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
