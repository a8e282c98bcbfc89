"""The generated texts of a mount: ``dataset.json``, ``version.json``, ``info.json``, ``status.json``, ``log.txt`` and
``README.txt``. Pure functions from plain values to bytes, the same bytes for the same values.

What the values are is the tree's to find out. JSON keys are for people and scripts: they are kept once released.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from volfs.model.box import Index
from volfs.model.display import printable, printable_json, printable_lines
from volfs.model.facts import Rescale
from volfs.model.graph import VersionInfo
from volfs.model.ngff import Axis


@dataclass(frozen=True, slots=True)
class LevelFacts:
    """One level of an image, for ``dataset.json``."""

    name: str
    shape: Index
    voxel_size: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """One image of a snapshot, for ``dataset.json``. ``path`` is its hierarchy path, "" for the root."""

    path: str
    axes: tuple[Axis, ...]
    dtype: np.dtype[Any]
    levels: tuple[LevelFacts, ...]
    is_label: bool = False


@dataclass(frozen=True, slots=True)
class ChangeFacts:
    """The changes of a version, or a working copy, at one node (``zarr/s0``) or below one directory (``files``)."""

    path: str
    put: int
    removed: int
    bytes: int


def to_json(value: Any) -> bytes:
    """Indented JSON with a final newline; lists of plain values stay on one line.

    JSON is UTF-8 (RFC 8259): a byte of a name that is not becomes an escape, which Python reads as the same name.
    """
    return (_render(value, "") + "\n").encode("utf-8", "backslashreplace")


def _render(value: Any, indent: str) -> str:
    deeper = indent + "  "
    if isinstance(value, Mapping) and value:
        lines = [f"{deeper}{_scalar(str(key))}: {_render(item, deeper)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list | tuple) and value:
        if not any(isinstance(item, Mapping | list | tuple) for item in value):
            return "[" + ", ".join(map(_scalar, value)) + "]"
        return "[\n" + ",\n".join(deeper + _render(item, deeper) for item in value) + f"\n{indent}]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    return printable_json(json.dumps(value, ensure_ascii=False))


def time_text(time_ns: int) -> str:
    """``2026-03-01T09:30:00Z``."""
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def dataset_json(
    name: str,
    *,
    default_branch: str,
    branches: Mapping[str, int],
    tags: Mapping[str, int],
    latest: VersionInfo | None,
    images: Sequence[ImageFacts],
    parts: Sequence[str] = (),
) -> bytes:
    """Axes, shape, dtype, voxel size, levels and refs: of the images on the default branch. Heads of branches
    without a version are null. ``parts``: what is here of a partial clone, in words; all else cannot be read."""
    return to_json(
        {
            "name": name,
            "images": [_image(image) for image in images],
            "default_branch": default_branch,
            "branches": {ref: f"v{number}" if number else None for ref, number in sorted(branches.items())},
            "tags": {ref: f"v{number}" for ref, number in sorted(tags.items())},
            "latest": f"v{latest.number}" if latest else None,
            "latest_time": time_text(latest.time_ns) if latest else None,
            **({"partial": parts} if parts else {}),
        }
    )


def _image(image: ImageFacts) -> dict[str, Any]:
    finest = image.levels[0]
    return {
        "path": image.path,
        "kind": "labels" if image.is_label else "image",
        "axes": [axis.name for axis in image.axes],
        "shape": finest.shape,
        "dtype": image.dtype.name,
        "voxel_size": finest.voxel_size,
        "units": [axis.unit for axis in image.axes],
        "levels": [
            {"name": level.name, "shape": level.shape, "voxel_size": level.voxel_size} for level in image.levels
        ],
    }


def version_json(info: VersionInfo, changes: Sequence[ChangeFacts], meta: Mapping[str, str] | None = None) -> bytes:
    """Id, parents, author, date, message, what else was said of it, if anything was, and the changes of the version."""
    return to_json({**_version(info), **({"meta": dict(meta)} if meta else {}), "changes": _changes(changes)})


def _version(info: VersionInfo) -> dict[str, Any]:
    return {
        "version": f"v{info.number}",
        "parents": [f"v{parent}" for parent in info.parents],
        "author": info.author,
        "time": time_text(info.time_ns),
        "message": info.message,
        "content_id": info.content_id,
    }


def _changes(changes: Sequence[ChangeFacts]) -> list[dict[str, Any]]:
    return [
        {"path": change.path, "put": change.put, "removed": change.removed, "bytes": change.bytes} for change in changes
    ]


def info_json(
    *,
    axes: Sequence[Axis],
    shape: Index,
    dtype: np.dtype[Any],
    voxel_size: Sequence[float],
    chunk_shape: Index,
    codecs: Sequence[Mapping[str, Any]],
    fill_value: Any,
    shard_shape: Index | None = None,
    rescale: Rescale | None = None,
    source: Mapping[str, Any] | None = None,
    is_label: bool = False,
    samples: str | None = None,
    provisional: bool = False,
) -> bytes:
    """The description of a level: shape, dtype, axes, voxel size, chunk shape, codecs; the factors that take its voxels
    to real values, and the facts from its image's source. ``samples`` is the axis of a pixel's red, green and blue;
    ``provisional``: no metadata says yet that this is a level."""
    value: dict[str, Any] = {
        "kind": "labels" if is_label else "image",
        "shape": shape,
        "dtype": dtype.name,
        "axes": [axis.name for axis in axes],
        "voxel_size": list(voxel_size),
        "units": [axis.unit for axis in axes],
        "chunk_shape": chunk_shape,
    }
    if samples is not None:
        value["samples"] = samples
    if shard_shape is not None:
        value["shard_shape"] = shard_shape
    value |= {"fill_value": _fill(fill_value), "codecs": list(codecs)}
    if rescale is not None:
        value["rescale"] = rescale.attributes()
    if source:
        value["source"] = source
    if provisional:
        value["provisional"] = True
    return to_json(value)


def _fill(value: Any) -> Any:
    """JSON has no complex numbers, no raw bytes, no infinities."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, complex):
        return [_fill(value.real), _fill(value.imag)]
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, float) and not np.isfinite(value):
        return {"inf": "Infinity", "-inf": "-Infinity"}.get(str(value), "NaN")
    return value


