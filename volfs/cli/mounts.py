"""``mount`` and ``umount``. What they do is in :mod:`volfs.fuse.mounting`."""

from __future__ import annotations

from pathlib import Path

import click

from volfs.cli.common import Frame, json_option, pass_frame, path_value, say_json, size_value


@click.command()
@click.argument("mountpoint", callback=path_value)
@click.option("-r", "--read-only", is_flag=True, help="Nothing can be changed through this mount.")
@click.option("--allow-other", is_flag=True, help="Let other users in, held to owner and mode of each file.")
@click.option("--cache-size", callback=size_value, metavar="SIZE", help="Memory for decoded voxels, such as 4G.")
@click.option("--log", callback=path_value, metavar="FILE", help="Where the daemon logs.")
@click.option("-f", "--foreground", is_flag=True, help="Stay, and log to stderr; Ctrl-C unmounts.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@json_option
@pass_frame
def mount(
    frame: Frame,
    mountpoint: Path,
    read_only: bool,
    allow_other: bool,
    cache_size: int | None,
    log: Path | None,
    foreground: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Show the store at MOUNTPOINT, an empty directory. Returns when the mount answers."""
    from volfs.fuse import mounting
    from volfs.fuse.mountpoints import canonical
    from volfs.fuse.processes import MountOptions, default_log

    options = MountOptions(
        read_only=read_only,
        allow_other=allow_other,
        cache_size=cache_size,
        log=str(log.absolute()) if log else None,
        catalog=frame.catalog.absolute() if frame.catalog else None,
        verbose=verbose,
    )
    store = frame.store_path()
    if foreground:
        mounting.mount_in_foreground(store, mountpoint, options)
    process = mounting.mount(store, mountpoint, options, on_slow=_say_slow)
    place = canonical(mountpoint)
    if as_json:
        log_file = options.log or str(default_log(place))
        say_json({"mountpoint": place, "store": store.absolute(), "pid": process.pid, "log": log_file})


def _say_slow(log: Path) -> None:
    click.echo(f"volfs: still opening the store; the daemon logs to {log}", err=True)


@click.command()
@click.argument("mountpoint", callback=path_value)
@click.option("--force", is_flag=True, help="Even while programs use it; they get errors.")
def umount(mountpoint: Path, force: bool) -> None:
    """Unmount, and wait until the daemon has closed its store. Mends a broken mount, too."""
    from volfs.fuse.mounting import unmount

    unmount(mountpoint, force=force)
