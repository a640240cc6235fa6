"""Whether two sets of codes may be compared: as many bits, and made by one and the same model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caffe2torch.errors import RetrievalError
from caffe2torch.retrieval.codes import Codes

DECISIVE = {
    "net_sha256": "the net",
    "weights_sha256": "the weights",
    "mean_sha256": "the mean image",
    "custom_sha256": "the files of the fork",
    "preprocessing": "the preprocessing",
    "exif": "turning by EXIF orientation",
    "blob": "the blob with the code",
    "threshold": "the threshold",
}
"""What of the provenance decides the bits, and how to say it. Paths, dates, devices and versions may differ."""
SHOWN = 80


def differences(first: Mapping[str, Any], second: Mapping[str, Any], keys: Mapping[str, str] = DECISIVE) -> list[str]:
    """What decides the codes and differs between two provenances, in words; what one of them lacks is not compared."""
    return [
        f"{words} ({key} {' against '.join(_shown(first[key], second[key]))})"
        for key, words in keys.items()
        if key in first and key in second and first[key] != second[key]
    ]


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
    reasons = differences(queries.provenance, database.provenance)
    if reasons and not any_model:
        raise RetrievalError(
            f"{names[0]} and {names[1]} were not made by one and the same model, so their codes cannot be compared: "
            + "; ".join(reasons)
        )


def _shown(first: Any, second: Any) -> tuple[str, str]:
    """Two different values, not too long; of settings by name only those that differ."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        keys = [
            key for key in {**first, **second} if (key in first, first.get(key)) != (key in second, second.get(key))
        ]
        first, second = ({key: one[key] for key in keys if key in one} for one in (first, second))
    return _short(str(first)), _short(str(second))


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
