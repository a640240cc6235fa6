"""Coarse-to-fine search against exhaustive search by features: time for each query, and recall@100.

The features are fc7-like: 4096 values behind a ReLU around ten centres, varying along 64 directions within each; the
codes are signs of projections, mostly of what tells the classes apart, and among 50,000 there are about as many
different ones as the released KevinNet gives.
They are written to an .npy file and mapped. With the reference material there follow real ones: pool5 (256 values) of
the bundled model for all of CIFAR-10, with its codes, which takes a minute or two to compute.

    python benchmarks/bench_coarse.py [--rows 50000] [--width 4096] [--queries 200] [--rounds 5] [--real ../shared]

All ways take turns in every round and medians count. "One by one" asks for each query in a call of its own, as a person
does; "together" gives all queries to one call, which for exhaustive search is one large matrix product. Exhaustive
search in float32 by plain numpy and by faiss (IndexFlatL2), neither of which is exact, stands beside ours.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from caffe2torch.retrieval.coarse import CoarseToFine
from caffe2torch.retrieval.codes import pack, threshold
from caffe2torch.retrieval.features import Features
from caffe2torch.retrieval.fine import FloatSearch, recall
from caffe2torch.retrieval.index import Index

K = 100
CANDIDATES = (100, 500, 1000, 5000)
ALONE = 20  # queries asked one by one in a round
BITS, CLASSES, DIRECTIONS = 48, 10, 64
WITHIN = 1.35  # how far codes follow differences within a class: chosen for about 5,000 different ones


def draw_features(path: Path, rows: int, width: int, queries: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write ``rows`` features to ``path``; gives their codes, the query features and the query codes."""
    rng = np.random.default_rng(0)
    centres = rng.normal(-0.8, 1, (CLASSES, width)).astype(np.float32)
    directions = rng.normal(0, 0.09, (CLASSES, DIRECTIONS, width)).astype(np.float32)
    middle = np.maximum(centres, 0).mean(0)
    classes_apart = _unit(np.maximum(centres, 0) - middle)
    along = _unit(directions.reshape(-1, width))
    planes = classes_apart.T @ rng.normal(0, 1, (CLASSES, BITS))
    planes += along.T @ rng.normal(0, WITHIN / DIRECTIONS**0.5, (len(along), BITS))

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        classes = rng.integers(CLASSES, size=count)
        values = 0.2 * rng.standard_normal((count, width), np.float32) + centres[classes]
        for number in range(CLASSES):
            own = classes == number
            values[own] += rng.standard_normal((int(own.sum()), DIRECTIONS), np.float32) @ directions[number]
        np.maximum(values, 0, out=values)
        return values, pack((values - middle) @ planes.astype(np.float32) > 0)

    file = np.lib.format.open_memmap(path, "w+", np.float32, (rows, width))
    codes = []
    for first in range(0, rows, 1000):
        values, packed = draw(min(1000, rows - first))
        file[first : first + len(values)] = values
        codes.append(packed)
    file.flush()
    return np.concatenate(codes), *draw(queries)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def real_features(reference: Path, path: Path, queries: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """pool5 and the codes of the bundled model for all CIFAR-10 images; queries are the first test images."""
    import cv2
    import torch

    from caffe2torch import load, preprocess, zoo

    entry = zoo.entry("ssdh48_small")
    net = load(entry.with_classifier, zoo.find_file(entry.weights)).select("pool5", "latent_sigmoid").eval()
    prepare = preprocess.make(preprocess.Spec.from_dict(dict(entry.preprocessing)))
    features, codes = [], []
    with zipfile.ZipFile(reference / "cifar10" / "cifar10_lossless_webp.zip") as archive:
        for strip in range(100 + -(-queries // 500)):
            data = np.frombuffer(archive.read(f"{strip:03d}.webp"), np.uint8)
            images = cv2.imdecode(data, cv2.IMREAD_COLOR).reshape(500, 32, 32, 3)
            batch = torch.from_numpy(np.stack([prepare(image) for image in images]))
            with torch.inference_mode():
                out = net(batch)
            features.append(out["pool5"].flatten(1).numpy())
            codes.append(pack(threshold(out["latent_sigmoid"].numpy())))
            print(f"\r{(strip + 1) * 500} images", end="", file=sys.stderr)
    print(file=sys.stderr)
    everything, packed = np.concatenate(features), np.concatenate(codes)
    np.save(path, everything[:50_000])
    asked = slice(50_000, 50_000 + queries)
    return packed[:50_000], everything[asked], packed[asked]


def compare(path: Path, codes: np.ndarray, queries: np.ndarray, query_codes: np.ndarray, rounds: int) -> None:
    """One table: each way one by one and together, its speed against exhaustive search, and its recall."""
    features = Features.open(path, count=len(codes))
    start = time.perf_counter()
    features.check()
    different = len(np.unique(codes, axis=0))
    print(
        f"\n{len(codes):,} x {features.width} ({different:,} different codes of {BITS} bits), {len(queries)} queries, "
        f"k = {K}, {rounds} rounds; first reading and check of all rows {time.perf_counter() - start:.2f} s"
    )
    index, exhaustive = Index.from_codes(codes, BITS), FloatSearch(features)
    ways: dict[str, Callable[[slice], np.ndarray]] = {
        "exhaustive": lambda part: exhaustive.search(queries[part], K).rows,
        **plain_ways(np.asarray(np.load(path, mmap_mode="r")), queries),
    }
    for count in CANDIDATES:
        two_stage = CoarseToFine(index, features, candidates=count)
        ways[f"{count} candidates"] = lambda part, way=two_stage: way.search(query_codes[part], queries[part], K).ids
    alone, together = measure(ways, len(queries), rounds)
    expected = exhaustive.search(queries, K).rows
    print("| | one by one, ms | speed-up | together, ms | speed-up | recall@100 |\n" + "| --- " * 6 + "|")
    for name, way in ways.items():
        found = recall(way(slice(None)), expected)
        speeds = [
            statistics.median(a / b for a, b in zip(times["exhaustive"], times[name], strict=True))
            for times in (alone, together)
        ]
        first, second = (1000 * statistics.median(times[name]) for times in (alone, together))
        print(f"| {name} | {first:.2f} | {speeds[0]:.1f} x | {second:.2f} | {speeds[1]:.1f} x | {found:.4f} |")


def plain_ways(matrix: np.ndarray, queries: np.ndarray) -> dict[str, Callable[[slice], np.ndarray]]:
    """Exhaustive search as it is usually written."""
    squares = np.einsum("ij,ij->i", matrix, matrix)

    def plain(part: slice) -> np.ndarray:
        values = squares - 2 * (queries[part] @ matrix.T)
        nearest = np.argpartition(values, K, axis=1)[:, :K]
        return np.take_along_axis(nearest, np.take_along_axis(values, nearest, 1).argsort(1, kind="stable"), 1)

    ways: dict[str, Callable[[slice], np.ndarray]] = {"[numpy, float32]": plain}
    try:
        import faiss
    except ImportError:
        return ways
    flat = faiss.IndexFlatL2(matrix.shape[1])
    flat.add(matrix)
    return {**ways, "[faiss IndexFlatL2]": lambda part: flat.search(queries[part], K)[1]}


Times = dict[str, list[float]]


def measure(ways: dict[str, Callable[[slice], np.ndarray]], count: int, rounds: int) -> tuple[Times, Times]:
    """Seconds for each query, one by one and together, of every round."""
    alone: Times = {name: [] for name in ways}
    together: Times = {name: [] for name in ways}
    few = min(ALONE, count)
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            for query in range(few):
                way(slice(query, query + 1))
            middle = time.perf_counter()
            way(slice(0, count))
            if number:  # the first round warms up
                alone[name].append((middle - start) / few)
                together[name].append((time.perf_counter() - middle) / count)
    return alone, together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--real", type=Path, metavar="DIR", help="the reference material, for real features")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fc7.npy"
        drawn = draw_features(path, options.rows, options.width, options.queries)
        compare(path, *drawn, options.rounds)
        if options.real:
            path = Path(folder) / "pool5.npy"
            compare(path, *real_features(options.real, path, options.queries), options.rounds)


if __name__ == "__main__":
    main()
