"""``mount`` and ``umount``. What they do is in :mod:`volfs.fuse.launcher`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volfs.cli.frame import Frame, json_option, pass_frame, path_value, say_json, size_value
from volfs.errors import BadInput

if TYPE_CHECKING:
    from volfs.fuse.processes import MountOptions


def _by(name: str) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Callback of an option that ``-o`` has too: read by the same function of :mod:`volfs.fuse.fstab`."""

    def read(_: click.Context, __: click.Parameter, text: str | None) -> Any:
        if text is None:
            return None
        from volfs.fuse import fstab

        try:
            return getattr(fstab, name)(text)
        except BadInput as error:
            raise click.BadParameter(str(error)) from None

    return read


@click.command()
@click.argument("mountpoint", callback=path_value)
@click.option("-r", "--read-only", is_flag=True, help="Nothing can be changed through this mount.")
@click.option("--allow-other", is_flag=True, help="Let other users in, held to owner and mode of each file.")
@click.option(
    "--default-permissions/--no-default-permissions",
    default=None,
    help="Whether the kernel holds everybody to owner and mode. On with --allow-other, else off.",
)
@click.option("--uid", callback=_by("user_number"), metavar="USER", help="Who owns what has no owner of its own.")
@click.option("--gid", callback=_by("group_number"), metavar="GROUP", help="The same of the group.")
@click.option("--umask", callback=_by("mode_bits"), metavar="OCTAL", help="Bits that no mode shall have, such as 027.")
@click.option(
    "-o", "more", metavar="OPTIONS", multiple=True, help="More options, as in /etc/fstab: ro,allow_other,uid=1000,…"
)
@click.option("--cache-size", callback=size_value, metavar="SIZE", help="Memory for decoded voxels, such as 4G.")
@click.option("--log", callback=path_value, metavar="FILE", help="Where the daemon logs.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="What is worth a line; info by default.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="What a line looks like; text by default.")
@click.option(
    "--wait",
    callback=_by("seconds"),
    metavar="SECONDS",
    help="Wait so long for the store, the mountpoint and the mount's answer; then give up.",
)
@click.option("-f", "--foreground", is_flag=True, help="Stay, and log to stderr; Ctrl-C unmounts.")
@click.option("-v", "--verbose", is_flag=True, help="Log more: --log-level debug.")
@json_option
@pass_frame
def mount(
    frame: Frame,
    mountpoint: Path,
    read_only: bool,
    allow_other: bool,
    default_permissions: bool | None,
    uid: int | None,
    gid: int | None,
    umask: int | None,
    more: tuple[str, ...],
    cache_size: int | None,
    log: Path | None,
    log_level: str | None,
    log_format: str | None,
    wait: float | None,
    foreground: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Show the store as directories and files.

    At MOUNTPOINT, an empty directory. Returns when the mount answers. A dead mount, left there by a daemon that died,
    is taken away first.

    \b
    Examples:
      volfs mount ~/mnt
      volfs --store /data/store mount /srv/volfs --allow-other --cache-size 8G
    """
    from volfs.fuse.fstab import parse_options
    from volfs.fuse.processes import MountOptions

    store = frame.store_path()
    catalog = frame.catalog.absolute() if frame.catalog else None
    parsed = parse_options(",".join(more), MountOptions(catalog=catalog, dead_after=frame.dead_after))
    say_unknown(parsed.unknown)
    given: dict[str, Any] = {
        "read_only": read_only or frame.read_only or None,
        "allow_other": allow_other or None,
        "default_permissions": default_permissions,
        "uid": uid,
        "gid": gid,
        "umask": umask,
        "cache_size": cache_size,
        "log": str(log.absolute()) if log else None,
        "log_level": log_level or ("debug" if verbose else None),
        "log_format": log_format,
    }
    # What is not given on the command line stays as -o has it.
    options = replace(parsed.options, **{name: value for name, value in given.items() if value is not None})
    run(store, mountpoint, options, wait or parsed.wait, foreground or parsed.foreground, as_json)


def run(
    store: Path, mountpoint: Path, options: MountOptions, wait: float | None, foreground: bool, as_json: bool = False
) -> None:
    """Mount, and say what a person should know of it."""
    from volfs.fuse import launcher
    from volfs.fuse.processes import default_log
    from volfs.storage.mount_table import canonical

    patience = math.inf if wait is None else launcher.wait_for(store, mountpoint, wait)
    if foreground:
        launcher.mount_in_foreground(store, mountpoint, options, say=_say)
    process = launcher.mount(store, mountpoint, options, patience=patience, on_slow=_say_slow, say=_say)
    if as_json:
        place = canonical(mountpoint)
        log_file = options.log or str(default_log(place))
        say_json({"mountpoint": place, "store": store.absolute(), "pid": process.pid, "log": log_file})


def say_unknown(words: tuple[str, ...]) -> None:
    """An unknown option is no reason to leave a machine without its mounts at boot; a word about it may find a typo."""
    if words:
        _say(f"not known, and without effect: {', '.join(words)}")


def _say(sentence: str) -> None:
    click.echo(f"volfs: {sentence}", err=True)


def _say_slow(log: Path) -> None:
    _say(f"still opening the store; the daemon logs to {log}")


@click.command()
@click.argument("mountpoint", callback=path_value)
@click.option("--force", is_flag=True, help="Even while programs use it; they get errors.")
def umount(mountpoint: Path, force: bool) -> None:
    """Unmount; mends a broken mount, too.

    Waits until the daemon has closed its store.

    \b
    Examples:
      volfs umount ~/mnt
    """
    from volfs.fuse.launcher import unmount

    unmount(mountpoint, force=force, say=_say)
