"""Pictures to extract codes from, drawn at random but always the same."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest


def draw(path: Path, seed: int, size: tuple[int, int] = (40, 50)) -> None:
    """A smooth colour gradient with a few random ellipses."""
    rng = np.random.RandomState(seed)
    image = cv2.resize(rng.randint(0, 256, (3, 3, 3), np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
    for _ in range(4):
        centre, axes = rng.randint(0, 40, 2).tolist(), rng.randint(3, 20, 2).tolist()
        cv2.ellipse(image, centre, axes, int(rng.randint(180)), 0, 360, rng.randint(0, 256, 3).tolist(), cv2.FILLED)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 20 pictures, two of them a level deeper."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(18):
        draw(folder / f"p{number:02d}.png", number)
    draw(folder / "sub" / "x y.png", 18)
    draw(folder / "sub" / "ü.jpg", 19)
    return folder


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A folder with five pictures; the second is cut short and the fourth is no picture at all."""
    folder = tmp_path / "damaged"
    for number in range(5):
        draw(folder / f"{number}.png", number)
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "3.png").write_bytes(b"no picture")
    return folder
