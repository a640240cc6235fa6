"""The steps of ``evaluate``: what the options name, hashing, measuring, writing, printing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caffe2torch.commands.evaluation_inputs import Inputs, inputs_of, model_of, refuse_model_options
from caffe2torch.commands.progress import Steps
from caffe2torch.errors import RetrievalError, UsageError

if TYPE_CHECKING:
    from caffe2torch.evaluation.pictures import Pictures
    from caffe2torch.evaluation.run import Evaluation, Reading
    from caffe2torch.extract import Model

DEFAULT_OUT = Path("evaluation")


def evaluate(args: argparse.Namespace) -> int:
    """Everything ``caffe2torch evaluate`` does; the exit status."""
    with Progress(quiet=args.quiet) as progress:
        inputs = inputs_of(args)
        if not inputs.hashes:
            refuse_model_options(args)
        model = model_of(args) if inputs.hashes else None  # nothing of it need be here for codes files
        out = args.out or (DEFAULT_OUT if inputs.hashes else None)
        figures = _figures(args, out)
        _check_early(args, inputs, out, figures)
        files = _codes(args, inputs, model, out, progress)
        evaluation = _measure(args, files, progress)
    return _show(args, evaluation, out, figures)


def _figures(args: argparse.Namespace, out: Path | None) -> list[Path]:
    """Where the figure goes, in each format, once it is sure that it can be drawn."""
    from caffe2torch.evaluation.figure import WITHOUT
    from caffe2torch.figures import check_figure

    if out is None:
        if args.figure not in (None, ["none"]):
            raise UsageError(f"--figure {args.figure[0]}: give --out with the folder to draw it in")
        return []
    kinds = args.figure or ["png"]
    if "none" in kinds and len(kinds) > 1:
        raise UsageError("--figure none leaves the figure out: give it alone")
    paths = [out / f"precision-at-k.{kind}" for kind in dict.fromkeys(kinds) if kind != "none"]
    for path in paths:
        check_figure(path, WITHOUT)
    return paths


def _check_early(args: argparse.Namespace, inputs: Inputs, out: Path | None, figures: Sequence[Path]) -> None:
    """Refuse what cannot come to a good end before pictures are hashed for minutes."""
    from caffe2torch import zoo
    from caffe2torch.evaluation.report import check_free, file_names
    from caffe2torch.evaluation.run import check_ks, check_options
    from caffe2torch.retrieval.labels import read_labels

    check_options(radius=args.radius)
    if args.compare_with:
        zoo.entry(args.compare_with)
    if args.folders and (args.query_labels or args.database_labels):
        raise UsageError("--folders takes the labels from the folders: leave --query-labels and --database-labels out")
    if inputs.database is None and args.database_labels:
        raise UsageError("--database-labels: with --database test the database is the queries, with their labels")
    if out is not None:
        check_free(out, [*file_names(args.k or [0]), *(path.name for path in figures)], force=args.force)
    sides = ((inputs.queries, args.query_labels, "query"), (inputs.database, args.database_labels, "database"))
    for side, labels, whose in sides:
        found = read_labels(labels) if labels else None
        if side is None or isinstance(side, Path):
            continue
        count = side.listing.count
        if found is not None and not found.paths and len(found) != count:
            raise RetrievalError(f"{labels}: {len(found):,} labels for {count:,} pictures; they do not belong together")
        if found is None and not args.folders and next(iter(side.entries())).label is None:
            raise RetrievalError(
                f"the {whose} pictures have no labels, so nothing says which neighbours are right: give a list with a "
                f"label behind each path, --{whose}-labels FILE, or --folders"
            )
    answers = inputs.queries if inputs.database is None else inputs.database
    if args.k and not isinstance(answers, Path):
        alone = inputs.database is None
        check_ks(args.k, answers.listing.count - alone, leave_one_out=alone)


def _codes(
    args: argparse.Namespace, inputs: Inputs, model: Model | None, out: Path | None, progress: Progress
) -> list[Path]:
    """The codes files of queries and database, hashed where they are pictures."""
    from caffe2torch.files import make_folder

    if out is not None:
        make_folder(out)
    files = []
    for side, name in ((inputs.queries, "queries"), (inputs.database, "database")):
        if isinstance(side, Path):
            files.append(side)
        elif side is not None:
            assert model is not None
            assert out is not None
            files.append(_hashed(args, side, model, out / f"{name}.h5", progress))
    return files


def _hashed(args: argparse.Namespace, pictures: Pictures, model: Model, target: Path, progress: Progress) -> Path:
    from caffe2torch.evaluation.hashing import How, hash_pictures

    how = How(
        model=model,
        device=args.device,
        precision=args.precision,
        batch_size=args.batch_size,
        workers=args.workers,
        on_error=args.on_error,
        resume=args.resume,
        force=args.force,
        again=args.again,
    )
    progress.title = target.stem
    return hash_pictures(pictures, target, how, progress=progress, say=progress.say)


def _measure(args: argparse.Namespace, files: Sequence[Path], progress: Progress) -> Evaluation:
    from caffe2torch.evaluation.run import asking_for_themselves, measure, read_sides

    sides = read_sides(
        files,
        (args.query_labels, args.database_labels),
        readings=_readings(args, files),
        folders=args.folders,
        say=progress.say,
    )
    if len(sides) > 1 and (both := asking_for_themselves(*sides)):
        print(
            f"caffe2torch: warning: {both:,} of the {len(sides[0]):,} queries stand in the database too and find "
            "themselves, which flatters the figures; --database test leaves each out of its own ranking",
            file=sys.stderr,
        )
    return measure(
        sides[0],
        sides[1] if len(sides) > 1 else None,
        ks=args.k,
        radius=args.radius,
        divisor=args.divisor,
        ties=args.ties,
        any_model=args.any_model,
        progress=progress,
    )


def _readings(args: argparse.Namespace, files: Sequence[Path]) -> list[Reading]:
    """The options for MATLAB files go to those, or, where there are none, to all, which then refuse them."""
    from caffe2torch.evaluation.run import Reading

    names = args.variable or [None]
    if len(names) > len(files):
        raise UsageError(f"--variable: {len(names)} names for {len(files)} files")
    matlab = [file.suffix.lower() == ".mat" for file in files]
    return [
        Reading(args.bits, names[min(number, len(names) - 1)], args.layout, args.values)
        if matlab[number] or not any(matlab)
        else Reading(args.bits)
        for number in range(len(files))
    ]


def _show(args: argparse.Namespace, evaluation: Evaluation, out: Path | None, figures: Sequence[Path]) -> int:
    """Write the files and print."""
    from caffe2torch.evaluation import report
    from caffe2torch.evaluation.compare import accuracy_of, compare, drawable_curves, recorded_model
    from caffe2torch.evaluation.figure import draw

    accuracy = None if args.accuracy is None else accuracy_of(evaluation.queries)
    rows = compare(evaluation, model=args.compare_with, accuracy=accuracy)
    written: list[Path] = []
    if out is not None:
        written = report.write(out, evaluation, rows)
        name = args.name or recorded_model(evaluation.queries.codes) or "this evaluation"
        for path in figures:
            first = evaluation.scores[0]
            draw(path, first.precision, drawable_curves(evaluation), name=name, title=report.title(evaluation))
            written.append(path)
    if args.json:
        print(json.dumps({**report.to_dict(evaluation, rows), "written": [str(p) for p in written]}))
    elif not args.quiet:
        print(report.report(evaluation, rows, written))
    return 0


def say_how_to_resume(args: argparse.Namespace) -> None:
    """After an interruption: whether there is something to go on from."""
    unfinished = [folder for folder in sorted((args.out or DEFAULT_OUT).glob("*.partial")) if folder.is_dir()]
    kept = f"; the codes so far are kept in {unfinished[0]}: the same command with --resume goes on from there"
    print(f"caffe2torch: interrupted{kept if unfinished else ''}", file=sys.stderr)


class Progress(Steps):
    """Bars for hashing the queries and the database, then for ranking."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.title = ""

    def bar_of(self, stage: str) -> tuple[str, str]:
        if stage in ("list", "write"):
            return "", ""
        return (f"hashing {self.title}", "pictures") if stage == "extract" else (f"ranking, {stage}", "queries")
