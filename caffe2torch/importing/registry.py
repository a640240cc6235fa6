"""The table from the names of torch's functions to what makes layers of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Converter:
    """A function with the signature of torch's, behind the builder it adds layers to."""

    function: Callable[..., Any]
    signature: inspect.Signature
    takes: frozenset[str]
    """Which kinds of pending things (``Value.pending``) it does in passing."""
    whole: bool
    """It does with whole numbers (and truth values) what it does with floats."""


_table: dict[str, Converter] = {}
_refused: dict[str, str] = {}


def converts(*names: str, takes: Collection[str] = (), whole: bool = False) -> Callable[[F], F]:
    """Decorator: this function makes layers of the calls of torch's functions and methods of these names.

    It takes the builder and then what torch's function takes, under torch's names; it returns a Value (a tuple or list
    of them where torch does) or raises Refused.
    """

    def add(function: F) -> F:
        converter = Converter(function, inspect.signature(function), frozenset(takes), whole)
        for name in names:
            _table[name] = converter
        return function

    return add


def refuses(reason: str, *names: str) -> None:
    """Say why the functions of these names have no counterpart."""
    _refused.update(dict.fromkeys(names, reason))


def find(name: str) -> Converter | None:
    """What converts calls of this name."""
    return _table.get(name)


def reason(name: str) -> str:
    """Why calls of this name are refused."""
    return _refused.get(name, "Caffe has no layer for it")


def names() -> tuple[str, ...]:
    """All names that are converted, sorted."""
    return tuple(sorted(_table))
