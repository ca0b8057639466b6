"""Plots for the documents, from the results that are there: `python -m benchmarks.plots [FOLDER]`."""

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report import RESULTS

#: Where the documents look for them.
PLOTS = Path(__file__).parents[1] / "docs" / "plots"

#: Inches of one panel: two of them side by side are as wide as a page.
PANEL_INCHES = (4.6, 3.2)

#: Parts of a step's result, the figure that grows there, and what that is called.
STEP_PANELS = (
    ("by_batch", "sequences", "sequences, one row each"),
    ("by_context", "context_tokens", "tokens before each of 8 sequences"),
    ("by_rows", "rows", "rows of one prompt"),
)

#: The same results always give the same file.
mpl.rcParams["svg.hashsalt"] = "lectern"

Result = dict[str, Any]


def read_results(pattern: str, folder: Path = RESULTS) -> dict[str, Result]:
    """Return the results whose files match, by the files' names."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(pattern))}


def plot_serving(results: dict[str, Result]) -> Figure:
    """Show tokens per second at each number of streams: Lectern beside each peer."""
    figure, (panel,) = _panels(1)
    levels = sorted({int(level) for result in results.values() for level in result["concurrency"]})
    bars = {"Lectern": _speeds(results.values(), levels, "lectern")}
    for result in results.values():
        bars[result["servers"]["peer"]["name"]] = _speeds([result], levels, "peer")
    width = 0.8 / len(bars)
    for index, (name, speeds) in enumerate(bars.items()):
        places = [place + (index - (len(bars) - 1) / 2) * width for place in range(len(levels))]
        panel.bar(places, speeds, width, label=name)
    panel.set_xticks(range(len(levels)), [str(level) for level in levels])
    _name(panel, "streams at once", "tokens per second")
    return figure


def plot_tasks(results: dict[str, Result]) -> Figure:
    """Show seconds and steps of the book task against the rows of the catalogue, one wish at a time."""
    figure, (seconds, steps) = _panels(2)
    entries = [entry for result in results.values() for entry in result["entries"] if entry["at_once"] == 1]
    entries = [entry for entry in entries if "failed" not in entry]
    for who in dict.fromkeys(entry["who"] for entry in entries):
        for prefix, style in (("cold", "-"), ("warm", "--")):
            about = [entry for entry in entries if entry["who"] == who and entry["prefix"] == prefix]
            seconds.plot(*_curve(about, "seconds_p50"), style, marker="o", label=f"{who}, {prefix}")
    warm = [entry for entry in entries if entry["prefix"] == "warm" and entry["who"] == "lectern form"]
    steps.plot(*_curve(warm, "plain_steps"), marker="o", label="a step for each token")
    steps.plot(*_curve(warm, "steps"), marker="o", label="forced tokens and guesses")
    seconds.set_xscale("log")
    seconds.set_yscale("log")
    steps.set_xscale("log")
    steps.set_ylim(bottom=0)
    _name(seconds, "rows", "seconds per answer")
    _name(steps, "rows", "steps per answer of five titles, warm")
    return figure


def plot_steps(results: dict[str, Result]) -> Figure:
    """Show the milliseconds of a step against sequences, tokens before them, and rows of a prompt.

    A result is what benchmarks/step.py writes.
    """
    figure, panels = _panels(len(STEP_PANELS))
    for panel, (kind, figure_name, title) in zip(panels, STEP_PANELS, strict=True):
        for name, result in results.items():
            panel.plot(*_points(result[kind], figure_name, "milliseconds"), marker="o", label=name)
        panel.set_xscale("log", base=2)
        panel.set_ylim(bottom=0)
        _name(panel, title, "milliseconds per step")
    return figure


#: Which results become which plot.
KINDS: dict[str, tuple[str, Callable[[dict[str, Result]], Figure]]] = {
    "serve": ("serve_*.json", plot_serving),
    "serve_8_bit": ("8_bit_serve_*.json", plot_serving),
    "book_task": ("tasks*.json", plot_tasks),
    "step": ("step*.json", plot_steps),
}


def write_plots(results_folder: Path, plots_folder: Path) -> list[Path]:
    """Draw what there are results for; return the files."""
    plots_folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (pattern, plot) in KINDS.items():
        if results := read_results(pattern, results_folder):
            path = plots_folder / f"{name}.svg"
            plot(results).savefig(path, metadata={"Date": None})
            written.append(path)
    return written


def _panels(number: int) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(number * PANEL_INCHES[0], PANEL_INCHES[1]), layout="constrained")
    return figure, [figure.add_subplot(1, number, place) for place in range(1, number + 1)]


def _name(panel: Axes, x: str, y: str) -> None:
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    panel.grid(alpha=0.3)
    panel.legend(fontsize="x-small")


def _speeds(results: Iterable[Result], levels: Sequence[int], side: str) -> list[float]:
    """Return the median over results at each level; 0 where nobody measured."""
    measured = [result["concurrency"] for result in results]
    figures = [[one[str(level)][side] for one in measured if str(level) in one] for level in levels]
    return [statistics.median(one["tokens_per_second"] for one in found) if found else 0 for found in figures]


def _curve(entries: Iterable[Result], figure: str) -> tuple[list[float], list[float]]:
    """Return rows and the figure's medians over the entries of as many rows."""
    found: dict[int, list[float]] = {}
    for entry in entries:
        found.setdefault(entry["rows"], []).append(entry[figure])
    return [float(rows) for rows in sorted(found)], [statistics.median(found[rows]) for rows in sorted(found)]


def _points(entries: Iterable[Result], x: str, y: str) -> tuple[list[float], list[float]]:
    pairs = sorted((entry[x], entry[y]) for entry in entries)
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def main() -> int:
    """Draw from the committed results into docs/plots, or into another folder."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else PLOTS
    for path in write_plots(RESULTS, folder):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
