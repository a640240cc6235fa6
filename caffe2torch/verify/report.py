"""The account of a verification: lines of text, and one HTML page that needs nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from caffe2torch import __version__
from caffe2torch.files import atomic_path
from caffe2torch.verify.compare import Check, Result

LOWEST = -9.0
"""Power of ten at which an error bar begins: float32 itself ends at 1e-7."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em;
       color: #222; background: #fff }
h1 { font-size: 1.4em; margin-bottom: 0 } p { margin: .4em 0 }
table { border-collapse: collapse; width: 100%; margin-top: 1.2em }
th, td { text-align: left; padding: .22em .7em .22em 0; border-bottom: 1px solid #e4e4e4; vertical-align: top }
th { white-space: nowrap; position: sticky; top: 0; background: #fff; font-weight: 600 }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap }
td.scale { width: 24em; min-width: 12em } td.words { overflow-wrap: anywhere }
.bar { position: relative; height: .95em; margin-top: .25em; background: #f1f3f4 }
.bar i { position: absolute; left: 0; top: 0; bottom: 0; background: #3b8f5a }
.bar b { position: absolute; top: -.2em; bottom: -.2em; width: 2px; background: #222 }
tr.failed .bar i { background: #c8372d } tr.failed td.status { color: #c8372d; font-weight: 600 }
tr.skipped { color: #777 }
.axis { display: flex; justify-content: space-between; font-weight: 400; color: #666; font-size: .85em }
"""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    what: str
    status: str
    error: float | None = None
    tolerance: float | None = None
    detail: str = ""


def failure_lines(result: Result) -> list[str]:
    """One line per failure of a case: case, blob, largest error, tolerance."""
    if result.status == "failed" and not result.failures:
        return [f"FAIL {result.case}: {result.reason}"]
    return [f"FAIL {result.case} {describe(check)}" for check in result.failures]


def describe(check: Check) -> str:
    """The check in words: its blob, and its error or what is wrong with it."""
    if check.detail:
        return f"{check.name}: {check.detail}"
    return f"{check.name}: largest error {check.error:.1e}, tolerance {check.tolerance:.0e}"


def summary(results: Sequence[Result]) -> str:
    """``N passed, M failed``, and how many were skipped."""
    count = {status: sum(r.status == status for r in results) for status in ("passed", "failed", "skipped")}
    skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
    return f"{count['passed']} passed, {count['failed']} failed{skipped}"


def overview(results: Sequence[Result]) -> list[str]:
    """One line per kind of case: how many, how many comparisons, the largest error of those that passed."""
    lines = []
    for group in dict.fromkeys(_group(result) for result in results):
        mine = [result for result in results if _group(result) == group]
        checks = [(result, check) for result in mine for check in result.checks]
        line = f"{group:9} {len(mine):4} cases, {len(checks):5} comparisons"
        within = [(check.error, result.case, check.name) for result, check in checks if check.passed]
        if within:
            error, case, name = max(within)
            line += f", largest error within tolerance {error:.1e} ({case.rpartition('/')[2]} {name})"
        lines.append(line)
    return lines


def remarks(results: Sequence[Result]) -> list[str]:
    """Why cases were skipped."""
    reasons: dict[str, list[str]] = {}
    for result in results:
        if result.status == "skipped":
            reasons.setdefault(result.reason, []).append(result.case)
    lines = []
    for reason, cases in reasons.items():
        group = cases[0].partition("/")[0]
        lines.append(f"skipped: {', '.join(cases) if len(cases) < 4 else f'{len(cases)} cases of {group}'}: {reason}")
    return lines


def _group(result: Result) -> str:
    return result.case.partition("/")[0]


def case_rows(results: Iterable[Result]) -> list[Row]:
    """Failures first, each on a row of its own; then every other case with its worst comparison."""
    failed: list[Row] = []
    rest: list[Row] = []
    for result in results:
        if result.status == "failed" and not result.failures:
            failed.append(Row(result.case, "", "failed", detail=result.reason))
        failed += [check_row(check, result.case) for check in result.failures]
        if result.status != "failed":
            worst = max(result.checks, key=lambda c: c.error / c.tolerance if c.tolerance else 0.0, default=None)
            what = f"{worst.name}: worst of {len(result.checks)}" if worst else ""
            error, tolerance = (worst.error, worst.tolerance) if worst else (None, None)
            rest.append(Row(result.case, what, result.status, error, tolerance, result.reason))
    return failed + rest


def check_row(check: Check, name: str | None = None) -> Row:
    """The row of one comparison: named after its case, or after what was compared."""
    what = check.layer if name is None else check.name
    status = "passed" if check.passed else "failed"
    error, tolerance = (None, None) if check.detail else (check.error, check.tolerance)
    return Row(check.name if name is None else name, what, status, error, tolerance, check.detail)


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as text: name, error, tolerance, and DIFFERS where it does."""
    width = max((len(row.name) for row in rows), default=0)
    return [
        f"{row.name:{width}}  {_number(row.error) or '-':>8}  "
        + (f"ok  {row.what}" if row.status == "passed" else f"DIFFERS  {row.what}  {row.detail}").rstrip()
        for row in rows
    ]


def write_page(path: Path, title: str, lines: Sequence[str], rows: Sequence[Row], heads: tuple[str, str]) -> None:
    """Write the page; raises OutputError where it cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_text(_page(title, lines, rows, heads), encoding="utf-8")


def _page(title: str, lines: Sequence[str], rows: Sequence[Row], heads: tuple[str, str]) -> str:
    head = "".join(f"<p>{html.escape(line)}</p>\n" for line in lines)
    marks = "".join(f"<span>1e{power}</span>" for power in range(int(LOWEST), 1, 3))
    body = "".join(map(_row, rows))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{html.escape(title)}</h1>\n{head}"
        "<p>Errors are shares of a blob's largest magnitude. The bar is the largest error on a logarithmic scale, "
        "the black mark the tolerance.</p>\n"
        f"<table>\n<thead><tr><th>{heads[0]}</th><th>{heads[1]}</th><th>result</th><th>largest error</th>"
        f'<th>tolerance</th><th><div class="axis">{marks}</div></th></tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n'
        f"<p>caffe2torch {__version__}</p>\n</body>\n</html>\n"
    )


def _row(row: Row) -> str:
    detail = html.escape(" - ".join(filter(None, (row.what, row.detail))))
    tolerance = "" if row.tolerance is None else f"{row.tolerance:.0e}" if row.tolerance else "exact"
    numbers = "".join(f'<td class="number">{text}</td>' for text in (_number(row.error), tolerance))
    return (
        f'<tr class="{row.status}"><td>{html.escape(row.name)}</td><td class="words">{detail}</td>'
        f'<td class="status">{row.status}</td>{numbers}<td class="scale">{_bar(row)}</td></tr>\n'
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return "exact" if value == 0 else f"{value:.1e}"


def _bar(row: Row) -> str:
    if row.error is None:
        return ""
    mark = f'<b style="left:{_place(row.tolerance):.1f}%"></b>' if row.tolerance else ""
    return f'<div class="bar"><i style="width:{_place(row.error):.1f}%"></i>{mark}</div>'


def _place(value: float) -> float:
    """Per cent of the axis, which runs from 1e-9 to 1."""
    if value <= 0:
        return 0.0
    power = min(math.log10(value), 0.0) if math.isfinite(value) else 0.0
    return max(0.0, (power - LOWEST) / -LOWEST * 100)
