"""What is wrong with a text, where: collected while it is parsed, raised as one error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from google.protobuf.descriptor import Descriptor

from caffe2torch.errors import PrototxtError
from caffe2torch.prototxt.hints import unknown_message

_MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class UnknownField:
    """A field that the schema's message ``parent`` lacks, and where it stands (line and column from 1)."""

    path: str
    line: int
    column: int
    name: str
    parent: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: no field {self.name!r} in {self.parent}"


class Problems:
    """The unknown fields of one text, and the syntax error that ends it, if any.

    ``tolerated`` takes the unknown fields; where it is None they are errors. A file of nothing else must not take long:
    only the first get words, and places are counted onwards from the last one.
    """

    def __init__(self, text: str, path: str, tolerated: list[UnknownField] | None) -> None:
        self._text, self._path, self._tolerated = text, path, tolerated
        self._found: list[tuple[int, str]] = []  # offset and words
        self._more = 0
        self._line, self._newline, self._counted = 1, -1, 0

    def unknown(self, start: int, name: str, descriptor: Descriptor) -> None:
        """Note the field ``name`` at the offset ``start``; calls come in the order of the text."""
        if self._tolerated is not None:
            self._line += self._text.count("\n", self._counted, start)
            self._newline = max(self._newline, self._text.rfind("\n", self._counted, start))
            self._counted = start
            self._tolerated.append(UnknownField(self._path, self._line, start - self._newline, name, descriptor.name))
        elif len(self._found) < _MAX_PROBLEMS:
            self._found.append((start, unknown_message(name, descriptor)))
        else:
            self._more += 1

    def fail(self, start: int, message: str) -> NoReturn:
        """Raise the error ``message`` at the offset ``start``, after the unknown fields found before it."""
        self._found.append((start, message))
        self._raise()

    def raise_any(self) -> None:
        """Raise what was found, if anything."""
        if self._found:
            self._raise()

    def place(self, start: int) -> tuple[int, int]:
        """Line and column, both from 1, of the offset ``start``."""
        return self._text.count("\n", 0, start) + 1, start - self._text.rfind("\n", 0, start)

    def _raise(self) -> NoReturn:
        places = [(*self.place(start), message) for start, message in self._found]
        line, column, first = places[0]
        rest = "".join(f"\n{self._path}:{row}:{place}: {message}" for row, place, message in places[1:])
        rest += f"\nand {self._more} more unknown fields" if self._more else ""
        raise PrototxtError(first + rest, path=self._path, line=line, column=column)
