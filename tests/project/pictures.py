"""Small pictures for projects: one colour for each class, with noise."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40))


def picture(kind: int, number: int, size: tuple[int, int] = (24, 20)) -> np.ndarray:
    rng = np.random.default_rng((kind, number))
    noise = rng.integers(-30, 30, (*size, 3))
    return np.clip(np.array(COLOURS[kind % len(COLOURS)]) + noise, 0, 255).astype(np.uint8)


def write(path: Path, kind: int, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", picture(kind, number))[1].tobytes())


def folders(root: Path, counts: dict[str, int]) -> Path:
    """A folder of class folders with so many pictures each."""
    for kind, (name, count) in enumerate(counts.items()):
        for number in range(count):
            write(root / name / f"{number:03d}.png", kind, number)
    return root
