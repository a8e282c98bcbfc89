"""``serve``: a store by HTTP. What it does is in :mod:`volfs.web.web_service`."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import click

from volfs.cli.frame import Frame, pass_frame, path_value, say, size_value
from volfs.errors import BadInput

_LOCAL = ("127.", "[::1]", "localhost", "unix:")


@click.command()
@click.argument("store", required=False, callback=path_value)
@click.option(
    "--listen",
    multiple=True,
    default=("127.0.0.1:8000",),
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where to answer; also unix:PATH. Several are possible, and port 0 is any that is free.",
)
@click.option("-r", "--read-only", is_flag=True, help="Nothing can be changed, whoever asks.")
@click.option("--token", envvar="VOLFS_TOKEN", show_envvar=True, help="Who says this may read and write.")
@click.option("--users", callback=path_value, metavar="FILE", help="Who may log in: NAME:HASH lines of `htpasswd -B`.")
@click.option("--public", is_flag=True, help="Let those read who do not log in.")
@click.option("--cache-size", callback=size_value, metavar="SIZE", help="Memory for decoded voxels, such as 4G.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What is worth a line on stderr; with info, every request is.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="What a line looks like.",
)
@pass_frame
def serve(
    frame: Frame,
    store: Path | None,
    listen: tuple[str, ...],
    read_only: bool,
    token: str | None,
    users: Path | None,
    public: bool,
    cache_size: int | None,
    log_level: str,
    log_format: str,
) -> None:
    """Show the store by HTTP, without a mount.

    The same tree as a mount's: every file has a URL, every directory a listing; branches are written by PUT and
    WebDAV. Without --token and --users everybody may read and nobody write. With one of them nobody does either without
    logging in. Ctrl-C ends it.

    \b
    Examples:
      volfs serve /data/store
      VOLFS_TOKEN=… volfs --store /data/store serve --listen 0.0.0.0:8000 --public
    """
    if importlib.util.find_spec("hypercorn") is None:
        raise BadInput("`volfs serve` needs the package hypercorn: pip install 'volfs[serve]'")
    if users is not None and importlib.util.find_spec("bcrypt") is None:
        raise BadInput("--users needs the package bcrypt: pip install 'volfs[serve]'")
    from volfs.fuse.limits import tune_process
    from volfs.fuse.logs import start_logging
    from volfs.web.web_service import Service, run

    service = Service(listen, token, users, public, read_only or frame.read_only, cache_size)
    start_logging("-", level=log_level, style=log_format)
    tune_process()

    def on_ready(urls: list[str]) -> None:
        for url in urls:
            say(f"serving {url}", err=True)
        far = [address for address in listen if not address.startswith(_LOCAL)]
        if far and token is None and users is None:
            say(f"volfs: whoever reaches {', '.join(far)} may read all of it", err=True)

    with replace(frame, store=store or frame.store).open(read_only=not service.writes) as opened:
        run(opened, service, on_ready=on_ready)
