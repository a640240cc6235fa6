"""BatchNorm and the Scale after it as torch's one operation: a pass over memory and a blob to keep less."""

from __future__ import annotations

from dataclasses import replace

from caffe2torch.layers.norm import BatchNorm
from caffe2torch.layers.scale import Scale
from caffe2torch.net import CaffeNet, Step


def join_scales(net: CaffeNet) -> None:
    """Let each BatchNorm of the plan do the work of the Scale that comes next, where nothing else sees its top.

    The values are the same up to rounding. The Scale keeps its parameters but is not called, so hooks on it are not.
    """
    joined: list[Step] = []
    for step in net.plan:
        one = _join(net, joined[-1], step) if joined else None
        if one is None:
            joined.append(step)
        else:
            joined[-1] = one
    net.plan = tuple(joined)


def _join(net: CaffeNet, first: Step, second: Step) -> Step | None:
    """Both as one step, or None where they have to stay two."""
    norm, scale = net.get_submodule(first.module), net.get_submodule(second.module)
    if type(norm) is not BatchNorm or type(scale) is not Scale or second.bottoms != first.tops:
        return None
    per_channel = scale.weight is not None and scale.weight.shape == norm.mean.shape and scale.axis == 1
    if not per_channel or scale.bias is None:
        return None
    (between,) = first.tops
    seen = between not in (*second.tops, *second.free) or not set(first.watched) <= set(second.watched)
    if seen or first.refreshed or first.overwritten or second.refreshed or second.overwritten or any(second.detached):
        return None
    return replace(
        second,
        module=first.module,
        bottoms=first.bottoms,
        detached=first.detached,
        free=(*first.free, *(blob for blob in second.free if blob != between or blob in second.tops)),
        scale=second.module,
    )
