"""The mean picture of a database, and the mean of each channel: Caffe's compute_image_mean.

  compute_image_mean train_lmdb mean.binaryproto      for mean_file in a net's transform_param
  compute_image_mean train_lmdb                       only the channels' means, for mean_value

Prints and writes what Caffe's tool does; pictures must all have the same size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from caffe2torch.commands.gflags import add_value
from caffe2torch.errors import UsageError

HELP = "the mean picture of a database (Caffe's compute_image_mean)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Caffe's flags, and a few more."""
    parser.usage = "%(prog)s [FLAGS] INPUT_DB [OUTPUT_FILE]"
    parser.add_argument("database", type=Path, metavar="INPUT_DB", help="folder of the database")
    parser.add_argument("output", type=Path, nargs="?", metavar="OUTPUT_FILE", help="the .binaryproto to write")
    add_value(parser, "backend", default="lmdb", metavar="lmdb|leveldb", help="kind of database; default: lmdb")
    parser.add_argument("--workers", type=int, metavar="N", help="threads; default: one for each core")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Compute, write and print; returns 0."""
    from tqdm import tqdm

    from caffe2torch.binaryproto import write_mean
    from caffe2torch.cores import cores
    from caffe2torch.data.database import open_database
    from caffe2torch.data.mean_image import channel_means, mean_image

    if args.backend not in ("lmdb", "leveldb"):
        raise UsageError(f"backend {args.backend!r}: expected lmdb or leveldb")
    if args.workers is not None and args.workers < 1:
        raise UsageError(f"--workers {args.workers}: expected at least 1")
    database = open_database(args.database, args.backend.upper())
    total = database.count() if args.backend == "lmdb" else None  # LevelDB would have to be read to be counted
    # disable=None: no bar where stderr is a file
    with tqdm(desc="adding up", total=total, unit=" records", disable=args.quiet or None) as bar:
        mean, count = mean_image(
            database, workers=args.workers or cores(), progress=lambda done: bar.update(done - bar.n)
        )
    print(f"Processed {count} files.")
    if args.output is not None:
        write_mean(args.output, mean)
        print(f"Write to {args.output}")
    print(f"Number of channels: {len(mean)}")
    for channel, value in enumerate(channel_means(mean)):
        print(f"mean_value channel [{channel}]: {value:g}")
    return 0
