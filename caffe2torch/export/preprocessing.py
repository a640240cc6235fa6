"""A Spec's preprocessing as a method of a written class: from RGB pictures to the net's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caffe2torch.errors import UsageError
from caffe2torch.export.names import number
from caffe2torch.preprocess import Preprocess, Spec, make
from caffe2torch.preprocess.mean import mean_planes
from caffe2torch.preprocess.spec import crop_place


@dataclass(frozen=True)
class Written:
    """The lines of a ``preprocess`` method, what it needs, and the pictures it takes."""

    method: tuple[str, ...]
    members: tuple[str, ...] = ()
    state: Mapping[str, Tensor] = field(default_factory=dict)
    helpers: frozenset[str] = frozenset()
    size: tuple[int, int] | None = None
    """(height, width) that pictures must have; None: any."""
    prepare: Preprocess | None = None
    """The package's own, to compare with; it takes one picture in B, G, R."""


def write_preprocessing(spec: Spec, mean: NDArray[np.floating] | None) -> Written:
    """The method for pictures (N, height, width, 3), uint8, RGB; ``mean`` is what `load_mean` gives.

    The resize of matcaffe and pycaffe is written out. That of transformer is OpenCV's on bytes, which torch does not
    have: there pictures must have that size already. Raises UsageError for what cannot be written.
    """
    if spec.channels != 3:
        raise UsageError("preprocessing of grey nets has no written form: pictures come in RGB")
    planes = mean_planes(spec, mean, spec.resize if spec.dialect != "pycaffe" else None)
    size = spec.resize if spec.dialect == "transformer" else None
    whole = spec.resize or (planes.shape[1:] if planes is not None and planes.shape[1:] != (1, 1) else None)
    if whole is None:
        raise UsageError("preprocessing has no written form here: give resize, the size of the pictures")
    size = whole if spec.dialect == "transformer" else None
    top, left, height, width = crop_place(spec, (whole[0], whole[1]))
    lines = [_doc(spec, (height, width), size), *_planes(spec, size)]
    used: set[str] = set()
    if spec.dialect == "matcaffe":
        lines.append(f"x = imresize(x, {whole[0]}, {whole[1]})")
        used = {"imresize"}
    elif spec.dialect == "pycaffe":
        lines += [
            "darkest = x.amin((1, 2, 3), keepdim=True)",
            f"x = resize_linear(x - darkest, {whole[0]}, {whole[1]}) + darkest",
        ]
        used = {"resize_linear"}
    if (height, width) != whole:
        lines.append(f"x = x[:, :, {top}:{top + height}, {left}:{left + width}]")
    if spec.dialect == "pycaffe" and spec.raw_scale != 255.0:
        lines.append(f"x = x * {number((1.0 if spec.raw_scale is None else spec.raw_scale) / 255)}")
    members: list[str] = []
    state: dict[str, Tensor] = {}
    if planes is not None:
        if planes.shape[1:] != (1, 1) and spec.dialect != "pycaffe":
            planes = np.ascontiguousarray(planes[:, top : top + height, left : left + width])
        _mean(planes, lines, members, state)
    if spec.scale != 1.0:
        lines.append(f"x = x * {number(spec.scale)}")
    head = "def preprocess(self, images: Tensor) -> Tensor:"
    method = (head, *(f"    {line}" for line in (*lines, "return x")))
    return Written(method, tuple(members), state, frozenset(used), size, make(spec, mean))


def _planes(spec: Spec, size: tuple[int, int] | None) -> list[str]:
    check = []
    if size is not None:
        advice = (
            f"resize pictures to {size[0]} x {size[1]} first, as Caffe does: cv2.resize(bytes, ({size[1]}, {size[0]}))"
        )
        check = [f"if images.shape[1:3] != {size}:", f'    raise ValueError("{advice}")']
    flip = ".flip(3)" if spec.order == "bgr" else ""
    return [*check, f"x = images{flip}.permute(0, 3, 1, 2).contiguous().float()" + ("  # B, G, R" if flip else "")]


def _mean(planes: NDArray[np.float32], lines: list[str], members: list[str], state: dict[str, Tensor]) -> None:
    if planes.shape[1:] == (1, 1):
        values = ", ".join(f"[[{number(float(value))}]]" for value in planes.reshape(-1))
        members.append(f'self.register_buffer("mean", torch.tensor([{values}]), persistent=False)')
    else:
        members.append(f'self.register_buffer("mean", torch.zeros{planes.shape})')
        state["mean"] = torch.from_numpy(planes)
    lines.append("x = x - self.mean")


_ARITHMETIC = {
    "matcaffe": "MATLAB's imresize",
    "transformer": "Caffe's data layer",
    "pycaffe": "caffe.io.Transformer",
}


def _doc(spec: Spec, result: tuple[int, int], size: tuple[int, int] | None) -> str:
    taken = f"{size[0]}, {size[1]}" if size else "height, width"
    order = "B, G, R" if spec.order == "bgr" else "R, G, B"
    return (
        f'"""RGB pictures (N, {taken}, 3), uint8, to the input (N, 3, {result[0]}, {result[1]}) in {order}: '
        f'{_ARITHMETIC[spec.dialect]}."""'
    )
