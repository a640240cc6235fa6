"""Train a net with Caffe's solver: the solver file as it is, update for update.

  caffe2torch train --solver solver.prototxt                              from the fillers
  caffe2torch train --solver solver.prototxt --weights a.caffemodel       fine-tune: layers of the same name are copied
  caffe2torch train --solver solver.prototxt --snapshot x_iter_5000.solverstate   go on where a training stopped
  caffe2torch train --solver solver.prototxt --weights x.caffemodel --test        only test, with the solver's test nets
  torchrun --nproc-per-node 4 -m caffe2torch train --solver solver.prototxt       on four GPUs of one machine

The log comes on standard output in Caffe's words, and goes into PREFIX.log, PREFIX being the solver's snapshot_prefix;
PREFIX.jsonl has the same figures for programs, and `caffe2torch plot-log` draws either. Ctrl-C ends the training with
a snapshot; SIGHUP (kill -HUP) writes one and goes on. Relative paths in the solver and its net start at the current
folder, as in Caffe, or at the solver's own where its net is not found there. --root says otherwise, of data and
snapshots; nets that are not there are looked for beside the solver.

With torchrun every process takes its own batches and gradients are averaged, as Caffe does over its GPUs: four
processes and batch_size 32 train like one with batch_size 128. Learning rate and iterations stay as they are.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from caffe2torch.errors import UsageError
from caffe2torch.solver.events import Events

if TYPE_CHECKING:
    from caffe2torch.solver.group import Group
    from caffe2torch.solver.solver import Solver

HELP = "train or fine-tune a net with Caffe's solver"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to train, from what, and how it runs."""
    parser.add_argument("--solver", required=True, metavar="FILE", help="the solver prototxt")
    start = parser.add_argument_group("what it starts from")
    start.add_argument(
        "--weights",
        metavar="FILE[,FILE]",
        help=".caffemodel files to copy weights from, by layer name, in place of the solver's own; what they lack "
        "keeps its filler's values",
    )
    start.add_argument("--snapshot", metavar="FILE", help="a .solverstate to go on from, ours or Caffe's")
    start.add_argument("--level", type=int, metavar="N", help="level of the training net, in place of the solver's")
    start.add_argument("--stage", metavar="NAME[,NAME]", help="stages of the training net, besides the solver's")
    start.add_argument("--seed", type=int, metavar="N", help="for all that is random, unless random_seed is given")
    running = parser.add_argument_group("how it runs")
    running.add_argument("--root", metavar="DIR", help="where relative paths in the solver and its net start")
    running.add_argument("--max-iter", type=int, metavar="N", help="in place of the solver's max_iter")
    running.add_argument("--test", action="store_true", help="run the test nets once and stop")
    running.add_argument(
        "--device", default="auto", metavar="DEV", help="auto (a GPU if there is one), cpu, cuda or cuda:N"
    )
    running.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "bf16"),
        help="float32 is Caffe's; bf16 computes convolutions and products in bfloat16 (autocast), weights stay float32",
    )
    running.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="threads that make batches ahead; default: one for each core, at most 4",
    )
    shown = parser.add_argument_group("what is shown and written")
    shown.add_argument("--log", metavar="FILE", help="the log, in place of PREFIX.log")
    shown.add_argument("--quiet", action="store_true", help="no log on standard output, no progress bar")


def run(args: argparse.Namespace) -> int:
    """Train, or test; returns 0, or 130 for a training that Ctrl-C ended."""
    if args.snapshot and args.weights:
        raise UsageError("--snapshot brings its own weights: leave --weights out, or leave out --snapshot to fine-tune")
    if args.max_iter is not None and args.max_iter < 0:
        raise UsageError(f"--max-iter {args.max_iter}: expected at least 0")
    if args.workers is not None and args.workers < 0:
        raise UsageError(f"--workers {args.workers}: expected at least 0")
    from caffe2torch.devices import exact_float32
    from caffe2torch.solver import group
    from caffe2torch.solver.signals import listening

    here = group.join()
    try:
        solver = _solver(args, here)
        with listening() as wish, exact_float32():
            solver.wish = wish
            if args.test:
                return _test(solver)
            return _train(solver, args) if here.first else 130 * solver.solve()
    finally:
        group.leave(here)


