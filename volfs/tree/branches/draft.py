"""The message of a commit while it is being written into ``.volfs/commit``.

Decided here: which writes belong to one message. A shell's builtins write line by line, and a version never changes
once it is there; so a commit whose message has begun does everything else first, answers the write that began it, and
waits for the rest of the message: until the file is closed or synced, or nothing more comes for a while. Not here:
which close is the last (:mod:`volfs.tree.nodes.control`), and the commit (:mod:`volfs.tree.branches.branch_actions`).
"""

from __future__ import annotations

import codecs
import threading
import time

import trio

from volfs.errors import BadInput
from volfs.model.names import check_message
from volfs.versions.author import split_author

LONGEST = 64 << 10
"""Bytes of a message."""
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
#: How long the next line may take, where a person or another program writes it.
_PATIENCE = 30.0


class Draft:
    """A message, written through one open file. ``author`` is the version's, unless the message names another."""

    def __init__(self, author: str | None) -> None:
        #: Nothing but the rest of the message is waited for.
        self.asked = trio.Event()
        self._author = author
        self._words = bytearray()
        self._mutex = threading.Lock()
        self._closed = threading.Event()
        self._taken = False
        self._refused: BadInput | None = None
        self._last = time.monotonic()

    def __len__(self) -> int:
        return len(self._words)

    def holds(self, data: bytes) -> bool:
        """True if these bytes are all that was written."""
        return self._words == data

    def place(self, offset: int, data: bytes) -> None:
        """Write bytes at an offset. The same bytes again are accepted at any time, as an NFS client may send them."""
        end = offset + len(data)
        with self._mutex:
            if not self._taken and (offset > len(self._words) or end > LONGEST):
                # Half a message is no message: the part before the gap is not committed either.
                self._refused = BadInput(
                    f"write the message from its beginning on, at most {LONGEST >> 10} KiB; nothing was committed"
                )
                raise self._refused
            if self._words[offset:end] == data:
                return
            if self._taken:
                raise BadInput(
                    "the message came too late: the commit was made with the lines before it; a message that takes its"
                    " time goes into .volfs/message, and then - into .volfs/commit"
                )
            self._words[offset:end] = data
            self._last = time.monotonic()

    @property
    def blank(self) -> bool:
        """True if nothing was written yet, or only a byte order mark."""
        return bytes(self._words) in _MARKS

    def so_far(self) -> str:
        """The message as written until now, without its author. Raises BadInput if it can be no message."""
        text = split_author(decode_message(bytes(self._words), final=False))[0]
        check_message(text)
        return text

    def close(self) -> None:
        """Record that the message is complete."""
        self._closed.set()

    def wording(self) -> tuple[str, str | None]:
        """Message and author, once they are complete. Blocks, in a thread of trio's. Raises BadInput."""
        trio.from_thread.run_sync(self.asked.set)
        while not self._closed.wait(max(0.0, self._last + _PATIENCE - time.monotonic())):
            if time.monotonic() >= self._last + _PATIENCE:
                break
        with self._mutex:
            self._taken = True
            if self._refused is not None:
                raise self._refused
            return worded(bytes(self._words), self._author)


def worded(data: bytes, author: str | None) -> tuple[str, str | None]:
    """The message in some bytes, and its author: the one that its last line names, else ``author``. Raises BadInput."""
    message, named = split_author(decode_message(data))
    check_message(message)
    return message, named or author


def decode_message(data: bytes, *, final: bool = True) -> str:
    """The text in some bytes: UTF-8, or the encoding of a byte order mark, as editors and shells of Windows set it;
    lines may end as theirs do.

    ``final``: no more bytes follow. Raises BadInput for bytes that are no text: the history could not show them.
    """
    mark, encoding = next(((m, name) for m, name in _MARKS.items() if data.startswith(m)), (b"", "utf-8"))
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data[len(mark) :], final)
    except UnicodeDecodeError:
        name = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        raise BadInput(f"the message is not {name}; nothing was committed") from None
    return text.replace("\r\n", "\n").strip()
