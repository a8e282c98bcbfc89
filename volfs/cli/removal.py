"""``rm``: a whole dataset, versions of one, or a key of a working copy; ``gc``: the bytes of what was removed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from volfs.cli.commits import branch_meant
from volfs.cli.frame import (
    DatasetArg,
    Frame,
    confirm,
    count_text,
    duration_value,
    json_option,
    parse_dataset_arg,
    pass_frame,
    progress,
    say,
    say_json,
    size_text,
    yes_option,
)

if TYPE_CHECKING:
    from volfs.versions.retention.collector import Collected
    from volfs.versions.store import Store


@click.command()
@click.argument("targets", metavar="DATASET[@BRANCH][:KEY] | DATASET@vN...", nargs=-1, required=True)
@yes_option
@pass_frame
def rm(frame: Frame, targets: tuple[str, ...], yes: bool) -> None:
    """Remove a dataset, a key of a working copy, or versions.

    A DATASET goes with all its versions, for good. DATASET/PATH names the group or array at PATH of the hierarchy. What
    is removed from a working copy is in the versions still, and comes back with `volfs discard`.

    A version that is dropped (DATASET@v3) is listed no more. What it alone shows goes with `volfs gc`, 14 days later;
    its number and its history stay. What a branch, a tag or uncommitted changes hold cannot be dropped.

    \b
    Examples:
      volfs rm cells
      volfs rm cells@exp:files/notes.txt
      volfs rm cells/labels/old
      volfs rm cells@v1 cells@v2
    """
    arguments = [parse_dataset_arg(target, key=True) for target in targets]
    numbers = list(map(_version_meant, arguments))
    with frame.open() as store:
        if all(number is not None for number in numbers):
            _drop(store, list(zip((one.spec.dataset for one in arguments), numbers, strict=True)), yes)
        elif len(arguments) > 1:
            raise click.UsageError("only versions are removed several at a time: DATASET@v3 DATASET@v4")
        else:
            _remove(store, arguments[0], yes)


def _version_meant(argument: DatasetArg) -> int | None:
    """The number, if an argument names a version as vN and nothing in it."""
    from volfs.model.names import version_number

    if argument.where or argument.key is not None or argument.spec.ref is None:
        return None
    return version_number(argument.spec.ref)


def _remove(store: Store, argument: DatasetArg, yes: bool) -> None:
    if argument.where:
        branch = branch_meant(store, argument)
        from volfs.errors import NotFound

        if branch.stat(argument.where) is None:
            raise NotFound(f"{branch.dataset.name}@{branch.ref} has no key {argument.where!r}")
        branch.delete_tree(argument.where)
        return
    if argument.spec.ref is not None or argument.key is not None:
        raise click.UsageError(
            "name a KEY to remove, a version (DATASET@v3), or the DATASET alone; `volfs branch --delete` removes a"
            " branch"
        )
    dataset = store[argument.spec.dataset]
    versions = count_text(len(dataset.versions()), "version")
    confirm(f"Remove the dataset {dataset.name} with {versions}? Nothing of it can be brought back.", yes)
    store.remove_dataset(dataset.name)


def _drop(store: Store, versions: list[tuple[str, int | None]], yes: bool) -> None:
    chosen: dict[str, list[int]] = {}
    for name, number in versions:
        chosen.setdefault(name, []).append(number or 0)
    names = ", ".join(f"{name}@v{number}" for name, numbers in chosen.items() for number in numbers)
    confirm(f"Drop {names}? What no other version shows cannot be brought back.", yes)
    for name, numbers in chosen.items():
        with progress("dropping") as tell:
            dropped = store[name].drop(*numbers, progress=tell)
        for number in dropped:
            say(f"{name}@v{number} is dropped; `volfs gc` frees its bytes in 14 days")


@click.command()
@click.argument("datasets", nargs=-1, metavar="[DATASET]...")
@click.option("--expire", metavar="DATE", help="Drop versions older than DATE (2026-11-01, UTC) or an age (90d).")
@click.option(
    "--keep",
    multiple=True,
    metavar="daily|weekly|N",
    help="Drop versions but the newest of each day or week, or the newest N, of each line; repeatable.",
)
@click.option(
    "--grace",
    default="14d",
    show_default=True,
    callback=duration_value,
    metavar="TIME",
    help="How long bytes of dropped versions stay. 0: now; nobody else may use the store.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go; change nothing.")
@json_option
@pass_frame
def gc(
    frame: Frame,
    datasets: tuple[str, ...],
    expire: str | None,
    keep: tuple[str, ...],
    grace: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Drop versions nothing needs, and free what only they show.

    A version is needed if a branch, a tag or uncommitted changes stand on it, or if a branch or tag did within the
    grace (`volfs log --refs`). With --expire, --keep or both, versions
    go that are older than DATE, or that no --keep keeps; never what a branch or tag names. Dropped versions are listed
    no more; `volfs log` marks them, and numbers and history stay. Bytes that only dropped versions show go after the
    grace.

    \b
    Examples:
      volfs gc --dry-run
      volfs gc cells --keep daily --keep 10
      volfs gc --expire 90d
    """
    from volfs.model.thinning import parse_rule

    rules = tuple(map(parse_rule, keep))
    before = None if expire is None else _time_meant(expire)
    with frame.open(read_only=dry_run) as store, progress("collecting", show=not as_json) as tell:
        found = store.gc(datasets or None, grace=grace, before_ns=before, keep=rules, dry_run=dry_run, progress=tell)
    if as_json:
        say_json([asdict(each) for each in found])
        return
    for each in found:
        _say_collected(each, dry_run)


def _time_meant(text: str) -> int:
    """The time (ns) of a day, of a minute, or so long ago."""
    import time
    from datetime import UTC, datetime

    from volfs.errors import BadInput
    from volfs.fuse.fstab import duration

    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"):
        try:
            return int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()) * 10**9
        except ValueError:
            continue
    try:
        return time.time_ns() - int(duration(text) * 1e9)
    except BadInput:
        raise BadInput(f"{text!r} is no date: say 2026-11-01, 2026-11-01T12:00 (UTC), or an age such as 90d") from None


def _say_collected(each: Collected, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    if each.retired:
        numbers = ", ".join(f"v{number}" for number in each.retired[:20])
        more = f" and {len(each.retired) - 20:,} more" if len(each.retired) > 20 else ""
        say(f"{each.dataset}: {would}dropped: {count_text(len(each.retired), 'version')}: {numbers}{more}")
    if each.freed.payloads:
        freed = each.freed
        say(f"{each.dataset}: {would}freed: {size_text(freed.bytes)} in {count_text(freed.payloads, 'payload')}")
        if freed.staying:
            say(f"{each.dataset}: of these {size_text(freed.staying)} stay on the disk: its filesystem has no holes")
    if each.later.payloads > each.freed.payloads:
        later = each.later
        size, count = later.bytes - each.freed.bytes, later.payloads - each.freed.payloads
        say(f"{each.dataset}: later, after the grace: {size_text(size)} in {count_text(count, 'payload')}")
    if each.waiting:
        say(f"{each.dataset}: no bytes go now: {each.waiting}")
    if each.unsure:
        say(f"{each.dataset}: what no branch or tag reaches stays for now: {each.unsure}", err=True)
    if not (each.retired or each.freed.payloads or each.later.payloads or each.waiting or each.unsure):
        say(f"{each.dataset}: nothing to collect")
