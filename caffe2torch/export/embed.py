"""The text of helper functions and classes, with the other helpers that they use."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from caffe2torch.export import helpers, helpers_flow

HELPERS: Mapping[str, Any] = {
    name: value
    for module in (helpers, helpers_flow)
    for name, value in vars(module).items()
    if getattr(value, "__module__", "") == module.__name__
}
"""All helpers by name, in the order of their files."""


@lru_cache
def _text(name: str) -> str:
    return inspect.getsource(HELPERS[name])


@lru_cache
def _uses(name: str) -> frozenset[str]:
    """The other helpers named in a helper's text."""
    found = {node.id for node in ast.walk(ast.parse(_text(name))) if isinstance(node, ast.Name)}
    return frozenset(found & HELPERS.keys()) - {name}


def embedded(wanted: Collection[str]) -> list[str]:
    """The texts of these helpers and of all they use, in the order of their files, each followed by two empty lines."""
    needed, left = set(wanted), list(wanted)
    while left:
        new = _uses(left.pop()) - needed
        needed |= new
        left += new
    return [_text(name) + "\n" for name in HELPERS if name in needed]
