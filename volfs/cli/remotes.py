"""``clone``, ``fetch``, ``pull``, ``push``: other stores of the same dataset; ``serve-stdio`` the served end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volfs.cli.frame import (
    Frame,
    count_text,
    json_option,
    parse_dataset_arg,
    pass_frame,
    path_value,
    progress,
    say,
    say_json,
    size_text,
)

if TYPE_CHECKING:
    from volfs.versions.remotes.exchange import Exchange

_REMOTE = "origin"


def _part_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which part of a dataset is wanted."""
    options = [
        click.option("--depth", type=int, metavar="N", help="Of each branch and tag N versions, with all they show."),
        click.option(
            "--since",
            metavar="TIME",
            help="Versions from TIME on: 2026-11-01, 2026-11-01T12:00 (UTC), or an age as 7d.",
        ),
        click.option("--levels", metavar="LEVELS", help="Of images these levels: s2- (s2 and coarser), s0-s1, or s3."),
        click.option("--box", metavar="BOX", help="Of arrays the chunks in z0-64_y100-612, in voxels of s0."),
        click.option(
            "--path",
            "paths",
            multiple=True,
            metavar="PATH",
            help="A node or key, such as labels or files/a; repeatable.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("source", metavar="SRC[/DATASET]")
@click.argument("destination", metavar="[DEST]", required=False, callback=path_value)
@click.option("--ref", "refs", multiple=True, metavar="REF", help="Only this branch or tag of SRC; repeatable.")
@_part_options
@json_option
@pass_frame
def clone(
    frame: Frame, /, source: str, destination: Path | None, refs: tuple[str, ...], as_json: bool, **part: Any
) -> None:
    """Copy datasets of another store, with their history.

    SRC is a path or ssh://host/path. They go into the store DEST, which is made if there is none; else into that of
    --store; else into a directory called as SRC. Each keeps its id and its name, and has SRC as its remote origin. What
    was cut short goes on when the same is asked for again.

    --depth, --since, --levels, --box and --path make a partial clone: of what they leave out (all of them must hold)
    names, sizes and history are there, and reading it is an error that says how to fetch it.

    \b
    Examples:
      volfs clone /data/store mine
      volfs clone ssh://lab/data/store/cells
      volfs clone ssh://lab/data/store/cells small --levels s2- --depth 1
    """
    import volfs
    from volfs.versions.remotes.address import Address

    place = destination or frame.store or Path(Address.parse(source).name)
    with progress("cloning", in_bytes=True, show=not as_json) as tell:
        done = volfs.clone(source, place, refs=refs, **part, catalog=frame.catalog, progress=tell)
    if as_json:
        say_json({"store": place.absolute(), "datasets": {name: _facts(each) for name, each in done.items()}})
        return
    for name, each in done.items():
        say(f"{name}: {_sizes(each)} into {place}")


@click.command()
@click.argument("dataset")
@click.argument("remote", default=_REMOTE)
@click.argument("refs", nargs=-1, metavar="[REF]...")
@_part_options
@click.option("--deepen", type=int, metavar="N", help="N versions more of each branch and tag than --depth said.")
@click.option("--whole", is_flag=True, help="All that was left out: the clone is partial no more.")
@json_option
@pass_frame
def fetch(
    frame: Frame,
    /,
    dataset: str,
    remote: str,
    refs: tuple[str, ...],
    deepen: int | None,
    whole: bool,
    as_json: bool,
    **part: Any,
) -> None:
    """Bring in what is new at a remote; no branch moves.

    Of all branches and tags of REMOTE (origin, unless named), or of each REF. Its branches are then refs here, such as
    origin/main; ours stay where they are.

    Into a partial clone come the parts that it was made of (`volfs config` shows them). --depth, --since, --levels,
    --box and --path name one more part, which is kept as well from then on.

    \b
    Examples:
      volfs fetch cells
      volfs fetch cells lab main paper
      volfs fetch cells --path s0 --box z0-64_y100-612
    """
    with frame.open() as store, progress("fetching", in_bytes=True, show=not as_json) as tell:
        done = store[dataset].fetch(remote, refs, **part, deepen=deepen, whole=whole, progress=tell)
    _say(done, as_json)


@click.command()
@click.argument("target", metavar="DATASET[@BRANCH]")
@click.argument("remote", default=_REMOTE)
@json_option
@pass_frame
def pull(frame: Frame, target: str, remote: str, as_json: bool) -> None:
    """Fetch a branch from a remote, and merge it into ours.

    The default branch unless one is named, and the remote origin. If ours has no versions of its own it just moves
    forward. If both changed the same nothing moves, and what was fetched is there as origin/BRANCH. Uncommitted changes
    stay; if they touch what would move, nothing does.

    \b
    Examples:
      volfs pull cells
      volfs pull cells@exp lab
    """
    spec = parse_dataset_arg(target).spec
    with frame.open() as store, progress("pulling", in_bytes=True, show=not as_json) as tell:
        done = store[spec.dataset].pull(remote, spec.ref, progress=tell)
    _say(done, as_json)


@click.command()
@click.argument("dataset")
@click.argument("remote", default=_REMOTE)
@click.argument("refs", nargs=-1, metavar="[REF]...")
@click.option(
    "--force-with-lease",
    is_flag=True,
    help="Replace what a branch is at REMOTE, if it still is what was fetched or pushed last.",
)
@json_option
@pass_frame
def push(frame: Frame, dataset: str, remote: str, refs: tuple[str, ...], force_with_lease: bool, as_json: bool) -> None:
    """Have a remote's branches and tags stand where ours do.

    The default branch, or each REF. A branch that has versions there which ours has not is refused, and nothing moves:
    pull first. A store that lacks the dataset gets it.

    \b
    Examples:
      volfs push cells
      volfs push cells lab exp paper
    """
    with frame.open() as store, progress("pushing", in_bytes=True, show=not as_json) as tell:
        done = store[dataset].push(remote, refs, force_with_lease=force_with_lease, progress=tell)
    _say(done, as_json)


@click.command("serve-stdio")
@click.argument("path", callback=path_value)
@pass_frame
def serve_stdio(frame: Frame, path: Path) -> None:
    """Serve a store over standard input and output.

    PATH is a store or a dataset in one. Run by clone, fetch, pull and push of another volfs, over ssh where its address
    says so; not by people.

    \b
    Examples:
      volfs serve-stdio /data/store
    """
    import volfs
    from volfs.storage.claim import DAY_SECONDS
    from volfs.versions.remotes.message_frames import Frames
    from volfs.versions.remotes.server import serve

    outgoing = os.dup(1)
    os.dup2(2, 1)  # whatever is printed goes elsewhere than into the stream
    dead_after = DAY_SECONDS if frame.dead_after is None else frame.dead_after
    serve(
        Frames(0, outgoing, "the other end"),
        Path(os.path.abspath(path)),
        lambda root, read_only: volfs.open_store(root, read_only=read_only, dead_after=dead_after),
    )


def _say(done: Exchange, as_json: bool) -> None:
    if as_json:
        say_json(_facts(done))
        return
    for change in done.changes:
        moved = f"{_version(change.before)} → {_version(change.after)}" if change.before else _version(change.after)
        say(f"{change.name}: {moved}" if change.why is None else f"{change.name}: left as it is: {change.why}")
    if done.lacking:
        say(f"volfs: {count_text(done.lacking, 'payload')} that {done.remote} does not have either", err=True)
    if done.made:
        say(f"{done.remote} did not have this dataset: it was made there")
    new = done.changes or done.versions or done.payloads or done.notes
    say(_sizes(done) if new else "nothing is new")


def _facts(done: Exchange) -> dict[str, Any]:
    refs = [
        {
            "kind": change.kind.word,
            "name": change.name,
            "before": _version(change.before) if change.before else None,
            "after": _version(change.after) if change.after else None,
            "refused": change.why,
        }
        for change in done.changes
    ]
    came = {name: getattr(done, name) for name in ("versions", "payloads", "lacking", "notes", "bytes", "made")}
    return {"remote": done.remote, **came, "refs": refs}


def _sizes(done: Exchange) -> str:
    parts = f"{count_text(done.payloads, 'payload')}, " if done.payloads else ""
    parts += f"{count_text(done.notes, 'note')}, " if done.notes else ""
    return f"{count_text(done.versions, 'version')}, {parts}{size_text(done.bytes)}"


def _version(number: int) -> str:
    return f"v{number}" if number else "no version"
