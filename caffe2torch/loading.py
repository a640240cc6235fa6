"""From a prototxt and its weights to a CaffeNet, with a strict account of what matched what."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from caffe2torch.build import build
from caffe2torch.caffemodel import Blob, LayerWeights, WeightsFile, open_weights
from caffe2torch.data.shapes import input_shapes as find_input_shapes
from caffe2torch.errors import GraphError, LayerError, UsageError, WeightsError
from caffe2torch.graph import Graph, Node, build_graph, near
from caffe2torch.layers.registry import Layer
from caffe2torch.net import CaffeNet, LoadReport
from caffe2torch.prototxt import UnknownField, read_net
from caffe2torch.sharing import owned


def load(
    prototxt: str | Path,
    weights: str | Path | None = None,
    *,
    phase: str = "test",
    level: int = 0,
    stages: Sequence[str] = (),
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    allow_missing: bool = False,
    ignore_extra: bool | Collection[str] = False,
    aliases: Mapping[str, str] | None = None,
    unknown_fields: list[UnknownField] | None = None,
) -> CaffeNet:
    """Read a Caffe net (V0, V1 or V2) and its weights (``.caffemodel`` or ``.caffemodel.h5``) as a CaffeNet.

    Without ``weights`` the parameters come from the prototxt's fillers (torch's global generator). With weights every
    layer must match by name, number of blobs and shape: otherwise one WeightsError lists all differences.
    ``allow_missing`` fills layers the file lacks; ``ignore_extra`` (True, or the names to ignore) passes over layers
    the net lacks. ``aliases`` maps layer names of the net to their names in the file. ``input_shapes`` (blob -> shape)
    replaces the shapes of the prototxt and is needed for data layers whose files are not here. ``unknown_fields``
    collects prototxt fields the schema lacks instead of raising. ``net.report`` says what was loaded.
    """
    path = Path(prototxt)
    with naming(path):
        graph = build_graph(read_net(path, unknown=unknown_fields), phase=phase, level=level, stages=stages)
        net = build_net(graph, path.parent, input_shapes)
    if weights is None:
        report = fill(net)
    else:
        report = load_weights(net, weights, allow_missing=allow_missing, ignore_extra=ignore_extra, aliases=aliases)
    net.report = report
    return net.to(device=device, dtype=dtype)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the prototxt's name before what its graph or its layers are refused for."""
    try:
        yield
    except (GraphError, LayerError) as error:
        raise type(error)(f"{path}: {error}") from error


def build_net(graph: Graph, folder: Path, input_shapes: Mapping[str, Sequence[int]] | None = None) -> CaffeNet:
    """The net of a graph, its parameters uninitialised; relative paths of its data layers are below ``folder``."""
    shapes, notes = find_input_shapes(graph.sources, folder, input_shapes or {})
    for note in notes:
        warnings.warn(f"net {graph.name!r}, {note}", stacklevel=3)
    return build(graph, shapes)


def fill(net: CaffeNet, only: Collection[str] | None = None) -> LoadReport:
    """Initialise parameters with the prototxt's fillers: all layers, or ``only`` those named."""
    filled = []
    for node, layer in net.built():
        if layer.blob_items() and (only is None or node.name in only):
            with torch.no_grad():
                layer.fill(node.message)
            filled.append(node.name)
    return LoadReport(filled=tuple(filled))


def load_weights(
    net: CaffeNet,
    weights: str | Path,
    *,
    allow_missing: bool = False,
    ignore_extra: bool | Collection[str] = False,
    aliases: Mapping[str, str] | None = None,
) -> LoadReport:
    """Copy the weights of a file into the net, as :func:`load` does."""
    with open_weights(weights) as file:
        match = _match(net, file, allow_missing, ignore_extra, aliases or {})
        # Fill first: a shared parameter given under one of its layers must not be overwritten by another's filler.
        fill(net, only=match.missing)
        for layer, source in match.pairs:
            for (_, target), blob in zip(layer.blob_items(), source.blobs, strict=True):
                _copy(target, blob)
    return LoadReport(tuple(match.names), tuple(match.missing), tuple(match.extra))


@dataclass(frozen=True)
class _Match:
    pairs: list[tuple[Layer, LayerWeights]]
    names: list[str]
    missing: list[str]
    extra: list[str]


