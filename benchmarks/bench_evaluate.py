"""Evaluation of 10,000 queries on 50,000 codes beside plain numpy: seconds, their ratio, and the peak of memory.

    python benchmarks/bench_evaluate.py [--turns 3] [--threads N] [--queries 10000] [--database 50000]

Plain numpy is what one writes by hand: popcounts of the exclusive or, a stable argsort cut at K, and cumulative sums,
one query after the other. Random codes are nearly all different; the released KevinNet codes, measured where the
reference material is (CAFFE2TORCH_REFERENCE, by default ../shared), repeat. All turns alternate and the best of each
counts: other work on the machine only ever slows one down. Peak memory is that of a process that evaluates and does
nothing else, less its size before it began.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from caffe2torch.cores import cores
from caffe2torch.retrieval.codes import Codes
from caffe2torch.retrieval.protocol import evaluate

Case = tuple[Codes, np.ndarray, Codes, np.ndarray]
BITS = 48


def random_codes(queries: int, database: int) -> Case:
    rng = np.random.default_rng(0)
    sides = []
    for count in (queries, database):
        sides.append(Codes(rng.integers(0, 256, (count, BITS // 8), dtype=np.uint8), BITS, ()))
    return sides[0], rng.integers(0, 10, queries), sides[1], rng.integers(0, 10, database)


def released_codes(queries: int, database: int) -> Case | None:
    folder = Path(os.environ.get("CAFFE2TORCH_REFERENCE", Path(__file__).resolve().parents[2] / "shared")) / "published"
    if not folder.is_dir():
        return None
    sides = []
    for name, count in (("test", queries), ("train", database)):
        with h5py.File(folder / "kevinnet48" / f"binary-{name}.mat") as file:
            packed = np.packbits(file[f"binary_{name}"][:count], axis=1)
        labels = np.loadtxt(folder / "cifar10_lists" / f"{name}-label.txt", dtype=np.int64)[:count]
        sides.append((Codes(packed, BITS, ()), labels))
    return *sides[0], *sides[1]


def by_hand(case: Case, k: int) -> float:
    """MAP at ``k`` and the precision curve, as one would write them with numpy alone."""
    queries, query_labels, database, database_labels = case
    sides = []
    for codes in (queries, database):
        words = np.zeros((len(codes), 8), np.uint8)
        words[:, : codes.packed.shape[1]] = codes.packed
        sides.append(words.view(np.uint64)[:, 0])
    places = np.arange(1, k + 1)
    total, precision = 0.0, np.zeros(k)
    for word, label in zip(sides[0], query_labels, strict=True):
        order = np.argsort(np.bitwise_count(sides[1] ^ word), kind="stable")[:k]
        right = database_labels[order] == label
        found = np.cumsum(right)
        curve = found / places
        precision += curve
        total += (curve * right).sum() / max(found[-1], 1)
    return total / len(query_labels)


def best_times(jobs: dict[str, Callable[[], float]], turns: int) -> dict[str, tuple[float, float]]:
    """Of each job its best time in seconds, and its answer."""
    best: dict[str, tuple[float, float]] = {}
    for _ in range(turns):
        for name, job in jobs.items():
            start = time.perf_counter()
            answer = job()
            seconds = time.perf_counter() - start
            best[name] = min(best.get(name, (seconds, answer)), (seconds, answer))
    return best


def peak_memory(options: argparse.Namespace, k: int) -> str:
    """Megabytes that an evaluation adds to a process of its own."""
    sizes = [f"--queries={options.queries}", f"--database={options.database}", f"--threads={options.threads}"]
    command = [sys.executable, __file__, *sizes, f"--memory-of={k}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def added_memory(case: Case, k: int, threads: int) -> str:
    before = peak()
    evaluate(*case, k=k, threads=threads)
    after = peak()
    return f"{(after - before) / 1024:.0f} MB added, {after / 1024:.0f} MB in all"


def peak() -> int:
    """The largest resident set of this process, in kB. On Linux ru_maxrss counts the parent's before exec too."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--database", type=int, default=50_000)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = (options.queries, options.database)
    if options.memory_of:
        print(added_memory(random_codes(*sizes), options.memory_of, options.threads))
        return
    short, whole = min(1000, options.database), options.database
    print(f"numpy {np.__version__}, {options.queries} queries on {options.database} codes of {BITS} bits")
    for title, case in (("random codes", random_codes(*sizes)), ("released KevinNet codes", released_codes(*sizes))):
        if case is None:
            print(f"{title}: not measured, the reference material is not here")
            continue
        report(title, case, (short, whole), options)
    for k in (short, whole):
        print(f"peak memory at K = {k}: {peak_memory(options, k)}")


def report(title: str, case: Case, lengths: tuple[int, int], options: argparse.Namespace) -> None:
    """The table of one set of codes; every time is also given as a multiple of plain numpy's at the smaller K."""
    jobs: dict[str, Callable[[], float]] = {}
    for k in lengths:
        jobs[f"plain numpy, K = {k}"] = lambda k=k: by_hand(case, k)
        for threads in dict.fromkeys((1, options.threads)):
            name = f"evaluate, K = {k}, {threads} thread{'s' * (threads > 1)}"
            jobs[name] = lambda k=k, threads=threads: evaluate(*case, k=k, threads=threads).map
        name = f"evaluate with ties, K = {k}, {options.threads} thread{'s' * (options.threads > 1)}"
        jobs[name] = lambda k=k: evaluate(*case, k=k, ties=True, threads=options.threads).map
    best = best_times(jobs, options.turns)
    base = best[next(iter(jobs))][0]
    print(f"\n{title:42s} seconds   of plain numpy at K = {lengths[0]}   MAP")
    for name, (seconds, answer) in best.items():
        print(f"  {name:40s} {seconds:7.2f}   {seconds / base:6.2f}{'':25s} {answer:.10f}")


if __name__ == "__main__":
    main()
