"""Options that ``search`` and ``serve`` share: what is searched, and which model makes codes of new pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from caffe2torch.errors import RetrievalError, UsageError

if TYPE_CHECKING:
    from caffe2torch.browse.gallery import Gallery
    from caffe2torch.extract import Hasher, Model

OWN_MODEL = ("preprocess", "mean_layout", "blob", "exif", "allow_missing", "ignore_extra", "allow_unknown")
"""Options that only a codes file without a record of its making needs."""


def add_gallery_options(parser: argparse.ArgumentParser) -> None:
    """What is searched."""
    parser.add_argument(
        "codes",
        metavar="CODES",
        help="the database: a codes file of `caffe2torch extract` (or MATLAB), or an index (`caffe2torch index`)",
    )
    group = parser.add_argument_group("the database")
    group.add_argument(
        "--root",
        metavar="DIR",
        help="the folder its pictures lie in now, if not where they were when their codes were made",
    )
    group.add_argument(
        "--list", metavar="FILE", help="list file with a path (and label) for each code, for a codes file without them"
    )
    group.add_argument(
        "--label-names", metavar="FILE", help="text file with the name of a label on each line, label 0 first"
    )
    group.add_argument(
        "--engine",
        default="auto",
        choices=("auto", "faiss", "numpy", "torch"),
        help="what searches; all find the same. default: the fastest that is installed",
    )


def add_rerank_options(parser: argparse.ArgumentParser) -> None:
    """Coarse to fine."""
    group = parser.add_argument_group("coarse to fine")
    group.add_argument(
        "--rerank",
        metavar="BLOB",
        help="rank the nearest by code again by this blob, such as fc7, extracted with --features BLOB",
    )
    group.add_argument("--features", metavar="FILE", help="where the database's features are, if not in the codes file")
    group.add_argument("--metric", default="euclidean", choices=("euclidean", "cosine"), help="default: euclidean")
    group.add_argument(
        "--candidates", type=int, default=1000, metavar="N", help="how many to rank again; default: 1000"
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model makes the code of a new picture."""
    from caffe2torch.commands.options import add_custom_options

    group = parser.add_argument_group(
        "the model that hashes new pictures",
        "It must be the one that made the codes. A codes file of extract says which, and its files are found where "
        "they were or in the zoo; --net, --weights, --mean and --model say where they are now. For other codes files "
        "name the model as for extract.",
    )
    group.add_argument("--model", metavar="NAME", help="a model of the zoo")
    group.add_argument("--net", metavar="FILE", help="deploy prototxt")
    group.add_argument("--weights", metavar="FILE", help=".caffemodel or .caffemodel.h5")
    group.add_argument("--mean", metavar="FILE", help="mean image: .binaryproto, .npy or .mat")
    group.add_argument("--preprocess", nargs="+", action="extend", metavar="SETTING", help="as for extract, with --net")
    group.add_argument("--mean-layout", choices=("hwc", "whc"), help="as for extract")
    group.add_argument("--blob", metavar="NAME", help="the blob that holds the code")
    group.add_argument("--exif", action="store_true", help="turn pictures upright by their EXIF orientation")
    group.add_argument("--ignore-extra", action="store_true", help="pass over weights for layers the net does not have")
    group.add_argument("--allow-missing", action="store_true", help="fill layers without weights by their fillers")
    group.add_argument("--allow-unknown", action="store_true", help="pass over prototxt fields the schema lacks")
    group.add_argument(
        "--another-model",
        action="store_true",
        help="use the model named here although the codes file records another one; its distances may mean nothing",
    )
    group.add_argument("--device", default="auto", metavar="DEV", help="auto, cpu, cuda or cuda:N")
    add_custom_options(group)


def open_gallery(args: argparse.Namespace) -> Gallery:
    """The database the options name."""
    from caffe2torch.browse.gallery import Gallery

    gallery = Gallery.open(
        args.codes,
        root=args.root,
        names=args.list,
        label_names=args.label_names,
        features=getattr(args, "features", None),
        engine=args.engine,
        say=lambda message: print(f"caffe2torch: note: {message}", file=sys.stderr),
    )
    blob, recorded = getattr(args, "rerank", None), gallery.provenance.get("features")
    if blob and not args.features and recorded and blob != recorded:
        raise RetrievalError(f"{args.codes}: holds features of {recorded}, not of {blob}: give --rerank {recorded}")
    return gallery


def hasher_maker(args: argparse.Namespace, gallery: Gallery) -> Callable[[], Hasher]:
    """A function that loads the model when it is first called."""

    @lru_cache(maxsize=1)
    def make() -> Hasher:
        from caffe2torch.extract import Hasher

        return Hasher(query_model(args, gallery), device=args.device)

    return make


def query_model(args: argparse.Namespace, gallery: Gallery) -> Model:
    """The model the codes file records, or the one the options name where it records none."""
    from dataclasses import replace

    from caffe2torch.browse.same_model import Given, is_recorded, recorded_model

    provenance = gallery.provenance
    features = getattr(args, "rerank", None)
    if args.another_model or not is_recorded(provenance):
        return _own_model(args, gallery)
    if given := [f"--{name.replace('_', '-')}" for name in OWN_MODEL if getattr(args, name)]:
        raise UsageError(
            f"{given[0]}: {args.codes} says itself how its pictures were prepared and hashed; leave this out, or give "
            "--another-model as well to go against it"
        )
    where = Given(
        model=args.model,
        net=Path(args.net) if args.net else None,
        weights=Path(args.weights) if args.weights else None,
        mean=Path(args.mean) if args.mean else None,
        protos=tuple(map(Path, args.proto)),
        imports=tuple(args.imports),
    )
    return replace(recorded_model(gallery.path, provenance, where), features=features)


def _own_model(args: argparse.Namespace, gallery: Gallery) -> Model:
    """As ``extract`` understands the same options."""
    from caffe2torch.commands.model_options import chosen_model
    from caffe2torch.retrieval.comparable import differences

    if not (args.model or args.net):
        if args.another_model:
            raise UsageError("--another-model: say which, with --model or with --net, --weights and --preprocess")
        raise RetrievalError(
            f"{args.codes}: does not say which model made its codes, and a new picture must be hashed with the same: "
            "name it with --model NAME, or with --net, --weights and --preprocess"
        )
    model = chosen_model(args, features=getattr(args, "rerank", None))
    if found := differences(gallery.provenance, model.identity()):
        print(f"caffe2torch: warning: {args.codes} was made otherwise: {'; '.join(found)}", file=sys.stderr)
    return model
