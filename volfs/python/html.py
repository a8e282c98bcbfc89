"""A store, dataset, snapshot, image or level as a notebook shows it: a thumbnail, axes, sizes, a table of versions.

Decided here: that all which comes from the store, names, messages, authors and errors, is text and never markup; that
a page has no script, no style sheet and no address; and that what cannot be read is said in its place, so that a page
never fails. Of a long history the newest versions are shown.
"""

from __future__ import annotations

import html
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from volfs.errors import VolfsError
from volfs.model.display import printable
from volfs.model.refs import RefKind
from volfs.versions.dataset import Dataset
from volfs.versions.snapshot import GroupNode, Snapshot, WritableSnapshot
from volfs.versions.store import Store
from volfs.views import thumbnail
from volfs.views.label_colours import LabelColours
from volfs.views.slices import SliceGeometry
from volfs.volume.image import Image, images
from volfs.volume.level import Level

_VERSIONS = 20
_DATASETS = _IMAGES = 100
_MESSAGE = 200

Markup = str
"""Text that is HTML already."""


def page(shown: object) -> Markup:
    """The object as HTML."""
    try:
        match shown:
            case Store():
                return _store(shown)
            case Dataset():
                return _dataset(shown)
            case Snapshot():
                return _snapshot(shown)
            case Image():
                return _image(shown)
            case Level():
                return _level(shown)
    except VolfsError as error:
        return f"<div><b>{_text(repr(shown))}</b>{_failed(error)}</div>"
    return f"<div>{_text(repr(shown))}</div>"


def _store(store: Store) -> Markup:
    def row(name: str) -> list[Markup]:
        dataset = store[name]
        versions = dataset.kept()
        newest = dataset.info(versions[-1]) if versions else None
        refs = dataset.refs()
        return [
            _text(name),
            str(len(versions)),
            *(_text(", ".join(refs[kind])) for kind in RefKind),
            "" if newest is None else _time(newest.time_ns),
            "" if newest is None else _text(newest.message.partition("\n")[0]),
        ]

    names = store.datasets()
    rows = _rows(names[:_DATASETS], row)
    columns = ["dataset", "versions", *(kind.directory for kind in RefKind), "newest", ""]
    title = f"volfs store {store.path}" + (", read-only" if store.read_only else "")
    return _box(title, _table(columns, rows), _more(len(names) - len(rows), "datasets"))


def _dataset(dataset: Dataset) -> Markup:
    refs, kept = dataset.refs(), dataset.kept()
    named: dict[int, list[str]] = {}
    for kind in RefKind:
        for name, number in refs[kind].items():
            named.setdefault(number, []).append(name)
    newest = [dataset.info(number) for number in kept[: -_VERSIONS - 1 : -1]]
    rows = [
        [
            f"v{info.number}",
            _text(", ".join(named.get(info.number, ()))),
            _time(info.time_ns),
            _text(info.author),
            _text(info.message),
        ]
        for info in newest
    ]
    versions = _table(["version", "refs", "time", "author", "message"], rows)
    latest = dataset.latest()
    head = dataset.snapshot(latest.number) if latest is not None else dataset.snapshot()
    shown = _pictured(head)
    return _box(
        f"volfs dataset {dataset.name}",
        _picture(shown),
        _image_facts(shown),
        versions,
        _more(len(kept) - len(rows), "older versions"),
    )


def _snapshot(snapshot: Snapshot) -> Markup:
    base = snapshot.base
    if isinstance(snapshot, WritableSnapshot):
        about = "a branch, with its uncommitted changes, over " + ("nothing" if base is None else f"v{base.number}")
    elif base is None:
        about = ""
    else:
        about = f"{_time(base.time_ns)}, {_text(base.author)}: {_text(base.message)}"
    found = images(snapshot)
    rows = [
        [
            _text(path or "/"),
            "label image" if image.is_label else "image",
            _text(" ".join(axis.name for axis in image.axes)),
            _sizes(image.levels[0].shape),
            _text(image.levels[0].dtype),
            _voxel(image.levels[0]),
            str(len(image.levels)),
        ]
        for path, image in islice(found.items(), _IMAGES)
    ]
    return _box(
        f"{snapshot.dataset.name}@{snapshot.ref}",
        f"<div>{about}</div>",
        _picture(_pictured(snapshot)),
        _table(["path", "", "axes", "shape", "type", "voxel size", "levels"], rows),
        _more(len(found) - len(rows), "images"),
    )


