"""Metadata that two sides have changed at once: documents merge by key, and lists of names in them as sets.

Decided here: which lists of a ``zarr.json`` are sets of names (label images, the series of a collection, the wells and
fields of a plate), and how two documents merge. Not here: JSON in general (:mod:`volfs.model.three_way`), and when
documents need to be merged (:mod:`volfs.versions.commit.overlap`, :mod:`volfs.versions.combine`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from volfs.errors import BadInput
from volfs.model.three_way import CONFLICT, merge_json, same_json

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
_PLACES: Final = ("rowIndex", "columnIndex")
"""How a well says where it is, beside its path."""


def merge_documents(base: bytes | None, ours: bytes, theirs: bytes) -> bytes | None:
    """A ``zarr.json`` with the names that either side has added to its base, without those that either has removed.

    The rest merges by key. None where both sides have changed one key, or what is said of one name, each in another
    way. Without a base (both made the document) both must say the same but for those lists.
    """
    docs = [_parse(raw) for raw in (base, ours, theirs) if raw is not None]
    if any(doc is None for doc in docs):
        return None
    parsed = [doc for doc in docs if doc is not None]
    mine, other = parsed[-2:]
    before = parsed[0] if base is not None else None
    bare = [_without_names(doc) for doc in (mine, other)]
    if before is None and not same_json(*bare):
        return None
    merged = bare[1] if before is None else merge_json(_without_names(before), *bare)
    if merged is CONFLICT:
        return None
    merged = json.loads(json.dumps(merged))
    for path in NAME_LISTS:
        lists = [_at(doc, path) for doc in (before, mine, other)]
        if lists[1] is None and lists[2] is None:
            continue
        if any(_is_other(doc, path) for doc in (before, mine, other)):
            return None
        if any(_object(doc, path[:-1]) is None for doc in (mine, other)):
            # One side has removed what held the list: the other must have left that as it was.
            if _text(lists[1] or lists[2]) != _text(lists[0]):
                return None
            continue
        names = merge_names(*(found or [] for found in lists))
        if names is None:
            return None
        if _at(merged, path) != names:
            _set(merged, path, names)
    for holder in (("attributes", "ome"), ("attributes",)):
        _number_wells(_object(merged, (*holder, "plate")))
    return json.dumps(merged, indent=2, ensure_ascii=False).encode()


def merge_names(base: list[Any], ours: list[Any], theirs: list[Any]) -> list[Any] | None:
    """Three-way merge of lists as sets: theirs in its order, less what ours removed, then what ours added.

    None if both sides have changed what is said of one name, each in another way.
    """
    known, mine, other = (_by_name(items) for items in (base, ours, theirs))
    if known is None or mine is None or other is None:
        return None
    picked: dict[str, Any] = {}
    for name in {**other, **mine}:
        said = [_said(found.get(name)) for found in (known, mine, other)]
        if said[1] == said[0]:
            item = other.get(name)
        elif said[2] in (said[0], said[1]):
            item = mine.get(name)
        else:
            return None
        if item is not None:
            picked[name] = item
    return list(picked.values())


def renamed_in(document: Json, before: str | None, after: str | None) -> bool:
    """Have a group's lists of names, and the levels of its images, follow a node that moved; False if none names it.

    ``before`` and ``after`` are its paths as the group sees them, None where it lies elsewhere: a list of plain names
    then loses it, or gets it if the group is one of label images.
    """
    changed = False
    for path in NAME_LISTS:
        names = _at(document, path)
        if names is None:
            continue
        kept: list[Any] = []
        for item in names:
            if before is None or _name(item) != before:
                kept.append(item)
            elif after is not None:
                field = "path" if isinstance(item, Mapping) and "path" in item else "name"
                kept.append({**item, field: after} if isinstance(item, Mapping) else after)
        if before is None and after is not None and path[-1] == "labels" and "/" not in after and after not in names:
            kept.append(after)
        if kept != names:
            _set(document, path, kept)
            changed = True
    for holder in (("attributes", "ome"), ("attributes",)):
        found = (_object(document, holder) or {}).get("multiscales")
        for multiscale in found if isinstance(found, list) else ():
            levels = multiscale.get("datasets") if isinstance(multiscale, dict) else None
            for level in levels if isinstance(levels, list) else ():
                if isinstance(level, dict) and before is not None and level.get("path") == before:
                    if after is None:
                        raise BadInput(f"{before} is a level of an image, which would lack it")
                    level["path"] = after
                    changed = True
    return changed


def _by_name(items: list[Any]) -> dict[str, Any] | None:
    """None if the list says two things of one name."""
    found: dict[str, Any] = {}
    for item in items:
        if _said(found.setdefault(_name(item), item)) != _said(item):
            return None
    return found


def _said(item: Any) -> str:
    """An item without the row and column index of a well: its name has both, and they are numbered anew."""
    if isinstance(item, Mapping):
        item = {field: value for field, value in item.items() if field not in _PLACES}
    return _text(item)


def _text(value: Any) -> str:
    """Text that is equal for equal JSON alone: Python takes ``true`` for equal to 1."""
    return json.dumps(value, sort_keys=True)


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


def _is_other(doc: Json | None, path: Path) -> bool:
    """Whether the document has something other than a list of names at a path."""
    holder = _object(doc, path[:-1])
    return holder is not None and path[-1] in holder and _at(doc, path) is None


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
    """Set the row and column index of each well of a merged plate to its place in the merged lists."""
    if plate is None or not all(isinstance(plate.get(name), list) for name in ("rows", "columns", "wells")):
        return
    at = [{_name(item): index for index, item in enumerate(plate[name])} for name in ("rows", "columns")]
    for well in plate["wells"]:
        if isinstance(well, dict):
            for index, (field, part) in enumerate(zip(_PLACES, _name(well).split("/"), strict=False)):
                if part in at[index]:
                    well[field] = at[index][part]
