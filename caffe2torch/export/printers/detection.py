"""What of the detectors can be written down: SSD's default boxes."""

from __future__ import annotations

from caffe2torch.export import helpers
from caffe2torch.export.names import number
from caffe2torch.export.printing import Call, printer
from caffe2torch.layers.ssd import PriorBox


@printer(PriorBox)
def prior_box(layer: PriorBox, call: Call) -> str:
    image = str(layer.image) if layer.image is not None else f"{call.bottoms[1]}.shape[2:]"
    sizes = ", ".join(f"({height!r}, {width!r})" for height, width in layer.sizes)
    variances = ", ".join(number(value) for value in layer.variances)
    settings = [] if layer.step is None else [f"step=({layer.step[0]!r}, {layer.step[1]!r})"]
    settings += [f"offset={number(layer.offset)}"] * (layer.offset != 0.5) + ["clip=True"] * layer.clip
    arguments = [call.x, image, f"({sizes},)", f"({variances})", *settings]
    return f"{call.helper(helpers.prior_boxes)}({', '.join(arguments)})"
