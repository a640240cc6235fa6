"""Edit a net and its weights: rename, cut, insert, fold, merge, change bits or classes.

  caffe2torch edit train_val.prototxt net.caffemodel -o deploy.prototxt new.caffemodel --deploy --softmax prob
  caffe2torch edit net.prototxt net.caffemodel -o folded.prototxt folded.caffemodel --fold-batchnorm
  caffe2torch edit net.prototxt -o features.prototxt --cut ..fc7
  caffe2torch edit net.prototxt net.caffemodel -o new.prototxt new.caffemodel --classes 20 --rename fc8=fc8_mine

Edits are made in the order in which they stand; NET and WEIGHTS stay as they are. The new files are in V2 syntax with
all phases of the net, but without the comments of the old prototxt. Each edit is checked by building the net.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caffe2torch.surgery import Model

HELP = "rename, cut, insert, fold BatchNorm, merge weights, change bits or classes"


class _Step(argparse.Action):
    """Notes an edit in ``steps``, in the order of the command line."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        namespace.steps = [*(getattr(namespace, "steps", None) or []), (self.dest, values)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from caffe2torch.commands.options import add_custom_options, add_match_options

    parser.add_argument("net", metavar="NET", help="prototxt of the net, in V0, V1 or V2 syntax")
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help=".caffemodel or .caffemodel.h5 of the net")
    parser.add_argument(
        "-o",
        "--out",
        nargs="+",
        required=True,
        metavar=("NEWNET", "NEWWEIGHTS"),
        help="files to write; weights ending in .h5 are HDF5",
    )
    _add_steps(parser.add_argument_group("edits, in the order given"))
    parser.add_argument("--softmax", metavar="NAME", help="with --deploy: a Softmax in place of each SoftmaxWithLoss")
    parser.add_argument("--data", metavar="LAYERS|FILE", help="with --train: prototxt of the data layers")
    parser.add_argument("--label", default="label", help="with --train: blob of the labels (default: label)")
    parser.add_argument(
        "--where-possible", action="store_true", help="with --fold-batchnorm: leave, and list, those that cannot be"
    )
    parser.add_argument("--seed", type=int, default=0, help="of new weights and of the random input (default: 0)")
    parser.add_argument("--syntax", choices=("V1", "V2"), help="of the new files (default: V2)")
    parser.add_argument("--force", action="store_true", help="replace output files that are there already")
    parser.add_argument(
        "--input", action="append", default=[], metavar="BLOB=N,C,H,W", help="shape of an input blob of NET"
    )
    add_match_options(parser)
    add_custom_options(parser)
    parser.set_defaults(steps=[])


def _add_steps(group: argparse._ArgumentGroup) -> None:
    def step(name: str, help_text: str, **options: Any) -> None:
        group.add_argument(name, action=_Step, default=argparse.SUPPRESS, help=help_text, **options)

    step("--rename", "layers, blobs, shared parameters; layer:OLD=NEW, blob:, param: only that", metavar="OLD=NEW")
    step("--cut", "keep the layers from one to the other; either may be left out", metavar="FIRST..LAST")
    step("--remove", "remove a layer (or FIRST..LAST) and close the gap", metavar="LAYER")
    step("--insert", "insert 'layer { ... }' behind a layer", nargs=2, metavar=("AFTER", "LAYER"))
    step("--replace", "put 'layer { ... }' in the place of a layer", nargs=2, metavar=("OLD", "LAYER"))
    step("--fold-batchnorm", "BatchNorm and Scale into the weights before them", nargs=0)
    step("--merge", "take the weights of layers of the same name", metavar="WEIGHTS")
    step("--alias", "for the --merge before it: the net's layer NEW is called OLD there", metavar="NEW=OLD")
    step("--bits", "another code length", metavar="[LAYER=]N")
    step("--classes", "another number of classes", metavar="[LAYER=]N")
    step("--deploy", "from the net to train to the net to use", nargs=0)
    step("--train", "from the net to use to the net to train", nargs=0)


