"""What has no counterpart is refused, all of it at once, with the operation, the module and the line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import caffe2torch
from caffe2torch.errors import LayerError, UnsupportedLayerError, UsageError

from .modules import Does

X = torch.linspace(-1, 1, 192).reshape(2, 4, 4, 6)

REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "gelu": (F.gelu, "gelu: no layer of Caffe computes it"),
    "log_softmax": (lambda x: F.log_softmax(x, 1), "end with softmax or the scores"),
    "layer_norm": (lambda x: F.layer_norm(x, (6,)), "eps outside the root"),
    "instance_norm": (F.instance_norm, "eps outside the root"),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), "between channels and places"),
    "unknown": (lambda x: x.cumsum(1), "cumsum: Caffe has no layer for it"),
    "sort": (lambda x: x.sort(1)[0], "sort: Caffe has no layer for it"),
    "max_with_indices": (lambda x: x.max(1)[0], "along an axis"),
    "pool_indices": (lambda x: F.max_pool2d(x, 2, return_indices=True)[0], "indices of the maxima"),
    "adaptive_pool_indices": (
        lambda x: F.adaptive_max_pool2d(x, 1, return_indices=True)[0],
        "indices of the maxima; use the values only",
    ),
    "pool_dilation": (lambda x: F.max_pool2d(x, 2, dilation=2), "dilation is 2"),
    "average_without_padding": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), "counts the padding"),
    "average_divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), "divisor_override is 3"),
    "adaptive_unequal": (lambda x: F.adaptive_avg_pool2d(x, 3), "does not divide"),
    "even_lrn": (lambda x: F.local_response_norm(x, 4), "local_size is odd"),
    "output_padding": (lambda x: F.conv_transpose2d(x, torch.ones(4, 1, 3, 3), stride=2, output_padding=1), "has none"),
    "even_same": (lambda x: F.conv2d(x, torch.ones(1, 4, 2, 2), padding="same"), "more on one side"),
    "one_sided_padding": (lambda x: F.conv2d(F.pad(x, (0, 1, 0, 1)), torch.ones(1, 4, 3, 3)), "more on one side"),
    "reflection": (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "mode 'reflect'"),
    "padding_elsewhere": (lambda x: F.pad(x, (1, 1)).relu(), "inside a convolution only"),
    "channels_of_zeros": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 1)).relu(), "inside LRN only"),
    "window_with_a_gap": (lambda x: (parts := _windows(x))[0] + parts[2], "part of windows of channels"),
    "window_times_two": (
        lambda x: torch.add((parts := _windows(x))[0], parts[1], alpha=2),
        "part of windows of channels",
    ),
    "some_of_a_window": (lambda x: (parts := _windows(x))[0] + parts[1], "an output: its input is a part of windows"),
    "windows_of_images": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 1)).unfold(1, 3, 1).unbind(0)[0], "inside LRN only"),
    "windows": (lambda x: x.unfold(2, 3, 1), "windows by themselves"),
    "im2col": (lambda x: F.unfold(x, 3), "in a convolution only"),
    "padding_as_output": (lambda x: F.pad(x, (1, 1)), "inside a convolution only"),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), "mode is 'bilinear'"),
    "enlarged_in_part": (lambda x: F.interpolate(x, size=(6, 6)), "only whole factors"),
    "attention": (lambda x: x @ x.transpose(2, 3), "both depend on the input"),
    "weight_from_input": (lambda x: F.conv2d(x, x[:, :, :1, :1]), "its weight is computed from the input"),
    "index_by_tensor": (lambda x: x[:, torch.tensor([1, 0])], "a tensor or a list"),
    "step": (lambda x: x[:, ::2], "its step is 2"),
    "assignment": (lambda x: _assigned(x.clone()), "writes into a part of a tensor"),
    "constant_assignment": (lambda x: _assigned(torch.zeros(2, 4, 4, 6), x), "writes into a part of a tensor"),
    "value_decides": (lambda x: x if x.mean() > 0 else -x, "the values themselves decide"),
    "item": (lambda x: x * x.max().item(), "the values themselves decide"),
    "numpy": (lambda x: x + torch.from_numpy(x.numpy()), "the values themselves decide"),
    "dropout_always": (lambda x: F.dropout(x, 0.5), "although the module is in evaluation mode"),
    "double": (lambda x: x.double(), "it gives float64"),
    "division_by_0": (lambda x: x / 0, "divides by 0"),
    "rounding": (lambda x: torch.div(x, 2, rounding_mode="floor"), "does not round"),
    "order_3": (lambda x: x.norm(3, dim=1), "order 3"),
    "changed_view": (lambda x: _view_changed(x.relu()), "changed in place through another tensor"),
    "constant_output": (lambda x: (x.relu(), torch.ones(3)), "does not depend on the inputs"),
    "constant_comparison": (lambda x: torch.maximum(x, torch.ones(())), "use clamp"),
    "larger_constant": (lambda x: x[:1] + torch.arange(4.0).reshape(4, 1, 1, 1), "blobs stay as they are"),
    "limits_by_place": (lambda x: x.clamp(torch.arange(6.0)), "differ from place to place"),
    "out": (lambda x: torch.add(x, 1, out=torch.empty(2, 4, 4, 6)), "form that is not known"),
}


def _assigned(y: Tensor, x: Tensor | None = None) -> Tensor:
    y[:, 0] = 0 if x is None else x[:, 0]
    return y


def _windows(x: Tensor) -> tuple[Tensor, ...]:
    return F.pad(x, (0, 0, 0, 0, 1, 1)).unfold(1, 3, 1).unbind(-1)


def _view_changed(y: Tensor) -> Tensor:
    y.view(-1).mul_(2)
    return y + 1


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", REFUSED)
def test_operation_is_refused_with_a_reason(name: str) -> None:
    function, reason = REFUSED[name]
    with pytest.raises(UnsupportedLayerError) as error:
        caffe2torch.to_caffe(Does(function), X)
    assert reason in str(error.value)


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GELU())
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.body(x))
        if x.sum() > 0:
            x = x.cumsum(1)
        return x.sort().values


def test_all_problems_are_told_at_once_with_module_and_line() -> None:
    with pytest.raises(UnsupportedLayerError) as error:
        caffe2torch.to_caffe(Several(), X)
    first = inspect.getsourcelines(Several.forward)[1]
    lines = str(error.value).splitlines()
    assert lines[0] == "Several cannot become a Caffe net:"
    assert lines[1].startswith(f"  module 'body.1' (GELU), test_refusals.py:{first + 1}: gelu: ")
    assert lines[2].startswith(f"  module 'norm' (LayerNorm), test_refusals.py:{first + 1}: layer_norm: ")
    assert lines[3].startswith(f"  the module itself (Several), test_refusals.py:{first + 2}: __bool__: ")
    assert [line.split(": ")[1] for line in lines[4:]] in (["sort"], ["cumsum", "sort"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_modules_that_python_does_not_run_are_named() -> None:
    inner = torch.jit.script(nn.Sequential(nn.Conv2d(4, 4, 1), nn.GELU()))
    with pytest.raises(UnsupportedLayerError, match=r"cannot be seen: 1; give the module before"):
        caffe2torch.to_caffe(nn.Sequential(nn.ReLU(), inner), X)


def test_recurrent_layers_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedLayerError, match="lstm: the gates' order"):
        caffe2torch.to_caffe(nn.LSTM(6, 4), X[0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_no_trace_can_see_is_found_by_comparing() -> None:
    """A compiled function is no call of torch's that Python makes: its result looks like a constant."""

    @torch.jit.script
    def hidden(x: Tensor) -> Tensor:
        return x * 2

    with pytest.raises(LayerError, match="differs from the module by more than 1e-05 of the largest value"):
        caffe2torch.to_caffe(Does(lambda x: x.relu() + hidden(x)), X)


