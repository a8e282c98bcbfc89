"""The XML by which BigDataViewer, BigStitcher and others open an N5 container of :mod:`volfs.views.folders.n5`.

SpimData 0.2, as spimdata's ``XmlIo…`` classes write it, with the image loader ``bdv.n5`` (bigdataviewer-core,
``XmlIoN5ImageLoader``, version 1.1: the container's name is a URI). Decided here: which attribute (channel, angle,
illumination, tile) each axis of setups is; that the affine of a view is the voxel size and the position of s0; and
which views are missing: those of which s0 has no stored block, where the fill value is zero. They are listed as such
and have no registration. If that is all of them, none is called missing: an empty image is shown empty.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

import numpy as np

from volfs.model.box import Box
from volfs.views import omero
from volfs.views.folder import ImageView, LevelView, ViewFile, listed
from volfs.views.folders import n5
from volfs.views.folders.spatial import Space, other_axes, stored_positions, volume_of

ATTRIBUTES = ("illumination", "channel", "tile", "angle")
"""The attributes in which setups can differ. BigStitcher expects each setup to have them all."""

_MEANINGS = {
    "channel": ("c", "channel", "ch", "wavelength", "lambda"),
    "angle": ("angle", "a", "rotation", "view", "v"),
    "illumination": ("illumination", "i", "illum", "side", "light"),
    "tile": ("tile", "fov", "field", "position", "p", "m", "mosaic"),
}
_FREE = ("tile", "illumination", "angle")
"""Attributes for axes of other names: the first that no other axis has."""

_MOST_VIEWS = 100_000
"""An XML says something of each view: above this it would no longer be a small file."""
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def document(image: ImageView, container: str, *, zstd: bool = False) -> ViewFile | None:
    """The XML of an image whose container lies beside it under a name; None where there is no such container."""
    levels = n5.held_levels(image, zstd=zstd)
    if not levels or n5.timepoints(image) * math.prod(n5.setups(image)) > _MOST_VIEWS:
        return None
    array = levels[0].array
    shown = _present(image, levels[0])
    text = "\n".join(_lines(image, levels[0], container, shown)) + "\n"
    # Which views are missing changes with voxels, the rest with metadata.
    changed = array.newest(Box.whole(array.shape)) if shown.size > 1 else image.mtime
    return ViewFile.literal(text.encode(), max(image.mtime, changed))


# ------------------------------------------------------------------------------------------------------------ text


def _lines(image: ImageView, level: LevelView, container: str, shown: np.ndarray) -> Iterator[str]:
    space = Space.of(image, (level,))
    size, origin = space.sizes[0], space.origins[0]
    unit = n5.unit_name(space.unit) or "pixel"
    ids = _attributes(image)
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield '<SpimData version="0.2">'
    yield '  <BasePath type="relative">.</BasePath>'
    yield "  <SequenceDescription>"
    yield '    <ImageLoader format="bdv.n5" version="1.1">'
    yield f'      <n5 type="relative">{_text(quote(container))}</n5>'
    yield "    </ImageLoader>"
    yield "    <ViewSetups>"
    for number, row in enumerate(ids):
        yield "      <ViewSetup>"
        yield f"        <id>{number}</id>"
        yield f"        <name>{_text(_setup_name(image, row))}</name>"
        yield f"        <size>{_joined(n5.volume(image, level, number, 0).size)}</size>"
        yield "        <voxelSize>"
        yield f"          <unit>{_text(unit)}</unit>"
        yield f"          <size>{_joined(size)}</size>"
        yield "        </voxelSize>"
        yield "        <attributes>"
        for attribute, (value, _) in row.items():
            yield f"          <{attribute}>{value}</{attribute}>"
        yield "        </attributes>"
        yield "      </ViewSetup>"
    for attribute in ATTRIBUTES:
        tag = attribute.capitalize()
        yield f'      <Attributes name="{attribute}">'
        for value, name in sorted({row[attribute] for row in ids}):
            yield f"        <{tag}>"
            yield f"          <id>{value}</id>"
            yield f"          <name>{_text(name)}</name>"
            yield f"        </{tag}>"
        yield "      </Attributes>"
    yield "    </ViewSetups>"
    yield '    <Timepoints type="range">'
    yield "      <first>0</first>"
    yield f"      <last>{len(shown) - 1}</last>"
    yield "    </Timepoints>"
    if not shown.all():
        yield "    <MissingViews>"
        for time, setup in np.argwhere(~shown):
            yield f'      <MissingView timepoint="{time}" setup="{setup}" />'
        yield "    </MissingViews>"
    yield "  </SequenceDescription>"
    yield "  <ViewRegistrations>"
    rows = [(*(size[n] if n == at else 0.0 for n in range(3)), origin[at]) for at in range(3)]
    affine = _joined([number for row in rows for number in row])
    for time, setup in np.argwhere(shown):
        yield f'    <ViewRegistration timepoint="{time}" setup="{setup}">'
        yield '      <ViewTransform type="affine">'
        yield "        <Name>calibration</Name>"
        yield f"        <affine>{affine}</affine>"
        yield "      </ViewTransform>"
        yield "    </ViewRegistration>"
    yield "  </ViewRegistrations>"
    yield "</SpimData>"


def _joined(numbers: Sequence[float]) -> str:
    return " ".join(map(str, numbers))


def _text(text: str) -> str:
    """Text of an element; characters that XML 1.0 does not have are replaced."""
    from xml.sax.saxutils import escape  # brings urllib and ssl, for which a mount would wait

    return escape(_NOT_XML.sub("\ufffd", text))


# ---------------------------------------------------------------------------------------------------------- setups


def _meanings(image: ImageView) -> dict[str, list[int]]:
    """The axes that each attribute of a setup stands for, together in C order."""
    found: dict[str, list[int]] = {attribute: [] for attribute in ATTRIBUTES}
    unknown = []
    for axis in other_axes(image):
        name = image.axes[axis].name.lower()
        known = next((attribute for attribute, names in _MEANINGS.items() if name in names), None)
        if axis == image.sample or image.axes[axis].type == "channel":
            known = "channel"
        if known is not None:
            found[known].append(axis)
        else:
            unknown.append(axis)
    for axis in unknown:
        found[next((attribute for attribute in _FREE if not found[attribute]), _FREE[0])].append(axis)
    return found


def _attributes(image: ImageView) -> list[dict[str, tuple[int, str]]]:
    """Number and name of each attribute of each setup."""
    axes, shape = other_axes(image), n5.setups(image)
    meanings = _meanings(image)
    rows = []
    for index in np.ndindex(shape):
        at = dict(zip(axes, index, strict=True))
        row = {}
        for attribute, group in meanings.items():
            sizes = tuple(image.levels[0].shape[axis] for axis in group)
            value = int(np.ravel_multi_index([at[axis] for axis in group], sizes)) if group else 0
            row[attribute] = value, _name(image, group, at, value)
        rows.append(row)
    return rows


def _name(image: ImageView, group: Sequence[int], at: dict[int, int], value: int) -> str:
    """The name of an attribute's value: a channel's own, if it has one."""
    if len(group) > 1:
        return " ".join(f"{image.axes[axis].name}{at[axis]}" for axis in group)
    labels = omero.labels(image.attributes) if group and image.axes[group[0]].type == "channel" else ()
    return (labels[value] if value < len(labels) else None) or str(value)


def _setup_name(image: ImageView, row: dict[str, tuple[int, str]]) -> str:
    varying = {attribute for attribute, group in _meanings(image).items() if group}
    parts = [name if not name.isdecimal() else f"{key} {name}" for key, (_, name) in row.items() if key in varying]
    return ", ".join(parts) or image.name


# --------------------------------------------------------------------------------------------------------- missing


def _present(image: ImageView, level: LevelView) -> np.ndarray:
    """Which views have a stored block: bool, timepoints by setups."""
    array = level.array
    whole = volume_of(image, array, {})
    views = n5.timepoints(image), math.prod(n5.setups(image))
    if not whole.sparse:
        return np.ones(views, bool)
    shown = np.zeros(math.prod(views), bool)
    if whole.others:
        shape = tuple(array.shape[axis] for axis in whole.others)
        shown[list(listed(shape, 0, stored_positions(array, whole.others, {}), whole=0))] = True
    return shown.reshape(views) if shown.any() else np.ones(views, bool)
