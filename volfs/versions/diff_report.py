"""A difference in words: for ``--json`` and ``diffs/``, and in lines for people.

Decided here: the words. Not here: what differs (:mod:`volfs.versions.diff`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from volfs.model.box import Box
from volfs.model.box_name import axis_names, box_text
from volfs.versions.diff import FileDiff, NodeDiff, Progress
from volfs.versions.snapshot import ArrayNode

_LABELS = 20
"""Rows of a table of labels."""
_MARKS = {"added": "A", "removed": "D", "changed": "M"}


def facts_of(
    difference: NodeDiff | FileDiff, *, stat: bool, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """What differs at one key, as JSON has it. With ``stat`` nothing is decoded, and no line compared."""
    if isinstance(difference, NodeDiff):
        return _node_facts(difference, stat, progress)
    return _file_facts(difference, stat)


def _node_facts(node: NodeDiff, stat: bool, progress: Progress) -> dict[str, Any]:
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
    voxels = node.voxels(progress)
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
    array = node.new if isinstance(node.new, ArrayNode) else node.old
    if box is None or not isinstance(array, ArrayNode):
        return None
    return box_text(axis_names(array.meta.dimension_names, box.ndim), box)


def lines_of(facts: dict[str, Any], *, stat: bool) -> Iterator[str]:
    """The lines that tell people what :func:`facts_of` says; with ``stat``, bytes too."""
    chunks = facts.get("chunks")
    words = [f"{_count(n, 'chunk')} {kind}" for kind, n in (chunks or {}).items() if n]
    if words:
        words[0] += f", {_count(facts['bytes'], 'byte')}" if stat and facts["bytes"] else ""
        words.append(facts["box"] or "")
    yield f"{_MARKS[facts['change']]}  {facts['key']}" + (f"  {', '.join(words)}" if words else "")
    for change in facts.get("metadata", ()) if facts["change"] == "changed" else ():
        sides = [json.dumps(change[side]) for side in ("old", "new")]
        told = {"added": sides[1], "removed": f"{sides[0]} removed", "changed": f"{sides[0]} -> {sides[1]}"}
        yield f"     {change['name'] or '(all)'}: {told[change['change']]}"
    voxels = facts.get("voxels")
    if voxels is not None and voxels["count"]:
        size = f", largest difference {voxels['largest']:g}, mean {voxels['mean']:.4g}" if voxels["largest"] else ""
        yield f"     {_count(voxels['count'], 'voxel')} in {voxels['box']}{size}"
    labels = facts.get("labels", ())
    for row in labels[:_LABELS]:
        yield f"     {row['old']} -> {row['new']}: {_count(row['voxels'], 'voxel')}"
    if len(labels) > _LABELS or facts.get("more_labels"):
        yield f"     and {'more than ' * facts['more_labels']}{len(labels) - _LABELS:,} other pairs: --json lists them"
    if "lines" in facts:
        if facts["lines"] is None:
            yield "     not text: its bytes differ" if facts["change"] == "changed" else "     not text"
        else:
            yield from (f"     {line}" for line in facts["lines"])


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
