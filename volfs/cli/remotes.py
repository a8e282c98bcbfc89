"""``clone``, ``fetch``, ``pull``, ``push``: other stores of the same dataset; ``serve-stdio`` the served end."""

from __future__ import annotations

import os
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


@click.command()
@click.argument("source", metavar="SRC[/DATASET]")
@click.argument("destination", metavar="[DEST]", required=False, callback=path_value)
@json_option
@pass_frame
def clone(frame: Frame, source: str, destination: Path | None, as_json: bool) -> None:
    """Copy datasets of another store, with their history.

    SRC is a path or ssh://host/path. They go into the store DEST, which is made if there is none; else into that of
    --store; else into a directory called as SRC. Each keeps its id and its name, and has SRC as its remote origin. What
    was cut short goes on when the same is asked for again.

    \b
    Examples:
      volfs clone /data/store mine
      volfs clone ssh://lab/data/store/cells
    """
    import volfs
    from volfs.versions.remotes.address import Address

    place = destination or frame.store or Path(Address.parse(source).name)
    with progress("cloning", in_bytes=True, show=not as_json) as tell:
        done = volfs.clone(source, place, catalog=frame.catalog, progress=tell)
    if as_json:
        say_json({"store": place.absolute(), "datasets": {name: _facts(each) for name, each in done.items()}})
        return
    for name, each in done.items():
        say(f"{name}: {_sizes(each)} into {place}")


@click.command()
@click.argument("dataset")
@click.argument("remote", default=_REMOTE)
@click.argument("refs", nargs=-1, metavar="[REF]...")
@json_option
@pass_frame
def fetch(frame: Frame, dataset: str, remote: str, refs: tuple[str, ...], as_json: bool) -> None:
    """Bring in what is new at a remote; no branch moves.

    Of all branches and tags of REMOTE (origin, unless named), or of each REF. Its branches are then refs here, such as
    origin/main; ours stay where they are.

    \b
    Examples:
      volfs fetch cells
      volfs fetch cells lab main paper
    """
    with frame.open() as store, progress("fetching", in_bytes=True, show=not as_json) as tell:
        done = store[dataset].fetch(remote, refs, progress=tell)
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
    pull first.

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
    say(_sizes(done) if done.changes or done.versions else "nothing is new")


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
    return {"remote": done.remote, "versions": done.versions, "bytes": done.bytes, "refs": refs}


def _sizes(done: Exchange) -> str:
    return f"{count_text(done.versions, 'version')}, {size_text(done.bytes)}"


def _version(number: int) -> str:
    return f"v{number}" if number else "no version"
