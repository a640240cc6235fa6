"""Names of a net made safe for Python text: identifiers for layers and blobs, and words for comments and docstrings.

Every name in a prototxt is a stranger's. It becomes part of a written program only as an identifier made here, as the
``repr`` of a string, or as text in which nothing can end a comment or a docstring.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Collection

import numpy as np

_BUILTINS = frozenset(dir(builtins)) | frozenset(keyword.kwlist) | frozenset(keyword.softkwlist)
_LONGEST = 60


class Names:
    """Gives every name of a scope an identifier that no other name of it has."""

    def __init__(self, taken: Collection[str] = ()) -> None:
        self._taken = {*taken, *_BUILTINS}
        self._given: dict[str, str] = {}

    def of(self, name: str, fallback: str) -> str:
        """The identifier of ``name``, the same at every call; ``fallback`` stands for a name without any letter."""
        if name not in self._given:
            self._given[name] = self.new(name, fallback)
        return self._given[name]

    def new(self, name: str, fallback: str) -> str:
        """An identifier like ``name`` that was not given out before."""
        base = identifier(name, fallback)
        made, number = base, 2
        while made in self._taken:
            made, number = f"{base}_{number}", number + 1
        self._taken.add(made)
        return made


def identifier(name: str, fallback: str) -> str:
    """``name`` in ASCII letters, digits and single ``_``; other characters become ``_``, and no ``_`` leads."""
    made = re.sub(r"[^0-9A-Za-z]+", "_", name)[:_LONGEST].strip("_")
    if not made:
        return fallback
    return f"{fallback}_{made}" if made[0].isdigit() else made


def class_name(name: str, taken: Collection[str] = ()) -> str:
    """A class name from the name of a net: CIFAR10_full -> CIFAR10Full, ``Net`` where nothing is left of it."""
    words = re.findall(r"[A-Za-z0-9]+", name[:_LONGEST])
    made = "".join(word[0].upper() + word[1:] for word in words)
    if not made or made[0].isdigit():
        made = f"Net{made}"
    return f"{made}Net" if made in taken or made in _BUILTINS else made


def words(text: str) -> str:
    """``text`` on one line of ASCII without anything that ends a comment or a docstring, or escapes its end."""
    return text.encode("unicode_escape").decode("ascii").replace("\\", "/").replace('"', "'")


def number(value: float) -> str:
    """The shortest text of a number that is the same float32: Caffe's settings are float32, so 0.1 stays 0.1.

    (As Python floats they would read 0.10000000149011612, and torch rounds them to float32 again.)
    """
    if value != value or value in (float("inf"), float("-inf")):
        return f'float("{value}")'
    short = float(str(np.float32(value)))
    return repr(int(short)) if short.is_integer() and abs(short) < 1e6 else repr(short)
