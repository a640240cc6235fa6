"""HTML put together so that no text can become markup by accident."""

from __future__ import annotations

import html
from collections.abc import Iterable


class Markup(str):
    """Text that is HTML already; every other string is escaped before it becomes part of one."""

    __slots__ = ()


def markup(template: str, *values: object, **named: object) -> Markup:
    """``template.format(...)`` with each value escaped, unless it is Markup."""
    return Markup(template.format(*map(_safe, values), **{name: _safe(value) for name, value in named.items()}))


def joined(parts: Iterable[Markup]) -> Markup:
    """The parts one after the other, a line each."""
    return Markup("\n".join(parts))


def _safe(value: object) -> str:
    return value if isinstance(value, Markup) else html.escape(printable(str(value)))


def printable(text: str) -> str:
    r"""The text with control characters, reordering marks and bytes that are no UTF-8 written as ``\x1b``, ``\u202e``.

    Names of files may hold anything; on a terminal or a page they must neither act nor fail to be written.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
