"""What is wrong with a text, where: collected while it is parsed, raised as one error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from google.protobuf.descriptor import Descriptor

from caffe2torch.errors import PrototxtError
from caffe2torch.prototxt.hints import hint_for

_MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class UnknownField:
    """A field that the schema's message ``parent`` lacks, and where it stands (line and column from 1)."""

    path: str
    line: int
    column: int
    name: str
    parent: str
    layer: str | None = field(default=None, compare=False)
    """Name of the layer it is in; None outside of layers."""
    occurrence: int = field(default=0, compare=False)
    """How many layers before that one have its name."""
    hint: str = field(default="", compare=False)
    """What may have been meant."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.problem}"

    @property
    def problem(self) -> str:
        """What is wrong, without the place."""
        return f"no field {self.name!r} in {self.parent}"


def refusal(found: Sequence[UnknownField], end: str = "", *, more: int = 0) -> PrototxtError:
    """The error for unknown fields, one or more, and ``more``; ``end`` follows them, on lines of its own."""
    first, *rest = found[:_MAX_PROBLEMS]
    lines = "".join(f"\n{one}{one.hint}" for one in rest)
    left = len(found[_MAX_PROBLEMS:]) + more
    others = f"\nand {left} more unknown fields" if left else ""
    return PrototxtError(
        f"{first.problem}{first.hint}{lines}{others}{end}", path=first.path, line=first.line, column=first.column
    )


class Problems:
    """The unknown fields of one text, and the syntax error that ends it, if any.

    ``tolerated`` takes the unknown fields; where it is None they are errors. A file of nothing else must not take long:
    only the first get hints, and places are counted onwards from the last one.
    """

    def __init__(self, text: str, path: str, tolerated: list[UnknownField] | None) -> None:
        self._text, self._path = text, path
        self._strict = tolerated is None
        self._found: list[UnknownField] = [] if tolerated is None else tolerated
        self._hints, self._more = _MAX_PROBLEMS, 0
        self._line, self._newline, self._counted = 1, -1, 0

    def unknown(self, start: int, name: str, descriptor: Descriptor) -> None:
        """Note the field ``name`` at the offset ``start``; calls come in the order of the text."""
        if self._strict and len(self._found) == _MAX_PROBLEMS:
            self._more += 1
            return
        self._line += self._text.count("\n", self._counted, start)
        self._newline = max(self._newline, self._text.rfind("\n", self._counted, start))
        self._counted = start
        hint = hint_for(name, descriptor) if self._hints > 0 else ""
        self._hints -= 1
        place = self._line, start - self._newline
        self._found.append(UnknownField(self._path, *place, name, descriptor.name, hint=hint))

    def count(self) -> int:
        """How many unknown fields there are so far."""
        return len(self._found)

    def name_layer(self, first: int, layer: str, occurrence: int) -> None:
        """Say of the unknown fields from the ``first`` on that they are in this layer."""
        self._found[first:] = [replace(one, layer=layer, occurrence=occurrence) for one in self._found[first:]]

    def fail(self, start: int, message: str) -> NoReturn:
        """Raise the error ``message`` at the offset ``start``, after the unknown fields found before it."""
        line, column = self.place(start)
        if self._strict and self._found:
            raise refusal(self._found, f"\n{self._path}:{line}:{column}: {message}", more=self._more)
        raise PrototxtError(message, path=self._path, line=line, column=column)

    def raise_any(self) -> None:
        """Raise what was found, if anything."""
        if self._strict and self._found:
            raise refusal(self._found, more=self._more)

    def place(self, start: int) -> tuple[int, int]:
        """Line and column, both from 1, of the offset ``start``."""
        return self._text.count("\n", 0, start) + 1, start - self._text.rfind("\n", 0, start)
