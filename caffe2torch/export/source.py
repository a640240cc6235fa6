"""From a CaffeNet to the text of a Python module that holds the same net as plain PyTorch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from caffe2torch import __version__
from caffe2torch.errors import UnsupportedLayerError, UsageError
from caffe2torch.export import blocks, layout, printers, printing
from caffe2torch.export.body import Body, Line
from caffe2torch.export.embed import HELPERS, embedded
from caffe2torch.export.names import Names, class_name, identifier, words
from caffe2torch.export.preprocessing import Written
from caffe2torch.export.shapes import Batch, batch_of
from caffe2torch.net import CaffeNet, Step

assert printers  # importing it registers the printers


@dataclass(frozen=True)
class Origin:
    """A file that a model was made from, for its docstring."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """A written module: its text, the class in it, and the values of that class's state dict."""

    text: str
    class_name: str
    state: dict[str, Tensor]
    arguments: tuple[str, ...]
    """Names of the inputs in the text, in the order of the net's inputs."""
    inputs: tuple[str, ...]
    results: tuple[str, ...]
    """Names of the outputs in the text, all different."""
    outputs: tuple[str, ...]
    """Blob names: one output is returned as a tensor, several as a dictionary."""
    batch: Batch
    notes: tuple[str, ...] = ()
    """What the written net does otherwise than Caffe, layer by layer."""
    preprocessing: Written | None = None

    @property
    def picture(self) -> tuple[int, int] | None:
        """(height, width) that its ``preprocess`` wants pictures to have; None: any."""
        return self.preprocessing.size if self.preprocessing else None


def write_source(net: CaffeNet, origins: Sequence[Origin] = (), preprocessing: Written | None = None) -> Source:
    """Write the net, in its test phase and with its present outputs, as one Python module.

    Raises UnsupportedLayerError naming every layer that has no printer, or the first that cannot be written exactly.
    """
    if net.phase != "test":
        raise UsageError("only nets of the test phase are written as PyTorch source; load the net with phase='test'")
    _require_printers(net)
    taken = {"torch", "nn", "F", "Tensor", "math", "self", *HELPERS}
    names, batch = Names(taken), batch_of(net)
    arguments = tuple(names.of(blob, "x") for blob in net.inputs)
    body = Body(printing.Members())
    for step in net.plan:
        _write_step(net, step, names, body, batch)
    name = class_name(net.structure.graph.name, taken)
    outputs = {blob: names.of(blob, "x") for blob in net.outputs}
    classes = blocks.gather(body, outputs.values(), {*taken, name})
    state = dict(body.members.state)
    uses = set(body.members.helpers)
    if preprocessing is not None:
        uses |= preprocessing.helpers
        state |= preprocessing.state
    text = "\n".join(
        [
            _docstring(net, batch, origins, body.members.notes),
            layout.imports(embedded(uses)),
            *embedded(uses),
            *classes,
            f"class {name}(nn.Module):",
            f'    """{words(net.structure.graph.name) or "A Caffe net"}: {_signature(net, batch)}."""\n',
            *layout.indented(_init(body, preprocessing), 1),
            "",
            *layout.indented(_forward(arguments, body, outputs), 1),
            *(layout.indented(["", *preprocessing.method], 1) if preprocessing else []),
        ]
    )
    return Source(
        text.rstrip() + "\n",
        name,
        state,
        arguments,
        net.inputs,
        tuple(outputs.values()),
        net.outputs,
        batch,
        tuple(body.members.notes),
        preprocessing,
    )


def _require_printers(net: CaffeNet) -> None:
    layers = {step.module: getattr(net, step.module) for step in net.plan}
    nodes = {net.structure.attributes[node.index]: node for node in net.structure.graph.nodes}
    lacking = [nodes[name] for name, layer in layers.items() if printing.find(layer) is None]
    if lacking:
        listed = ", ".join(f"{node.name!r} ({node.type})" for node in lacking)
        possible = _ends_without(net, {net.structure.attributes[node.index] for node in lacking})
        advice = f"--blob {' '.join(possible)}, or net.select" if possible else "--blob, or net.select"
        raise UnsupportedLayerError(
            f"no plain PyTorch form is known for the layers {listed}; choose outputs that need none of them ({advice})"
        )


