"""Kill -9 of a daemon at random instants while several programs write, compared with what close acknowledged.

The programs (:mod:`tests.kits.kill_writers`) are paused after each kill, and the store is mounted anew and read.
"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

import volfs
from tests.kits import fork_server
from tests.kits.kill_writers import CHUNKS, SHAPE, WRITERS
from tests.kits.paths import ROOT
from volfs.fuse.launcher import mount, unmount
from volfs.fuse.processes import MountOptions
from volfs.ingest.importer import ImportOptions, import_source
from volfs.ingest.source import ArraySource
from volfs.storage.mount_table import mounted_at
from volfs.testing.kit import take_away
from volfs.testing.waiting import PATIENCE, until
from volfs.versions.check.fsck import fsck


class Program:
    """One writer, in a process group of its own with all that it starts, and what it has noted."""

    def __init__(self, name: str, branch: Path, log: Path) -> None:
        self.name = name
        self.branch = branch
        self.log = log
        self.log.touch()
        self.process: subprocess.Popen[bytes] | None = None

    def noted(self) -> tuple[list[int], int]:
        """The values that were acknowledged, and the last that was begun."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        acknowledged = [int(value) for kind, value in lines if kind == "!"]
        return acknowledged, max((int(value) for kind, value in lines if kind == "?"), default=0)

    def may_be(self) -> set[int]:
        """Values that may be read: the last one acknowledged, or a later one whose writer was not told."""
        acknowledged, begun = self.noted()
        return set(range(acknowledged[-1] if acknowledged else 0, begun + 1))

    def go(self) -> None:
        """Start, or go on after :meth:`pause`. One whose mapped pages lost their file has died of it."""
        if self.process is None or self.process.poll() is not None:
            self.stop()
            module = [sys.executable, "-m", "tests.kits.kill_writers"]
            command = [*module, self.name, str(self.branch), str(self.log), str(self.noted()[1])]
            self.process = fork_server.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
        else:
            self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def stop(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()


def test_what_close_acknowledged_survives_kills_at_random_instants(tmp_path: Path, soak: bool) -> None:
    rounds, rng = (200 if soak else 10), random.Random(20261128)
    store, place = tmp_path / "store", tmp_path / "mnt"
    place.mkdir()
    with volfs.init_store(store) as opened:
        source = ArraySource(np.zeros(SHAPE, "u2"))
        import_source(opened, "cells", "", source, ImportOptions(axes="zyx", voxel_size="1,1,1um", chunks=CHUNKS))
    options = MountOptions(log=str(tmp_path / "mnt.log"))
    programs = [Program(name, place / "cells/branches/main", tmp_path / f"{name}.log") for name in WRITERS]
    try:
        for count in range(rounds + 1):
            daemon = mount(store, place, options, patience=60)
            complaints = compare(place / "cells", {each.name: each for each in programs})
            assert not complaints, f"after {count} kills: {complaints}"
            if count == rounds:
                assert not take_away(place, daemon)
                break
            write_for_a_while(programs, rng)
            daemon.send_signal(signal.SIGKILL)
            for each in programs:
                each.signal(signal.SIGSTOP)
            unmount(place)
            daemon.wait(PATIENCE)
    finally:
        for each in programs:
            each.stop()
        abort(place)
    assert all(each.noted()[0] for each in programs), {each.name: each.noted() for each in programs}
    with volfs.open_store(store) as opened:
        assert fsck(opened).findings == []


def abort(place: Path) -> None:
    """Take a mount away whose daemon was killed."""
    if mounted_at(place) is not None:
        unmount(place)


def write_for_a_while(programs: list[Program], rng: random.Random) -> None:
    """Until so many more values are acknowledged, and a little longer."""
    wanted = sum(len(each.noted()[0]) for each in programs) + rng.randint(3, 40)
    for each in programs:
        each.go()
    until(lambda: sum(len(each.noted()[0]) for each in programs) >= wanted, "more that is written")
    time.sleep(rng.uniform(0, 0.05))


def compare(dataset: Path, programs: dict[str, Program]) -> list[str]:
    """What is not as it was acknowledged."""
    branch = dataset / "branches/main"

    def staged() -> list[dict[str, str]]:
        return [each for each in status(branch)["staged"] if not each["path"].rpartition("/")[2].startswith(".")]

    until(lambda: not staged(), lambda: f"still staged: {staged()}")
    volume = np.load(io.BytesIO((branch / "s0/volume.npy").read_bytes()))
    parts = {
        "slices": volume[0],
        "renamed": volume[8],
        "chunks": volume[4:8, 0:16, 0:16],
        "format_chunks": volume[4:8, 0:16, 16:32],
        "volumes": volume[16:20, 16:32, 16:32],
    }
    found = []
    for name, part in parts.items():
        values, may_be = set(np.unique(part).tolist()), programs[name].may_be()
        whole = name in ("chunks", "format_chunks")  # a slice crosses several chunks, and a commit may go between
        if not values <= may_be or (whole and len(values) > 1):
            found.append(f"{name}: voxels are {sorted(values)}, may be {sorted(may_be)}")
    for index, name in ((0, "slices"), (8, "renamed")):
        shown = np.array(Image.open(branch / f"s0/xy/z{index:05}.png"))
        if not (shown == volume[index]).all():
            found.append(f"{name}: the slice shows {np.unique(shown)}, the volume {np.unique(volume[index])}")
    kept = branch / "files/kept"
    side = int(kept.read_text()) if kept.exists() else 0
    if side not in programs["side_files"].may_be():
        found.append(f"side_files: {side} is kept, may be {sorted(programs['side_files'].may_be())}")
    gone = [value for value in programs["refs"].noted()[0] if not (dataset / f"branches/b{value}").is_dir()]
    if gone:
        found.append(f"refs: branches {gone} are gone")
    messages = [version["message"] for version in versions(dataset)]
    times = {value: messages.count(f"commit {value}\n\nbody {value}") for value in programs["commits"].noted()[0]}
    found += [f"commits: {value} is there {count} times" for value, count in times.items() if count != 1]
    return found


def status(branch: Path) -> dict[str, list[dict[str, str]]]:
    return dict(json.loads((branch / ".volfs/status.json").read_bytes()))


def versions(dataset: Path) -> list[dict[str, str]]:
    names = [name for name in os.listdir(dataset / "versions") if name.startswith("v")]
    return [json.loads((dataset / "versions" / name / "version.json").read_bytes()) for name in names]
