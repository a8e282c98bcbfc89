"""``note``: what is said of a version later, apart from it."""

from __future__ import annotations

from dataclasses import asdict

import click

from volfs.cli.frame import Frame, json_option, parse_dataset_arg, pass_frame, say, say_json, time_text


@click.command()
@click.argument("target", metavar="DATASET@REF")
@click.argument("text", required=False)
@click.option("--author", help="Who says it; else VOLFS_AUTHOR, else user@host.")
@click.option("-d", "--delete", is_flag=True, help="Delete all notes on the version.")
@json_option
@pass_frame
def note(frame: Frame, target: str, text: str | None, author: str | None, delete: bool, as_json: bool) -> None:
    """Show the notes on a version, or add one.

    A note says something of a version afterwards. It is kept apart from it: the version and its content id stay what
    they are. `volfs log` shows it. A text that is there already is not added again.

    \b
    Examples:
      volfs note cells@v3 "Stained twice, see the protocol of 2026-11-02"
      volfs note cells@v3
      volfs note cells@v3 --delete
    """
    argument = parse_dataset_arg(target)
    if argument.where or argument.key is not None or argument.spec.ref is None:
        raise click.UsageError("a note is on a version: DATASET@v3")
    if delete and text is not None:
        raise click.UsageError("--delete takes no TEXT")
    with frame.open(read_only=text is None and not delete) as store:
        dataset = store[argument.spec.dataset]
        number = dataset.resolve(argument.spec.ref)
        if delete:
            dataset.delete_notes(number)
        elif text is not None:
            dataset.add_note(number, text, author)
        notes = dataset.notes(number)
    if as_json:
        say_json([asdict(each) for each in notes])
    elif text is None and not delete:
        for each in notes:
            say(f"{time_text(each.time_ns)}  {each.author}: {each.text}")