def status_json(
    *,
    branch: str,
    head: VersionInfo | None,
    changes: Sequence[ChangeFacts] = (),
    held: Mapping[str, str] | None = None,
    left_behind: Sequence[str] = (),
    rejected: Sequence[Mapping[str, Any]] = (),
    staged: Sequence[Mapping[str, Any]] = (),
    action: Mapping[str, Any] | None = None,
    writer: str | None = None,
    behind: Mapping[str, Any] | None = None,
) -> bytes:
    """The state of a working copy. ``held`` maps keys to reasons; ``rejected`` are slices that never decoded;
    ``action`` is what was ordered last, under way or done; ``writer`` holds the branch elsewhere; ``behind`` says over
    which older version the changes lie, and in which keys they collide with the head."""
    return to_json(
        {
            "branch": branch,
            "head": f"v{head.number}" if head else None,
            "behind": behind,
            "clean": not changes and not held and not staged,
            "changes": _changes(changes),
            "held": [{"key": key, "reason": reason} for key, reason in sorted((held or {}).items())],
            "left_behind": sorted(left_behind),
            "staged": list(staged),
            "rejected": list(rejected),
            "action": action,
            "writer": writer,
        }
    )


def log_txt(versions: Sequence[VersionInfo], refs: Mapping[int, Sequence[str]] | None = None) -> bytes:
    """Versions, newest first: number, refs (or that it was dropped), time, author, and the message indented below."""
    blocks = []
    for info in sorted(versions, key=lambda info: info.number, reverse=True):
        names = ", ".join((refs or {}).get(info.number, ()))
        parents = ", ".join(f"v{parent}" for parent in info.parents) or "none"
        message = "\n".join(f"    {line}".rstrip() for line in printable_lines(info.message or "(no message)"))
        blocks.append(
            f"v{info.number}{f'  ({names})' if names else ''}\n"
            f"parent  {parents}\n"
            f"author  {printable(info.author)}\n"
            f"date    {time_text(info.time_ns)}\n"
            f"\n{message}\n"
        )
    return "\n".join(blocks).encode("utf-8", "surrogateescape") if blocks else b"no versions yet\n"


