"""A saved index: codes of many runs of extract in one folder that opens at once and grows.

  caffe2torch index photos.index --add codes.h5           makes it; search and serve take it in place of a codes file
  caffe2torch index photos.index --add new.h5             adds to it: only what is new is written
  caffe2torch index photos.index --remove photos/7.jpg    by path, or by number (as search --json gives them)
  caffe2torch index photos.index                          says what is in it

All codes of an index are of one model; others are refused. Features stay in their own file (search --features).
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caffe2torch.errors import RetrievalError, UsageError

if TYPE_CHECKING:
    from caffe2torch.retrieval.codes import Codes
    from caffe2torch.retrieval.index import Index

HELP = "keep codes in an index that grows"
KNOWN = ("refuse", "skip", "replace")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The index, and what is done to it: first removing, then adding."""
    parser.add_argument("index", metavar="INDEX", help="its folder")
    parser.add_argument("--remove", nargs="+", default=[], metavar="PATH|NUMBER", help="pictures to take out")
    parser.add_argument("--add", nargs="+", default=[], metavar="CODES", help="codes files to add, in this order")
    parser.add_argument(
        "--known",
        default="refuse",
        choices=KNOWN,
        help="a picture to add whose path is in the index already: refuse (default) everything, skip it, or replace "
        "the one that is there",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Change the index, all or nothing, and say what is in it now."""
    from caffe2torch.retrieval.index import Index
    from caffe2torch.retrieval.readers import read_codes
    from caffe2torch.retrieval.store_head import HEAD

    path = Path(args.index)
    files = [(Path(name), read_codes(name)) for name in args.add]
    if (path / HEAD).exists():
        index = Index.open(path)
        before = len(index)
    elif not files:
        raise UsageError(f"{path}: there is no index here; --add CODES makes one")
    else:
        before = 0
        index = _begin(*files.pop(0))
    if args.remove:
        index.remove(_numbers(path, index, args.remove))
    known = sum(_add(path, index, name, codes, args.known) for name, codes in files)
    if args.add or args.remove:
        index.save(path)
    about = {**_about(path, index, before), "skipped": 0, "replaced": 0}
    about["replaced" if args.known == "replace" else "skipped"] = known
    print(json.dumps(about) if args.json else _sentence(about))
    return 0


def _begin(name: Path, codes: Codes) -> Index:
    from caffe2torch.retrieval.index import Index

    if not len(codes):
        raise RetrievalError(f"{name}: holds no codes to make an index of")
    return Index.of(codes)


def _add(path: Path, index: Index, name: Path, codes: Codes, known: str) -> int:
    """Add a codes file and count the pictures known; RetrievalError where another model made it, or they may not be."""
    import numpy as np

    from caffe2torch.retrieval.comparable import check_comparable

    check_comparable(codes, index.get([]), names=(str(name), str(path)))
    names = _names(name, codes, index)
    there = dict(zip(index.codes().paths, index.ids.tolist(), strict=False))
    twice = [row for row, text in enumerate(names) if text in there]
    if twice and known == "refuse":
        raise RetrievalError(
            f"{name}: {len(twice):,} of its {len(codes):,} pictures are in {path} already, such as {names[twice[0]]}; "
            "--known skip leaves them out, --known replace takes their new codes"
        )
    if twice and known == "replace":
        index.remove(np.array(sorted({there[names[row]] for row in twice}), np.int64))
    rows = np.setdiff1d(np.arange(len(codes)), twice) if known == "skip" else np.arange(len(codes))
    try:
        index.add(
            codes.packed[rows],
            paths=[names[row] for row in rows] if names else None,
            labels=None if codes.labels is None else codes.labels[rows],
        )
    except RetrievalError as error:
        raise RetrievalError(f"{name}: {error}") from error
    return len(twice)


def _names(file: Path, codes: Codes, index: Index) -> tuple[str, ...]:
    """The pictures' paths; absolute ones where they start elsewhere than those of the index."""
    from caffe2torch.browse.pictures import Places

    own, theirs = codes.provenance, index.provenance
    if all(own.get(key) == theirs.get(key) for key in ("folder", "root")):
        return codes.paths
    places = Places(file, own)
    start = str(own.get("folder") or Path.cwd())
    return tuple(str(places.find(name) or os.path.join(start, name)) for name in codes.paths)  # noqa: PTH118


def _numbers(path: Path, index: Index, wanted: list[str]) -> Any:
    """Numbers of pictures given by path or number; a path comes first, where a picture is called like a number."""
    import numpy as np

    there = dict(zip(index.codes().paths, index.ids.tolist(), strict=False))
    numbers, found = set(index.ids.tolist()), []
    for item in wanted:
        if item in there:
            found.append(there[item])
        elif item.isascii() and item.isdigit() and len(item) < 19 and int(item) in numbers:
            found.append(int(item))
        else:
            raise RetrievalError(f"{path}: no picture of it is recorded as {item!r}, or has that number")
    return np.array(found, np.int64)


def _about(path: Path, index: Index, before: int) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return {
        "index": str(path),
        "pictures": len(index),
        "before": before,
        "bits": index.bits,
        "model": index.provenance.get("model"),
        "bytes": size,
    }


def _sentence(about: dict[str, Any]) -> str:
    model = f" by {about['model']}" if about["model"] else ""
    change = about["pictures"] - about["before"]
    parts = [f"{change:+,}"] if change else []
    parts += [f"{about[what]:,} {what}" for what in ("skipped", "replaced") if about[what]]
    changed = f" ({', '.join(parts)})" if parts else ""
    return (
        f"{about['index']}: {about['pictures']:,} pictures{changed}, codes of {about['bits']} bits{model}, "
        f"{about['bytes'] / (1 << 20):,.1f} MB"
    )