def run(args: argparse.Namespace) -> int:
    from caffe2torch import surgery
    from caffe2torch.commands.options import customise, input_shapes
    from caffe2torch.saving import check_absent

    _check(args)
    check_absent([Path(path) for path in args.out], force=args.force)
    model = surgery.read(
        args.net,
        args.weights,
        input_shapes=input_shapes(args.input),
        allow_missing=args.allow_missing,
        ignore_extra=args.ignore_extra,
        schema=customise(args),
    )
    if "#" in Path(args.net).read_text("utf-8", errors="replace"):
        print(f"caffe2torch: note: the comments of {args.net} are not kept", file=sys.stderr)
    for name, value in _grouped(args.steps):
        model = _apply(model, name, value, args)
    surgery.write(model, *args.out, syntax=args.syntax or "V2", force=args.force)
    for note in model.notes:
        print(note)
    print(f"wrote {' and '.join(args.out)} ({len(model.net.layer)} layers)")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other or miss a companion."""
    from caffe2torch.errors import UsageError

    steps = [name for name, _ in args.steps]
    given = set(steps)
    if len(args.out) > 2:
        raise UsageError(f"-o takes NEWNET and NEWWEIGHTS; {len(args.out)} were given")
    if not steps and args.syntax is None:
        raise UsageError("no edit is asked for; see caffe2torch edit --help")
    if {"deploy", "train"} <= given:
        raise UsageError("--deploy and --train undo each other; give one of them")
    for name in ("deploy", "train", "fold_batchnorm"):
        if steps.count(name) > 1:
            raise UsageError(f"--{name.replace('_', '-')} is given {steps.count(name)} times; once is enough")
    needs = (("--softmax", args.softmax, "deploy"), ("--data", args.data, "train"))
    for option, value, step in (*needs, ("--where-possible", args.where_possible, "fold_batchnorm")):
        if value and step not in given:
            raise UsageError(f"{option} goes with --{step.replace('_', '-')}")
    if args.weights and len(args.out) == 1:
        raise UsageError("weights are given, but -o names only the new net; add a name for the new weights")
    if len(args.out) == 2 and not args.weights and "merge" not in given:
        raise UsageError(f"there are no weights to write to {args.out[1]}: give WEIGHTS, or take some with --merge")
    if "fold_batchnorm" in given and not args.weights:
        raise UsageError("--fold-batchnorm needs the weights of the net")


def _grouped(steps: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Renames that follow each other are one step, so that names can change places; an alias joins its merge."""
    from caffe2torch.errors import UsageError

    grouped: list[tuple[str, Any]] = []
    for name, value in steps:
        if name == "rename" and grouped and grouped[-1][0] == "rename":
            grouped[-1][1].append(value)
        elif name == "alias":
            if not grouped or grouped[-1][0] != "merge":
                raise UsageError(f"--alias {value} belongs behind the --merge it is for")
            new, old = _pair(value, "--alias", "NEW=OLD")
            grouped[-1][1][1][new] = old
        else:
            grouped.append((name, [value] if name == "rename" else (value, {}) if name == "merge" else value))
    return grouped


def _apply(model: Model, name: str, value: Any, args: argparse.Namespace) -> Model:
    from caffe2torch import surgery

    if name == "rename":
        return surgery.rename(model, **_names(value))
    if name == "cut":
        return surgery.cut(model, *_ends(value))
    if name == "remove":
        return surgery.remove(model, value)
    if name == "insert":
        return surgery.insert(model, *value, seed=args.seed)
    if name == "replace":
        return surgery.replace_layer(model, *value, seed=args.seed)
    if name == "fold_batchnorm":
        return surgery.fold_batchnorm(model, where_possible=args.where_possible, seed=args.seed)
    if name == "merge":
        return surgery.merge(model, value[0], aliases=value[1], seed=args.seed)
    if name in ("bits", "classes"):
        layer, number = _count(value, f"--{name}")
        change = surgery.set_bits if name == "bits" else surgery.set_classes
        return change(model, number, layer, seed=args.seed)
    if name == "deploy":
        return surgery.deploy(model, softmax=args.softmax or "")
    return surgery.train(model, _data(args.data), label=args.label)


def _names(values: Sequence[str]) -> dict[str, dict[str, str]]:
    from caffe2torch.errors import UsageError

    tables: dict[str, dict[str, str]] = {"names": {}, "layers": {}, "blobs": {}, "params": {}}
    for value in values:
        kind, colon, rest = value.partition(":")
        table = tables.get(f"{kind}s") if colon and kind in ("layer", "blob", "param") else None
        old, new = _pair(rest if table is not None else value, "--rename", "OLD=NEW")
        chosen = tables["names"] if table is None else table
        if chosen.setdefault(old, new) != new:
            raise UsageError(f"--rename gives {old!r} two names, {chosen[old]!r} and {new!r}")
    return tables


def _pair(value: str, option: str, form: str) -> tuple[str, str]:
    from caffe2torch.errors import UsageError

    old, equals, new = value.partition("=")
    if not equals or not old or not new:
        raise UsageError(f"{option} {value!r}: expected {form}")
    return old, new


def _ends(value: str) -> tuple[str, str]:
    from caffe2torch.errors import UsageError

    first, dots, last = value.partition("..")
    if not dots or not (first or last):
        raise UsageError(f"--cut {value!r}: expected FIRST..LAST, FIRST.. or ..LAST")
    return first, last


def _count(value: str, option: str) -> tuple[str, int]:
    from caffe2torch.errors import UsageError

    layer, _, number = value.rpartition("=")
    if not number.isascii() or not number.isdecimal() or not 0 < int(number) < 1 << 31:
        raise UsageError(f"{option} {value!r}: expected a number of at least 1, or LAYER=NUMBER")
    return layer, int(number)


def _data(value: str | None) -> str:
    """Layers as text, or the text of a file of them."""
    from caffe2torch.errors import PrototxtError

    if not value or "{" in value:
        return value or ""
    try:
        return Path(value).read_text("utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PrototxtError(f"cannot be read: {reason}", path=value) from error
