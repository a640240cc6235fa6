"""Whether two sets of codes may be compared: as many bits, and made by one and the same model."""

from __future__ import annotations

from caffe2torch.errors import RetrievalError
from caffe2torch.retrieval.codes import Codes

DECISIVE = (
    "net_sha256",
    "weights_sha256",
    "mean_sha256",
    "custom_sha256",
    "preprocessing",
    "exif",
    "blob",
    "threshold",
)
"""What of the provenance decides the bits. Paths, dates, devices and versions may differ."""
SHOWN = 60


def check_comparable(
    queries: Codes,
    database: Codes,
    *,
    names: tuple[str, str] = ("the queries", "the database"),
    any_model: bool = False,
) -> None:
    """Raise RetrievalError, with every reason, where distances between the two would mean nothing.

    Codes without provenance (MATLAB's, .csv) are taken as they are; ``any_model`` takes all that have equal length.
    """
    if queries.bits != database.bits:
        raise RetrievalError(
            f"{names[0]} are codes of {queries.bits} bits, {names[1]} of {database.bits}: they are of different models"
        )
    first, second = queries.provenance, database.provenance
    reasons = [
        f"{key} {str(first[key])[:SHOWN]} against {str(second[key])[:SHOWN]}"
        for key in DECISIVE
        if key in first and key in second and first[key] != second[key]
    ]
    if reasons and not any_model:
        raise RetrievalError(
            f"{names[0]} and {names[1]} were not made by one and the same model, so their codes cannot be compared: "
            + "; ".join(reasons)
        )
