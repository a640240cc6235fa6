"""Prototxt for people: what fits on a line stands on one."""

from __future__ import annotations

from caffe2torch.prototxt import to_text
from caffe2torch.schema import Message

WIDTH = 120


def readable(message: Message, comment: str) -> str:
    """``message`` as prototxt with ``comment`` above; parsing it gives an equal message."""
    lines = [f"# {line}".rstrip() for line in comment.splitlines()] + [""] * bool(comment)
    return "\n".join(lines + _folded(to_text(message).splitlines())) + "\n"


def _folded(lines: list[str]) -> list[str]:
    """Blocks that fit are joined; the printer indents by two, and a block ends with a brace at its own indent."""
    result: list[str] = []
    place = 0
    while place < len(lines):
        line = lines[place]
        if not line.endswith(" {"):
            result.append(line)
            place += 1
            continue
        indent = len(line) - len(line.lstrip())
        end = next(i for i in range(place + 1, len(lines)) if lines[i] == " " * indent + "}")
        joined = " " * indent + " ".join(part.strip() for part in lines[place : end + 1])
        if len(joined) <= WIDTH:
            result.append(joined)
        else:
            result += [line, *_packed(_folded(lines[place + 1 : end]), indent + 2), lines[end]]
        place = end + 1
    return result


def _packed(lines: list[str], indent: int) -> list[str]:
    """Short neighbours at ``indent`` on one line."""
    result: list[str] = []
    for line in lines:
        whole = len(line) - len(line.lstrip()) == indent and not line.endswith(" {") and line.strip() != "}"
        if whole and result and _joinable(result[-1], indent) and len(result[-1]) + 1 + len(line.strip()) <= WIDTH:
            result[-1] += " " + line.strip()
        else:
            result.append(line)
    return result


def _joinable(line: str, indent: int) -> bool:
    return len(line) - len(line.lstrip()) == indent and not line.endswith(" {") and line.strip() != "}"
