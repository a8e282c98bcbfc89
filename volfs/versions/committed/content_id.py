"""The content id of a version: what it says, independent of how it is stored.

Decided here: the hash. Two versions have the same content id exactly when they have the same history, whatever the
store, the dataset's name, the version numbers and the packing; altering any committed byte, name, time or message
anywhere in the history changes it. Written by :mod:`volfs.versions.commit.version_writer`, proved by
:mod:`volfs.versions.check.fsck`.

The construction (SHA-256 throughout; the tree is that of RFC 6962, section 2.1, over leaves sorted by key):

- a leaf is ``H(0x00 ‖ op ‖ key ‖ 0x00 ‖ digest ‖ mode)``: ``op`` is 1 for a put (a key taken from another version in a
  merge is a put), 2 for a removal, 3 for the removal of a subtree, 5 for the permission bits of a directory; ``key`` is
  the whole key in UTF-8 (surrogateescape); ``digest`` the SHA-256 of the bytes as the client wrote them, empty where
  there are none; ``mode`` that of the manifest's record, two bytes little-endian, empty where it is 0. Times of side
  files are not covered, as in git: the same content is the same version, whenever it was copied or checked out;
- an inner node is ``H(0x01 ‖ left ‖ right)``, the left side holding the largest power of two of leaves below the
  total; the tree of no leaves is ``H()``;
- the content id is the hex of ``H(0x02 ‖ header)``, the header being JSON with sorted keys and no spaces: ``author``,
  ``message``, ``parents`` (their content ids, in order), ``time_ns``, ``tree`` (hex of the root); and ``conflicts``, as
  in ``version.json``, where a merge has left some open, and ``meta``, where there is some: ids of versions without stay
  what they were.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

PUT, REMOVE, REMOVE_SUBTREE, DIRECTORY = 1, 2, 3, 5

_OP_BYTE = {op: bytes((0, op)) for op in (PUT, REMOVE, REMOVE_SUBTREE, DIRECTORY)}


class Change(NamedTuple):
    """One changed key: sorts by key, then by op. ``digest`` is empty where there are no bytes. ``mode``: see above."""

    key: bytes
    op: int
    digest: bytes
    mode: bytes = b""


def key_bytes(key: str) -> bytes:
    """A key as it is hashed: UTF-8, with undecodable bytes of side-file names restored."""
    return key.encode("utf-8", "surrogateescape")


def tree_root(changes: Iterable[Change]) -> bytes:
    """The Merkle root over a version's changes, given in any order."""
    return _root([_leaf(change) for change in sorted(changes)])


def tree_root_of_puts(puts: Sequence[bytes], others: Iterable[Change]) -> bytes:
    """:func:`tree_root`, where most changes are puts without a mode: a million of them costs half as much.

    ``puts``: for each ``key ‖ 0x00 ‖ digest``, sorted. ``others``: all other changes, given in any order.
    """
    head = _OP_BYTE[PUT]
    leaves: list[bytes] = []
    at = 0
    for change in sorted(others):
        # No key has a NUL: so puts, which end theirs with one, are in the order of their keys.
        after = bisect_left(puts, change.key + b"\0", at)
        while after < len(puts) and puts[after].startswith(change.key + b"\0"):
            if change.op == PUT and puts[after][len(change.key) + 1 :] > change.digest:
                break
            after += 1
        leaves += [head + put for put in puts[at:after]]
        leaves.append(_leaf(change))
        at = after
    leaves += [head + put for put in puts[at:]]
    return _root(leaves)


def _leaf(change: Change) -> bytes:
    key, op, digest, mode = change
    return _OP_BYTE[op] + key + b"\0" + digest + mode


def _root(leaves: list[bytes]) -> bytes:
    sha256 = hashlib.sha256
    level = [sha256(leaf).digest() for leaf in leaves]
    if not level:
        return sha256().digest()
    # Pairing neighbours and carrying an odd last node up unchanged is RFC 6962's split at the largest power of two.
    while len(level) > 1:
        paired = [sha256(b"\x01" + one + other).digest() for one, other in zip(level[::2], level[1::2], strict=False)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def content_id(
    *,
    parents: Sequence[str],
    author: str,
    message: str,
    time_ns: int,
    root: bytes,
    meta: Mapping[str, str] | None = None,
    conflicts: Sequence[Mapping[str, object]] = (),
) -> str:
    """The id of a version, as 64 hex digits. ``parents`` are content ids, the first parent first."""
    header: dict[str, object] = {
        "author": author,
        "message": message,
        "parents": list(parents),
        "time_ns": time_ns,
        "tree": root.hex(),
    }
    if meta:
        header["meta"] = dict(meta)
    if conflicts:
        header["conflicts"] = [dict(each) for each in conflicts]
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(b"\x02" + text.encode("ascii")).hexdigest()
