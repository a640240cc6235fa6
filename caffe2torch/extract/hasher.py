"""A model on a device: batches of preprocessed pictures in, sigmoid values (and features) out."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caffe2torch import preprocess
from caffe2torch.devices import choose_device, exact_float32
from caffe2torch.errors import GraphError, LayerError, PrototxtError, UsageError
from caffe2torch.extract.model import Model, check_blob_name
from caffe2torch.layers.imports import import_layers
from caffe2torch.loading import load
from caffe2torch.retrieval.codes import Floats, packed_width

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, eq=False)
class Output:
    """What one batch gave: (N, bits) code values before the threshold, (N, D) features or None; float32."""

    values: Floats
    features: Floats | None


class Hasher:
    """A loaded model, ready to run. ``preprocess`` and ``run`` may be called from different threads."""

    def __init__(self, model: Model, *, device: str = "auto", precision: str = "float32") -> None:
        self.device = choose_device(device)
        self.precision = precision
        if precision not in PRECISIONS:
            raise UsageError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
        for source in model.imports:
            import_layers(source)
        mean = preprocess.load_mean(model.mean) if model.mean else None
        self.preprocess = preprocess.make(model.spec, mean)
        self.unknown_fields: list[Any] = []
        try:
            net = load(
                model.net,
                model.weights,
                device=self.device,
                aliases=model.aliases,
                allow_missing=model.allow_missing,
                ignore_extra=model.ignore_extra,
                unknown_fields=self.unknown_fields if model.allow_unknown else None,
                protos=model.protos,
                outputs=None if model.blob is None else [b for b in (model.blob, model.features) if b is not None],
                image_shape=(1, *self.preprocess.shape),
            )
        except (GraphError, LayerError, PrototxtError) as error:
            if model.blob is not None:
                raise
            raise UsageError(
                f"{error}\nSay with --blob which blob holds the code: then only the layers that it needs have to run"
            ) from error
        self.report = net.report
        self.model = model = replace(model, blob=check_blob_name(model.blob, net.outputs))
        assert model.blob is not None
        self._blobs = (model.blob,) if model.features is None else (model.blob, model.features)
        self.net = net.select(*dict.fromkeys(self._blobs)).eval()
        self.bits = _width(net.blob_shapes[model.blob])
        self.feature_size = _width(net.blob_shapes[model.features]) if model.features else 0
        self._check_input()

    def _check_input(self) -> None:
        shapes = self.net.input_shapes
        if len(shapes) != 1:
            raise UsageError(
                f"{self.model.net}: pictures go into one input, this net has {len(shapes)}: {list(shapes)}"
            )
        (blob, shape), made = next(iter(shapes.items())), self.preprocess.shape
        if tuple(shape[1:]) != tuple(made):
            raise UsageError(
                f"{self.model.net}: the input {blob!r} takes {_times(shape[1:])} (channels x height x width), but the "
                f"preprocessing makes {_times(made)}; give the net's own preprocessing (--preprocess)"
            )

    @property
    def width(self) -> int:
        """Bytes of a packed code."""
        return packed_width(self.bits)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The model's files with their hashes, preprocessing and blobs."""
        return self.model.identity()

    def buffer(self, batch: int) -> Tensor:
        """An empty float32 input batch in memory from which the device copies fastest."""
        return torch.zeros((batch, *self.preprocess.shape), pin_memory=self.device.type == "cuda")

    def launch(self, batch: Tensor, *, precision: str | None = None) -> Launched:
        """Start the net on a batch; on a GPU this returns before it is done, and ``Launched.wait`` gives the output."""
        precision = precision or self.precision
        reduced = PRECISIONS[precision]
        context = nullcontext() if precision == "float32" else torch.autocast(self.device.type, dtype=reduced)
        with torch.inference_mode(), exact_float32(), context:
            outputs = self.net(batch.to(self.device, non_blocking=True))
        values = [outputs[blob].flatten(1) for blob in self._blobs]
        return Launched(values, self.device)

    def run(self, batch: Floats | Tensor, *, precision: str | None = None) -> Output:
        """(N, C, H, W) preprocessed pictures to their code values and features."""
        tensor = batch if isinstance(batch, Tensor) else torch.from_numpy(batch)
        return self.launch(tensor, precision=precision).wait()


class Launched:
    """A batch on its way through the net."""

    def __init__(self, values: list[Tensor], device: torch.device) -> None:
        with torch.inference_mode():
            self._values = [value.float().to("cpu", non_blocking=True) for value in values]
        self._event = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(device))

    def wait(self) -> Output:
        """The output, once the device has it."""
        if self._event is not None:
            self._event.synchronize()
        arrays = [np.ascontiguousarray(value.numpy()) for value in self._values]
        return Output(arrays[0], arrays[-1] if len(arrays) > 1 else None)


def _width(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[1:], dtype=np.int64))


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
