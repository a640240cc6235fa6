"""Search in binary codes: this package, faiss called directly, plain numpy and the memory's speed, taking turns.

Parts: ``random`` (48-bit codes, all distinct), ``mapped`` (an index on disk, memory-mapped), ``released`` (codes
drawn from the released KevinNet's, 3 % of their bits flipped: equal codes are common), ``ranking`` (the evaluation:
10,000 queries, 50,000 released codes, the first 1,000 places and all of them). The last two want the reference material
(CAFFE2TORCH_REFERENCE, by default ``../shared`` beside the checkout).

faiss directly is ``IndexBinaryFlat`` with ``use_heap=False``; the best of: codes as they are or padded to 64 bits, one
thread or all. OpenMP is told to wait passively, without which its threads cost more than they give. The memory's bound
is the time to read the bytes of the codes once per query, at the speed at which all processors read a large array.

Run: ``python benchmarks/bench_search.py [--parts random,mapped,released,ranking] [--codes 1000000] [--rounds 5]``;
quickly: ``--codes 100000 --mapped-codes 200000 --ranked-queries 500 --rounds 2``.
Targets: random at 0.95 of faiss or more and half of the memory's bound; released, grouped, 2 x flat faiss; ranking at
K = 1,000 in no more time than plain numpy, all places in no more than 2.5 x that.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read by OpenMP when faiss is loaded

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import h5py
import numpy as np

from caffe2torch.cores import cores
from caffe2torch.retrieval.hamming import pad
from caffe2torch.retrieval.index import Index

BITS = 48
THREADS = cores()


def turns(rounds: int, contestants: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each, all in turn in every round, so that other work on the machine slows all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, work in contestants.items():
            start = time.perf_counter()
            work()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def raw_faiss(codes: np.ndarray, threads: int) -> Callable[[np.ndarray, int], object]:
    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index.use_heap = False
    index.add(codes)

    def search(queries: np.ndarray, k: int) -> object:
        faiss.omp_set_num_threads(threads)
        return index.search(queries, k)

    return search


def faiss_contestants(codes: np.ndarray, queries: np.ndarray, k: int) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {}
    for width, form in ((BITS, lambda packed: packed), (64, lambda packed: pad(packed, BITS))):
        for threads in sorted({1, THREADS}):
            search, asked = raw_faiss(form(codes), threads), form(queries)
            found[f"faiss, {width} bits, {threads} threads"] = lambda search=search, asked=asked: search(asked, k)
    return found


def memory_reader() -> tuple[Callable[[], object], int]:
    """What reads an array far larger than the caches with all processors together, and its bytes."""
    parts = np.array_split(np.ones(1 << 26, np.uint64), THREADS)
    pool = ThreadPoolExecutor(THREADS)
    return lambda: list(pool.map(np.bitwise_or.reduce, parts)), sum(part.nbytes for part in parts)


def report(title: str, seconds: dict[str, float], queries: int, ours: str) -> float:
    """Print a table; returns our rate divided by the best of the others'."""
    best = min(took for name, took in seconds.items() if name.startswith("faiss,"))
    print(f"\n{title}")
    for name, took in seconds.items():
        print(f"  {name:34} {queries / took:9.1f} queries/s   {best / took:6.2f} x the best faiss")
    return best / seconds[ours]


