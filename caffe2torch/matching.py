"""Which weights of a file belong to which parameters of a net; every mismatch in one error."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from caffe2torch.caffemodel import Blob, LayerWeights, WeightsFile
from caffe2torch.errors import UsageError, WeightsError
from caffe2torch.graph import Node, near
from caffe2torch.layers.registry import Layer
from caffe2torch.net import CaffeNet
from caffe2torch.sharing import owned


@dataclass(frozen=True)
class Match:
    """The copies to make, and the layers that get none or have no place."""

    copies: tuple[tuple[Tensor, Blob], ...]
    found: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]


def match_weights(
    net: CaffeNet,
    file: WeightsFile,
    *,
    allow_missing: bool = False,
    ignore_extra: bool | Collection[str] = False,
    aliases: Mapping[str, str] | None = None,
) -> Match:
    """Match layers by name, as Caffe does, but strictly; the options are those of ``load``."""
    targets = _targets(net)
    names = _names_in_file(targets, file, aliases or {})
    copies: list[tuple[Tensor, Blob]] = []
    found: list[str] = []
    extra: list[str] = []
    problems: list[str] = []
    given: set[int] = set()
    former: list[tuple[Layer, str, Tensor]] = []
    for source in file.layers:
        name = names.get(source.name, source.name)
        if source.blobs and name not in targets and name in net.structure.graph.cut:
            continue
        if source.blobs and name not in targets:
            extra.append(source.name)
        elif source.blobs:
            node, layer = targets[name]
            before = layer.blob_items()
            layer.adapt([tuple(blob.shape) for blob in source.blobs])
            blobs = layer.blob_items()
            changed = [was.shape != now.shape for (_, was), (_, now) in zip(before, blobs, strict=True)]
            former += [(layer, *item) for item, other in zip(before, changed, strict=True) if other]
            problems += _misfit(node, blobs, source, partial=file.syntax == "HDF5")
            pairs = [(index, b) for index, b in zip(source.indices, source.blobs, strict=True) if index < len(blobs)]
            copies += [(blobs[index][1], blob) for index, blob in pairs]
            given |= {id(owned(layer, blobs[index][0])) for index, _ in pairs}
            found.append(name)
    # A blob is also given when the layer it is shared with got it.
    missing = [n for n, (_, layer) in targets.items() if not given.issuperset(_storage(layer))]
    missing = [n for n in missing if n not in found or not problems]
    refused = [n for n in extra if ignore_extra is False or (ignore_extra is not True and n not in ignore_extra)]
    if not allow_missing:
        problems += [_missing_line(*targets[n], given, refused) for n in missing]
    problems += [f"weights for layer {n!r}, which the net does not have{near(n, missing)}" for n in refused]
    if problems:
        for layer, blob, value in former:  # a file that is refused leaves the net as it was
            setattr(layer, blob, value)
        raise WeightsError(_explain(net, file, problems, bool(missing) and not allow_missing, bool(refused)))
    return Match(tuple(copies), tuple(dict.fromkeys(found)), tuple(missing), tuple(extra))


def _targets(net: CaffeNet) -> dict[str, tuple[Node, Layer]]:
    """The layers that have weights, by name."""
    targets: dict[str, tuple[Node, Layer]] = {}
    for node, layer in net.built():
        if layer.blob_items() and targets.setdefault(node.name, (node, layer))[1] is not layer:
            raise WeightsError(
                f"net {net.structure.graph.name!r} has several layers with weights named {node.name!r}; weights match "
                "by name, so Caffe would load only one of them: rename the others"
            )
    return targets


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


def _storage(layer: Layer) -> set[int]:
    return {id(owned(layer, name)) for name, _ in layer.blob_items()}


def _misfit(node: Node, blobs: Sequence[tuple[str, Tensor]], source: LayerWeights, *, partial: bool) -> list[str]:
    """What keeps these weights from this layer; ``partial`` files may leave out blobs that are shared."""
    if max(source.indices) >= len(blobs) or (len(source.blobs) != len(blobs) and not partial):
        count = max(source.indices) + 1
        return [
            f"layer {node.name!r} ({node.type}) has {len(blobs)} blobs, the weights of {source.name!r} have {count}"
        ]
    wrong = [
        f"{blobs[index][0]} is {_text(blobs[index][1].shape)} in the net, {_text(blob.shape)} in the weights"
        for index, blob in zip(source.indices, source.blobs, strict=True)
        if not fits(blob, tuple(blobs[index][1].shape))
    ]
    return [f"layer {node.name!r} ({node.type}): {'; '.join(wrong)}"] if wrong else []


def fits(blob: Blob, shape: tuple[int, ...]) -> bool:
    """Caffe's Blob::ShapeEquals: legacy 4-D headers may carry leading ones, anything else must be equal."""
    if blob.legacy and len(shape) <= 4:
        return tuple(blob.shape) == (1,) * (4 - len(shape)) + shape
    return tuple(blob.shape) == shape


def _missing_line(node: Node, layer: Layer, given: Collection[int], extra: Collection[str]) -> str:
    lacking = [(n, v) for n, v in layer.blob_items() if id(owned(layer, n)) not in given]
    shapes = ", ".join(f"{n} {_text(v.shape)}" for n, v in lacking)
    return f"no weights for layer {node.name!r} ({node.type}: {shapes}){near(node.name, extra) if extra else ''}"


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
