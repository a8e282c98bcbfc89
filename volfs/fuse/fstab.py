"""Mount options as ``/etc/fstab``, ``mount -o`` and ``volfs mount -o`` give them: a line of words and commas.

Decided here: the meaning of each word, and which words are for the kernel or for mount(8). Not here: the effect of an
option (:mod:`volfs.fuse.processes`), the programs that mount(8) calls (:mod:`volfs.cli.helpers`).
"""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from volfs.errors import BadInput
from volfs.fuse.logs import FORMATS, LEVELS
from volfs.fuse.processes import MountOptions

#: For mount(8), for systemd, for libfuse, or about what FUSE has no say in.
# fmt: off
_OTHERS = frozenset({
    "defaults", "auto", "noauto", "user", "nouser", "users", "nousers", "owner", "group",
    "nofail", "_netdev", "rw", "loud", "silent", "async", "nosync", "suid", "dev",
    "exec", "atime", "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "diratime",
    "nomand", "mand", "iversion", "noiversion", "fsname", "subtype", "comment", "helper", "uhelper",
    "loop", "blksize", "max_read", "nonempty",
})
# fmt: on
#: As a user or group it means "leave it as it is" to the kernel: -1.
_NOBODY_AT_ALL = (1 << 32) - 1
#: What the kernel does with any filesystem, if it is told to.
_KERNEL = frozenset({"nosuid", "nodev", "noexec", "noatime", "nodiratime", "sync", "dirsync"})
_FLAGS: dict[str, tuple[str, Any]] = {
    "ro": ("read_only", True),
    "rw": ("read_only", False),
    "allow_other": ("allow_other", True),
    "default_permissions": ("default_permissions", True),
    "no_default_permissions": ("default_permissions", False),
}


@dataclass(frozen=True, slots=True)
class Parsed:
    """A line of options, read. ``unknown`` are words that neither volfs, nor mount(8), nor the kernel knows."""

    options: MountOptions
    foreground: bool = False
    wait: float | None = None
    unknown: tuple[str, ...] = ()


def parse_options(text: str, options: MountOptions | None = None) -> Parsed:
    """Read ``ro,allow_other,uid=1000,…`` on top of ``options``. Later words win. Raises BadInput for a bad value."""
    changes: dict[str, Any] = {}
    kernel = list(options.kernel) if options is not None else []
    wait: float | None = None
    foreground = False
    unknown: list[str] = []
    for word in _words(text):
        name, equals, value = word.partition("=")
        if name in _FLAGS and not equals:
            key, setting = _FLAGS[name]
            changes[key] = setting
        elif name in _VALUES:
            changes[name] = _VALUES[name](value)
        elif name == "wait":
            wait = seconds(value)
        elif name in ("foreground", "verbose") and not equals:
            foreground = foreground or name == "foreground"
            changes |= {"log_level": "debug"} if name == "verbose" else {}
        elif name == "remount":
            raise BadInput("a volfs mount cannot be remounted with other options: unmount it, and mount it again")
        elif name in _KERNEL and not equals:
            kernel.append(name)
        elif not (name in _OTHERS or name.lower().startswith("x-")):
            unknown.append(word)
    return Parsed(
        replace(options or MountOptions(), kernel=tuple(dict.fromkeys(kernel)), **changes),
        foreground,
        wait,
        tuple(unknown),
    )


def _words(text: str) -> list[str]:
    """Split a line at commas, but not at those after a backslash: names of files may have them."""
    words = re.findall(r"(?:\\.|[^,\\])+", text)
    return [re.sub(r"\\(.)", r"\1", word).strip() for word in words if word.strip()]


def user_number(text: str) -> int:
    """A user's number, from the number or the name."""
    return _number(text, "user", lambda name: pwd.getpwnam(name).pw_uid)


def group_number(text: str) -> int:
    """A group's number, from the number or the name."""
    return _number(text, "group", lambda name: grp.getgrnam(name).gr_gid)


def _number(text: str, what: str, named: Callable[[str], int]) -> int:
    if re.fullmatch(r"[0-9]+", text) and int(text) < _NOBODY_AT_ALL:
        return int(text)
    try:
        return named(text)
    except (KeyError, ValueError):
        raise BadInput(f"this machine knows no {what} {text!r}; give a name or a number") from None


def mode_bits(text: str) -> int:
    """Permission bits, in octal."""
    if not re.fullmatch(r"0?o?[0-7]{1,3}", text):
        raise BadInput(f"{text!r} is not a set of permission bits; write three octal digits such as 027 or 750")
    return int(text.replace("o", ""), 8)


def byte_count(text: str) -> int:
    """Bytes, with K, M, G or T for powers of 1024."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise BadInput(f"{text!r} is not a size; write for example 512M or 4G")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def seconds(text: str) -> float:
    """A number of seconds."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?s?", text):
        raise BadInput(f"{text!r} is not a number of seconds")
    return float(text.removesuffix("s"))


def duration(text: str) -> float:
    """Seconds, or with ``m``, ``h`` or ``d``: minutes, hours, days."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text)
    if match is None:
        raise BadInput(f"{text!r} is no length of time; write for example 30m, 12h or 2d")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]]


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise BadInput(f"{text!r} is none of {', '.join(choices)}")
        return text

    return read


def _absolute(text: str) -> Path:
    if not text.startswith("/"):
        raise BadInput(f"{text!r}: in mount options, paths begin with /")
    return Path(text)


_VALUES: dict[str, Callable[[str], Any]] = {
    "uid": user_number,
    "gid": group_number,
    "umask": mode_bits,
    "cache_size": byte_count,
    "log": lambda text: str(_absolute(text)),
    "log_level": _one_of(LEVELS),
    "log_format": _one_of(FORMATS),
    "catalog": _absolute,
    "dead_after": duration,
    "answer_within": duration,
}
