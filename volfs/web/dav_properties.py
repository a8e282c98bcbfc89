"""Properties of files and directories: PROPFIND and PROPPATCH (RFC 4918, 9.1, 9.2 and 15).

Decided here: all properties are live ones, computed from attributes. Clients cannot add their own: a version holds
keys and bytes, and what lay beside them would be in no commit. What changes is the time of a file, which Windows,
macOS and rclone set after an upload; attributes of Windows are taken without effect, as at a mount. Not here: which
requests come (:mod:`volfs.web.authoring`).
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from xml.etree.ElementTree import Element

from volfs.tree.contract.attrs import NEVER, Attr
from volfs.web.dav_locks import Lock, Locks, Names
from volfs.web.dav_xml import dav, element, text
from volfs.web.http_status import Refusal
from volfs.web.media_types import media_type
from volfs.web.url_paths import path_of
from volfs.web.validators import entity_tag, http_date

_MICROSOFT = "{urn:schemas-microsoft-com:}"
#: What Windows sets beside the time of a file: taken, without effect.
_WITHOUT_EFFECT = {
    f"{_MICROSOFT}Win32CreationTime",
    f"{_MICROSOFT}Win32LastAccessTime",
    f"{_MICROSOFT}Win32FileAttributes",
}
_TIMES = {f"{_MICROSOFT}Win32LastModifiedTime", dav("getlastmodified"), dav("lastmodified")}
#: Named by a client, or not sent: asking for them costs something, or is of no use to most.
_ONLY_NAMED = {dav("quota-available-bytes"), dav("quota-used-bytes")}

_ENTRIES = "".join(
    element(
        dav("lockentry"),
        element(dav("lockscope"), element(dav(scope))) + element(dav("locktype"), element(dav("write"))),
    )
    for scope in ("exclusive", "shared")
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a PROPFIND asks for: ``names`` of properties, or all; with ``only_names`` without their values."""

    names: tuple[str, ...] | None = None
    only_names: bool = False

    @property
    def quota(self) -> bool:
        return self.names is not None and not _ONLY_NAMED.isdisjoint(self.names)


def wanted(root: Element | None) -> Wanted:
    """The question of a PROPFIND; without a body it asks for everything. Raises Refusal (400)."""
    if root is None:
        return Wanted()
    if root.tag != dav("propfind"):
        raise Refusal(400, "this is no propfind")
    for child in root:
        if child.tag == dav("propname"):
            return Wanted(only_names=True)
        if child.tag == dav("prop"):
            return Wanted(tuple(dict.fromkeys(str(one.tag) for one in child)))
        if child.tag == dav("allprop"):
            return Wanted()
    raise Refusal(400, "the propfind asks for nothing")


class Properties:
    """Writes the properties of entries."""

    def __init__(self, locks: Locks | None, wanted: Wanted, disk: os.statvfs_result | None = None) -> None:
        self._locks = locks
        self._wanted = wanted
        self._disk = disk

    def response(self, names: Names, attr: Attr) -> str:
        """The ``response`` of a multistatus for what is at ``names``."""
        known: dict[str, Callable[[], str]] = {
            dav("resourcetype"): lambda: element(dav("collection")) if attr.is_dir else "",
            dav("getlastmodified"): lambda: http_date(attr.mtime),
            dav("creationdate"): lambda: _iso(attr.mtime),
            dav("displayname"): lambda: text(names[-1].decode("utf-8", "replace")) if names else "volfs",
        }
        if attr.is_file:
            known[dav("getcontentlength")] = lambda: str(attr.size)
            known[dav("getcontenttype")] = lambda: media_type(names[-1])
            if attr.attr_timeout != NEVER or attr.size:
                known[dav("getetag")] = lambda: text(entity_tag(attr))
        if self._locks is not None:
            locks = self._locks
            known[dav("supportedlock")] = lambda: _ENTRIES
            known[dav("lockdiscovery")] = lambda: discovery(locks.covering(names))
        if self._disk is not None and attr.is_dir:
            disk = self._disk
            known[dav("quota-available-bytes")] = lambda: str(disk.f_bavail * disk.f_frsize)
            known[dav("quota-used-bytes")] = lambda: str((disk.f_blocks - disk.f_bfree) * disk.f_frsize)
        asked = self._wanted.names
        if asked is None:
            there = [name for name in known if name not in _ONLY_NAMED]
        else:
            there = [name for name in asked if name in known]
        values = (element(name, "" if self._wanted.only_names else known[name]()) for name in there)
        stats = [_propstat(values, 200)]
        absent = [name for name in asked or () if name not in known]
        if absent:
            stats.append(_propstat(map(element, absent), 404))
        href = element(dav("href"), text(path_of(names, folder=attr.is_dir)))
        return element(dav("response"), href + "".join(stats)) + "\n"


