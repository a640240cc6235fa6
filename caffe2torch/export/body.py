"""What a written class is made of before it is text: the lines of ``forward``, and the members of ``__init__``."""

from __future__ import annotations

from dataclasses import dataclass, field

from caffe2torch.export.printing import Members


@dataclass
class Line:
    """``targets = expression``, in a block of lines that belong together (``group``; empty: in none)."""

    targets: tuple[str, ...]
    expression: str
    group: str
    comment: str = ""


@dataclass
class Body:
    """A class while it is written."""

    members: Members
    lines: list[Line] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    """The group of each line of ``members``."""
