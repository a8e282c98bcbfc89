"""Commands load what they need and nothing else: most of the time of a short one is imports.

Modules are counted, since times on a busy machine tell nothing. The bounds leave room for other releases of Python and
numpy; a package that comes in by itself brings more than that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import volfs
from volfs.ingest.importer import import_source
from volfs.ingest.readers import open_source

_RUN = """
import sys
sys.modules["pandas"] = None  # which sqlite-utils loads, all of it, where it is installed
from volfs.cli import main
try:
    main(prog_name="volfs", args=sys.argv[2:])
except SystemExit as ended:
    status = ended.code
with open(sys.argv[1], "w") as out:
    print(status, *sys.modules, file=out)
"""

#: Never for a command that only looks or changes refs. Some are packages of Python that other packages bring along.
HEAVY = {
    *("zarr", "numcodecs", "tifffile", "PIL", "trio", "pyfuse3", "sqlite_utils", "rich", "isal"),
    *("asyncio", "ssl", "http.client", "urllib.request", "multiprocessing", "concurrent.futures.process"),
    *("volfs.tree", "volfs.ingest", "volfs.export", "volfs.versions.combine"),
}
#: What makes versions and computes levels: not for those who only read.
COMMIT = {"volfs.versions.branch", "volfs.versions.commit.protocol", "volfs.volume"}
#: For those who need no store at all.
STORE = {"numpy", "zstandard", "crc32c", "importlib.metadata", "volfs.versions", "volfs.catalog"}

#: Arguments, the exit status (None: as the machine is), the most modules, and what must not be among them.
COMMANDS: dict[str, tuple[list[str], int | None, int, set[str]]] = {
    "help": (["--help"], 0, 190, HEAVY | COMMIT | STORE),
    "version": (["--version"], 0, 190, HEAVY | COMMIT | STORE),
    "stats": (["stats", "HERE"], 1, 200, HEAVY - {"volfs.tree"} | COMMIT | STORE),
    "umount": (["umount", "HERE"], 1, 200, HEAVY | COMMIT | STORE),
    "ls": (["ls"], 0, 430, HEAVY | COMMIT),
    "log": (["log", "cells"], 0, 430, HEAVY | COMMIT),
    "branches": (["branch", "cells"], 0, 430, HEAVY | COMMIT),
    "branch": (["branch", "cells", "exp"], 0, 430, HEAVY | COMMIT),
    "tags": (["tag", "cells"], 0, 430, HEAVY | COMMIT),
    "config": (["config", "cells"], 0, 440, HEAVY | COMMIT),
    "rm": (["rm", "cells", "--yes"], 0, 430, HEAVY | COMMIT),
    "ls of a branch": (["ls", "cells"], 0, 480, HEAVY | {"volfs.volume"}),
    "status": (["status", "cells"], 0, 480, HEAVY | {"volfs.volume"}),
    "discard": (["discard", "cells", "--yes"], 0, 480, HEAVY | {"volfs.volume"}),
    "commit of nothing": (["commit", "cells", "-m", "nothing"], 1, 480, HEAVY | {"volfs.volume"}),
    "info": (["info", "cells"], 0, 500, HEAVY),
    "init": (["--store", "HERE/new", "init"], 0, 460, HEAVY - {"sqlite_utils"} | COMMIT),
    "doctor": (["doctor"], None, 440, HEAVY | COMMIT),
    "import": (["import", "more", "HERE/small.npy"], 0, 530, HEAVY - {"volfs.ingest"}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("startup")
    np.save(root / "small.npy", np.arange(8 * 8 * 8, dtype=np.uint8).reshape(8, 8, 8))
    with volfs.init_store(root / "store") as store:
        import_source(store, "cells", "", open_source([str(root / "small.npy")]))
    return root


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_loads_no_more_than_it_needs(name: str, made: Path, tmp_path: Path) -> None:
    words, expected, most, unwanted = COMMANDS[name]
    shutil.copytree(made / "store", tmp_path / "store")
    said = tmp_path / "said"
    arguments = [word.replace("HERE", str(made)) for word in words]
    result = subprocess.run(
        [sys.executable, "-c", _RUN, str(said), "--store", str(tmp_path / "store"), *arguments],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.exists(), result.stderr
    status, *loaded = said.read_text().split()
    assert expected is None or int(status) == expected, result.stderr
    assert not unwanted & set(loaded)
    assert len(loaded) <= most, f"{len(loaded)} modules"


def test_no_thread_of_openblas_is_started_for_every_core(made: Path) -> None:
    code = (
        "import os, volfs.cli; volfs.cli.main(['ls'], standalone_mode=False); print(len(os.listdir('/proc/self/task')))"
    )
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**env, "VOLFS_STORE": str(made / "store")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["cells", "1"]
