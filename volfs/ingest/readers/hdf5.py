"""HDF5 (``file.h5:/path/to/dataset``), and what is HDF5 under another name: ilastik projects, NeXus, netCDF 4.

Voxel sizes are ``element_size_um`` of the dataset, as Fiji and ilastik write it (z, y, x in micrometres); axes are its
``axistags`` (vigra, ilastik) or dimension labels.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from volfs.errors import BadInput, VolfsError
from volfs.ingest.readers import ilastik, imaris
from volfs.ingest.readers.n5 import imagej_axes
from volfs.ingest.source import Description, Fingerprint, Source, default_axes, files_fingerprint, unreadable
from volfs.model.box import Box, Index
from volfs.model.facts import plain_json, unpacking
from volfs.model.ngff import Axis, axis

ENDINGS = (".h5", ".hdf5", ".hdf", ".he5", ".ilp", ".nxs", ".nx", ".nx5", ".ims", ".emd")
SIGNATURE = b"\x89HDF\r\n\x1a\n"

_MOST_LISTED = 10_000


def is_hdf5(path: Path, start: bytes) -> bool:
    """Whether a file says that it is HDF5: at its beginning, or behind a block of the user's (512 bytes, 1024, …)."""
    if start.startswith(SIGNATURE) or len(start) < 1024:
        return start.startswith(SIGNATURE) or start[512:].startswith(SIGNATURE)
    try:
        with path.open("rb") as file:
            return any(os.pread(file.fileno(), 8, 512 << n) == SIGNATURE for n in range(6))
    except OSError:
        return False


def open_hdf5(path: Path, dataset: str | None = None) -> Source:
    """Open a dataset of voxels; without a name, the only one there is. BadInput if there is none, or several."""
    file = _open(path)
    try:
        if imaris.is_imaris(file) and (made := imaris.open_imaris(path, file, dataset)) is not None:
            return made
        found = _find(path, file, dataset)
        return _Hdf5(path, file, found)
    except VolfsError:
        file.close()
        raise
    except Exception as error:  # h5py raises whatever the damage leads to
        file.close()
        raise unreadable(path, error) from error


def _open(path: Path) -> Any:
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise BadInput("HDF5 files need the package h5py: pip install 'volfs[import]'") from error
    try:
        return h5py.File(path, "r")
    except Exception as error:
        raise unreadable(path, error) from error


def _find(path: Path, file: Any, name: str | None) -> Any:
    import h5py

    if name is not None:
        found = file.get(name.strip("/") or "/")
        if found is None:
            raise BadInput(f"{path} has no {name}: it has {_listed(_datasets(file))}")
        if isinstance(found, h5py.Dataset):
            return found
        inside = _datasets(found)
        if len(inside) != 1:
            raise BadInput(f"{path}:{name} is a group: name one of its datasets ({_listed(inside)})")
        return inside[0]
    inside = _datasets(file)
    if len(inside) != 1:
        raise BadInput(
            f"{path} holds {len(inside)} arrays of voxels ({_listed(inside)}): name one"
            + (f", like {path}:{inside[0].name}" if inside else "")
        )
    return inside[0]


def _datasets(group: Any) -> list[Any]:
    """The arrays of voxels below a group."""
    import h5py

    found: list[Any] = []
    seen = [0]

    def visit(name: str, node: Any) -> object:
        seen[0] += 1
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "biufc" and 2 <= len(node.shape or ()) <= 6:
            found.append(node)
        return True if seen[0] >= _MOST_LISTED else None

    group.visititems(visit)
    return found


def _listed(datasets: list[Any]) -> str:
    names = [f"{d.name} {' x '.join(map(str, d.shape))}" for d in datasets[:8]]
    return ", ".join(names) + (", …" if len(datasets) > 8 else "") or "none"


class _Hdf5(Source):
    def __init__(self, path: Path, file: Any, dataset: Any) -> None:
        self._path = path
        self._file = file
        self._dataset = dataset
        where = f"{path}:{dataset.name}"
        if dataset.shape is None or dataset.dtype.kind not in "biufc":
            raise BadInput(f"{where} holds {dataset.dtype}, which are not voxels")
        shape: Index = tuple(int(n) for n in dataset.shape)
        if dataset.external:
            raise BadInput(f"{where} keeps its voxels in other files, which is not imported")
        self._files = [path, *_sources(where, path, dataset)]
        dtype = dataset.dtype.newbyteorder("=")
        named = _axes(dataset)
        axes, scale = _sizes(dataset, named or default_axes(len(shape)))
        facts: dict[str, Any] = {"format": "hdf5", "dataset": dataset.name}
        for key in ("resolution", "offset"):  # nobody says in which unit
            value = dataset.attrs.get(key)
            if value is not None and np.size(value) == len(shape) and np.asarray(value).dtype.kind in "iuf":
                facts[key] = [float(n) for n in np.ravel(value)]
        attributes = _attributes(dataset)
        if attributes:
            facts["attributes"] = attributes
        shift = None
        if (imagej := imagej_axes(attributes, shape)) is not None:  # n5-ij writes HDF5 too
            axes, scale, shift = imagej
            named = axes
        fill = dataset.fillvalue
        self.description = Description(
            path.stem if dataset.name.count("/") < 2 else f"{path.stem} {dataset.name.rpartition('/')[2]}",
            shape,
            dtype,
            axes,
            scale,
            grain_of(dataset),
            reorder=named is not None,
            fill_value=0 if fill is None else fill,
            facts=facts,
            translation=shift,
            rescale=unpacking(attributes),
            is_label=ilastik.is_segmentation(attributes),
        )

    def read(self, box: Box) -> np.ndarray:
        return read_dataset(self._path, self._dataset, box).astype(self.description.dtype, copy=False)

    def fingerprint(self) -> Fingerprint:
        return files_fingerprint(self._files)

    def close(self) -> None:
        self._file.close()


