"""Filters of HDF5 that chunks went through: whether they are there, and what brings those that are not."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

from volfs.errors import BadInput

_FILTERS = {
    307: "bzip2",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32018: "fcidecomp",
    32024: "sz3",
    32026: "blosc2",
    32028: "sperr",
}
"""Those of https://github.com/HDFGroup/hdf5_plugins that hdf5plugin has."""


def check_filters(where: str, dataset: Any) -> None:
    """Raise BadInput, saying which and what brings it, if chunks went through a filter that is not there. The package
    hdf5plugin is asked first: it has most of them."""
    import h5py  # type: ignore[import-untyped]

    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(n) for n in range(plist.get_nfilters())]
    missing = [one for one in filters if not h5py.h5z.filter_avail(one[0])]
    if missing:
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")
        missing = [one for one in missing if not h5py.h5z.filter_avail(one[0])]
    if missing:
        number, _, _, told = missing[0]
        name = _FILTERS.get(number) or told.decode("ascii", "replace").split(";")[0].split("(")[0].strip() or "unknown"
        raise BadInput(
            f"{where} is compressed with the HDF5 filter {name} ({number}), which is not installed: "
            + ("pip install hdf5plugin" if number in _FILTERS else "HDF5_PLUGIN_PATH says where HDF5 looks for it")
        )