def _ends_without(net: CaffeNet, modules: set[str]) -> list[str]:
    """The blobs that would be left as outputs without these layers and all that depends on them."""
    lost: set[str] = set()
    read: set[str] = set()
    made: dict[str, None] = {}
    for step in net.plan:
        if step.module in modules or not lost.isdisjoint(step.bottoms):
            lost.update(step.tops)
            continue
        read.update(blob for blob in step.bottoms if blob not in step.tops)
        made.update(dict.fromkeys(step.tops))
    return [blob for blob in made if blob not in read | lost]


def _write_step(net: CaffeNet, step: Step, names: Names, body: Body, batch: Batch) -> None:
    layer = getattr(net, step.module)
    node = next(n for n in net.structure.graph.nodes if net.structure.attributes[n.index] == step.module)
    entry = printing.find(layer)
    assert entry is not None  # _require_printers has seen to it
    shapes = net.structure.blob_shapes
    bottoms = [names.of(blob, "x") for blob in step.bottoms]
    nested = entry.nests and len(bottoms) == len(step.tops) == 1 and step.bottoms == step.tops
    call = printing.Call(
        node,
        layer,
        (_HOLE, *bottoms[1:]) if nested else tuple(bottoms),
        tuple(shapes[blob] for blob in step.bottoms),
        tuple(shapes[blob] for blob in step.tops),
        body.members,
    )
    group = _group(node.name)
    printed = entry.write(layer, call)
    body.groups += [group] * (len(body.members.lines) - len(body.groups))
    targets = tuple(names.of(blob, "x") for blob in step.tops)
    if nested:
        assert isinstance(printed, str)
        _write_nested(body, targets[0], printed, group)
    elif isinstance(printed, str):
        body.lines.append(Line(targets, printed, group))
    else:
        body.lines += [Line((t,), e, group) for t, e in zip(targets, printed, strict=True) if t != e]
    if step.tops and body.lines and body.lines[-1].targets:
        body.lines[-1].comment = " and ".join(batch.text(blob) for blob in step.tops if blob in shapes)
    for blob, top in step.refreshed:
        name = names.of(blob, "x")
        body.lines.append(Line((name,), f"{names.of(top, 'x')}.reshape({name}.shape)", group))


_HOLE = "\0"
"""Stands for the bottom while a layer in place is printed; a net's names never hold it, since they are identifiers."""


_NAME = 8
"""Letters that a name counts for in a group."""

_RESIDUAL = re.compile(r"(?:res|bn|scale)([0-9]+[a-z][0-9]*)(?:_.*)?")
"""Names of layers in a ResNet: res2a_branch2a, bn2a_branch2a, scale2a_branch2a, res2a."""


def _write_nested(body: Body, target: str, printed: str, group: str) -> None:
    """A layer in place: around the expression of the line before, where that made the same blob and is short."""
    before = body.lines[-1] if body.lines else None
    if before and before.targets == (target,) and before.group in ("", group) and _nestable(printed):
        whole = printed.replace(_HOLE, before.expression)
        if _length(whole, group) + _length(target, group) <= layout.NESTED:
            before.expression = whole
            return
    body.lines.append(Line((target,), printed.replace(_HOLE, target), group))


def _length(text: str, group: str) -> int:
    """How long a text is; in a group as if all names were equally long, so that groups that are alike stay so."""
    return len(re.sub(r"[A-Za-z_]\w*", "a" * _NAME, text) if group else text)


def _nestable(printed: str) -> bool:
    return printed.count(_HOLE) == 1 and re.search(r"\(\0[,)]", printed) is not None


