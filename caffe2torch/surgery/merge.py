"""Weights of one net into another: Caffe's ``-weights``, by name and by a table of aliases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from caffe2torch.blobs import Array
from caffe2torch.caffemodel import open_weights
from caffe2torch.errors import UsageError, WeightsError
from caffe2torch.graph import near
from caffe2torch.schema import Message
from caffe2torch.surgery.model import Model, arrays_of, layer_shapes, misfit, shared_blobs
from caffe2torch.surgery.refill import refilled


def merge(
    model: Model, weights: str | os.PathLike[str], *, aliases: Mapping[str, str] | None = None, seed: int = 0
) -> Model:
    """Take the weights of every layer that a file has under the same name; ``aliases`` maps the net's names to others.

    Other layers keep theirs, or, where the model has no weights at all, start from their fillers. ``notes`` tell what
    matched and what did not. Raises WeightsError where nothing matches, and naming every layer of the same name with
    other blobs (rename it to start it anew, as with Caffe); UsageError for aliases of unknown layers.
    """
    path = Path(weights)
    shapes = layer_shapes(model)
    taken: dict[str, tuple[Array, ...]] = {}
    unused: list[str] = []
    problems: list[str] = []
    with open_weights(path) as file:
        names = _names(shapes, {source.name for source in file.layers if source.blobs}, aliases or {}, path)
        for source in file.layers:
            if not source.blobs:
                continue
            targets = [own for own, theirs in names.items() if theirs == source.name]
            unused += [] if targets else [source.name]
            for own in targets:
                problem = misfit(source, shapes[own], partial=file.syntax == "HDF5")
                if problem:
                    problems.append(f"layer {own!r}: {problem}")
                    continue
                kept = dict(enumerate((model.weights or {}).get(own, ())))
                blobs = {**kept, **arrays_of(source, shapes[own])}
                if len(blobs) != len(shapes[own]):
                    problems.append(f"layer {own!r}: the file has only some of its blobs, the others were shared there")
                    continue
                taken[own] = tuple(blobs[index] for index in range(len(blobs)))
    if problems or not taken:
        listed = "".join(f"\n  {line}" for line in problems or ["no layer of the net is in the file"])
        raise WeightsError(f"{path} cannot be merged into net {model.net.name!r}:{listed}")
    merged = _tied(model.net, {**(model.weights or {}), **taken}, taken)
    rest = [name for name in shapes if name not in taken]
    notes = [f"{path}: took {len(taken)} layers: {', '.join(taken)}"]
    notes += [f"{path}: not in the net: {', '.join(dict.fromkeys(unused))}"] if unused else []
    notes += [f"{path}: not in the file: {', '.join(rest)}"] if rest else []
    after = replace(model, weights=merged).with_notes(*notes)
    return after if model.weights is not None else refilled(model, after, seed=seed, anew=rest)


def _tied(
    net: Message, weights: Mapping[str, tuple[Array, ...]], taken: Mapping[str, tuple[Array, ...]]
) -> dict[str, tuple[Array, ...]]:
    """The weights with what was taken also in the layers that share it; the last one counts, as when loading."""
    tied = dict(weights)
    values = {name: taken[layer][index] for layer, index, name in shared_blobs(net) if layer in taken}
    for layer, index, name in shared_blobs(net):
        if name in values and layer in tied:
            blobs = list(tied[layer])
            blobs[index] = values[name].reshape(blobs[index].shape)
            tied[layer] = tuple(blobs)
    return tied


def _names(shapes: Mapping[str, object], present: set[str], aliases: Mapping[str, str], path: Path) -> dict[str, str]:
    """Name in the net -> name in the file, for all that the file has; an alias comes before the same name."""
    for own, theirs in aliases.items():
        if own not in shapes:
            raise UsageError(f"alias {own}={theirs}: the net has no layer {own!r} with weights{near(own, shapes)}")
        if theirs not in present:
            raise UsageError(f"alias {own}={theirs}: {path} has no weights for {theirs!r}{near(theirs, present)}")
    names = {own: aliases.get(own, own) for own in shapes}
    return {own: theirs for own, theirs in names.items() if theirs in present}
