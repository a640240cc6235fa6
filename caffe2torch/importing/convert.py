"""From a torch module to Caffe's files."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from caffe2torch import schema
from caffe2torch.blobs import Array
from caffe2torch.errors import UnsupportedLayerError, UsageError
from caffe2torch.importing import ops, tidy
from caffe2torch.importing.builder import Builder
from caffe2torch.importing.check import Check, compare, random_like, reload
from caffe2torch.importing.place import ModuleStack
from caffe2torch.importing.trace import Tracer, follow_unseen
from caffe2torch.importing.values import Value
from caffe2torch.net import CaffeNet
from caffe2torch.prototxt import to_text
from caffe2torch.saving import check_absent, prototxt_text, write_text, write_weights
from caffe2torch.schema import Message

__all__ = ["Imported", "ops", "to_caffe"]

BEYOND = {
    **dict.fromkeys(("Clip", "Swish"), "BVLC Caffe of 2018 and later"),
    **dict.fromkeys(("Permute",), "SSD's Caffe"),
    **dict.fromkeys(("ReLU6", "HSwish", "HSigmoid", "ShuffleChannel"), "forks for mobile nets"),
}
"""Layer types that BVLC Caffe 1.0 lacks, and what has them."""


@dataclass(frozen=True)
class Imported:
    """A Caffe net made of a module, and how far it is from it."""

    message: Message
    """The NetParameter (V2)."""
    weights: Mapping[str, Sequence[Array]]
    """Layer name -> arrays."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    """Blobs, in the order in which the module takes and gives them."""
    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    """What the user has to know: what was left out, and which layers not every Caffe has."""

    @property
    def difference(self) -> float:
        """The largest difference found, as a share of the largest value of its output."""
        return max(check.relative for check in self.checks)

    @property
    def prototxt(self) -> str:
        """The net as text."""
        return to_text(self.message)

    def net(self) -> CaffeNet:
        """The Caffe net as a module, with the module's outputs."""
        return reload(self.message, self.weights, self.outputs)

    def save(
        self,
        prototxt: str | os.PathLike[str],
        weights: str | os.PathLike[str] | None = None,
        *,
        syntax: str = "V2",
        force: bool = False,
    ) -> None:
        """Write the prototxt and the weights (HDF5 for a name ending in ``.h5``); OutputError where one is there."""
        targets = [Path(path) for path in (prototxt, weights) if path is not None]
        check_absent(targets, force=force)
        text = prototxt_text(self.message, syntax)
        write_text(targets[0], text)
        if weights is not None:
            write_weights(targets[1], self.message, self.weights, syntax=syntax)


def to_caffe(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Tensor] | Mapping[str, Tensor],
    *,
    name: str | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    in_place: bool = True,
    tolerance: float = 1e-5,
) -> Imported:
    """Make a Caffe net of a torch module, as it computes in evaluation mode, and compare the two.

    ``example_inputs`` are what ``forward`` takes: a tensor, several, or a mapping by parameter name; the shapes become
    the net's. Blobs and layers are named after the modules' paths. ``in_place`` lets activations overwrite their
    bottoms where nobody else reads them, as people write prototxt. ``tolerance`` is the largest difference allowed, as
    a share of the largest value of an output.

    Raises UnsupportedLayerError that names every operation without a counterpart, with module and line; LayerError
    where the net, loaded back, computes something else on the example or on random input.
    """
    inputs = _named_inputs(module, example_inputs, input_names)
    builder, modules = Builder(module), ModuleStack(module)
    tracer = Tracer(builder, modules)
    with _evaluating(module):
        sources = {key: builder.source(blob, tuple(x.shape)) for key, (blob, x) in inputs.items()}
        copies = {key: x.detach().clone() for key, (_, x) in inputs.items()}
        for key, copy in copies.items():
            tracer.note(copy, sources[key])
        result = _run(module, copies, tracer, modules, example_inputs)
        found = _outputs(result, tracer)
        if tracer.problems:
            listed = "".join(f"\n  {problem}" for problem in tracer.problems)
            raise UnsupportedLayerError(f"{type(module).__name__} has operations that Caffe has not:{listed}")
        outputs = _finish(builder, found, output_names, sources, in_place=in_place)
        message = schema.new("NetParameter")
        message.name = type(module).__name__ if name is None else name
        for layer in builder.layers:
            message.layer.add().CopyFrom(layer.message)
        weights = {layer.message.name: layer.blobs for layer in builder.layers if layer.blobs}
        net = reload(message, weights, outputs)
        examples = {key: x.detach() for key, (_, x) in inputs.items()}
        rows = {key: builder.indices[v.blob] for key, v in sources.items() if v.blob in builder.indices}
        checks: list[Check] = []
        for given, values in (("example", examples), ("random", random_like(examples, rows))):
            expected = [x for _, x in _flat(_call(module, values, example_inputs))]
            blobs = {sources[key].blob: x for key, x in values.items()}
            checks += compare(net, given, blobs, dict(zip(outputs, expected, strict=True)), tolerance)
    notes = (*builder.notes, *_beyond(message))
    return Imported(message, weights, tuple(v.blob for v in sources.values()), outputs, tuple(checks), notes)


