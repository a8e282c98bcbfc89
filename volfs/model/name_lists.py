"""Lists of names in metadata, which two sides may change at once: they merge as sets.

Decided here: which lists of a ``zarr.json`` are sets of names (label images, the series of a collection, the wells and
fields of a plate), and how two documents merge that differ from their base in nothing else. Not here: when documents
need to be merged (:mod:`volfs.versions.following`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

Json = dict[str, Any]
Path = tuple[str, ...]

_OME: Final[tuple[Path, ...]] = (
    ("labels",),
    ("series",),
    ("plate", "rows"),
    ("plate", "columns"),
    ("plate", "wells"),
    ("well", "images"),
)
NAME_LISTS: Final[tuple[Path, ...]] = tuple(
    ("attributes", *holder, *path) for holder in (("ome",), ()) for path in _OME
)
"""Where they stand: OME-NGFF 0.5 under ``ome``, earlier versions in the attributes themselves."""


def merge_documents(base: bytes | None, ours: bytes, theirs: bytes) -> bytes | None:
    """A ``zarr.json`` with the names that either side has added to its base, without those that either has removed.

    None unless one of the two sides has changed nothing but lists of names; the rest is then as the other side has it.
    Without a base (both made the document) both must say the same but for those lists.
    """
    docs = [_parse(raw) for raw in (base, ours, theirs) if raw is not None]
    if any(doc is None for doc in docs):
        return None
    parsed = [doc for doc in docs if doc is not None]
    mine, other = parsed[-2:]
    before = parsed[0] if base is not None else None
    if before is None:
        if _without_names(mine) != _without_names(other):
            return None
        result = other
    elif _without_names(mine) == _without_names(before):
        result = other
    elif _without_names(other) == _without_names(before):
        result = mine
    else:
        return None
    merged: Json = json.loads(json.dumps(result))
    for path in NAME_LISTS:
        lists = [_at(doc, path) for doc in (before, mine, other)]
        if lists[1] is None and lists[2] is None:
            continue
        names = merge_names(*(found or [] for found in lists))
        if _at(merged, path) != names:
            _set(merged, path, names)
    for holder in (("attributes", "ome"), ("attributes",)):
        _number_wells(_object(merged, (*holder, "plate")))
    return json.dumps(merged, indent=2, ensure_ascii=False).encode()


def merge_names(base: list[Any], ours: list[Any], theirs: list[Any]) -> list[Any]:
    """Three-way merge of lists as sets: theirs in its order, less what ours removed, then what ours added."""
    known, mine, other = ({_name(item) for item in items} for items in (base, ours, theirs))
    kept = [item for item in theirs if _name(item) in mine or _name(item) not in known]
    return kept + [item for item in ours if _name(item) not in known and _name(item) not in other]


def _name(item: Any) -> str:
    if isinstance(item, Mapping):
        return str(item.get("path", item.get("name")))
    return str(item)


def _parse(raw: bytes) -> Json | None:
    try:
        doc = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return doc if isinstance(doc, dict) else None


def _object(doc: Json | None, path: Path) -> Json | None:
    found: Any = doc
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def _at(doc: Json | None, path: Path) -> list[Any] | None:
    """The list of names at a path; None if there is none, or it holds something else."""
    holder = _object(doc, path[:-1])
    found = None if holder is None else holder.get(path[-1])
    if not isinstance(found, list):
        return None
    named = (
        isinstance(i, str) or (isinstance(i, Mapping) and isinstance(i.get("path", i.get("name")), str)) for i in found
    )
    return found if all(named) else None


def _set(doc: Json, path: Path, names: list[Any]) -> None:
    holder = doc
    for step in path[:-1]:
        holder = holder.setdefault(step, {})
    holder[path[-1]] = names


def _without_names(doc: Json) -> Json:
    """The document with every list of names taken out."""
    bare: Json = json.loads(json.dumps(doc))
    for path in NAME_LISTS:
        if _at(bare, path) is not None:
            holder = _object(bare, path[:-1])
            assert holder is not None
            del holder[path[-1]]
    return bare


def _number_wells(plate: Json | None) -> None:
    """Wells name their row and column by index too: those of a merged plate count in its merged lists."""
    if plate is None or not all(isinstance(plate.get(name), list) for name in ("rows", "columns", "wells")):
        return
    at = [{_name(item): index for index, item in enumerate(plate[name])} for name in ("rows", "columns")]
    for well in plate["wells"]:
        if isinstance(well, dict):
            for index, (field, part) in enumerate(
                zip(("rowIndex", "columnIndex"), _name(well).split("/"), strict=False)
            ):
                if part in at[index]:
                    well[field] = at[index][part]
