"""Pictures to extract codes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pictures import draw


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
