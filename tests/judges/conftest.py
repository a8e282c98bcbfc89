"""A mounted store whose contents independent programs judge. One mount serves a module: the judges only add to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.kits.judged import Mounted, make_volumes
from tests.kits.mounts import volfs
from volfs.testing.kit import mounted


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    root = tmp_path_factory.mktemp("judged")
    store = root / "store"
    volfs(store, "init")
    volumes = make_volumes()
    for name, volume in volumes.items():
        source = root / f"{name}.npy"
        np.save(source, volume)
        chunks = ",".join(str(min(n, 16)) for n in volume.shape)
        axes = {2: "yx", 3: "zyx", 5: "tczyx", 6: "atczyx"}[volume.ndim]
        volfs(store, "import", name, source, "--chunks", chunks, "--axes", axes, "--levels", "1")
    with mounted(store, root / "mnt") as mount:
        yield Mounted(store, Path(mount), volumes)


@pytest.fixture
def clean_branch(judged: Mounted) -> Iterator[Callable[[str], Path]]:
    """The writable branch ``main`` of a dataset, discarded again after the test."""
    used: list[str] = []

    def take(dataset: str) -> Path:
        used.append(dataset)
        return judged.branch(dataset)

    yield take
    for dataset in used:
        volfs(judged.store, "discard", dataset, "--yes", ok=False)
