"""Options in the form of Caffe's tools, which take gflags: one dash or two, ``--flag=value``, ``--noflag``."""

from __future__ import annotations

import argparse
from typing import Any

_TRUE = ("true", "t", "yes", "y", "1")
_FALSE = ("false", "f", "no", "n", "0")


def add_flag(parser: argparse.ArgumentParser, name: str, help: str) -> None:
    """An option that is on or off: ``--name``, ``--noname``, ``--name=false``; a value needs the ``=``."""
    parser.add_argument(f"--{name}", f"-{name}", action="store_true", help=help)
    for on, forms in ((True, _TRUE), (False, _FALSE)):
        words = [f"{name}={form}" for form in forms] + ([] if on else [f"no{name}"])
        parser.add_argument(
            *(dash + word for word in words for dash in ("--", "-")),
            dest=name,
            action="store_const",
            const=on,
            default=False,
            help=argparse.SUPPRESS,
        )


def add_value(parser: argparse.ArgumentParser, name: str, **options: Any) -> None:
    """An option with a value, with one dash or two."""
    parser.add_argument(f"--{name}", f"-{name}", **options)
