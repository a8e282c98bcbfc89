"""``log``, ``show`` and ``blame``: which versions there are, what each changed, and which wrote a voxel."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from volfs.cli.frame import (
    Frame,
    count_text,
    json_option,
    parse_dataset_arg,
    pass_frame,
    say,
    say_json,
    say_table,
    size_text,
    time_text,
    version_facts,
)
from volfs.errors import BadInput
from volfs.model.display import printable, printable_lines

if TYPE_CHECKING:
    from volfs.model.box import Box
    from volfs.model.graph import VersionInfo
    from volfs.versions.committed.array import VersionArray
    from volfs.versions.committed.version_files import NodeChanges
    from volfs.versions.dataset import Dataset
    from volfs.versions.ledger import RefChange
    from volfs.versions.snapshot import ArrayNode
    from volfs.versions.store import Store

_TIME = "2026-11-01, 2026-11-01T12:00 (UTC), or an age such as 12h, 7d, 2w."


@click.command()
@click.argument("target", metavar="DATASET[/PATH][@REF][:KEY]")
@click.option("-n", "--number", type=click.IntRange(min=1), metavar="N", help="At most N versions.")
@click.option("--all", "every", is_flag=True, help="Every version, whatever branch it is on, or on none.")
@click.option("--first-parent", is_flag=True, help="Without the versions that were merged in.")
@click.option("--graph", is_flag=True, help="Draw how the versions descend from each other.")
@click.option("--oneline", is_flag=True, help="One line each.")
@click.option("--stat", is_flag=True, help="What each changed: keys, bytes, and the box around changed chunks.")
@click.option("--author", metavar="REGEX", help="Whose author matches.")
@click.option("--grep", metavar="REGEX", help="Whose message matches.")
@click.option("--since", metavar="TIME", help=f"Not older than {_TIME}")
@click.option("--until", metavar="TIME", help="Not younger.")
@click.option("--box", metavar="BOX", help="That changed chunks of the array at PATH in z0-64_y100-612.")
@click.option("--refs", is_flag=True, help="Instead: every change of a branch or tag, who made it and why.")
@json_option
@pass_frame
def log(
    frame: Frame,
    target: str,
    number: int | None,
    every: bool,
    first_parent: bool,
    graph: bool,
    oneline: bool,
    stat: bool,
    author: str | None,
    grep: str | None,
    since: str | None,
    until: str | None,
    box: str | None,
    refs: bool,
    as_json: bool,
) -> None:
    """List the versions of a dataset, newest first.

    Those of the default branch, or of REF, and all that was merged into them. With PATH, or KEY (zarr/… or files/…),
    only those that changed something there.

    \b
    Examples:
      volfs log cells
      volfs log cells@exp -n 5 --oneline
      volfs log cells/labels/nuclei --box z0-64_y100-612 --stat
      volfs log cells --author ada --since 2w
      volfs log cells --refs
    """
    from itertools import islice

    argument = parse_dataset_arg(target, key=True)
    if every and argument.spec.ref is not None:
        raise click.UsageError("--all is every version: give no REF with it")
    with frame.open(read_only=True) as store:
        dataset = store[argument.spec.dataset]
        if refs:
            _log_of_refs(dataset, number, as_json)
            return
        path = argument.where or None
        if argument.key is None and not dataset.ever_had(argument.where) and dataset.ever_had(argument.spec.path):
            path = argument.spec.path  # a key, written as a path: cells/files/notes.txt
        chosen = dataset.log(
            argument.spec.ref,
            all=every,
            first_parent=first_parent,
            path=path,
            box=None if box is None else _box(store, target, box),
            author=author,
            grep=grep,
            since=since,
            until=until,
        )
        versions = islice(chosen, number)
        names, noted = _names(dataset), dataset.noted()
        if as_json:
            listed = list(versions)
            below = dataset.changes_below(path, [info.number for info in listed]) if stat and path else {}
            say_json([_facts(dataset, info, names, stat, noted, below.get(info.number)) for info in listed])
            return
        names = _shown_names(dataset)
        shown = list(versions) if graph or (stat and path) else versions
        below = dataset.changes_below(path, [info.number for info in shown]) if stat and path else {}
        drawn = _drawn(dataset, shown) if graph and isinstance(shown, list) else None
        for position, info in enumerate(shown):
            lines = [_line(info, names)] if oneline else _lines(info, names, first=position == 0 or graph)
            if not oneline and info.content_id in noted:
                lines += _note_lines(dataset, info)
            if stat:
                lines += [f"    {line}" for line in _stat(dataset, info, below.get(info.number))]
            _say(lines, None if drawn is None else drawn[position])


def _names(dataset: Dataset) -> dict[int, list[str]]:
    """The refs of each version."""
    names: dict[int, list[str]] = {}
    for ref, at in (*dataset.branches().items(), *((f"tag {tag}", at) for tag, at in dataset.tags().items())):
        names.setdefault(at, []).append(ref)
    return names


def _shown_names(dataset: Dataset) -> dict[int, list[str]]:
    """The refs of each version, for people: of those that were dropped, which no ref names, that they were."""
    return {**_names(dataset), **{number: ["dropped"] for number in dataset.dropped()}}


def _box(store: Store, target: str, text: str) -> Box:
    from volfs.model.box_name import axis_names, parse_box

    node = _array(store, target)
    return parse_box(text, axis_names(node.meta.dimension_names, node.meta.ndim), node.meta.shape)


def _array(store: Store, target: str) -> ArrayNode:
    """The array that an argument names, or the s0 of the image."""
    from volfs.errors import NotFound
    from volfs.versions.snapshot import ArrayNode
    from volfs.volume.image import image_at

    argument = parse_dataset_arg(target, key=True)
    snapshot = argument.snapshot(store)
    path = argument.where.removeprefix("zarr").strip("/")
    image = image_at(snapshot, path)
    node = image.levels[0].array if image is not None else snapshot.node(path)
    if not isinstance(node, ArrayNode) or argument.where.startswith("files"):
        raise NotFound(f"{target}: voxels and a box are those of an array, and there is none at {path or '/'}")
    return node


def _note_lines(dataset: Dataset, info: VersionInfo) -> list[str]:
    """What was said of a version later."""
    lines = [""]
    for note in dataset.notes(info.number):
        first, *others = printable_lines(note.text)
        lines.append(f"    {time_text(note.time_ns)}  {printable(note.author)}: {first}")
        lines += [f"        {line}".rstrip() for line in others]
    return lines


def _facts(
    dataset: Dataset,
    info: VersionInfo,
    names: Mapping[int, list[str]],
    stat: bool,
    noted: Collection[str],
    nodes: Mapping[str, NodeChanges] | None = None,
) -> dict[str, Any]:
    refs, dropped = names.get(info.number, []), info.number in dataset.dropped()
    facts = {**version_facts(info), "refs": refs, "dropped": dropped}
    if info.content_id in noted:
        facts["notes"] = [asdict(note) for note in dataset.notes(info.number)]
    return {**facts, "changes": _changes(dataset, info.number, nodes)} if stat else facts


def _line(info: VersionInfo, names: Mapping[int, list[str]]) -> str:
    refs = f"  ({', '.join(names[info.number])})" if info.number in names else ""
    subject = info.message.partition("\n")[0]
    return f"{click.style(f'v{info.number}', fg='yellow')}  {time_text(info.time_ns)}  {printable(subject + refs)}"


def _lines(info: VersionInfo, names: Mapping[int, list[str]], *, first: bool) -> list[str]:
    refs = f"  ({', '.join(names[info.number])})" if info.number in names else ""
    lines = [] if first else [""]
    lines.append(click.style(f"v{info.number}", fg="yellow") + printable(refs))
    if len(info.parents) > 1 or (info.parents != (info.number - 1,) and info.parents):
        lines.append("parent  " + ", ".join(f"v{parent}" for parent in info.parents))
    lines += [printable(f"author  {info.author}"), f"date    {time_text(info.time_ns)}", ""]
    return lines + [f"    {line}".rstrip() for line in printable_lines(info.message or "(no message)")]


def _say(lines: Sequence[str], drawn: tuple[str, Sequence[str], str] | None) -> None:
    """Lines that are fit for a terminal; ``drawn`` stands before the first, between, and before the others."""
    if drawn is None:
        for line in lines:
            click.echo(line)
        return
    head, between, beside = drawn
    for number, line in enumerate(lines):
        click.echo(f"{head if number == 0 else beside} {line}".rstrip())
    for line in between:
        click.echo(line)


def _drawn(dataset: Dataset, shown: Sequence[VersionInfo]) -> list[tuple[str, Sequence[str], str]]:
    """For each version: the drawing before its first line, the lines that follow it, and the one beside the others."""
    wanted = {info.number for info in shown}
    lanes: list[int] = []
    found: list[tuple[str, list[str], str]] = []
    for info in shown:
        number = info.number
        if number not in lanes:
            lanes.append(number)
        while lanes.count(number) > 1:  # the lines of several children come together
            last = len(lanes) - 1 - lanes[::-1].index(number)
            found[-1][1].append(_bent("/", last, len(lanes)))
            del lanes[last]
        at = lanes.index(number)
        head = " ".join("*" if lane == at else "|" for lane in range(len(lanes)))
        parents = _shown_parents(dataset, number, wanted)
        before = len(lanes)
        if parents:
            lanes[at] = parents[0]
            lanes += [parent for parent in parents[1:] if parent not in lanes]
        else:
            del lanes[at]
        between = [_bent("\\", before, len(lanes))] if len(lanes) > before else []
        between += [_bent("/", at + 1, before)] if len(lanes) < before and at < len(lanes) else []
        found.append((head, between, " ".join("|" for _ in lanes)))
    return [(head, tuple(between), beside) for head, between, beside in found]


def _bent(bend: str, first: int, count: int) -> str:
    """A line between two versions, on which the lanes from ``first`` on go one to the right or to the left."""
    straight = " ".join("|" for _ in range(first))
    return straight + bend + "".join(f" {bend}" for _ in range(count - first - 1))


def _shown_parents(dataset: Dataset, number: int, wanted: set[int]) -> list[int]:
    """The nearest ancestors that are shown, along each parent."""
    graph, found, seen = dataset.graph, dict[int, None](), set[int]()
    todo = list(reversed(graph.info(number).parents))
    while todo:
        parent = todo.pop()
        if parent in seen:
            continue
        seen.add(parent)
        if parent in wanted:
            found.setdefault(parent)
        elif parent > min(wanted):
            todo += reversed(graph.info(parent).parents)
    return list(found)


def _log_of_refs(dataset: Dataset, number: int | None, as_json: bool) -> None:
    from itertools import islice

    from volfs.errors import Damaged

    found, damage = [], []
    for line in dataset.ref_log():
        if isinstance(line, Damaged):
            damage.append(str(line))
        else:
            found.append(line)
        if number is not None and len(found) >= number:
            break
    if as_json:
        say_json(list(islice(map(_ref_facts, found), number)))
    else:
        rows = [(time_text(c.time_ns), _ref_name(c), _moved(c), c.who, c.why) for c in found]
        say_table(rows)
    for why in damage:
        say(f"volfs: {why}", err=True)


def _ref_name(change: RefChange) -> str:
    return change.name if change.kind.may_be_empty else f"tag {change.name}"


def _moved(change: RefChange) -> str:
    old, new = (
        None if one is None else f"v{one.version}" if one.version else "empty" for one in (change.old, change.new)
    )
    if new is None:
        return f"{old or '?'} removed"
    return f"{old} -> {new}" if old is not None else new


def _ref_facts(change: RefChange) -> dict[str, Any]:
    return {
        "time_ns": change.time_ns,
        "who": change.who,
        "kind": change.kind.word,
        "ref": change.name,
        "was": change.was,
        "from": None if change.old is None else change.old.version,
        "to": None if change.new is None else change.new.version,
        "why": change.why,
    }


@click.command()
@click.argument("target", metavar="DATASET[@REF]")
@json_option
@pass_frame
def show(frame: Frame, target: str, as_json: bool) -> None:
    """Tell of one version, and of what it changed.

    Without REF, of the newest of the default branch. What it changed is told against its first parent.

    \b
    Examples:
      volfs show cells
      volfs show cells@main~2
    """
    argument = parse_dataset_arg(target, key=True)
    if argument.spec.path or argument.key is not None:
        raise BadInput(f"{target}: show tells of a whole version; volfs log {target} finds those that changed a path")
    with frame.open(read_only=True) as store:
        dataset = store[argument.spec.dataset]
        info = dataset.info(dataset.resolve(argument.spec.ref or dataset.default_branch))
        names, changes = _names(dataset), dataset.version(info.number).changes()
        if as_json:
            facts = _facts(dataset, info, names, True, dataset.noted(), changes.nodes)
            say_json({**facts, "meta": dict(changes.meta)})
            return
        names = _shown_names(dataset)
        notes = _note_lines(dataset, info) if info.content_id in dataset.noted() else []
        said = [printable(f"    {name}={value}") for name, value in sorted(changes.meta.items())]
        lines = [*_lines(info, names, first=True), *(["", *said] if said else []), *notes]
        _say([*lines, f"    {info.content_id}", ""], None)
        _say(_stat(dataset, info, changes.nodes), None)


def _changes(dataset: Dataset, number: int, nodes: Mapping[str, NodeChanges] | None = None) -> list[dict[str, Any]]:
    """The changes of a version by node, and the voxels around them: all of them, or those given."""
    version = dataset.version(number)
    parents = version.info.parents
    before = dataset.version(parents[0]) if parents else None
    facts = []
    for path, node in sorted((version.changes().nodes if nodes is None else nodes).items()):
        box = None
        if node.chunks is not None:
            at = path.removeprefix("zarr").strip("/")
            array = version.array(at) or (None if before is None else before.array(at))
            box = None if array is None else _voxels(array, node.chunks)
        facts.append({"path": path, "put": node.put, "removed": node.removed, "bytes": node.bytes, "box": box})
    return facts


def _voxels(array: VersionArray, chunks: Box) -> str:
    from volfs.model.box import Box
    from volfs.model.box_name import axis_names, box_text

    size, shape = array.meta.grid.chunk_shape, array.meta.shape
    start = tuple(a * c for a, c in zip(chunks.start, size, strict=True))
    stop = tuple(max(a, min(b * c, n)) for a, b, c, n in zip(start, chunks.stop, size, shape, strict=True))
    return box_text(axis_names(array.meta.dimension_names, len(shape)), Box(start, stop))


def _stat(dataset: Dataset, info: VersionInfo, nodes: Mapping[str, NodeChanges] | None) -> list[str]:
    """The lines that tell what a version changed: all of it, or what is given."""
    rows = []
    for change in _changes(dataset, info.number, nodes):
        counts = [count_text(change["put"], "key")] if change["put"] else []
        counts += [f"{count_text(change['removed'], 'key')} removed"] if change["removed"] else []
        rows.append((change["path"], ", ".join(counts) or "described", size_text(change["bytes"]), change["box"] or ""))
    widths = [max((len(printable(row[column])) for row in rows), default=0) for column in range(4)]
    return [
        "  ".join(printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


@click.command()
@click.argument("target", metavar="DATASET/PATH[@REF]")
@click.argument("voxel", metavar="Z,Y,X")
@json_option
@pass_frame
def blame(frame: Frame, target: str, voxel: str, as_json: bool) -> None:
    """Tell which version wrote a voxel, and its chunk.

    PATH is an array or an image, of which s0 is meant; the voxel has one number per axis, in their order, from 0.
    Without REF uncommitted changes count. What a merge has taken over is its writer's.

    \b
    Examples:
      volfs blame cells 12,100,100
      volfs blame cells/labels/nuclei@v7 0,16,16
    """
    import re

    from volfs.model.box import Box
    from volfs.model.names import subject
    from volfs.versions.blame import UNCOMMITTED, chunk_writers, voxel_writer

    if not re.fullmatch(r"[0-9]{1,18}(,[0-9]{1,18})*", voxel):
        raise BadInput(f"{voxel!r} is no voxel: write one number per axis, such as 12,100,100")
    at = tuple(map(int, voxel.split(",")))
    with frame.open(read_only=True) as store:
        array = _array(store, target)
        dataset = store[parse_dataset_arg(target).spec.dataset]
        wrote = voxel_writer(array, at)
        end = tuple(i + 1 for i in at)
        chunk = int(chunk_writers(array, array.meta.grid.chunks(Box(at, end))).item())
        facts = {
            what: None if number <= 0 else version_facts(dataset.info(number))
            for what, number in (("voxel", wrote), ("chunk", chunk))
        }
    if as_json:
        uncommitted = [what for what, number in (("voxel", wrote), ("chunk", chunk)) if number == UNCOMMITTED]
        say_json({**facts, "uncommitted": uncommitted})
        return
    for what, number in (("voxel", wrote), ("chunk", chunk)):
        info = facts[what]
        if info is None:
            say(f"{what}  {'not committed yet' if number == UNCOMMITTED else 'never written'}")
        else:
            say(f"{what}  {info['version']}  {info['time']}  {info['author']}  {subject(info['message'])}")
