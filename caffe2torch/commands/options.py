"""Options that several subcommands share."""

from __future__ import annotations

import argparse

from caffe2torch.errors import UsageError


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
