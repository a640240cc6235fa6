"""The forward pass of KevinNet on the CPU against OpenCV's dnn module on the same file.

Both read the same prototxt and a caffemodel of seeded random weights, use all cores, and take turns in one process; the
codes they give are compared first. Needs OpenCV 4 (version 5 no longer reads Caffe's files).

Run: ``python benchmarks/bench_forward.py [--batch 64] [--rounds 7]``. Target: at least OpenCV's rate.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from bench_load import make_file

from caffe2torch import load, zoo
from caffe2torch.memory import keep_freed_memory


def main() -> None:
    keep_freed_memory()  # as the commands do; both sides gain
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise SystemExit(f"OpenCV {cv2.__version__} does not read Caffe's files; install a 4.x version")
    deploy = zoo.entry("kevinnet_cifar10_48").deploy
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "kevinnet.caffemodel"
        make_file(weights, "V2")
        ours = load(deploy, weights)
        theirs = cv2.dnn.readNetFromCaffe(str(deploy), str(weights))
    x = np.random.default_rng(1).standard_normal((options.batch, 3, 227, 227), np.float32) * 50
    blob = torch.from_numpy(x)

    def run_ours() -> np.ndarray:
        with torch.inference_mode():
            return ours(blob)["fc8_kevin_encode"].numpy()

    def run_theirs() -> np.ndarray:
        theirs.setInput(x)
        return theirs.forward("fc8_kevin_encode")

    difference = np.abs(run_ours() - run_theirs()).max()
    candidates: dict[str, Callable[[], np.ndarray]] = {"OpenCV dnn": run_theirs, "caffe2torch": run_ours}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(options.rounds):
        for name, candidate in candidates.items():
            start = time.perf_counter()
            candidate()
            seconds[name].append(time.perf_counter() - start)
    print(f"KevinNet, batch {options.batch}, float32, {torch.get_num_threads()} threads")
    print(f"largest difference of the two {difference:.1e}")
    pairs = zip(seconds["OpenCV dnn"], seconds["caffe2torch"], strict=True)
    ratio = statistics.median(theirs / ours for theirs, ours in pairs)
    for name, times in seconds.items():
        rate = options.batch / statistics.median(times)
        print(f"{name:12s} {rate:6.1f} images/s" + (f"   {ratio:.2f} x OpenCV" if name == "caffe2torch" else ""))


if __name__ == "__main__":
    main()