def bench_random(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (options.codes, BITS // 8), np.uint8)
    queries = rng.integers(0, 256, (options.queries, BITS // 8), np.uint8)
    engines = {
        name: Index.from_codes(codes, BITS, engine=name, grouped=grouped)
        for name, grouped in (("faiss", "auto"), ("numpy", False), ("torch", False))
    }
    read, size = memory_reader()
    contestants = faiss_contestants(codes, queries, options.k)
    contestants |= {
        f"Index, {index.engine_name}": lambda index=index: index.search(queries, options.k)
        for index in engines.values()
    }
    seconds = turns(options.rounds, contestants | {"memory": read})
    speed = size / seconds.pop("memory")
    seconds["Index, faiss, one query at a time"] = turns(
        1, {"one": lambda: [engines["faiss"].search(query[None], options.k) for query in queries]}
    )["one"]
    title = f"{options.codes:,} random {BITS}-bit codes, top {options.k}, {options.queries} queries at once"
    ratio = report(title, seconds, options.queries, "Index, faiss")
    rate = options.queries / seconds["Index, faiss"]
    bound = speed / codes.nbytes
    print(f"  Index, faiss / the best faiss: {ratio:.2f} (target 0.95)")
    print(f"  memory reads {speed / 1e9:.1f} GB/s, {bound:.0f} queries/s: {rate / bound:.2f} of it (target 0.5)")
    start = time.perf_counter()
    Index.from_codes(codes, BITS, engine="faiss", grouped=False).search(queries[:1], 1)
    flat = time.perf_counter() - start
    start = time.perf_counter()
    Index.from_codes(codes, BITS, engine="faiss").search(queries[:1], 1)
    print(f"  built and first asked: {flat:.3f} s, deciding on groups adds {time.perf_counter() - start - flat:.3f} s")


def bench_mapped(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 256, (options.mapped_codes, BITS // 8), np.uint8)
    queries = rng.integers(0, 256, (16, BITS // 8), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codes.index"
        start = time.perf_counter()
        Index.from_codes(codes, BITS).save(path)
        saved = time.perf_counter() - start
        start = time.perf_counter()
        quick = Index.open(path, verify=False)
        opened = time.perf_counter() - start
        quick.search(queries[:1], options.k)
        first = time.perf_counter() - start
        start = time.perf_counter()
        index = Index.open(path)
        checked = time.perf_counter() - start
        contestants = faiss_contestants(codes, queries, options.k)
        contestants["Index, mapped"] = lambda: index.search(queries, options.k)
        seconds = turns(options.rounds, contestants)
        report(f"{options.mapped_codes:,} random codes, memory-mapped", seconds, len(queries), "Index, mapped")
        start = time.perf_counter()
        index.add(codes[:1000])
        index.save(path)
        grown = time.perf_counter() - start
    print(f"  saved in {saved:.2f} s, opened in {opened:.4f} s, first answer after {first:.2f} s")
    print(f"  opened with checksums compared in {checked:.2f} s, 1,000 codes added and saved in {grown:.3f} s")


def bench_released(options: argparse.Namespace) -> None:
    codes, queries = draw_like(released("train"), options.codes, 0), draw_like(released("test"), options.queries, 1)
    flat = Index.from_codes(codes, BITS, engine="faiss", grouped=False)
    grouped = Index.from_codes(codes, BITS, engine="faiss")
    contestants = faiss_contestants(codes, queries, options.k)
    contestants |= {
        "Index, faiss, not grouped": lambda: flat.search(queries, options.k),
        f"Index, {grouped.engine_name}": lambda: grouped.search(queries, options.k),
    }
    seconds = turns(options.rounds, contestants)
    distinct = len(np.unique(pad(codes, BITS).view(np.uint64)))
    title = f"{options.codes:,} codes drawn like the released ones ({distinct:,} distinct), top {options.k}"
    ratio = report(title, seconds, options.queries, f"Index, {grouped.engine_name}")
    print(f"  grouped / the best flat faiss: {ratio:.2f} (target 2)")
    same = all(
        (flat.search(queries, options.k)[part] == grouped.search(queries, options.k)[part]).all() for part in (0, 1)
    )
    print(f"  grouped and not grouped agree: {same}")


def bench_ranking(options: argparse.Namespace) -> None:
    database, queries = released("train"), released("test")[: options.ranked_queries]
    print(f"\nRanking {len(queries):,} x {len(database):,} released codes, {THREADS} threads")
    base = 0.0
    for k in (1000, len(database)):
        contestants: dict[str, Callable[[], object]] = {"plain numpy": lambda k=k: plain_ranking(queries, database, k)}
        for engine in ("faiss", "numpy"):
            index = Index.from_codes(database, BITS, engine=engine)
            name = f"Index, {index.engine_name}"
            contestants[name] = lambda index=index, k=k: [hits.ids[0, 0] for _, hits in index.search_blocks(queries, k)]
        seconds = turns(max(1, options.rounds // 2), contestants)
        base = base or seconds["plain numpy"]
        for name, took in seconds.items():
            print(f"  K = {k:6} {name:24} {took:7.2f} s   {took / base:5.2f} x plain numpy at K = 1,000")


def plain_ranking(queries: np.ndarray, database: np.ndarray, k: int) -> None:
    """What one writes in numpy: popcount, a partition where k is small, a stable sort."""
    words, asked = (pad(codes, BITS).view(np.uint64)[:, 0] for codes in (database, queries))

    def rank(query: np.uint64) -> np.ndarray:
        distances = np.bitwise_count(words ^ query)
        if k < len(words):
            near = np.flatnonzero(distances <= np.partition(distances, k - 1)[k - 1])
            return near[np.argsort(distances[near], kind="stable")[:k]]
        return np.argsort(distances, kind="stable")

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(asked), 256):
            list(pool.map(rank, asked[start : start + 256]))


def released(part: str) -> np.ndarray:
    """The released KevinNet's codes, packed."""
    folder = Path(os.environ.get("CAFFE2TORCH_REFERENCE", Path(__file__).resolve().parents[2] / "shared"))
    with h5py.File(folder / "published" / "kevinnet48" / f"binary-{part}.mat") as file:
        return np.packbits(file[f"binary_{part}"][()], axis=1)


def draw_like(codes: np.ndarray, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    bits = np.unpackbits(codes, axis=1)[rng.integers(0, len(codes), count)]
    return np.packbits(bits ^ (rng.random(bits.shape, np.float32) < 0.03), axis=1)


PARTS = {"random": bench_random, "mapped": bench_mapped, "released": bench_released, "ranking": bench_ranking}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--codes", type=int, default=1_000_000)
    parser.add_argument("--mapped-codes", type=int, default=10_000_000)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--ranked-queries", type=int, default=10_000)
    parser.add_argument("--k", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"faiss {faiss.__version__}, numpy {np.__version__}, {THREADS} processors")
    for part in options.parts.split(","):
        PARTS[part](options)


if __name__ == "__main__":
    main()
