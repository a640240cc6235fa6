"""From a torch module to Caffe's files: trace, tidy up, load back, compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from caffe2torch import schema
from caffe2torch.errors import UnsupportedLayerError, UsageError
from caffe2torch.importing import lrn, ops, tidy
from caffe2torch.importing.builder import Builder
from caffe2torch.importing.check import Check, compare, random_like, reload
from caffe2torch.importing.ends import Inputs, flat, read_inputs
from caffe2torch.importing.imported import Imported, beyond
from caffe2torch.importing.place import ModuleStack, Place
from caffe2torch.importing.trace import Tracer
from caffe2torch.importing.values import PENDING, Value
from caffe2torch.net import CaffeNet

__all__ = ["ops", "to_caffe"]  # importing ops registers what converts


def to_caffe(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Tensor] | Mapping[str, Tensor],
    *,
    name: str | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    in_place: bool = True,
    round_mode: bool = False,
    tolerance: float = 1e-5,
) -> Imported:
    """Make a Caffe net of a torch module, as it computes in evaluation mode, and compare the two.

    ``example_inputs`` are what ``forward`` takes: a tensor, several, or a mapping by parameter name; their shapes are
    the net's. Layers and blobs are named after the modules' paths. ``in_place`` lets activations overwrite their
    bottoms where nobody else reads them, as people write prototxt. Where pooling rounds down, what Caffe's has more is
    cut off; ``round_mode`` writes ``round_mode: FLOOR`` instead, which neither Caffe 1.0 nor OpenCV reads.
    ``tolerance`` is the largest difference allowed, as a share of the largest value of an output.

    Raises UnsupportedLayerError that names every operation without a counterpart, with module and line; LayerError
    where the net, written and loaded back, computes something else on the example or on random input.
    """
    module = _plain(module)
    inputs = read_inputs(module, example_inputs, input_names)
    with _evaluating(module):
        builder, found = _trace(module, inputs, round_mode=round_mode)
        outputs = _finish(builder, found, output_names, inputs.examples, in_place=in_place)
        message = schema.new("NetParameter")
        message.name = type(module).__name__ if name is None else name
        for layer in builder.layers:
            message.layer.add().CopyFrom(layer.message)
        weights = {layer.message.name: layer.blobs for layer in builder.layers if layer.blobs}
        checks = _compared(module, inputs, reload(message, weights, outputs), builder.indices, tolerance)
    notes = (*builder.notes, *beyond(message))
    return Imported(message, weights, tuple(inputs.examples), outputs, checks, notes)


def _compared(
    module: nn.Module, inputs: Inputs, net: CaffeNet, rows: Mapping[str, int], tolerance: float
) -> tuple[Check, ...]:
    """Module and net on the example and on random input; the net's outputs are in the module's order."""
    checks: list[Check] = []
    for given, values in (("example", inputs.examples), ("random", random_like(inputs.examples, rows))):
        copies = {blob: value.clone() for blob, value in values.items()}
        expected = [tensor for _, tensor in flat(inputs.call(module, copies))]
        checks += compare(net, given, values, dict(zip(net.outputs, expected, strict=True)), tolerance)
    return tuple(checks)


def _plain(module: nn.Module) -> nn.Module:
    """The module itself where it is wrapped by ``torch.compile``; refuses what Python does not run."""
    nets = [path for path, child in module.named_modules() if isinstance(child, CaffeNet)]
    if nets:
        raise UsageError(
            f"{f'module {nets[0]!r}' if nets[0] else 'this'} is a Caffe net already: caffe2torch.save writes its "
            "files, and `caffe2torch convert` makes plain PyTorch of it"
        )
    inner = getattr(module, "_orig_mod", module)
    module = inner if isinstance(inner, nn.Module) else module
    compiled = [
        path
        for path, child in module.named_modules()
        if isinstance(child, torch.jit.ScriptModule)
        or hasattr(child, "_orig_mod")
        or getattr(child, "_compiled_call_impl", None) is not None
    ]
    if compiled:
        outer = [path for path in compiled if not any(path.startswith(f"{other}.") for other in compiled)]
        listed = "the module itself" if "" in outer else ", ".join(outer)
        raise UnsupportedLayerError(
            f"compiled, so that its operations cannot be seen: {listed}; give the module before "
            "torch.jit.script, torch.jit.trace or torch.compile"
        )
    return module


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


def _trace(module: nn.Module, inputs: Inputs, *, round_mode: bool) -> tuple[Builder, list[tuple[str, Value]]]:
    """The layers, and for each output its name (or none) and its value."""
    builder, modules = Builder(module, round_mode=round_mode), ModuleStack(module)
    tracer = Tracer(builder, modules)
    copies = {blob: tensor.clone() for blob, tensor in inputs.examples.items()}
    for blob, copy in copies.items():
        tracer.note(copy, builder.source(blob, tuple(copy.shape)))
    with modules.followed(), tracer:
        result = inputs.call(module, copies)
    found = []
    for name, tensor in flat(result):
        value = tracer.current(tensor)
        if value is None:
            tracer.problems.append("an output does not depend on the inputs, or in a way that no trace can see")
        elif value.pending:
            tracer.problems.append(f"an output: {PENDING[value.pending]}")
        else:
            found.append((name, value))
    if tracer.problems:
        listed = "".join(f"\n  {problem}" for problem in tracer.problems)
        raise UnsupportedLayerError(f"{type(module).__name__} cannot become a Caffe net:{listed}")
    if not found:
        raise UsageError("the module returns no tensors")
    return builder, found


def _finish(
    builder: Builder,
    found: Sequence[tuple[str, Value]],
    output_names: Sequence[str] | None,
    inputs: Mapping[str, Tensor],
    *,
    in_place: bool,
) -> tuple[str, ...]:
    """Tidy the layers up; the names of the output blobs."""
    names = _output_names(found, output_names, inputs)
    builder.place, builder.operation = Place("", "", False, False, ""), "output"
    blobs: list[str] = []
    for _, value in found:
        # A blob that is an input, or given twice, needs a second name.
        again = value.blob in blobs or value.blob in inputs
        blobs.append(builder.add("Split", [value], value.shape).blob if again else value.blob)
    layers, away = tidy.prune(builder.layers, blobs)
    if away:
        builder.notes.append(f"left out, since no output depends on them: {', '.join(away)}")
    layers = tidy.join_flatten(lrn.settle(layers, blobs), blobs)
    shorter = tidy.shorten(layers)
    blobs = [shorter.get(blob, blob) for blob in blobs]
    if in_place:
        gone = tidy.work_in_place(layers, blobs)
        blobs = [gone.get(blob, blob) for blob in blobs]
    tidy.silence(layers, blobs, builder.unique("silence"))
    wanted = {blob: name for blob, name in zip(blobs, names, strict=True) if name}
    tidy.rename(layers, wanted)
    shared = tidy.share(layers)
    if shared:
        builder.notes.append(f"shared by several layers: {', '.join(shared)}")
    builder.layers[:] = layers
    return tuple(wanted.get(blob, blob) for blob in blobs)


def _output_names(
    found: Sequence[tuple[str, Value]], given: Sequence[str] | None, inputs: Mapping[str, Tensor]
) -> list[str]:
    """The names the output blobs shall have; empty ones stay what they are, and so do all that would clash."""
    names = [name for name, _ in found] if given is None else list(given)
    named = [name for name in names if name]
    clash = len(set(named)) < len(named) or any(name in inputs for name in named)
    if given is not None and (len(names) != len(found) or len(named) < len(names) or clash):
        raise UsageError(f"output_names are {names}: expected {len(found)} different names, other than the inputs'")
    return [""] * len(names) if clash else names
