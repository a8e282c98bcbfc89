"""What shells complete: by the program's answers, and in bash, zsh and fish themselves, at a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from tests.kits import cli_reference
from tests.kits.cells import make_store
from tests.kits.mounts import volfs
from volfs.cli import COMMANDS, main
from volfs.cli.completion import BashComplete
from volfs.testing.waiting import PATIENCE


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset `cells`, with branches main and exp, a tag and label images; and an empty one."""
    made = make_store(tmp_path_factory.mktemp("completion") / "store")
    volfs(made, "tag", "cells", "paper", "v1")
    return made


def completed(store: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The answers to a tabulator at the end of ``line``, as bash is told them where no letter ends a word."""
    monkeypatch.setenv("VOLFS_STORE", str(store))
    monkeypatch.setenv("COMP_LINE", line)
    shell = BashComplete(main, {}, "volfs", "_VOLFS_COMPLETE")
    return [each.partition(",")[2] for each in shell.complete().splitlines()]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("volfs ", {*COMMANDS}),
        ("volfs comm", {"commit"}),
        ("volfs commit --mess", {"--message"}),
        ("volfs export cells out --plane ", {"xy", "xz", "yz"}),
        ("volfs completion ", {"bash", "zsh", "fish"}),
        ("volfs info c", {"cells"}),
        ("volfs info cells@", {"cells@exp", "cells@main", "cells@paper", "cells@latest", "cells@v1", "cells@v2"}),
        ("volfs info cells/labels@p", {"cells/labels@paper"}),
        ("volfs commit cells@", {"cells@exp", "cells@main"}),
        ("volfs info cells/", {"cells/labels", "cells/s0", "cells/s1"}),
        ("volfs info cells/labels/", {"cells/labels/nuclei"}),
        ("volfs ls cells:", {"cells:files/", "cells:zarr/"}),
        ("volfs ls cells@v1:zarr/s", {"cells@v1:zarr/s0/", "cells@v1:zarr/s1/"}),
        ("volfs discard cells zarr/z", {"zarr/zarr.json"}),
        ("volfs commit cells --leave zarr/s", {"zarr/s0/", "zarr/s1/"}),
        ("volfs tag cells new ex", {"exp"}),
        ("volfs tag cells --delete ", {"paper"}),
        ("volfs branch cells --delete e", {"exp"}),
        ("volfs info nobody@", set()),
        ("volfs config cells ", set()),
    ],
)
def test_what_may_stand_there_is_offered(
    store: Path, line: str, wanted: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(completed(store, line, monkeypatch)) == wanted


def test_files_are_left_to_the_shell(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in ("volfs import cells sc", "volfs --store /da", "volfs export cells ou", "volfs mount ~/m"):
        monkeypatch.setenv("COMP_LINE", line)
        assert BashComplete(main, {}, "volfs", "_VOLFS_COMPLETE").complete().startswith("file,"), line


def test_without_a_store_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed(tmp_path / "nothing", "volfs info c", monkeypatch) == []
    (tmp_path / "volfs.json").write_text("no store")
    assert completed(tmp_path, "volfs info c", monkeypatch) == []


def test_every_argument_that_names_a_dataset_is_completed(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for context in cli_reference.every_command():
        arguments = [each for each in context.command.params if isinstance(each, click.Argument)]
        if arguments and re.match(r"\[?DATASET", (arguments[0].metavar or arguments[0].name or "").upper()):
            assert "cells" in completed(store, f"{context.command_path} ce", monkeypatch), context.command_path


@contextmanager
def terminal(command: list[str], **environment: str) -> Iterator[int]:
    """A program at a terminal of its own."""
    child, end = pty.fork()
    if child == 0:
        os.environ.update(environment)
        os.execvp(command[0], command)
    try:
        yield end
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(end)


def until_shown(end: int, wanted: str) -> str:
    """Read what the terminal shows until ``wanted`` is there."""
    shown, deadline = "", time.monotonic() + PATIENCE
    while not re.search(wanted, shown):
        assert time.monotonic() < deadline, f"{wanted!r} never came: {shown[-2000:]!r}"
        if select.select([end], [], [], 1)[0]:
            shown += os.read(end, 65536).decode(errors="replace")
            if "\x1b[c" in shown or "\x1b[0c" in shown:  # fish asks what terminal this is, and waits
                os.write(end, b"\x1b[?6c")
                shown = shown.replace("\x1b[c", "").replace("\x1b[0c", "")
    return shown


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source {script}"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -D; source {script}"),
    "fish": (["fish", "--no-config", "-i"], "source {script}"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_at_a_terminal(store: Path, tmp_path: Path, shell: str) -> None:
    command, load = SHELLS[shell]
    assert shutil.which(command[0]), f"{shell} is not installed: run `sh .ci/setup tests`"
    script = tmp_path / "script"
    script.write_text(volfs(None, "completion", shell).stdout)
    programs = Path(sys.executable).parent
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "VOLFS_STORE": str(store),
        "HOME": str(tmp_path),
        "TERM": "dumb" if shell != "fish" else "xterm",
    }
    with terminal(command, **environment) as end:
        os.write(end, f"{load.format(script=script)}; echo rea''dy\r".encode())
        until_shown(end, "ready")
        for typed, wanted in (
            ("volfs comm\t", "volfs commit"),
            ("volfs info cells@pa\t", "volfs info cells@paper"),
            ("volfs ls cells:zarr/z\t", "volfs ls cells:zarr/zarr.json"),
            ("volfs commit cells@ex\t --mess\t", "volfs commit cells@exp +--message"),
        ):
            os.write(end, typed.encode())
            # To the beginning of the line, so that it is written out instead of being done.
            os.write(end, b"\x01echo li''ne: \r")
            until_shown(end, f"line: {wanted}\r")


def test_scripts_are_ones_that_their_shells_read(tmp_path: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        script = tmp_path / shell
        script.write_text(volfs(None, "completion", shell).stdout)
        subprocess.run([shell, "-n", str(script)], check=True)
