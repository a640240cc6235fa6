"""Comparing a user's own net blob by blob with what another program computed, and naming where they part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caffe2torch.errors import FormatError, UsageError
from caffe2torch.graph import Graph, Node
from caffe2torch.net import CaffeNet
from caffe2torch.verify.case import read_arrays
from caffe2torch.verify.compare import Array, Check, claim, compare, tolerances

_SPLIT = re.compile(r"_split_\d+$")
"""Names of the copies that Caffe itself makes of a blob that several layers read."""


@dataclass(frozen=True)
class Dump:
    """What another program was given and what it computed, by blob."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    def values_for(self, graph: Graph, place: str) -> dict[str, Array]:
        """The net's input blobs; where they were not kept apart (``in:``), what the net left in them."""
        known = {**self.outputs, **self.inputs}
        missing = [blob for blob in graph.inputs if blob not in known]
        if missing:
            raise UsageError(
                f"{place} lacks the input blobs {', '.join(missing)}; it has {', '.join(known) or 'nothing'}. "
                "Save them as in:NAME (caffe2torch verify --help shows a script)"
            )
        return {blob: known[blob] for blob in graph.inputs}


def read_dump(path: Path) -> Dump:
    """An ``.npz`` of blobs, under their names or as ``in:NAME`` and ``out:NAME``; raises FormatError."""
    inputs: dict[str, Array] = {}
    outputs: dict[str, Array] = {}
    for key, array in read_arrays(path).items():
        if array.dtype.kind not in "fiub":
            raise FormatError(f"{path}: {key} holds {array.dtype}, expected numbers")
        kind, separator, blob = key.partition(":")
        if separator and kind in ("in", "out"):
            (inputs if kind == "in" else outputs)[blob] = array.astype(np.float32)
        else:
            outputs[key] = array.astype(np.float32)
    if not outputs:
        raise FormatError(f"{path}: holds no computed blobs (named as the blob, or out:NAME)")
    return Dump(inputs, outputs)


def run(net: CaffeNet, inputs: Mapping[str, Array], blobs: list[str]) -> dict[str, Array]:
    """The named blobs as our net computes them, in the order of the net."""
    given: dict[str, Tensor] = {blob: torch.from_numpy(array.copy()) for blob, array in inputs.items()}
    with torch.inference_mode():
        outputs = net.select(*blobs)(given) if blobs else {}
    return {blob: value.numpy() for blob, value in outputs.items()}


def compare_blobs(net: CaffeNet, dump: Dump, tolerance: float | None) -> list[Check]:
    """Every blob of the dump in the order in which the net completes them; the copies Caffe makes are left out."""
    graph = net.structure.graph
    order = completed(graph)
    theirs = {blob: array for blob, array in dump.outputs.items() if blob in order or not _SPLIT.search(blob)}
    blobs = sorted((blob for blob in theirs if blob in net.blob_shapes), key=lambda blob: order.get(blob, -1))
    ours = run(net, dump.values_for(graph, "the dump"), blobs)
    allowed = tolerances(graph)
    checks: list[Check] = []
    for blob in blobs:
        limit = allowed[blob] if tolerance is None else tolerance
        check = compare(blob, ours[blob], theirs[blob], limit, layer=writer_words(graph, blob))
        agreeing = {**dump.inputs, **{c.name: theirs[c.name] for c in checks if c.passed}}
        checks.append(check if check.passed or check.detail else _alone(net, check, theirs[blob], agreeing))
    strangers = [blob for blob in theirs if blob not in net.blob_shapes]
    return checks + [claim(blob, holds=False, detail="the net has no such blob") for blob in strangers]


def _alone(net: CaffeNet, check: Check, theirs: Array, agreeing: Mapping[str, Array]) -> Check:
    """The check again with the layer alone, given their own values of its bottoms, where those agreed with ours.

    A layer may enlarge a small difference of its bottoms (a sigmoid where it is steep); that is not where nets diverge.
    """
    graph = net.structure.graph
    nodes, order = writers(graph, check.name), completed(graph)
    place = order[check.name]
    if len(nodes) != 1 or place < 0:
        return check
    (node,) = nodes
    if any(blob not in agreeing or order[blob] >= place for blob in node.bottoms):
        return check
    with torch.inference_mode():
        result = net.layer(node.name)(*[torch.from_numpy(agreeing[blob]) for blob in node.bottoms])
    top = result[node.tops.index(check.name)] if isinstance(result, tuple) else result
    words = f"{check.layer}, given their bottoms"
    again = compare(check.name, top.numpy(), theirs, check.tolerance, layer=words)
    return again if again.passed else check


def completed(graph: Graph) -> dict[str, int]:
    """Blob -> position of the last layer that writes it; inputs come first."""
    return dict.fromkeys(graph.inputs, -1) | {
        blob: place for place, node in enumerate(graph.nodes) for blob in node.writes
    }


def writers(graph: Graph, blob: str) -> list[Node]:
    """The layers that write a blob: more than one when it is changed in place."""
    return [node for node in (*graph.sources, *graph.nodes) if blob in node.writes]


def writer_words(graph: Graph, blob: str) -> str:
    """``'conv1' (Convolution), then 'relu1' (ReLU) in place``."""
    names = [f"{node.name!r} ({node.type})" for node in writers(graph, blob)]
    return names[0] + "".join(f", then {name} in place" for name in names[1:]) if names else ""


def first_divergence(checks: list[Check]) -> str:
    """One sentence that names the first blob that differs, and its layer; empty when none does."""
    for check in checks:
        if not check.passed:
            made = f", made by layer {check.layer}" if check.layer else ""
            what = (
                check.detail or f"off by {check.error:.1e} of its largest magnitude, allowed are {check.tolerance:.0e}"
            )
            return f"the first to diverge is blob {check.name!r}{made}: {what}"
    return ""
