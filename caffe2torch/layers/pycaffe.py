"""Runs layer classes written for pycaffe: numpy blobs, ``setup``, ``reshape``, ``forward``, ``backward``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer, Message, Shape


class Blob:
    """What a pycaffe layer sees of a blob: ``data`` and ``diff``, made when first asked for, and its shape."""

    def __init__(self, shape: Shape = ()) -> None:
        self.shape: Shape = shape
        self._data: NDArray[Any] | None = None
        self._diff: NDArray[Any] | None = None

    @property
    def data(self) -> NDArray[Any]:
        """The values; written in place."""
        if self._data is None:
            self._data = np.zeros(self.shape, np.float32)
        return self._data

    @property
    def diff(self) -> NDArray[Any]:
        """The gradients; written in place."""
        if self._diff is None:
            self._diff = np.zeros(self.shape, self.data.dtype)
        return self._diff

    def reshape(self, *shape: int) -> None:
        """Give the blob another shape; its values are lost if that differs from the present one."""
        if tuple(shape) != self.shape:
            self.shape = tuple(int(dim) for dim in shape)
            self._data = self._diff = None

    def hold(self, data: NDArray[Any] | None, diff: NDArray[Any] | None = None) -> None:
        """Take over these arrays."""
        self._data, self._diff = data, diff
        if data is not None:
            self.shape = data.shape

    @property
    def count(self) -> int:
        """How many values there are."""
        return math.prod(self.shape)

    @property
    def num(self) -> int:
        """First of the four legacy dimensions."""
        return self._legacy(0)

    @property
    def channels(self) -> int:
        """Second of the four legacy dimensions."""
        return self._legacy(1)

    @property
    def height(self) -> int:
        """Third of the four legacy dimensions."""
        return self._legacy(2)

    @property
    def width(self) -> int:
        """Last of the four legacy dimensions."""
        return self._legacy(3)

    def _legacy(self, axis: int) -> int:
        return self.shape[axis] if axis < len(self.shape) else 1


class BlobList(list[Blob]):
    """The parameter blobs of a layer, as ``self.blobs``."""

    def add_blob(self, *shape: int) -> None:
        """Add a parameter of this shape, zeros."""
        self.append(Blob(tuple(shape)))


class StandInLayer:
    """What ``caffe.Layer`` is where pycaffe is not installed: a base class and nothing more."""


class PycaffeLayer(Layer):
    """A pycaffe layer object as a torch layer; its parameter blobs are ``blob0``, ``blob1``, ...

    Numpy code cannot be traced: ``torch.compile`` breaks its graph here, and ``torch.export`` refuses.
    """

    def __init__(self, cls: Any, layer: Message, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.bottom = [Blob(shape) for shape in bottom_shapes]
        self.top = [Blob() for _ in layer.top]
        self.code = cls.__new__(cls)
        self.code.param_str = layer.python_param.param_str
        self.code.phase = layer.phase
        self.code.blobs = BlobList()
        self.code.setup(self.bottom, self.top)
        self.code.reshape(self.bottom, self.top)
        self.blobs = tuple(f"blob{i}" for i in range(len(self.code.blobs)))
        for name, blob in zip(self.blobs, self.code.blobs, strict=True):
            # Its values are those that setup left: this layer has no fillers.
            self.register_parameter(name, nn.Parameter(torch.from_numpy(blob.data.copy())))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        parameters = [value for _, value in self.blob_items()]
        if any(x.is_meta for x in bottoms):
            tops = self._shapes_only(bottoms)
        else:
            tops = _Run.apply(self, len(bottoms), *bottoms, *parameters)  # type: ignore[no-untyped-call]
        return tops[0] if len(tops) == 1 else tops

    def _shapes_only(self, bottoms: Sequence[Tensor]) -> tuple[Tensor, ...]:
        for blob, x in zip(self.bottom, bottoms, strict=True):
            blob.reshape(*x.shape)
        self.code.reshape(self.bottom, self.top)
        return tuple(torch.empty(blob.shape, device="meta") for blob in self.top)

    def bind(self, bottoms: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
        """Let the blobs hold these values (without copying, on the CPU)."""
        for blob, x in zip([*self.bottom, *self.code.blobs], [*bottoms, *parameters], strict=True):
            blob.hold(x.detach().cpu().contiguous().numpy())


class _Run(torch.autograd.Function):
    """One pass of a pycaffe layer, its ``backward`` as the gradient."""

    @staticmethod
    def forward(ctx: Any, layer: PycaffeLayer, bottoms: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        layer.bind(tensors[:bottoms], tensors[bottoms:])
        layer.code.reshape(layer.bottom, layer.top)
        layer.code.forward(layer.bottom, layer.top)
        ctx.layer, ctx.bottoms = layer, bottoms
        like = tensors[0] if tensors else torch.empty(0)
        tops = tuple(torch.from_numpy(blob.data.copy()).to(like.device, like.dtype) for blob in layer.top)
        ctx.save_for_backward(*tensors, *tops)
        return tops

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        layer: PycaffeLayer = ctx.layer
        saved = ctx.saved_tensors
        tensors, tops = saved[: len(saved) - len(layer.top)], saved[len(saved) - len(layer.top) :]
        layer.bind(tensors[: ctx.bottoms], tensors[ctx.bottoms :])
        for blob, top, gradient in zip(layer.top, tops, gradients, strict=True):
            blob.hold(top.cpu().numpy(), gradient.cpu().contiguous().numpy())
        wanted = [bool(need) for need in ctx.needs_input_grad[2:]]
        layer.code.backward(layer.top, wanted[: ctx.bottoms], layer.bottom)
        results: list[Tensor | None] = []
        for blob, x, want in zip([*layer.bottom, *layer.code.blobs], tensors, wanted, strict=True):
            if blob.diff.shape != tuple(x.shape):
                raise LayerError(
                    f"backward left a diff of shape {blob.diff.shape} for a blob of shape {tuple(x.shape)}"
                )
            results.append(torch.from_numpy(blob.diff.copy()).to(x.device, x.dtype) if want else None)
        return (None, None, *results)
