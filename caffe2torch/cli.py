"""The ``caffe2torch`` command: one module of ``caffe2torch.commands`` per subcommand."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

from caffe2torch import __version__
from caffe2torch.errors import Caffe2TorchError, UsageError

COMMANDS = ("extract", "info", "draw", "zoo", "download")

DESCRIPTION = """\
Caffe models in PyTorch, exactly.

  caffe2torch extract photos/                    hash codes for a folder of pictures, with the bundled model
  caffe2torch info deploy.prototxt x.caffemodel  what is in a net and its weights
  caffe2torch zoo                                the models known by name
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status: 0, 1 for errors in the input, 2 for wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return 2
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            status: int = args.run(args)
        sys.stdout.flush()
        return status
    except Caffe2TorchError as error:
        if args.traceback:
            raise
        print(f"caffe2torch: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print("caffe2torch: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (head, less); say nothing, and let Python's own flush at exit not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _note(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
    """Show a warning as one line, without the line of source that raised it."""
    if not issubclass(category, DeprecationWarning):
        print(f"caffe2torch: note: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="caffe2torch", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"caffe2torch {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name in COMMANDS:
        module = _command(name)
        sub = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.add_argument("--traceback", action="store_true", help="on an error, show where in the program it arose")
        sub.set_defaults(run=module.run)
    return parser


def _command(name: str) -> ModuleType:
    return importlib.import_module(f"caffe2torch.commands.{name}")


if __name__ == "__main__":
    raise SystemExit(main())
