"""What an evaluation writes and prints: the originals' two text files, everything as JSON, and a table for a person."""

from __future__ import annotations

import json
import platform
import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from caffe2torch import __version__
from caffe2torch.errors import OutputError
from caffe2torch.evaluation.compare import CIFAR10_TEXT, Row
from caffe2torch.evaluation.run import Evaluation
from caffe2torch.files import atomic_path
from caffe2torch.retrieval.metrics import Floats
from caffe2torch.retrieval.protocol import Scores

MAP, PRECISION, SCORES = "map.txt", "precision-at-k.txt", "scores.json"
WIDTH = 100
DIVISORS = {
    "found": "the right ones among the first K (the papers' convention)",
    "all": "all right ones of the database",
    "attainable": "the smaller of K and all right ones of the database",
}
SHOWN_K = (1, 10, 100, 500, 1000, 5000, 10_000, 50_000, 100_000, 500_000, 1_000_000)


def map_text(scores: Scores) -> str:
    """``map.txt``: MATLAB's ``save -ascii`` of the number, 16 columns with seven decimals."""
    return f"{scores.map:16.7e}\n"


def precision_text(precision: Floats) -> str:
    """``precision-at-k.txt``: k and the precision among the first k, for k = 1 to K, in MATLAB's format."""
    return "".join(f"{k:16.7e}{value:16.7e}\n" for k, value in enumerate(precision.tolist(), 1))


def file_names(ks: Sequence[int]) -> list[str]:
    """Names of the text files for these K; the first one's are those of the originals."""
    more = [name for k in ks[1:] for name in (f"map-{k}.txt", f"precision-at-k-{k}.txt")]
    return [MAP, PRECISION, *more, SCORES]


def check_free(out: Path, names: Sequence[str], *, force: bool) -> None:
    """OutputError where a result would replace one that is there, unless ``force``."""
    there = [name for name in names if (out / name).exists()]
    if there and not force:
        raise OutputError(f"{out / there[0]}: exists already; --force replaces it, or give another --out")


def write(out: Path, evaluation: Evaluation, rows: Sequence[Row]) -> list[Path]:
    """The text files and the JSON; returns their paths."""
    texts = []
    for scores in evaluation.scores:
        texts += [map_text(scores), precision_text(scores.precision)]
    # Indented for reading, but the curves in one line each.
    main = json.dumps(to_dict(evaluation, rows), indent=1).removesuffix("\n}")
    curves = ",\n".join(f'  "{name}": {json.dumps(values)}' for name, values in _curves(evaluation.longest).items())
    texts.append(f'{main},\n "curves": {{\n{curves}\n }}\n}}\n')
    paths = [out / name for name in file_names([scores.k for scores in evaluation.scores])]
    for path, text in zip(paths, texts, strict=True):
        with atomic_path(path) as temporary:
            temporary.write_bytes(text.encode("utf-8"))
    return paths


def to_dict(evaluation: Evaluation, rows: Sequence[Row]) -> dict[str, Any]:
    """All but the curves as plain values: what was measured, on what, how, and the published figures beside it."""
    longest = evaluation.longest
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"caffe2torch": __version__, "python": platform.python_version(), "numpy": np.__version__},
        "queries": evaluation.queries.to_dict(),
        "database": evaluation.database.to_dict() if evaluation.database else None,
        "protocol": {
            "bits": longest.bits,
            "leave_one_out": evaluation.database is None,
            "divisor": longest.divisor,
            "radius": longest.radius,
            "text": protocol_text(evaluation),
        },
        "results": [_result(scores) for scores in evaluation.scores],
        "top1": longest.top1,
        "precision_within_radius": longest.precision_within,
        "queries_with_nothing_within_radius": longest.without_near,
        "queries_with_nothing_right": longest.without_relevant,
        "comparisons": [row.to_dict() for row in rows],
    }


def _curves(longest: Scores) -> dict[str, Any]:
    """Precision and recall among the first k, for k = 1 to the longest K."""
    found = {"precision": longest.precision.tolist(), "recall": longest.recall.tolist()}
    if longest.expected_precision is not None:
        found["expected_precision"] = longest.expected_precision.tolist()
    return found


def _result(scores: Scores) -> dict[str, Any]:
    found: dict[str, Any] = {
        "k": scores.k,
        "map": scores.map,
        "precision": float(scores.precision[-1]),
        "recall": float(scores.recall[-1]),
    }
    if scores.tied_map is not None and scores.expected_precision is not None:
        found["map_over_tie_orders"] = dict(scores.tied_map)
        found["expected_precision"] = float(scores.expected_precision[-1])
    return found


