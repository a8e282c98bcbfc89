"""``init``, ``create`` and ``fsck``: stores as a whole, and what is in one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from volfs.cli.frame import Frame, count_text, json_option, pass_frame, path_value, progress, say, say_json
from volfs.errors import ReadOnly

if TYPE_CHECKING:
    from volfs.versions.store import Store


@click.command()
@click.argument("directory", required=False, callback=path_value)
@json_option
@pass_frame
def init(frame: Frame, directory: Path | None, as_json: bool) -> None:
    """Make an empty store.

    At DIRECTORY, or where --store says.

    \b
    Examples:
      volfs init /data/store
      volfs --store /net/store --catalog ~/store.sqlite init
    """
    import volfs

    path = directory or frame.store_path()
    if frame.read_only:
        raise ReadOnly(f"{path} is not made: --read-only")
    with volfs.init_store(path, catalog=frame.catalog) as store:
        if as_json:
            say_json({"store": path.absolute(), "id": store.id})
        else:
            click.echo(f"an empty store at {path}")


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--author", help="Who makes it; else VOLFS_AUTHOR, else user@host.")
@json_option
@pass_frame
def create(frame: Frame, names: tuple[str, ...], author: str | None, as_json: bool) -> None:
    """Make a dataset that is empty, to be filled by files.

    Its branch main is at v1, in which nothing is. `mkdir` in the root of a mount does the same, and `rmdir` takes away
    a dataset that still is empty. `volfs import` needs no dataset to be there.

    \b
    Examples:
      volfs create scope
      volfs --store /data/store create scope plates
    """
    from volfs.versions.first_version import begin

    with frame.open() as store:
        made = [begin(store, name, author) for name in names]
    if as_json:
        say_json([{"name": dataset.name, "id": dataset.uuid} for dataset in made])
    else:
        for dataset in made:
            say(f"{dataset.name}: v1, empty")


@click.command()
@click.argument("datasets", nargs=-1, metavar="[DATASET]...")
@click.option("--rebuild-catalog", is_flag=True, help="First make the index anew from what the store holds.")
@click.option("--repair", is_flag=True, help="First bring back lost bytes, from the store that --from names.")
@click.option("--from", "source", metavar="REMOTE", help="A remote of the datasets, a path, or ssh://host/path.")
@json_option
@pass_frame
@click.pass_context
def fsck(
    ctx: click.Context,
    frame: Frame,
    datasets: tuple[str, ...],
    rebuild_catalog: bool,
    repair: bool,
    source: str | None,
    as_json: bool,
) -> None:
    """Check that all of a store can be read.

    Reads and decodes everything, and says what is wrong where; exit status 1 if anything is. A catalog, or a table of
    inodes, that cannot be used for the store is set aside by --rebuild-catalog, whatever it is, and made anew.

    --repair --from REMOTE mends what was committed and cannot be read any more, with the bytes that another store of
    the dataset has: proved by their SHA-256, and nothing else is written.

    \b
    Examples:
      volfs fsck
      volfs fsck cells --json
      volfs fsck --rebuild-catalog
      volfs fsck cells --repair --from origin
    """
    from volfs.versions.check.fsck import fsck as check

    if rebuild_catalog and frame.read_only:
        raise click.UsageError("--rebuild-catalog writes to the store: not with --read-only")
    if rebuild_catalog:
        from volfs.versions.store import set_aside_damaged

        for aside in set_aside_damaged(frame.store_path(), catalog=frame.catalog):
            say(f"volfs: what was not the catalog of this store is set aside as {aside}", err=True)
    if repair != (source is not None):
        raise click.UsageError("--repair and --from REMOTE go together")
    with frame.open() as store, progress("checking", in_bytes=True, show=not as_json) as tell:
        if source is not None:
            _repair(store, datasets or tuple(store.datasets()), source, as_json)
        report = check(store, datasets=datasets or None, rebuild_catalog=rebuild_catalog, progress=tell)
    if as_json:
        say_json(asdict(report))
    else:
        for finding in report.findings:
            click.echo(f"{finding.dataset}: {finding.where}: {finding.what}")
        if not report.findings:
            absent = f"; {count_text(report.absent, 'payload')} absent, which is not lost" if report.absent else ""
            click.echo(f"nothing is wrong{absent}")
    if report.findings:
        ctx.exit(1)


def _repair(store: Store, datasets: tuple[str, ...], source: str, as_json: bool) -> None:
    """Mend datasets, and say what was mended."""
    with progress("mending", show=not as_json) as tell:
        for name in datasets:
            done = store[name].repair(source, progress=tell)
            left = f", {count_text(done.left, 'payload')} of it not there either" if done.left else ""
            if done.payloads or done.left:
                say(f"{name}: {count_text(done.payloads, 'payload')} mended from {source}{left}", err=True)
