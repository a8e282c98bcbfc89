"""``config``: what is kept of a dataset beside its versions."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from volfs.cli.frame import Frame, json_option, pass_frame, say_json, say_table

if TYPE_CHECKING:
    from volfs.versions.access import Access

_NAMES = ("owner", "group", "mode")


@click.command()
@click.argument("dataset")
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]...")
@json_option
@pass_frame
def config(frame: Frame, dataset: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Show or change who may enter a dataset.

    Settings are owner=USER, group=GROUP and mode=OCTAL. The mode, such as 750, is that of directories; files have it
    without x, and versions without w. No value (mode=) goes back to what the mount says. Mounts with --allow-other hold
    everybody to it, within a second or so.

    \b
    Examples:
      volfs config cells
      volfs config cells owner=ada group=lab mode=750
    """
    changes = _changes(settings)
    with frame.open(read_only=not changes) as store:
        found = store[dataset]
        if changes:
            found.set_access(replace(found.access, **changes))
        access = found.access
    if as_json:
        say_json({"name": dataset, **dict.fromkeys(_NAMES), **access.facts()})
    elif not changes:
        say_table([(name, shown or "as the mount says") for name, shown in access_words(access)])


def _changes(settings: tuple[str, ...]) -> dict[str, int | None]:
    from volfs.errors import BadInput
    from volfs.fuse.fstab import group_number, mode_bits, user_number

    readers: dict[str, Callable[[str], int]] = {"owner": user_number, "group": group_number, "mode": mode_bits}
    changes: dict[str, int | None] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or name not in readers:
            raise BadInput(f"{setting!r} is no setting; there are {', '.join(f'{each}=…' for each in _NAMES)}")
        changes[name] = readers[name](value) if value else None
    return changes


def access_words(access: Access) -> list[tuple[str, str]]:
    """Owner, group and mode for people; "" for what is not set."""
    owner = group = mode = ""
    if access.owner is not None:
        owner = _named(access.owner, lambda number: pwd.getpwuid(number).pw_name)
    if access.group is not None:
        group = _named(access.group, lambda number: grp.getgrgid(number).gr_name)
    if access.mode is not None:
        mode = f"{access.mode:04o}"
    return list(zip(_NAMES, (owner, group, mode), strict=True))


def _named(number: int, name: Callable[[int], str]) -> str:
    try:
        return f"{name(number)} ({number})"
    except KeyError:
        return str(number)
