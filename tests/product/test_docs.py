"""The documentation is true: every command and option is described, has its group, a summary that is shown whole and
examples that are command lines; and every test a promise names exists."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
from pathlib import Path

import click
import pytest

from tests.kits import cli_reference
from tests.kits.cells import make_store
from tests.kits.paths import DOCS, EXAMPLES, ROOT
from tests.kits.trees import run, serving
from volfs.cli import COMMANDS as MODULES
from volfs.cli import GROUPS, SUMMARY_LENGTH, main

CONTEXTS = [(context.command_path, context) for context in cli_reference.every_command()]
COMMANDS = [(name, context.command) for name, context in CONTEXTS]


def test_the_command_reference_is_what_the_program_says() -> None:
    assert cli_reference.PAGE.read_text() == cli_reference.page(), "run: python -m tests.kits.cli_reference"


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_and_option_says_what_it_does(name: str, command: click.Command) -> None:
    assert command.help, f"{name} has no help text"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help text"


def example_lines(text: str) -> list[str]:
    """The lines below `Examples:` of a help text as it is shown."""
    found = re.search(r"^ *Examples:\n((?: +volfs .*\n?| +export .*\n?)+)", text, re.MULTILINE)
    return [line.strip() for line in found[1].splitlines()] if found else []


def parse(words: list[str]) -> None:
    """Read a command line as the program would, and do nothing."""
    context = main.make_context("volfs", words)
    at = next(position for position, word in enumerate(words) if word in MODULES)
    command = main.get_command(context, words[at])
    assert command is not None
    command.make_context(words[at], words[at + 1 :], parent=context)


@pytest.mark.parametrize("name", MODULES)
def test_a_summary_is_shown_whole(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    whole = (command.help or "").partition("\n\n")[0].replace("\n", " ").strip()
    shown = command.get_short_help_str(SUMMARY_LENGTH)
    assert shown and shown.rstrip(".") == whole.rstrip("."), (
        f"{name}: {whole!r} is longer than {SUMMARY_LENGTH} letters"
    )


def test_the_list_of_commands_fits_a_terminal_of_80_columns() -> None:
    text = click.Context(main, info_name="volfs", terminal_width=80, max_content_width=80).get_help()
    shown = {line.split()[0]: line for line in text.splitlines() if re.match(r"  [a-z][\w-]* {2,}\S", line)}
    assert list(shown) == list(MODULES)
    assert all(len(line) <= 80 and not line.endswith("...") for line in shown.values())


def test_commands_are_in_groups_and_each_in_one() -> None:
    assert sum(map(len, GROUPS.values())) == len(MODULES)
    text = click.Context(main, info_name="volfs").get_help()
    assert all(f"\n{title}:\n" in text for title in GROUPS)


@pytest.mark.parametrize(("name", "context"), CONTEXTS, ids=[name for name, _ in CONTEXTS])
def test_every_help_has_examples_that_are_command_lines(name: str, context: click.Context) -> None:
    examples = example_lines(context.get_help())
    assert examples, f"{name} has no `Examples:` at the end of its docstring"
    for example in examples:
        for line in example.split(";"):
            words = [os.path.expanduser(word) for word in shlex.split(line, comments=True)]
            if words[0] == "export":
                continue
            cut = next((position for position, word in enumerate(words) if word in ("|", ">")), len(words))
            try:
                parse(words[1:cut])
            except click.exceptions.Exit:  # of --help
                pass
            except click.ClickException as error:
                pytest.fail(f"{name}: {line}: {error.format_message()}")


def commands_on(page: Path) -> list[str]:
    """The command lines of a page that are volfs's, from its blocks of a shell; of a pipe, the first."""
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for part in (part for line in lines for part in re.split(r"&&|;|\|", line)):
        words = re.sub(r"^(\w+=\S+ +|sudo +)*", "", part.strip())
        if words.startswith("volfs "):
            found.append(words)
    return found


PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((ROOT / "mount_examples").glob("*/README.md"))]


def test_pages_advise_commands() -> None:
    assert sum(bool(commands_on(page)) for page in PAGES) > 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_a_page_advises_are_command_lines(page: Path) -> None:
    for line in commands_on(page):
        _, *words = shlex.split(line, comments=True)
        cut = next((position for position, word in enumerate(words) if re.match(r"\d?[<>]", word)), len(words))
        try:
            parse([os.path.expanduser(word) for word in words[:cut]])
        except click.exceptions.Exit:  # of --help
            pass
        except click.ClickException as error:
            pytest.fail(f"{page.name}: {line}: {error.format_message()}")


def test_links_to_a_part_of_a_page_lead_to_a_heading() -> None:
    for page in (DOCS / "questions.md", DOCS / "glossary.md"):
        for target, part in re.findall(r"\]\((\w+\.md)#([^)]+)\)", page.read_text()):
            headings = re.findall(r"^#+ (.*)$", (DOCS / target).read_text(), re.MULTILINE)
            there = {re.sub(r"[^\w -]", "", each).strip().lower().replace(" ", "-") for each in headings}
            assert part in there, f"{page.name}: {target}#{part}"


