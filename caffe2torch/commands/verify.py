"""Prove that the numbers are Caffe's.

  caffe2torch verify                                              this installation, with the golden cases it carries
  caffe2torch verify --goldens DIR                                the golden cases below a folder
  caffe2torch verify deploy.prototxt x.caffemodel --against blobs.npz   a net of yours, against what your Caffe computed
  caffe2torch verify deploy.prototxt x.caffemodel --against opencv      the same against OpenCV's Caffe importer

Where you have Caffe, this makes blobs.npz:

  import caffe, numpy
  net = caffe.Net("deploy.prototxt", "x.caffemodel", caffe.TEST)
  dump = {}
  for name in net.inputs:
      blob = net.blobs[name]
      blob.data[...] = numpy.random.standard_normal(blob.data.shape) * 50   # better: an input of yours
      dump["in:" + name] = blob.data.copy()
  net.forward()
  dump.update(("out:" + name, blob.data.copy()) for name, blob in net.blobs.items())
  numpy.savez("blobs.npz", **dump)

Blobs are compared in the order of the net, and the first layer that diverges is named. The exit status is 1 if
anything differs. An error is a share of the blob's largest magnitude.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caffe2torch.net import CaffeNet
    from caffe2torch.verify.case import Case
    from caffe2torch.verify.compare import Result
    from caffe2torch.verify.dump import Dump

HELP = "prove that the numbers are Caffe's: golden cases, or a net of yours against your Caffe or OpenCV"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``caffe2torch verify``."""
    from caffe2torch.commands.options import add_blob_option, add_match_options, add_net_options

    parser.add_argument("net", metavar="NET", nargs="?", help="prototxt of a net of yours")
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help="its .caffemodel or .caffemodel.h5")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write a page with all comparisons")
    golden = parser.add_argument_group("golden cases")
    golden.add_argument(
        "--goldens", type=Path, metavar="DIR", help="run the cases below DIR (default: the bundled ones)"
    )
    golden.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="only cases with such names, as 'layers/conv*'"
    )
    own = parser.add_argument_group("a net of yours")
    own.add_argument("--against", metavar="FILE.npz|opencv", help="what computed the values to compare with")
    own.add_argument("--data", type=Path, metavar="FILE.npz", help="input blobs for --against opencv (default: random)")
    own.add_argument(
        "--tolerance", type=_share, metavar="X", help="allowed error of every blob (default: 1e-5, after sums 1e-4)"
    )
    add_blob_option(own)
    add_net_options(own)
    add_match_options(own)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, found {text!r}")
    return value


def run(args: argparse.Namespace) -> int:
    """Compare what was asked for; returns 1 if anything differs."""
    from caffe2torch.errors import UsageError

    if args.net is None:
        if args.against or args.data:
            raise UsageError("--against and --data compare a net of yours: give NET and WEIGHTS before them")
        return _goldens(args)
    if args.goldens or args.only:
        raise UsageError("--goldens and --only run golden cases, which bring their nets: leave NET and WEIGHTS out")
    if not args.against:
        raise UsageError("what to compare this net with? give --against blobs.npz, or --against opencv")
    if args.data and args.against != "opencv":
        raise UsageError("--data goes with --against opencv; a dump brings its own inputs, as in:NAME")
    return _own(args)


def _goldens(args: argparse.Namespace) -> int:
    from caffe2torch.verify import report
    from caffe2torch.verify.case import bundled, discover

    folder = args.goldens or bundled()
    results = _run(_chosen(discover(folder), args.only, folder))
    for line in (*report.overview(results), *report.remarks(results)):
        print(line)
    print(report.summary(results))
    if args.report:
        lines = (*report.overview(results), *report.remarks(results), report.summary(results))
        title = "caffe2torch against golden values of Caffe"
        report.write_page(args.report, title, lines, report.case_rows(results), ("case", "what"))
    return 1 if any(result.status == "failed" for result in results) else 0


