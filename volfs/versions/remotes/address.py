"""Where a remote is: a path of this machine, or ``ssh://host/path``.

Decided here: how an address is written, and which program is run to talk to it. Not here: what is said then
(:mod:`volfs.versions.remotes.connection`).

A path leads to a store, or to one dataset in it: ``/data/store`` or ``/data/store/cells``.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from volfs.errors import BadInput

_URL = re.compile(r"ssh://(?P<host>[^/\s:]+)(:(?P<port>[0-9]{1,5}))?/(?P<path>.+)")
_SSH = "VOLFS_SSH"
"""The variable that names another program than ``ssh``."""


@dataclass(frozen=True, slots=True)
class Address:
    """``host`` is "" on this machine; it may begin with ``user@``. ``path`` is absolute, or relative to the home
    directory at the host."""

    path: str
    host: str = ""
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``/path``, a relative path, or ``ssh://[user@]host[:port]/path``, in which ``/~/`` is the home directory
        there. Raises BadInput."""
        if "\0" in text or not text:
            raise BadInput(f"{text!r} is no path, and no address such as ssh://host/path")
        if "://" not in text:
            return cls(os.path.abspath(text))
        match = _URL.fullmatch(text)
        if match is None or match["host"].startswith("-"):  # which ssh would take for an option
            raise BadInput(f"{text!r} is no address: write a path, or ssh://host/path")
        path = match["path"]
        path = path.removeprefix("~/") if path.startswith("~/") else f"/{path}"
        return cls(path.rstrip("/") or "/", match["host"], int(match["port"]) if match["port"] else None)

    def __str__(self) -> str:
        if not self.host:
            return self.path
        port = f":{self.port}" if self.port is not None else ""
        return (
            f"ssh://{self.host}{port}/{self.path.removeprefix('/') if self.path.startswith('/') else '~/' + self.path}"
        )

    @property
    def name(self) -> str:
        """The last part of the path."""
        return Path(self.path).name

    def below(self, name: str) -> Address:
        """The address of a dataset in the store at this one."""
        return Address(f"{self.path.rstrip('/')}/{name}", self.host, self.port)

    def command(self) -> list[str]:
        """The program that serves the store there, with its arguments."""
        if not self.host:
            return [sys.executable, "-m", "volfs", "serve-stdio", "--", self.path]
        ssh = shlex.split(os.environ.get(_SSH) or "ssh")
        port = ["-p", str(self.port)] if self.port is not None else []
        return [*ssh, *port, self.host, f"volfs serve-stdio -- {shlex.quote(self.path)}"]
