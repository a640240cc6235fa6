"""Options that several subcommands share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from caffe2torch.errors import UsageError

if TYPE_CHECKING:
    from caffe2torch.schema import Schema


def add_net_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Which net state to build, and what to tolerate in its text."""
    parser.add_argument("--phase", choices=("test", "train"), default="test", help="net state to build (default: test)")
    parser.add_argument("--level", type=int, default=0, help="net state level for min_level/max_level rules")
    parser.add_argument("--stage", action="append", default=[], metavar="NAME", help="net state stage; may be repeated")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="BLOB=N,C,H,W",
        help="shape of an input blob, for data layers whose files are not here or to replace the prototxt's",
    )
    parser.add_argument(
        "--allow-unknown",
        action="store_true",
        help="pass over prototxt fields the schema lacks (they are listed) instead of stopping",
    )
    add_custom_options(parser)


def add_blob_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Of which blobs the net is to be built."""
    parser.add_argument(
        "--blob", nargs="+", default=[], metavar="NAME", help="only the layers that these blobs need; default: all"
    )


def add_custom_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """What a net of a fork needs besides itself."""
    parser.add_argument(
        "--proto", action="append", default=[], metavar="FILE", help="a fork's .proto with more fields; may be repeated"
    )
    parser.add_argument(
        "--import",
        action="append",
        default=[],
        dest="imports",
        metavar="MODULE|FILE.py",
        help="run Python code of yours that registers layer classes (docs/custom-layers.md); may be repeated",
    )


def customise(args: argparse.Namespace) -> Schema | None:
    """Import what ``--import`` names; the schema with the additions of ``--proto``, None where there are none."""
    from caffe2torch.schema import Schema

    if args.imports:
        from caffe2torch.layers.imports import import_layers

        for source in args.imports:
            import_layers(source)
    return Schema(args.proto) if args.proto else None


def add_match_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """How strictly the weights must match the net."""
    parser.add_argument(
        "--ignore-extra", action="store_true", help="pass over layers of the weights file that the net lacks"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="fill layers the weights file lacks from their fillers"
    )


def input_shapes(values: list[str]) -> dict[str, tuple[int, ...]]:
    """``["data=10,3,227,227"]`` as ``{"data": (10, 3, 227, 227)}``; raises UsageError for another form."""
    shapes: dict[str, tuple[int, ...]] = {}
    for value in values:
        blob, separator, text = value.rpartition("=")
        try:
            shape = tuple(int(part) for part in text.replace("x", ",").split(","))
        except ValueError:
            separator = ""
            shape = ()
        if not separator or not blob or min(shape, default=0) < 1:
            shown = value if len(value) <= 60 else value[:57] + "..."
            raise UsageError(f"--input {shown!r}: expected BLOB=N,C,H,W with positive numbers, as data=10,3,227,227")
        shapes[blob] = shape
    return shapes
