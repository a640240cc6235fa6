"""Where in a module a call stands: its path, and the line of the user's source."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

_OWN = str(Path(__file__).resolve().parent) + os.sep
_CALLER = _OWN + "ends.py"
"""Calls the module: what lies behind it is not the module's."""
_TORCH = str(Path(torch.__file__).resolve().parent) + os.sep


@dataclass(frozen=True)
class Place:
    """The module a call is made in."""

    path: str
    """Its name in the whole, such as ``layer1.0.conv1``; empty for the module that is traced."""
    kind: str
    leaf: bool
    """Whether it is one of torch's own modules, so that its path names the operation."""
    alone: bool
    """Whether it has no modules inside, so that its path names the operation if there is only one."""
    line: str
    """``file:line`` of the innermost line that is neither torch's nor ours; empty where there is none."""

    def __str__(self) -> str:
        named = f"module {self.path!r} ({self.kind})" if self.path else f"the module itself ({self.kind})"
        return f"{named}, {self.line}" if self.line else named


class ModuleStack:
    """The modules whose forward is running, innermost last."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.paths = {id(module): path for path, module in root.named_modules()}
        self.running: list[nn.Module] = []

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Keep the stack while modules are called inside this block."""
        with ExitStack() as hooks:
            for module in self.root.modules():
                for handle in (
                    module.register_forward_pre_hook(lambda m, _: self.running.append(m)),
                    module.register_forward_hook(lambda *_: self._leave(), always_call=True),
                ):
                    hooks.callback(handle.remove)
            yield

    def _leave(self) -> None:
        if self.running:
            self.running.pop()

    def place(self) -> Place:
        """Where the call at hand is made."""
        module = self.running[-1] if self.running else self.root
        leaf = type(module).__module__.startswith("torch.nn.")
        return Place(self.paths.get(id(module), ""), type(module).__name__, leaf, not module._modules, _line())


def _line() -> str:
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name == _CALLER:
            return ""
        if not name.startswith((_OWN, _TORCH, "<")):
            return f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
