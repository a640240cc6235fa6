"""How a written program is laid out: indentation, long lines, and which imports it needs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

WIDTH = 110
NESTED = 80
"""Longest assignment that is made by nesting one call in another."""

_CALLED = re.compile(r"[\w)\]]$")
_STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")


def indented(lines: Iterable[str], depth: int) -> list[str]:
    """The lines further to the right; empty ones stay empty."""
    return [f"{'    ' * depth}{line}" if line else "" for line in lines]


def wrapped(line: str, depth: int, comment: str = "") -> list[str]:
    """The line indented, with its comment; broken inside its outermost brackets where it is too long."""
    indent = "    " * depth
    tail = f"  # {comment}" if comment else ""
    if len(indent) + len(line) + len(tail) + 4 <= WIDTH:  # methods stand one level deeper
        return [f"{indent}{line}{tail}"]
    opening = re.search(r"[(\[{]", _masked(line))
    if opening is None or len(indent) + len(line) + 4 <= WIDTH:
        return [f"{indent}{line}{tail}"]
    start, stop = opening.start(), closing(line, opening.start())
    inner = split(line[start + 1 : stop])
    joined = ", ".join(inner)
    if len(indent) + len(joined) + 8 <= WIDTH:
        inside = [joined]
    elif len(inner) == 1 and line[start] == "(" and not _CALLED.search(line[:start]):
        inside = inner  # with a comma the brackets would make a tuple
    else:
        inside = [f"{part}," for part in inner]
    body = [piece for part in inside for piece in wrapped(part, depth + 1)]
    return [f"{indent}{line[: start + 1]}", *body, f"{indent}{line[stop:]}{tail}"]


def _masked(line: str) -> str:
    """The line with its string literals blanked out: they may hold brackets and commas of a stranger's."""
    return _STRING.sub(lambda match: "_" * len(match[0]), line)


def closing(line: str, start: int) -> int:
    """The index of the bracket that closes the one at ``start``."""
    code, level = _masked(line), 0
    for index in range(start, len(code)):
        level += (code[index] in "([{") - (code[index] in ")]}")
        if level == 0:
            return index
    raise ValueError(f"no bracket closes that at {start} of {line!r}")


def split(text: str) -> list[str]:
    """The arguments in ``text``, at the commas outside of brackets."""
    parts, level, start = [], 0, 0
    for index, character in enumerate(_masked(text)):
        level += (character in "([{") - (character in ")]}")
        if character == "," and level == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    return [part for part in (*parts, text[start:].strip()) if part]


def blocks(groups: Sequence[str]) -> list[str]:
    """The group of each line, with runs of fewer than three lines made one with what stands around them."""
    found: list[str] = []
    for group, run in itertools.groupby(groups):
        count = len(list(run))
        found += [group if count >= 3 else ""] * count
    return found


def imports(helpers: Sequence[str]) -> str:
    """The first lines of a program that holds these texts."""
    text = "\n".join(helpers)
    standard = ["import math\n"] if re.search(r"\bmath\.", text) else []
    return "\n".join(
        [
            "from __future__ import annotations\n",
            *standard,
            "import torch",
            "from torch import Tensor, nn",
            "from torch.nn import functional as F\n\n",
        ]
    )
