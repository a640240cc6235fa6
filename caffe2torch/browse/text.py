"""Answers as a table for a person and as plain values for a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caffe2torch.browse.answers import Answer, Hit
from caffe2torch.browse.gallery import Gallery
from caffe2torch.browse.markup import printable
from caffe2torch.retrieval.codes import as_text

ORIGINS = {"hashed": "hashed now", "database": "code from the database", "codes file": "code from a codes file"}


def tables(answers: Sequence[Answer], gallery: Gallery) -> str:
    """A table for each query: rank, distance, label where known, path."""
    return "\n\n".join(_table(answer, gallery) for answer in answers)


def _table(answer: Answer, gallery: Gallery) -> str:
    query = answer.query
    label = "" if query.labels is None else f", label {printable(gallery.label_text(query.labels))}"
    lines = [f"{printable(query.name)}  ({ORIGINS[query.origin]}{label})"]
    if query.note:
        lines.append(f"note: {query.note}")
    labelled = any(hit.labels is not None for hit in answer.hits)
    refined = any(hit.feature_distance is not None for hit in answer.hits)
    rows = [("rank", "distance", *(("by feature",) if refined else ()), *(("label",) if labelled else ()), "path")]
    rows += [_row(hit, gallery, labelled, refined) for hit in answer.hits]
    numbers = 3 if refined else 2
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:{'>' if place < numbers else '<'}{widths[place]}}" for place, cell in enumerate(row[:-1])]
        lines.append("  ".join((*cells, row[-1])))
    if not answer.hits:
        lines.append("nothing within the radius; without --radius the nearest are shown, however far they are")
    elif answer.relevant is not None:
        lines.append(f"{answer.relevant} of {len(answer.hits)} share a label with the query")
    return "\n".join(lines)


def _row(hit: Hit, gallery: Gallery, labelled: bool, refined: bool) -> tuple[str, ...]:
    label = ""
    if hit.labels is not None:
        sign = {True: "+ ", False: "- ", None: ""}[hit.relevant]
        label = sign + printable(gallery.label_text(hit.labels))
    fine = (f"{hit.feature_distance:.4g}",) if refined else ()
    return (str(hit.rank), str(hit.distance), *fine, *((label,) if labelled else ()), printable(hit.name))


def to_dict(answers: Sequence[Answer], gallery: Gallery) -> dict[str, Any]:
    """All of it as JSON values."""
    return {
        "codes": str(gallery.path),
        "pictures": len(gallery),
        "bits": gallery.bits,
        "model": gallery.model_name or None,
        "queries": [_answer_dict(answer, gallery) for answer in answers],
    }


def _answer_dict(answer: Answer, gallery: Gallery) -> dict[str, Any]:
    query = answer.query
    return {
        "query": query.name,
        "origin": query.origin,
        "id": query.id,
        "labels": query.labels,
        "code": as_text(query.packed[None], gallery.bits)[0],
        "relevant": answer.relevant,
        "note": query.note or None,
        "results": [
            {
                "rank": hit.rank,
                "id": hit.id,
                "path": hit.name,
                "distance": hit.distance,
                "feature_distance": hit.feature_distance,
                "labels": hit.labels,
                "relevant": hit.relevant,
                "differing_bits": list(hit.differing),
            }
            for hit in answer.hits
        ],
    }
