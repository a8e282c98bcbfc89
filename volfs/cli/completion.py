"""``completion``: the script that has a shell complete commands, options, datasets, refs and keys.

Decided here: what may stand in the place of an argument, which is read off the word that the help has for it
(``DATASET[/PATH][@REF][:KEY]``, ``KEY``, ``REF``), so that a new command is completed without a line of its own; and
what the shells are told. Not here: which commands and options there are, which click knows.

The shell calls the program itself, with an environment variable that says for which shell. What cannot be found out, as
the store cannot be opened, is not completed: nobody wants an error in the middle of a line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import (
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from volfs.cli.frame import COMPLETE_VARIABLE, path_value
from volfs.errors import VolfsError

if TYPE_CHECKING:
    from volfs.versions.dataset import Dataset
    from volfs.versions.snapshot import Snapshot
    from volfs.versions.store import Store

#: So many of the newest versions are offered; older ones have numbers that are typed as fast.
_VERSIONS = 10

_BASH = r"""%(complete_func)s() {
    local type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                COMPREPLY+=("$value")
                [[ $value != */ ]] || compopt -o nospace
                ;;
        esac
    done < <(env %(complete_var)s=bash_complete COMP_LINE="${COMP_LINE:0:COMP_POINT}" \
        COMP_WORDBREAKS="$COMP_WORDBREAKS" "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _ByHelp(ShellComplete):
    """Reads the options before the command, too, from the help."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        read_from_help(self.cli)
        return super().get_completions(args, incomplete)


class BashComplete(_ByHelp):
    """For bash, which takes ``@`` and ``:`` for ends of words: the line is read here, and answers begin at the last of
    them."""

    name = "bash"
    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        incomplete = words.pop() if words and not line[-1].isspace() else ""
        breaks = os.environ.get("COMP_WORDBREAKS", "")
        # An @ is part of what comes after it, as bash completes names of hosts.
        self._typed = max((incomplete.rfind(each) + (each != "@") for each in breaks if each in incomplete), default=0)
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type},{item.value[self._typed :] if item.type == 'plain' else item.value}"


class _FishComplete(_ByHelp, FishComplete):
    """For fish, by click's own script."""


class _ZshComplete(_ByHelp, ZshComplete):
    """For zsh, by click's own script."""


for _shell in (BashComplete, _FishComplete, _ZshComplete):
    add_completion_class(_shell)


def read_from_help(command: click.Command) -> None:
    """Have each parameter of ``command`` whose value is free text be completed by what the help calls it."""
    for parameter in command.params:
        if parameter.type is click.STRING and not getattr(parameter, "is_flag", False):
            parameter.type = _Spelled(parameter.callback is path_value)


class _Spelled(click.types.StringParamType):
    """A value that is text, with what may stand there."""

    def __init__(self, is_path: bool) -> None:
        self.is_path = is_path

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        called = (
            (param.metavar or param.name or "").upper() if isinstance(param, click.Argument) else param.metavar or ""
        )
        if self.is_path or re.search(r"\b(SRC|OUT|FILE)\b", called):
            return [CompletionItem(incomplete, type="file")]
        try:
            found = list(_values(ctx, called, incomplete))
        except (VolfsError, OSError, click.ClickException):
            return []
        return [CompletionItem(value) for value in found if value.startswith(incomplete)]


def _values(ctx: click.Context, called: str, incomplete: str) -> Iterator[str]:
    words = set(re.findall(r"[A-Z]+", called))
    if not words & {"DATASET", "REF", "BRANCH", "KEY", "NAME"}:
        return
    with _store(ctx) as store:
        if "DATASET" in words:
            yield from _targets(store, called, incomplete)
            return
        given = _dataset_given(ctx)
        if given is None:
            return
        from volfs.cli.frame import parse_dataset_arg

        argument = parse_dataset_arg(given)
        dataset = store[argument.spec.dataset]
        if "REF" in words:
            yield from _refs(dataset)
        elif "BRANCH" in words or ("NAME" in words and ctx.command.name == "branch"):
            yield from dataset.branches()
        elif "NAME" in words and ctx.command.name == "tag":
            yield from dataset.tags()
        elif "KEY" in words:
            yield from _keys(argument.snapshot(store), incomplete)


def _store(ctx: click.Context) -> Store:
    from volfs.cli.frame import Frame

    options = ctx.find_root().params
    return Frame(*(path_value(ctx, None, options.get(name)) for name in ("store", "catalog"))).open(read_only=True)  # type: ignore[arg-type]


def _dataset_given(ctx: click.Context) -> str | None:
    """What stands earlier on the line for DATASET."""
    for parameter in ctx.command.params:
        if isinstance(parameter, click.Argument) and "DATASET" in (parameter.metavar or parameter.name or "").upper():
            value: Any = ctx.params.get(parameter.name or "")
            if value:
                return str(value[0] if isinstance(value, tuple) else value)
    # While the value of an option is missing, click has not told arguments apart.
    return ctx.args[0] if ctx.args else None


def _targets(store: Store, called: str, incomplete: str) -> Iterator[str]:
    """``DATASET[/PATH][@REF][:KEY]``, as far as ``called`` has these parts."""
    target, colon, key = incomplete.partition(":")
    where, at, _ = target.partition("@")
    name, slash, path = where.partition("/")
    if not (at or colon or slash):
        yield from store.datasets()
    elif colon and ":KEY" in called:
        from volfs.cli.frame import parse_dataset_arg

        for found in _keys(parse_dataset_arg(target).snapshot(store), key):
            yield f"{target}:{found}"
    elif at and "@" in called and not colon:
        for ref in _refs(store[name]) if "@REF" in called else store[name].branches():
            yield f"{where}@{ref}"
    elif slash and "/PATH" in called and not at:
        above, _, _ = path.rpartition("/")
        snapshot = store[name].snapshot(None)
        for child, info in snapshot.list(f"zarr/{above}" if above else "zarr"):
            inner = f"{above}/{child}" if above else child
            if info.kind == "dir" and snapshot.stat(f"zarr/{inner}/zarr.json") is not None:
                yield f"{name}/{inner}"


def _refs(dataset: Dataset) -> Iterator[str]:
    yield from dataset.branches()
    yield from dataset.tags()
    yield "latest"
    for info in reversed(dataset.versions()[-_VERSIONS:]):
        yield f"v{info.number}"


def _keys(snapshot: Snapshot, incomplete: str) -> Iterator[str]:
    """Keys in the directory that ``incomplete`` is in; directories with a slash at the end."""
    above, slash, _ = incomplete.rpartition("/")
    for name, info in snapshot.list(above):
        yield f"{above}{slash}{name}" + ("/" if info.kind == "dir" else "")


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Have the shell complete commands and names.

    Writes a script for it. Commands, options, datasets, refs and keys are completed then, of the store that --store or
    VOLFS_STORE names.

    \b
    Examples:
      volfs completion bash > ~/.local/share/bash-completion/completions/volfs
      volfs completion zsh > ~/.zfunc/_volfs
      volfs completion fish > ~/.config/fish/completions/volfs.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(ctx.find_root().command, {}, "volfs", COMPLETE_VARIABLE).source())
