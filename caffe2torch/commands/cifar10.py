"""The papers' CIFAR-10: pictures and lists as KevinNet and SSDH were trained and evaluated with.

  caffe2torch cifar10 cvprw15 --download                          fetch the official archive, then build
  caffe2torch cifar10 cvprw15 --source cifar-10-python.tar.gz     from a copy that is here
  caffe2torch cifar10 trial --source cifar-10-batches-py/ --first 100

Every picture is the CIFAR image mirrored left-right and coded as JPEG (quality 75, 4:2:0) twice, as the authors'
demo pictures are, byte for byte. OUT becomes like the root of the authors' repository:

  OUT/examples/cvprw15-cifar10/dataset/batch1 to batch5, test      N.jpg is picture N of that batch
                                      /cvprw15-train-file-list.txt, cvprw15-test-file-list.txt
                                      /train-label.txt, test-label.txt     one label for each line of the lists
                                      /train.txt, val.txt                  paths with labels, for ImageData layers

Pictures that are there and right are left alone: after an interruption the same command goes on.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from caffe2torch.errors import UsageError

if TYPE_CHECKING:
    from caffe2torch.data.cifar10 import Written

HELP = "the papers' CIFAR-10 pictures and lists"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``caffe2torch cifar10``."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to build in; it takes about 250 MB of disk")
    parser.add_argument(
        "--source",
        type=Path,
        metavar="PATH",
        help="cifar-10-python.tar.gz or cifar-10-binary.tar.gz, the folder it unpacks to, or the lossless strips "
        "(a zip or a folder)",
    )
    parser.add_argument(
        "--download",
        action="store_true",
        help="fetch the official archive (170 MB) into the cache folder, or into the folder --source names",
    )
    parser.add_argument(
        "--passes",
        type=_number(20),
        default=2,
        metavar="N",
        help="how often a picture goes through JPEG; default: 2, as the papers' did",
    )
    parser.add_argument(
        "--first", type=_number(10_000), default=10_000, metavar="N", help="only the first N pictures of each batch"
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there with other contents")
    parser.add_argument("--workers", type=_number(256), metavar="N", help="threads; default: one for each core")
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary; errors only")


def _number(largest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not 1 <= int(text[:9]) <= largest or len(text) > 9:
            raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {largest}, found {text!r}")
        return int(text)

    return number


def run(args: argparse.Namespace) -> int:
    """Fetch where asked, build, and say what to do next; returns 0."""
    from tqdm import tqdm

    from caffe2torch.data.cifar10 import open_cifar10, write_papers_dataset

    if args.download:
        source = _fetch(args.source, quiet=args.quiet)
    elif args.source is None:
        raise UsageError(
            "give --download to fetch the official archive, or --source with a copy of it (cifar-10-python.tar.gz)"
        )
    else:
        source = args.source
    cifar = open_cifar10(source)
    # disable=None: no bar where stderr is a file
    with tqdm(desc="writing", total=6 * args.first, unit=" pictures", disable=args.quiet or None) as bar:
        written = write_papers_dataset(
            cifar,
            args.out,
            passes=args.passes,
            first=args.first,
            force=args.force,
            workers=args.workers,
            progress=lambda done, total: bar.update(done - bar.n),
        )
    if not args.quiet:
        print(report(written))
    return 0


def _fetch(folder: Path | None, *, quiet: bool) -> Path:
    from tqdm import tqdm

    from caffe2torch import zoo
    from caffe2torch.download_cifar10 import ARCHIVE, fetch_archive

    if folder is not None and folder.exists() and not folder.is_dir():
        raise UsageError(f"--download puts the archive into the folder --source names, and {folder} is a file")
    bar = tqdm(desc=ARCHIVE.name, total=ARCHIVE.size, unit="B", unit_scale=True, delay=0.2, disable=quiet or None)

    def progress(done: int, total: int | None) -> None:
        bar.update(done - bar.n)

    with bar:
        return fetch_archive(
            folder or zoo.cache_folder(),
            say=lambda message: tqdm.write(message, file=sys.stderr),
            progress=progress,
        ).path


def report(written: Written) -> str:
    """What was done, and the commands that take the lists."""
    layout = written.layout
    kept = f", {written.kept:,} were there already" if written.kept else ""
    return (
        f"{written.written:,} pictures written{kept}; {written.bytes / 1e6:.1f} MB in {layout.dataset}\n"
        f"next: caffe2torch evaluate --images {shlex.quote(str(layout.root))} --model kevinnet_cifar10_48\n"
        f"or codes only: caffe2torch extract {shlex.quote(str(layout.test_list))} "
        f"--root {shlex.quote(str(layout.root))} --out test.h5"
    )