def test_the_glossary_is_in_the_order_of_the_alphabet() -> None:
    words = re.findall(r"^- \*\*(.+?)\*\*", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    assert words == sorted(words)


@pytest.mark.parametrize(("name", "context"), CONTEXTS, ids=[name for name, _ in CONTEXTS])
def test_an_example_of_a_command_is_of_that_command(name: str, context: click.Context) -> None:
    command = context.command_path.split()
    for example in example_lines(context.get_help()):
        words = shlex.split(example, comments=True)
        assert all(word in words for word in command), f"{name}: {example}"


def defined_tests() -> set[str]:
    """``path::name`` and ``path::Class::name`` of every test in the suite."""
    found = set()
    for path in (ROOT / "tests").rglob("*.py"):
        relative = path.relative_to(ROOT).as_posix()
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(f"{relative}::{node.name}")
            elif isinstance(node, ast.ClassDef):
                found.add(f"{relative}::{node.name}")
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                        found.add(f"{relative}::{node.name}::{inner.name}")
            elif isinstance(node, ast.Assign):
                found.update(f"{relative}::{t.id}" for t in node.targets if isinstance(t, ast.Name))
    return found


def test_every_promise_names_a_test_that_exists() -> None:
    text = (DOCS / "SEMANTICS.md").read_text()
    named = set(re.findall(r"`(tests/[\w/.]+::[\w:]+)`", text))
    assert named
    assert named <= defined_tests(), sorted(named - defined_tests())
    for line in text.splitlines():
        if re.match(r"- \*\*\w+\d+\*\*", line):
            promise = text[text.index(line) :].split("\n- **")[0]
            assert "`tests/" in promise, f"no test stands beside: {line}"


def test_every_promise_has_a_name_of_its_own() -> None:
    names = re.findall(r"^- \*\*(\w+)\*\*", (DOCS / "SEMANTICS.md").read_text(), re.MULTILINE)
    assert names and len(names) == len(set(names))


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *EXAMPLES.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_page_about_the_code_names_what_is_there() -> None:
    """``room/module.py`` and ``room/`` of the package, ``tests/…`` of the suite."""
    for page in (DOCS / "design.md", ROOT / "CONTRIBUTING.md"):
        named = re.findall(r"`((?:(?!\.)[\w.]+/)+(?:\w+\.py)?|\w+\.py)`", page.read_text())
        assert named
        roots = (ROOT, ROOT / "volfs", ROOT / "tests" / "product")
        gone = [name for name in named if "ROOM" not in name and not any((root / name).exists() for root in roots)]
        assert not gone, f"{page.name}: {gone}"


def test_what_docstrings_refer_to_is_there() -> None:
    """``:mod:`volfs.…```, and names in a module: functions, classes, their methods and fields."""
    gone = set()
    for module in (ROOT / "volfs").rglob("*.py"):
        for name in re.findall(r":(?:mod|class|meth|func|attr|data):`~?(volfs\.[\w.\s]+)`", module.read_text()):
            path, inner = _module_of("".join(name.split()))
            text = path.read_text()
            made = r"^\s*(?:async def|def|class) {0}\b|^\s*(?:self\.)?{0}\s*[:=]|^from .* import .*\b{0}\b|^    {0},$"
            if any(not re.search(made.format(each), text, re.MULTILINE) for each in inner):
                gone.add((module.name, name))
    assert not gone


def _module_of(name: str) -> tuple[Path, list[str]]:
    """The file of the module in a dotted name, and the names after it."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.exists():
                return path, parts[count:]
    raise AssertionError(name)


def test_the_readme_prints_the_commands_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    script = (ROOT / ".ci" / "run").read_text()
    for command in ("make demo", "make test"):
        assert f"\n{command}\n" in readme or f"\n{command} " in readme
        assert f"\n{command}\n" in script


def test_every_field_of_the_statistics_is_explained(tmp_path: Path) -> None:
    explained = set(re.findall(r"`([\w.]+)`", (DOCS / "monitoring.md").read_text()))
    by_name = {"requests", "latency", "errors", "in_flight"}  # their keys are operations

    async def work() -> None:
        async with serving(make_store(tmp_path / "store"), mountpoint="/mnt") as client:
            client.tree.meter.end(client.tree.meter.begin("read", ()))
            facts = json.loads(await client.read(".volfs/stats.json"))
            metrics = (await client.read(".volfs/metrics")).decode()
        fields = set(facts) | set(facts["latency"]["read"])
        for name in facts:
            if isinstance(facts[name], dict) and name not in by_name:
                fields |= set(facts[name])
        fields |= set(facts["memory"]["parts"]) | {key for part in facts["memory"]["parts"].values() for key in part}
        assert fields <= explained, sorted(fields - explained)
        families = set(re.findall(r"^# TYPE (\w+)", metrics, re.MULTILINE))
        assert families <= explained, sorted(families - explained)

    run(work)