def readme_txt(*, store: str, datasets: Sequence[str], writable: bool) -> bytes:
    """``README.txt`` at the root of a mount: what is where, and how to write, by files alone, in about forty lines."""
    shown = list(datasets[:8])
    names = ", ".join(shown) + (f" and {len(datasets) - len(shown)} more" if len(datasets) > len(shown) else "")
    example = shown[0] if shown else "DATASET"
    writing = (
        f"""Writing goes into branches, with any program. In {example}/branches/main:
  s0/xy/z00012.png      copy a PNG, TIFF or NPY of the same shape and type over a slice
  s0/volume.npy  …      write voxels in place (numpy: mmap_mode="r+"); the header stays as it is
  zarr/  files/         create, change and remove Zarr keys and side files
To make a version, and whatever else, write into the files of {example}/branches/main/.volfs:
  echo "what changed" > commit       lines that follow belong to the message; so does a last line
                                     Author: NAME <MAIL>. Or write it into message, and - into commit
  cat status.json                    what has changed, what is refused or stands in the way, and why
  cat errors.txt                     the last refusals in words: programs often just say "Invalid argument"
  echo s0/xy/z00012.png > discard    drop a refused slice, a key (zarr/s0, files/notes.txt) or, with all,
                                     everything since the last version
                                     "busy": another one is going on; write again when status.json says done
  echo ours > update                 where the branch is behind: keep yours, or write theirs
  mkdir {example}/branches/exp   mkdir {example}/branches/exp@v3    a branch here, or from v3; rmdir removes it
  ln -s ../versions/v3 {example}/tags/paper   or   echo paper v3 > tag    a tag; rm removes it"""
        if writable
        else "This mount is read-only."
    )
    return f"""volfs: versioned image volumes as plain directories and files

Store:    {store}
Datasets: {names or "none yet (volfs import NAME FILES makes one)"}

DATASET/
  dataset.json, log.txt      what it is; its versions, newest first
  versions/v1 … latest       snapshots that never change
  branches/main              the newest state, with uncommitted changes
  tags/                      names for versions

In a snapshot (a version, a branch, a tag):
  thumbnail.png, version.json   a picture; who made it, when and why
  zarr/  files/              the Zarr v3 hierarchy (OME-Zarr 0.5), every chunk a file; side files
  formats/                   the same for other programs: OME-Zarr 0.4, N5, BigDataViewer, precomputed, tiles
  labels/NAME/s0/ …          label images, with all that follows
  s0/ s1/ …                  levels of resolution, s0 the finest
    info.json, chunks        shape, type, voxel size; the level's own chunk files
    xy/z00012.png            slices along z; xz/ along y (z runs down), yz/ along x (y across, z down)
    xy/z00012.tif .npy .jpg  the same slice in another format: not listed, open it by name
    preview/xy/z00012.png    the same for any picture viewer: 8 bits, labels in colours; read-only
    volume.tif .nii .nrrd .npy .mrc .h5 …   the whole level as one file
    cutout/z0-64_y100-612_x0-512.tif        a part of it, made by naming it; see cutout/README.txt
    oblique/                 planes at any angle, made by naming them; see oblique/README.txt

{writing}
""".encode("utf-8", "surrogateescape")
