"""``branch`` and ``tag``: list, make, move, rename and delete refs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from volfs.cli.frame import Frame, json_option, pass_frame, say, say_json, say_table

if TYPE_CHECKING:
    from volfs.versions.dataset import Dataset


@click.command()
@click.argument("dataset")
@click.argument("name", required=False)
@click.argument("at", metavar="[REF]", required=False)
@click.option("-d", "--delete", is_flag=True, help="Delete the branch NAME. Its versions stay.")
@click.option("-m", "--move", is_flag=True, help="Rename the branch NAME, with its uncommitted changes, to REF.")
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Move a branch that is there to REF, if all of it is committed; with --delete, even with uncommitted changes,"
    " which are lost.",
)
@json_option
@pass_frame
def branch(
    frame: Frame, dataset: str, name: str | None, at: str | None, delete: bool, move: bool, force: bool, as_json: bool
) -> None:
    """List, make, move, rename or delete branches.

    With NAME, makes a branch of that name at REF. Without REF a branch begins at the default branch's head. NAME may
    say where, too: exp@v3.

    \b
    Examples:
      volfs branch cells
      volfs branch cells exp v3
      volfs branch cells --force exp main~2
      volfs branch cells --move exp trial
      volfs branch cells --delete trial
    """
    _check(name, at, delete, force)
    if move and (name is None or at is None or delete or force):
        raise click.UsageError("--move takes the branch's NAME and the new one, and neither --delete nor --force")
    with frame.open(read_only=name is None) as store:
        owner = store[dataset]
        if name is None:
            _list(owner.branches(), as_json, {owner.default_branch: "default"})
            return
        if delete:
            owner.delete_branch(name, force=force)
            return
        if move:
            assert at is not None
            owner.rename_branch(name, at)
            name = at
        else:
            name, _, written = name.partition("@")
            at = at or written or None
            if force and name in owner.branches():
                owner.move_branch(name, at or owner.default_branch)
            elif not _stands(owner, "branch", owner.branches(), name, at):
                owner.create_branch(name, at)
        if as_json:
            _list({name: owner.branches()[name]}, as_json)


@click.command()
@click.argument("dataset")
@click.argument("name", required=False)
@click.argument("at", metavar="[REF]", required=False)
@click.option("-d", "--delete", is_flag=True, help="Delete the tag NAME. The version stays.")
@click.option("-f", "--force", is_flag=True, help="Move a tag that is there.")
@json_option
@pass_frame
def tag(frame: Frame, dataset: str, name: str | None, at: str | None, delete: bool, force: bool, as_json: bool) -> None:
    """List, make, move or delete tags.

    With NAME, tags REF by that name. Without REF the default branch's head is tagged.

    \b
    Examples:
      volfs tag cells
      volfs tag cells paper v7
      volfs tag cells --force paper v8
      volfs tag cells --delete paper
    """
    if delete and force:
        raise click.UsageError("--delete needs no --force: the version stays")
    _check(name, at, delete, force)
    with frame.open(read_only=name is None) as store:
        owner = store[dataset]
        if name is None:
            _list(owner.tags(), as_json)
        elif delete:
            owner.delete_tag(name)
        else:
            if not _stands(owner, "tag", owner.tags(), name, at):
                owner.create_tag(name, at or owner.default_branch, force=force)
            if as_json:
                _list({name: owner.tags()[name]}, as_json)


def _check(name: str | None, at: str | None, delete: bool, force: bool) -> None:
    if force and name is None:
        raise click.UsageError("--force needs a NAME")
    if delete and name is None:
        raise click.UsageError("--delete needs a NAME")
    if delete and at is not None:
        raise click.UsageError("--delete takes no REF")


def _stands(owner: Dataset, kind: str, refs: Mapping[str, int], name: str, at: str | None) -> bool:
    """Whether a ref stands where it is asked for: a command that was sent twice does no harm, and says so."""
    if at is None or name not in refs or refs[name] != owner.resolve(at):
        return False
    say(f"volfs: {kind} {name!r} is at v{refs[name]} already", err=True)
    return True


def _list(refs: dict[str, int], as_json: bool, notes: dict[str, str] | None = None) -> None:
    if as_json:
        say_json(refs)
        return
    from volfs.model.names import natural_key

    notes = notes or {}
    versions = {name: f"v{refs[name]}" if refs[name] else "empty" for name in sorted(refs, key=natural_key)}
    say_table([(name, version, notes.get(name, "")) for name, version in versions.items()])
