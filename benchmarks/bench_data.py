"""The way of pictures into training: databases written, batches made, each beside a plain loop over OpenCV.

    python benchmarks/bench_data.py [--images 400] [--batches 12] [--workers 0 1 2]

Pictures are JPEGs of smooth noise drawn here (quality 90, 4:2:0). Converting: 500 x 375 files into a database of
256 x 256 records. Batches: 64 random crops and flips of 227 x 227 minus a mean image from 256 x 256 pictures, as JPEGs
and raw; ``--work`` keeps the taker busy for so many milliseconds a batch, as a training step would, and the share of
the time it waits for data is shown. The best of three turns counts: other work on the machine only slows one down.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from bench_preprocess import photographs

from caffe2torch import prototxt
from caffe2torch.binaryproto import write_mean
from caffe2torch.data import open_feed
from caffe2torch.data.conversion import Conversion, convert
from caffe2torch.data.database import open_database
from caffe2torch.data.mean_image import mean_image
from caffe2torch.graph import build_graph

BATCH = 64
LAYER = (
    'layer {{ name: "d" type: "Data" top: "x" top: "l" '
    'transform_param {{ crop_size: 227 mirror: true mean_file: "mean" }} '
    'data_param {{ source: "{}" batch_size: 64 backend: LMDB }} }}'
)


def best(action: Callable[[], object], turns: int = 3) -> float:
    """Seconds of the fastest turn."""
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def pictures(folder: Path, count: int, height: int, width: int) -> list[tuple[str, int]]:
    """JPEG files and their list; 40 different pictures."""
    folder.mkdir()
    coded = [
        cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        for image in photographs(40, height, width)
    ]
    for index in range(count):
        (folder / f"{index}.jpg").write_bytes(coded[index % len(coded)])
    return [(f"{index}.jpg", index % 10) for index in range(count)]


def converting(folder: Path, lines: list[tuple[str, int]], workers: list[int]) -> None:
    """Records a second, beside decoding and resizing alone."""

    def loop() -> None:
        for name, _ in lines:
            cv2.resize(cv2.imread(str(folder / "large" / name)), (256, 256))

    def run(backend: str, conversion: Conversion, count: int) -> None:
        convert(lines, f"{folder / 'large'}/", folder / "out", conversion, backend=backend, workers=count)
        shutil.rmtree(folder / "out")

    print(f"{'[cv2.imread, cv2.resize]':44s} {len(lines) / best(loop):8.0f} records/s")
    raw, coded = Conversion(size=(256, 256)), Conversion(size=(256, 256), encode_type="jpg")
    for count in sorted({max(1, count) for count in workers}):
        for backend in ("lmdb", "leveldb"):
            rate = len(lines) / best(partial(run, backend, raw, count))
            print(f"{f'convert_imageset, {backend}, {count} workers':44s} {rate:8.0f} records/s")
        rate = len(lines) / best(partial(run, "lmdb", coded, count))
        print(f"{f'convert_imageset, lmdb of JPEGs, {count} workers':44s} {rate:8.0f} records/s")


def batches(folder: Path, source: str, options: argparse.Namespace) -> None:
    """Batches a second for each number of workers, and the share of time that a busy taker waits."""
    graph = build_graph(prototxt.parse(LAYER.format(source)), phase="train")
    for workers in options.workers:
        with open_feed(graph, folder, seed=1, workers=workers) as feed:

            def turn(work: float, feed: object = feed) -> tuple[float, float]:
                waited, start = feed.waited, time.perf_counter()  # type: ignore[attr-defined]
                for _ in range(options.batches):
                    feed.next_batch()  # type: ignore[attr-defined]
                    time.sleep(work)
                return time.perf_counter() - start, feed.waited - waited  # type: ignore[attr-defined]

            turn(0)
            seconds = min(turn(0)[0] for _ in range(3))
            total, waited = min(turn(options.work / 1000) for _ in range(3))
        name = f"batches of {BATCH}, {source}, {workers} workers"
        print(
            f"{name:44s} {options.batches / seconds:8.1f} batches/s {BATCH * options.batches / seconds:8.0f} pictures/s"
            f"; waits {100 * waited / total:4.1f} % beside {options.work:g} ms of work"
        )


def plain(folder: Path, lines: list[tuple[str, int]]) -> None:
    """What a batch takes that numpy and OpenCV make from JPEG bytes in memory."""
    coded = [np.frombuffer((folder / "small" / name).read_bytes(), np.uint8) for name, _ in lines[:BATCH]]
    mean = np.zeros((256, 256, 3), np.float32)
    rng = np.random.default_rng(0)
    batch = np.empty((BATCH, 3, 227, 227), np.float32)

    def loop() -> None:
        for index, data in enumerate(coded):
            y, x = rng.integers(30, size=2)
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)[y : y + 227, x : x + 227]
            image = image - mean[y : y + 227, x : x + 227]
            batch[index] = (image[:, ::-1] if rng.integers(2) else image).transpose(2, 0, 1)

    rate = 1 / best(loop, 6)
    print(f"{'[cv2.imdecode, crop, mean, flip in numpy]':44s} {rate:8.1f} batches/s {BATCH * rate:8.0f} pictures/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=float, default=200, metavar="MS")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"OpenCV {cv2.__version__}, numpy {np.__version__}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = pictures(folder / "large", options.images, 375, 500)
        small = pictures(folder / "small", options.images, 256, 256)
        converting(folder, large, options.workers)
        convert(small, f"{folder / 'small'}/", folder / "jpeg", Conversion(encoded=True))
        convert(small, f"{folder / 'small'}/", folder / "raw", Conversion())
        database = open_database(folder / "raw", "LMDB")
        for workers in sorted({max(1, count) for count in options.workers}):
            seconds = best(partial(mean_image, database, workers=workers))
            print(f"{f'compute_image_mean, raw, {workers} workers':44s} {options.images / seconds:8.0f} records/s")
        write_mean(folder / "mean", mean_image(database)[0])
        plain(folder, small)
        for source in ("jpeg", "raw"):
            batches(folder, source, options)


if __name__ == "__main__":
    main()
