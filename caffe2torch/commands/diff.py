"""Compare two nets, two weights files, or two nets with their weights, layer by layer.

  caffe2torch diff old.prototxt new.prototxt
  caffe2torch diff old.caffemodel new.caffemodel.h5 --tolerance 1e-6
  caffe2torch diff old.prototxt old.caffemodel new.prototxt new.caffemodel

Nets are compared by meaning: V0, V1 and V2 syntax, defaults written out or not, make no difference. Weights are
compared to the bit, or within --tolerance. Exit status 1 if there is a difference.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caffe2torch.surgery.compare_nets import FieldChange, NetDifferences
    from caffe2torch.surgery.compare_weights import BlobDifference
    from caffe2torch.surgery.pairs import Comparison

HELP = "what differs between two nets or weights files, layer by layer"

_FIGURES = ("largest", "mean", "cosine")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from caffe2torch.commands.options import add_custom_options

    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="two prototxts, two weights files, or NET WEIGHTS NET WEIGHTS"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="weights may differ by so much in each value (default: every bit counts)",
    )
    parser.add_argument(
        "--settings", action="store_true", help="compare also the net settings that binary weights files hold"
    )
    parser.add_argument("--all", action="store_true", help="show all blobs, also those that are equal")
    parser.add_argument("--json", action="store_true", help="print the same facts as JSON")
    parser.add_argument(
        "--input", action="append", default=[], metavar="BLOB=N,C,H,W", help="shape of an input blob, for NET WEIGHTS"
    )
    add_custom_options(parser)


def run(args: argparse.Namespace) -> int:
    from caffe2torch.commands.options import customise, input_shapes
    from caffe2torch.errors import UsageError
    from caffe2torch.surgery.pairs import compare, compare_pairs

    files = args.files
    if len(files) not in (2, 4):
        raise UsageError(f"diff takes two files, or NET WEIGHTS NET WEIGHTS; {len(files)} were given")
    if args.tolerance is not None and not 0 <= args.tolerance < math.inf:
        raise UsageError(f"--tolerance {args.tolerance}: expected a number of at least 0")
    if len(files) == 4 and args.settings:
        raise UsageError("--settings is for two weights files; with NET WEIGHTS the nets are compared")
    if len(files) == 2 and args.input:
        raise UsageError("--input is for NET WEIGHTS NET WEIGHTS; two files are compared without their shapes")
    schema = customise(args)
    if len(files) == 4:
        shapes = input_shapes(args.input)
        found = compare_pairs((files[0], files[1]), (files[2], files[3]), input_shapes=shapes, schema=schema)
    else:
        found = compare(files[0], files[1], settings=args.settings, schema=schema)
    equal = found.equal(args.tolerance)
    if args.json:
        print(json.dumps(_facts(args, found, equal), indent=2))
    else:
        _print(args, found, equal)
    return 0 if equal else 1


def _facts(args: argparse.Namespace, found: Comparison, equal: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"files": args.files, "tolerance": args.tolerance, "equal": equal}
    if found.nets is not None:
        nets = found.nets
        facts["nets"] = {
            "equal": nets.equal,
            "only_first": list(nets.only_first),
            "only_second": list(nets.only_second),
            "changed": {name: [_change(each) for each in changes] for name, changes in nets.changed},
            "net": [_change(each) for each in nets.net],
            "order_differs": nets.order,
        }
    if found.weights is not None:
        facts["weights"] = [
            {
                "layer": blob.layer,
                "blob": blob.index,
                "first": None if blob.first is None else list(blob.first),
                "second": None if blob.second is None else list(blob.second),
                "values": blob.count,
                "values_that_differ": blob.values,
                "bits_that_differ": blob.bits,
                "largest": _number(blob.largest),
                "mean": _number(blob.mean),
                "cosine": _number(blob.cosine),
                "differs": blob.differs(args.tolerance),
            }
            for blob in found.weights
        ]
    return facts


def _change(change: FieldChange) -> dict[str, str | None]:
    return {"field": change.field, "first": change.first, "second": change.second}


def _number(value: float | None) -> float | str | None:
    """JSON has no infinities and no NaN."""
    return value if value is None or math.isfinite(value) else str(value)


def _print(args: argparse.Namespace, found: Comparison, equal: bool) -> None:
    half = len(args.files) // 2
    print(f"first:  {' '.join(args.files[:half])}\nsecond: {' '.join(args.files[half:])}\n")
    if found.nets is not None:
        _print_nets(found.nets)
    if found.weights is not None:
        _print_weights(found.weights, args)
    within = "" if args.tolerance is None or found.weights is None else f" (within {args.tolerance:g})"
    print("the same" + within if equal else "they differ")


def _print_nets(nets: NetDifferences) -> None:
    for which, names in (("first", nets.only_first), ("second", nets.only_second)):
        if names:
            print(f"layers only in the {which}: {', '.join(names)}")
    for name, changes in (("the net", nets.net), *((f"layer {name}", changes) for name, changes in nets.changed)):
        if changes:
            print(name)
        for change in changes:
            print(f"  {change}")
    if nets.order:
        print("the layers come in another order")
    print(f"nets: {nets.common} layers in both, {len(nets.changed)} with other settings\n")


def _print_weights(blobs: tuple[BlobDifference, ...], args: argparse.Namespace) -> None:
    different = [blob for blob in blobs if blob.differs(args.tolerance)]
    rows: list[tuple[str, ...]] = [("layer", "blob", "shape", "values that differ", "bits", *_FIGURES)]
    rows += [_row(blob) for blob in (blobs if args.all else different)]
    if len(rows) > 1:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            cells = [
                cell.ljust(w) if i in (0, 2) else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            print("  ".join(cells).rstrip())
    compared = [blob for blob in blobs if blob.largest is not None]
    unequal = sum(blob.differs(args.tolerance) for blob in compared)
    alone = f"; {len(different) - unequal} have no counterpart of their shape" if len(different) > unequal else ""
    print(f"weights: {len(compared)} blobs compared, {unequal} differ{alone}\n")


def _row(blob: BlobDifference) -> tuple[str, ...]:
    place = (blob.layer, str(blob.index))
    if blob.first is None or blob.second is None:
        only = "first" if blob.second is None else "second"
        return (*place, _dims(blob.first if blob.second is None else blob.second), f"only in the {only}", *("",) * 4)
    if blob.largest is None or blob.mean is None or blob.cosine is None:
        return (*place, f"{_dims(blob.first)} -> {_dims(blob.second)}", "other shape", *("",) * 4)
    figures = (f"{blob.largest:.3g}", f"{blob.mean:.3g}", f"{blob.cosine:.9f}")
    return (*place, _dims(blob.first), f"{blob.values:,} of {blob.count:,}", f"{blob.bits:,}", *figures)


def _dims(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape or ())) or "scalar"
