"""PBM, PGM and PPM, text or binary."""

from __future__ import annotations

from caffe2torch.errors import ImageError
from caffe2torch.preprocess.formats.header import ADVICE, Header


def read(data: bytes, name: str) -> Header:
    """P1..P6: magic, width, height and (but for bitmaps) the largest value, between blanks and comments."""
    form, position = data[1] - 48, 2
    numbers: list[int] = []
    wanted = 2 if form in (1, 4) else 3
    while len(numbers) < wanted:
        if data[position] == 0x23:
            newline = data.find(b"\n", position)
            position = newline if newline >= 0 else len(data)
        elif data[position : position + 1].isdigit():
            stop = position
            while data[stop : stop + 1].isdigit() and stop - position < 10:
                stop += 1
            numbers.append(int(data[position:stop]))
            position = stop
        elif data[position : position + 1].isspace():
            position += 1
        else:
            raise ImageError(f"{name}: damaged PNM header at byte {position}")
    width, height, largest = (*numbers, 255)[:3]
    if largest != 255:
        raise ImageError(f"{name}: a PNM with values up to {largest}, not 255; {ADVICE}")
    row = {4: (width + 7) // 8, 5: width, 6: 3 * width}.get(form, width)
    if position + 1 + row * height > len(data):
        raise ImageError(f"{name}: the PNM is cut short: {len(data)} bytes for {width}x{height}")
    return Header("PNM", width, height, form not in (3, 6), data)