def _solver(args: argparse.Namespace, here: Group) -> Solver:
    import torch

    from caffe2torch.cores import cores
    from caffe2torch.devices import choose_device
    from caffe2torch.solver.group import local_rank
    from caffe2torch.solver.nets import Place
    from caffe2torch.solver.settings import read_settings
    from caffe2torch.solver.solver import Solver

    device = (
        f"cuda:{local_rank()}" if here.size > 1 and args.device == "auto" and torch.cuda.is_available() else args.device
    )
    settings = read_settings(args.solver, root=args.root, level=args.level, stages=_names(args.stage))
    if args.weights or args.snapshot:
        settings.parameters.ClearField("weights")  # those of the command line stand in their place, as in Caffe
    if args.max_iter is not None:
        settings.parameters.max_iter = args.max_iter
    solver = Solver(
        settings,
        place=Place(
            choose_device(device),
            autocast=torch.bfloat16 if args.precision == "bf16" else None,
            workers=min(4, cores()) if args.workers is None else args.workers,
            group=here,
        ),
        weights=[Path(name).absolute() for name in _names(args.weights)],
        seed=args.seed,
    )
    if args.snapshot:
        solver.restore(args.snapshot)
    return solver


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _train(solver: Solver, args: argparse.Namespace) -> int:
    from caffe2torch.solver.events import All
    from caffe2torch.solver.lines import Lines
    from caffe2torch.solver.log import CaffeLog
    from caffe2torch.solver.record import JsonLines
    from caffe2torch.solver.watch import CollapseWatch

    prefix = solver.settings.snapshot_prefix
    log = Path(args.log) if args.log else prefix.with_name(f"{prefix.name}.log")
    if log.suffix == ".jsonl":
        raise UsageError(f"--log {log}: is where the record for programs goes; choose another name")
    append = solver.iteration > 0
    print(f"training {args.solver} with seed {solver.seed} on {solver.place.device}; log: {log}", file=sys.stderr)
    with (
        _Bar(solver, quiet=args.quiet) as bar,
        Lines(log, bar.warn, append=append) as file,
        Lines(log.with_suffix(".jsonl"), bar.warn, append=append) as record,
    ):

        def write(line: str) -> None:
            file.write(line)
            bar.say(line)

        caffe = CaffeLog(write)
        if args.snapshot:
            caffe.say("solver.cpp:285", f"Restoring previous solver status from {args.snapshot}")
        for name, report in solver.reports:
            caffe.say("net.cpp:744", f"Copying {len(report.loaded)} layers from {name}")
            for layer in report.ignored:
                caffe.say("net.cpp:744", f"Ignoring source layer {layer}")
        solver.events = All(caffe, JsonLines(record.write), bar, CollapseWatch(solver.train.net))
        stopped = solver.solve()
    if solver.last_snapshot and not args.quiet:
        print(f"snapshot: {solver.last_snapshot}", file=sys.stderr)
    return 130 if stopped else 0


def _test(solver: Solver) -> int:
    from caffe2torch.solver.log import CaffeLog

    if not solver.tests:
        raise UsageError(f"{solver.settings.path}: names no test net with a test_iter, so there is nothing to test")
    solver.events = CaffeLog(print)
    return 130 if solver.test_all() is None else 0


class _Bar(Events):
    """A progress bar with loss and rate on stderr; lines of the log are printed above it, unless ``quiet``."""

    def __init__(self, solver: Solver, *, quiet: bool) -> None:
        from tqdm import tqdm

        self._says = not quiet
        self._bar = tqdm(
            desc="training",
            total=solver.parameters.max_iter,
            initial=solver.iteration,
            unit="it",
            dynamic_ncols=True,
            smoothing=0.1,
            disable=quiet or not sys.stderr.isatty(),
        )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def say(self, line: str) -> None:
        """Print a line without breaking the bar. Whoever reads them may have ended before: training goes on."""
        if not self._says:
            return
        try:
            self._bar.write(line, file=sys.stdout)
            sys.stdout.flush()
        except OSError as error:
            self._says = False
            self.warn(f"standard output: nothing more is printed, training goes on: {error.strerror}")

    def warn(self, problem: str) -> None:
        """Say what went wrong, as long as somebody is there to hear it."""
        with suppress(OSError):
            self._bar.write(f"caffe2torch: warning: {problem}", file=sys.stderr)

    def updated(self, solver: Solver, loss: float, rate: float) -> None:
        self._bar.set_postfix_str(f"loss {loss:.4g}, lr {rate:g}", refresh=False)
        self._bar.update()

    def troubled(self, solver: Solver, problem: str) -> None:
        self.warn(problem)
