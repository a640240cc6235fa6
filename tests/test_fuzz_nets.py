"""Damaged and hostile nets: our error, or a net that works and gives the shapes it promises; in bounded memory."""

from __future__ import annotations

import math
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from google.protobuf.descriptor import FieldDescriptor as Field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffe2torch import prototxt, schema
from caffe2torch.caffemodel import write_caffemodel
from caffe2torch.errors import Caffe2TorchError, WeightsError
from caffe2torch.loading import load
from caffe2torch.net import CaffeNet
from caffe2torch.prototxt.tokens import INTEGER_RANGES

QUICK = settings(
    max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def layer(kind: str, bottoms: str, tops: str, more: str = "") -> str:
    ends = " ".join(f'{end}: "{blob}"' for end, blobs in (("bottom", bottoms), ("top", tops)) for blob in blobs.split())
    return f'layer {{ name: "{kind}_{tops.split()[0] if tops else ""}" type: "{kind}" {ends} {more} }}\n'


def data(top: str, *dims: int) -> str:
    return layer("Input", "", top, f"input_param {{ shape {{ {' '.join(f'dim: {d}' for d in dims)} }} }}")


OLD = (
    'name: "old" input: "x" input_dim: 1 input_dim: 2 input_dim: 5 input_dim: 5\n'
    'layers { name: "c" type: CONVOLUTION bottom: "x" top: "c" blobs_lr: 1 blobs_lr: 2 convolution_param { '
    "num_output: 2 kernel_size: 3 } }\n"
    'layers { name: "p" type: POOLING bottom: "c" top: "p" pooling_param { kernel_size: 2 stride: 2 } }\n'
    'layers { name: "s" type: SOFTMAX bottom: "p" top: "s" }\n'
)

NETS = [
    data("x", 2, 4, 6, 6)
    + layer("Convolution", "x", "c", "convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 1 group: 2 }")
    + layer("BatchNorm", "c", "n", "batch_norm_param { eps: 1e-5 }")
    + layer("Scale", "n", "n", "scale_param { bias_term: true axis: 1 num_axes: 1 }")
    + layer("ReLU", "n", "n", "relu_param { negative_slope: 0.1 }")
    + layer("LRN", "n", "l", "lrn_param { local_size: 3 alpha: 1e-4 beta: 0.75 }")
    + layer("Pooling", "l", "p", "pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 }")
    + layer("Pooling", "l", "a", "pooling_param { pool: AVE kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 1 }")
    + layer("PReLU", "p", "p")
    + layer("Flatten", "p", "f", "flatten_param { axis: 1 end_axis: -1 }")
    + layer("InnerProduct", "f", "i", "inner_product_param { num_output: 5 axis: 1 weight_filler { type: 'xavier' } }")
    + layer("Dropout", "i", "i", "dropout_param { dropout_ratio: 0.5 }")
    + layer("Sigmoid", "i", "s")
    + layer("Softmax", "i", "o", "softmax_param { axis: 1 }"),
    data("x", 2, 6, 3)
    + layer("Slice", "x", "u v", "slice_param { axis: 1 slice_point: 3 }")
    + layer("Eltwise", "u v", "e", "eltwise_param { operation: SUM coeff: 1 coeff: -1 }")
    + layer("Concat", "u e", "c", "concat_param { axis: 1 }")
    + layer("Reshape", "c", "r", "reshape_param { shape { dim: 0 dim: -1 dim: 2 } axis: 0 num_axes: -1 }")
    + layer("Power", "r", "w", "power_param { power: 2 scale: 0.5 shift: 1 }")
    + layer("Exp", "w", "w1", "exp_param { base: 2 scale: 0.1 shift: 0 }")
    + layer("Log", "w1", "w2", "log_param { base: 2 scale: 1 shift: 1 }")
    + layer("ELU", "w2", "w3", "elu_param { alpha: 1 }")
    + layer("Threshold", "w3", "t", "threshold_param { threshold: 0.5 }")
    + layer("Bias", "w3", "b", "bias_param { axis: 1 num_axes: 1 }")
    + layer("ArgMax", "b", "g", "argmax_param { top_k: 2 axis: 1 out_max_val: true }")
    + layer("Split", "b", "q1 q2")
    + layer("TanH", "q1", "q3")
    + layer("Silence", "q2", "")
    + layer(
        "DummyData", "", "z", "dummy_data_param { shape { dim: 2 dim: 3 } data_filler { type: 'gaussian' std: 1 } }"
    ),
    data("x", 4, 3)
    + data("y", 4)
    + data("y2", 4, 3)
    + layer("InnerProduct", "x", "i", "param { name: 'w' lr_mult: 1 } inner_product_param { num_output: 3 }")
    + layer("InnerProduct", "i", "j", "param { name: 'w' lr_mult: 1 } inner_product_param { num_output: 3 }")
    + layer("SoftmaxWithLoss", "j y", "l1", "loss_weight: 2 loss_param { ignore_label: 1 normalization: VALID }")
    + layer("Accuracy", "j y", "acc", "accuracy_param { top_k: 1 axis: 1 ignore_label: 2 }")
    + layer("EuclideanLoss", "j y2", "l2", "propagate_down: true propagate_down: false")
    + layer("SigmoidCrossEntropyLoss", "j y2", "l3")
    + layer("ContrastiveLoss", "i j y", "l4", "contrastive_loss_param { margin: 1 }"),
    OLD,
]

INTEGERS = [0, 1, 2, 3, 5, 31, -1, -2, 255, 65536, 10**8, 2**31 - 1, -(2**31), 2**32 - 1, 2**62, 2**63 - 1, -(2**63)]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 3e38, -3e38, 1000.0, math.nan, math.inf, -math.inf]
STRINGS = ["", "x", "c", "i", "xavier", "msra", "bilinear", "no such name", "x" * 300, "\u00e9"]
MOST_VALUES = 1 << 20  # of all blobs of a net that is run
MEMORY = 64 << 20


