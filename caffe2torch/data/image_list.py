"""ImageData layers: batches from a list of picture files with labels.

A line is a name, a space and a whole number; the name may hold spaces. As in Caffe the label is what C's atoi makes of
the text after the last space: digits count up to the first other character, and a text without digits is 0.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from caffe2torch.data.datum import to_record
from caffe2torch.data.draws import Draws
from caffe2torch.data.examples import Example, ExampleSource, ListedRows
from caffe2torch.data.picture import read_picture
from caffe2torch.data.source import Source, batch_size, check_tops
from caffe2torch.data.transform import Transform, place
from caffe2torch.errors import FormatError, GraphError
from caffe2torch.schema import Message

_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)")
_LARGEST = (1 << 31) - 1

Line = tuple[str, int]
"""Name and label."""


def open_images(layer: Message, folder: Path, *, phase: str, draws: Draws) -> Source:
    """The source of an ImageData layer; list, root_folder and pictures are looked up below ``folder``."""
    check_tops(layer, 1, 2)
    size = batch_size(layer, layer.image_data_param.batch_size)
    transform = Transform(layer, folder, phase=phase)
    lines = read_list(layer, folder)
    rows = ListedRows(
        lines,
        partial(_read, layer, folder),
        shuffle=layer.image_data_param.shuffle,
        skip=partial(_skip, layer, len(lines)),
    )
    return ExampleSource(layer, rows, size, transform, draws)


def new_size(layer: Message) -> tuple[int, int] | None:
    """(height, width) that pictures are resized to, or None; GraphError when only one of them is given."""
    p = layer.image_data_param
    if bool(p.new_height) != bool(p.new_width):
        raise GraphError(f"{place(layer)} has only one of new_height and new_width, expected both or none")
    return (p.new_height, p.new_width) if p.new_height else None


def first_example(layer: Message, folder: Path) -> Example:
    """The first picture of the list."""
    return _read(layer, folder, read_list(layer, folder)[0])


def read_list(layer: Message, folder: Path) -> list[Line]:
    """The names (with root_folder) and labels of the list file, in its order."""
    p = layer.image_data_param
    return [(p.root_folder + name, label) for name, label in parse_list(folder / p.source)]


def parse_list(path: Path) -> list[Line]:
    """The names and labels in a list file, in its order; FormatError for an empty one and lines of another form."""
    lines = []
    for number, line in enumerate(read_lines(path), 1):
        name, space, label = line.rpartition(" ")
        if not space:
            name = label
        if not name:
            raise FormatError(f"{path}: line {number} is {line!r}, expected a picture's name, a space and its label")
        lines.append((name, _atoi(label, f"{path}: line {number}")))
    if not lines:
        raise FormatError(f"{path}: the list is empty, expected lines of a picture's name, a space and its label")
    return lines


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; FormatError when it cannot be read. Names that are not UTF-8 stay what they are."""
    try:
        if not path.is_file():
            raise FormatError(f"{path}: no such file, expected a list")
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise FormatError(f"{path}: cannot be read as a list: {error}") from error
    return text.removesuffix("\n").split("\n") if text else []


def _skip(layer: Message, count: int, draws: Draws) -> int:
    """How many pictures ``rand_skip`` leaves out at the start."""
    p = layer.image_data_param
    skip = draws.below(p.rand_skip) if p.rand_skip else 0
    if skip >= count:
        raise GraphError(f"{place(layer)} skips {skip} of {count} pictures: rand_skip is {p.rand_skip}, too large")
    return skip


def _read(layer: Message, folder: Path, line: Line) -> Example:
    path = folder / line[0]
    image = read_picture(path, grey=not layer.image_data_param.is_color, size=new_size(layer))
    return Example(to_record(image), line[1], str(path))


def _atoi(text: str, where: str) -> int:
    number = _NUMBER.match(text)
    value = int(number[1]) if number else 0
    if abs(value) > _LARGEST:
        raise FormatError(f"{where}: the label {value} does not fit into 32 bits")
    return value
