"""Whole trainings against Caffe's formulas written down once more, in float64, with settings drawn at random."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caffe2torch.solver.events import Events, Score
from caffe2torch.solver.settings import read_settings
from caffe2torch.solver.solver import Solver
from solver.nets import weights

ROWS, BATCH, ITERATIONS = 15, 4, 9
NET = """
layer {{ name: "d" type: "HDF5Data" top: "x" top: "t" hdf5_data_param {{ source: "list.txt" batch_size: 4 }} }}
layer {{ name: "a" type: "InnerProduct" bottom: "x" top: "h" param {{ {0} }} param {{ {1} }}
        inner_product_param {{ num_output: 6 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "s" type: "Sigmoid" bottom: "h" top: "h" }}
layer {{ name: "b" type: "InnerProduct" bottom: "h" top: "y" param {{ {2} }} param {{ {3} }}
        inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" loss_weight: 3 }}
"""
POLICIES: dict[str, dict[str, Any]] = {
    "fixed": {},
    "step": {"gamma": 0.5, "stepsize": 3},
    "exp": {"gamma": 0.8},
    "inv": {"gamma": 0.3, "power": 0.75},
    "multistep": {"gamma": 0.5, "stepvalue": [2, 3, 7]},
    "poly": {"power": 1.5, "max_iter": 11},
    "sigmoid": {"gamma": 0.7, "stepsize": 4},
}
KINDS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "Nesterov": {"momentum": 0.8},
    "AdaGrad": {"delta": 1e-3},
    "RMSProp": {"rms_decay": 0.7, "delta": 1e-4},
    "AdaDelta": {"momentum": 0.9, "delta": 1e-4},
    "Adam": {"momentum": 0.8, "momentum2": 0.99, "delta": 1e-4},
}


def rate(p: dict[str, Any], i: int) -> float:
    """caffe.proto's own description of the policies."""
    gamma, base = p.get("gamma", 0.0), p["base_lr"]
    factors = {
        "fixed": lambda: 1.0,
        "step": lambda: gamma ** (i // p["stepsize"]),
        "exp": lambda: gamma**i,
        "inv": lambda: (1 + gamma * i) ** -p["power"],
        "multistep": lambda: gamma ** sum(i >= value for value in p["stepvalue"]),
        "poly": lambda: (1 - i / p["max_iter"]) ** p["power"],
        "sigmoid": lambda: 1 / (1 + math.exp(-gamma * (i - p["stepsize"]))),
    }
    return float(base * factors[p["lr_policy"]]())


def update(p: dict[str, Any], g: np.ndarray, h: dict[str, np.ndarray], lr: float, i: int) -> np.ndarray:
    """The value that is subtracted; ``h`` starts empty."""
    m, delta = p.get("momentum", 0.0), p.get("delta", 1e-8)
    old = {name: h.get(name, np.zeros_like(g)) for name in "vus"}
    if p["type"] in ("SGD", "Nesterov"):
        h["v"] = m * old["v"] + lr * g
        return h["v"] if p["type"] == "SGD" else (1 + m) * h["v"] - m * old["v"]
    if p["type"] == "AdaGrad":
        h["s"] = old["s"] + g**2
        return lr * g / (np.sqrt(h["s"]) + delta)
    if p["type"] == "RMSProp":
        h["s"] = p["rms_decay"] * old["s"] + (1 - p["rms_decay"]) * g**2
        return lr * g / (np.sqrt(h["s"]) + delta)
    if p["type"] == "AdaDelta":
        h["s"] = m * old["s"] + (1 - m) * g**2
        step = g * np.sqrt((old["u"] + delta) / (h["s"] + delta))
        h["u"] = m * old["u"] + (1 - m) * step**2
        return lr * step
    h["v"] = m * old["v"] + (1 - m) * g
    h["s"] = p["momentum2"] * old["s"] + (1 - p["momentum2"]) * g**2
    correct = math.sqrt(1 - p["momentum2"] ** (i + 1)) / (1 - m ** (i + 1))
    return lr * correct * h["v"] / (np.sqrt(h["s"]) + delta)


def train(p: dict[str, Any], start: list[np.ndarray], mults: list[tuple[float, float]], x: Any, t: Any) -> Any:
    """Of every iteration the rate, the smoothed loss and the weights after it."""
    w = [value.astype(np.float64) for value in start]
    histories: list[dict[str, np.ndarray]] = [{} for _ in w]
    losses, found, place = [], [], 0
    for i in range(ITERATIONS):
        total, grads = 0.0, [np.zeros_like(value) for value in w]
        for _ in range(p["iter_size"]):
            rows = np.arange(place, place + BATCH) % ROWS
            place += BATCH
            h = 1 / (1 + np.exp(-(x[rows] @ w[0].T + w[1])))
            error = h @ w[2].T + w[3] - t[rows]
            total += 3 * (error**2).sum() / 2 / BATCH
            dy = 3 * error / BATCH
            dh = dy @ w[2] * h * (1 - h)
            for k, g in enumerate((dh.T @ x[rows], dh.sum(0), dy.T @ h, dy.sum(0))):
                grads[k] += g * (mults[k][0] != 0)  # Caffe computes no gradient where the rate is 0
        norm = math.sqrt(sum((g**2).sum() for g in grads))
        clip = p["clip_gradients"]
        for k, (lr, decay) in enumerate(mults):
            g = grads[k] * (clip / norm if 0 <= clip < norm else 1) / p["iter_size"]
            g = g + p["weight_decay"] * decay * (w[k] if p["regularization_type"] == "L2" else np.sign(w[k]))
            w[k] = w[k] - update(p, g, histories[k], rate(p, i) * lr, i)
        losses.append(total / p["iter_size"])
        found.append((rate(p, i), np.mean(losses[-p["average_loss"] :]), [value.copy() for value in w]))
    return found


class Trace(Events):
    def __init__(self) -> None:
        self.found: list[tuple[float, float, list[np.ndarray]]] = []
        self._loss = 0.0

    def displayed(self, solver: Solver, loss: float, scores: list[Score] | None) -> None:
        self._loss = loss

    def updated(self, solver: Solver, loss: float, rate: float) -> None:
        self.found.append((rate, self._loss, weights(solver)))


def field(name: str, value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(field(name, one) for one in value)
    return f"{name}: {value}" if not isinstance(value, str) or name == "snapshot_format" else f'{name}: "{value}"'


def drawn(kind: str, rng: np.random.Generator) -> dict[str, Any]:
    policy = str(rng.choice(list(POLICIES)))
    return {
        **{"net": "net.prototxt", "type": kind, "lr_policy": policy, "base_lr": 0.05, "max_iter": 11, "display": 1},
        "weight_decay": float(rng.choice([0, 0.03])),
        "regularization_type": str(rng.choice(["L1", "L2"])),
        "iter_size": int(rng.integers(1, 4)),
        "clip_gradients": float(rng.choice([-1, 0.3, 2, 50])),
        "average_loss": int(rng.integers(1, 5)),
        "snapshot_format": str(rng.choice(["BINARYPROTO", "HDF5"])),
        "snapshot_prefix": "snap",
        **KINDS[kind],
        **POLICIES[policy],
    }


@pytest.mark.parametrize("draw", range(5))
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_is_its_formulas_and_goes_on_exactly(tmp_path: Path, kind: str, draw: int) -> None:
    rng = np.random.default_rng((draw, list(KINDS).index(kind)))
    p = drawn(kind, rng)
    mults = [tuple(rng.choice([(1, 1), (2, 0), (0, 1), (0.5, 3), (0, 0)]).tolist()) for _ in range(4)]
    mults[rng.integers(4)] = (1.0, 1.0)
    x, t = rng.normal(size=(ROWS, 5)).astype(np.float32), rng.normal(size=(ROWS, 2)).astype(np.float32)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"], file["t"] = x, t
    (tmp_path / "list.txt").write_text("data.h5\n")
    (tmp_path / "net.prototxt").write_text(NET.format(*(f"lr_mult: {a} decay_mult: {b}" for a, b in mults)))
    (tmp_path / "solver.prototxt").write_text("\n".join(field(*item) for item in p.items()))

    def solver() -> Solver:
        return Solver(read_settings(tmp_path / "solver.prototxt", root=tmp_path), seed=draw, events=Trace())

    whole = solver()
    expected = train(p, weights(whole), mults, x.astype(np.float64), t.astype(np.float64))
    whole.step(ITERATIONS)
    assert isinstance(whole.events, Trace)
    for found, (lr, loss, values) in zip(whole.events.found, expected, strict=True):
        assert found[0] == pytest.approx(lr, rel=1e-6)
        assert found[1] == pytest.approx(loss, rel=1e-5)
        for mine, value in zip(found[2], values, strict=True):
            np.testing.assert_allclose(mine, value, rtol=0, atol=1e-5 * max(1, np.abs(value).max()))

    first, second = solver(), solver()
    cut = int(rng.integers(1, ITERATIONS))
    first.step(cut)
    second.restore(first.snapshot()[1])
    second.step(ITERATIONS - cut)
    assert all(np.array_equal(a, b) for a, b in zip(weights(second), weights(whole), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(second.updater.history(), whole.updater.history(), strict=True))