def discovery(locks: Iterable[Lock]) -> str:
    """The content of ``lockdiscovery``."""
    return "".join(
        element(
            dav("activelock"),
            element(dav("locktype"), element(dav("write")))
            + element(dav("lockscope"), element(dav("exclusive" if lock.exclusive else "shared")))
            + element(dav("depth"), "infinity" if lock.deep else "0")
            + lock.owner
            + element(dav("timeout"), f"Second-{lock.seconds_left}")
            + element(dav("locktoken"), element(dav("href"), text(lock.token)))
            + element(dav("lockroot"), element(dav("href"), text(path_of(lock.names)))),
        )
        for lock in locks
    )


@dataclass(frozen=True, slots=True)
class Patch:
    """What a PROPPATCH asks for: properties that are taken, those that are not, and the time that is set (ns)."""

    taken: tuple[str, ...]
    refused: tuple[str, ...]
    mtime_ns: int | None

    def response(self, names: Names, attr: Attr) -> str:
        """The ``response`` of a multistatus. Of one that is refused depend the others."""
        stats = []
        if self.refused:
            stats.append(_propstat(map(element, self.refused), 403))
        if self.taken:
            stats.append(_propstat(map(element, self.taken), 424 if self.refused else 200))
        href = element(dav("href"), text(path_of(names, folder=attr.is_dir)))
        return element(dav("response"), href + "".join(stats)) + "\n"


def patch(root: Element) -> Patch:
    """The order of a PROPPATCH. Raises Refusal (400)."""
    if root.tag != dav("propertyupdate"):
        raise Refusal(400, "this is no propertyupdate")
    taken: list[str] = []
    refused: list[str] = []
    mtime_ns: int | None = None
    for action in root:
        for one in action.iterfind(f"{dav('prop')}/*"):
            name = str(one.tag)
            time_ns = _time(one.text or "") if name in _TIMES and action.tag == dav("set") else None
            if time_ns is not None:
                mtime_ns = time_ns
            (taken if time_ns is not None or name in _WITHOUT_EFFECT else refused).append(name)
    if not taken and not refused:
        raise Refusal(400, "the propertyupdate has no properties")
    return Patch(tuple(taken), tuple(refused), mtime_ns)


def _propstat(properties: Iterable[str], status: int) -> str:
    phrase = {200: "OK", 403: "Forbidden", 404: "Not Found", 424: "Failed Dependency"}[status]
    return element(
        dav("propstat"),
        element(dav("prop"), "".join(properties)) + element(dav("status"), f"HTTP/1.1 {status} {phrase}"),
    )


def _iso(time_ns: int) -> str:
    return datetime.datetime.fromtimestamp(time_ns // 10**9, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(said: str) -> int | None:
    """A time (ns) as HTTP writes it, or in seconds."""
    try:
        if said.strip().isdecimal():
            return int(said) * 10**9
        return int(parsedate_to_datetime(said.strip()).timestamp()) * 10**9
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
