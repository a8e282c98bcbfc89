"""The command ``volfs``: every command, found by name and loaded only when it is used.

``frame``          the store a command works on, how answers are written, how progress is shown
``stores``         ``init``, ``create``, ``fsck``; ``demo``, ``doctor``, ``completion``  the commands of that name
``imports``        ``import``; ``exports`` ``export``
``mounts``         ``mount``, ``umount``; ``helpers`` the programs that mount(8) calls
``listings``       ``ls``, ``info``; ``open_viewer`` ``open``
                   ``log_blame`` ``log``, ``show``, ``blame``; ``differences`` ``diff``
``monitoring``     ``stats``, ``top``
``commits``        ``status``, ``commit``, ``discard``, ``update``
``merges``         ``merge``, ``cherry-pick``, ``revert``, ``rebase``, ``restore``, ``mv``, ``resolve``
``manual``         no command: the same texts as pages for man(1)
``branches_tags``  ``branch``, ``tag``; ``settings`` ``config``; ``notes`` ``note``; ``removal`` ``rm``, ``gc``
``remotes``        ``clone``, ``fetch``, ``pull``, ``push``, ``serve-stdio``; ``http_server`` ``serve``

Decided here: which commands there are, and how a failure ends: 0 done, 1 failed (one line on stderr that says what to
do), 2 wrong usage, 130 interrupted. Not here: what a command does (one module per family), nor any logic beyond
reading arguments and writing answers (the rooms below).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from volfs import __version__
from volfs.cli.frame import COMPLETE_VARIABLE, Frame, defect, duration_value, path_value, say, start_no_blas_threads
from volfs.errors import VolfsError

#: What commands are for, as --help shows them: in each group, command to module. The function is named as the command,
#: with an underscore where Python has the word already. Its docstring is the help: a first sentence that fits into the
#: list of commands, and, last, `Examples:` that are complete commands. `tests/product/test_docs.py` tries every one.
GROUPS = {
    "Make": {
        "init": "stores",
        "create": "stores",
        "import": "imports",
        "export": "exports",
        "demo": "demo",
    },
    "Look": {
        "ls": "listings",
        "info": "listings",
        "open": "open_viewer",
        "log": "log_blame",
        "show": "log_blame",
        "diff": "differences",
        "blame": "log_blame",
    },
    "Version": {
        "status": "commits",
        "commit": "commits",
        "discard": "commits",
        "update": "commits",
        "merge": "merges",
        "cherry-pick": "merges",
        "revert": "merges",
        "rebase": "merges",
        "restore": "merges",
        "mv": "merges",
        "resolve": "merges",
        "branch": "branches_tags",
        "tag": "branches_tags",
        "note": "notes",
        "rm": "removal",
    },
    "Share": {
        "clone": "remotes",
        "fetch": "remotes",
        "pull": "remotes",
        "push": "remotes",
        "serve": "http_server",
        "serve-stdio": "remotes",
    },
    "Mount": {
        "mount": "mounts",
        "umount": "mounts",
        "top": "monitoring",
    },
    "Care": {
        "config": "settings",
        "gc": "removal",
        "fsck": "stores",
        "stats": "monitoring",
        "doctor": "doctor",
        "completion": "completion",
    },
}
COMMANDS = {name: module for group in GROUPS.values() for name, module in group.items()}

#: What other programs call what is here.
_ELSEWHERE = {
    "checkout": "branch",
    "copy": "export",
    "delete": "rm",
    "list": "ls",
    "remove": "rm",
    "unmount": "umount",
    "verify": "fsck",
}

#: As many letters of a command's first sentence fit beside its name on a terminal of 80 columns.
SUMMARY_LENGTH = 60


class _Commands(click.Group):
    """Loads a command's module when the command is named: starting up must not take longer than ``ls``."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one command and exit with its status."""

        start_no_blas_threads()
        if COMPLETE_VARIABLE in os.environ:
            importlib.import_module("volfs.cli.completion")  # whose classes answer it
            complete_var = COMPLETE_VARIABLE

        def run() -> Any:
            return super(_Commands, self).main(args, prog_name, complete_var, standalone_mode=False, **extra)

        if not standalone_mode:
            return run()
        sys.exit(_status(run))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; a command that is not there is told with those that may be meant."""
        if not ctx.resilient_parsing and args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(_ELSEWHERE.get(args[0], args[0]), COMMANDS, 2)
            meant = f"do you mean {' or '.join(near)}? " if near else ""
            raise click.UsageError(f"there is no command {args[0]!r}: {meant}`volfs --help` lists all", ctx)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        name = "import_" if cmd_name == "import" else cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"volfs.cli.{module}"), name)
        if ctx.resilient_parsing:  # a shell completes a line
            from volfs.cli.completion import read_from_help

            read_from_help(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """By what they are for, in the order of use."""
        width = max(map(len, COMMANDS))
        for title, group in GROUPS.items():
            found = [(name, self.get_command(ctx, name)) for name in group]
            with formatter.section(title):
                formatter.write_dl(
                    # Of equal width in every group, so that summaries stand below each other.
                    [(name.ljust(width), each.get_short_help_str(SUMMARY_LENGTH)) for name, each in found if each]
                )


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"volfs {__version__}")
        ctx.exit()


@click.group("volfs", cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--store",
    envvar="VOLFS_STORE",
    show_envvar=True,
    callback=path_value,
    help="The store: a directory made by `volfs init`.",
)
@click.option(
    "--catalog",
    envvar="VOLFS_CATALOG",
    show_envvar=True,
    callback=path_value,
    help="The store's index, if it is not in the store: for stores on network filesystems.",
)
@click.option("--read-only", is_flag=True, help="Write nothing to the store, and lock nothing in it.")
@click.option(
    "--dead-after",
    envvar="VOLFS_DEAD_AFTER",
    show_envvar=True,
    callback=duration_value,
    metavar="TIME",
    help="When what another machine left half made is given up, if it does not grow: 1d by default.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Say which volfs.")
@click.pass_context
def main(
    ctx: click.Context, store: Path | None, catalog: Path | None, read_only: bool, dead_after: float | None
) -> None:
    """Versioned image volumes as plain directories and files.

    DATASET may carry a path in its hierarchy and a ref: cells/labels/nuclei@v3. A ref is a branch, a tag, a version
    (v3), latest, or 8 digits or more of a content id. Behind it, ~2 is two versions before, ^2 the second parent of a
    merge, and @2026-11-01 or @2026-11-01T12:00 (UTC) the newest version that is not younger: main@2026-11-01.

    \b
    Examples:
      volfs --store /data/store ls
      export VOLFS_STORE=/data/store; volfs info cells@v3
      volfs import --help
    """
    ctx.obj = Frame(store, catalog, read_only, dead_after)


def _status(run: Callable[[], object]) -> int:
    """The exit status of ``run``, whose every failure is told in one line."""
    try:
        try:
            status = run()
            sys.stdout.flush()
        finally:
            _restore_cursor()
        return status if isinstance(status, int) else 0
    except click.UsageError as error:
        error.show()
        return 2
    except click.ClickException as error:
        return _fail(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        return _interrupted()
    except BrokenPipeError:
        # Whoever read has read enough. Python flushes stdout once more at exit, which must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except VolfsError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # in the middle of a class: Python makes another error of it
            return _interrupted()
        return _fail(defect(error))


def _interrupted() -> int:
    click.echo("volfs: interrupted", err=True)
    return 130


def _fail(message: str) -> int:
    say(f"volfs: {message}", err=True)
    return 1


def _restore_cursor() -> None:
    """A progress bar that was interrupted leaves the terminal without one."""
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h")
        sys.stderr.flush()
