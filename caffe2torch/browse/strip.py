"""A code drawn as a strip of small boxes, the bits that differ from the query's in a colour of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence

from caffe2torch.browse.markup import Markup, joined, markup

WIDTH, HEIGHT, GAP, FRAME = 10, 14, 2, 2  # of a box, in units of the drawing
MOST_BITS = 512  # boxes drawn; longer codes are shown up to here
MOST_NAMED = 24  # differing bits named by number


def strip(code: Sequence[bool], differing: Sequence[int] = (), *, compared: bool = True) -> Markup:
    """An inline SVG, bit 0 first: dark boxes are ones, pale ones zeros; those that differ are coloured, zeros hollow.

    ``compared`` False is for the query's own code. The text for screen readers names the differing bits.
    """
    other = set(differing)
    shown = min(len(code), MOST_BITS)
    across = _across(shown)
    paths: dict[str, list[str]] = {"one": [], "zero": [], "one off": [], "zero off": []}
    for bit in range(shown):
        line, column = divmod(bit, across)
        kind = ("one" if code[bit] else "zero") + (" off" if bit in other else "")
        paths[kind].append(_box(column * WIDTH, line * HEIGHT, hollow=kind == "zero off"))
    drawn = joined(markup('<path class="{}" d="{}"/>', kind, "".join(boxes)) for kind, boxes in paths.items() if boxes)
    text = described(differing, len(code)) if compared else f"code of {len(code)} bits"
    cut = markup('<p class="cut">the first {} of {} bits</p>', shown, len(code)) if shown < len(code) else Markup()
    return markup(
        '<svg class="strip" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>{}</svg>{}',
        across * WIDTH,
        math.ceil(shown / across) * HEIGHT,
        text,
        text,
        drawn,
        cut,
    )


def described(differing: Sequence[int], bits: int) -> str:
    """The differing bits in words."""
    if not differing:
        return f"all {bits} bits are the same"
    named = ", ".join(map(str, differing[:MOST_NAMED])) + (", ..." if len(differing) > MOST_NAMED else "")
    return f"{len(differing)} of {bits} bits differ: {named}"


def _across(bits: int) -> int:
    """Boxes in a line: few enough to be seen, the lines as even as can be."""
    most = 24 if bits <= 72 else 32 if bits <= 256 else 64
    return math.ceil(bits / math.ceil(bits / most))


def _box(left: int, top: int, *, hollow: bool) -> str:
    wide, high = WIDTH - GAP, HEIGHT - GAP
    box = f"M{left} {top}h{wide}v{high}h-{wide}z"
    if not hollow:
        return box
    inner = f"M{left + FRAME} {top + FRAME}v{high - 2 * FRAME}h{wide - 2 * FRAME}v-{high - 2 * FRAME}z"
    return box + inner
