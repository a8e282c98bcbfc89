"""A mount of a partial clone: what is absent is an I/O error until a fetch by another process brings it."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest

import volfs as api
from tests.kits.mounts import volfs
from tests.kits.stores import volume, write_version
from volfs import init_store
from volfs.testing.kit import mounted
from volfs.testing.waiting import until

SHAPE = (16, 16, 16)


def test_what_is_absent_is_an_error_until_it_comes(tmp_path: Path) -> None:
    voxels = volume(SHAPE)
    with init_store(tmp_path / "theirs") as store:
        write_version(store.create_dataset("cells"), voxels, dimension_names=("z", "y", "x"), shard_shape=SHAPE)
    ours = tmp_path / "ours"
    api.clone(str(tmp_path / "theirs"), ours, box="z0-8")
    with mounted(ours, tmp_path / "mount") as mount:
        cells = mount / "cells"
        assert json.loads((cells / "dataset.json").read_text())["partial"] == ["--box z0-8"]
        for top in (cells / "versions" / "v1", cells / "branches" / "main"):
            assert np.array_equal(np.load(top / "s0" / "xy" / "z00003.npy"), voxels[3])
            for name in ("s0/xy/z00012.png", "zarr/s0/c/1/0/0", "s0/volume.npy"):
                assert (top / name).stat().st_size
                with pytest.raises(OSError) as error:
                    (top / name).read_bytes()
                assert error.value.errno == errno.EIO
        volfs(ours, "fetch", "cells", "--whole")
        for top in (cells / "versions" / "v1", cells / "branches" / "main"):
            assert np.array_equal(np.load(top / "s0" / "volume.npy"), voxels)
        # What other processes write into the store's document, a mount sees within a second or so.
        until(lambda: "partial" not in json.loads((cells / "dataset.json").read_text()), "the clone is whole")
