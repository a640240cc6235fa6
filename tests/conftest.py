"""Where the reference material lies, and what happens where it does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def reference_folder() -> Path | None:
    """The reference material named by CAFFE2TORCH_REFERENCE, by default ``../shared`` beside the checkout."""
    folder = Path(os.environ.get("CAFFE2TORCH_REFERENCE", ROOT.parent / "shared"))
    return folder if (folder / "goldens").is_dir() else None


@pytest.fixture(scope="session")
def reference() -> Path:
    """The reference material; skips where it is absent, fails in CI, which always has it."""
    folder = reference_folder()
    if folder is None:
        message = "the reference material is not here (set CAFFE2TORCH_REFERENCE to its folder)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder
