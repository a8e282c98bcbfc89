"""What every command shares: the store it works on, how answers are written, and how progress is shown.

Decided here: the look of the output. Not here: what any command answers.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from volfs.errors import BadInput
from volfs.model.display import printable, printable_json

if TYPE_CHECKING:
    from volfs.model.graph import VersionInfo
    from volfs.model.refs import DatasetSpec
    from volfs.versions.snapshot import Snapshot
    from volfs.versions.store import Store

#: What a shell sets when it wants a line completed.
COMPLETE_VARIABLE = "_VOLFS_COMPLETE"

# The colon of a time (main@2026-11-01T12:00) begins no key.
_TARGET = re.compile(r"((?:@[0-9-]{10}T[0-9]{2}:[0-9]{2}(?::[0-9]{2})?|[^:])*)(?::(.*))?", re.DOTALL)

json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@dataclass(frozen=True, slots=True)
class Frame:
    """What the options before the command say."""

    store: Path | None
    catalog: Path | None = None
    read_only: bool = False
    dead_after: float | None = None

    def store_path(self) -> Path:
        """The store's directory, or wrong usage."""
        if self.store is None:
            raise click.UsageError("which store? say volfs --store STORE COMMAND, or set VOLFS_STORE")
        return self.store

    def open(self, *, read_only: bool = False) -> Store:
        """The store, opened: a context manager."""
        import volfs
        from volfs.storage.claim import DAY_SECONDS
        from volfs.versions.onlooker import check_catalog

        if read_only and not self.read_only and self.catalog is None:
            check_catalog(self.store_path())
        return volfs.open_store(
            self.store_path(),
            catalog=self.catalog,
            read_only=read_only or self.read_only,
            dead_after=DAY_SECONDS if self.dead_after is None else self.dead_after,
        )


pass_frame = click.make_pass_decorator(Frame)


@dataclass(frozen=True, slots=True)
class DatasetArg:
    """What an argument names: a dataset, a hierarchy path and a ref, and perhaps a key after a colon."""

    spec: DatasetSpec
    key: str | None

    @property
    def where(self) -> str:
        """The key meant: the one given, or that of the hierarchy path."""
        if self.key is not None:
            return self.key
        return f"zarr/{self.spec.path}" if self.spec.path else ""

    def snapshot(self, store: Store) -> Snapshot:
        """The snapshot meant: of the ref, or of the default branch."""
        return store[self.spec.dataset].snapshot(self.spec.ref)


def parse_dataset_arg(text: str, *, key: bool = False) -> DatasetArg:
    """``DATASET[/PATH][@REF]``; with ``[:KEY]`` behind it where a ``key`` may be named."""
    from volfs.model.refs import parse_dataset_spec

    found = _TARGET.fullmatch(text)
    assert found is not None, "it matches every text"
    target, inside = found.groups()
    if inside is not None and not key:
        raise BadInput(f"{text!r}: no key can be named here; leave out the colon and what is behind it")
    return DatasetArg(parse_dataset_spec(target), None if inside is None else inside.strip("/"))


def say_json(answer: Any) -> None:
    """One JSON document on stdout."""
    click.echo(printable_json(json.dumps(answer, indent=2, default=_plain, ensure_ascii=False)))


def say(text: str, *, err: bool = False) -> None:
    """One line that may hold text of others: a message, a name. What would do harm on a terminal is escaped."""
    click.echo(printable(text), err=err)


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, frozenset | set):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def say_table(rows: Sequence[Sequence[object]], headings: Sequence[str] = (), right: Sequence[int] = ()) -> None:
    """Aligned columns; ``right`` are those of numbers. Nothing for no rows."""
    if not rows:
        return
    lines = [[printable(str(cell)) for cell in row] for row in ([headings, *rows] if headings else rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for number, line in enumerate(lines):
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text = "  ".join(cells).rstrip()
        click.echo(click.style(text, bold=True) if headings and number == 0 else text)


def size_text(size: float) -> str:
    """``3.2 MiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return ""


def time_text(time_ns: int) -> str:
    """Local time to the second; versions are at least that far apart."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ns / 1e9))


def version_facts(info: VersionInfo) -> dict[str, Any]:
    """A version for ``--json``, in the words of ``version.json`` on a mount."""
    from volfs.views.documents import version_json

    facts: dict[str, Any] = json.loads(version_json(info, ()))
    del facts["changes"]
    return facts


def start_no_blas_threads() -> None:
    """Have numpy, which is not imported yet, start no thread of OpenBLAS for every core: that takes longer than ``ls``,
    and volfs multiplies no matrix larger than that of an orientation. Processes that are started from here do the
    same."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def defect(error: Exception) -> str:
    """The line that is said of an error which nobody expected. With VOLFS_DEBUG it is raised instead."""
    if os.environ.get("VOLFS_DEBUG"):
        raise error
    return f"{type(error).__name__}: {error} (a defect in volfs; VOLFS_DEBUG=1 shows where)"


def count_text(count: int, what: str) -> str:
    """``1 chunk``, ``2 chunks``."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def path_value(_: click.Context, __: click.Parameter | None, text: str | None) -> Path | None:
    """Callback of a path. Unlike click's own type it asks nothing of what is there, which may be a broken mount."""
    return None if text is None else Path(text)


def size_value(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Callback of an option that takes bytes, with K, M, G or T for powers of 1024."""
    if text is None:
        return None
    from volfs.fuse.fstab import byte_count

    try:
        return byte_count(text)
    except BadInput as error:
        raise click.BadParameter(str(error)) from None


def duration_value(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Callback of an option that takes a length of time: seconds, or with m, h or d."""
    if text is None:
        return None
    from volfs.fuse.fstab import duration

    try:
        return duration(text)
    except BadInput as error:
        raise click.BadParameter(str(error)) from None


def numbers(text: str, what: str) -> tuple[int, ...]:
    """``64,64,64`` or ``64x64x64``."""
    parts = re.split(r"[,x]", text.strip())
    if not all(re.fullmatch(r"\s*[1-9][0-9]*\s*", part) for part in parts):
        raise BadInput(f"{what}: {text!r} is not a list of positive whole numbers such as 64,64,64")
    return tuple(int(part) for part in parts)


class Progress(Protocol):
    """Told how far a long command is. ``total`` may change as more becomes known."""

    def __call__(self, done: int, total: int, what: str = ...) -> None: ...


@contextlib.contextmanager
def progress(title: str, *, in_bytes: bool = False, show: bool = True) -> Iterator[Progress]:
    """A bar on stderr while the block runs; nothing when stderr is no terminal or ``show`` is false."""
    if not (show and sys.stderr.isatty()):
        yield lambda done, total, what="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    count = DownloadColumn(binary_units=True) if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None)

        def show_it(done: int, total: int, what: str = "") -> None:
            bars.update(task, completed=done, total=total, description=f"{title} {what}".rstrip())

        yield show_it


def confirm(question: str, yes: bool) -> None:
    """Ask, unless told not to; without a terminal to ask on, refuse."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadInput(f"{question} Say --yes to do it without being asked")
    click.confirm(question, abort=True, err=True)
