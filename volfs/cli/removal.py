"""``rm``: a whole dataset, or a key of a working copy."""

from __future__ import annotations

import click

from volfs.cli.commits import branch_meant
from volfs.cli.frame import Frame, confirm, count_text, parse_dataset_arg, pass_frame, yes_option


@click.command()
@click.argument("target", metavar="DATASET[@BRANCH][:KEY]")
@yes_option
@pass_frame
def rm(frame: Frame, target: str, yes: bool) -> None:
    """Remove a dataset, or a key of a working copy.

    A DATASET goes with all its versions, for good. DATASET/PATH names the group or array at PATH of the hierarchy. What
    is removed from a working copy is in the versions still, and comes back with `volfs discard`.

    \b
    Examples:
      volfs rm cells
      volfs rm cells@exp:files/notes.txt
      volfs rm cells/labels/old
    """
    argument = parse_dataset_arg(target)
    with frame.open() as store:
        if argument.where:
            branch = branch_meant(store, argument)
            branch.delete_tree(argument.where)
            return
        if argument.spec.ref is not None or argument.key is not None:
            raise click.UsageError(
                "name a KEY to remove, or the DATASET alone; `volfs branch --delete` removes a branch"
            )
        dataset = store[argument.spec.dataset]
        versions = count_text(len(dataset.versions()), "version")
        confirm(f"Remove the dataset {dataset.name} with {versions}? Nothing of it can be brought back.", yes)
        store.remove_dataset(dataset.name)
