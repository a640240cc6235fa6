"""Embedding: rows of a table by number."""

from __future__ import annotations

from caffe2torch.importing.builder import Builder
from caffe2torch.importing.registry import converts
from caffe2torch.importing.values import Operand, Refused, Value, blob_of, constant


@converts("embedding", whole=True)
def embedding(
    net: Builder,
    input: Operand,
    weight: Operand,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Value:
    """Numbers travel through Caffe as floats, which are exact up to 2^24."""
    x, table = blob_of(input), constant(weight, "weight")
    if max_norm is not None:
        raise Refused("max_norm changes the table while it is read; Caffe's Embed does not")
    rows, width = table.shape
    if rows > 1 << 24:
        raise Refused(f"its table has {rows} rows; a Caffe blob holds numbers up to {1 << 24} exactly")
    net.indices[x.blob] = min(rows, net.indices.get(x.blob, rows))
    if padding_idx is not None and net.origin(table).learned:
        net.note(f"row {padding_idx} (padding_idx) gets no gradient in torch and gets one in Caffe's training")
    settings = {"input_dim": rows, "num_output": width, "bias_term": False}
    return net.add("Embed", [x], (*x.shape, width), blobs=[table], embed_param=settings)
