"""What the figures of this package have in common: formats, look, and the package that draws them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caffe2torch.errors import MissingPackageError, UsageError

FORMATS = ("png", "svg", "pdf")
INK, MUTED = "#222222", "#666666"
_SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "svg.fonttype": "none",
    "svg.hashsalt": "caffe2torch",
    "pdf.fonttype": 42,
    "text.parse_math": False,
}


def settings(font_size: float) -> dict[Any, Any]:
    """Matplotlib's settings for ``rc_context``; letters of ``font_size`` points."""
    return {**_SETTINGS, "font.size": font_size}


def check_figure(path: Path, without: str) -> None:
    """Raise, before anything is computed, for a figure that cannot be drawn: UsageError, MissingPackageError.

    ``without`` says which options do without matplotlib.
    """
    if path.suffix.lower().lstrip(".") not in FORMATS:
        raise UsageError(f"{path}: a figure is drawn as one of {', '.join(FORMATS)}; choose by the suffix")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"{path}: drawing the figure needs the package matplotlib: pip install 'caffe2torch[evaluate]' "
            f"(or pip install matplotlib); {without}"
        ) from error
