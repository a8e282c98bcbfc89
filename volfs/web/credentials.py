"""Who asks, by a token or a user's password, and what he may do.

Decided here: whoever logs in acts as the server's own user, and besides as the account of his name if the machine has
one; whoever does not, as nobody, who never writes. Owner and mode of each dataset hold for all of them, as the kernel
holds the users of a mount. A browser may come with the token in its URL, and has a cookie from then on: with that it
looks and never changes, as pages of others could have a browser send it. Not here: TLS, without which passwords can be
read on the way: that is a proxy's.

A file of users has lines ``NAME:HASH`` as ``htpasswd -B`` makes them (bcrypt). It is read again when it changes.
"""

from __future__ import annotations

import base64
import errno
import grp
import hashlib
import hmac
import os
import pwd
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import trio

from volfs.errors import BadInput, NotAllowed
from volfs.model.bounded_map import BoundedMap
from volfs.tree.contract.attrs import Attr

#: A password takes tenths of a second to check, on purpose: so many at a time, and one that was right is remembered.
_CHECKS = 2
_REMEMBERED = 1000
#: bcrypt looks at no more of a password.
_LONGEST_PASSWORD = 72

#: Browsers send it to every port of a host.
_COOKIE = "volfs"

_WORDS = {os.R_OK: "read", os.W_OK: "change", os.X_OK: "enter"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``name``: None for who has not logged in or has a token; ``accounts``: user and groups as whom he acts,
    by number. ``known``: he has logged in."""

    name: str | None = None
    accounts: tuple[tuple[int, frozenset[int]], ...] = ()
    known: bool = False

    @property
    def author(self) -> str | int:
        """In whose name he commits: his own, or with a token the server's user."""
        return os.getuid() if self.name is None else self.name

    def may(self, attr: Attr, bit: int) -> bool:
        """Whether an inode's owner and mode let him. ``bit``: one of ``os.R_OK``, ``os.W_OK``, ``os.X_OK``."""
        mode = stat.S_IMODE(attr.mode)
        if mode & bit and not self.accounts:
            return True
        for user, groups in self.accounts:
            if mode >> (6 if attr.uid == user else 3 if attr.gid in groups else 0) & bit:
                return True
        return False

    def need(self, attr: Attr, bit: int) -> None:
        """Raises NotAllowed unless he may."""
        if not self.may(attr, bit):
            raise NotAllowed(f"you may not {_WORDS[bit]} this", errno=errno.EACCES)


NOBODY = Caller()


class Unknown(Exception):
    """Whoever asks must log in first, or has said a wrong token or password."""


class Gate:
    """Lets callers in. ``public``: whoever does not log in may read what all may read.

    Without a token and users nobody can log in: then all read, and nobody writes.
    """

    def __init__(self, token: str | None = None, users: Path | None = None, *, public: bool = False) -> None:
        if token is not None and not token:
            raise BadInput("an empty token lets everybody in: say a longer one")
        self._token = None if token is None else _sum(token.encode())
        self._users = None if users is None else Users(users)
        self.closed = token is not None or users is not None
        self._public = public or not self.closed

    def cookie(self, token: str) -> str:
        """What a browser that came with the token keeps, and shows with every request. Raises Unknown."""
        if not self._is_token(token.encode("utf-8", "surrogateescape")):
            raise Unknown
        return f"{_COOKIE}={quote(token, safe='')}; Path=/; HttpOnly; SameSite=Strict"

    async def caller(self, authorization: str | None, cookies: str | None = None) -> Caller:
        """Who sends an ``Authorization`` header; ``cookies`` is that of whoever only looks. Raises Unknown."""
        if authorization is None:
            for cookie in (cookies or "").split(";"):
                key, _, shown = cookie.strip().partition("=")
                if key == _COOKIE and self._is_token(unquote_to_bytes(shown)):
                    return _caller(None)
            if self._public:
                return NOBODY
            raise Unknown
        kind, _, value = authorization.partition(" ")
        if kind.lower() == "bearer" and self._is_token(value.strip().encode("latin-1")):
            return _caller(None)
        if kind.lower() == "basic":
            try:
                name, _, password = base64.b64decode(value.strip(), validate=True).partition(b":")
                text = name.decode()
            except ValueError:
                raise Unknown from None
            if self._is_token(password):
                return _caller(None)
            if self._users is not None and await self._users.has(text, password):
                return _caller(text)
        if not self.closed:
            return NOBODY
        raise Unknown

    def _is_token(self, said: bytes) -> bool:
        return self._token is not None and hmac.compare_digest(_sum(said), self._token)


#: Those who log in are remembered, and what they said is not: a sum that means nothing to another process.
_KEY = secrets.token_bytes(32)


def _sum(said: bytes) -> bytes:
    return hashlib.blake2b(said, key=_KEY, digest_size=32).digest()


class Users:
    """A file of users and hashes of their passwords."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hashes: dict[str, bytes] = {}
        self._facts: tuple[int, int, int] | None = None
        self._right: BoundedMap[bytes, bool] = BoundedMap(_REMEMBERED)
        self._limit = trio.CapacityLimiter(_CHECKS)
        self._read()

    async def has(self, name: str, password: bytes) -> bool:
        """Whether there is such a user and this is his password."""
        self._read()
        said = _sum(name.encode() + b"\0" + password)
        if self._right.get(said):
            return True
        # A name that is not there takes as long as one that is.
        known = self._hashes.get(name)
        right = await trio.to_thread.run_sync(_is_right, password, known or _NOBODYS, limiter=self._limit)
        if not right or known is None or self._hashes.get(name) != known:
            return False
        self._right.put(said, True)
        return True

    def _read(self) -> None:
        try:
            found = os.stat(self._path)
            facts = found.st_mtime_ns, found.st_size, found.st_ino
            if facts == self._facts:
                return
            text = self._path.read_text()
        except (OSError, UnicodeError) as error:
            if self._facts is None:
                reason = error.strerror if isinstance(error, OSError) else "it is no text"
                raise BadInput(f"{self._path}: the users cannot be read: {reason}") from None
            self._hashes, self._facts = {}, (0, 0, 0)  # whoever takes the file away lets nobody in any more
            self._right.clear()
            return
        hashes = _users(text, self._path, strict=self._facts is None)
        self._hashes, self._facts = hashes, facts
        self._right.clear()


#: The hash of a password that nobody knows.
_NOBODYS = b"$2b$12$" + b"." * 21 + b"O" + b"." * 31


def _users(text: str, path: Path, *, strict: bool) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, colon, hashed = line.strip().partition(":")
        if not name or name.startswith("#"):
            continue
        if colon and hashed.startswith(("$2y$", "$2b$", "$2a$")):
            found[name] = hashed.encode()
        elif strict:
            raise BadInput(f"{path}: line {number} is not NAME:HASH with a bcrypt hash, as `htpasswd -B` makes it")
    return found


def _is_right(password: bytes, hashed: bytes) -> bool:
    import bcrypt

    try:
        return bcrypt.checkpw(password[:_LONGEST_PASSWORD], hashed) and len(password) <= _LONGEST_PASSWORD
    except ValueError:
        return False


def _caller(name: str | None) -> Caller:
    accounts = [(os.getuid(), frozenset({os.getgid(), *os.getgroups()}))]
    if name is not None:
        try:
            account = pwd.getpwnam(name)
            groups = {group.gr_gid for group in grp.getgrall() if name in group.gr_mem}
            accounts.append((account.pw_uid, frozenset({account.pw_gid, *groups})))
        except (KeyError, ValueError):
            pass
    return Caller(name, tuple(accounts), known=True)
