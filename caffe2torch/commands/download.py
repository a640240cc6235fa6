"""Fetch the weights and mean images of models the zoo knows; what is here and proved is left alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caffe2torch.download import Outcome, Settings
    from caffe2torch.zoo_manifest import Entry, FileEntry

HELP = "fetch the weights of a model in the zoo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``caffe2torch download``."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="a model (see `caffe2torch zoo`), or one of its files")
    parser.add_argument("--all", action="store_true", help="everything the zoo knows")
    parser.add_argument("--to", type=Path, metavar="DIR", help="folder to put the files in")
    parser.add_argument(
        "--retries", type=_count, default=4, metavar="N", help="further attempts per source (default 4)"
    )
    parser.add_argument("--timeout", type=_seconds, default=30.0, metavar="S", help="seconds of silence to bear (30)")
    parser.add_argument("--force", action="store_true", help="fetch again what is already here")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, found {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds above 0, found {text!r}")
    return value


def run(args: argparse.Namespace) -> int:
    """Fetch what was named; goes on after a failure and returns 1 if there was one."""
    from caffe2torch import zoo
    from caffe2torch.download import Settings
    from caffe2torch.errors import DownloadError, OutputError, UsageError

    if args.all == bool(args.names):
        raise UsageError("give model names or --all (`caffe2torch zoo` lists the models)")
    jobs: dict[str, tuple[FileEntry, Entry]] = {}
    for name in zoo.names() if args.all else args.names:
        for file, model in zoo.wanted(name):
            jobs.setdefault(file.name, (file, model))
    settings = Settings(retries=args.retries, timeout=args.timeout)
    results: dict[str, str] = {}
    failed = 0
    for name, (file, model) in jobs.items():
        try:
            results[name] = _describe(file, _one(file, model, args.to, settings, force=args.force))
            print(f"{name}: {results[name]}", flush=True)
        except (DownloadError, OutputError) as error:
            failed += 1
            results[name] = "FAILED"
            print(f"caffe2torch: error: {error}", file=sys.stderr)
    if len(jobs) > 2:
        width = max(map(len, jobs))
        print("\n" + "\n".join(f"{name:<{width}}  {results[name]}" for name in jobs))
    return 1 if failed else 0


def _one(file: FileEntry, model: Entry, to: Path | None, settings: Settings, *, force: bool) -> Outcome:
    from tqdm import tqdm

    from caffe2torch import zoo
    from caffe2torch.download import check_weights, obtain

    folder = to
    if folder is None:
        here = [known for known in zoo.folders() if (known / file.name).is_file()]
        folder = here[0] if here and not force else zoo.download_folder()
    # disable=None: no bar where stderr is a file
    bar = tqdm(desc=file.name, total=file.size, unit="B", unit_scale=True, leave=False, delay=0.2, disable=None)

    def progress(done: int, total: int | None) -> None:
        if total is not None:
            bar.total = total
        bar.update(done - bar.n)

    with bar:
        return obtain(
            file,
            folder,
            check=lambda path: check_weights(path, model),
            settings=settings,
            force=force,
            say=lambda message: tqdm.write(message, file=sys.stderr),
            progress=progress,
        )


def _describe(file: FileEntry, outcome: Outcome) -> str:
    state = "fetched" if outcome.fetched else "already here"
    if outcome.proof == "structure":
        proof = f"readable, no published hash to compare; sha256 {outcome.sha256}"
    else:
        proof = f"{outcome.proof} as published"
    return f"{state}, {outcome.size:,} bytes, {proof}, {outcome.path}"
