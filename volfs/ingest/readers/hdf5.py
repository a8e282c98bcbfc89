"""HDF5 (``file.h5:/path/to/dataset``), and what is HDF5 under another name: ilastik projects, NeXus, netCDF 4.

Names of axes and voxel sizes are where the program that wrote the file leaves them
(:mod:`volfs.ingest.readers.hdf5_conventions`). Filters that HDF5 does not bring come from the package hdf5plugin, if it
is installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from volfs.errors import BadInput, VolfsError
from volfs.ingest.readers import ilastik, imaris
from volfs.ingest.readers.hdf5_conventions import Told, is_beside, told_of
from volfs.ingest.readers.hdf5_filters import check_filters
from volfs.ingest.readers.n5 import imagej_axes
from volfs.ingest.readers.parts import Part, choose
from volfs.ingest.source import Description, Fingerprint, Source, default_axes, files_fingerprint, unreadable
from volfs.model.box import Box, Index
from volfs.model.facts import plain_json, unpacking
from volfs.model.ngff import Axis, axis

_MOST_LISTED = 10_000


def open_hdf5(path: Path, part: str | None = None) -> Source:
    """Open the dataset of voxels called ``part``, else the only one there is. BadInput if there is none, or several."""
    file = _open(path)
    try:
        if imaris.is_imaris(file) and (made := imaris.open_imaris(path, file, part)) is not None:
            return made
        found = _find(path, file, part)
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
    """The dataset that is wanted, by its place in the file, by the last part of that, or by its number."""
    import h5py

    found = file.get(name.strip("/") or "/") if name is not None else None
    if isinstance(found, h5py.Dataset):
        return found
    inside = _datasets(file if found is None else found)
    if not inside:
        raise BadInput(f"{path} holds no array of voxels (numbers, 2 to 6 axes), but {_others(file) or 'nothing'}")
    parts = [_part(dataset) for dataset in inside]
    if found is not None:  # a group
        return inside[choose(Path(f"{path}:{name}"), parts, None, "arrays of voxels")]
    return inside[choose(path, parts, name, "arrays of voxels")]


def _part(dataset: Any) -> Part:
    return Part((dataset.name, dataset.name.rpartition("/")[2]), tuple(map(int, dataset.shape)), dataset.dtype)


def _datasets(group: Any) -> list[Any]:
    """The arrays of voxels below a group."""
    import h5py

    found: list[Any] = []
    seen = [0]

    def visit(name: str, node: Any) -> object:
        seen[0] += 1
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "biufc" and 2 <= len(node.shape or ()) <= 6:
            found.extend([] if is_beside(node) else [node])
        return True if seen[0] >= _MOST_LISTED else None

    group.visititems(visit)
    return found


_NAMED = 4


def _others(group: Any) -> str:
    """The first datasets of a file that are no arrays of voxels."""
    import h5py

    found: list[str] = []

    def visit(name: str, node: Any) -> object:
        if isinstance(node, h5py.Dataset):
            shape = " x ".join(map(str, node.shape)) if node.shape else "one" if node.shape == () else "no"
            found.append(f"{node.name}, {shape} {'of records' if node.dtype.names else node.dtype}")
        return True if len(found) > _NAMED else None

    group.visititems(visit)
    return "; ".join([*found[:_NAMED], *(["…"] if len(found) > _NAMED else [])])


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
        check_filters(where, dataset)
        self._files = [path, *_sources(where, path, dataset)]
        dtype = dataset.dtype.newbyteorder("=")
        told = told_of(dataset)
        axes, scale = _sized(told, default_axes(len(shape)))
        self._real = told.real
        facts: dict[str, Any] = {"format": "hdf5", "dataset": dataset.name, **told.facts}
        for key in ("resolution", "offset"):  # nobody says in which unit
            value = dataset.attrs.get(key)
            if value is not None and np.size(value) == len(shape) and np.asarray(value).dtype.kind in "iuf":
                facts[key] = [float(n) for n in np.ravel(value)]
        attributes = _attributes(dataset)
        if attributes:
            facts["attributes"] = attributes
        shift: tuple[float, ...] | None = tuple(told.origins.get(one.name, 0.0) for one in axes)
        if (imagej := imagej_axes(attributes, shape)) is not None:  # n5-ij writes HDF5 too
            axes, scale, shift = imagej
        named = told.names is not None or imagej is not None
        remarks: tuple[str, ...] = ()
        if told.real is not None:
            dtype = np.dtype(np.float32)
            remarks = (f"the slices of {where} have scales of their own: kept as the real values, in float32",)
        fill = dataset.fillvalue if told.real is None else 0
        self.description = Description(
            path.stem if dataset.name.count("/") < 2 else f"{path.stem} {dataset.name.rpartition('/')[2]}",
            shape,
            dtype,
            axes,
            scale,
            grain_of(dataset),
            reorder=named,
            fill_value=0 if fill is None else fill,
            facts=facts,
            translation=shift if shift is not None and any(shift) else None,
            rescale=told.rescale or unpacking(attributes),
            is_label=ilastik.is_segmentation(attributes),
            lost=told.lost,
            remarks=remarks,
        )

    def read(self, box: Box) -> np.ndarray:
        voxels = read_dataset(self._path, self._dataset, box)
        if self._real is not None:
            slope, intercept = (
                one[tuple(slice(0, 1) if n == 1 else cut for n, cut in zip(one.shape, box.slices(), strict=True))]
                for one in self._real
            )
            voxels = voxels * slope + intercept
        return voxels.astype(self.description.dtype, copy=False)

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
        if "required filter" in str(error):  # of a dataset in another file, which a virtual one is made of
            raise BadInput(f"{path}:{dataset.name} needs a filter of HDF5: {error}: pip install hdf5plugin") from error
        raise unreadable(f"{path}:{dataset.name}", error) from error


def grain_of(dataset: Any) -> Index:
    """Chunks; rows of what has none."""
    shape = tuple(int(n) for n in dataset.shape)
    if dataset.chunks is not None:
        return tuple(min(int(c), max(1, n)) for c, n in zip(dataset.chunks, shape, strict=True))
    return (*(1,) * (len(shape) - 1), shape[-1] if shape[-1] * dataset.dtype.itemsize <= 1 << 20 else 1)


def _sized(told: Told, default: tuple[Axis, ...]) -> tuple[tuple[Axis, ...], tuple[float, ...]]:
    """Axes and voxel sizes."""
    names = told.names or [a.name for a in default]
    found = [told.sizes.get(name, (1.0, None)) for name in names]
    axes = (axis(name, unit) for name, (_, unit) in zip(names, found, strict=True))
    return tuple(axes), tuple(size for size, _ in found)


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
        check_filters(f"{path}:{dataset.name}", dataset)
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
