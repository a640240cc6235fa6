"""Pictures drawn at random but always the same."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def draw(path: Path, seed: int, size: tuple[int, int] = (40, 50)) -> Path:
    """A smooth colour gradient with a few random ellipses."""
    rng = np.random.RandomState(seed)
    image = cv2.resize(rng.randint(0, 256, (3, 3, 3), np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
    for _ in range(4):
        centre, axes = rng.randint(0, 40, 2).tolist(), rng.randint(3, 20, 2).tolist()
        cv2.ellipse(image, centre, axes, int(rng.randint(180)), 0, 360, rng.randint(0, 256, 3).tolist(), cv2.FILLED)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path
