"""A training step of KevinNet against a hand-written torch loop of the same net, loss and optimizer.

Both start from the same weights and take turns on the same batches in memory; after the first step their losses are
compared. The plain loop is what one would write: nn.Sequential parts, cross entropy, torch.optim.SGD with the same
learning rates and decays by parameter groups. Then the time that a step waits for a data layer of 256 x 256 records in
an LMDB (crop, mirror, mean) is measured, with the workers that ``caffe2torch train`` uses.

Run: ``python benchmarks/bench_train.py [--batch 32] [--rounds 7]``. Target: at most 1.1 x.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from caffe2torch import prototxt, schema, zoo
from caffe2torch.memory import keep_freed_memory
from caffe2torch.solver.settings import NetChoice, Settings
from caffe2torch.solver.solver import Solver

MODEL = "kevinnet_cifar10_48"
ORDER = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8_kevin", "fc8_pascal")


class Plain(nn.Module):
    """KevinNet as one would write it in torch."""

    def __init__(self) -> None:
        super().__init__()
        pool, norm = nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5, 1e-4, 0.75)
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 11, 4), nn.ReLU(inplace=True), pool, norm,
            nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(inplace=True), pool, norm,
            nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(inplace=True), pool,
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(9216, 4096), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(4096, 48), nn.Sigmoid(), nn.Linear(48, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))

    def weighted(self) -> list[nn.Conv2d | nn.Linear]:
        return [m for m in self.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


class Memory:
    """Batches from memory in place of the data layer."""

    def __init__(self, batches: list[dict[str, np.ndarray]]) -> None:
        self.all, self.batches = batches, 0

    def next_batch(self) -> dict[str, np.ndarray]:
        self.batches += 1
        return self.all[(self.batches - 1) % len(self.all)]


def solver_of(text: str, folder: Path) -> Solver:
    parameters = prototxt.parse(text, "SolverParameter")
    net = prototxt.read_net(zoo.entry(MODEL).train_val)
    for layer in net.layer:
        if layer.type == "Data":
            layer.transform_param.ClearField("mean_file")
            layer.transform_param.mean_value.append(120.0)
            layer.data_param.source = str(folder / "db")
            layer.data_param.backend = layer.data_param.LMDB
    choice = NetChoice(net, folder / "net", "train", 0, ())
    return Solver(Settings(folder / "solver", parameters, folder, choice, (), folder / "snap"))


def write_records(folder: Path, count: int) -> None:
    import lmdb

    rng = np.random.default_rng(0)
    with lmdb.open(str(folder / "db"), map_size=1 << 30) as environment, environment.begin(write=True) as transaction:
        for index in range(count):
            datum = schema.new("Datum")
            datum.channels, datum.height, datum.width, datum.label = 3, 256, 256, index % 10
            datum.data = rng.integers(0, 256, 3 * 256 * 256).astype(np.uint8).tobytes()
            transaction.put(b"%08d" % index, datum.SerializeToString())


def main() -> None:
    keep_freed_memory()  # as the commands do; both sides gain
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write_records(Path(name), 4 * options.batch)
        solver = solver_of('base_lr: 0.001 lr_policy: "fixed" momentum: 0.9 weight_decay: 5e-4', Path(name))
        compare(solver, options)
        wait(solver, options)


def compare(solver: Solver, options: argparse.Namespace) -> None:
    feed = solver.train.feed
    assert feed is not None
    memory = Memory([feed.next_batch() for _ in range(2)])
    solver.train = replace(solver.train, feed=memory)  # type: ignore[arg-type]
    plain = Plain()
    groups = []
    for name, module in zip(ORDER, plain.weighted(), strict=True):
        layer = solver.train.net.layer(name)
        with torch.no_grad():
            module.weight.copy_(layer.weight.view_as(module.weight))
            module.bias.copy_(layer.bias.view_as(module.bias))
        times = 10 if name == "fc8_pascal" else 1
        groups.append({"params": [module.weight], "lr": 0.001 * times})
        groups.append({"params": [module.bias], "lr": 0.002 * times, "weight_decay": 0.0})
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=5e-4)
    batches = [(torch.from_numpy(b["data"]), torch.from_numpy(b["label"]).long()) for b in memory.all]

    def theirs() -> None:
        x, y = batches[memory.batches % 2]
        optimizer.zero_grad()
        loss = F.cross_entropy(plain(x), y)
        loss.backward()
        optimizer.step()
        loss.item()

    ratios, seconds = [], []
    for round in range(options.rounds + 1):
        start = time.perf_counter()
        theirs()
        middle = time.perf_counter()
        solver.step(1)
        end = time.perf_counter()
        if round:  # the first takes memory
            ratios.append((end - middle) / (middle - start))
            seconds.append((middle - start, end - middle))
    a, b = (statistics.median(s[side] for s in seconds) for side in range(2))
    print(f"KevinNet, batch {options.batch}, float32, {torch.get_num_threads()} threads, {options.rounds} rounds")
    print(f"torch loop   {a:.3f} s a step ({options.batch / a:.1f} images/s)")
    print(f"caffe2torch  {b:.3f} s a step ({options.batch / b:.1f} images/s) = {statistics.median(ratios):.2f} x")
    solver.train = replace(solver.train, feed=feed)


def wait(solver: Solver, options: argparse.Namespace) -> None:
    feed = solver.train.feed
    assert feed is not None
    solver.step(1)
    before, start = feed.waited, time.perf_counter()
    solver.step(options.rounds)
    total = time.perf_counter() - start
    print(
        f"with an LMDB of 256 x 256 records: waited {100 * (feed.waited - before) / total:.1f} % of the time for data"
    )


if __name__ == "__main__":
    main()
