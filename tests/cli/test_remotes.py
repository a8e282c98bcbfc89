"""``clone``, ``fetch``, ``pull``, ``push`` by command: what they say of partial clones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.mounts import answer, refused, volfs
from tests.kits.stores import volume, write_version
from volfs import init_store


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("remotes") / "theirs"
    with init_store(place) as store:
        names = {"dimension_names": ("z", "y", "x")}
        write_version(store.create_dataset("cells"), volume((16, 16, 16)), files={"files/a": b"a"}, **names)
        write_version(store["cells"], volume((16, 16, 16), 1), parent=1, coords=[(0, 0, 0)], **names)
    return place


def test_a_partial_clone_says_what_it_has_and_what_brings_more(theirs: Path, tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    said = volfs(ours, "clone", f"{theirs}/cells", ours, "--box", "z0-8_y0-8_x0-8", "--depth", "1").stdout
    assert said.startswith("cells: 2 versions, 2 payloads, ")
    part = "--depth 1 --box x0-8_y0-8_z0-8"
    assert f"partial   {part}" in volfs(ours, "info", "cells").stdout
    assert f"partial clone: {part}" in volfs(ours, "status", "cells").stdout
    assert volfs(ours, "config", "cells").stdout.splitlines()[-1].split(maxsplit=1) == ["partial", part]
    for command in ("info", "status", "config"):
        assert answer(ours, command, "cells")["partial"] == [part]
    why = refused(ours, "export", "cells", tmp_path / "out.npy", "--path", "zarr/s0/c/1/0/0")
    assert "`volfs fetch cells --path s0 --box z8-16_y0-8_x0-8` brings it" in why
    assert volfs(ours, "fetch", "cells").stdout == "nothing is new\n"
    fetched = volfs(ours, "fetch", "cells", "--path", "s0", "--box", "z8-16_y0-8_x0-8").stdout
    assert fetched.startswith("0 versions, 1 payload, ")
    assert "no array of dataset 'cells' has an axis 'q': there is x, y, z" in refused(
        ours, "fetch", "cells", "--box", "q1"
    )
    assert "nothing to deepen" not in volfs(ours, "fetch", "cells", "--deepen", "1").stderr
    done = answer(ours, "fetch", "cells", "--whole")
    assert done["payloads"] == 6 and done["lacking"] == 0
    assert answer(ours, "info", "cells")["partial"] is None
    assert "payload absent" not in volfs(ours, "fsck").stdout
