"""Sending files of a tree that does as it is told: what a client gets when a file changes under the server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio

from volfs.tree.contract.api import OpenFile
from volfs.tree.contract.meter import Meter
from volfs.web.file_body import FileBodies
from volfs.web.http_exchange import HttpExchange
from volfs.web.http_status import Refusal

SCOPE = {"method": "GET", "raw_path": b"/x", "query_string": b"", "headers": [], "http_version": "1.1"}


def send(data: bytes, size: int, ranges: list[range] | None = None) -> list[dict[str, Any]]:
    """What is sent of a file that had ``size`` bytes a moment ago."""
    sent: list[dict[str, Any]] = []

    async def read(fh: int, offset: int, wanted: int) -> bytes:
        return data[offset : offset + wanted]

    async def receive() -> dict[str, Any]:
        await trio.sleep_forever()
        raise AssertionError

    async def keep(message: dict[str, Any]) -> None:
        sent.append(message)

    async def main() -> None:
        tree: Any = SimpleNamespace(read=read, meter=Meter())
        exchange = HttpExchange(SCOPE, receive, keep)
        await FileBodies(tree).send(exchange, OpenFile(1), size, ranges, [("content-type", "x/y")])

    trio.run(main)
    return sent


def test_the_bytes_are_sent_whole_whatever_the_pieces() -> None:
    data = bytes(range(256)) * 20_000
    sent = send(data, len(data))
    assert b"".join(bytes(one["body"]) for one in sent[1:]) == data and len(sent) > 4
    assert not sent[-1]["more_body"]


def test_a_file_that_has_become_empty_is_to_be_asked_for_again() -> None:
    with pytest.raises(Refusal) as refused:
        send(b"", 100)
    assert refused.value.status == 503 and ("retry-after", "1") in refused.value.headers


def test_one_that_becomes_shorter_in_the_middle_is_never_taken_for_whole() -> None:
    with pytest.raises(Refusal):
        send(b"x" * (3 << 20), 4 << 20)
