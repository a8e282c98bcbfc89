"""Writers, readers and commits at once: nobody ever sees a key go back in time, and no acknowledged write is lost."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

import volfs
from tests.kits import fork_server
from tests.kits.branch_reader import CHUNKS, read_for_a_while
from tests.kits.paths import ROOT
from tests.kits.stores import array_at
from volfs.errors import NothingToCommit
from volfs.model.box import Box
from volfs.model.metadata import array_zarr_json
from volfs.testing.waiting import PATIENCE

SECONDS = 4.0
RAW = [{"name": "bytes", "configuration": {"endian": "little"}}]

READER = """
import sys, volfs
from tests.kits.branch_reader import read_for_a_while
with volfs.open_store(sys.argv[1]) as store:
    print(read_for_a_while(store["cells"].branch("main"), float(sys.argv[2])))
"""


def test_no_key_goes_back_in_time_and_no_write_is_lost(tmp_path: Path) -> None:
    with volfs.init_store(tmp_path / "store") as store:
        branch = store.create_dataset("cells").branch("main")
        branch.put("zarr/a/zarr.json", array_zarr_json((CHUNKS * 2,), "u8", (2,), codecs=RAW))
        for chunk in range(CHUNKS):
            branch.put(f"zarr/a/c/{chunk}", np.zeros(2, "<u8").tobytes())
        done = threading.Event()
        last = dict.fromkeys(range(CHUNKS), 0)
        failures: list[str] = []

        def write(chunk: int) -> None:
            while not done.is_set():
                value = last[chunk] + 1
                data = np.full(2, value, "<u8").tobytes()
                key = f"zarr/a/c/{chunk}"
                if value % 3 == 0:
                    with branch.working.open(key + ".part", os.O_WRONLY | os.O_CREAT) as file:
                        file.pwrite(data, 0)
                    branch.working.rename(key + ".part", key)
                else:
                    branch.put(key, data)
                last[chunk] = value

        def commit() -> None:
            while not done.is_set():
                try:
                    branch.commit(f"at {time.monotonic()}")
                except NothingToCommit:
                    continue

        def read() -> None:
            failures.append(read_for_a_while(branch, SECONDS))

        threads = [threading.Thread(target=write, args=(chunk,)) for chunk in range(CHUNKS)]
        threads += [threading.Thread(target=commit), threading.Thread(target=read)]
        for thread in threads:
            thread.start()
        elsewhere = fork_server.run(
            [sys.executable, "-c", READER, str(store.path), str(SECONDS)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=PATIENCE,
        )
        done.set()
        for thread in threads:
            thread.join()
        assert (elsewhere.stdout.strip(), elsewhere.stderr) == ("", "")
        assert failures == [""]
        with suppress(NothingToCommit):
            branch.commit("the rest")
        version = branch.dataset.version(branch.head.number)  # type: ignore[union-attr]
        assert version.info.number > 3
        for chunk, value in last.items():
            assert int.from_bytes(version.read(f"zarr/a/c/{chunk}")[:8], "little") == value


def test_a_look_that_layers_overtook_leaves_no_map_of_chunks_behind(tmp_path: Path) -> None:
    with volfs.init_store(tmp_path / "store") as store:
        branch = store.create_dataset("cells").branch("main")
        branch.put("zarr/a/zarr.json", array_zarr_json((CHUNKS * 2,), "u8", (2,), codecs=RAW))
        branch.put("zarr/a/c/0", np.ones(2, "<u8").tobytes())
        array, whole = array_at(branch, "a"), Box((0,), (CHUNKS,))
        with branch.writing():
            before = branch.working.union()
            branch.working.freeze(1)
            array._payloads(before, whole)  # by a thread that was slow: it will look again, and has been seen by nobody
            assert list(array.payloads(whole)) == [(0,)]
            branch.working.merge_back(1)
        assert list(array.payloads(whole)) == [(0,)]
