"""What an extraction reports when it is done."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from caffe2torch.extract.contents import Contents
from caffe2torch.extract.journal import Failure
from caffe2torch.extract.pipeline import Tally
from caffe2torch.retrieval.codes import as_text

SAMPLES = 5
DISTINCT = 1 << 17  # different codes counted exactly; more would take memory for little to say


@dataclass(frozen=True)
class Summary:
    """What an extraction did. ``images`` were listed, ``written`` rows are in ``out``, ``failed`` could not be read."""

    out: str
    features_out: str | None
    sheet: str | None
    model: str
    blob: str
    bits: int
    images: int
    written: int
    failed: int
    failures: tuple[Failure, ...]
    """The first of them."""
    ignored_files: int
    """Files in the folders that are no pictures by their names."""
    resumed_from: int
    """Rows an earlier run had done."""
    distinct: int
    """Different codes; counting ends at 2**17."""
    samples: tuple[tuple[str, str], ...]
    """The first few pictures and their codes as 0 and 1, bit 0 first."""
    device: str
    precision: str
    flipped: int
    """Bits that ``precision`` flips against float32 among the ``compared`` bits of the first pictures."""
    compared: int
    seconds: float
    """Time between the first picture and the last of this run, without loading the model."""
    rate: float
    """Pictures a second in that time."""
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def count_codes(contents: Contents) -> tuple[int, tuple[tuple[str, str], ...]]:
    """The number of different codes (up to DISTINCT), and the first few pictures with theirs."""
    seen: set[bytes] = set()
    samples: list[tuple[str, str]] = []
    for chunk in contents.chunks():
        wanted = SAMPLES - len(samples)
        if wanted > 0:
            texts = as_text(chunk.packed[:wanted], contents.bits)
            samples.extend((entry.shown, text) for entry, text in zip(chunk.entries, texts, strict=False))
        seen.update(row.tobytes() for row in chunk.packed)
        if len(seen) >= DISTINCT:
            break
    return min(len(seen), DISTINCT), tuple(samples)


def first_failures(contents: Contents, count: int = 20) -> tuple[Failure, ...]:
    """The first pictures that could not be read."""
    return tuple(islice(contents.failures(), count))


def warnings(blob: str, tally: Tally, distinct: int, written: int) -> tuple[str, ...]:
    """Signs that the codes are not what they should be."""
    found = []
    if tally.lowest < 0 or tally.highest > 1:
        found.append(
            f"values of blob {blob!r} lie between {tally.lowest:.3g} and {tally.highest:.3g}; a bit is a sigmoid "
            "above 0.5, and sigmoids lie between 0 and 1: is this the right blob?"
        )
    if written > 1 and distinct == 1:
        found.append(
            f"all {written} codes are equal: weights, mean image or preprocessing do not belong to this net, "
            "or the pictures are all the same"
        )
    return tuple(found)