def test_randomness_is_found_by_comparing() -> None:
    with pytest.raises(LayerError, match="may be random"):
        caffe2torch.to_caffe(Does(lambda x: x + torch.rand(6)), X)


@pytest.mark.parametrize(
    "inputs, options, reason",
    [
        ((), {}, "at least one example input"),
        ([X.double()], {}, "a Caffe blob is float32"),
        ([3], {}, "is a int, expected a tensor"),
        ([torch.tensor(1.0)], {}, "expected values in a batch"),
        ([torch.empty(0, 3)], {}, "expected values in a batch"),
        (X, {"input_names": ["a", "b"]}, "expected 1 different names"),
        (X, {"output_names": ["a", "b"]}, "expected 1 different names"),
        (X, {"output_names": ["data"]}, "other than the inputs'"),
    ],
)
def test_wrong_use_is_told(inputs: Any, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError) as error:
        caffe2torch.to_caffe(nn.ReLU(), inputs, **options)
    assert reason in str(error.value)


def test_a_module_that_returns_no_tensors_is_refused() -> None:
    with pytest.raises(UsageError, match="returns a str"):
        caffe2torch.to_caffe(Does(lambda x: "x"), X)
    with pytest.raises(UsageError, match="returns no tensors"):
        caffe2torch.to_caffe(Does(lambda x: None), X)


def test_a_caffe_net_is_not_traced() -> None:
    net = caffe2torch.to_caffe(nn.ReLU(), X).net()
    with pytest.raises(UsageError, match=r"caffe2torch\.save"):
        caffe2torch.to_caffe(net, X)
