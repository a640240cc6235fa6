"""Feeds of whole nets, and MemoryData layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe2torch import prototxt
from caffe2torch.data import open_source
from caffe2torch.data.memory import MemorySource
from caffe2torch.errors import GraphError, UsageError
from caffe2torch.graph import build_graph
from caffe2torch.loading import load

from .sources import feed
from .test_hdf5 import files
from .test_hdf5 import layer as hdf5

MEMORY = (
    'layer { name: "m" type: "MemoryData" top: "a" top: "b" '
    "memory_data_param { batch_size: 2 channels: 1 height: 3 width: 2 } }"
)
INPUT = 'layer { name: "i" type: "Input" top: "z" input_param { shape { dim: 2 } } }'
DATA = np.arange(24, dtype=np.float32).reshape(4, 1, 3, 2)
LABELS = np.arange(4)


@pytest.mark.parametrize("labels", [LABELS, LABELS.reshape(4, 1, 1, 1)], ids=["flat", "four-axes"])
def test_memory_data_gives_its_rows_in_order_and_wraps(labels: np.ndarray, tmp_path: Path) -> None:
    source = feed(MEMORY, tmp_path, arrays={"a": DATA, "b": labels})
    for start in (0, 2, 0):
        batch = next(source)
        np.testing.assert_array_equal(batch["a"], DATA[start : start + 2])
        np.testing.assert_array_equal(batch["b"], LABELS[start : start + 2].reshape(2, 1, 1, 1))


def test_memory_data_keeps_what_it_was_given(tmp_path: Path) -> None:
    data = DATA.copy()
    batch = next(feed(MEMORY, tmp_path, arrays={"a": data, "b": LABELS}))
    batch["a"][:] = -1
    np.testing.assert_array_equal(data, DATA)


def test_memory_data_starts_again_with_new_arrays(tmp_path: Path) -> None:
    source = feed(MEMORY, tmp_path, arrays={"a": DATA, "b": LABELS})
    next(source)
    memory = source.sources["m"]
    assert isinstance(memory, MemorySource)
    memory.reset({"a": DATA + 1, "b": LABELS})
    np.testing.assert_array_equal(next(source)["a"], DATA[:2] + 1)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"a": DATA}, "needs arrays for a, b; given: a"),
        ({"a": DATA[:3], "b": LABELS[:3]}, "3 rows, expected a multiple of the batch size 2"),
        ({"a": DATA[:0], "b": LABELS[:0]}, "0 rows"),
        ({"a": DATA, "b": LABELS[:2]}, r"'b' has shape \(2,\), expected \(4, 1, 1, 1\)"),
        ({"a": DATA.reshape(4, 6), "b": LABELS}, r"'a' has shape \(4, 6\), expected \(4, 1, 3, 2\)"),
        ({"a": DATA, "b": LABELS, "c": LABELS}, "arrays for c: no MemoryData layer"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        feed(MEMORY, tmp_path, arrays=arrays)


def test_memory_data_without_arrays_asks_for_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no data: give arrays for a, b"):
        next(feed(MEMORY, tmp_path))


def test_memory_data_without_sizes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="channels, height and width are"):
        feed('layer { type: "MemoryData" top: "a" top: "b" memory_data_param { batch_size: 2 } }', tmp_path)


def test_feed_joins_all_data_layers_of_the_phase(tmp_path: Path) -> None:
    train_only = 'layer { name: "t" type: "Data" top: "t" include { phase: TRAIN } }'
    source = feed(hdf5() + MEMORY + INPUT + train_only, files(tmp_path, 4), arrays={"a": DATA, "b": LABELS})
    assert source.shapes == {"x": (3, 2), "l": (3,), "a": (2, 1, 3, 2), "b": (2, 1, 1, 1)}
    assert {blob: array.shape for blob, array in next(source).items()} == source.shapes


def test_net_without_data_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="has no data layer in phase test"):
        feed(INPUT, tmp_path)


def test_input_layers_are_not_sources(tmp_path: Path) -> None:
    node = build_graph(prototxt.parse(INPUT)).sources[0]
    with pytest.raises(GraphError, match="feed z yourself"):
        open_source(node, tmp_path)


def test_data_layers_of_forks_are_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"'s' \(AnnotatedData\) is not read; feed y yourself"):
        feed(hdf5() + 'layer { name: "s" type: "AnnotatedData" top: "y" }', files(tmp_path, 4))


def test_fed_net_computes(tmp_path: Path) -> None:
    import torch

    text = hdf5() + 'layer { name: "p" type: "Power" bottom: "x" top: "y" power_param { scale: 3 } }'
    (files(tmp_path, 4) / "net.prototxt").write_text(text)
    net = load(tmp_path / "net.prototxt")
    batch = next(feed(text, tmp_path))
    outputs = net({blob: torch.from_numpy(array) for blob, array in batch.items()})
    np.testing.assert_array_equal(outputs["y"].numpy(), batch["x"] * 3)
