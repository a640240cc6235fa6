"""Write a net as plain PyTorch, ONNX or a torch.export program that needs neither Caffe nor caffe2torch.

  caffe2torch convert deploy.prototxt x.caffemodel -o x/   model.py, model.safetensors and a README
  caffe2torch convert ssdh48_small -o ssdh48_small/        a model of the zoo, with its preprocessing
  caffe2torch convert --all -o models/                     every model of the zoo whose weights are here
  caffe2torch convert deploy.prototxt x.caffemodel -o x/ --format onnx pt2 --blob fc7 prob
  caffe2torch convert ssdh48_small -o onnx/ --format onnx --with-preprocessing

What was written is run in a fresh interpreter and compared with the Caffe net on random input: bit-equal, or it says
how far off. Files that exist are not replaced without --force.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from caffe2torch.export import File, Result, Settings
    from caffe2torch.export.models import Convertible

ROUNDING = 1e-5
"""The largest difference, as a share of the largest value, that is rounding."""

HELP = "write a net as plain PyTorch source, safetensors, ONNX or a torch.export program"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from caffe2torch.commands.options import add_match_options, add_net_options

    parser.add_argument("net", nargs="?", metavar="NET", help="prototxt of the net, or the name of a model of the zoo")
    parser.add_argument("weights", nargs="?", metavar="WEIGHTS", help=".caffemodel or .caffemodel.h5")
    parser.add_argument("-o", "--out", metavar="DIR", help="the folder to write into")
    parser.add_argument("--all", action="store_true", help="every model of the zoo whose weights are here, to DIR/NAME")
    parser.add_argument(
        "--format",
        nargs="+",
        action="extend",
        metavar="FORM",
        help="what to write: source, safetensors, pt (a state dict), pt2 (torch.export), onnx; default: source "
        "safetensors",
    )
    parser.add_argument("--blob", nargs="+", default=[], metavar="NAME", help="the outputs; default: the net's own")
    parser.add_argument("--half", action="store_true", help="float16 weights")
    parser.add_argument(
        "--with-preprocessing",
        action="store_true",
        help="pt2 and onnx take RGB pictures (N, height, width, 3), uint8, and prepare them",
    )
    parser.add_argument(
        "--preprocess",
        nargs="+",
        metavar="SETTING",
        help="for a net that is not of the zoo: a zoo model whose preprocessing to use, and settings KEY=VALUE over it",
    )
    parser.add_argument("--mean", metavar="FILE", help="mean image for --preprocess: .binaryproto, .npy or .mat")
    parser.add_argument("--no-check", action="store_true", help="do not run what was written")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.add_argument("--table", metavar="FILE.md", help="instead: convert all known models and write what came out")
    parser.add_argument(
        "--models", metavar="DIR", help="for --table: a folder of more models (X.prototxt beside X*.caffemodel)"
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    add_net_options(parser)
    add_match_options(parser)


def run(args: argparse.Namespace) -> int:
    """Convert one model, or all; returns 1 where a written form is far off, or a model of all has none."""
    from pathlib import Path

    from caffe2torch.errors import UsageError

    if args.table:
        return _table(args)
    if not args.out:
        raise UsageError("no folder to write into: give -o DIR")
    if args.all == bool(args.net):
        raise UsageError("give a net (prototxt and weights, or the name of a model), or --all; see --help")
    results, failed = _all(args) if args.all else ([_convert(args, _model(args), Path(args.out))], 0)
    if args.json:
        facts = [_facts(result) for result in results]
        print(json.dumps(facts if args.all else facts[0], indent=2))
    else:
        print("\n\n".join(_report(result) for result in results))
    far = [str(file.path) for result in results for file in result.files if far_off(file)]
    if far and not args.half:  # float16 is measured, not judged
        print(f"caffe2torch: error: too far from the Caffe net: {', '.join(far)}", file=sys.stderr)
        return 1
    return 1 if failed else 0


def _settings(args: argparse.Namespace) -> Settings:
    from caffe2torch.export import DEFAULT, Settings

    return Settings(
        formats=tuple(dict.fromkeys(args.format or DEFAULT)),
        half=args.half,
        pictures=args.with_preprocessing,
        check=not args.no_check,
        force=args.force,
    )


def _convert(args: argparse.Namespace, model: Convertible, folder: Path) -> Result:
    from caffe2torch.export import convert
    from caffe2torch.export.convert import check_possible

    settings = _settings(args)
    check_possible(folder, settings)  # before the weights are read
    net = model.load()
    for note in model.notes:
        print(f"caffe2torch: note: {note}", file=sys.stderr)
    return convert(net, folder, settings=settings, origins=model.origins(), preprocessing=model.preprocessing())


def _model(args: argparse.Namespace) -> Convertible:
    from pathlib import Path

    from caffe2torch.commands.options import customise, input_shapes
    from caffe2torch.errors import UsageError
    from caffe2torch.export.models import from_files, from_zoo

    if args.phase != "test":
        raise UsageError("--phase train: only the net of the test phase is written")
    customise(args)
    if args.weights is None and not Path(args.net).is_file():
        _refuse_unused(args)
        return from_zoo(args.net, blobs=tuple(args.blob))
    if args.weights is None and not args.allow_missing:
        raise UsageError(f"{args.net}: give its WEIGHTS too; or --allow-missing, for weights from the fillers")
    return from_files(
        args.net,
        args.weights,
        blobs=tuple(args.blob),
        preprocess=args.preprocess or (),
        mean=args.mean,
        level=args.level,
        stages=args.stage,
        input_shapes=input_shapes(args.input),
        allow_unknown=args.allow_unknown,
        allow_missing=args.allow_missing,
        ignore_extra=args.ignore_extra,
        protos=args.proto,
    )


def _refuse_unused(args: argparse.Namespace) -> None:
    """Models of the zoo say themselves how they are loaded and how pictures are prepared."""
    from caffe2torch.errors import UsageError

    names = ("preprocess", "mean", "level", "stage", "input", "allow_unknown", "allow_missing", "ignore_extra", "proto")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name)]
    if given:
        raise UsageError(f"{', '.join(given)}: for a prototxt and its weights only, not for models of the zoo")


def _all(args: argparse.Namespace) -> tuple[list[Result], int]:
    """What was written, and how many models could not be, each of which is told with its name."""
    from pathlib import Path

    from caffe2torch import zoo
    from caffe2torch.errors import Caffe2TorchError, UsageError, ZooError
    from caffe2torch.export.models import from_zoo

    _refuse_unused(args)
    results: list[Result] = []
    absent: list[str] = []
    failed = 0
    for name in zoo.names():
        try:
            model = from_zoo(name, blobs=tuple(args.blob))
        except ZooError:
            absent.append(name)
            continue
        print(f"caffe2torch: {name}", file=sys.stderr)
        try:
            results.append(_convert(args, model, Path(args.out) / name))
        except Caffe2TorchError as error:
            print(f"caffe2torch: error: {name}: {error}", file=sys.stderr)
            failed += 1
    if absent:
        print(f"caffe2torch: note: not on this machine: {', '.join(absent)}", file=sys.stderr)
    if not results and not failed:
        raise UsageError("no model's weights are on this machine; `caffe2torch download NAME` fetches one")
    return results, failed


def _table(args: argparse.Namespace) -> int:
    from pathlib import Path

    from caffe2torch.export.table import write_table

    write_table(
        Path(args.table), Path(args.models) if args.models else None, say=lambda line: print(line, file=sys.stderr)
    )
    print(f"wrote {args.table}")
    return 0


def far_off(file: File) -> bool:
    """Whether a form differs from the Caffe net by more than rounding."""
    return file.check is not None and not file.check.relative <= ROUNDING


def _report(result: Result) -> str:
    lines = [f"{result.folder}: written in {result.seconds:.2f} s"]
    for file in result.files:
        said = file.check.text() if file.check else f"not checked: {file.unchecked}"
        lines.append(f"  {file.path.name:18} {file.size:>13,} bytes  {file.seconds:6.2f} s  {said}")
    spent = sum({id(file.check): file.check.seconds for file in result.files if file.check}.values())
    lines += [f"  checks took {spent:.2f} s"] * bool(spent)
    lines += [f"  other than in Caffe: {note}" for note in result.notes]
    return "\n".join(lines)


def _facts(result: Result) -> dict[str, Any]:
    return {
        "folder": str(result.folder),
        "seconds": result.seconds,
        "notes": list(result.notes),
        "files": [
            {
                "form": file.form,
                "path": str(file.path),
                "bytes": file.size,
                "seconds": file.seconds,
                "equal": file.check.equal if file.check else None,
                "largest_difference": file.check.largest if file.check else None,
                "largest_value": file.check.scale if file.check else None,
                "unchecked": file.unchecked or None,
            }
            for file in result.files
        ],
    }
