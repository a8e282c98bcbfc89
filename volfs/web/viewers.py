"""What opens a dataset: the page, Neuroglancer, napari, Fiji; by the URLs of a server of this machine.

Decided here: which URL each is given, and which program it is. Nothing is mounted: all of them read by HTTP. Not here:
the server (:mod:`volfs.web.web_service`), nor what the page shows.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from volfs.errors import BadInput, NotFound
from volfs.model.refs import DatasetSpec
from volfs.versions.store import Store
from volfs.volume.image import Image, images, no_image

PAGE, NEUROGLANCER, NAPARI, FIJI = VIEWERS = ("page", "neuroglancer", "napari", "fiji")

_CLIENT = ".volfs/neuroglancer/v/volfs/"
#: What Fiji and ImageJ are called, on the system and in their own directories.
_FIJI = ("fiji", "fiji-linux-x64", "fiji-macos", "ImageJ-linux64", "ImageJ-macosx", "imagej", "ImageJ")
#: Plain ImageJ reads such a file into memory.
_MOST_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be opened: the names in the tree of the dataset and its snapshot, and the images there. ``chosen``:
    one image was named, by its path; ``listed`` nothing but the dataset was."""

    place: tuple[str, ...]
    images: dict[str, Image]
    chosen: str | None = None
    listed: bool = False

    @classmethod
    def of(cls, store: Store, spec: DatasetSpec | None) -> Target | None:
        """What a user names; None for the whole store. Raises NotFound."""
        if spec is None:
            return None
        dataset = store[spec.dataset]
        refs = dataset.refs()
        branch = spec.ref if spec.ref is not None else dataset.default_branch
        if branch in refs.heads:
            place: tuple[str, ...] = (spec.dataset, "branches", branch)
        else:
            place = (spec.dataset, "versions", f"v{dataset.resolve(branch)}")
        snapshot = dataset.snapshot(spec.ref)
        if spec.path and spec.path not in images(snapshot):
            raise no_image(snapshot, spec.path)
        return cls(place, images(snapshot), spec.path or None, spec.ref is None and not spec.path)

    def url(self, base: str, *names: str) -> str:
        """The URL of names in the snapshot."""
        return base + "/".join(quote(name, safe="") for name in (*self.place, *names))

    @property
    def image(self) -> Image:
        """The image that was named, or the first. Raises NotFound."""
        if self.chosen is not None:
            return self.images[self.chosen]
        first = min(self.images, key=lambda path: (self.images[path].is_label, path.count("/"), path), default=None)
        if first is None:
            raise NotFound(f"{'/'.join(self.place)} has no image")
        return self.images[first]


def page_url(base: str, target: Target | None, token: str = "") -> str:
    """The page: of the store, of a dataset, of a snapshot, or the slices of an image. ``base`` ends in a slash;
    ``token`` lets the browser in."""
    base += f"?token={token}" if token else ""
    if target is None:
        return base
    names = target.place[:1] if target.listed else target.place
    if target.chosen is not None:
        names = (*names, "view", *target.chosen.split("/"))
    return f"{base}#/{'/'.join(quote(name, safe='') for name in names)}"


def neuroglancer_url(base: str, target: Target, token: str = "") -> str:
    """Neuroglancer's client, of the same server, with a layer for the image that was named, or for all; ``token`` lets
    the browser in."""
    chosen = [target.image] if target.chosen is not None else list(target.images.values())
    layers = [
        {
            "type": "segmentation" if image.is_label else "image",
            "source": f"zarr://{target.url(base, 'zarr', *_names(image))}/",
            "name": image.path or target.place[0],
        }
        for image in chosen
        if not image.is_array
    ]
    if not layers:
        raise NotFound(f"{'/'.join(target.place)} has no image of levels, which Neuroglancer shows")
    state = quote(json.dumps({"layers": layers, "layout": "4panel"}))
    return f"{base}{_CLIENT}{f'?token={token}' if token else ''}#!{state}"


def napari_command(base: str, target: Target) -> list[str]:
    """napari on the OME-Zarr of an image. Raises BadInput where it is not installed."""
    program = shutil.which("napari")
    command = [program] if program is not None else [sys.executable, "-m", "napari"]
    if program is None and importlib.util.find_spec("napari") is None:
        raise BadInput("napari is not installed: pip install 'napari[all]' napari-ome-zarr")
    image = target.image
    name = f"{image.path.rpartition('/')[2] or target.place[0]}.ome.zarr"
    return [*command, "--plugin", "napari-ome-zarr", target.url(base, *_names(image), "formats", name)]


def fiji_command(base: str, target: Target) -> list[str]:
    """Fiji, or ImageJ, on the finest level of an image that fits into its memory. Raises BadInput where neither is
    installed."""
    program = next((found for name in _FIJI if (found := shutil.which(name)) is not None), None)
    if program is None:
        raise BadInput(f"Fiji is not installed, or not on the PATH: none of {', '.join(_FIJI)} is there")
    image = target.image
    level = next((level for level in image.levels if level.nbytes <= _MOST_BYTES), image.levels[-1])
    names = _names(image) if image.is_array else [*_names(image), level.name]
    return [program, "-eval", f'open("{target.url(base, *names, "volume.tif")}");']


def _names(image: Image) -> Sequence[str]:
    return image.path.split("/") if image.path else ()
