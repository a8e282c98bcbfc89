"""``config``: what is kept of a dataset beside its versions."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from volfs.cli.frame import Frame, json_option, pass_frame, say_json, say_table

if TYPE_CHECKING:
    from volfs.versions.access import Access

_NAMES = ("owner", "group", "mode")
_RULES = ("protect", "require-message")
_OF_REMOTE = "remote."


@click.command()
@click.argument("dataset")
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]...")
@json_option
@pass_frame
def config(frame: Frame, dataset: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Show or change who may enter a dataset, and its rules.

    Settings are owner=USER, group=GROUP and mode=OCTAL. The mode, such as 750, is that of directories; files have it
    without x, and versions without w. No value (mode=) goes back to what the mount says. Mounts with --allow-other hold
    everybody to it, within a second or so.

    protect=BRANCH,… lets only merges and fast-forwards move these branches. require-message=REGEX asks for messages in
    which this regular expression is found. No value lifts the rule.

    remote.NAME=ADDRESS names another store of the dataset, a path or ssh://host/path, for fetch, pull and push. Which
    parts a partial clone has is shown, and changed by `volfs fetch`.

    \b
    Examples:
      volfs config cells
      volfs config cells owner=ada group=lab mode=750
      volfs config cells protect=main 'require-message=^[A-Z]'
      volfs config cells remote.lab=ssh://lab/data/store
    """
    remotes = dict(_remote(setting) for setting in settings if setting.startswith(_OF_REMOTE))
    others = tuple(setting for setting in settings if not setting.startswith(_OF_REMOTE))
    changes, asked = _changes(others), _rules(others)
    with frame.open(read_only=not settings) as store:
        found = store[dataset]
        if asked:
            found.set_rules(replace(found.rules, **asked))
        if changes:
            found.set_access(replace(found.access, **changes))
        for name, address in remotes.items():
            found.set_remote(name, address)
        access, rules, known, parts = found.access, found.rules, found.remotes(), found.clone_parts
    if as_json:
        said = {"protect": list(rules.protect), "require-message": rules.require_message or None, "remotes": known}
        said["partial"] = parts.words() or None
        say_json({"name": dataset, **dict.fromkeys(_NAMES), **access.facts(), **said})
    elif not settings:
        say_table([(name, shown or "as the mount says") for name, shown in access_words(access)])
        asked_for = zip(_RULES, (", ".join(rules.protect), rules.require_message), strict=True)
        said_of = [*asked_for, *((f"{_OF_REMOTE}{name}", address) for name, address in sorted(known.items()))]
        said_of += [("partial", words) for words in parts.words()]
        say_table([(name, value) for name, value in said_of if value])


def _remote(setting: str) -> tuple[str, str | None]:
    """The name and the address of a remote; None for one that is to go."""
    from volfs.errors import BadInput

    name, equals, address = setting.removeprefix(_OF_REMOTE).partition("=")
    if not equals or not name:
        raise BadInput(f"{setting!r} is no setting: write {_OF_REMOTE}NAME=ADDRESS, or {_OF_REMOTE}NAME= to remove it")
    return name, address or None


def _changes(settings: tuple[str, ...]) -> dict[str, int | None]:
    from volfs.errors import BadInput
    from volfs.fuse.fstab import group_number, mode_bits, user_number

    readers: dict[str, Callable[[str], int]] = {"owner": user_number, "group": group_number, "mode": mode_bits}
    changes: dict[str, int | None] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if equals and name in _RULES:
            continue
        if not equals or name not in readers:
            there = ", ".join(f"{each}=…" for each in (*_NAMES, *_RULES, f"{_OF_REMOTE}NAME"))
            raise BadInput(f"{setting!r} is no setting; there are {there}")
        changes[name] = readers[name](value) if value else None
    return changes


def _rules(settings: tuple[str, ...]) -> dict[str, Any]:
    """The rules among settings, by the names of their fields."""
    found: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name == "protect":
            found["protect"] = tuple(filter(None, value.split(",")))
        elif name == "require-message":
            found["require_message"] = value
    return found


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
