"""Rules for names (datasets, refs, and keys) and for the messages of commits.

Decided here: which names can exist, and the order in which people expect them listed. Not here: what a name refers to.
Datasets and refs are directory names on every mount and share, so their alphabet is small. Keys are what other programs
chose, so almost anything a POSIX filesystem takes is a key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from volfs.errors import BadInput, BadName

MAX_COMPONENT = 255
"""Bytes of one path component (NAME_MAX of Linux filesystems)."""
MAX_KEY = 3072
"""Bytes of a key: PATH_MAX less room for the store's own path and the mountpoint."""

MAX_VERSION = 10**9 - 1
"""The largest number of a version: as many digits as its name may have."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_META = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_LONGEST_META, _MOST_META = 4096, 256
_VERSION = re.compile(r"v[0-9]+")
_DIGITS = re.compile(r"([0-9]+)")
#: The ref that always names the newest version.
LATEST = "latest"
_RULE = "letters, digits, '.', '_', '+' and '-' only, at most 128, beginning with a letter or digit"


def check_dataset_name(name: str) -> None:
    """Raise BadName unless ``name`` can be a dataset's."""
    if not _NAME.fullmatch(name):
        raise BadName(f"{name!r} cannot be a dataset name: {_RULE}")
    if name == "README.txt":
        raise BadName(f"{name!r} cannot be a dataset name: it stands in the root of every mount")


def is_dataset_name(name: str) -> bool:
    """Whether ``name`` can be a dataset's name."""
    return bool(_NAME.fullmatch(name)) and name != "README.txt"


def check_ref_name(name: str) -> None:
    """Raise BadName unless ``name`` can be a branch's or a tag's."""
    if not is_ref_name(name):
        if name == LATEST or _VERSION.fullmatch(name):
            raise BadName(f"{name!r} cannot be a branch or tag: it names a version")
        raise BadName(f"{name!r} cannot be a branch or tag: {_RULE}")
    if name == "HEAD" or ".." in name:
        raise BadName(f"{name!r} cannot be a branch or tag: git and diffs mean something else by it")


def is_ref_name(name: str) -> bool:
    """Whether ``name`` can be a ref's name in a store: one that :func:`check_ref_name` allows, or allowed in earlier
    releases."""
    return bool(_NAME.fullmatch(name)) and name != LATEST and not _VERSION.fullmatch(name)


def is_remote_branch(name: str) -> bool:
    """Whether ``name`` can be that of a branch of a remote, as it was last seen there: ``origin/main``."""
    remote, slash, branch = name.partition("/")
    return bool(slash) and is_remote_name(remote) and is_ref_name(branch)


def is_remote_name(name: str) -> bool:
    """Whether ``name`` can be a remote's."""
    return is_ref_name(name) and ".." not in name


def version_number(name: str) -> int | None:
    """12 for "v12"; None for anything that is not the name of a version as volfs writes it."""
    if len(name) <= 10 and _VERSION.fullmatch(name) and name[1] != "0":
        return int(name[1:])
    return None


def check_key(key: str) -> None:
    """Raise BadName unless ``key`` is ``zarr/…`` or ``files/…`` with components that every filesystem can hold.

    Under ``files/`` names need not be UTF-8: bytes that are not come as surrogate escapes, as Python's os functions
    give them. Under ``zarr/`` they must be (Zarr v3 names are Unicode).
    """
    space, slash, rest = key.partition("/")
    if space not in ("zarr", "files") or not slash:
        raise BadName(f"{key!r} is not a key: keys begin with zarr/ or files/")
    try:
        raw = rest.encode("utf-8", "strict" if space == "zarr" else "surrogateescape")
    except UnicodeEncodeError:
        raise BadName(f"{key!r} is not a key: the name is not valid UTF-8") from None
    if len(raw) > MAX_KEY:
        raise BadName(f"{key[:60]!r}… is not a key: longer than {MAX_KEY} bytes")
    for part in raw.split(b"/"):
        if part in (b"", b".", b".."):
            raise BadName(f"{key!r} is not a key: empty, '.' and '..' components are not allowed")
        if b"\0" in part:
            raise BadName(f"{key!r} is not a key: it contains a NUL byte")
        if len(part) > MAX_COMPONENT:
            raise BadName(f"{key[:60]!r}… is not a key: a component is longer than {MAX_COMPONENT} bytes")


def check_message(text: str) -> None:
    """Raise BadInput unless ``text`` can be a commit's message: any text but none, without NUL."""
    if not text.strip():
        raise BadInput("a commit needs a message; nothing was committed")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput("the message is not UTF-8; nothing was committed") from None
    if "\0" in text:
        raise BadInput("the message has a NUL character: it may be in UTF-16; nothing was committed")


def check_meta(meta: Mapping[str, str]) -> None:
    """Raise BadInput unless these can be said of a version, by name."""
    for name, value in meta.items():
        if not _META.fullmatch(name):
            rule = "letters, digits, '.', '_' and '-' only, at most 64, beginning with a letter"
            raise BadInput(f"{name!r} cannot name what is said of a version: {rule}")
        if len(value) > _LONGEST_META or "\0" in value:
            raise BadInput(f"{name}: what is said of a version has at most {_LONGEST_META:,} characters, and no NUL")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise BadInput(f"{name}: what is said of a version is UTF-8") from None
    if len(meta) > _MOST_META:
        raise BadInput(f"at most {_MOST_META} things are said of a version")


def natural_key(name: str) -> tuple[tuple[str | tuple[int, str], ...], str]:
    """A sort key under which z2 precedes z10, whatever the case; names that only differ in zeros or case keep an order.

    Digits are compared as (length, text) without leading zeros, which is the order of the numbers and has no limit on
    their length.
    """
    parts = _DIGITS.split(name)
    folded: list[str | tuple[int, str]] = []
    for i, part in enumerate(parts):
        if i % 2:
            digits = part.lstrip("0")
            folded.append((len(digits), digits))
        else:
            folded.append(part.casefold())
    return tuple(folded), name


def subject(message: str) -> str:
    """The first line of a message."""
    return message.strip().partition("\n")[0]
