"""The curves of trainings as a figure: one panel for each quantity, all logs over one another.

What the training net gave is drawn lightly, with its running mean dark over it; what a test gave has markers. Where the
learning rate falls in steps, dotted lines mark them; where it changes all the time, it has a panel of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe2torch.errors import UsageError
from caffe2torch.figures import INK, MUTED, check_figure, settings
from caffe2torch.files import atomic_path
from caffe2torch.solver.logfile import Series, TrainingLog

WHOLE, RATE = "loss", "learning rate"
"""Names of two panels; the others are called as the outputs."""
MOST_STEPS = 8
"""Changes of the learning rate that are marked; more are drawn as a curve."""
LIGHT = "#e4e4e4"
SINGLE = {"train": "#1f4e9c", "test": "#b3261e"}
COLOURS = ("#1f4e9c", "#b3261e", "#0b7a5c", "#b26a00", "#6b3fa0", "#00798c", "#8c3b5e", "#555555")
DASHES = ("-", "--", "-.", ":")
WITHOUT = "--json and --csv give the numbers without it"


@dataclass(frozen=True)
class Panel:
    """A quantity of one or several logs; ``train`` and ``test`` have a series, or None, for each log."""

    name: str
    train: tuple[Series | None, ...]
    test: tuple[Series | None, ...]


def panels(logs: Sequence[TrainingLog], only: Sequence[str] = ()) -> list[Panel]:
    """What can be drawn: the whole loss, accuracies, then the other outputs in the order of the logs, then the rate.

    ``only`` keeps the panels whose name has one of these words in it, whatever the case, or the one that is called so.
    Raises UsageError for a word that keeps none.
    """
    names = dict.fromkeys(name for log in logs for name in (*log.test, *log.train))
    nothing = [None] * len(logs)
    found = [_panel(WHOLE, [log.loss for log in logs], nothing)]
    for name in sorted(names, key=lambda name: not _is_accuracy(name)):
        found.append(_panel(name, [log.train.get(name) for log in logs], [log.test.get(name) for log in logs]))
    if only or len(found) % 2 or any(_steps(log.rate) is None for log in logs):
        found.append(_panel(RATE, [log.rate for log in logs], nothing))
    found = [panel for panel in found if any(s is not None for s in panel.train + panel.test)]
    return _chosen(found, only) if only else found


def _panel(name: str, *sides: Sequence[Series | None]) -> Panel:
    """Without the series that are empty."""
    train, test = (tuple(series if series is not None and len(series) else None for series in side) for side in sides)
    return Panel(name, train, test)


def _chosen(found: Sequence[Panel], only: Sequence[str]) -> list[Panel]:
    chosen: set[str] = set()
    for word in only:
        same = [p.name for p in found if p.name == word] or [p.name for p in found if word.lower() in p.name.lower()]
        if not same:
            raise UsageError(f"--only {word}: the logs have {', '.join(repr(p.name) for p in found)}")
        chosen.update(same)
    return [panel for panel in found if panel.name in chosen]


def _is_accuracy(name: str) -> bool:
    return "acc" in name.lower()


def _steps(rate: Series) -> list[tuple[int, float]] | None:
    """Where the rate changed and to what, or None when it changes too often to be marked."""
    changes = np.flatnonzero(np.diff(rate.values)) + 1
    if len(changes) > MOST_STEPS:
        return None
    return [(int(rate.iterations[place]), float(rate.values[place])) for place in changes]


def smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the values around each, a twenty-fifth of all; of fewer at the ends, near the first one symmetric.

    Values that are not finite are left out; where all around are, so is the mean.
    """
    half = max(1, len(values) // 50)
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    places = np.arange(len(values))
    reach = np.minimum(half, places)  # a loss falls steeply at first: none of what comes after may count alone
    low, high = places - reach, np.minimum(places + reach + 1, len(values))
    with np.errstate(invalid="ignore"):
        return np.asarray((sums[high] - sums[low]) / (counts[high] - counts[low]), np.float64)


def draw(path: Path, logs: Sequence[TrainingLog], names: Sequence[str], only: Sequence[str] = ()) -> None:
    """Draw the curves of ``logs``, called ``names``, in the format that the suffix of ``path`` names."""
    check_figure(path, WITHOUT)
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    wanted = panels(logs, only)
    columns = 1 if len(wanted) == 1 else 2
    rows = -(-len(wanted) // columns)
    with mpl.rc_context(settings(8.5)):
        figure = Figure(figsize=(5.4 * columns + 0.4, 2.7 * rows + 0.7), dpi=140, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        last = max(log.last_iteration for log in logs)
        for place, panel in zip(axes, wanted, strict=False):
            _draw_panel(place, panel, logs, last)
        for place in axes[len(wanted) :]:
            place.set_visible(False)
        _legend(figure, names)
        with atomic_path(path) as temporary:
            kind = path.suffix.lower().lstrip(".")
            metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
            figure.savefig(temporary, format=kind, metadata=metadata, facecolor="white")


def _draw_panel(axes: Any, panel: Panel, logs: Sequence[TrainingLog], last: int) -> None:
    """One quantity; the last value of each log stands beside the end of its line."""
    for index, (train, test) in enumerate(zip(panel.train, panel.test, strict=True)):
        if train is not None:
            colour = SINGLE["train"] if len(logs) == 1 else COLOURS[index % len(COLOURS)]
            _draw_train(axes, train, colour, _dash(index), smooth=panel.name != RATE)
        if test is not None:
            colour = SINGLE["test"] if len(logs) == 1 else COLOURS[index % len(COLOURS)]
            _draw_test(axes, test, colour, _dash(index))
    _limit(axes, panel)
    _mark_ends(axes, panel, len(logs), last)
    if panel.name != RATE:
        _mark_steps(axes, logs, below=_is_accuracy(panel.name))
    axes.set_xlim(0, max(last, 1))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    axes.set_xlabel("iteration")
    axes.set_title(panel.name, loc="left", fontsize=9.5, color=INK)
    axes.grid(axis="y", color=LIGHT, linewidth=0.7, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_train(axes: Any, series: Series, colour: str, dash: str, *, smooth: bool) -> None:
    style = {"color": colour, "zorder": 2}
    if not smooth:
        axes.plot(series.iterations, series.values, linestyle=dash, linewidth=1.4, **style)
        return
    single = {"marker": "."} if len(series) == 1 else {}
    axes.plot(series.iterations, series.values, linewidth=0.6, alpha=0.35, **style, **single)
    if len(series) > 4:
        axes.plot(series.iterations, smoothed(series.values), linestyle=dash, linewidth=1.5, **style)


def _draw_test(axes: Any, series: Series, colour: str, dash: str) -> None:
    step = max(1, len(series) // 25)
    axes.plot(
        series.iterations,
        series.values,
        color=colour,
        linestyle=dash,
        linewidth=1.3,
        marker="o",
        markersize=3.2,
        markevery=((len(series) - 1) % step, step),
        markeredgewidth=0,
        zorder=3,
    )


def _dash(index: int) -> Any:
    """Lines beyond the colours, and in black and white, are told apart by their dashes."""
    return DASHES[(index // len(COLOURS) + index) % len(DASHES)]


def _limit(axes: Any, panel: Panel) -> None:
    """Keep the first few, often huge, values of a loss from flattening everything after them."""
    shown = [series.values[np.isfinite(series.values)] for series in panel.train + panel.test if series is not None]
    values = np.concatenate(shown)
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    usual = float(np.percentile(values, 99)) if len(values) >= 50 else high
    if high - low > 4 * (usual - low) > 0:
        high = usual + 0.5 * (usual - low)
    margin = 0.06 * (high - low) or max(abs(high), 1e-6) * 0.1
    top = high + margin
    if _is_accuracy(panel.name) and low >= 0 and high <= 1:
        low, top, margin = 0.0, 1.0, 0.0
    axes.set_ylim(low - margin, top)


def _mark_ends(axes: Any, panel: Panel, logs: int, last: int) -> None:
    """Write each log's last value right of the axes, moved apart where they would lie over one another."""
    ends = []
    for index, (train, test) in enumerate(zip(panel.train, panel.test, strict=True)):
        series = test if test is not None else train
        if series is None or not np.isfinite(series.last):
            continue
        colour = COLOURS[index % len(COLOURS)] if logs > 1 else SINGLE["test" if test is not None else "train"]
        value = series.last if test is not None or panel.name == RATE else float(smoothed(series.values)[-1])
        digits = 4 if _is_accuracy(panel.name) else 3
        ends.append((value, f"{series.last:.{digits}g}", colour))
    bottom, top = axes.get_ylim()
    previous = -np.inf
    for value, text, colour in sorted(ends):
        height = max((min(max(value, bottom), top) - bottom) / (top - bottom), previous + 0.075)
        previous = height
        axes.annotate(
            text, (1.01, height), xycoords="axes fraction", va="center", ha="left", color=colour, fontsize=8,
            annotation_clip=False,
        )  # fmt: skip


def _mark_steps(axes: Any, logs: Sequence[TrainingLog], *, below: bool) -> None:
    """Dotted lines where the rate changed, those that several logs share once; the rate stands where lines do not."""
    place, offset, side = (0.0, 2, "bottom") if below else (1.0, -2, "top")
    steps = dict.fromkeys(step for log in logs for step in _steps(log.rate) or ())
    for iteration, rate in steps:
        axes.axvline(iteration, color=MUTED, linewidth=0.8, linestyle=":", zorder=1)
        axes.annotate(
            f"rate {rate:g}", (iteration, place), (2, offset), ("data", "axes fraction"), "offset points",
            rotation=90, va=side, ha="left", fontsize=6.5, color=MUTED,
        )  # fmt: skip


def _legend(figure: Any, names: Sequence[str]) -> None:
    """Above the panels: for one log what is training and what test, for several which is which."""
    from matplotlib.lines import Line2D

    if len(names) == 1:
        handles = [
            Line2D([], [], color=SINGLE["train"], linewidth=1.5, label="training, running mean"),
            Line2D([], [], color=SINGLE["train"], linewidth=0.6, alpha=0.5, label="as logged"),
            Line2D([], [], color=SINGLE["test"], linewidth=1.3, marker="o", markersize=3.2, label="test"),
        ]
        figure.suptitle(names[0], x=0.01, ha="left", fontsize=11, color=INK)
    else:
        handles = [
            Line2D([], [], color=COLOURS[i % len(COLOURS)], linestyle=_dash(i), linewidth=1.6, label=name)
            for i, name in enumerate(names)
        ]
        handles.append(Line2D([], [], color=MUTED, marker="o", markersize=3.2, linewidth=1.3, label="test: with dots"))
    figure.legend(handles=handles, loc="outside upper right", ncols=min(4, len(handles)), frameon=False, fontsize=8)
