"""What the options of ``evaluate`` name: codes files or pictures, and the model that hashes these."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from caffe2torch.errors import UsageError

if TYPE_CHECKING:
    from caffe2torch.evaluation.pictures import Pictures
    from caffe2torch.extract import Model

CODES = (".h5", ".mat", ".npz", ".csv")
MODEL_OPTIONS = ("model", "net", "weights", "preprocess", "mean", "mean_layout", "blob", "accuracy", "resume", "again")


@dataclass(frozen=True)
class Inputs:
    """Queries and database: each a codes file or pictures to hash; ``database`` None means the other queries."""

    queries: Path | Pictures
    database: Path | Pictures | None

    @property
    def hashes(self) -> bool:
        """Whether there are pictures to hash."""
        return any(not isinstance(side, Path) for side in (self.queries, self.database) if side is not None)


def model_of(args: argparse.Namespace) -> Model:
    """The model that hashes pictures, as ``extract`` understands the options."""
    from caffe2torch.commands.model_options import chosen_model

    model = chosen_model(args)
    return model if args.accuracy is None else _with_classifier(args, model)


def _with_classifier(args: argparse.Namespace, model: Model) -> Model:
    """The model with its class scores as the second blob."""
    from caffe2torch import zoo
    from caffe2torch.prototxt import read_net

    if args.accuracy:
        return replace(model, features=args.accuracy)
    net = None if args.net else zoo.entry(model.name).with_classifier
    if net is None:
        raise UsageError(
            f"--accuracy: the net of {model.name} gives no class scores; for a net that does (--net), name the blob: "
            "--accuracy BLOB"
        )
    return replace(model, net=net, features=str(read_net(net).layer[-1].top[0]))


def inputs_of(args: argparse.Namespace) -> Inputs:
    """What --queries and --database, --cifar10 or --images name."""
    named = [f"--{name}" for name in ("queries", "cifar10", "images") if getattr(args, name)]
    if len(named) != 1:
        raise UsageError(
            f"{' and '.join(named) + ' name' if named else 'nothing names'} what is to be measured; give one of "
            "--queries (with --database), --cifar10 and --images"
        )
    if args.pictures and not args.cifar10:
        raise UsageError("--pictures is for --cifar10: other pictures are taken as they lie on disk")
    if args.queries:
        return _named_inputs(args)
    split = args.database or ["train"]
    if split not in (["train"], ["test"]):
        raise UsageError(f"--database {' '.join(split)}: with {named[0]} it is train (default) or test")
    if args.root:
        raise UsageError(f"--root is for --queries and --database; {named[0]} knows where its pictures are")
    queries, database = _cifar10(args) if args.cifar10 else _images(args.images)
    return Inputs(queries, None if split == ["test"] else database)


def _named_inputs(args: argparse.Namespace) -> Inputs:
    if not args.database:
        raise UsageError(
            "--queries: the database is missing, give --database, or --database test for the other queries"
        )
    if args.database == ["test"]:
        queries = _side(args.queries, args.root)
        if not isinstance(queries, Path) and args.queries != [Path("test")] and Path("test").is_dir():
            raise UsageError("--database test means the other queries; for the folder of that name write test/")
        return Inputs(queries, None)
    return Inputs(_side(args.queries, args.root), _side([Path(item) for item in args.database], args.root))


def _side(paths: Sequence[Path], root: Path | None) -> Path | Pictures:
    from caffe2torch.evaluation.pictures import Files

    codes = [path for path in paths if path.suffix.lower() in CODES and not path.is_dir()]
    if codes and len(paths) > 1:
        raise UsageError(f"{codes[0]}: give one codes file, or else folders, lists and pictures")
    return codes[0] if codes else Files(tuple(paths), root)


def _cifar10(args: argparse.Namespace) -> tuple[Pictures, Pictures]:
    from caffe2torch import zoo
    from caffe2torch.data.cifar10 import open_cifar10
    from caffe2torch.evaluation.pictures import CifarPart

    form = args.pictures
    if form is None:
        of_the_papers = not args.net and not zoo.entry(args.model or zoo.default_name()).weights.bundled
        form = "papers" if of_the_papers else "lossless"
    cifar = open_cifar10(args.cifar10)
    return CifarPart(cifar, test=True, form=form), CifarPart(cifar, test=False, form=form)


def _images(folder: Path) -> tuple[Pictures, Pictures]:
    from caffe2torch.evaluation.pictures import from_folder

    return from_folder(folder)


def refuse_model_options(args: argparse.Namespace) -> None:
    given = [f"--{name.replace('_', '-')}" for name in MODEL_OPTIONS if getattr(args, name) not in (None, False)]
    if given:
        hint = "; --compare-with names a model to compare with" if given[0] == "--model" else ""
        raise UsageError(f"{given[0]} is for hashing pictures, and only codes files are given{hint}")
