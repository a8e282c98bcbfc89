"""The stored bytes of a level: of one block or of many, as they are or as they will be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from tests.kits.levels import arrays, level_of, sharding
from tests.kits.memory_snapshots import MemoryDataset, put_pyramid
from volfs.model.box import Box
from volfs.volume import image_at
from volfs.volume.level import Level
from volfs.volume.payloads import block_payload, block_sizes, present_blocks


def agrees(level: Level) -> None:
    blocks = Box.whole(level.source.grid.grid_shape)
    sizes, present = block_sizes(level, blocks), present_blocks(level, blocks)
    for block in np.ndindex(blocks.shape):
        payload = block_payload(level, block)
        assert sizes[block] == (-1 if payload is None else payload.size)
        assert present[block] or payload is None
        alone = Box(block, tuple(i + 1 for i in block))
        assert block_sizes(level, alone).tolist() == sizes[alone.slices()].tolist()


@given(arrays(min_size=1))
def test_sizes_of_many_blocks_are_those_of_each(case) -> None:
    agrees(level_of(case[0]))


@pytest.mark.parametrize("codecs", [None, sharding((2, 4, 4))])
def test_in_a_branch_sizes_are_those_that_levels_which_follow_will_have(codecs) -> None:
    voxels = np.random.default_rng(1).integers(1, 99, (16, 32, 32), np.uint16)
    keys: dict = {}
    put_pyramid(keys, "a", voxels, (4, 8, 8), codecs=codecs)
    dataset = MemoryDataset()
    dataset.add(keys)
    branch = dataset.branch()
    image = image_at(branch, "a")
    image.levels[0].write(Box((3, 3, 3), (5, 20, 9)), np.zeros((2, 17, 6), np.uint16))
    image = image_at(branch, "a")
    assert image.levels[1].derived_keys()
    for level in image.levels:
        agrees(level)