def _named_inputs(module: nn.Module, given: Any, names: Sequence[str] | None) -> dict[str, tuple[str, Tensor]]:
    """Argument -> (blob, tensor); arguments by position are ``0``, ``1``, ..."""
    if isinstance(given, Tensor):
        given = (given,)
    if isinstance(given, Mapping):
        items = {str(key): value for key, value in given.items()}
        default = list(items)
    else:
        items = {str(index): value for index, value in enumerate(given)}
        default = ["data"] if len(items) == 1 else _parameters(module, len(items))
    if not items:
        raise UsageError("to_caffe needs at least one example input")
    blobs = list(default if names is None else names)
    if len(blobs) != len(items) or len(set(blobs)) != len(blobs):
        raise UsageError(f"input_names are {blobs}: expected {len(items)} different names")
    for key, value in items.items():
        if not isinstance(value, Tensor):
            raise UsageError(f"example input {key} is a {type(value).__name__}, expected a tensor")
        if value.dtype.is_complex or value.dtype in (torch.float64, torch.float16, torch.bfloat16):
            raise UsageError(
                f"example input {key} is {value.dtype}; a Caffe blob is float32: give x.float(), and the module too"
            )
        if value.device.type == "meta" or not value.numel():
            raise UsageError(f"example input {key} of shape {tuple(value.shape)} has no values")
    return dict(zip(items, zip(blobs, items.values(), strict=True), strict=True))


def _parameters(module: nn.Module, count: int) -> list[str]:
    """The names of forward's first parameters; ``data0``, ... where it takes any number."""
    names = [
        p.name
        for p in inspect.signature(module.forward).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return names[:count] if len(names) >= count else [f"data{index}" for index in range(count)]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module has its own mode again."""
    modes = [(child, child.training) for child in module.modules()]
    try:
        with torch.inference_mode(mode=False), torch.no_grad():
            module.eval()
            yield
    finally:
        for child, mode in modes:
            child.training = mode


def _call(module: nn.Module, values: Mapping[str, Tensor], given: Any) -> Any:
    return module(**values) if isinstance(given, Mapping) else module(*values.values())


def _run(module: nn.Module, values: Mapping[str, Tensor], tracer: Tracer, modules: ModuleStack, given: Any) -> Any:
    hooks = follow_unseen(tracer, module)
    try:
        with modules.followed(), tracer:
            return _call(module, values, given)
    finally:
        for hook in hooks:
            hook.remove()


def _flat(result: Any, name: str = "") -> list[tuple[str, Tensor]]:
    """The tensors of a result, each with the name it has in a mapping or a named tuple (empty in a plain one)."""
    if isinstance(result, Tensor):
        return [(name, result)]
    if result is None:
        return []
    if isinstance(result, Mapping):
        pairs = [(str(key), value) for key, value in result.items()]
    elif isinstance(result, tuple) and hasattr(result, "_fields"):
        pairs = list(zip(result._fields, result, strict=True))
    elif isinstance(result, list | tuple):
        pairs = [("", value) for value in result]
    else:
        raise UsageError(f"the module returns a {type(result).__name__}; expected tensors, alone or in a tuple or dict")
    return [found for key, value in pairs for found in _flat(value, f"{name}.{key}" if name and key else key or name)]


def _outputs(result: Any, tracer: Tracer) -> list[tuple[str, Value]]:
    flat = _flat(result)
    if not flat:
        raise UsageError("the module returns no tensors")
    found = []
    for name, tensor in flat:
        value = tracer.current(tensor)
        if value is None:
            tracer.problems.append("an output does not depend on the inputs, or on them in a way no trace can see")
        elif value.pad:
            tracer.problems.append("an output is padded with zeros, which Caffe does inside a convolution only")
        else:
            found.append((name, value))
    return found


def _finish(
    builder: Builder,
    found: Sequence[tuple[str, Value]],
    output_names: Sequence[str] | None,
    sources: Mapping[str, Value],
    *,
    in_place: bool,
) -> tuple[str, ...]:
    """Tidy the layers up; the names of the output blobs."""
    if output_names is not None and (len(output_names) != len(found) or len(set(output_names)) != len(found)):
        raise UsageError(f"output_names are {list(output_names)}: expected {len(found)} different names")
    inputs = {value.blob for value in sources.values()}
    blobs: list[str] = []
    builder.place, builder.operation = builder.place.__class__("", "", False, ""), "output"
    for _, value in found:
        again = value.blob in blobs or value.blob in inputs
        blobs.append(builder.add("Split", [value], value.shape).blob if again else value.blob)
    layers, away = tidy.prune(builder.layers, blobs)
    if away:
        builder.notes.append(f"left out, since no output depends on them: {', '.join(away)}")
    layers = tidy.join_flatten(layers, blobs)
    if in_place:
        tidy.work_in_place(layers, blobs)
    tidy.silence(layers, blobs, builder.unique("silence"))
    wanted = [name for name, _ in found] if output_names is None else list(output_names)
    names = {blob: name for blob, name in zip(blobs, wanted, strict=True) if name}
    if len(set(names.values())) == len(names) and not inputs.intersection(names.values()):
        tidy.rename(layers, names)
        blobs = [names.get(blob, blob) for blob in blobs]
    elif output_names is not None:
        raise UsageError(f"output_names are {list(output_names)}, and the inputs are {', '.join(sorted(inputs))}")
    shared = tidy.share(layers)
    if shared:
        builder.notes.append(f"shared by several layers: {', '.join(shared)}")
    builder.layers[:] = layers
    return tuple(blobs)


def _beyond(message: Message) -> list[str]:
    notes = []
    for kind, where in BEYOND.items():
        layers = [layer.name for layer in message.layer if layer.type == kind]
        if layers:
            notes.append(f"{kind} is a layer of {where}: {', '.join(layers)}")
    floor = [layer.name for layer in message.layer if layer.type == "Pooling" and layer.pooling_param.round_mode == 1]
    if floor:
        notes.append(f"round_mode FLOOR is a setting of BVLC Caffe of 2018 and later: {', '.join(floor)}")
    return notes
