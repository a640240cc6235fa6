"""The README that goes with a converted net: three lines to use each form."""

from __future__ import annotations

from collections.abc import Sequence

from caffe2torch.export.names import words
from caffe2torch.export.source import Source


def readme(source: Source, formats: Sequence[str], *, half: bool, pictures: bool) -> str:
    """Markdown with one short program for every form that was written."""
    inputs = ", ".join(source.arguments)
    shapes = "\n".join(
        f"- {what} `{words(blob)}` {source.batch.shape_text(blob)}, float32"
        for what, blobs in (("input", source.inputs), ("output", source.outputs))
        for blob in blobs
    )
    parts = [f"# {source.class_name}\n\n{shapes}"]
    if source.preprocessing:
        taken = f"{source.picture[0]}, {source.picture[1]}" if source.picture else "height, width"
        parts.append(f"`net.preprocess(images)` makes the input of RGB pictures (N, {taken}, 3), uint8.")
    if half:
        parts.append("The weights are float16; the class in `model.py` computes in float32 until `net.half()`.")
    if "source" in formats:
        parts += _source(source, formats, inputs)
    given = "images" if pictures else inputs
    if "pt2" in formats:
        parts.append(_code("import torch", 'net = torch.export.load("model.pt2").module()', f"outputs = net({given})"))
    if "onnx" in formats:
        names = ["images"] if pictures else list(source.arguments)
        feed = ", ".join(f'"{name}": {name}' for name in names)
        parts.append(
            _code(
                "import onnxruntime",
                'session = onnxruntime.InferenceSession("model.onnx")',
                f"outputs = session.run(None, {{{feed}}})",
            )
        )
    if pictures and {"pt2", "onnx"} & set(formats):
        parts.append("`model.pt2` and `model.onnx` take RGB pictures (N, height, width, 3), uint8.")
    if source.notes:
        parts.append("Other than in Caffe:\n\n" + "\n".join(f"- {words(note)}" for note in source.notes))
    return "\n\n".join(parts) + "\n"


def _source(source: Source, formats: Sequence[str], inputs: str) -> list[str]:
    made = f"net = model.{source.class_name}().eval()"
    if "safetensors" in formats:
        load = f'{made}; net.load_state_dict(safetensors.torch.load_file("model.safetensors"))'
        return [_code("import model, safetensors.torch", load, f"output = net({inputs})")]
    if "pt" in formats:
        load = f'{made}; net.load_state_dict(torch.load("model.pt", weights_only=True))'
        return [_code("import model, torch", load, f"output = net({inputs})")]
    return []


def _code(*lines: str) -> str:
    return "```python\n" + "\n".join(lines) + "\n```"
