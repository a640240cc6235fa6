"""Draw a Caffe net as a graph of layers, with the blobs and their shapes on the arrows.

  caffe2torch draw deploy.prototxt -o net.svg      needs graphviz's `dot` on the PATH (also .png, .pdf)
  caffe2torch draw deploy.prototxt -o net.dot      the DOT text, without graphviz
  caffe2torch draw deploy.prototxt                 the DOT text on standard output

In-place layers stand below the layer whose blob they change.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caffe2torch.graph import Graph, Node

HELP = "a picture of a net (SVG, PNG, PDF or DOT)"

FORMATS = (".svg", ".png", ".pdf", ".dot")

COLOURS = {
    "Convolution": "#cfe3f7",
    "Deconvolution": "#cfe3f7",
    "InnerProduct": "#d9d2f0",
    "Pooling": "#f9dcc4",
    "LRN": "#e6efd5",
    "BatchNorm": "#e6efd5",
    "Scale": "#e6efd5",
    "Softmax": "#f7d4d9",
}
SOURCE_COLOUR, LOSS_COLOUR, OTHER_COLOUR = "#eeeeee", "#f7d4d9", "#ffffff"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from caffe2torch.commands.options import add_net_options

    parser.add_argument("net", metavar="NET", help="prototxt of the net")
    parser.add_argument("-o", "--out", metavar="FILE", help="where to write: .svg, .png, .pdf (need graphviz) or .dot")
    parser.add_argument(
        "--direction", choices=("TB", "LR"), default="TB", help="top to bottom (default) or left to right"
    )
    add_net_options(parser)


def run(args: argparse.Namespace) -> int:
    from caffe2torch.commands.options import customise, input_shapes
    from caffe2torch.errors import GraphError, LayerError, UsageError
    from caffe2torch.files import atomic_path, make_folder
    from caffe2torch.graph import build_graph
    from caffe2torch.loading import build_net, naming
    from caffe2torch.prototxt import UnknownField, read_net

    path, out = Path(args.net), Path(args.out) if args.out else None
    if out and out.suffix.lower() not in FORMATS:
        raise UsageError(f"--out {out}: expected a name that ends in one of {', '.join(FORMATS)}")
    unknown: list[UnknownField] | None = [] if args.allow_unknown else None
    message = read_net(path, unknown=unknown, schema=customise(args))
    given = input_shapes(args.input)
    with naming(path):
        graph = build_graph(message, phase=args.phase, level=args.level, stages=args.stage, fed=given)
    shapes: Mapping[str, tuple[int, ...]] = {}
    try:
        shapes = build_net(graph, path.parent, given).blob_shapes
    except (GraphError, LayerError) as error:
        print(f"caffe2torch: drawn without shapes: {error}", file=sys.stderr)
    text = dot_text(graph, shapes, direction=args.direction)
    if out is None:
        print(text, end="")
        return 0
    dot = shutil.which("dot")
    if out.suffix.lower() != ".dot" and dot is None:
        target = out.with_suffix(".dot")
        print(f"caffe2torch: graphviz (dot) is not installed; wrote the DOT text instead of {out}", file=sys.stderr)
    else:
        target = out
    make_folder(target.parent)
    with atomic_path(target) as temporary:
        if target.suffix.lower() == ".dot" or dot is None:
            temporary.write_text(text, "utf-8")
        else:
            _render(dot, text, target.suffix.lower()[1:], temporary)
    print(f"{target}: {len(graph.nodes)} layers")
    return 0


def _render(dot: str, text: str, kind: str, target: Path) -> None:
    from caffe2torch.errors import OutputError

    done = subprocess.run([dot, f"-T{kind}", "-o", str(target)], input=text.encode(), capture_output=True, check=False)
    if done.returncode:
        raise OutputError(f"graphviz could not draw the net: {done.stderr.decode(errors='replace').strip()}")


def dot_text(graph: Graph, shapes: Mapping[str, tuple[int, ...]], *, direction: str = "TB") -> str:
    """The graph in DOT; ``shapes`` may be empty."""
    lines = [
        f"digraph {_quote(graph.name or 'net')} {{",
        f'  rankdir={direction}; node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=11];',
        '  edge [fontname="Helvetica", fontsize=9, color="#666666"];',
    ]
    maker: dict[str, str] = {}
    for node in (*graph.sources, *graph.nodes):
        key = f"layer{node.index}"
        label = f"{node.name}\n{_details(node)}"
        lines.append(f"  {key} [label={_quote(label)}, fillcolor={_quote(_colour(graph, node))}];")
        for blob in dict.fromkeys(node.bottoms):
            shape = "×".join(map(str, shapes[blob])) if blob in shapes else ""
            text = f"{blob}\n{shape}" if shape else blob
            lines.append(f"  {maker[blob]} -> {key} [label={_quote(text)}];")
        maker.update(dict.fromkeys(node.tops, key))
    return "\n".join([*lines, "}"]) + "\n"


def _details(node: Node) -> str:
    """The type, and for the common layers the numbers one looks for."""
    if node.type in ("Convolution", "Deconvolution"):
        p = node.message.convolution_param
        kernel = "×".join(map(str, p.kernel_size)) or f"{p.kernel_h}×{p.kernel_w}"
        stride = f" /{p.stride[0]}" if p.stride and p.stride[0] != 1 else ""
        return f"{node.type} {p.num_output}, kernel {kernel}{stride}" + (f", group {p.group}" if p.group > 1 else "")
    if node.type == "InnerProduct":
        return f"InnerProduct {node.message.inner_product_param.num_output}"
    if node.type == "Pooling":
        p = node.message.pooling_param
        method = p.DESCRIPTOR.fields_by_name["pool"].enum_type.values_by_number[p.pool].name
        return f"Pooling {method} " + ("global" if p.global_pooling else f"{p.kernel_size or p.kernel_w} /{p.stride}")
    return node.type


def _colour(graph: Graph, node: Node) -> str:
    if node in graph.sources:
        return SOURCE_COLOUR
    return LOSS_COLOUR if "Loss" in node.type else COLOURS.get(node.type, OTHER_COLOUR)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
