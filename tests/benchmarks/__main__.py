"""Run every benchmark in turn: ``python -m tests.benchmarks [--quick]``. Each prints ratios, never bare times."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = ("tests.benchmarks.bench_slices", "tests.benchmarks.bench_index")


def main() -> int:
    failed = 0
    for module in BENCHMARKS:
        print(f"\n== {module.rpartition('.')[2]} ==", flush=True)
        failed |= subprocess.run([sys.executable, "-m", module, *sys.argv[1:]], check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
