"""``stats`` and ``top``: what is in a store, and what mounts do. What they look at is in
:mod:`volfs.fuse.mount_stats`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volfs.cli.frame import Frame, count_text, json_option, pass_frame, path_value, say_json, say_table, size_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from volfs.fuse.mount_stats import Activity, Silence

#: A terminal narrower than this wraps lines.
_WIDTH = 80


@click.command()
@click.argument("mountpoint", required=False, callback=path_value)
@json_option
@pass_frame
def stats(frame: Frame, mountpoint: Path | None, as_json: bool) -> None:
    """Show sizes and counts of a store or a mount.

    With MOUNTPOINT, what its daemon has done since it was mounted. --json with MOUNTPOINT is the mount's own
    .volfs/stats.json.

    \b
    Examples:
      volfs stats
      volfs stats ~/mnt --json
    """
    if mountpoint is not None:
        _stats_of_mount(mountpoint, as_json)
        return
    with frame.open(read_only=True) as store:
        answer = store.stats()
    if as_json:
        say_json(asdict(answer))
        return
    rows = [
        (
            one.name,
            one.versions,
            one.branches,
            one.tags,
            f"{one.payloads:,}",
            size_text(one.stored),
            size_text(one.loose),
        )
        for one in answer.datasets
    ]
    headings = ("dataset", "versions", "branches", "tags", "payloads", "committed", "uncommitted")
    say_table(rows, headings, right=(1, 2, 3, 4, 5, 6))
    click.echo(f"{count_text(len(rows), 'dataset')}; catalog {size_text(answer.catalog)}")


def _stats_of_mount(mountpoint: Path, as_json: bool) -> None:
    from volfs.errors import VolfsError
    from volfs.fuse.mount_stats import Silence, Watch, watched

    watch = Watch(watched((mountpoint,))[0])
    if as_json:
        say_json(watch.facts())
        return
    done = watch.look()
    if isinstance(done, Silence):
        raise VolfsError(f"{mountpoint}: {done.error}")
    facts = done.facts
    _say(_shown(done, totals=True))
    say_table(
        [
            (
                part,
                f"{held['items']:,}",
                size_text(held["bytes"]) if "bytes" in held else "",
                size_text(held["max_bytes"])
                if "max_bytes" in held
                else f"{held['max_items']:,}"
                if "max_items" in held
                else "",
            )
            for part, held in facts["memory"]["parts"].items()
        ],
        ("memory", "items", "holds", "at most"),
        right=(1, 2, 3),
    )
    errors = [
        (name, errno, f"{count:,}") for name, counts in facts["errors"].items() for errno, count in counts.items()
    ]
    if errors:
        click.echo()
        say_table(errors, ("errors", "", "answers"), right=(2,))


@click.command()
@click.argument("mountpoints", nargs=-1, metavar="[MOUNTPOINT]...")
@click.option("-n", "--interval", default=2.0, show_default=True, metavar="SECONDS", help="Time between two looks.")
@click.option("--once", is_flag=True, help="Look for one interval, say what happened in it, and end.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON: one line per look.")
def top(mountpoints: tuple[str, ...], interval: float, once: bool, as_json: bool) -> None:
    """Watch what mounts do at this moment.

    Those at MOUNTPOINT, or all of this machine. Ctrl-C ends it. For every kind of request: how many a second, and how
    long they took (half of them at most p50, all but one in a hundred at most p99). Ahead: blocks decoded before they
    were asked for, and how much of that was used.

    \b
    Examples:
      volfs top
      volfs top ~/mnt --once --json
    """
    from volfs.errors import BadInput
    from volfs.fuse.mount_stats import Rounds

    if not 0.1 <= interval <= 3600:
        raise click.BadParameter("between 0.1 and 3600 seconds", param_hint="--interval")
    if not (once or as_json or sys.stdout.isatty()):
        raise BadInput("top draws on a terminal; elsewhere say --once or --json")
    rounds = Rounds(tuple(map(Path, mountpoints)), interval)
    if not (once or as_json):
        _draw(rounds)
        return
    for looks in rounds:
        if as_json:
            click.echo(json.dumps({"time": time.time(), "mounts": [_plain(look) for look in looks]}))
        else:
            _say(_page(looks))
        if once:
            return


def _draw(rounds: Any) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    live = Live("looking…", console=console, screen=True, auto_refresh=False)
    with contextlib.suppress(KeyboardInterrupt), live:
        for looks in rounds:
            room = (console.height - 1) // max(1, len(looks)) - _LINES
            live.update(_page(looks, max(1, room)), refresh=True)


def _plain(look: Activity | Silence) -> dict[str, Any]:
    """For scripts: what happened, and how memory and requests in flight stand at the end of it."""
    answer = asdict(look)
    facts = answer.pop("facts", None)
    if facts is not None:
        kept = ("version", "pid", "store", "writable", "up_seconds", "open_files", "in_flight")
        answer |= {name: facts[name] for name in (*kept, "oldest_in_flight_seconds", "memory")}
    return answer


def _say(page: RenderableType) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(page)


#: Lines that a mount takes besides one for each kind of request.
_LINES = 7


def _page(looks: Sequence[Activity | Silence], most: int | None = None) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from volfs.fuse.mount_stats import Silence

    if not looks:
        return Text("nothing is mounted")
    return Group(
        *(
            Text(f"{look.mountpoint}: {look.error}\n", style="red") if isinstance(look, Silence) else _shown(look, most)
            for look in looks
        )
    )


def _shown(done: Activity, most: int | None = None, *, totals: bool = False) -> RenderableType:
    """One mount in 80 columns; at most so many kinds of requests, the most frequent ones first."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    facts = done.facts
    memory = facts["memory"]
    blocks = memory["parts"]["blocks"]
    waiting = sum(facts["in_flight"].values())
    head = Text(done.mountpoint, style="bold", overflow="ellipsis", no_wrap=True)
    about = f"volfs {facts['version']}, process {facts['pid']}, up {_duration(facts['up_seconds'])}"
    mode = "" if facts["writable"] else ", read-only"
    grid = Table.grid(padding=(0, 2))
    for column in range(6):
        grid.add_column(style="dim" if column % 2 == 0 else "", no_wrap=True)
    grid.add_row(
        "reading",
        _rate(done.read_bytes_per_second),
        "requests",
        f"{done.requests_per_second:,.0f}/s",
        "errors",
        Text(f"{done.errors:,}, grave {done.failed:,}", style="red" if done.failed else ""),
    )
    grid.add_row(
        "writing",
        _rate(done.written_bytes_per_second),
        "decoding",
        f"{_rate(done.decoded_bytes_per_second)}, {done.payloads_per_second:,.0f}/s",
        "ahead",
        _percent(done.prefetch_used_share),
    )
    oldest = f", {_time(facts['oldest_in_flight_seconds'])}" if waiting else ""
    grid.add_row(
        "waiting",
        f"{waiting:,}{oldest}",
        "hits",
        _percent(done.cache_hit_share),
        "queries",
        f"{done.statements_per_second:,.0f}/s",
    )
    grid.add_row(
        "memory",
        size_text(memory["rss_bytes"]),
        "blocks",
        f"{size_text(blocks['bytes'])} of {size_text(blocks['max_bytes'])}",
        "cpu",
        _percent(done.cpu_share),
    )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("request", no_wrap=True)
    for heading in ("count" if totals else "per second", "mean", "p50", "p99"):
        table.add_column(heading, justify="right", no_wrap=True)
    frequent = sorted(done.operations.items(), key=lambda item: (-item[1].count, item[0]))[:most]
    for name, one in frequent:
        number = f"{one.count:,}" if totals else f"{one.per_second:,.1f}"
        table.add_row(name, number, *map(_time, (one.mean_seconds, one.p50_seconds, one.p99_seconds)))
    return Group(head, Text(about + mode, style="dim"), grid, table, Text(""))


def _rate(bytes_per_second: float) -> str:
    return f"{size_text(bytes_per_second)}/s"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}" if share < 0.9995 else f"{share:.0%}"


def _time(seconds: float) -> str:
    """Three digits, with the unit that suits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 1000 else f"{seconds * factor:,.0f} {unit}"
    return f"{seconds * 1e6:.3g} µs" if seconds else "-"


def _duration(seconds: int) -> str:
    days, rest = divmod(int(seconds), 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock
