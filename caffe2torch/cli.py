"""The ``caffe2torch`` command: one module of ``caffe2torch.commands`` per subcommand."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType

from caffe2torch import __version__
from caffe2torch.errors import Caffe2TorchError, UsageError
from caffe2torch.memory import keep_freed_memory

COMMANDS = (
    *("extract", "evaluate", "search", "serve", "index", "train", "plot-log", "new-project"),
    "convert",
    *("info", "verify", "layers", "draw", "diff", "edit", "zoo", "download", "cifar10"),
    *("convert_imageset", "compute_image_mean"),
)

DESCRIPTION = """\
Caffe models in PyTorch, exactly.

  caffe2torch extract photos/                    hash codes for a folder of pictures, with the bundled model
  caffe2torch search codes.h5 my.jpg             the pictures whose codes are nearest
  caffe2torch evaluate --cifar10 ARCHIVE         MAP and precision as in the papers
  caffe2torch train --solver solver.prototxt     Caffe's solver, update for update
  caffe2torch info deploy.prototxt x.caffemodel  what is in a net and its weights
  caffe2torch zoo                                the models known by name
"""


def program(argv: Sequence[str] | None = None) -> int:
    """``main`` in a process of its own, whose memory it may manage."""
    keep_freed_memory()
    return main(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status: 0, 1 for errors in the input, 2 for wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _escape_what_cannot_be_shown()
    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        print("caffe2torch: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (head, less): nothing to say.
        _drop_output()
        return 1
    except OSError as error:
        if "--traceback" in arguments:
            raise
        _drop_output()
        place = "standard output" if error.filename is None else error.filename
        print(f"caffe2torch: error: {place}: {error.strerror or error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if "--traceback" in arguments or not _out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "an array does not fit"
        print(
            f"caffe2torch: error: not enough memory: {reason}; give a smaller batch or input, or check the net's "
            "num_output, kernel and pad",
            file=sys.stderr,
        )
        return 1


def _run(arguments: Sequence[str]) -> int:
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return 2
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            status: int = args.run(args)
        return status
    except Caffe2TorchError as error:
        if args.traceback:
            raise
        print(f"caffe2torch: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def _escape_what_cannot_be_shown() -> None:
    r"""Write characters that the terminal's encoding lacks as ``\u65e5``: names of files may hold any."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Send what is left of the output nowhere, so that Python's own flush at exit does not complain."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _out_of_memory(error: Exception) -> bool:
    """Whether this is Python's, numpy's or torch's way to say so; torch raises a plain RuntimeError on the CPU."""
    return isinstance(error, MemoryError) or any(t in str(error) for t in ("allocate memory", "out of memory"))


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
    return importlib.import_module(f"caffe2torch.commands.{name.replace('-', '_')}")


if __name__ == "__main__":
    raise SystemExit(program())
