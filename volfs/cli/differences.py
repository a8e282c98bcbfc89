"""``diff``: what differs between two versions, or between one and what is uncommitted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from volfs.cli.frame import Frame, count_text, json_option, parse_dataset_arg, pass_frame, say, say_json, size_text
from volfs.errors import BadInput

if TYPE_CHECKING:
    from volfs.model.box import Box
    from volfs.versions.diff import FileDiff, NodeDiff

_LABELS = 20
"""Rows of a table of labels."""
_MARKS = {"added": "A", "removed": "D", "changed": "M"}


@click.command()
@click.argument("target", metavar="DATASET[@BRANCH]")
@click.argument("a", metavar="[A]", required=False)
@click.argument("b", metavar="[B]", required=False)
@click.option("--stat", is_flag=True, help="Count keys and chunks only: no voxel is decoded.")
@click.option("--exit-code", is_flag=True, help="Exit status 1 if anything differs.")
@json_option
@pass_frame
@click.pass_context
def diff(
    context: click.Context,
    frame: Frame,
    target: str,
    a: str | None,
    b: str | None,
    stat: bool,
    exit_code: bool,
    as_json: bool,
) -> None:
    """Tell what differs between two versions.

    With A and B, refs, between these; with A alone between it and the uncommitted changes of the default branch, or of
    BRANCH; without both between the branch's head and its uncommitted changes. Of arrays it tells chunks, voxels, the
    box around them, and how large differences are; of label images how many voxels went from which label to which; of
    side files the lines.

    \b
    Examples:
      volfs diff cells
      volfs diff cells v3 v5 --stat
      volfs diff cells@exp main --json
    """
    from volfs.versions.diff import NodeDiff

    argument = parse_dataset_arg(target)
    if argument.spec.path or argument.key is not None:
        raise BadInput(f"{target}: diff compares whole versions: name DATASET or DATASET@BRANCH")
    with frame.open(read_only=True) as store:
        dataset = store[argument.spec.dataset]
        if argument.spec.ref is not None and b is not None:
            raise click.UsageError("give a BRANCH for its uncommitted changes, or A and B, not both")
        found = dataset.diff(a, b, branch=argument.spec.ref)
        facts, unreadable = [], []
        for each in found:
            one = _node_facts(each, stat) if isinstance(each, NodeDiff) else _file_facts(each, stat)
            facts.append(one)
            unreadable += [f"{each.key} chunk {at}: {why}" for at, why in one.pop("unreadable", {}).items()]
            if not as_json:
                for line in _lines(one, stat):
                    say(line)
    if as_json:
        say_json(facts)
    for why in unreadable:
        say(f"volfs: {why}", err=True)
    if unreadable or (exit_code and facts):
        context.exit(1)


def _node_facts(node: NodeDiff, stat: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "key": node.key,
        "kind": "array" if node.is_array else "group",
        "change": node.change,
        "metadata": [{"name": m.name, "change": m.change, "old": m.old, "new": m.new} for m in node.metadata],
    }
    if not node.is_array:
        return facts
    counts = node.counts()
    facts["chunks"] = {"added": counts.added, "removed": counts.removed, "changed": counts.changed}
    facts["bytes"], facts["box"] = counts.bytes, _box(node, counts.box)
    if stat or not node.comparable:
        return facts
    voxels = node.voxels()
    facts["voxels"] = {
        "count": voxels.count,
        "box": _box(node, voxels.box),
        "largest": voxels.largest,
        "mean": voxels.mean,
    }
    if node.is_label:
        facts["labels"] = [{"old": old, "new": new, "voxels": n} for (old, new), n in voxels.labels.items()]
        facts["more_labels"] = voxels.more_labels
    facts["unreadable"] = voxels.unreadable
    return facts


def _file_facts(file: FileDiff, stat: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"key": file.key, "kind": "file", "change": file.change}
    return facts if stat else {**facts, "lines": file.lines()}


def _box(node: NodeDiff, box: Box | None) -> str | None:
    from volfs.model.box_name import axis_names, box_text
    from volfs.versions.snapshot import ArrayNode

    array = node.new if isinstance(node.new, ArrayNode) else node.old
    if box is None or not isinstance(array, ArrayNode):
        return None
    return box_text(axis_names(array.meta.dimension_names, box.ndim), box)


def _lines(facts: dict[str, Any], stat: bool) -> Iterator[str]:
    """The lines that tell people what :func:`_node_facts` or :func:`_file_facts` says."""
    import json

    chunks = facts.get("chunks")
    words = [f"{count_text(n, 'chunk')} {kind}" for kind, n in (chunks or {}).items() if n]
    if words:
        words[0] += f", {size_text(facts['bytes'])}" if stat and facts["bytes"] else ""
        words.append(facts["box"] or "")
    yield f"{_MARKS[facts['change']]}  {facts['key']}" + (f"  {', '.join(words)}" if words else "")
    for change in facts.get("metadata", ()) if facts["change"] == "changed" else ():
        sides = [json.dumps(change[side]) for side in ("old", "new")]
        told = {"added": sides[1], "removed": f"{sides[0]} removed", "changed": f"{sides[0]} -> {sides[1]}"}
        yield f"     {change['name'] or '(all)'}: {told[change['change']]}"
    voxels = facts.get("voxels")
    if voxels is not None and voxels["count"]:
        size = f", largest difference {voxels['largest']:g}, mean {voxels['mean']:.4g}" if voxels["largest"] else ""
        yield f"     {count_text(voxels['count'], 'voxel')} in {voxels['box']}{size}"
    labels = facts.get("labels", ())
    for row in labels[:_LABELS]:
        yield f"     {row['old']} -> {row['new']}: {count_text(row['voxels'], 'voxel')}"
    if len(labels) > _LABELS or facts.get("more_labels"):
        yield f"     and {'more than ' * facts['more_labels']}{len(labels) - _LABELS:,} other pairs: --json lists them"
    if "lines" in facts:
        if facts["lines"] is None:
            yield "     not text: its bytes differ" if facts["change"] == "changed" else "     not text"
        else:
            yield from (f"     {line}" for line in facts["lines"])