_LARGEST_ATTRIBUTE = 64 << 10


def _attributes(dataset: Any) -> dict[str, Any]:
    """Attributes of a dataset, but for the library's own, and large ones."""
    found: dict[str, Any] = {}
    for key in dataset.attrs:
        if key in ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "DIMENSION_LABELS"):
            continue
        try:
            value = dataset.attrs[key]
        except (OSError, TypeError, ValueError):  # of a type that h5py has no word for
            continue
        if np.asarray(value).nbytes <= _LARGEST_ATTRIBUTE and np.asarray(value).dtype.kind in "biufSUO":
            found[key] = plain_json(value)
    return found


def _sources(where: str, path: Path, dataset: Any) -> list[Path]:
    """The other files of a virtual dataset. HDF5 would show what is missing as fill value."""
    names = {source.file_name for source in dataset.virtual_sources()} if dataset.is_virtual else set()
    files = [path.parent / name for name in sorted(names) if name != "." and "%" not in name]
    for file in files:
        if not file.is_file():
            raise BadInput(f"{where} keeps voxels in {file}, which is not there")
    return files


def read_dataset(path: Path, dataset: Any, box: Box) -> np.ndarray:
    """A box of a dataset."""
    try:
        return np.asarray(dataset[box.slices()])
    except Exception as error:  # h5py raises whatever the damage leads to
        raise unreadable(f"{path}:{dataset.name}", error) from error


def grain_of(dataset: Any) -> Index:
    """Chunks; rows of what has none."""
    shape = tuple(int(n) for n in dataset.shape)
    if dataset.chunks is not None:
        return tuple(min(int(c), max(1, n)) for c, n in zip(dataset.chunks, shape, strict=True))
    return (*(1,) * (len(shape) - 1), shape[-1] if shape[-1] * dataset.dtype.itemsize <= 1 << 20 else 1)


def _axes(dataset: Any) -> tuple[Axis, ...] | None:
    """Axes by name, if every dimension has its own."""
    names: list[str] = []
    try:
        tags = dataset.attrs.get("axistags")
        if tags is not None:
            text = tags.decode() if isinstance(tags, bytes) else str(tags)
            names = [str(tag["key"]) for tag in json.loads(text)["axes"]]
    except (ValueError, KeyError, TypeError):
        names = []
    if not names:
        names = [str(dim.label) for dim in dataset.dims]
    names = [name.strip().lower() for name in names]
    if len(names) != len(dataset.shape) or len({*names}) != len(names) or not all(n.isidentifier() for n in names):
        return None
    return tuple(axis(name) for name in names)


def _sizes(dataset: Any, axes: tuple[Axis, ...]) -> tuple[tuple[Axis, ...], tuple[float, ...]]:
    found = dataset.attrs.get("element_size_um")
    made, scale = list(axes), [1.0] * len(axes)
    if found is None:
        return axes, tuple(scale)
    try:
        sizes = [float(n) for n in np.ravel(found)]
    except (TypeError, ValueError):
        return axes, tuple(scale)
    for name, size in zip("zyx"[-len(sizes) :], sizes, strict=False):
        at = next((i for i, a in enumerate(axes) if a.name == name), None)
        if at is not None and math.isfinite(size) and size > 0:
            scale[at], made[at] = size, axis(name, "um")
    return tuple(made), tuple(scale)


class Hdf5Views:
    """The views of a BigDataViewer HDF5 file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _open(path)

    def view(self, setup: int, time: int) -> Hdf5View | None:
        """The finest level of a setup at a time point; None if it is not there."""
        try:
            name = f"t{time:05}/s{setup:02}/0/cells"
            found = self._file.get(name)
            if found is None:
                _check_links(self._path, self._file, name)
            return None if found is None else Hdf5View(self._path, found)
        except VolfsError:
            raise
        except Exception as error:
            raise unreadable(self._path, error) from error

    def close(self) -> None:
        self._file.close()


def _check_links(path: Path, file: Any, name: str) -> None:
    """BadInput if what is not there is kept in another file that is missing, rather than not at all."""
    parts = name.split("/")
    for end in range(1, len(parts) + 1):
        link = file.get("/".join(parts[:end]), getlink=True)
        target = getattr(link, "filename", None)
        if target is not None and file.get("/".join(parts[:end])) is None:
            raise BadInput(f"{path} keeps {'/'.join(parts[:end])} in {target}, which is not there")
        if link is None:
            return


class Hdf5View:
    """One view. BigDataViewer keeps 16 bits without a sign under the name of those with one."""

    def __init__(self, path: Path, dataset: Any) -> None:
        if len(dataset.shape) != 3 or dataset.dtype.kind not in "iuf":
            raise BadInput(f"{path}:{dataset.name} is not a volume")
        self._path = path
        self._dataset = dataset
        self.shape: Index = tuple(int(n) for n in dataset.shape)
        self.chunk = grain_of(dataset)
        native = dataset.dtype.newbyteorder("=")
        self.dtype = np.dtype(f"u{native.itemsize}") if native.kind == "i" and native.itemsize < 4 else native

    def read(self, box: Box) -> np.ndarray:
        return (
            read_dataset(self._path, self._dataset, box).astype(self._dataset.dtype.newbyteorder("=")).view(self.dtype)
        )
