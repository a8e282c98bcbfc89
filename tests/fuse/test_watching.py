"""Watching a mount: what it counts, seen through the mount itself, `volfs stats` and `volfs top`."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from tests.kits import fork_server
from tests.kits.cells import make_store
from tests.kits.mounts import refused, volfs
from volfs.cli.monitoring import _shown
from volfs.fuse import mount_stats
from volfs.fuse.mount_stats import Activity, Rounds, Silence, Watch, activity
from volfs.storage.mount_table import mounts
from volfs.testing.kit import daemon_pid, mounted
from volfs.testing.waiting import PATIENCE, until
from volfs.tree.contract.meter import BOUNDS


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("watching")
    store, place = make_store(root / "store"), root / "mnt"
    place.mkdir()
    with mounted(store, place, expect="not a zstd frame"):
        place.joinpath("README.txt").read_bytes()
        yield place


def facts(place: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((place / ".volfs" / "stats.json").read_bytes())
    return said


def test_what_was_done_is_counted_at_once(place: Path) -> None:
    slice_ = place / "cells" / "versions" / "v2" / "s0" / "xy" / "z00004.png"
    before = facts(place)
    data = slice_.read_bytes()
    after = facts(place)
    assert after["bytes"]["read"] - before["bytes"]["read"] >= len(data)
    assert after["requests"]["read"] > before["requests"].get("read", 0)
    assert after["latency"]["open"]["count"] > before["latency"]["open"]["count"]
    assert after["decoded"]["payloads"] - before["decoded"]["payloads"] == 12
    with (place / "cells" / "branches" / "main" / "files" / "notes.txt").open("w") as file:
        file.write("nine char")
        file.flush()
        assert facts(place)["bytes"]["written"] - before["bytes"]["written"] == 9
        assert facts(place)["open_files"] >= 1
    assert before["started"] == after["started"] and after["pid"] == daemon_pid(place)
    assert after["memory"]["rss_bytes"] > 10 << 20 and after["memory"]["peak_rss_bytes"] >= after["memory"]["rss_bytes"]


def test_an_idle_mount_has_nothing_in_flight(place: Path) -> None:
    until(lambda: not facts(place)["in_flight"])
    assert facts(place)["oldest_in_flight_seconds"] == 0


def test_errors_are_told_by_operation_and_name(place: Path) -> None:
    before = facts(place)["errors"]
    with pytest.raises(PermissionError):
        (place / "cells" / "newdir").mkdir()
    with pytest.raises(OSError) as caught:
        (place / "cells" / "versions" / "v1" / "new.txt").write_text("x")
    number = caught.value.errno or 0
    after = facts(place)["errors"]
    assert after["mkdir"]["EPERM"] == before.get("mkdir", {}).get("EPERM", 0) + 1
    assert after["create"][errno.errorcode[number]] == 1
    assert facts(place)["failed"] == 0, "a refusal is no fault of the machine"


def test_a_grave_error_counts_as_failed(place: Path) -> None:
    chunk = place / "cells" / "branches" / "exp" / "zarr" / "s0" / "c" / "0" / "0" / "0"
    before = facts(place)
    chunk.write_bytes(b"no chunk")
    with pytest.raises(OSError, match="Input/output"):
        (place / "cells" / "branches" / "exp" / "s0" / "xy" / "z00001.png").read_bytes()
    after = facts(place)
    assert after["errors"]["read"]["EIO"] > before["errors"].get("read", {}).get("EIO", 0)
    assert after["failed"] > before["failed"]
    volfs(Path(facts(place)["store"]), "discard", "cells@exp", "--yes")


def test_metrics_are_what_prometheus_parses(place: Path) -> None:
    list(os.scandir(place))
    text = (place / ".volfs" / "metrics").read_text()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    durations = families["volfs_request_duration_seconds"]
    operations = {sample.labels["operation"] for sample in durations.samples}
    assert {"lookup", "open", "readdir", "read"} <= operations
    assert {sample.labels["le"] for sample in durations.samples if "le" in sample.labels} >= {"+Inf", "4.096e-06"}
    assert families["volfs_memory_bytes"].samples and families["volfs_read_bytes"].type == "counter"
    assert families["volfs_info"].samples[0].labels["mountpoint"] == str(place)


def test_the_size_of_the_statistics_is_what_is_read(place: Path) -> None:
    for name in ("stats.json", "metrics"):
        path = place / ".volfs" / name
        assert path.stat().st_size % 4096 == 0
        assert len(path.read_bytes()) % 4096 == 0
        with path.open("rb") as file:
            assert len(file.read()) == os.fstat(file.fileno()).st_size


def test_stats_say_what_a_mount_has_done(place: Path) -> None:
    (place / "README.txt").read_bytes()
    lines = volfs(None, "stats", place).stdout.splitlines()
    assert lines[0] == str(place) and f"process {daemon_pid(place)}" in lines[1]
    assert any(line.startswith("open ") for line in lines) and any(line.startswith("blocks ") for line in lines)
    assert max(map(len, lines)) <= 80
    assert "no volfs mount" in refused(None, "stats", place.parent)


def test_top_once_says_what_happens_in_one_interval(place: Path) -> None:
    shown = volfs(None, "top", "--once", "-n", "0.2", place).stdout
    assert str(place) in shown and "per second" in shown
    said = json.loads(volfs(None, "top", "--once", "--json", "-n", "0.2", place).stdout)
    (one,) = said["mounts"]
    assert one["mountpoint"] == str(place) and one["pid"] == daemon_pid(place)
    assert one["operations"]["open"]["count"] >= 1, "the look itself"
    assert one["operations"]["open"]["p99_seconds"] in BOUNDS
    assert one["seconds"] > 0 and one["memory"]["parts"]["blocks"]["max_bytes"] > 0
    assert "no volfs mount" in refused(None, "top", "--once", place.parent)
    assert "--once or --json" in refused(None, "top", place)
    assert volfs(None, "top", "--once", "-n", "0", ok=False).returncode == 2


def test_top_in_json_says_one_line_per_look(place: Path) -> None:
    command = [sys.executable, "-m", "volfs", "top", "--json", "-n", "0.1", str(place)]
    with fork_server.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
    assert lines[0]["time"] < lines[1]["time"] < lines[2]["time"]
    assert all(line["mounts"][0]["mountpoint"] == str(place) for line in lines)


def test_top_draws_on_a_terminal_until_it_is_interrupted(place: Path) -> None:
    main, other = pty.openpty()
    os.set_blocking(main, False)
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    command = [sys.executable, "-m", "volfs", "top", "-n", "0.2", str(place)]
    process = fork_server.Popen(command, stdin=other, stdout=other, stderr=other, env=environment)
    os.close(other)
    drawn = b""

    def sees(text: str) -> bool:
        nonlocal drawn
        while select.select([main], [], [], 0)[0]:
            try:
                drawn += os.read(main, 65536)
            except OSError:
                break
        return text.encode() in drawn

    try:
        until(lambda: sees("per second") and sees(f"process {daemon_pid(place)}"))
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(main)


def test_rates_are_what_was_counted_between_two_looks(place: Path) -> None:
    watch = Watch(place)
    first = watch.look()
    data = (place / "cells" / "versions" / "v1" / "s0" / "xz" / "y00011.png").read_bytes()
    second = watch.look()
    assert isinstance(first, Activity) and isinstance(second, Activity)
    assert second.read_bytes_per_second * second.seconds >= len(data)
    assert first.operations["lookup"].count > second.operations["lookup"].count >= 1
    assert second.facts["requests"]["read"] - first.facts["requests"]["read"] == second.operations["read"].count


def test_the_first_look_tells_of_all_since_the_mount_began() -> None:
    now = {
        "started": time.time() - 100,
        "mountpoint": "/m",
        "latency": {"read": {"seconds": 0.5, "buckets": {"4.096e-06": 90, "0.001048576": 10}}},
        "errors": {"open": {"EIO": 2}},
        "failed": 2,
        "bytes": {"read": 1000, "written": 0},
        "decoded": {"payloads": 50, "bytes": 5000},
        "cache": {"hits": 3, "misses": 1, "prefetch_used_bytes": 0, "prefetch_wasted_bytes": 0},
        "statements": {"catalog": 100, "inodes": 100},
        "cpu_seconds": 10.0,
    }
    done = activity(now)
    assert done.operations["read"].count == 100 and done.operations["read"].mean_seconds == 0.005
    assert (done.operations["read"].p50_seconds, done.operations["read"].p99_seconds) == (4.096e-06, 0.001048576)
    assert round(done.read_bytes_per_second) == 10 and round(done.statements_per_second) == 2
    assert (done.cache_hit_share, done.prefetch_used_share) == (0.75, None)
    assert round(done.cpu_share, 2) == 0.10 and done.errors == 2
    later = activity({**now, "bytes": {"read": 3000, "written": 0}}, now, 2.0)
    assert later.read_bytes_per_second == 1000 and not later.operations and later.cache_hit_share is None


def test_what_is_grave_is_not_cut_off_where_numbers_are_wide(place: Path) -> None:
    look = Watch(place).look()
    assert isinstance(look, Activity)
    memory = look.facts["memory"]
    blocks = {**memory["parts"]["blocks"], "bytes": 48 << 20, "max_bytes": 256 << 20}
    memory = {**memory, "parts": {**memory["parts"], "blocks": blocks}}
    wide = replace(look, errors=1234, failed=56, facts={**look.facts, "memory": memory})
    console = Console(width=80, file=io.StringIO())
    console.print(_shown(wide))
    assert "1,234, grave 56" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_mount_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    """A daemon that was stopped answers nothing; looking at it ends in time, every time, with one thread at most."""
    place = tmp_path / "mnt"
    place.mkdir()
    volfs(tmp_path / "store", "init")
    with mounted(tmp_path / "store", place):
        pid = daemon_pid(place)
        watch = Watch(place, patience=0.2)
        assert isinstance(watch.look(), Activity)
        os.kill(pid, signal.SIGSTOP)
        try:
            looks = [watch.look() for _ in range(3)]
            assert all(isinstance(look, Silence) and "no answer" in look.error for look in looks)
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: isinstance(watch.look(), Activity))


def test_all_mounts_are_those_that_there_are_at_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount_stats, "mounts", lambda: [one for one in mounts() if tmp_path in one.mountpoint.parents])
    place = tmp_path / "mnt"
    place.mkdir()
    volfs(tmp_path / "store", "init")
    rounds = Rounds((), 0.0, wait=lambda _: None)
    assert not next(rounds)
    with mounted(tmp_path / "store", place):
        assert [look.mountpoint for look in next(rounds)] == [str(place)]
    assert not next(rounds)