def growth(before: int) -> int:
    """Bytes by which the process has grown at most; ru_maxrss counts kilobytes, on macOS bytes."""
    return (peak() - before) * (1 if sys.platform == "darwin" else 1024)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(autouse=True)
def _small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caffe2torch.loading._memory", lambda: MEMORY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every net with random weights, as net0.prototxt, net0.caffemodel, ..."""
    made = tmp_path_factory.mktemp("nets")
    for number, text in enumerate(NETS):
        path = made / f"net{number}.prototxt"
        path.write_text(text, "utf-8")
        layers = load(path).layers()
        blobs = {name: [value.detach().numpy() for _, value in one.blob_items()] for name, one in layers.items()}
        write_caffemodel(path.with_suffix(".caffemodel"), prototxt.read_net(path), blobs)
    return made


def attempt(text: str, folder: Path, weights: Path | None, *, phase: str = "test") -> CaffeNet | None:
    """Load and run: the net, or None where we refused it. Anything else is a failure."""
    path = folder / "mutated.prototxt"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    before = peak()
    try:
        net = load(path, weights, phase=phase, ignore_extra=True, allow_missing=weights is not None)
    except Caffe2TorchError as error:
        return None if str(error) else pytest.fail("an error without words")
    finally:
        assert growth(before) < 4 * MEMORY
    if sum(map(math.prod, net.blob_shapes.values())) <= MOST_VALUES:
        with torch.no_grad():
            outputs = net({blob: torch.zeros(shape) for blob, shape in net.input_shapes.items()})
        assert {blob: tuple(value.shape) for blob, value in outputs.items()} == {
            blob: net.blob_shapes[blob] for blob in net.outputs
        }
        assert growth(before) < 8 * MEMORY
    return net


def hostile(draw: Callable[..., Any], field: Any) -> Any:
    """A value that the field's type allows, and seldom its meaning."""
    if field.type in (Field.TYPE_STRING, Field.TYPE_BYTES):
        return draw(st.sampled_from(STRINGS))
    if field.type == Field.TYPE_BOOL:
        return draw(st.booleans())
    if field.type == Field.TYPE_ENUM:
        return draw(st.sampled_from([value.number for value in field.enum_type.values]))
    if field.type in (Field.TYPE_FLOAT, Field.TYPE_DOUBLE):
        return draw(st.sampled_from(FLOATS))
    least, most = INTEGER_RANGES[field.type]
    return draw(st.sampled_from([value for value in INTEGERS if least <= value <= most]))


