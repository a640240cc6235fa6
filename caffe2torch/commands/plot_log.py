"""Curves of trainings, from their logs: those that `caffe2torch train` writes, and Caffe's own.

  caffe2torch plot-log birds/birds.log                         curves.png, and the last figures as a table
  caffe2torch plot-log run1.log run2.jsonl -o both.svg         several logs over one another
  caffe2torch plot-log train.log --only accuracy,learning      only the panels with these words in their names
  caffe2torch plot-log train.log --csv numbers.csv             all the numbers; `--csv -` prints them
  caffe2torch plot-log train.log --json                        last and best figures, as JSON; no figure without -o

A log may still be written to. Lines of other programs in it are passed over; where a training was resumed from a
snapshot, what the earlier run did after that snapshot is left out.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caffe2torch.errors import UsageError

if TYPE_CHECKING:
    from caffe2torch.solver.logfile import Series, TrainingLog

HELP = "draw the curves of training logs, ours and Caffe's"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The logs, and what to make of them."""
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG", help="a log: Caffe's words, or PREFIX.jsonl")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="the figure: .png, .svg or .pdf; default: curves.png"
    )
    parser.add_argument(
        "--only", metavar="NAME[,NAME]", help="only panels with one of these words in their name: loss,accuracy"
    )
    parser.add_argument("--names", nargs="+", metavar="TEXT", help="what to call the logs; default: their file names")
    parser.add_argument("--csv", metavar="FILE", help="write every number: log, what, iteration, value; - prints them")
    parser.add_argument("--json", action="store_true", help="print last and best figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Read, draw, print."""
    from caffe2torch.figures import check_figure
    from caffe2torch.solver.curves import WITHOUT, draw, panels
    from caffe2torch.solver.logfile import read_log

    numbers_only = args.json or args.csv
    out = args.out or (None if numbers_only else Path("curves.png"))
    if args.json and args.csv == "-":
        raise UsageError("--json and --csv - both print: give the CSV a file")
    if out is not None:
        check_figure(out, WITHOUT)
    names = args.names or _names(args.logs)
    if len(names) != len(args.logs):
        raise UsageError(f"--names: {len(names)} names for {len(args.logs)} logs")
    logs = [read_log(path) for path in args.logs]
    only = [word for word in (args.only or "").split(",") if word]
    if only:
        panels(logs, only)  # says what there is, if these are not
    if args.csv:
        _write_csv(args.csv, logs, names)
    if out is not None:
        draw(out, logs, names, only)
    if args.json:
        print(json.dumps([to_dict(log, name) for log, name in zip(logs, names, strict=True)]))
    elif args.csv != "-":
        print(table(logs, names))
        for path in (args.csv, out):
            if path:
                print(f"wrote {path}")
    return 0


def _names(paths: Sequence[Path]) -> list[str]:
    """The file names, with as many folders before them as tell them apart."""
    for parts in range(1, 1 + max(len(path.parts) for path in paths)):
        names = ["/".join(path.with_suffix("").parts[-parts:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            return names
    return [str(path) for path in paths]


def to_dict(log: TrainingLog, name: str) -> dict[str, Any]:
    """Last and best values of each series, for programs."""
    figures = {what: _summary(what, series) for what, series in log.all_series().items()}
    return {
        "log": str(log.path),
        "name": name,
        "iterations": log.last_iteration,
        "restarts": list(log.restarts),
        "figures": figures,
    }


def _summary(what: str, series: Series) -> dict[str, Any]:
    found: dict[str, Any] = {
        "points": len(series),
        "iteration": int(series.iterations[-1]),
        "last": _finite(series.last),
    }
    finite = [
        (v, i) for v, i in zip(series.values.tolist(), series.iterations.tolist(), strict=True) if math.isfinite(v)
    ]
    if what != "learning rate" and finite:
        value, iteration = _best(what, finite)
        found |= {"best": value, "best_iteration": iteration}
    return found


def _best(what: str, values: Sequence[tuple[float, int]]) -> tuple[float, int]:
    """The greatest accuracy, the least loss; the first of equal ones."""
    sign = -1 if "acc" in what.lower() else 1
    return min(values, key=lambda item: sign * item[0])


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def table(logs: Sequence[TrainingLog], names: Sequence[str]) -> str:
    """The last figures, and the best ones of tests, for a person."""
    lines = []
    for log, name in zip(logs, names, strict=True):
        again = f", resumed at {', '.join(f'{i:,}' for i in log.restarts)}" if log.restarts else ""
        lines.append(f"{name}: {log.last_iteration:,} iterations{again}")
        series = log.all_series()
        width = max(map(len, series))
        for what, values in series.items():
            line = f"  {what:{width}}  {values.last:<10.6g} at {int(values.iterations[-1]):,}"
            summary = _summary(what, values)
            if (
                what.startswith("test ")
                and "acc" in what
                and summary.get("best_iteration", summary["iteration"]) != summary["iteration"]
            ):
                line += f"; best {summary['best']:.6g} at {summary['best_iteration']:,}"
            lines.append(line)
    return "\n".join(lines)


def _write_csv(target: str, logs: Sequence[TrainingLog], names: Sequence[str]) -> None:
    from caffe2torch.files import atomic_path

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("log", "what", "iteration", "value"))
    for log, name in zip(logs, names, strict=True):
        for what, series in log.all_series().items():
            for iteration, value in zip(series.iterations.tolist(), series.values.tolist(), strict=True):
                writer.writerow((name, what, iteration, repr(value)))
    if target == "-":
        print(text.getvalue(), end="")
        return
    with atomic_path(target) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