def _group(name: str) -> str:
    """The block a layer belongs to, told by its name: inception_3a/1x1 -> inception_3a, bn2a_branch1 -> res2a."""
    residual = _RESIDUAL.fullmatch(name)
    if residual:
        return identifier(f"res{residual[1]}", "")
    head, slash, _ = name.rpartition("/")
    return identifier(head.split("/")[0], "") if slash else ""


def _docstring(net: CaffeNet, batch: Batch, origins: Sequence[Origin], notes: Sequence[str]) -> str:
    name = words(net.structure.graph.name)
    lines = [f'"""{name or "A Caffe net"} as plain PyTorch.', ""]
    for what, blobs in (("Input", net.inputs), ("Output", net.outputs)):
        lines += [f"{what + ':':8}{words(blob)} {batch.shape_text(blob)}, float32" for blob in blobs]
    if len(net.outputs) > 1:
        lines.append("Several outputs come as a dictionary, by the names of Caffe's blobs.")
    lines += ["", f"Written by caffe2torch {__version__}" + (" from" if origins else ".")]
    lines += [f"  {words(origin.name)}, sha256 {words(origin.sha256)}" for origin in origins]
    if notes:
        lines += ["", "Other than in Caffe:"] + [f"  {words(note)}" for note in notes]
    return "\n".join([*lines, '"""', ""])


def _signature(net: CaffeNet, batch: Batch) -> str:
    ends = [", ".join(f"{words(b)} {batch.shape_text(b)}" for b in blobs) for blobs in (net.inputs, net.outputs)]
    return f"{ends[0] or 'nothing'} -> {ends[1]}"


def _init(body: Body, preprocessing: Written | None) -> list[str]:
    lines = ["def __init__(self) -> None:", "    super().__init__()"]
    groups = layout.blocks(body.groups)
    for index, (line, group) in enumerate(zip(body.members.lines, groups, strict=True)):
        lines += [""] * (index > 0 and group != groups[index - 1])
        lines += layout.wrapped(line, 1)
    lines += [f"    {line}" for line in (preprocessing.members if preprocessing else ())]
    return lines


def _forward(arguments: Sequence[str], body: Body, outputs: dict[str, str]) -> list[str]:
    inputs = "".join(f", {name}: Tensor" for name in arguments)
    result = "Tensor" if len(outputs) == 1 else "dict[str, Tensor]"
    lines = layout.wrapped(f"def forward(self{inputs}) -> {result}:", 0)
    shape = ""
    groups = layout.blocks([line.group for line in body.lines])
    for index, (line, group) in enumerate(zip(body.lines, groups, strict=True)):
        lines += [""] * (index > 0 and group != groups[index - 1])
        comment = line.comment if line.comment != shape else ""
        shape = line.comment or shape
        left = ", ".join(line.targets)
        lines += layout.wrapped(f"{left} = {line.expression}" if left else line.expression, 1, comment)
    if len(outputs) == 1:
        return [*lines, f"    return {next(iter(outputs.values()))}"]
    pairs = ", ".join(f"{quoted(blob)}: {name}" for blob, name in outputs.items())
    return [*lines, *layout.wrapped(f"return {{{pairs}}}", 1)]


def quoted(name: str) -> str:
    """A string literal that is ``name``, in ASCII."""
    return f'"{name}"' if re.fullmatch(r"[A-Za-z0-9_./ -]*", name) else ascii(name)


def namespace(source: Source, replaced: Mapping[str, object] | None = None) -> type[torch.nn.Module]:
    """The class of a written module, by running its text; ``replaced`` gives other functions for its helpers."""
    scope: dict[str, object] = {"__name__": "model"}
    exec(compile(source.text, "model.py", "exec"), scope)
    scope.update({name: value for name, value in (replaced or {}).items() if name in scope})
    made = scope[source.class_name]
    assert isinstance(made, type)
    assert issubclass(made, torch.nn.Module)
    return made
