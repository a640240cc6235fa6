"""Which model hashes pictures: the options, and what they mean, for every command that hashes."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from caffe2torch.errors import UsageError

if TYPE_CHECKING:
    from caffe2torch.extract import Model


def add_model_options(group: argparse._ArgumentGroup) -> None:
    """A model of the zoo or of one's own, and what is changed about it."""
    from caffe2torch.commands.options import add_custom_options

    group.add_argument(
        "--model",
        metavar="NAME",
        help="a model of the zoo (`caffe2torch zoo` lists them), or the folder of a project (`caffe2torch "
        "new-project`); default: the bundled ssdh48_small",
    )
    group.add_argument("--net", metavar="FILE", help="a deploy prototxt of your own; needs --weights and --preprocess")
    group.add_argument(
        "--weights", metavar="FILE", help=".caffemodel or .caffemodel.h5 for --net, or in place of the model's own"
    )
    group.add_argument(
        "--preprocess",
        nargs="+",
        action="extend",
        metavar="SETTING",
        help="for --net, after the INPUTs: the name of a zoo model whose preprocessing to use, and settings KEY=VALUE "
        "over it: dialect (matcaffe, transformer, pycaffe), resize, crop, crop_offset, mean_values, scale, ...",
    )
    group.add_argument("--mean", metavar="FILE", help="mean image: .binaryproto, .npy or .mat")
    group.add_argument(
        "--mean-layout", choices=("hwc", "whc"), help="subtract the mean image upright, or transposed as SSDH did"
    )
    group.add_argument(
        "--blob", metavar="NAME", help="the blob that holds the code (default: the model's, or the only output)"
    )
    group.add_argument(
        "--exif", action="store_true", help="turn pictures upright by their EXIF orientation (MATLAB does not)"
    )
    group.add_argument("--ignore-extra", action="store_true", help="pass over weights for layers the net does not have")
    group.add_argument("--allow-missing", action="store_true", help="fill layers without weights by their fillers")
    group.add_argument(
        "--allow-unknown", action="store_true", help="pass over prototxt fields the schema does not have"
    )
    add_custom_options(group)


def add_running_options(group: argparse._ArgumentGroup) -> None:
    """Where, how fast and how exactly pictures are hashed."""
    group.add_argument(
        "--device", default="auto", metavar="DEV", help="auto (a GPU if there is one), cpu, cuda or cuda:N"
    )
    group.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="pictures in one pass of the net; default: 64"
    )
    group.add_argument(
        "--workers", type=int, metavar="N", help="threads that decode pictures; default: one for each core"
    )
    group.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "bf16", "fp16"),
        help="float32 (TF32 off) defines the codes; the others are faster on a GPU and say how many bits they flip",
    )
    group.add_argument(
        "--on-error",
        default="stop",
        choices=("stop", "skip", "zero"),
        help="a picture that cannot be read: stop (default), leave it out, or give it a code of zeros",
    )


def chosen_model(args: argparse.Namespace, *, features: str | None = None) -> Model:
    """The model that --model or --net names, with all the other options change; ``features`` is a second blob."""
    from caffe2torch import zoo
    from caffe2torch.extract.model import Model, parse_spec

    if args.net:
        if args.model:
            raise UsageError("--model and --net both name a net: give one of them")
        if not args.weights:
            raise UsageError(f"--net {args.net}: its weights are missing, give --weights FILE.caffemodel")
        if not args.preprocess:
            raise UsageError(
                f"--net {args.net}: what is done to pictures before the net stands in no prototxt: give --preprocess "
                f"with the name of a zoo model that does the same ({', '.join(zoo.names()[:3])}, ...) or with settings "
                "such as dialect=matcaffe resize=256 crop=227, and --mean"
            )
        spec, mean = parse_spec(args.preprocess)
        model = Model.from_files(args.net, args.weights, spec, mean=args.mean or mean)
    else:
        if args.preprocess:
            raise UsageError("--preprocess is for --net: a zoo model knows its own preprocessing")
        name = args.model or zoo.default_name()
        model = Model.from_zoo(name, weights=args.weights, mean=args.mean)
        if not (model.blob or args.blob):
            raise UsageError(f"{name} makes no codes; name a blob to threshold with --blob, or choose a hashing model")
    if args.mean_layout:
        model = model.with_mean_layout(args.mean_layout)
    return replace(
        model,
        blob=args.blob or model.blob,
        features=features,
        exif=args.exif,
        allow_missing=args.allow_missing,
        ignore_extra=args.ignore_extra or model.ignore_extra,
        allow_unknown=args.allow_unknown,
        protos=tuple(map(Path, args.proto)),
        imports=tuple(args.imports),
    )
