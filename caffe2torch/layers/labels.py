"""Labels out of range: what torch says of them, told for a layer."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from caffe2torch.errors import LayerError
from caffe2torch.layers.registry import Layer

Forward = TypeVar("Forward", bound=Callable[..., Any])


def labels_in_range(forward: Forward) -> Forward:
    """Decorator of a layer's ``forward(scores, labels, ...)``: labels out of range become a LayerError on the CPU.

    The layer has so many ``classes``, or they are on its ``axis``; without both they are all values of an item. Labels
    are looked at only after torch has failed, so that right ones cost nothing.
    """

    @functools.wraps(forward)
    def checked(self: Layer, x: Tensor, labels: Tensor, *rest: Tensor) -> Any:
        if torch.compiler.is_compiling():
            return forward(self, x, labels, *rest)
        try:
            return forward(self, x, labels, *rest)
        except (IndexError, RuntimeError) as error:
            axis = getattr(self, "axis", None)
            if labels.device.type == "cpu":
                of_scores = math.prod(x.shape[1:]) if axis is None else x.shape[axis]
                _check_range(self, labels.detach(), getattr(self, "classes", of_scores), error)
            raise

    return cast(Forward, checked)


def _check_range(layer: Layer, labels: Tensor, classes: int, error: Exception) -> None:
    """Raise LayerError, from ``error``, if a label is neither a class nor to be ignored."""
    one = getattr(layer, "ignore_label", None)
    ignored = getattr(layer, "ignore_labels", () if one is None else (one,))
    index = labels.long()
    wrong = ((index < 0) | (index >= classes)) & ~torch.isin(index, torch.tensor(ignored, dtype=torch.int64))
    if wrong.any():
        place = tuple(wrong.nonzero()[0].tolist())
        if ignored:
            alternative = f", or ignore_label {', '.join(map(str, ignored))}"
        else:
            can_ignore = hasattr(layer, "ignore_label") or hasattr(layer, "ignore_labels")
            alternative = ", and no ignore_label is set" if can_ignore else ""
        raise LayerError(
            f"layer {layer.caffe_name!r} ({layer.caffe_type}) found the label {labels[place].item():.9g} at {place}; "
            f"{int(wrong.sum())} of {wrong.numel()} labels are out of range: expected 0 to {classes - 1}{alternative}"
        ) from error
