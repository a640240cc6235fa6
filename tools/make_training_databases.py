"""The databases that training ssdh48_small needs: `python tools/make_training_databases.py SOURCE [FOLDER]`.

SOURCE is CIFAR-10 in any of its published forms (cifar-10-python.tar.gz, the folder it unpacks to, lossless strips);
FOLDER, where cifar10_train_lmdb (1.6 GB: each training picture four times, with other colours and a square erased at
another place each time) and cifar10_test_lmdb are made, is the current one unless given. Then:

    caffe2torch train --solver .../prototxt/ssdh48_small/solver.prototxt --precision bf16 --root FOLDER
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tqdm import tqdm

from caffe2torch.data.cifar10 import open_cifar10
from caffe2torch.data.cifar10.databases import write_databases
from caffe2torch.errors import Caffe2TorchError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="CIFAR-10: archive, folder or strips")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), metavar="FOLDER", help="default: here")
    args = parser.parse_args()
    try:
        with tqdm(unit=" pictures", disable=not sys.stderr.isatty()) as bar:

            def show(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            write_databases(open_cifar10(args.source), args.folder, progress=show)
    except Caffe2TorchError as error:
        print(f"make_training_databases: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
