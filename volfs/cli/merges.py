"""``merge``, ``cherry-pick``, ``revert``, ``rebase``, ``restore``, ``mv``, ``resolve``: versions made of others.

They do the same whether the branch is mounted or not: a mount that writes to it is asked to do it, by the branch
itself (:mod:`volfs.versions.branch`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from volfs.cli.commits import branch_meant
from volfs.cli.frame import (
    Frame,
    count_text,
    json_option,
    parse_dataset_arg,
    pass_frame,
    progress,
    say,
    say_json,
    version_facts,
)

if TYPE_CHECKING:
    from volfs.versions.combine.decisions import Side
    from volfs.versions.combine.merges import Combined
    from volfs.versions.combine.requests import RequestKind

_WINS = "decide conflicts: all of them, or those at and below a key (zarr/s0), or within a box (z0-9_y0-64_x0-64)."

Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class _Decisions:
    """What a command that may meet conflicts is told of them beforehand."""

    ours: tuple[str, ...] = ()
    theirs: tuple[str, ...] = ()
    strict: bool = False
    relabel: bool = False
    no_ids: bool = False

    @property
    def orders(self) -> list[tuple[Side, str]]:
        """Who wins, and at what key or in what box; "" for everything."""
        return [*(("ours", text) for text in self.ours), *(("theirs", text) for text in self.theirs)]

    @property
    def flags(self) -> list[str]:
        return _given({"--strict": self.strict, "--relabel": self.relabel, "--no-ids": self.no_ids})


def _given(flags: Mapping[str, bool]) -> list[str]:
    return [name for name, given in flags.items() if given]


def _deciding(wrapped: Command) -> Command:
    """Options for conflicts; the command gets them as one value, ``decisions``."""

    @wraps(wrapped)
    def command(
        *args: Any,
        ours: tuple[str, ...],
        theirs: tuple[str, ...],
        strict: bool,
        relabel: bool,
        no_ids: bool,
        **others: Any,
    ) -> Any:
        return wrapped(*args, decisions=_Decisions(ours, theirs, strict, relabel, no_ids), **others)

    for option in reversed(
        (
            click.option(
                "--ours",
                "ours",
                multiple=True,
                is_flag=False,
                flag_value="",
                metavar="[KEY|BOX]",
                help=f"What the branch has wins: {_WINS} Repeatable.",
            ),
            click.option(
                "--theirs",
                "theirs",
                multiple=True,
                is_flag=False,
                flag_value="",
                metavar="[KEY|BOX]",
                help="What REF has wins, in the same way.",
            ),
            click.option("--strict", is_flag=True, help="A chunk or file that both sides changed is a conflict."),
            click.option("--relabel", is_flag=True, help="Where both made labels of one id, theirs gets a fresh one."),
            click.option("--no-ids", is_flag=True, help="Do not look for ids that both have given to new labels."),
        )
    ):
        command = option(command)
    return command


_on = click.option(
    "--on", metavar="BRANCH", help="Put the outcome on a new branch, with its conflicts open for `resolve`."
)


def _versioned(message: str) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(
            (
                click.option(*message.split(), help="The new version's message; else one that says what was done."),
                click.option("--author", help="Who makes the version; else VOLFS_AUTHOR, else user@host."),
                json_option,
            )
        ):
            command = option(command)
        return command

    return add


@click.command()
@click.argument("target", metavar="DATASET[@INTO]")
@click.argument("refs", metavar="REF...", nargs=-1, required=True)
@click.option("--no-ff", is_flag=True, help="Make a version even where the branch could just move forward.")
@click.option("--squash", is_flag=True, help="Make a version with the branch's head as its only parent.")
@click.option("--newest", is_flag=True, help="Each chunk and file from the highest version that changed it; any REFs.")
@_deciding
@_on
@click.option("--allow-unrelated", is_flag=True, help="Merge versions that have no version in common.")
@_versioned("-m --message")
@pass_frame
@click.pass_context
def merge(
    ctx: click.Context,
    frame: Frame,
    target: str,
    refs: tuple[str, ...],
    no_ff: bool,
    squash: bool,
    newest: bool,
    decisions: _Decisions,
    on: str | None,
    allow_unrelated: bool,
    message: str | None,
    author: str | None,
    as_json: bool,
) -> None:
    """Merge a version into a branch.

    REF is merged into INTO, or into DATASET's default branch. Chunks and files that one side alone has changed are
    taken over without a copy; chunks that both have changed are merged voxel by voxel, metadata by key, text files by
    line. What both have changed, each in another way, is a conflict: it is listed, nothing is changed, and the exit
    status is 1. Where the branch has nothing that REF lacks, it just moves forward.

    \b
    Examples:
      volfs merge cells exp
      volfs merge cells@exp main --theirs files/notes.txt
      volfs merge cells exp --ours -m "Take what is new in exp"
      volfs merge cells exp --on merging
      volfs merge cells part1 part2 part3 --newest
    """
    flags = _given({"--no-ff": no_ff, "--squash": squash, "--newest": newest, "--allow-unrelated": allow_unrelated})
    values = (("--message", message), ("--author", author), ("--on", on))
    _carry_out(ctx, frame, target, "merge", refs, as_json, decisions=decisions, flags=flags, values=values)


@click.command()
@click.argument("target", metavar="DATASET[@ON]")
@click.argument("ref")
@click.option("-m", "--mainline", metavar="N", help="Of a merge: from which of its parents, counted from 1.")
@_deciding
@_on
@_versioned("--message")
@pass_frame
@click.pass_context
def cherry_pick(
    ctx: click.Context,
    frame: Frame,
    target: str,
    ref: str,
    mainline: str | None,
    decisions: _Decisions,
    on: str | None,
    message: str | None,
    author: str | None,
    as_json: bool,
) -> None:
    """Make the changes of one version once more, on a branch.

    REF's changes are those to its first parent. Conflicts are as for merge. Its author and message stay, and the
    message says where it was picked from.

    \b
    Examples:
      volfs cherry-pick cells v7
      volfs cherry-pick cells@exp v7 --theirs
      volfs cherry-pick cells v7 --on picking
    """
    values = (("--mainline", mainline), ("--message", message), ("--author", author), ("--on", on))
    _carry_out(ctx, frame, target, "cherry-pick", (ref,), as_json, decisions=decisions, values=values)


@click.command()
@click.argument("target", metavar="DATASET[@ON]")
@click.argument("ref")
@click.option("-m", "--mainline", metavar="N", help="Of a merge: from which of its parents, counted from 1.")
@_deciding
@_on
@_versioned("--message")
@pass_frame
@click.pass_context
def revert(
    ctx: click.Context,
    frame: Frame,
    target: str,
    ref: str,
    mainline: str | None,
    decisions: _Decisions,
    on: str | None,
    message: str | None,
    author: str | None,
    as_json: bool,
) -> None:
    """Take back the changes of one version, by a new version.

    History stays. What was changed again since is a conflict, as for merge.

    \b
    Examples:
      volfs revert cells v7
      volfs revert cells@exp v9 -m 1
    """
    values = (("--mainline", mainline), ("--message", message), ("--author", author), ("--on", on))
    _carry_out(ctx, frame, target, "revert", (ref,), as_json, decisions=decisions, values=values)


@click.command()
@click.argument("target", metavar="DATASET[@ON]")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@click.option("--from", "source", metavar="REF", required=True, help="The version that has what is wanted.")
@click.option("--box", metavar="BOX", help="These voxels alone: z10-40_y0-64_x128-192, first and one after the last.")
@_versioned("-m --message")
@pass_frame
@click.pass_context
def restore(
    ctx: click.Context,
    frame: Frame,
    target: str,
    keys: tuple[str, ...],
    source: str,
    box: str | None,
    message: str | None,
    author: str | None,
    as_json: bool,
) -> None:
    """Give keys the content that they have in another version.

    A KEY is a file, a directory or an array: files/notes.txt, zarr/labels/nuclei. Unlike git's, it makes a version:
    by reference, so restoring a terabyte copies nothing. A BOX that cuts chunks writes those.

    \b
    Examples:
      volfs restore cells zarr/labels/nuclei --from v3
      volfs restore cells@exp zarr/s0 --from main --box z10-40_y0-64_x128-192
    """
    values = (("--from", source), ("--box", box), ("--message", message), ("--author", author))
    _carry_out(ctx, frame, target, "restore", keys, as_json, values=values)


@click.command()
@click.argument("target", metavar="DATASET@BRANCH")
@click.argument("onto")
@_deciding
@_on
@json_option
@pass_frame
@click.pass_context
def rebase(
    ctx: click.Context,
    frame: Frame,
    target: str,
    onto: str,
    decisions: _Decisions,
    on: str | None,
    as_json: bool,
) -> None:
    """Make a branch's versions once more, on top of another.

    Those that ONTO lacks, each in turn, with their messages and authors. All or nothing: the branch moves once, at the
    end. Here ours is what ONTO and the versions made so far have, theirs the version that is made once more. With --on
    the branch stays, and a new one gets them; its newest version leaves all conflicts open.

    \b
    Examples:
      volfs rebase cells@exp main
      volfs rebase cells@exp v12 --theirs
      volfs rebase cells@exp main --on rebased
    """
    _carry_out(ctx, frame, target, "rebase", (onto,), as_json, decisions=decisions, values=(("--on", on),))


@click.command()
@click.argument("target", metavar="DATASET[@ON]")
@click.argument("old")
@click.argument("new")
@_versioned("-m --message")
@pass_frame
@click.pass_context
def mv(
    ctx: click.Context,
    frame: Frame,
    target: str,
    old: str,
    new: str,
    message: str | None,
    author: str | None,
    as_json: bool,
) -> None:
    """Give a node, or a side file, another name.

    OLD and NEW are keys: zarr/labels/nuclei, files/notes.txt. It makes a version, by reference: nothing is copied.
    Lists in metadata that name the node follow, such as those of label images.

    \b
    Examples:
      volfs mv cells zarr/labels/nuclei zarr/labels/old-nuclei
      volfs mv cells@exp files/notes.txt files/notes/first.txt
    """
    _carry_out(ctx, frame, target, "mv", (old, new), as_json, values=(("--message", message), ("--author", author)))


@click.command()
@click.argument("target", metavar="DATASET@BRANCH")
@click.argument("choice", type=click.Choice(["ours", "theirs", "base", "mine"]))
@click.argument("chosen", metavar="[KEY|BOX]...", nargs=-1)
@json_option
@pass_frame
@click.pass_context
def resolve(ctx: click.Context, frame: Frame, target: str, choice: str, chosen: tuple[str, ...], as_json: bool) -> None:
    """Close conflicts that were left open.

    BRANCH is one that --on of merge, cherry-pick, revert or rebase has made. What is in conflict, or at and below KEY,
    or within BOX, becomes what ours, theirs or their base has; mine: it stays as the branch has it now, mended by hand
    and committed. Without KEY or BOX all of it is decided. Exit status 1 while some is open.

    \b
    Examples:
      volfs resolve cells@merging theirs z10-40_y0-64_x128-192
      volfs resolve cells@merging mine files/notes.txt
      volfs resolve cells@merging ours
    """
    _carry_out(ctx, frame, target, "resolve", (choice, *chosen), as_json)


def _carry_out(
    ctx: click.Context,
    frame: Frame,
    target: str,
    kind: RequestKind,
    positional: Sequence[str],
    as_json: bool,
    *,
    decisions: _Decisions = _Decisions(),
    flags: Sequence[str] = (),
    values: Sequence[tuple[str, str | None]] = (),
) -> None:
    from volfs.versions.combine.requests import words_of

    words = words_of(
        positional,
        orders=decisions.orders,
        flags=[*flags, *decisions.flags],
        values=values,
    )
    with frame.open() as store:
        branch = branch_meant(store, parse_dataset_arg(target))
        with progress(kind, show=not as_json) as report:
            found = branch.combine(kind, words, report)
    _say(found, as_json)
    if found.conflicts:
        what = count_text(len(found.conflicts), "conflict")
        say(f"volfs: {what}: nothing was changed; decide with --ours or --theirs, for all or by key or box", err=True)
        ctx.exit(1)
    if found.left_open:
        ref = found.version.number if found.version is not None else 0
        what = count_text(len(found.left_open), "conflict")
        say(f"volfs: {what} open in v{ref}: mend them there, or say `volfs resolve`", err=True)
        ctx.exit(1)


def _say(found: Combined, as_json: bool) -> None:
    if as_json:
        say_json(
            {
                "version": None if found.version is None else version_facts(found.version),
                "made": found.made,
                "conflicts": [each.to_json() for each in found.conflicts],
                "open": [each.to_json() for each in found.left_open],
                "notes": list(found.notes),
            }
        )
        return
    for conflict in (*found.conflicts, *found.left_open):
        say(str(conflict))
    for note in found.notes:
        say(f"volfs: {note}", err=True)
    if found.version is not None and not found.conflicts:
        say(f"v{found.version.number}  {found.version.message.partition(chr(10))[0]}")
