"""The result of surgery as Caffe's files."""

from __future__ import annotations

import os
from pathlib import Path

from caffe2torch.errors import UsageError
from caffe2torch.saving import check_absent, prototxt_text, text_file, write_weights
from caffe2torch.surgery.model import Model, check_weights


def write(
    model: Model,
    net: str | os.PathLike[str],
    weights: str | os.PathLike[str] | None = None,
    *,
    syntax: str = "V2",
    force: bool = False,
) -> None:
    """Write the prototxt and, where a path is given, the weights (HDF5 for a name ending in ``.h5``).

    Both or none. Raises OutputError for files that are there already
    (``force`` replaces them), UsageError for weights that the model does not have, WeightsError for what ``syntax``
    cannot say.
    """
    targets = [Path(path) for path in (net, weights) if path is not None]
    check_absent(targets, force=force)
    if weights is not None and model.weights is None:
        raise UsageError(f"there are no weights to write to {os.fspath(weights)}; give those of the net")
    with text_file(Path(net), prototxt_text(model.net, syntax)):
        if weights is not None and model.weights is not None:
            check_weights(model)
            write_weights(Path(weights), model.net, model.weights, syntax=syntax)
