"""docs/layers.md: one table of all layer types, then what is to be known of each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from caffe2torch.verify import catalogue
from caffe2torch.verify.catalogue import Entry, Measured

SMALLEST = 1e-7
"""Errors below float32's own precision are all the same: they differ between processors."""

_HEAD = """\
# Layers

Every layer type that caffe2torch computes, forward and backward, in both phases. This page is made by
`caffe2torch layers --markdown docs/layers.md`; a test keeps it true.

* **Oracle**: what its values are compared with. *Caffe*: golden values computed by BVLC Caffe 1.0 (CPU, float32), which
  `caffe2torch verify` compares again on any machine; the number is how many golden nets have the layer. Layers of forks
  are compared with *OpenCV*'s own implementation where it has one, and with a plain numpy *definition* in the tests.
* **Forward, backward**: the largest error found in the golden nets, as a share of the largest magnitude of its blob.
  *exact*: below 1e-07, float32's own precision.
* Parameters are those of Caffe's messages, with their defaults. `engine` chooses between Caffe's own implementations
  and has no effect here. Fields ~~struck through~~ are refused when they are set to anything but their default.
* Every layer is captured in one graph by `torch.compile(fullgraph=True)` and by `torch.export` unless it says
  otherwise.

"""

_FEEDING = """
These read what the net is given; `caffe2torch.data.open_feed` opens their files. `transform_param` is that of Caffe
1.0: what forks added to it is refused where it would change a value.
"""


def page(measured: Mapping[str, Measured]) -> str:
    """The whole page as Markdown."""
    entries = catalogue.entries()
    parts = [_HEAD, _table(entries, measured), "\n## What feeds a net\n", _sources(measured)]
    for family in dict.fromkeys(entry.family for entry in entries):
        parts.append(f"\n## {_prose(catalogue.family_title(family)).rstrip('.')}\n")
        parts += [_section(entry) for entry in entries if entry.family == family]
    return "".join(parts)


def _table(entries: Sequence[Entry], measured: Mapping[str, Measured]) -> str:
    rows = ["| Type | Oracle | Forward | Backward |", "|---|---|---|---|"]
    for entry in sorted(entries, key=lambda entry: entry.name.casefold()):
        found = _together(entry.names, measured)
        oracle = f"Caffe, {found.cases}" if found.cases else _upper(entry.oracle)
        anchor = re.sub(r"[^\w-]", "", " ".join(entry.names).lower().replace(" ", "-"))
        name = " ".join(entry.names)
        rows.append(f"| [{name}](#{anchor}) | {oracle} | {_error(found.forward)} | {_error(found.backward)} |")
    return "\n".join(rows) + "\n"


def _together(names: Iterable[str], measured: Mapping[str, Measured]) -> Measured:
    """The figures of all names of one class."""
    found = [measured[name] for name in names if name in measured]
    forward = [m.forward for m in found if m.forward is not None]
    backward = [m.backward for m in found if m.backward is not None]
    return Measured(sum(m.cases for m in found), max(forward, default=None), max(backward, default=None))


def _error(value: float | None) -> str:
    if value is None:
        return ""
    return "exact" if value < SMALLEST or not math.isfinite(value) else f"{value:.0e}"


def _sources(measured: Mapping[str, Measured]) -> str:
    lines = [_FEEDING]
    for name in catalogue.sources():
        cases = measured[name].cases if name in measured and name != "Input" else 0
        lines.append(f"\n### {name}\n\n{_parameters(catalogue.SOURCE_FIELDS[name], frozenset())}\n")
        if cases:
            lines.append(f"\nCompared with Caffe in {cases} golden {'nets' if cases > 1 else 'net'}.\n")
        if name == "AnnotatedData":
            lines.append("\nIts databases are not read: feed its blobs yourself.\n")
    return "".join(lines)


def _section(entry: Entry) -> str:
    lines = [f"\n### {' '.join(entry.names)}\n", f"\n{_prose(entry.text)}\n"]
    if entry.messages:
        lines.append(f"\n{_parameters(entry.messages, entry.refused)}\n")
    lines += [f"\n{note}\n" for note in (*entry.notes, _prose(entry.capture)) if note]
    return "".join(lines)


def _parameters(messages: Sequence[str], refused: frozenset[str]) -> str:
    """``message``: ``field`` form, ...; refused fields struck through."""
    parts = []
    for message in messages:
        fields = []
        for name, form in catalogue.parameters(message):
            if message == "transform_param" and name not in catalogue.CAFFE_TRANSFORM:
                continue
            text = f"`{name}` {_prose(form)}"
            fields.append(f"~~{text}~~" if name in refused else text)
        parts.append(f"**{message}**: {', '.join(fields)}.")
    return "\n\n".join(parts)


def _prose(text: str) -> str:
    """A docstring as Markdown: single backticks, and no sign that Markdown would take for markup."""
    pieces = re.split(r"(``.*?``)", text)
    return "".join(
        piece[1:-1] if index % 2 else re.sub(r"([*<>|\[\]])", r"\\\1", piece) for index, piece in enumerate(pieces)
    )


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
