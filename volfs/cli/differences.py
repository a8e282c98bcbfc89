"""``diff``: what differs between two versions, or between one and what is uncommitted."""

from __future__ import annotations

import click

from volfs.cli.frame import Frame, json_option, parse_dataset_arg, pass_frame, progress, say, say_json
from volfs.errors import BadInput


@click.command()
@click.argument("target", metavar="DATASET[@BRANCH]")
@click.argument("a", metavar="[A]", required=False)
@click.argument("b", metavar="[B]", required=False)
@click.option("--stat", is_flag=True, help="Count keys and chunks only: no voxel is decoded.")
@click.option("--exit-code", is_flag=True, help="Exit status 1 if anything differs.")
@json_option
@pass_frame
@click.pass_context
def diff(
    context: click.Context,
    frame: Frame,
    target: str,
    a: str | None,
    b: str | None,
    stat: bool,
    exit_code: bool,
    as_json: bool,
) -> None:
    """Tell what differs between two versions.

    With A and B, refs, between these; with A alone between it and the uncommitted changes of the default branch, or of
    BRANCH; without both between the branch's head and its uncommitted changes. Of arrays it tells chunks, voxels, the
    box around them, and how large differences are; of label images how many voxels went from which label to which; of
    side files the lines.

    \b
    Examples:
      volfs diff cells
      volfs diff cells v3 v5 --stat
      volfs diff cells@exp main --json
    """
    from volfs.versions.diff_report import facts_of, lines_of

    argument = parse_dataset_arg(target)
    if argument.spec.path or argument.key is not None:
        raise BadInput(f"{target}: diff compares whole versions: name DATASET or DATASET@BRANCH")
    with frame.open(read_only=True) as store:
        dataset = store[argument.spec.dataset]
        if argument.spec.ref is not None and b is not None:
            raise click.UsageError("give a BRANCH for its uncommitted changes, or A and B, not both")
        found = dataset.diff(a, b, branch=argument.spec.ref)
        facts, unreadable = [], []
        for each in found:
            with progress(f"diff {each.key}", show=not stat) as report:
                one = facts_of(each, stat=stat, progress=report)
            facts.append(one)
            unreadable += [f"{each.key} chunk {at}: {why}" for at, why in one.pop("unreadable", {}).items()]
            if not as_json:
                for line in lines_of(one, stat=stat):
                    say(line)
    if as_json:
        say_json(facts)
    for why in unreadable:
        say(f"volfs: {why}", err=True)
    if unreadable or (exit_code and facts):
        context.exit(1)
