"""The model zoo: names to nets, weights, preprocessing and published figures, and where the files are on this machine.

Weight files are looked for in the folder named by the environment variable ``CAFFE2TORCH_WEIGHTS``, then beside the
manifest (``weights/`` of a checkout or of the installed package), then in the user's cache folder.
"""

from __future__ import annotations

import difflib
import os
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from caffe2torch.errors import ZooError
from caffe2torch.zoo_manifest import Entry, Figure, FileEntry, Manifest, Source, read_manifest
from caffe2torch.zoo_project import is_project, read_project

__all__ = [
    "Entry",
    "Figure",
    "FileEntry",
    "Source",
    "by_hand",
    "cache_folder",
    "data_root",
    "default_name",
    "download_folder",
    "entry",
    "find_file",
    "folders",
    "how_to_get",
    "is_here",
    "names",
    "wanted",
]

WEIGHTS_VARIABLE = "CAFFE2TORCH_WEIGHTS"


def data_root() -> Path:
    """The folder that holds ``prototxt/`` and ``weights/``: inside an installed package, or the checkout's root."""
    package = Path(__file__).resolve().parent
    for root in (package / "_zoo", package.parent):
        if (root / "weights" / "manifest.toml").is_file() and (root / "prototxt").is_dir():
            return root
    raise ZooError(
        f"{package / '_zoo'}: the zoo's prototxt/ and weights/manifest.toml are neither there nor beside the package; "
        "install caffe2torch again"
    )


@lru_cache(maxsize=1)
def _manifest() -> Manifest:
    root = data_root()
    return read_manifest(root / "weights" / "manifest.toml", root)


def names() -> tuple[str, ...]:
    """Every model's name; the default comes first."""
    return tuple(_manifest().models)


def default_name() -> str:
    """The model used where none is named; its weights come with the package."""
    return _manifest().default


def entry(name: str) -> Entry:
    """All that is known of the model called ``name``, or of the project in the folder ``name``.

    Raises ZooError, with near names, where there is none.
    """
    models = _manifest().models
    if name in models or not is_project(name):
        return _known(name)
    found = read_project(name)
    # A folder that is called like a model of the zoo: its name must lead to it and not to that model.
    return replace(found, name=str(Path(found.name).resolve())) if found.name in models else found


def _known(name: str) -> Entry:
    """A model of the manifest."""
    models = _manifest().models
    if name in models:
        return models[name]
    folded = {known.casefold(): known for known in models}
    near = difflib.get_close_matches(name.casefold().replace("-", "_"), list(folded), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(folded[key] for key in near)}?" if near else f"known: {', '.join(models)}"
    raise ZooError(f"the zoo has no model called {name!r}; {hint} (`caffe2torch zoo` lists them all)")


def wanted(name: str) -> tuple[tuple[FileEntry, Entry], ...]:
    """The files to have for ``name``, each with a model that needs it; ``name`` is a model or one file of a model."""
    for model in _manifest().models.values():
        for file in model.files:
            if name == file.name:
                return ((file, model),)
    model = _known(name)
    return tuple((file, model) for file in model.files)


def cache_folder() -> Path:
    """The user's folder for downloads: %LOCALAPPDATA% on Windows, $XDG_CACHE_HOME or ~/.cache elsewhere."""
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    given = os.environ.get(variable, "")
    if given and Path(given).is_absolute():  # the XDG specification says to ignore a relative one
        return Path(given) / "caffe2torch"
    return Path.home() / ("AppData/Local" if sys.platform == "win32" else ".cache") / "caffe2torch"


def folders() -> tuple[Path, ...]:
    """Where weight and mean files are looked for, in this order."""
    given = os.environ.get(WEIGHTS_VARIABLE, "")
    chosen = (Path(given).expanduser(),) if given else ()
    return (*chosen, data_root() / "weights", cache_folder())


def download_folder() -> Path:
    """Where a download goes unless told: the chosen folder, a checkout's ``weights/``, or the user's cache."""
    if os.environ.get(WEIGHTS_VARIABLE, ""):
        return folders()[0]
    root = data_root()
    return cache_folder() if root.name == "_zoo" else root / "weights"


def is_here(file: FileEntry) -> bool:
    """Whether ``find_file`` gives a path."""
    try:
        find_file(file)
    except ZooError:
        return False
    return True


def find_file(file: FileEntry) -> Path:
    """The file's path on this machine; raises ZooError with all ways to get it, or when its size is wrong."""
    if file.path is not None:
        if not file.path.is_file():
            raise ZooError(f"{file.path}: no such file; {file.note}")
        return file.path
    for folder in folders():
        path = folder / file.name
        if not path.is_file():
            continue
        found = path.stat().st_size
        if file.bytes is not None and found != file.bytes:
            raise ZooError(
                f"{path}: has {found:,} bytes, expected {file.bytes:,}; it is damaged or another file: "
                f"remove it, then {how_to_get(file)}"
            )
        return path
    looked = ", ".join(str(folder) for folder in folders())
    raise ZooError(f"{file.name} is not on this machine (looked in {looked}): {how_to_get(file)}")


def how_to_get(file: FileEntry) -> str:
    """One sentence: the command that fetches ``file``, or what to download by hand and where to put it."""
    if not file.sources:
        return "install caffe2torch again, the file comes with it"
    owners = [model.name for model in _manifest().models.values() if file in model.files]
    wanted = owners[0] if len(owners) == 1 else file.name
    ways = []
    if any(source.automatic for source in file.sources):
        ways.append(f"run `caffe2torch download {wanted}` (or `python tools/download_weights.py {wanted}`)")
    if not all(source.automatic for source in file.sources):
        ways.append(by_hand(file, download_folder()))
    return ", or ".join(ways)


def by_hand(file: FileEntry, folder: Path) -> str:
    """What a person with a browser has to do to get ``file`` into ``folder``: links, name, size and hash."""
    links = " or ".join(f"{source.url} ({source.kind})" for source in file.sources)
    size = f"{file.bytes:,} bytes" if file.bytes is not None else f"about {file.size / 1e6:.0f} MB"
    digest = f", sha256 {file.sha256}" if file.sha256 else f", sha1 {file.sha1}" if file.sha1 else ""
    wanted = file.published_as or file.name
    note = f" ({file.note})" if file.note else ""
    return f"get {wanted} with a browser from {links} and save it as {folder / file.name} ({size}{digest}){note}"
