"""nginx and Caddy on a mount, with the configurations of ``mount_examples/``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

from tests.kits.examples import free_port, program, server
from tests.kits.paths import EXAMPLES
from volfs.testing.waiting import PATIENCE

NGINX = """
{user}daemon off; pid {root}/nginx.pid; error_log {root}/nginx.log; worker_processes 2;
events {{}}
http {{
    include /etc/nginx/mime.types; default_type application/octet-stream; access_log off;
    client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
    uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
    include {root}/volfs.conf;
}}
"""
FOREIGN = {"Origin": "https://viewer.example.org"}


@dataclass(frozen=True)
class Site:
    """A web server on a mount."""

    port: int
    mount: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
        """An answer with its body; header names have ``_`` for ``-``."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, urllib.parse.quote(path), headers={**FOREIGN, **named})
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()


@contextlib.contextmanager
def serving(kind: str, root: Path, mountpoint: Path) -> Iterator[Site]:
    """The server of this kind, with its example, on a mount."""
    port = free_port()
    if kind == "nginx":
        text = (EXAMPLES / "nginx" / "volfs.conf").read_text()
        assert text.count("listen 8080;") == text.count("root   /srv/volfs;") == 1, "the two lines that README names"
        text = text.replace("listen 8080;", f"listen 127.0.0.1:{port};").replace("/srv/volfs;", f"{mountpoint};")
        (root / "volfs.conf").write_text(text)
        user = "user www-data; " if os.geteuid() == 0 else ""
        (root / "nginx.conf").write_text(NGINX.format(root=root, user=user))
        command = [program("nginx", "nginx-light"), "-p", str(root), "-c", str(root / "nginx.conf")]
        command += ["-e", str(root / "nginx.log")]
        subprocess.run([*command, "-t"], check=True, capture_output=True)
        env = {}
    else:
        command = [program("caddy", "caddy"), "run", "--config", str(EXAMPLES / "caddy" / "Caddyfile")]
        env = {"VOLFS_SITE": f"http://127.0.0.1:{port}", "VOLFS_MOUNT": str(mountpoint), "CADDY_ADMIN": "off"}
        env |= {"XDG_DATA_HOME": str(root / "caddy"), "XDG_CONFIG_HOME": str(root / "caddy")}
    with server(command, port, root / f"{kind}.out", env):
        yield Site(port, mountpoint)
