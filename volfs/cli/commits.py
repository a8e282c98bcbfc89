"""``status``, ``commit`` and ``discard``: the working copy of a branch.

They do the same whether the branch is mounted or not: a mount that writes to it is asked to do it, by the branch
itself (:mod:`volfs.versions.branch`).
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from volfs.cli.frame import (
    DatasetArg,
    Frame,
    confirm,
    count_text,
    json_option,
    parse_dataset_arg,
    pass_frame,
    say,
    say_json,
    say_table,
    size_text,
    time_text,
    version_facts,
    yes_option,
)
from volfs.errors import BadInput, Damaged, ReadOnly, VolfsError

if TYPE_CHECKING:
    from volfs.model.graph import VersionInfo
    from volfs.versions.branch import Branch
    from volfs.versions.commit.follower import Side
    from volfs.versions.store import Store
    from volfs.versions.working.status import Behind, Status


def branch_meant(store: Store, argument: DatasetArg) -> Branch:
    """The branch that the ref names, or the default branch."""
    dataset = store[argument.spec.dataset]
    return dataset.branch(argument.spec.ref or dataset.default_branch)


@click.command()
@click.argument("target", metavar="[DATASET[@BRANCH]]", required=False)
@json_option
@pass_frame
@click.pass_context
def status(ctx: click.Context, frame: Frame, target: str | None, as_json: bool) -> None:
    """Show what is not committed yet.

    And what stands in the way of a commit. Without DATASET, of every branch that has changes.

    \b
    Examples:
      volfs status
      volfs status cells@exp --json
    """
    failed = False
    with frame.open(read_only=True) as store:
        if target is not None:
            found = [(parse_dataset_arg(target).spec.dataset, branch_meant(store, parse_dataset_arg(target)).status())]
        else:
            found = []
            for name in store.datasets():
                try:
                    branches = list(store[name].branches())
                except VolfsError as error:  # it harms no other
                    say(f"volfs: {name}: {error}", err=True)
                    failed = True
                    continue
                for branch in branches:
                    try:
                        now = store[name].branch(branch).status()
                        if not now.clean or now.rejected:
                            found.append((name, now))
                    except VolfsError as error:
                        say(f"volfs: {name}@{branch}: {error}", err=True)
                        failed = True
        parts = {name: _parts_words(store, name) for name, _ in found}
    if as_json:
        answers = [{"dataset": name, **answer.to_json(), "partial": parts[name] or None} for name, answer in found]
        say_json(answers[0] if target is not None else answers)
        ctx.exit(1 if failed else 0)
    for name, answer in found:
        _show(name, answer, parts[name])
    if not found and not failed:
        click.echo("nothing is uncommitted")
    if failed:
        ctx.exit(1)


def _parts_words(store: Store, name: str) -> list[str]:
    """Which parts a partial clone has."""
    try:
        return store[name].clone_parts.words()
    except VolfsError as error:  # it harms no other
        say(f"volfs: {name}: {error}", err=True)
        return []


def _show(dataset: str, answer: Status, parts: list[str]) -> None:
    head = f"v{answer.head}" if answer.head else "no version yet"
    writer = f", written by {answer.writer}" if answer.writer else ""
    say(f"{dataset}@{answer.branch}: on {head}{writer}")
    for part in parts:
        say(f"  partial clone: {part}")
    if answer.clean:
        click.echo("  nothing to commit")
    if answer.behind is not None:
        _show_behind(dataset, answer.branch, answer.behind)
    rows = []
    for where, changed in answer.changes.items():
        removed = f"{changed.removed:,} removed" if changed.removed else ""
        rows.append((f"  {where}", f"{changed.put:,} put", removed, size_text(changed.bytes)))
    say_table(rows, right=(1, 2, 3))
    if answer.held:
        click.echo(f"  in the way of a commit, {count_text(len(answer.held), 'key')}:")
    for key, reason in answer.held[:20]:
        say(f"    {key}: {reason}")
    if len(answer.held) > 20:
        click.echo(f"    and {len(answer.held) - 20:,} more (--json lists them)")
    for key in answer.left_behind:
        say(f"  still being written, stays uncommitted: {key}")
    for staged in answer.staged:
        word = "refused" if staged.refused else "half written"
        say(f"  {word}, stays uncommitted, since {time_text(staged.since_ns)}: {staged.path}: {staged.reason}")
    for gone in answer.rejected:
        say(f"  refused and dropped, {time_text(gone.time_ns)}: {gone.path}: {gone.reason}")


def _show_behind(dataset: str, branch: str, behind: Behind) -> None:
    over = f"v{behind.base}" if behind.base else "no version"
    click.echo(f"  behind by {count_text(behind.versions, 'version')}: the changes lie over {over}")
    if not behind.keys:
        click.echo("  nothing is in the way: they follow with the next change")
        return
    click.echo(f"  changed here and there, {count_text(len(behind.keys), 'key')}:")
    for key in behind.keys[:20]:
        say(f"    {key}")
    if len(behind.keys) > 20:
        click.echo(f"    and {len(behind.keys) - 20:,} more (--json lists them)")
    click.echo(f"  decide: volfs update {dataset}@{branch} --ours or --theirs")


@click.command()
@click.argument("target", metavar="DATASET[@BRANCH]")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("-m", "--message", help="What changed and why; without it an editor asks.")
@click.option("--author", help="Who made the changes; else VOLFS_AUTHOR, else user@host.")
@click.option("--leave", multiple=True, metavar="KEY", help="A key or directory that stays uncommitted; repeatable.")
@click.option("--meta", multiple=True, metavar="NAME=VALUE", help="What else is said of the version; repeatable.")
@click.option("--amend", is_flag=True, help="Make the branch's newest version anew, with these changes in it.")
@json_option
@pass_frame
def commit(
    frame: Frame,
    target: str,
    keys: tuple[str, ...],
    message: str | None,
    author: str | None,
    leave: tuple[str, ...],
    meta: tuple[str, ...],
    amend: bool,
    as_json: bool,
) -> None:
    """Make a version of what was changed in a branch.

    BRANCH is the default branch if none is named. With KEYs (files, directories, arrays: zarr/labels/nuclei) only what
    is at and below them is committed, the rest stays uncommitted. --amend keeps the message unless another is given; it
    is refused if another branch or a tag has the version.

    \b
    Examples:
      volfs commit cells -m "Removed the artefact"
      volfs commit cells@exp --leave files/draft.txt
      volfs commit cells zarr/labels/nuclei -m "Nuclei corrected"
      volfs commit cells -m "Rescanned" --meta instrument=SBEM-2 --meta run=17
      volfs commit cells --amend
    """
    argument = parse_dataset_arg(target)
    from volfs.versions.commit_request import CommitRequest, settings_in

    said = settings_in(meta)
    if said and amend:
        raise click.UsageError("--amend keeps what is said of the version: no --meta with it")
    with frame.open() as store:
        branch = branch_meant(store, argument)
        if message is None and not amend:
            message = _ask_for_message(f"{branch.dataset.name}@{branch.ref}")
        info = branch.actions.commit_as_asked(CommitRequest(message, author, keys, leave, said, amend))
        left = branch.actions.last.left if branch.actions.last is not None else ()
    _say_version(info, as_json)
    for each in left:
        say(f"volfs: stays uncommitted: {each.path}: {each.reason}", err=True)


def _ask_for_message(what: str) -> str:
    if not sys.stdin.isatty():
        raise BadInput('a commit needs a message: --message "what changed"')
    written = click.edit(
        f"\n# What changed in {what}? Lines that begin with # are left out; nothing written, no commit.\n"
    )
    lines = [line for line in (written or "").splitlines() if not line.startswith("#")]
    message = "\n".join(lines).strip()
    if not message:
        raise BadInput("no message, no commit")
    return message


def _say_version(info: VersionInfo, as_json: bool) -> None:
    if as_json:
        say_json(version_facts(info))
    else:
        say(f"v{info.number}  {info.message.partition(chr(10))[0]}")


@click.command()
@click.argument("target", metavar="DATASET[@BRANCH]")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@yes_option
@pass_frame
def discard(frame: Frame, target: str, keys: tuple[str, ...], yes: bool) -> None:
    """Go back to the last version.

    Everywhere, or at and below each KEY (such as zarr/s0 or files/notes.txt). A slice that was refused, or is half
    written, is named as `volfs status` names it: s0/xy/z00011.png. On a terminal it asks first. A script is taken at
    its word, as by git and rm.

    \b
    Examples:
      volfs discard cells
      volfs discard cells@exp zarr/s0 files/notes.txt
    """
    if "" in keys:
        raise BadInput("an empty key means nothing; to discard everything, name none")
    with frame.open() as store:
        branch = branch_meant(store, parse_dataset_arg(target))
        with suppress(Damaged):  # of what they lie over: that they are discarded mends it
            now = branch.status(check=False)
            if now.clean and not now.staged and not now.rejected:
                return
        what = ", ".join(keys) if keys else "all uncommitted changes"
        confirm(f"Discard {what} of {branch.dataset.name}@{branch.ref}?", yes or not sys.stdin.isatty())
        for key in keys or ("",):
            branch.discard(key)


@click.command()
@click.argument("target", metavar="DATASET[@BRANCH]")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--ours", "side", flag_value="ours", help="What is uncommitted here stays, over the newer version.")
@click.option("--theirs", "side", flag_value="theirs", help="What is uncommitted here goes: the newer version counts.")
@json_option
@pass_frame
@click.pass_context
def update(
    ctx: click.Context, frame: Frame, target: str, keys: tuple[str, ...], side: Side | None, as_json: bool
) -> None:
    """Lay uncommitted changes over the newest version.

    Decides where both changed the same keys. With KEYs only what is at and below them is decided. What nothing is in
    the way of follows by itself; `volfs status` names the rest. Exit status 1 while some of it is undecided.

    \b
    Examples:
      volfs update cells@exp
      volfs update cells@exp --ours
      volfs update cells@exp --theirs files/notes.txt
    """
    with frame.open() as store:
        branch = branch_meant(store, parse_dataset_arg(target))
        behind = branch.behind()
        if side is not None:
            behind = branch.update(side, keys)
        elif behind is not None and not behind.keys:
            with suppress(ReadOnly), branch.writing():  # which lets it follow
                behind = branch.behind()
        base = branch.base
    over = f"v{base.number}" if base is not None else None
    if as_json:
        say_json({"base": over, "behind": None if behind is None else behind.to_json()})
    else:
        click.echo(f"{branch.dataset.name}@{branch.ref}: on {over or 'no version yet'}")
        if behind is not None:
            _show_behind(branch.dataset.name, branch.ref, behind)
    if behind is not None:
        ctx.exit(1)
