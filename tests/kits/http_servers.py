"""``volfs serve`` as a process of its own, where pyfuse3 cannot be imported, and a client of it."""

from __future__ import annotations

import base64
import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volfs.testing.waiting import PATIENCE

#: As on a machine that cannot mount.
_WITHOUT_FUSE = "import sys; sys.modules['pyfuse3'] = None; from volfs.cli import main; main()"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class HttpServer:
    """A server. ``token``: what requests say unless told otherwise."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path
    token: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request. A header's name has underscores for hyphens; an empty value takes it away."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            given = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
            connection.putrequest(method, path, skip_accept_encoding=True)
            if body is not None and "Transfer-Encoding" not in given:
                connection.putheader("Content-Length", str(len(body)))
            for name, value in given.items():
                if value:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def names(self, path: str) -> list[str]:
        """The names in a directory."""
        return [entry["name"] for entry in self.get(f"{path}?format=json").json()["entries"]]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def basic(name: str, password: str) -> str:
    """An ``Authorization`` header."""
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


@contextmanager
def http_server(store: Path, log: Path, *options: str, token: str | None = None) -> Iterator[HttpServer]:
    """A server of a store at a port that is free. Its log may hold no error when it ends."""
    given = ["--token", token] if token else []
    command = [sys.executable, "-c", _WITHOUT_FUSE, "serve", str(store), "--listen", "127.0.0.1:0", *given, *options]
    with (
        log.open("wb") as file,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process,
    ):
        assert process.stderr is not None
        first = process.stderr.readline()
        assert first.startswith(b"serving http://"), first + process.stderr.read()
        tee = subprocess.Popen(["cat"], stdin=process.stderr, stdout=file)
        server = HttpServer(int(first.decode().rstrip("/\n").rpartition(":")[2]), process, log, token)
        if token:
            server.headers["Authorization"] = f"Bearer {token}"
        try:
            yield server
        finally:
            if process.poll() is None:
                assert server.end() == 0
            tee.wait(PATIENCE)
