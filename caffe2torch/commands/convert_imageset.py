"""Write pictures into a database for Caffe's Data layers: Caffe's convert_imageset.

  convert_imageset --resize_height=256 --resize_width=256 --shuffle photos/ train.txt train_lmdb
  convert_imageset photos/ train_lmdb       class folders: photos/cat/*.jpg, photos/dog/*.jpg, ...

LISTFILE has lines of a picture's name, a space and its label; ROOTFOLDER is put before the names as it is, so it ends
in a slash. Without LISTFILE every folder in ROOTFOLDER is a class, label 0 the first by name; the list and the names of
the classes are written beside the database, as DB_NAME-list.txt and DB_NAME-classes.txt.

Records and keys are those of Caffe's tool, and Caffe reads the database. Two things differ: a picture that cannot be
read ends the run, unless --skip_bad is given (Caffe leaves it out and goes on), and the database appears under its name
only when it is complete.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from caffe2torch.commands.gflags import add_flag, add_value
from caffe2torch.errors import UsageError

HELP = "write pictures into an LMDB or LevelDB database (Caffe's convert_imageset)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Caffe's flags, and a few more."""
    parser.usage = "%(prog)s [FLAGS] ROOTFOLDER/ [LISTFILE] DB_NAME"
    parser.add_argument("paths", nargs="+", metavar="PATH", help="ROOTFOLDER/ LISTFILE DB_NAME, or ROOTFOLDER/ DB_NAME")
    add_flag(parser, "gray", "grey pictures, one channel")
    add_flag(parser, "shuffle", "in random order")
    add_value(parser, "backend", default="lmdb", metavar="lmdb|leveldb", help="kind of database; default: lmdb")
    add_value(parser, "resize_width", type=int, default=0, metavar="N", help="pixels pictures are resized to")
    add_value(parser, "resize_height", type=int, default=0, metavar="N", help="pixels pictures are resized to")
    add_flag(parser, "check_size", "stop at a picture of another size than the first")
    add_flag(parser, "encoded", "keep pictures encoded: their own bytes, unless they are resized")
    add_value(parser, "encode_type", default="", metavar="png|jpg|...", help="encode pictures anew, as this")
    more = parser.add_argument_group("beyond Caffe's")
    more.add_argument("--skip_bad", action="store_true", help="leave out pictures that cannot be read, and list them")
    more.add_argument("--seed", type=int, metavar="N", help="for --shuffle; default: another in every run")
    more.add_argument("--workers", type=int, metavar="N", help="threads; default: one for each core")
    more.add_argument("--quiet", action="store_true", help="no progress, no summary")


def run(args: argparse.Namespace) -> int:
    """Convert; returns 0."""
    from tqdm import tqdm

    from caffe2torch.cores import cores
    from caffe2torch.data.conversion import Conversion, convert
    from caffe2torch.data.draws import draws

    if not 2 <= len(args.paths) <= 3:
        raise UsageError(
            f"expected ROOTFOLDER/ LISTFILE DB_NAME (or ROOTFOLDER/ DB_NAME), found {len(args.paths)} names"
        )
    if args.workers is not None and args.workers < 1:
        raise UsageError(f"--workers {args.workers}: expected at least 1")
    height, width = max(0, args.resize_height), max(0, args.resize_width)
    conversion = Conversion(
        gray=args.gray,
        size=(height, width) if height or width else None,
        check_size=args.check_size,
        encoded=args.encoded or bool(args.encode_type),
        encode_type=args.encode_type,
    )
    database = Path(args.paths[-1])
    lines, root, classes = _lines(args.paths)
    if args.shuffle:
        lines = [lines[i] for i in draws(args.seed, "convert_imageset").order(len(lines), 0)]
    # disable=None: no bar where stderr is a file
    with tqdm(desc="converting", total=len(lines), unit=" pictures", disable=args.quiet or None) as bar:
        converted = convert(
            lines,
            root,
            database,
            conversion,
            backend=args.backend,
            skip_bad=args.skip_bad,
            workers=args.workers or cores(),
            progress=lambda done: bar.update(done - bar.n),
        )
    if classes is not None:
        _write_beside(database, lines, classes)
    for reason in converted.skipped:
        print(f"caffe2torch: left out: {reason}", file=sys.stderr)
    if not args.quiet:
        print(f"A total of {len(lines)} images.")
        print(f"Processed {converted.written} files.")
        if converted.skipped:
            print(f"Left out {len(converted.skipped)} files that cannot be read.")
    return 0


def _lines(paths: list[str]) -> tuple[list[tuple[str, int]], str, tuple[str, ...] | None]:
    """The list, what is put before its names, and for class folders their names."""
    from caffe2torch.data.class_folders import read_class_folders
    from caffe2torch.data.image_list import parse_list

    root = paths[0]
    if len(paths) == 2:
        found = read_class_folders(Path(root))
        return list(found.lines), root.rstrip("/") + "/", found.classes
    lines = parse_list(Path(paths[1]))
    name = lines[0][0]
    if root and not root.endswith("/") and not Path(root + name).exists() and Path(root, name).exists():
        raise UsageError(f"ROOTFOLDER {root!r} is put before the names as it is: write {root + '/'!r}")
    return lines, root, None


def _write_beside(database: Path, lines: list[tuple[str, int]], classes: tuple[str, ...]) -> None:
    from caffe2torch.data.class_folders import write_lines

    for kind, texts in (("list", [f"{name} {label}" for name, label in lines]), ("classes", list(classes))):
        write_lines(database.with_name(f"{database.name}-{kind}.txt"), texts)
