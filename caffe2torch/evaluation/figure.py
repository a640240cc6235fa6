"""The precision figure: ours over the number of retrieved pictures, with the published curves where they compare.

Ours is the one thick line; the published ones are told apart by marker, line and grey tone as well as by colour, and
each is named at its right end, so that nothing is lost in black and white.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from caffe2torch.evaluation.published import Curve
from caffe2torch.figures import INK, MUTED, check_figure, settings
from caffe2torch.files import atomic_path
from caffe2torch.retrieval.metrics import Floats

OURS = "#b3261e"
PAPERS = {"KevinNet": ("#1f4e9c", "s", "-"), "SSDH": ("#0b7a5c", "D", "--")}
BASELINES = (
    ("o", "-"),
    ("v", "--"),
    ("^", "-."),
    ("P", ":"),
    ("X", "-"),
    ("<", "--"),
    (">", "-."),
    ("p", ":"),
    ("h", "-"),
)
APART = 0.033
"""Least distance between two names at the right edge, in precision."""
NEAR = 0.04
"""Lines that end this near to ours are shown enlarged."""
WITHOUT = "--figure none leaves it out"


def draw(path: Path, precision: Floats, curves: Sequence[Curve], *, name: str, title: str) -> None:
    """Draw P@k, (K,), with ``curves``, in the format that the suffix of ``path`` names.

    ``name`` stands at our curve, ``title`` above the figure. Raises as ``check_figure`` and ``atomic_path`` do.
    """
    check_figure(path, WITHOUT)
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(settings(9.0)):
        figure = Figure(figsize=(7.2, 5.0), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        shown = [curve for curve in curves if curve.k[0] <= len(precision)]
        last = max(curve.k[-1] for curve in shown) if shown else len(precision)
        precision = precision[:last]
        names = _draw_curves(axes, precision, shown, name)
        _name_ends(axes, names, last)
        if len(shown) > 1:
            _magnify(axes, precision, shown)
        _finish(axes, last, title, published=bool(shown))
        with atomic_path(path) as temporary:
            kind = path.suffix.lower().lstrip(".")
            metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
            figure.savefig(temporary, format=kind, metadata=metadata, facecolor="white")


def _style(curve: Curve, index: int) -> dict[str, Any]:
    """Colour, marker and line of a published curve; ``index`` counts the baselines."""
    if curve.method in PAPERS:
        colour, marker, line = PAPERS[curve.method]
        return {"color": colour, "marker": marker, "linestyle": line, "linewidth": 1.4, "markersize": 4.5}
    marker, line = BASELINES[index % len(BASELINES)]
    grey = f"{0.25 + 0.05 * (index % 5):.2f}"
    return {"color": grey, "marker": marker, "linestyle": line, "linewidth": 1.0, "markersize": 4.0}


def _draw_curves(axes: Any, precision: Floats, curves: Sequence[Curve], name: str) -> list[tuple[float, int, str, str]]:
    """Draw all lines; returns the height and place of the right end, the text and the colour of each."""
    names, baselines = [], 0
    for curve in curves:
        style = _style(curve, baselines)
        baselines += curve.method not in PAPERS
        axes.plot(curve.k, curve.precision, markeredgewidth=0, zorder=4, clip_on=False, **style)
        names.append((curve.precision[-1], curve.k[-1], curve.method, style["color"]))
    places = range(1, len(precision) + 1)
    axes.plot(places, precision, color=OURS, linewidth=3.4, zorder=3, solid_capstyle="round")
    names.append((float(precision[-1]), len(precision), name, OURS))
    return names


def _name_ends(axes: Any, names: Sequence[tuple[float, int, str, str]], last: int) -> None:
    """Write each line's name right of its end, moved up or down where names would overlap."""
    ordered = sorted(names, key=lambda item: item[0])
    heights = spread([item[0] for item in ordered], APART)
    for (end, place, text, colour), height in zip(ordered, heights, strict=True):
        axes.annotate(
            text,
            xy=(place, end),
            xytext=(last * 1.035, height),
            textcoords="data",
            va="center",
            ha="left",
            color=colour,
            fontweight="bold" if colour == OURS else "normal",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2},
        )


def spread(values: Sequence[float], apart: float) -> list[float]:
    """The ascending values moved as little as possible so that neighbours are ``apart``; blocks keep their centre."""
    blocks: list[tuple[float, int]] = []  # centre and number of each block of touching names
    for value in values:
        blocks.append((value, 1))
        while len(blocks) > 1:
            (low, few), (high, more) = blocks[-2:]
            if high - low >= apart * (few + more) / 2:
                break
            count = few + more
            blocks[-2:] = [((low * few + high * more) / count, count)]
    return [centre + apart * (place - (count - 1) / 2) for centre, count in blocks for place in range(count)]


def _magnify(axes: Any, precision: Floats, curves: Sequence[Curve]) -> None:
    """A small view of the lines near ours, where they lie too close together to be told apart."""
    level = float(precision[-1])
    near = [curve for curve in curves if abs(curve.precision[-1] - level) < NEAR]
    between = [curve for curve in curves if curve not in near and 0.63 < curve.precision[-1] < level]
    if not near or between or level < 0.87:  # nothing to tell apart, or no room below
        return
    inset = axes.inset_axes([0.36, 0.655, 0.6, 0.165])
    first = min(curve.k[0] for curve in near)
    ends = [v for curve in near for v in curve.precision] + precision[first - 1 :].tolist()
    for curve in near:
        style = {**_style(curve, 0), "markersize": 3.5}
        inset.plot(curve.k, curve.precision, markeredgewidth=0, zorder=4, **style)
    inset.plot(range(first, len(precision) + 1), precision[first - 1 :], color=OURS, linewidth=3.0, zorder=3)
    margin = max(0.15 * (max(ends) - min(ends)), 0.001)
    inset.set_xlim(0, max(curve.k[-1] for curve in near) * 1.02)
    inset.set_ylim(min(ends) - margin, max(ends) + margin)
    inset.tick_params(labelsize=7, length=2)
    inset.set_title("the same, enlarged", fontsize=7.5, color=MUTED, loc="left", pad=2)
    inset.grid(axis="y", color="#e4e4e4", linewidth=0.6)


def _finish(axes: Any, last: int, title: str, *, published: bool) -> None:
    axes.set_xlim(0, last)
    axes.set_ylim(0, 1)
    axes.set_yticks([step / 10 for step in range(11)])
    axes.set_xlabel("pictures retrieved, k")
    axes.set_ylabel("precision among the first k")
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.7, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    if published:
        axes.annotate(
            "markers: published values", (0.0, 0.0), (6, 5), "axes fraction", "offset points", fontsize=7, color=MUTED
        )
