"""From JPEG bytes to a net's input on one core: images a second of each stage, beside what the stage is compared with.

    python benchmarks/bench_preprocess.py [--images 40] [--seconds 2] [--threads N]

Pictures are 500 x 375 JPEGs (quality 90, 4:2:0) of smooth noise, drawn here. ``--threads`` runs every stage in N
threads. All stages take turns and the best turn of each counts: other work on the machine only ever slows one down.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np

from caffe2torch import preprocess
from caffe2torch.preprocess import Spec

PAPERS = Spec(dialect="matcaffe", resize=(256, 256), crop=(227, 227), mean_file="mean")
CAFFE = Spec(dialect="transformer", resize=(256, 256), crop=(227, 227), mean_file="mean")
PYCAFFE = Spec(
    dialect="pycaffe", resize=(256, 256), crop=(227, 227), mean_values=(104.0, 117.0, 123.0), raw_scale=255.0
)
SMALL = Spec(dialect="matcaffe", resize=(32, 32), mean_values=(113.9, 123.0, 125.3), scale=1 / 62)

Job = Callable[[int], object]


def photographs(count: int, height: int, width: int) -> list[np.ndarray]:
    """Noise at several scales, which compresses about as well as a photograph."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(count):
        picture = np.zeros((height, width, 3), np.float32)
        for level in range(1, 7):
            noise = rng.normal(size=(height >> level or 1, width >> level or 1, 3)).astype(np.float32)
            picture += cv2.resize(noise, (width, height)) * (8 << level // 2)
        pictures.append(np.clip(picture + 127, 0, 255).astype(np.uint8))
    return pictures


def rates(jobs: dict[str, Job], count: int, seconds: float, threads: int) -> dict[str, float]:
    """Images a second of every stage: the best of its turns."""
    best = dict.fromkeys(jobs, 0.0)
    stop = time.perf_counter() + seconds * len(jobs)
    with ThreadPoolExecutor(threads) as pool:

        def turn(job: Job) -> float:
            start = time.perf_counter()
            list(pool.map(lambda part: [job(k) for k in range(part, count, threads)], range(threads)))
            return count / (time.perf_counter() - start)

        while time.perf_counter() < stop:
            for name, job in jobs.items():
                best[name] = max(best[name], turn(job))
    return best


def stages(count: int) -> dict[str, Job]:
    """Every line of the table; the lines in brackets are comparisons."""
    images = photographs(count, 375, 500)
    files = [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes() for image in images]
    portraits = [np.ascontiguousarray(image.transpose(1, 0, 2)) for image in images]
    cifar = photographs(count, 32, 32)
    mean = np.full((3, 256, 256), 110, np.float32)
    papers, caffe = preprocess.make(PAPERS, mean), preprocess.make(CAFFE, mean)
    pycaffe, small = preprocess.make(PYCAFFE), preprocess.make(SMALL)
    batch = np.empty((count, *papers.shape), np.float32)
    little = np.empty((count, *small.shape), np.float32)
    raw = [np.frombuffer(file, np.uint8) for file in files]
    print(f"{count} JPEGs of 500 x 375, {sum(map(len, files)) / count / 1000:.0f} kB each")
    jobs: dict[str, Job] = {
        "decode": lambda k: preprocess.decode(files[k], "jpeg"),
        "  [cv2.imdecode]": lambda k: cv2.imdecode(raw[k], cv2.IMREAD_COLOR),
        "matcaffe 500x375 -> 227": lambda k: papers(images[k], batch[k]),
        "matcaffe 375x500 -> 227": lambda k: papers(portraits[k], batch[k]),
        "matcaffe 32x32 -> 227": lambda k: papers(cifar[k], batch[k]),
        "matcaffe 500x375 -> 32 (bundled model)": lambda k: small(images[k], little[k]),
        "matcaffe 32x32 -> 32 (bundled model)": lambda k: small(cifar[k], little[k]),
        "transformer 500x375 -> 227": lambda k: caffe(images[k], batch[k]),
        "pycaffe 500x375 -> 227": lambda k: pycaffe(images[k], batch[k]),
        "  [cv2.resize uint8, no antialias]": lambda k: cv2.resize(images[k], (256, 256)),
        "  [cv2.resize float32, no antialias]": lambda k: cv2.resize(images[k].astype(np.float32), (256, 256)),
        "decode + matcaffe 500x375 -> 227": lambda k: papers(preprocess.decode(files[k], "jpeg"), batch[k]),
    }
    try:
        import torch
    except ImportError:
        return jobs
    torch.set_num_threads(1)

    def antialias(k: int) -> object:
        planes = torch.from_numpy(images[k]).permute(2, 0, 1)[None].float()
        return torch.nn.functional.interpolate(planes, (256, 256), mode="bilinear", antialias=True)

    return {**jobs, "  [torch interpolate, antialias]": antialias}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each line")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"OpenCV {cv2.__version__}, numpy {np.__version__}, {options.threads} thread(s)")
    for name, best in rates(stages(options.images), options.images, options.seconds, options.threads).items():
        print(f"{name:42s} {best:8.0f} images/s")


if __name__ == "__main__":
    main()