def change(draw: Callable[..., Any], message: Any, depth: int = 0) -> None:
    """Set, add to or clear one field of the message or of a message in it."""
    fields = message.DESCRIPTOR.fields
    there = [field for field, _ in message.ListFields()]
    params = [field for field in there if field.type == Field.TYPE_MESSAGE]
    if params and depth < 4 and draw(st.integers(0, 3)):
        field = draw(st.sampled_from(params))
        value = getattr(message, field.name)
        change(draw, draw(st.sampled_from(list(value))) if schema.is_repeated(field) else value, depth + 1)
        return
    field = draw(st.sampled_from(there if there and draw(st.booleans()) else list(fields)))
    if field.type in (Field.TYPE_MESSAGE, Field.TYPE_GROUP) or draw(st.integers(0, 5)) == 0:
        message.ClearField(field.name)
    elif schema.is_repeated(field):
        values = getattr(message, field.name)
        kept = list(values)[: draw(st.integers(0, len(values)))]
        message.ClearField(field.name)
        getattr(message, field.name).extend([*kept, *(hostile(draw, field) for _ in range(draw(st.integers(0, 3))))])
    else:
        setattr(message, field.name, hostile(draw, field))


@st.composite
def changed_nets(draw: Callable[..., Any]) -> tuple[int, str]:
    """A net with one to three fields changed, parameters above all, as text."""
    number = draw(st.integers(0, len(NETS) - 1))
    net = prototxt.parse(NETS[number])
    for _ in range(draw(st.integers(1, 3))):
        layers = list(net.layer) or list(net.layers)
        change(draw, draw(st.sampled_from(layers)) if layers and draw(st.integers(0, 9)) else net)
    return number, prototxt.to_text(net)


@st.composite
def damaged_texts(draw: Callable[..., Any]) -> tuple[int, str]:
    """A net whose text was edited: lines lost, doubled or exchanged, words replaced, bytes changed."""
    number = draw(st.integers(0, len(NETS) - 1))
    text = NETS[number]
    for _ in range(draw(st.integers(1, 3))):
        lines = text.splitlines(keepends=True) or [""]
        kind, at = draw(st.integers(0, 4)), draw(st.integers(0, len(lines) - 1))
        words = [match.span() for match in re.finditer(r"[\w.]+", text)]
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(draw(st.integers(0, len(lines))), lines[at])
        elif kind == 2 and words:
            (start, end), (first, last) = draw(st.sampled_from(words)), draw(st.sampled_from(words))
            lines = [text[:start] + text[first:last] + text[end:]]
        elif kind == 3:
            place = draw(st.integers(0, len(text)))
            character = draw(st.sampled_from([*'{}<>[]:;,"\\#-\n0 \x00', "\udcff", "\u2028"]))
            lines = [text[:place] + character + text[place + draw(st.integers(0, 2)) :]]
        else:
            lines = [text[: draw(st.integers(0, len(text)))]]
        text = "".join(lines)
    return number, text


@pytest.mark.parametrize("phase", ["test", "train"])
def test_the_nets_themselves_work(phase: str, folder: Path) -> None:
    for number, text in enumerate(NETS):
        assert attempt(text, folder, folder / f"net{number}.caffemodel", phase=phase), number


@QUICK
@given(net=changed_nets(), phase=st.sampled_from(["test", "train"]), with_weights=st.booleans())
def test_changed_fields(net: tuple[int, str], phase: str, with_weights: bool, folder: Path) -> None:
    attempt(net[1], folder, folder / f"net{net[0]}.caffemodel" if with_weights else None, phase=phase)


@QUICK
@given(net=damaged_texts(), with_weights=st.booleans())
def test_damaged_texts(net: tuple[int, str], with_weights: bool, folder: Path) -> None:
    attempt(net[1], folder, folder / f"net{net[0]}.caffemodel" if with_weights else None)


@QUICK
@given(
    number=st.integers(0, len(NETS) - 1),
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=3),
    length=st.floats(0.5, 1.0) | st.just(1.0),
)
def test_damaged_weights(number: int, places: list[tuple[float, int]], length: float, folder: Path) -> None:
    data = bytearray((folder / f"net{number}.caffemodel").read_bytes())
    for place, flip in places:
        data[int(place * len(data))] ^= flip
    path = folder / "mutated.caffemodel"
    path.write_bytes(data[: int(length * len(data))])
    attempt(NETS[number], folder, path)


@QUICK
@given(numbers=st.tuples(st.integers(0, len(NETS) - 1), st.integers(0, len(NETS) - 1)))
def test_weights_of_another_net_are_refused(numbers: tuple[int, int], folder: Path) -> None:
    one, other = numbers
    path, file = folder / f"net{one}.prototxt", folder / f"net{other}.caffemodel"
    if one == other:
        assert load(path, file).report.loaded
    else:
        with pytest.raises(WeightsError, match="does not fit net"):
            load(path, file)
