"""The benchmark suite: ``python -m tests.benchmarks [P1 P3 …] [--quick] [--write]``. See docs/performance.md.

Prints a table of ratios. With ``--write``, docs/performance.md and its plots are made anew from the results, those of
measures that were not run now staying as they were.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import names, page, reading, scale, version_control, writing  # noqa: F401  (importing registers the measures)
from tests.benchmarks.harness import MEASURES, SCALES, Bench, Ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help="P1 to P21; all if none is named")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_const", const="quick", dest="size", help="small data, about two minutes")
    size.add_argument("--tiny", action="store_const", const="tiny", dest="size", help="only to see that it all runs")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md and its plots")
    parser.add_argument(
        "--scratch", type=Path, help="where to build the data (15 GB); the directory for temporary files"
    )
    options = parser.parse_args()
    unknown = set(options.measures) - set(MEASURES)
    if unknown:
        parser.error(f"no measure is called {', '.join(sorted(unknown))}; there are {', '.join(in_order())}")
    with tempfile.TemporaryDirectory(prefix="volfs-bench-", dir=options.scratch) as root:
        # Daemons start from bytecode, as installed ones do, whatever may be written where the suite runs.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(root, "bytecode"))
        ratios = run(Bench(Path(root), SCALES[options.size or "full"]), options.measures or in_order())
    print(page.table(ratios))
    if options.write:
        page.write(ratios)
    return 0


def in_order() -> list[str]:
    return sorted(MEASURES, key=lambda name: int(name[1:]))


def run(bench: Bench, chosen: list[str]) -> list[Ratio]:
    ratios: list[Ratio] = []
    for name in chosen:
        print(f"{name}: {MEASURES[name].title}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        for ratio in MEASURES[name].run(bench):
            print(f"    {ratio.value:8.2f}  {ratio.what}", file=sys.stderr, flush=True)
            ratios.append(ratio)
        print(
            f"    (took {time.perf_counter() - start:.0f} s, building its data included)", file=sys.stderr, flush=True
        )
    return ratios


if __name__ == "__main__":
    sys.exit(main())
