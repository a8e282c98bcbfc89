"""The benchmark suite runs: every measure, on data too small to mean anything. Counts only, never a time."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as suite
from tests.benchmarks import page
from tests.benchmarks.harness import SCALES, Bench


def test_every_measure_has_its_number() -> None:
    assert suite.in_order() == [f"P{number}" for number in range(1, 22)]


def test_a_measure_answers_ratios(tmp_path: Path) -> None:
    ratios = suite.run(Bench(tmp_path, SCALES["tiny"]), ["P5"])
    assert {ratio.measure for ratio in ratios} == {"P5"} and all(ratio.value > 0 for ratio in ratios)


@pytest.mark.checks
def test_every_measure_answers_ratios(tmp_path: Path) -> None:
    chosen = [name for name in suite.in_order() if name != "P8" or find_spec("icechunk")]  # it is in the extra `bench`
    ratios = suite.run(Bench(tmp_path, SCALES["tiny"]), chosen)
    assert {ratio.measure for ratio in ratios} == set(chosen)
    assert all(ratio.value > 0 for ratio in ratios)
    assert {ratio.measure for ratio in ratios if ratio.bar} == set(chosen)
    assert len(page.table(ratios).splitlines()) == 2 + len(ratios)
