"""Locks of WebDAV clients, and the If header by which they show what they hold (RFC 4918, 6, 7 and 10.4).

Decided here: locks are of this server: they keep other WebDAV clients of it from changing what one works on, and nobody
at a mount, whose changes are told apart by time and by entity tags. They end with the server, and after an hour unless
they are refreshed. Not here: when they are asked for (:mod:`volfs.web.authoring`).
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from volfs.web.http_status import Refusal
from volfs.web.url_paths import names_of_url

Names = tuple[bytes, ...]

#: The longest for which a lock is given at a time.
LONGEST_SECONDS = 3600
_MOST = 10_000

_PART = re.compile(r'\s*(?:<([^<>]*)>|(\()|(\))|(Not)\b|\[((?:W/)?"[^"]*")\])', re.IGNORECASE)


@dataclass(slots=True)
class Lock:
    """A lock on what is at ``names``, and with ``deep`` on all below. ``owner``: XML of the client who holds it;
    ``holder``: the user's name. ``ends`` is on the monotonic clock."""

    names: Names
    exclusive: bool
    deep: bool
    owner: str
    holder: str | None
    ends: float
    token: str = field(default_factory=lambda: f"urn:uuid:{uuid.uuid4()}")

    @property
    def seconds_left(self) -> int:
        return max(0, round(self.ends - time.monotonic()))

    def covers(self, names: Names) -> bool:
        """Whether it is a lock on what is at ``names``, by itself or from above."""
        return self.names == names or (self.deep and names[: len(self.names)] == self.names)


class Locks:
    """The locks that are held."""

    def __init__(self) -> None:
        self._locks: dict[str, Lock] = {}

    def _held(self) -> Iterable[Lock]:
        now = time.monotonic()
        for token in [token for token, lock in self._locks.items() if lock.ends <= now]:
            del self._locks[token]
        return self._locks.values()

    def covering(self, names: Names) -> list[Lock]:
        """The locks on what is at ``names``."""
        return [lock for lock in self._held() if lock.covers(names)]

    def below(self, names: Names) -> list[Lock]:
        """The locks on what is below ``names``."""
        return [lock for lock in self._held() if len(lock.names) > len(names) and lock.names[: len(names)] == names]

    def get(self, token: str) -> Lock | None:
        """The lock of a token, if it is held."""
        return next((lock for lock in self._held() if lock.token == token), None)

    def take(self, lock: Lock) -> None:
        """Hold a lock. Raises Refusal (423) if another one is in its way."""
        others = [*self.covering(lock.names), *(self.below(lock.names) if lock.deep else ())]
        if any(lock.exclusive or other.exclusive for other in others):
            raise Refusal(423, "somebody else holds a lock on this")
        if len(self._locks) >= _MOST:
            raise Refusal(503, "there are too many locks")
        self._locks[lock.token] = lock

    def release(self, lock: Lock) -> None:
        """Give a lock up."""
        self._locks.pop(lock.token, None)

    def gone(self, names: Names) -> None:
        """What was at ``names`` is there no more, and with it the locks on it and below."""
        for lock in [lock for lock in self._held() if lock.names[: len(names)] == names]:
            del self._locks[lock.token]

    def need(self, names: Names, shown: frozenset[str], holder: str | None, *, members: bool, deep: bool) -> None:
        """Raises Refusal (423) unless a client that has ``shown`` these tokens may change what is at ``names``.
        ``members``: it comes, goes or changes its name; ``deep``: with all below it."""

        def free(locks: list[Lock]) -> bool:
            return not locks or any(lock.token in shown and lock.holder == holder for lock in locks)

        above = [lock for lock in self.covering(names[:-1]) if names] if members else []
        each = [[lock] for lock in self.below(names)] if deep else []
        if not all(map(free, [self.covering(names), above, *each])):
            raise Refusal(423, "somebody else holds a lock on this")


@dataclass(frozen=True, slots=True)
class Condition:
    """``(<token> ["tag"] Not <token>)``: one of the lists of an If header. ``names``: what it is about, None for the
    request's own."""

    names: Names | None
    terms: tuple[tuple[bool, str], ...]


def conditions(header: str | None, authority: str | None) -> list[Condition]:
    """The lists of an If header. Terms are (wanted, token or tag). Raises Refusal (400)."""
    if header is None:
        return []
    found: list[Condition] = []
    about: Names | None = None
    terms: list[tuple[bool, str]] | None = None
    wanted, at = True, 0
    while header[at:].strip():
        match = _PART.match(header, at)
        if match is None:
            raise Refusal(400, "the If header is malformed")
        at = match.end()
        angled, opening, closing, negation, tag = match.groups()
        if opening and terms is None:
            terms = []
        elif closing and terms:
            found.append(Condition(about, tuple(terms)))
            terms = None
        elif negation and terms is not None and wanted:
            wanted = False
            continue
        elif angled is not None and terms is None:
            about = names_of_url(angled, authority)[0]
        elif terms is not None and (angled is not None or tag):
            terms.append((wanted, angled if angled is not None else tag))
        else:
            raise Refusal(400, "the If header is malformed")
        wanted = True
    if terms is not None or not found:
        raise Refusal(400, "the If header is malformed")
    return found


async def holds(
    lists: list[Condition], names: Names, locks: Locks, tag_of: Callable[[Names], Awaitable[str | None]]
) -> bool:
    """Whether any of the lists is true of what is there and of the locks on it."""
    for one in lists:
        about = names if one.names is None else one.names
        true = [
            (term == await tag_of(about) if term.startswith(('"', "W/")) else _locked_by(term, about, locks)) is wanted
            for wanted, term in one.terms
        ]
        if all(true):
            return True
    return not lists


def _locked_by(token: str, names: Names, locks: Locks) -> bool:
    return any(lock.token == token for lock in locks.covering(names))


def shown(lists: list[Condition]) -> frozenset[str]:
    """The tokens that a client shows in an If header."""
    return frozenset(term for one in lists for wanted, term in one.terms if wanted)
