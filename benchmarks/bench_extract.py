"""The whole extraction with KevinNet, from 500 x 375 JPEG files to codes on disk, against each of its stages alone.

The stages: decoding with resizing and mean (all workers, nothing else running), and the net (all threads, on batches
that lie in memory). They and the whole take turns, so that a machine with other work on it slows all of them alike.
Weights are random by a seeded recipe; photographs are imitated by smoothed noise, coded at quality 90.

Run: ``python benchmarks/bench_extract.py [--pictures 384] [--rounds 5] [--device auto]``.
Target: the whole at 85 % or more of the rate of the slowest stage alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from bench_load import make_file

from caffe2torch import preprocess, zoo
from caffe2torch.cores import cores
from caffe2torch.extract import Hasher, Model, extract
from caffe2torch.memory import keep_freed_memory

MODEL = "kevinnet_cifar10_48"


def draw_photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files of 500 x 375 with detail at every scale, as photographs have."""
    rng = np.random.RandomState(0)
    files = []
    for number in range(count):
        image = np.zeros((375, 500, 3), np.float32)
        for scale in (4, 8, 16, 32, 64, 128, 256):
            noise = rng.standard_normal((scale, scale, 3)).astype(np.float32)
            image += cv2.resize(noise, (500, 375), interpolation=cv2.INTER_CUBIC) / scale**0.7
        image = np.clip(image * 45 + 120, 0, 255).astype(np.uint8)
        files.append(folder / f"{number:05d}.jpg")
        cv2.imwrite(str(files[-1]), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return files


def mean_image(spec: preprocess.Spec, path: Path) -> Path:
    """A mean image in the size the Spec asks for."""
    assert spec.resize is not None
    np.save(path, np.full((3, *spec.resize), 115, np.float32))
    return path


def main() -> None:
    keep_freed_memory()  # as the command does
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run(Path(name), options)


def run(folder: Path, options: argparse.Namespace) -> None:
    entry = zoo.entry(MODEL)
    make_file(folder / "kevinnet.caffemodel", "V2")
    spec = preprocess.Spec.from_dict({**entry.preprocessing, "mean_layout": "hwc"})
    model = Model.from_files(
        entry.deploy, folder / "kevinnet.caffemodel", spec, mean=mean_image(spec, folder / "mean.npy")
    )
    model = replace(model, blob=entry.code_blob)
    (folder / "pictures").mkdir()
    files = draw_photographs(folder / "pictures", options.pictures)
    hasher = Hasher(model, device=options.device, precision=options.precision)
    batch = hasher.buffer(options.batch)
    batch.copy_(torch.from_numpy(np.random.default_rng(1).standard_normal(batch.shape, np.float32) * 50))
    batches = options.pictures // options.batch

    def decode_one(index: int) -> None:
        hasher.preprocess(preprocess.read_image(files[index]), slots[index % options.batch])

    slots = batch.numpy().copy()

    def decode() -> None:
        cv2.setNumThreads(1)
        with ThreadPoolExecutor(options.workers) as pool:
            list(pool.map(decode_one, range(batches * options.batch), chunksize=8))

    def net() -> None:
        running = [hasher.launch(batch) for _ in range(batches)]
        for launched in running:
            launched.wait()

    def whole() -> None:
        result = extract(
            folder / "pictures",
            folder / "codes.h5",
            model=model,
            device=options.device,
            precision=options.precision,
            batch_size=options.batch,
            workers=options.workers,
            force=True,
        )
        timed["whole"] = result.seconds

    timed: dict[str, float] = {}
    stages: dict[str, tuple[Callable[[], None], int]] = {
        "decode, resize, mean": (decode, batches * options.batch),
        "net": (net, batches * options.batch),
        "whole": (whole, options.pictures),
    }
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for number in range(options.rounds + 1):
        for name, (stage, count) in stages.items():
            start = time.perf_counter()
            stage()
            took = timed.pop(name, time.perf_counter() - start)
            if number:  # the first round warms up
                seconds[name].append(took / count)
    report(seconds, hasher, options)


def report(seconds: dict[str, list[float]], hasher: Hasher, options: argparse.Namespace) -> None:
    size = np.mean([len(times) for times in seconds.values()])
    print(
        f"KevinNet on {hasher.device}, {options.precision}, batch {options.batch}, {options.workers} workers, "
        f"{torch.get_num_threads()} threads, {options.pictures} pictures, {size:.0f} rounds"
    )
    for name, times in seconds.items():
        print(f"{name:22} {1 / statistics.median(times):9.1f} pictures/s (best {1 / min(times):.1f})")
    stages = {name: times for name, times in seconds.items() if name != "whole"}
    slowest = max(stages, key=lambda name: statistics.median(stages[name]))
    shares = [alone / together for alone, together in zip(seconds[slowest], seconds["whole"], strict=True)]
    print(f"whole / {slowest} alone: {statistics.median(shares):.1%} (target 85 %)")
    both = [a + b for a, b in zip(*stages.values(), strict=True)]
    print(f"the stages one after the other would give {1 / statistics.median(both):.1f} pictures/s")


if __name__ == "__main__":
    main()
