"""``demo``: builds the demonstration store (:mod:`volfs.ingest.demo_store`), and says what to try."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import click

from volfs.cli.frame import json_option, path_value, say_json

_TRY = """
Try, in another terminal or a file manager:
  ls {mnt}/cells/versions/latest
  xdg-open {mnt}/cells/versions/latest/s0/xy/z00032.png
  cp {mnt}/cells/versions/v1/s0/xz/y00032.tif .
  cat {mnt}/cells/log.txt
  cat {mnt}/cells/branches/exp/.volfs/status.json
  cp {mnt}/cells/versions/v1/s0/xy/z00000.png {mnt}/cells/branches/main/s0/xy/z00001.png
  echo "Copied a slice" > {mnt}/cells/branches/main/.volfs/commit
The same by command:
  export VOLFS_STORE={store}
  {volfs} info cells
  {volfs} log cells
  {volfs} status
Take it away again:
  {volfs} umount {mnt}
"""

_MOUNT = """
Mount it with:
  mkdir -p {mnt} && {volfs} --store {store} mount {mnt}
Look at it without:
  {volfs} --store {store} info cells
"""


@click.command()
@click.argument("directory", default="volfs-demo", callback=path_value, metavar="[DIR]")
@click.option("--mount", "mount_it", is_flag=True, help="Mount it, too, at DIR/mnt.")
@click.option("--edge", default=256, show_default=True, type=click.IntRange(64, 2048), help="Voxels along each edge.")
@json_option
def demo(directory: Path, mount_it: bool, edge: int, as_json: bool) -> None:
    """Build a store to try volfs with.

    In DIR: a made-up tissue, its segmentation, three versions and a branch. A store that is there already is kept as it
    is.

    \b
    Examples:
      volfs demo
      volfs demo ~/demo --mount
    """
    store, mountpoint = directory / "store", directory / "mnt"
    if not (store / "volfs.json").exists():
        _build(store, edge)
    mountpoint.mkdir(parents=True, exist_ok=True)
    mounted = _is_mounted(mountpoint)
    if mount_it and not mounted:
        from volfs.fuse.launcher import mount

        mount(store, mountpoint)
        mounted = True
    if as_json:
        say_json({"store": store.absolute(), "mountpoint": mountpoint.absolute(), "mounted": mounted})
    else:
        command = "volfs" if shutil.which("volfs") else str(Path(sys.executable).with_name("volfs"))
        words = {"volfs": command, "store": str(store), "mnt": str(mountpoint)}
        words = {name: shlex.quote(word) for name, word in words.items()}
        click.echo((_TRY if mounted else _MOUNT).format(**words).strip("\n"))


def _is_mounted(mountpoint: Path) -> bool:
    from volfs.storage.mount_table import mounted_at

    found = mounted_at(mountpoint)
    return found is not None and found.is_volfs


def _build(store: Path, edge: int) -> None:
    """In a draft that becomes the store when it is whole, so that an interrupted demo is begun anew."""
    import volfs
    from volfs.ingest.demo_store import build

    draft = store.with_name(f".{store.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    with volfs.init_store(draft) as opened:
        build(opened, edge, lambda step: click.echo(f"{step} …", err=not sys.stdout.isatty()))
    draft.rename(store)
