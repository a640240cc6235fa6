"""The published hashing nets at full size: the goldens hold a recipe for their weights instead of the weights."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from caffe2torch import zoo
from caffe2torch.caffemodel import write_caffemodel
from caffe2torch.errors import UsageError, ZooError
from caffe2torch.loading import load
from caffe2torch.net import CaffeNet
from caffe2torch.prototxt import read_net
from caffe2torch.verify.case import Case, read_arrays
from caffe2torch.verify.compare import LOOSE, Array, Check, claim, compare


@dataclass(frozen=True)
class FullSize:
    """One net: its model in the zoo, the seed of its weights, its layer of 48 units, the syntax of its weights file."""

    model: str
    seed: int
    latent: str
    syntax: Literal["V1", "V2"]


NETS: Mapping[str, FullSize] = {
    "kevinnet48": FullSize("kevinnet_cifar10_48", 101, "fc8_kevin", "V1"),
    "ssdh": FullSize("ssdh_cifar10_48", 102, "latent", "V2"),
    "ssdh_vgg16_48": FullSize("ssdh_vgg16_48", 103, "latent_layer", "V2"),
    "ssdh_vgg16_avg_48": FullSize("ssdh_vgg16_avg_48", 104, "latent_layer", "V2"),
}

BATCH = 4
CODE = 1e-5
"""Absolute tolerance for the sigmoid outputs that make the codes."""


def run(case: Case) -> list[Check]:
    """Make weights and input by the recipe, write them as a caffemodel, read it back and compare every blob."""
    golden = read_arrays(case.path)
    size = NETS.get(case.path.stem)
    if size is None:
        raise UsageError(f"{case.path}: no recipe for this net; there is one for {', '.join(NETS)}")
    with tempfile.TemporaryDirectory(prefix="caffe2torch-") as folder:
        weights = Path(folder) / "weights.caffemodel"
        checks = _hashes("wsha256", write_weights(size, deploy(size), weights), golden)
        net = load(deploy(size), weights)
    x = input_batch(size, net)
    checks += [_hash("input_sha256", x, golden["input_sha256"])]
    with torch.inference_mode():
        outputs = net.select(*net.blob_shapes)(torch.from_numpy(x))
    return checks + _outputs(net, {blob: value.numpy() for blob, value in outputs.items()}, golden)


def deploy(size: FullSize) -> Path:
    """The net's prototxt in the zoo."""
    path = zoo.entry(size.model).deploy
    if path is None:
        raise ZooError(f"the zoo has no deploy net for {size.model}")
    return path


def write_weights(size: FullSize, prototxt: Path, target: Path) -> dict[str, list[Array]]:
    """Write the weights of the recipe with our own writer, in the net's syntax; returns them."""
    made = parameters(load(prototxt), size)
    write_caffemodel(target, read_net(prototxt), made, syntax=size.syntax)
    return made


def parameters(net: CaffeNet, size: FullSize) -> dict[str, list[Array]]:
    """The recipe: one legacy generator, weight before bias, layers in prototxt order, float64 then one cast."""
    rng = np.random.RandomState(size.seed)
    made: dict[str, list[Array]] = {}
    for node, layer in net.built():
        blobs = layer.blob_items()
        if not blobs:
            continue
        shape = tuple(blobs[0][1].shape)
        gain = 0.02 if node.name == size.latent else 1.0
        weight = (rng.standard_normal(shape) * (np.sqrt(2.0 / np.prod(shape[1:])) * gain)).astype(np.float32)
        made[node.name] = [weight, rng.uniform(-0.1, 0.1, (shape[0],)).astype(np.float32)]
    return made


def input_batch(size: FullSize, net: CaffeNet) -> Array:
    """The input of the recipe."""
    (shape,) = net.input_shapes.values()
    normal = np.random.RandomState(size.seed + 1000).standard_normal((BATCH, *shape[1:]))
    return (normal * 50.0).astype(np.float32)


def _hashes(kind: str, made: Mapping[str, list[Array]], golden: Mapping[str, Array]) -> list[Check]:
    found = {f"{kind}:{name}:{i}": blob for name, blobs in made.items() for i, blob in enumerate(blobs)}
    expected = {key: value for key, value in golden.items() if key.startswith(f"{kind}:")}
    if set(found) != set(expected):
        return [claim(kind, holds=False, detail=f"the parameters are {sorted(found)}, expected {sorted(expected)}")]
    return [_hash(key, found[key], value) for key, value in expected.items()]


def _hash(name: str, array: Array, expected: Array) -> Check:
    digest = hashlib.sha256(np.ascontiguousarray(array, dtype="<f4").tobytes()).digest()
    return claim(name, holds=digest == expected.tobytes(), detail="the recipe gave other values than for Caffe")


def _outputs(net: CaffeNet, outputs: Mapping[str, Array], golden: Mapping[str, Array]) -> list[Check]:
    checks = []
    code = net.outputs[0]
    for key, value in golden.items():
        kind, _, blob = key.partition(":")
        if kind in ("shape", "out", "sum") and blob not in outputs:
            checks.append(claim(key, holds=False, detail="the net has no such blob"))
        elif kind == "shape":
            found = outputs[blob].shape
            checks.append(claim(key, holds=found == tuple(value), detail=f"is {found}, Caffe's is {tuple(value)}"))
        elif kind == "out":
            checks.append(compare(key, outputs[blob], value, CODE if blob == code else LOOSE))
        elif kind == "sum":
            exact = outputs[blob].astype(np.float64)
            ours = np.concatenate([[exact.mean(), exact.std()], exact.ravel()[:8]])
            checks.append(compare(key, ours, value, LOOSE, floor=float(np.abs(exact).max(initial=0.0))))
    bits = np.array_equal(outputs[code] > 0.5, golden[f"out:{code}"] > 0.5)
    return [*checks, claim("codes", holds=bits, detail="some bits differ from Caffe's")]
