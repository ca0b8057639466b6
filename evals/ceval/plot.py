"""Draws the accuracies of a run: a bar for every category and every subject."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evals.ceval.scores import Average, Score
from evals.ceval.subjects import Subject

#: What guessing among four options gives.
CHANCE = 0.25

#: Inches: the figure's width, the height of one bar, and of what is around the bars of a panel.
WIDTH, BAR, AROUND = 7.0, 0.2, 0.7

#: Colours of the bars; whatever is no category is grey.
COLOURS = {"STEM": "C0", "Social Science": "C1", "Humanities": "C2", "Other": "C3"}
GREY = "0.45"


def draw_scores(scores: Mapping[Subject, Score], averages: Mapping[str, Average], title: str) -> Figure:
    """Return categories above subjects, each with its accuracy in percent and a line where chance lies."""
    heights = [AROUND + BAR * len(averages), AROUND + BAR * len(scores)]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=heights)
    above.set_title(title)
    _bars(above, [(name, average.accuracy, name) for name, average in averages.items()])
    subjects = [
        (subject.name.replace("_", " "), score.accuracy, subject.category)
        for subject, score in scores.items()
    ]
    _bars(below, subjects)
    below.set_xlabel("accuracy in percent; dotted: chance")
    return figure


def write_plot(path: Path, figure: Figure) -> None:
    """Write SVG, PNG or PDF, as the file's name ends; the same figures always give the same SVG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "lectern"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _bars(panel: Axes, bars: list[tuple[str, float, str]]) -> None:
    """Draw (label, accuracy, category) from the top down."""
    labels, accuracies, categories = zip(*bars, strict=True)
    colours = [COLOURS.get(category, GREY) for category in categories]
    places = range(len(bars))
    drawn = panel.barh(places, [100 * accuracy for accuracy in accuracies], color=colours)
    panel.bar_label(drawn, fmt="%.1f", padding=2, fontsize="x-small")
    panel.set_yticks(places, labels, fontsize="small")
    panel.set_xlim(0, 110)
    panel.set_ylim(len(bars) - 0.5, -0.5)
    panel.axvline(100 * CHANCE, color="0.3", linestyle=":")
