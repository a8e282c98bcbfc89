"""Time by file: a plugin of pytest, which works with xdist too, that prints it, and which files come first.

Beside the seconds stand the processes that were executed: to start one that imports volfs takes half a second, one that
:mod:`tests.kits.fork_server` forks next to nothing, and is not counted. Unlike seconds their number is the same on any
machine.

Processor time is that of the test's process and of all processes that it has waited for (mounts, commands, judges).
It says what a test costs on a machine that others use at the same time, where the seconds that passed do not.
"""

from __future__ import annotations

import os
import sys
from collections import Counter

import pytest

#: So many files have a line of their own.
_LINES = 20

#: Files that take longest come first: at the end no process has a long one left while the others have none.
SLOW = (
    "sharing/test_restarts.py",
    "sharing/test_writing.py",
    "sharing/test_reading.py",
    "native/test_volumes_of_a_mount.py",
    "native/test_faults_of_a_mount.py",
    "judges/test_directory_formats.py",
    "catalog/test_scale.py",
    "fuse/test_daemon.py",
    "cli/test_mounted.py",
    "fuse/test_kills.py",
    "product/test_full_disk.py",
    "fuse/test_files.py",
    "judges/test_neuroglancer.py",
    "judges/test_imagej.py",
    "examples/test_machine.py",
    "tree/test_far_disk.py",
    "fuse/test_written.py",
    "fuse/test_adapter.py",
    "fuse/test_options.py",
    "versions/test_apart_locks.py",
    "product/test_tutorial.py",
    "versions/test_read_only.py",
    "versions/test_twin.py",
    "tree/test_claims.py",
    "versions/test_ordinary_files.py",
    "versions/test_remote_crash.py",
    "versions/test_remote_streams.py",
    "catalog/test_histories.py",
    "examples/test_slurm.py",
    "versions/test_provable_documents.py",
    "ingest/test_facts.py",
    "ingest/test_placement.py",
    "python/test_fsspec.py",
    "benchmarks/test_counts.py",
)


class TimeByFile:
    """Measures each phase of each test; the process that prints the summary adds them up."""

    def __init__(self) -> None:
        self._used = 0.0
        self._executed = self._reported = 0
        sys.addaudithook(self._count)

    def _count(self, event: str, _: object) -> None:
        if event == "subprocess.Popen":
            self._executed += 1

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> object:
        self._used, self._reported = _processor_time(), self._executed
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> object:
        report: pytest.TestReport = yield
        before, self._used = self._used, _processor_time()
        report.processor = self._used - before  # type: ignore[attr-defined]  # xdist hands such attributes over
        report.executed = self._executed - self._reported  # type: ignore[attr-defined]
        self._reported = self._executed
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        seconds: Counter[str] = Counter()
        processor: Counter[str] = Counter()
        executed: Counter[str] = Counter()
        for reports in terminalreporter.stats.values():
            for report in reports:
                if isinstance(report, pytest.TestReport):
                    file = report.nodeid.partition("::")[0]
                    seconds[file] += report.duration
                    processor[file] += getattr(report, "processor", 0.0)
                    executed[file] += getattr(report, "executed", 0)
        if len(seconds) < 2:
            return
        terminalreporter.section("time by file (seconds, of which the processor worked; processes executed)")
        rows = [(file, taken, processor[file], executed[file]) for file, taken in seconds.most_common(_LINES)]
        rest = seconds.keys() - {file for file, *_ in rows}
        if rest:
            sums = (sum(map(counts.__getitem__, rest)) for counts in (seconds, processor, executed))
            rows.append((f"{len(rest)} other files", *sums))  # type: ignore[arg-type]
        rows.append(("all", seconds.total(), processor.total(), executed.total()))
        for name, taken, worked, processes in rows:
            terminalreporter.write_line(f"{taken:8.1f} {worked:8.1f} {processes:5}  {name}")


def _processor_time() -> float:
    """Processor seconds of this process and of the ended processes that it has waited for."""
    times = os.times()
    return sum(times[:4])
