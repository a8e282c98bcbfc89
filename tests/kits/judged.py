"""Volumes that independent programs judge, imported into a store that is mounted.

The sources are made by numpy and written by other people's libraries; what volfs made of them is read back by other
people's libraries from the mount. volfs' own readers judge nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.kits.mounts import volfs
from volfs.testing.kit import mounted

Volume = NDArray[Any]


def make_volumes() -> dict[str, Volume]:
    """The volumes that every judge is shown, by dataset name. Odd shapes, every kind of number, 2 to 6 axes."""
    rng = np.random.default_rng(20)
    return {
        "u8": rng.integers(0, 256, (37, 70, 93), np.uint8),
        "u16": rng.integers(0, 2**16, (21, 45, 50), np.uint16),
        "i16": rng.integers(-(2**15), 2**15, (9, 33, 31), np.int16),
        "f32": rng.standard_normal((11, 40, 35)).astype(np.float32),
        "f64": rng.standard_normal((5, 17, 19)),
        "u64": rng.integers(0, 2**63, (13, 29, 31), np.uint64) + np.uint64(2**33),
        "flag": rng.integers(0, 2, (7, 21, 26)).astype(np.bool_),
        "flat": rng.integers(0, 256, (123, 77), np.uint8),
        "movie": rng.integers(0, 2**16, (3, 2, 5, 30, 41), np.uint16),
        "six": rng.integers(0, 256, (2, 2, 3, 4, 15, 16), np.uint8),
    }


@dataclass(frozen=True)
class Mounted:
    store: Path
    mount: Path
    volumes: dict[str, Volume]

    def version(self, dataset: str, number: int = 1) -> Path:
        return self.mount / dataset / "versions" / f"v{number}"

    def branch(self, dataset: str, name: str = "main") -> Path:
        return self.mount / dataset / "branches" / name


@dataclass(frozen=True)
class Source:
    """A volume to be imported with anisotropic voxels and two levels; at ``where``, or as a dataset of its own name."""

    axes: str
    voxels: Volume
    where: str = ""
    labels: bool = False

    @property
    def voxel_size(self) -> str:
        sizes = {"z": "40", "y": "4.5", "x": "4"}
        return ",".join(sizes[axis] for axis in self.axes if axis in sizes) + "nm"


@contextmanager
def mounted_sources(root: Path, sources: dict[str, Source]) -> Iterator[Mounted]:
    """A store of these, mounted."""
    store = root / "store"
    volfs(store, "init")
    for name, one in sources.items():
        path = root / f"{name}.npy"
        np.save(path, one.voxels)
        chunks = ",".join(str(min(n, 16)) for n in one.voxels.shape)
        arguments = ["--axes", one.axes, "--voxel-size", one.voxel_size, "--chunks", chunks, "--levels", "2"]
        volfs(store, "import", one.where or name, path, *arguments, *(["--labels"] if one.labels else []))
    with mounted(store, root / "mnt") as mount:
        yield Mounted(store, Path(mount), {name: one.voxels for name, one in sources.items()})