def _chosen(cases: Sequence[Case], patterns: Sequence[str], folder: Path) -> list[Case]:
    from fnmatch import fnmatchcase

    from caffe2torch.errors import UsageError

    chosen = [case for case in cases if not patterns or any(fnmatchcase(case.name, p) for p in patterns)]
    if not chosen:
        raise UsageError(f"--only {', '.join(patterns)}: none of the {len(cases)} cases below {folder} has such a name")
    return chosen


def _run(cases: Sequence[Case]) -> list[Result]:
    """Run the cases with a bar on stderr; failures are printed as they come."""
    from tqdm import tqdm

    from caffe2torch.verify.report import failure_lines
    from caffe2torch.verify.runner import run_cases

    results = []
    # disable=None: no bar where stderr is a file
    with tqdm(total=len(cases), unit="case", leave=False, delay=0.2, disable=None) as bar:
        for result in run_cases(cases):
            results.append(result)
            for line in failure_lines(result):
                with tqdm.external_write_mode():
                    print(line, flush=True)
            bar.set_postfix_str(result.case, refresh=False)
            bar.update()
    return results


def _own(args: argparse.Namespace) -> int:
    from caffe2torch.verify import report
    from caffe2torch.verify.dump import compare_blobs, first_divergence, read_dump
    from caffe2torch.verify.opencv import ask, random_inputs

    theirs = None if args.against == "opencv" else read_dump(Path(args.against))
    given = read_dump(args.data) if args.data else theirs
    net = _load(args, given)
    notes = []
    if theirs is None:
        inputs = given.values_for(net.structure.graph, str(args.data)) if given else random_inputs(net)
        opinion = ask(net, Path(args.weights) if args.weights else None, inputs)
        theirs = opinion.dump
        if opinion.lacking:
            notes.append(f"not compared, OpenCV cannot compute them: {', '.join(opinion.lacking)}")
    missing = [b for b in net.blob_shapes if b not in theirs.outputs and b not in net.inputs]
    if missing and not notes:
        notes.append(f"not compared, the dump lacks them: {', '.join(missing)}")
    checks = compare_blobs(net, theirs, args.tolerance)
    rows = [report.check_row(check) for check in checks]
    for line in (*report.table(rows), *notes):
        print(line)
    failed = sum(not check.passed for check in checks)
    verdict = [line for line in (first_divergence(checks),) if line]
    verdict.append(f"{len(checks) - failed} blobs agree, {failed} differ")
    print("\n".join(verdict))
    if args.report:
        title = f"{args.net} against {args.against}"
        report.write_page(args.report, title, [*verdict, *notes], rows, ("blob", "made by"))
    return 1 if failed or not checks else 0


def _load(args: argparse.Namespace, dump: Dump | None) -> CaffeNet:
    """The net, its inputs shaped as in the dump."""
    from caffe2torch.commands.options import customise, input_shapes
    from caffe2torch.loading import connected, load, naming
    from caffe2torch.prototxt import UnknownField, read_net

    unknown: list[UnknownField] | None = [] if args.allow_unknown else None
    path = Path(args.net)
    found: list[UnknownField] = []  # load says which of them matter
    message = read_net(path, found, schema=customise(args))
    given = input_shapes(args.input)
    with naming(path):
        refused = found if unknown is None else ()
        graph = connected(message, refused, phase=args.phase, level=args.level, stages=args.stage, fed=given)
    values = {**dump.outputs, **dump.inputs} if dump else {}
    shapes = {blob: values[blob].shape for blob in graph.inputs if blob in values} | given
    return load(
        path,
        args.weights,
        phase=args.phase,
        level=args.level,
        stages=args.stage,
        input_shapes=shapes,
        allow_missing=args.allow_missing,
        ignore_extra=args.ignore_extra,
        unknown_fields=unknown,
        protos=args.proto,
        outputs=args.blob or None,
    )
