"""Loading a caffemodel of KevinNet's size (228 MB) against reading the same bytes into a numpy array.

Every measurement is a process of its own, the candidates take turns, and the file is in the page cache. Time is from
opening the file to the last torch tensor; memory is the peak of the resident set above the same process before loading.

Run: ``python benchmarks/bench_load.py [--repeats 7] [--syntax V1]``. Targets: time at most 1.5 x, memory at most 1.2 x.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

# KevinNet, 48 bits: layer -> shapes of weight and bias.
SHAPES = {
    "conv1": ((96, 3, 11, 11), (96,)),
    "conv2": ((256, 48, 5, 5), (256,)),
    "conv3": ((384, 256, 3, 3), (384,)),
    "conv4": ((384, 192, 3, 3), (384,)),
    "conv5": ((256, 192, 3, 3), (256,)),
    "fc6": ((4096, 9216), (4096,)),
    "fc7": ((4096, 4096), (4096,)),
    "fc8_kevin": ((48, 4096), (48,)),
}

_COMMON = """
import json, sys, time
import numpy as np
import torch
def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))
path = sys.argv[1]
"""

CANDIDATES = {
    "numpy.fromfile, the whole file": """
start_memory, start = status("VmRSS"), time.perf_counter()
held = np.fromfile(path, np.uint8)
""",
    "caffe2torch, every blob a torch tensor": """
from caffe2torch import open_weights
open_weights  # the import is not part of the loading
start_memory, start = status("VmRSS"), time.perf_counter()
with open_weights(path) as file:
    held = {layer.name: [torch.from_numpy(blob.read()) for blob in layer.blobs] for layer in file.layers}
""",
    "caffe2torch.load, the net ready to run": """
from caffe2torch import load, zoo
deploy = zoo.entry("kevinnet_cifar10_48").deploy
load(deploy, input_shapes={"data": (1, 3, 227, 227)})  # imports and first calls of torch are not part of the loading
start_memory, start = status("VmRSS"), time.perf_counter()
held = load(deploy, path)
""",
    "protobuf, then numpy": """
from caffe2torch import schema
schema.default()
start_memory, start = status("VmRSS"), time.perf_counter()
net = schema.new("NetParameter")
with open(path, "rb") as file:
    net.ParseFromString(file.read())
held = {x.name: [torch.from_numpy(np.array(b.data, np.float32)) for b in x.blobs] for x in net.layer or net.layers}
""",
}

_REPORT = """
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "bytes": status("VmHWM") - start_memory}))
"""


def make_file(path: Path, syntax: str) -> None:
    """Write seeded random weights in the shapes of the released model."""
    from caffe2torch import schema, write_caffemodel

    rng = np.random.default_rng(0)
    net = schema.new("NetParameter")
    net.name = "KevinNet_CIFAR10"
    for name in SHAPES:
        net.layer.add(name=name, type="Convolution" if name.startswith("conv") else "InnerProduct")
    weights = {name: [rng.standard_normal(s, np.float32) * np.float32(0.01) for s in SHAPES[name]] for name in SHAPES}
    write_caffemodel(path, net, weights, syntax=syntax)


def measure(code: str, path: Path) -> dict[str, float]:
    """Time and memory of one candidate in a fresh process."""
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", _COMMON + code + _REPORT, str(path)]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--syntax", choices=["V1", "V2"], default="V1", help="how to write the file (default: V1)")
    options = parser.parse_args()
    size = 4 * sum(int(np.prod(shape)) for shapes in SHAPES.values() for shape in shapes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kevinnet.caffemodel"
        make_file(path, options.syntax)
        path.read_bytes()  # into the page cache
        results: dict[str, list[dict[str, float]]] = {name: [] for name in CANDIDATES}
        for _ in range(options.repeats):
            for name, code in CANDIDATES.items():
                results[name].append(measure(code, path))
    base = results[next(iter(CANDIDATES))]
    print(f"{size / 1e6:.1f} MB of weights; medians of {options.repeats} runs, ratios to the first line, run by run")
    for name, runs in results.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        ratio = statistics.median(run["seconds"] / other["seconds"] for run, other in zip(runs, base, strict=True))
        fastest = min(run["seconds"] for run in runs)
        peak = statistics.median(run["bytes"] for run in runs)
        print(f"{name:40s} {seconds:.3f} s, fastest {fastest:.3f} s, ratio {ratio:5.2f}", end="")
        print(f"   peak {peak / 1e6:6.1f} MB, {peak / size:4.2f} x the weights")


if __name__ == "__main__":
    main()
