"""The official CIFAR-10 archive, fetched and proved by its published md5."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from caffe2torch.download import Outcome, Progress, Settings, obtain
from caffe2torch.errors import DownloadError
from caffe2torch.zoo_manifest import FileEntry, Source

MD5 = "c58f30108f718f92721af3b95e74349a"
ARCHIVE = FileEntry(
    "cifar-10-python.tar.gz",
    "none stated; https://www.cs.toronto.edu/~kriz/cifar.html asks to cite its technical report",
    bytes=170_498_071,
    sources=(Source("direct", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"),),
    note=f"md5 {MD5}",
)


def fetch_archive(
    folder: Path,
    *,
    settings: Settings | None = None,
    say: Callable[[str], object] = lambda message: None,
    progress: Progress = lambda done, total: None,
) -> Outcome:
    """Make sure that the archive lies in ``folder``; one that is there and has the right md5 is left alone.

    Raises DownloadError or OutputError, as `caffe2torch.download.obtain`.
    """
    return obtain(ARCHIVE, folder, check=_check, settings=settings or Settings(), say=say, progress=progress)


def _check(path: Path) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != MD5:
        raise DownloadError(f"{path}: md5 is {digest.hexdigest()}, expected {MD5}")