def _match(
    net: CaffeNet,
    file: WeightsFile,
    allow_missing: bool,
    ignore_extra: bool | Collection[str],
    aliases: Mapping[str, str],
) -> _Match:
    targets = {node.name: (node, layer) for node, layer in net.built() if layer.blob_items()}
    names = _names_in_file(targets, file, aliases)
    pairs: list[tuple[Layer, LayerWeights]] = []
    found: list[str] = []
    extra: list[str] = []
    problems: list[str] = []
    for source in file.layers:
        if not source.blobs:
            continue
        name = names.get(source.name, source.name)
        if name not in targets:
            extra.append(source.name)
            continue
        problem = _misfit(targets[name][0], targets[name][1], source)
        if problem:
            problems.append(problem)
        pairs.append((targets[name][1], source))
        found.append(name)
    missing = _missing(targets, found)
    refused = [n for n in extra if ignore_extra is False or (ignore_extra is not True and n not in ignore_extra)]
    if not allow_missing:
        problems += [_missing_line(n, *targets[n], refused) for n in missing]
    problems += [f"weights for layer {n!r}, which the net does not have{near(n, missing)}" for n in refused]
    if problems:
        raise WeightsError(_explain(net, file, problems, bool(missing) and not allow_missing, bool(refused)))
    return _Match(pairs, found, missing, extra)


def _names_in_file(
    targets: Mapping[str, tuple[Node, Layer]], file: WeightsFile, aliases: Mapping[str, str]
) -> dict[str, str]:
    """Name in the file -> name in the net, for the aliases that apply: those whose own name is not in the file."""
    present = {source.name for source in file.layers if source.blobs}
    names: dict[str, str] = {}
    for mine, theirs in aliases.items():
        if mine in targets and mine not in present and theirs in present:
            if theirs in names:
                raise UsageError(f"aliases give the weights of {theirs!r} to both {names[theirs]!r} and {mine!r}")
            names[theirs] = mine
    return names


def _missing(targets: Mapping[str, tuple[Node, Layer]], found: Collection[str]) -> list[str]:
    """Layers with at least one parameter that neither they nor the layer they share it with got."""
    given = {id(value) for name in found for value in _storage(targets[name][1])}
    return [
        name
        for name, (_, layer) in targets.items()
        if name not in found and any(id(value) not in given for value in _storage(layer))
    ]


def _storage(layer: Layer) -> list[Tensor]:
    return [owned(layer, name) for name, _ in layer.blob_items()]


def _misfit(node: Node, layer: Layer, source: LayerWeights) -> str:
    """What keeps these weights from this layer, or an empty string."""
    mine = layer.blob_items()
    if len(mine) != len(source.blobs):
        return (
            f"layer {node.name!r} ({node.type}) has {len(mine)} blobs, the weights of {source.name!r} have "
            f"{len(source.blobs)}"
        )
    wrong = [
        f"{name} is {_text(value.shape)} in the net, {_text(blob.shape)} in the weights"
        for (name, value), blob in zip(mine, source.blobs, strict=True)
        if not fits(blob, tuple(value.shape))
    ]
    return f"layer {node.name!r} ({node.type}): {'; '.join(wrong)}" if wrong else ""


def fits(blob: Blob, shape: tuple[int, ...]) -> bool:
    """Caffe's Blob::ShapeEquals: legacy 4-D headers may carry leading ones, anything else must be equal."""
    if blob.legacy and len(shape) <= 4:
        return tuple(blob.shape) == (1,) * (4 - len(shape)) + shape
    return tuple(blob.shape) == shape


def _copy(target: Tensor, blob: Blob) -> None:
    value = target.detach()
    if value.dtype == torch.float32 and value.device.type == "cpu" and value.is_contiguous():
        blob.read_into(value.numpy().reshape(-1))
    else:
        with torch.no_grad():
            value.copy_(torch.from_numpy(blob.read()).reshape(value.shape))


def _missing_line(name: str, node: Node, layer: Layer, extra: Collection[str]) -> str:
    shapes = ", ".join(f"{n} {_text(v.shape)}" for n, v in layer.blob_items())
    hint = near(name, extra) if len(extra) > 0 else ""
    return f"no weights for layer {name!r} ({node.type}: {shapes}){hint}"


def _explain(net: CaffeNet, file: WeightsFile, problems: Sequence[str], missing: bool, extra: bool) -> str:
    advice = []
    if missing:
        advice.append("allow_missing (--allow-missing) fills layers the file lacks from their fillers")
    if extra:
        advice.append("ignore_extra (--ignore-extra) passes over layers the net lacks")
    end = f"\n({'; '.join(advice)})" if advice else ""
    listed = "".join(f"\n  {problem}" for problem in problems)
    return f"{file.path} does not fit net {net.structure.graph.name!r}:{listed}{end}"


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