def _image(image: Image) -> Markup:
    rows = [
        [level.name, _sizes(level.shape), _voxel(level), _sizes(level.chunks), _bytes(level.nbytes)]
        for level in image.levels
    ]
    place = f"{image.snapshot.dataset.name}{image.path and '/'}{image.path}@{image.snapshot.ref}"
    return _box(
        f"{'label image' if image.is_label else 'image'} {place}",
        _picture(image),
        _image_facts(image),
        _table(["level", "shape", "voxel size", "chunks", "size"], rows),
        "".join(f"<div>{_text(problem)}</div>" for problem in image.problems),
    )


def _level(level: Level) -> Markup:
    snapshot, path = level.snapshot, level.array.path
    rows = [
        ["axes", _text(" ".join(axis.name for axis in level.axes))],
        ["shape", _sizes(level.shape)],
        ["type", _text(level.dtype)],
        ["chunks", _sizes(level.chunks)],
        ["voxel size", _voxel(level)],
        ["size", _bytes(level.nbytes)],
    ]
    picture = _rendered([level], rgb=False, is_label=level.is_label)
    return _box(f"level {snapshot.dataset.name}{path and '/'}{path}@{snapshot.ref}", picture, _table([], rows))


# -- pieces -------------------------------------------------------------------------------------------------------


def _pictured(snapshot: Snapshot) -> Image | None:
    """The image that stands for a snapshot: the first one, and rather no label image."""
    found = images(snapshot).values()
    return min(found, key=lambda image: (image.is_label, image.path.count("/"), image.path), default=None)


def _picture(image: Image | None) -> Markup:
    return (
        ""
        if image is None
        else _rendered(image.levels, rgb=image.rgb, is_label=image.is_label, colours=_colours(image))
    )


def _colours(image: Image) -> LabelColours | None:
    node = image.snapshot.node(image.path) if image.is_label else None
    attributes = node.attributes if isinstance(node, GroupNode) else image.levels[0].array.meta.attributes
    return LabelColours.of(attributes) if image.is_label else None


def _rendered(levels: Sequence[Level], *, rgb: bool, is_label: bool, colours: LabelColours | None = None) -> Markup:
    pairs = [(geometry, level) for level in levels if (geometry := _geometry(level, rgb)) is not None]
    if not pairs:
        return ""
    try:
        picture = thumbnail.render(pairs, is_label=is_label, colours=colours)
    except VolfsError as error:
        return _failed(error)
    return f'<img alt="thumbnail" src="data:image/png;base64,{b64encode(picture).decode()}">'


def _geometry(level: Level, rgb: bool) -> SliceGeometry | None:
    names = [axis.name for axis in level.axes]
    return SliceGeometry.of(names, level.shape, level.dtype, scale=level.scale, units=level.units, rgb=rgb)


def _image_facts(image: Image | None) -> Markup:
    if image is None:
        return "<div>no images</div>"
    finest = image.levels[0]
    axes = " ".join(axis.name for axis in image.axes)
    facts = [_text(axes), _sizes(finest.shape), _text(finest.dtype), _voxel(finest), _bytes(finest.nbytes)]
    return f"<div>{'; '.join(fact for fact in facts if fact)}</div>"


def _rows(names: Iterable[str], row: Callable[[str], list[Markup]]) -> list[list[Markup]]:
    """A row for each name; where one cannot be read, the reason."""
    found = []
    for name in names:
        try:
            found.append(row(name))
        except VolfsError as error:
            found.append([_text(name), _failed(error)])
    return found


def _table(columns: Sequence[str], rows: Iterable[Sequence[Markup]]) -> Markup:
    head = "<thead><tr>" + "".join(f"<th>{name}</th>" for name in columns) + "</tr></thead>" if columns else ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{head}<tbody>{body}</tbody></table>"


def _box(title: str, *parts: Markup) -> Markup:
    return f"<div><div><b>{_text(title)}</b></div>{''.join(parts)}</div>"


def _text(text: object) -> Markup:
    """Text from a store, on one line that does no harm: of a long one the beginning."""
    shown = str(text)
    return html.escape(printable(shown if len(shown) <= _MESSAGE else shown[:_MESSAGE] + "…"))


def _failed(error: VolfsError) -> Markup:
    return f"<div><i>{_text(error)}</i></div>"


def _more(count: int, what: str) -> Markup:
    return f"<div>and {count:,} {what} more</div>" if count > 0 else ""


def _time(time_ns: int) -> Markup:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ns / 1e9))


def _sizes(shape: Sequence[int]) -> Markup:
    return " x ".join(map(str, shape))


def _voxel(level: Level) -> Markup:
    """The voxel size with its units, where there are any."""
    if not any(level.units):
        return ""
    return _text(
        " x ".join(f"{size:g} {unit or ''}".strip() for size, unit in zip(level.scale, level.units, strict=True))
    )


def _bytes(size: float) -> Markup:
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
