"""A small labelled database: twelve drawn pictures hashed with the bundled model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from caffe2torch.extract import Model, extract
from caffe2torch.retrieval.codes import Codes
from caffe2torch.retrieval.readers import read_codes
from pictures import draw

COUNT = 12


@dataclass(frozen=True)
class Database:
    """Its folder, the codes file with features of pool5, and what that holds."""

    folder: Path
    path: Path
    codes: Codes


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    folder = tmp_path_factory.mktemp("database")
    lines = []
    for number in range(COUNT):
        picture = draw(folder / "pictures" / f"{number}.png", number, (40, 50) if number % 2 else (150, 120))
        lines.append(f"{picture} {number % 3}")
    (folder / "list.txt").write_text("\n".join(lines), "utf-8")
    model = replace(Model.from_zoo("ssdh48_small"), features="pool5")
    extract(folder / "list.txt", folder / "codes.h5", model=model)
    return Database(folder, folder / "codes.h5", read_codes(folder / "codes.h5"))


def naive_ranking(database: Codes, query: np.ndarray) -> list[tuple[int, int]]:
    """(row, distance) of every picture: bits compared one by one, equal distances in the order of the rows."""
    own = np.unpackbits(query)[: database.bits]
    distances = [int((np.unpackbits(code)[: database.bits] != own).sum()) for code in database.packed]
    return sorted(enumerate(distances), key=lambda pair: pair[1])
