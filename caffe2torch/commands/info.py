"""Show what is in a Caffe net: its layers, shapes, parameters, multiply-adds and memory, and whether weights fit.

  caffe2torch info deploy.prototxt
  caffe2torch info deploy.prototxt model.caffemodel
  caffe2torch info train_val.prototxt --phase train --input data=32,3,227,227

Everything that keeps the net from running here (unknown fields, unsupported layer types) is listed at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caffe2torch.graph import Graph, Node
    from caffe2torch.layers.registry import Layer
    from caffe2torch.net import CaffeNet

HELP = "a table of a net's layers, shapes, parameters, multiply-adds and memory"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from caffe2torch.commands.options import add_blob_option, add_match_options, add_net_options

    parser.add_argument("net", metavar="NET", help="prototxt of the net, in V0, V1 or V2 syntax")
    parser.add_argument(
        "weights", metavar="WEIGHTS", nargs="?", help=".caffemodel or .caffemodel.h5 to check against it"
    )
    add_blob_option(parser)
    add_net_options(parser)
    add_match_options(parser)
    parser.add_argument("--json", action="store_true", help="print the same facts as JSON")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from caffe2torch.commands.options import customise, input_shapes
    from caffe2torch.errors import UnsupportedLayerError
    from caffe2torch.graph import build_graph
    from caffe2torch.loading import build_net, naming
    from caffe2torch.prototxt import UnknownField, read, require_layers
    from caffe2torch.upgrade import syntax_of, upgrade_net

    path = Path(args.net)
    unknown: list[UnknownField] = []
    message = read(path, unknown=unknown, schema=customise(args))
    require_layers(message, path, unknown)
    syntax = syntax_of(message)
    shapes = input_shapes(args.input)
    with naming(path):
        net_message = upgrade_net(message, path=str(path))
        graph = build_graph(net_message, phase=args.phase, level=args.level, stages=args.stage, fed=shapes)
        graph = graph.only(args.blob) if args.blob else graph
    facts: dict[str, Any] = {"net": graph.name, "file": str(path), "syntax": syntax, "phase": graph.phase}
    facts["unknown_fields"] = [f"{f.path}:{f.line}:{f.column}: {f.name} in {f.parent}" for f in unknown]
    try:
        with naming(path):
            net = build_net(graph, path.parent, shapes)
    except UnsupportedLayerError as error:
        facts["layers"] = [{"name": n.name, "type": n.type, "tops": list(n.tops)} for n in graph.nodes]
        _print(facts, as_json=args.json)
        print(f"caffe2torch: error: {error}", file=sys.stderr)
        return 1
    facts.update(_facts(graph, net))
    if args.weights:
        facts["weights"] = _weights(net, args)
    _print(facts, as_json=args.json)
    if unknown and not args.allow_unknown:
        return 1
    return 0


def _facts(graph: Graph, net: CaffeNet) -> dict[str, Any]:
    shapes = net.blob_shapes
    rows: list[dict[str, Any]] = []
    seen: set[int] = set()
    for node, layer in net.built():
        blobs = layer.blob_items()
        own = [value for _, value in blobs if id(value) not in seen]
        seen.update(id(value) for value in own)
        rows.append(
            {
                "name": node.name,
                "type": node.type,
                "tops": list(node.tops),
                "shapes": [list(shapes[top]) for top in node.tops],
                "parameters": sum(value.numel() for value in own),
                "shared": len(own) < len(blobs),
                "multiply_adds": _multiply_adds(node, layer, shapes),
            }
        )
    return {
        "inputs": {blob: list(shape) for blob, shape in net.input_shapes.items()},
        "outputs": {blob: list(shapes[blob]) for blob in net.outputs},
        "layers": rows,
        "parameters": sum(row["parameters"] for row in rows),
        "multiply_adds": sum(row["multiply_adds"] for row in rows),
        "parameter_bytes": 4 * sum(row["parameters"] for row in rows),
        "blob_bytes": 4 * sum(_count(shape) for blob, shape in shapes.items()),
        "peak_blob_bytes": 4 * _peak(net),
    }


def _multiply_adds(node: Node, layer: Layer, shapes: dict[str, tuple[int, ...]]) -> int:
    """Of the layers whose work is a product with their weights; the others count as nothing beside them."""
    from caffe2torch.layers.mobile import ConvolutionDepthwise

    if node.type not in ("Convolution", "Deconvolution", "InnerProduct") and not isinstance(
        layer, ConvolutionDepthwise
    ):
        return 0
    weight = layer.blob_items()[0][1]
    if node.type == "InnerProduct":
        return _count(shapes[node.tops[0]]) * weight.numel() // int(node.message.inner_product_param.num_output)
    ends = zip(node.bottoms, node.tops, strict=True)
    per_place = weight.numel() // weight.shape[0]
    return sum(_count(shapes[bottom if node.type == "Deconvolution" else top]) * per_place for bottom, top in ends)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for dim in shape:
        count *= dim
    return count


def _peak(net: CaffeNet) -> int:
    """The most values alive at once while the plan runs, inputs included."""
    sizes = {blob: _count(shape) for blob, shape in net.blob_shapes.items()}
    alive = set(net.inputs)
    now = peak = sum(sizes[blob] for blob in alive)
    for step in net.plan:
        now += sum(sizes[top] for top in step.tops)
        peak = max(peak, now)
        now -= sum(sizes[top] for top in step.tops if top in alive)  # the values that were replaced
        alive.update(step.tops)
        now -= sum(sizes[blob] for blob in alive.intersection(step.free))
        alive.difference_update(step.free)
    return peak


def _weights(net: CaffeNet, args: argparse.Namespace) -> dict[str, Any]:
    from caffe2torch.caffemodel import open_weights
    from caffe2torch.loading import load_weights

    with open_weights(args.weights) as file:
        syntax, count = file.syntax, sum(1 for layer in file.layers if layer.blobs)
    report = load_weights(net, args.weights, allow_missing=args.allow_missing, ignore_extra=args.ignore_extra)
    return {
        "file": str(args.weights),
        "syntax": syntax,
        "layers": count,
        "loaded": list(report.loaded),
        "filled": list(report.filled),
        "ignored": list(report.ignored),
    }


def _print(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    print(f"{facts['net'] or '(no name)'}: {facts['file']}, {facts['syntax']} syntax, phase {facts['phase']}")
    for what in ("inputs", "outputs"):
        if what in facts:
            print(f"{what:8} " + ", ".join(f"{blob} {_dims(shape)}" for blob, shape in facts[what].items()))
    print()
    _table(facts["layers"])
    if "parameters" in facts:
        batch = next((shape[0] for shape in facts["inputs"].values() if shape), 1)
        print(
            f"\nparameters     {facts['parameters']:,} ({_bytes(facts['parameter_bytes'])})\n"
            f"multiply-adds  {facts['multiply_adds']:,} for this input, {_short(facts['multiply_adds'] / batch)} for "
            f"each of its {batch} items\n"
            f"memory         {_bytes(facts['peak_blob_bytes'])} of blobs at the peak, {_bytes(facts['blob_bytes'])} if "
            "all are kept as Caffe does (float32)"
        )
    if "weights" in facts:
        w = facts["weights"]
        print(f"\nweights        {w['file']}: {w['syntax']}, {w['layers']} layers; all that the net needs are loaded")
        for what, label in (("filled", "filled, not in the file"), ("ignored", "in the file, not in the net")):
            if w[what]:
                print(f"  {label}: {', '.join(w[what])}")
    if facts["unknown_fields"]:
        print("\nfields no schema here knows; they have no effect:")
        for line in facts["unknown_fields"]:
            print(f"  {line}")


def _table(rows: list[dict[str, Any]]) -> None:
    head = ("layer", "type", "output", "shape", "parameters", "multiply-adds")
    cells = [head]
    for row in rows:
        shapes = row.get("shapes", [])
        cells.append(
            (
                row["name"],
                row["type"],
                ", ".join(row["tops"]),
                ", ".join(_dims(s) for s in shapes),
                "shared" if row.get("shared") and not row["parameters"] else _number(row.get("parameters", 0)),
                _number(row.get("multiply_adds", 0)),
            )
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    for line in cells:
        left = [cell.ljust(width) for cell, width in zip(line[:4], widths, strict=False)]
        right = [cell.rjust(width) for cell, width in zip(line[4:], widths[4:], strict=True)]
        print("  ".join([*left, *right]).rstrip())


def _dims(shape: list[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _number(value: int) -> str:
    return f"{value:,}" if value else ""


def _short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.2f} {unit}"
    return f"{value:.0f}"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