def protocol_text(evaluation: Evaluation) -> str:
    """How the figures were obtained, in one sentence."""
    longest = evaluation.longest
    if evaluation.database is None:
        answers = f"{longest.queries:,} queries, each ranking the other {longest.database:,} queries"
    else:
        answers = f"{longest.queries:,} queries against a database of {longest.database:,}"
    return (
        f"{answers}, codes of {longest.bits} bits, by Hamming distance, equal distances in list order; "
        f"AP divides by {DIVISORS[longest.divisor]}"
    )


def title(evaluation: Evaluation) -> str:
    """Above the figure."""
    longest = evaluation.longest
    answers = "the other queries" if evaluation.database is None else f"a database of {longest.database:,}"
    return f"{longest.queries:,} queries against {answers}, {longest.bits} bits"


def making_text(evaluation: Evaluation) -> str:
    """Who made the codes, as far as it is recorded."""
    made = evaluation.queries.codes.provenance
    if "model" not in made:
        return f"codes: {evaluation.queries.file}, which does not say what made them"
    form = made.get("pictures_as")
    pictures = {"lossless": " from CIFAR-10's lossless pictures", "papers": " from the papers' JPEG-coded pictures"}
    return f"codes by {made['model']}, {made.get('precision', 'float32')}{pictures.get(str(form), '')}"


def report(evaluation: Evaluation, rows: Sequence[Row], written: Sequence[Path] = ()) -> str:
    """The table for a person, the comparison with published figures, and where the files are."""
    lines = [
        *_wrapped(protocol_text(evaluation)),
        *_wrapped(making_text(evaluation)),
        "",
        *_table(evaluation, rows),
        "",
    ]
    for row in rows:
        lines += _comparison(row) if not row.elsewhere else []
    if any(row.elsewhere for row in rows):
        lines.append(f"no published figure is comparable: they are of {CIFAR10_TEXT}")
    for protocol in dict.fromkeys(row.figure.protocol.text for row in rows if row.figure and row.comparable):
        lines += _wrapped(f"protocol of the published: {protocol}")
    if written:
        lines += ["", "wrote " + ", ".join(str(path) for path in written)]
    return "\n".join(lines)


def _table(evaluation: Evaluation, rows: Sequence[Row]) -> Iterator[str]:
    """Name, ours, published and difference, one figure on each line."""
    cells = [("", "ours", "published", "difference")]
    if all(row.elsewhere for row in rows):
        cells = []
    for row in rows:
        cells.append((row.name, f"{row.ours:.7f}", *(("", "") if row.elsewhere else _published(row))))
        tied = next((s.tied_map for s in evaluation.scores if row.metric == "MAP" and s.k == row.k), None)
        if tied is not None:
            for name, text in (("expected", "mean over tie orders"), ("best", "best order"), ("worst", "worst order")):
                cells.append((f"  {text}", f"{tied[name]:.7f}", "", ""))
    longest = evaluation.longest
    cells.append(("top-1 precision", f"{longest.top1:.7f}", "", ""))
    for k in dict.fromkeys([*(k for k in SHOWN_K[2:] if k < longest.k), longest.k]):
        if k > 1:
            cells.append((f"precision@{k}", f"{longest.precision[k - 1]:.7f}", "", ""))
    cells.append((f"recall@{longest.k}", f"{longest.recall[-1]:.7f}", "", ""))
    cells.append((f"precision, radius {longest.radius}", f"{longest.precision_within:.7f}", "", ""))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *others in cells:
        texts = [f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=True)]
        yield f"{first:{widths[0]}}  {'  '.join(texts)}".rstrip()
    if longest.without_near:
        yield f"{_queries(longest.without_near)} nothing within {longest.radius} bits, counted as 0 in the last line"
    if longest.without_relevant:
        yield f"{_queries(longest.without_relevant)} no right picture in the database, counted as 0 everywhere"


def _queries(count: int) -> str:
    return "1 query has" if count == 1 else f"{count:,} queries have"


def _published(row: Row) -> tuple[str, str]:
    if row.figure is None or row.difference is None:
        return "none comparable", ""
    return row.figure.text, f"{row.difference:+.7f}".replace("-0.0000000", "0.0000000")


def _comparison(row: Row) -> list[str]:
    """Which published figure stands beside ours, and what keeps the two apart."""
    figure = row.figure
    if figure is None:
        return [f"{row.name}: nothing of the kind was published"]
    how = ", computed from released codes" if figure.origin == "computed" else ""
    note = f", {figure.note}" if figure.note else ""
    where = f"{figure.name} ({figure.source.title}{note}{how})"
    notes = "".join(f"; {note}" for note in row.notes)
    if not row.comparable:
        nearest = f"The nearest is {figure.text}, {where}, but: {'; '.join(row.differences)}{notes}"
        return _wrapped(f"{row.name}: no published figure is comparable. {nearest}")
    verdict = "ours is equal in all printed digits" if figure.equals(row.ours) else f"ours is {row.difference:+.7f} off"
    return _wrapped(f"{row.name}: {figure.text} is {where}; {verdict}{notes}")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
