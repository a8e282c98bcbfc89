"""``open``: a dataset in a browser or another viewer. Which URL each is given: :mod:`volfs.web.viewers`."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import subprocess
import threading
import webbrowser

import click

from volfs.cli.frame import Frame, parse_dataset_arg, pass_frame, say
from volfs.errors import BadInput

_LISTEN = "127.0.0.1:0"


@click.command()
@click.argument("target", required=False, metavar="[DATASET[/PATH][@REF]]")
@click.option(
    "--with",
    "viewer",
    type=click.Choice(["page", "neuroglancer", "napari", "fiji"]),
    default="page",
    show_default=True,
    help="What shows it: a browser, or an installed program.",
)
@pass_frame
def open(frame: Frame, target: str | None, viewer: str) -> None:
    """Show a dataset in the browser, or in another viewer.

    Starts a server at a free port of this machine that lets in this browser alone, and ends by Ctrl-C; napari and
    Fiji are let in without a token, and the server ends with them. Nothing is mounted. Without a dataset, the page
    lists all.

    \b
    Examples:
      volfs open brain@v3
      volfs open cells/labels/nuclei --with neuroglancer
      volfs open brain --with napari
    """
    if importlib.util.find_spec("hypercorn") is None:
        raise BadInput("`volfs open` needs the package hypercorn: pip install 'volfs[serve]'")
    if viewer == "neuroglancer" and importlib.util.find_spec("neuroglancer") is None:
        raise BadInput("Neuroglancer is not installed: pip install 'volfs[neuroglancer]'")
    if viewer != "page" and target is None:
        raise click.UsageError(f"which dataset shall {viewer} show?")
    from volfs.fuse.limits import tune_process
    from volfs.fuse.logs import start_logging
    from volfs.web import viewers
    from volfs.web.web_service import Service, run

    start_logging("-", level="warning", style="text")
    tune_process()
    ended: list[int] = []
    # Only this browser is let in. The programs have no way to say who they are.
    token = secrets.token_urlsafe(24) if viewer in ("page", "neuroglancer") else ""

    with frame.open(read_only=True) as store:
        meant = viewers.Target.of(store, None if target is None else parse_dataset_arg(target).spec)

        def command(base: str) -> list[str] | str:
            """What is run, or the URL that a browser gets."""
            if viewer == "page" or meant is None:
                return viewers.page_url(base, meant, token)
            if viewer == "neuroglancer":
                return viewers.neuroglancer_url(base, meant, token)
            return (viewers.napari_command if viewer == "napari" else viewers.fiji_command)(base, meant)

        command("http://127.0.0.1/")  # what is not there, or not installed, is said before anything starts

        def on_ready(urls: list[str]) -> None:
            wanted = command(urls[0])
            threading.Thread(target=show, args=(wanted,), daemon=True).start()

        def show(wanted: list[str] | str) -> None:
            if isinstance(wanted, str):
                say(wanted)
                if not webbrowser.open(wanted):
                    say("no browser was found: open this address in one; Ctrl-C ends it", err=True)
                return
            say(" ".join(wanted))
            ended.append(subprocess.run(wanted, check=False).returncode)
            os.kill(os.getpid(), signal.SIGTERM)

        run(store, Service((_LISTEN,), token or None, read_only=True), on_ready=on_ready)
    if any(ended):
        raise BadInput(f"{viewer} ended with status {ended[0]}")
