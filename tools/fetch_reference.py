"""Fetch the published files that `pytest -m published` needs: `python tools/fetch_reference.py FOLDER`.

Then `CAFFE2TORCH_REFERENCE=FOLDER pytest -m published -rP` shows the papers' figures. Sizes and hashes are checked;
what is already there is left alone, and an interrupted download goes on where it ended.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from caffe2torch.download import Settings
from caffe2torch.errors import Caffe2TorchError, DownloadError, OutputError, UsageError
from caffe2torch.evaluation import reference


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch, check or list; 0 when all is well, 1 when a file could not be had, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="where the folder `published` is, or is to be")
    parser.add_argument("--list", action="store_true", help="show the files, their sizes and where they are published")
    parser.add_argument("--check", action="store_true", help="fetch nothing, compare FOLDER with the published files")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="these folders or files, such as kevinnet48"
    )
    parser.add_argument("--host", default=reference.HOST, metavar="URL", help=f"a mirror of {reference.HOST}")
    parser.add_argument("--retries", type=int, default=4, metavar="N", help="further attempts per source (default 4)")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds of silence to bear (30)")
    args = parser.parse_args(arguments)
    try:
        files = reference.choose(reference.files(host=args.host), args.only)
        if args.list:
            return show(files)
        if args.folder is None:
            raise UsageError("name the folder the files are to lie in, or give --list")
        if args.check:
            return check(args.folder, files)
        return fetch(args.folder, files, Settings(retries=max(args.retries, 0), timeout=args.timeout))
    except Caffe2TorchError as error:
        print(f"fetch_reference: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def show(files: Sequence[reference.ReferenceFile]) -> int:
    """Every file with its size and its first URL."""
    for file in files:
        print(f"{file.path}  {file.size:,} bytes  {file.urls[0]}" + ("" if file.seen else "  (name inferred)"))
    print(f"{len(files)} files, {sum(file.size for file in files):,} bytes")
    return 0


def check(folder: Path, files: Sequence[reference.ReferenceFile]) -> int:
    """What is missing in a folder or differs from what was published."""
    problems = {file.path: problem for file in files if (problem := reference.problem(folder, file)) is not None}
    for path, problem in problems.items():
        print(f"{folder / path}: {problem}")
    print(f"{len(files) - len(problems)} of {len(files)} files are the published ones")
    return 1 if problems else 0


def fetch(folder: Path, files: Sequence[reference.ReferenceFile], settings: Settings) -> int:
    """Fetch what is missing; goes on after a failure."""
    failed = 0
    for file in files:
        try:
            outcome = reference.fetch(folder, file, settings=settings, say=lambda text: print(text, file=sys.stderr))
            print(
                f"{outcome.path}: {'fetched' if outcome.fetched else 'already here'}, {outcome.size:,} bytes",
                flush=True,
            )
        except (DownloadError, OutputError) as error:
            failed += 1
            print(f"fetch_reference: error: {error}", file=sys.stderr)
    print(f"{len(files) - failed} of {len(files)} files are in {folder}")
    if not failed:
        print(f"now: CAFFE2TORCH_REFERENCE={folder} python -m pytest -m published -rP")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
