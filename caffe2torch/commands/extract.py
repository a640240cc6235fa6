"""Binary hash codes for pictures, from a Caffe net and its weights.

  caffe2torch extract photos/                              a folder and all below it, with the bundled model
  caffe2torch extract photos/ --out codes.mat              as the papers' MATLAB scripts read them
  caffe2torch extract photos/ --sheet codes.png            and a page of pictures with their codes
  caffe2torch extract test-file-list.txt --root ~/cvprw15  a list file, its paths below a folder
  caffe2torch extract photos/ --model kevinnet_cifar10_48 --features fc7
  caffe2torch extract photos/ --net deploy.prototxt --weights my.caffemodel --blob fc8_encode \\
      --preprocess dialect=matcaffe resize=256 crop=227 --mean ilsvrc_2012_mean.mat

The codes lie in codes.h5, unless --out names another file: packed eight bits to a byte, with the paths, and with how
they were made. A run that ends early, for whatever reason, goes on with the same command and --resume.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from caffe2torch.commands.progress import Steps

if TYPE_CHECKING:
    from caffe2torch.extract import Summary

HELP = "hash codes for a folder of pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Inputs, then one group of options for each question a user has."""
    from caffe2torch.commands.model_options import add_model_options, add_running_options

    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="a folder (read with all folders below it), a picture, or a list file (.txt, .lst, .list: one path on "
        "each line, a label may follow the last space)",
    )
    parser.add_argument(
        "--root", metavar="DIR", help="where the paths of list files start, also those with a leading /"
    )
    add_model_options(parser.add_argument_group("which model"))
    _add_output_arguments(parser.add_argument_group("what is written"))
    add_running_options(parser.add_argument_group("how it runs"))


def _add_output_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--out",
        default="codes.h5",
        metavar="FILE",
        help="the codes: .h5, .npz, .csv, or .mat (v7.3 with binary_codes and list_im, without the labels of a list); "
        "default: codes.h5",
    )
    group.add_argument(
        "--features",
        metavar="BLOB",
        help="save this blob too, such as fc7: in the same .h5 or .npz; for codes.mat in codes.fc7.mat, likewise .csv",
    )
    group.add_argument("--sheet", metavar="PNG", help="draw the first 64 pictures with their codes beneath")
    group.add_argument("--force", action="store_true", help="replace existing files, discard an unfinished run")
    group.add_argument("--resume", action="store_true", help="go on with the unfinished run beside --out")
    group.add_argument("--json", action="store_true", help="print the summary as JSON")
    group.add_argument("--quiet", action="store_true", help="no progress, no summary; warnings and errors only")


def run(args: argparse.Namespace) -> int:
    """Extract, show progress on stderr, and print what was done on stdout."""
    from caffe2torch.commands.model_options import chosen_model
    from caffe2torch.extract import extract

    model = chosen_model(args, features=args.features)
    try:
        with Steps(quiet=args.quiet) as progress:
            summary = extract(
                args.inputs,
                args.out,
                model=model,
                root=args.root,
                device=args.device,
                precision=args.precision,
                batch_size=args.batch_size,
                workers=args.workers,
                on_error=args.on_error,
                resume=args.resume,
                force=args.force,
                sheet=args.sheet,
                progress=progress,
            )
    except KeyboardInterrupt:
        _say_how_to_resume(Path(args.out))
        return 130
    for warning in summary.warnings:
        print(f"caffe2torch: warning: {warning}", file=sys.stderr)
    if args.json:
        print(json.dumps(summary.to_dict()))
    elif not args.quiet:
        print(report(summary))
    return 0


def _say_how_to_resume(out: Path) -> None:
    from caffe2torch.extract.journal import journal_folder

    folder = journal_folder(out)
    kept = f"; the codes so far are kept in {folder}: the same command with --resume goes on from there"
    print(
        f"caffe2torch: interrupted{kept if folder.exists() else ' before the first codes were done'}", file=sys.stderr
    )


def report(summary: Summary) -> str:
    """What was done, for a person: a few codes, counts, rate, where the file is and what to do next."""
    from caffe2torch.browse.markup import printable

    samples = [(printable(path), bits) for path, bits in summary.samples]
    width = min(max((len(path) for path, _ in samples), default=0), 60)
    lines = [f"{_short(path, width):{width}}  {bits}" for path, bits in samples]
    if summary.written > len(summary.samples):
        lines.append("...")
    codes = f"{_count(summary.written, 'code')} of {_count(summary.bits, 'bit')} ({_distinct(summary)} different)"
    where = f"with {summary.model} on {summary.device} in {summary.precision}"
    lines += ["", f"{codes} from {_count(summary.images, 'picture')} {where}"]
    if summary.resumed_from:
        lines.append(f"{summary.resumed_from:,} of them were done by the run that this one resumed")
    if summary.rate:
        lines.append(f"{summary.rate:,.1f} pictures a second, {summary.seconds:,.1f} seconds")
    if summary.compared:
        share = 100 * summary.flipped / summary.compared
        lines.append(
            f"{summary.precision} flips {summary.flipped:,} of {summary.compared:,} bits ({share:.3f} %) against "
            "float32 on the first pictures"
        )
    if summary.ignored_files:
        lines.append(f"passed over {_count(summary.ignored_files, 'file')} without a picture's suffix")
    if summary.failed:
        zeros = summary.written == summary.images
        became = "got a code of zeros" if zeros else "was left out" if summary.failed == 1 else "were left out"
        lines.append(f"{_count(summary.failed, 'picture')} could not be read and {became}:")
        lines += [f"  {failure.message}" for failure in summary.failures]
        if summary.failed > len(summary.failures):
            lines.append(f"  ... and {summary.failed - len(summary.failures):,} more, all named in the output")
    lines.append(f"wrote {summary.out}" + "".join(f" and {p}" for p in (summary.features_out, summary.sheet) if p))
    shape = f"({summary.written}, {summary.bits})"
    lines.append(f"next: caffe2torch search {shlex.quote(summary.out)} PICTURE  # the pictures most like yours")
    lines.append(f"or in Python: caffe2torch.read_codes({summary.out!r}).unpacked()  # {shape} booleans")
    return "\n".join(map(printable, lines))


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def _distinct(summary: Summary) -> str:
    from caffe2torch.extract.summary import DISTINCT

    return f"{summary.distinct:,}" + (" or more" if summary.distinct >= DISTINCT else "")


def _short(path: str, width: int) -> str:
    return path if len(path) <= width else "..." + path[len(path) - width + 3 :]
