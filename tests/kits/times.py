"""Time by file: a plugin of pytest, which works with xdist too, that prints it, and which files come first.

Processor time is that of the test's process and of all processes that it has waited for (mounts, commands, judges). It
says what a test costs on a machine that others use at the same time, where the seconds that passed do not.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

#: So many files have a line of their own.
_LINES = 20

#: Files that take longest come first: at the end no process has a long one left while the others have none.
SLOW = (
    "sharing/test_restarts.py",
    "sharing/test_writing.py",
    "sharing/test_reading.py",
    "native/test_faults_of_a_mount.py",
    "fuse/test_kills.py",
    "product/test_full_disk.py",
    "versions/test_twin.py",
    "judges/test_neuroglancer.py",
    "native/test_volumes_of_a_mount.py",
    "judges/test_imagej.py",
    "examples/test_machine.py",
    "versions/test_crash.py",
    "fuse/test_daemon.py",
    "fuse/test_options.py",
    "fuse/test_files.py",
    "fuse/test_watching.py",
    "ingest/test_placement.py",
    "versions/test_branch_base_model.py",
    "versions/test_read_only.py",
    "benchmarks/test_counts.py",
)


class TimeByFile:
    """Measures each phase of each test; the process that prints the summary adds them up."""

    def __init__(self) -> None:
        self._used = 0.0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> object:
        self._used = _processor_time()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> object:
        report: pytest.TestReport = yield
        before, self._used = self._used, _processor_time()
        report.processor = self._used - before  # type: ignore[attr-defined]  # xdist hands such attributes over
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        seconds: Counter[str] = Counter()
        processor: Counter[str] = Counter()
        for reports in terminalreporter.stats.values():
            for report in reports:
                if isinstance(report, pytest.TestReport):
                    file = report.nodeid.partition("::")[0]
                    seconds[file] += report.duration
                    processor[file] += getattr(report, "processor", 0.0)
        if len(seconds) < 2:
            return
        terminalreporter.section("time by file (seconds, of which the processor worked)")
        rows = [(file, taken, processor[file]) for file, taken in seconds.most_common(_LINES)]
        rest = seconds.keys() - {file for file, *_ in rows}
        if rest:
            rows.append((f"{len(rest)} other files", sum(map(seconds.get, rest)), sum(map(processor.get, rest))))
        rows.append(("all", seconds.total(), processor.total()))
        for name, taken, worked in rows:
            terminalreporter.write_line(f"{taken:8.1f} {worked:8.1f}  {name}")


def _processor_time() -> float:
    """Processor seconds of this process and of the ended processes that it has waited for."""
    times = os.times()
    return sum(times[:4])
