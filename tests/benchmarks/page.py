"""docs/performance.md: the table and the plots are written here; the words around them are written by hand.

The last result of each measure is kept beside the plots, so that a measure can be run again alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.harness import Bar, Ratio

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "performance.md"
RESULTS = DOCS / "img" / "performance.json"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def table(ratios: list[Ratio]) -> str:
    rows = ["| # | measure | ratio | of single runs | bar | |", "|---|---|---:|---|---|---|"]
    for ratio in ratios:
        spread = f"{min(ratio.runs):.2f} to {max(ratio.runs):.2f}" if len(ratio.runs) > 1 else ""
        bar = f"{ratio.bar.sense} {ratio.bar.value:g}" if ratio.bar else ""
        met = "" if ratio.bar is None else "met" if ratio.bar.met(ratio.value) else "**missed**"
        rows.append(f"| {ratio.measure} | {ratio.what} | {ratio.value:.2f} | {spread} | {bar} | {met} |")
    return "\n".join(rows)


def write(ratios: list[Ratio]) -> None:
    """Put new results in place of older ones of the same measures, and make the page's table and plots of all."""
    fresh = {ratio.measure for ratio in ratios}
    kept = [ratio for ratio in _stored() if ratio.measure not in fresh]
    together = sorted([*kept, *ratios], key=lambda ratio: int(ratio.measure[1:]))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(ratio) for ratio in together], indent=1, ensure_ascii=False) + "\n")
    text = PAGE.read_text() if PAGE.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(together)}\n{END}{after}")
    _plot_bars(together, RESULTS.parent / "performance-bars.png")
    _plot_slices(together, RESULTS.parent / "performance-slices.png")


def _stored() -> list[Ratio]:
    if not RESULTS.exists():
        return []
    docs = json.loads(RESULTS.read_text())
    return [Ratio(**{**doc, "bar": Bar(**doc["bar"]) if doc["bar"] else None}) for doc in docs]


def _plot_bars(ratios: list[Ratio], path: Path) -> None:
    """Each result against its bar, on one scale: right of the line the bar is met."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    barred = [ratio for ratio in ratios if ratio.bar is not None]
    margins = [ratio.bar.margin(ratio.value) for ratio in barred if ratio.bar is not None]
    figure, axes = pyplot.subplots(figsize=(9, 0.32 * len(barred) + 1), layout="constrained")
    colours = ["#2a7f62" if margin >= 1 else "#c0504d" for margin in margins]
    axes.barh(range(len(barred)), [margin - 1 for margin in margins], left=1, color=colours)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(barred)), [f"{ratio.measure}  {ratio.what}" for ratio in barred], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("times better than its bar (right of 1: met)")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _plot_slices(ratios: list[Ratio], path: Path) -> None:
    """Slices in order against TensorStore, each run a dot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    slices = [ratio for ratio in ratios if "slices in order" in ratio.what]
    if not slices:
        return
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    labels = [ratio.what.replace(" slices in order ÷ TensorStore", "").replace(", ", "\n") for ratio in slices]
    axes.bar(
        labels,
        [ratio.value for ratio in slices],
        color=["#4f81bd" if "cold" in label else "#9bbbdf" for label in labels],
    )
    for place, ratio in enumerate(slices):
        axes.plot([place] * len(ratio.runs), ratio.runs, "k.", markersize=5)
    axes.axhline(1, color="black", linewidth=1)
    axes.set_ylabel("throughput ÷ TensorStore's")
    axes.tick_params(axis="x", labelsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
