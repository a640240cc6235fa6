"""MAP against the number of bits, beside the published figures: `python tools/plot_bits.py FOLDER ... -o bits.png`.

Each FOLDER is one that `caffe2torch evaluate --out FOLDER` has written (its scores.json is read), one for each code
length. The published figures are those of the same number of results, on CIFAR-10: KevinNet, SSDH, and the baselines.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caffe2torch.errors import Caffe2TorchError, UsageError
from caffe2torch.evaluation.figure import OURS, PAPERS, spread
from caffe2torch.evaluation.published import figures
from caffe2torch.evaluation.report import SCORES
from caffe2torch.figures import INK, MUTED, check_figure, settings
from caffe2torch.files import atomic_path

Line = dict[int, float]
"""Bits -> MAP."""


def measured(folders: Sequence[Path], k: int) -> Line:
    """MAP@k of the evaluations in the folders. Raises UsageError where one has none, or two are of as many bits."""
    found: Line = {}
    for folder in folders:
        path = folder / SCORES
        try:
            scores = json.loads(path.read_text(encoding="utf-8"))
            bits, results = scores["protocol"]["bits"], {result["k"]: result["map"] for result in scores["results"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}: cannot be read ({error}): expected what evaluate --out writes") from error
        if k not in results:
            raise UsageError(f"{path}: has MAP at {', '.join(map(str, results))}, not at {k}; evaluate with -k {k}")
        if bits in found:
            raise UsageError(f"{path}: another folder has codes of {bits} bits as well")
        found[bits] = results[k]
    return dict(sorted(found.items()))


def published(k: int) -> dict[str, Line]:
    """Method -> its stated MAP@k; the baselines as well."""
    found: dict[str, Line] = {}
    for figure in figures(metric="MAP", k=k):
        if figure.bits is not None and figure.origin == "stated":
            found.setdefault(figure.method, {}).setdefault(figure.bits, figure.value)
    return {method: dict(sorted(line.items())) for method, line in found.items()}


def draw(path: Path, ours: Line, others: dict[str, Line], *, name: str, k: int) -> None:
    """One line for each method; ours is the thick one. Bits are spaced evenly, as in the papers' tables."""
    check_figure(path, "the tables of evaluate do without it")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    every = sorted({bits for line in (ours, *others.values()) for bits in line})
    with rc_context(settings(9.0)):
        figure = Figure(figsize=(6.4, 4.6), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for method, line in others.items():
            colour, marker, dash = PAPERS.get(method, (MUTED, ".", ":"))
            axes.plot([every.index(b) for b in line], line.values(), marker=marker, linestyle=dash, color=colour)
        axes.plot([every.index(b) for b in ours], ours.values(), marker="o", linewidth=3, color=OURS, zorder=5)
        for bits, value in ours.items():
            axes.annotate(f"{value:.4f}", (every.index(bits), value), (0, 7), textcoords="offset points", ha="center")
        ends = sorted((list(line.values())[-1], method) for method, line in {**others, name: ours}.items())
        for (_, method), height in zip(ends, spread([end for end, _ in ends], 0.04), strict=True):
            colour = OURS if method == name else PAPERS.get(method, (MUTED,))[0]
            axes.annotate(method, (len(every) - 0.8, height), va="center", color=colour, annotation_clip=False)
        axes.set_xticks(range(len(every)), [str(bits) for bits in every])
        axes.set(xlabel="bits", ylabel=f"MAP@{k}", ylim=(0, 1.05))
        axes.set_title(f"MAP@{k} on CIFAR-10", color=INK)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=path.suffix.lower().lstrip("."), facecolor="white")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="written by evaluate --out")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="the figure: png, svg or pdf")
    parser.add_argument("-k", type=int, default=1000, help="how long rankings are; default: 1000")
    parser.add_argument("--name", default="ours", help="what to call our line; default: ours")
    options = parser.parse_args(arguments)
    try:
        ours = measured(options.folders, options.k)
        draw(options.out, ours, published(options.k), name=options.name, k=options.k)
    except Caffe2TorchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for bits, value in ours.items():
        print(f"{bits:4d} bits  MAP@{options.k} {value:.6f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
