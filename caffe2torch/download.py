"""Getting a model's files: sources in order, retries, resume, and proof that what came is what was meant."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from caffe2torch import zoo
from caffe2torch.download_http import Digests, Expected, Part, SourceError, digest_file, fetch
from caffe2torch.errors import DownloadError, FormatError, OutputError
from caffe2torch.zoo_manifest import Entry, FileEntry, Source

LONGEST_WAIT = 30.0

Progress = Callable[[int, "int | None"], None]
Check = Callable[[Path], None]


@dataclass(frozen=True)
class Settings:
    """How patiently to try: attempts per source are ``retries`` + 1, ``timeout`` is of one network wait in seconds."""

    retries: int = 4
    timeout: float = 30.0
    wait: Callable[[float], object] = time.sleep


@dataclass(frozen=True)
class Outcome:
    """A file that is here and proved: by the published hash (``proof`` names it), or by its structure alone."""

    path: Path
    fetched: bool
    size: int
    sha256: str
    proof: str


def obtain(
    file: FileEntry,
    folder: Path,
    *,
    check: Check,
    settings: Settings,
    force: bool = False,
    say: Callable[[str], object] = lambda message: None,
    progress: Progress = lambda done, total: None,
) -> Outcome:
    """Make sure that a proved ``file`` lies in ``folder``, fetching it where needed.

    ``check(path)`` raises DownloadError for a file of the wrong structure; it decides where no hash is published.
    ``say`` hears of every setback. Raises DownloadError when no source delivers, with what to do by hand.
    """
    target = folder / file.name
    if not force:
        here = _already(file, target, check, say)
        if here is not None:
            return here
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created: {error.strerror or error}") from error
    automatic = [source for source in file.sources if source.automatic]
    failures: list[str] = []
    part = Part(target)
    with part.claimed():
        for source in automatic:
            try:
                return _from_source(file, source, target, part, check, settings, say, progress)
            except SourceError as error:
                failures.append(str(error))
                if len(failures) < len(automatic):
                    say(f"{error}; trying the next source")
    if not file.sources:
        raise DownloadError(f"{file.name} has no place to be fetched from; {zoo.how_to_get(file)}")
    why = f"every source failed ({'; '.join(failures)})" if failures else "its sources need a browser"
    raise DownloadError(f"{file.name}: {why}. By hand: {zoo.by_hand(file, folder)}; then run this command again")


def _already(file: FileEntry, target: Path, check: Check, say: Callable[[str], object]) -> Outcome | None:
    if not target.is_file():
        return None
    try:
        digests = digest_file(target)
    except OSError as error:
        raise DownloadError(f"{target}: cannot be read: {error.strerror or error}") from error
    try:
        return Outcome(target, False, digests.size, digests.sha256, prove(file, target, digests, check))
    except DownloadError as error:
        if not any(source.automatic for source in file.sources):
            raise
        say(f"{error}; fetching it again")
        return None


def _from_source(
    file: FileEntry,
    source: Source,
    target: Path,
    part: Part,
    check: Check,
    settings: Settings,
    say: Callable[[str], object],
    progress: Progress,
) -> Outcome:
    expected = Expected(
        file.bytes,
        file.bytes if file.bytes is not None else 2 * file.size,
        hashed=file.sha256 is not None or file.sha1 is not None,
    )
    for attempt in range(settings.retries + 1):
        resumed = part.validator(source.url) is not None
        try:
            digests = fetch(source.url, part, expected, timeout=settings.timeout, progress=progress)
            proof = _prove_part(file, part, digests, check, source, resumed=resumed)
            part.path.replace(target)
            part.remove()
            return Outcome(target, True, digests.size, digests.sha256, proof)
        except SourceError as error:
            if not error.passing or attempt == settings.retries:
                raise
            pause = min(LONGEST_WAIT, 2.0**attempt)
            say(f"{error}; trying again in {pause:.0f} s ({attempt + 1} of {settings.retries})")
            settings.wait(pause)
        except OSError as error:
            raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error
    raise AssertionError("the last attempt returns or raises")


def _prove_part(file: FileEntry, part: Part, digests: Digests, check: Check, source: Source, *, resumed: bool) -> str:
    """Nothing unproved stays: a part that fails is removed, and only one pieced together is worth another attempt."""
    try:
        return prove(file, part.path, digests, check)
    except DownloadError as error:
        part.remove()
        raise SourceError(f"{source.url}: {error}", passing=resumed) from error


def prove(file: FileEntry, path: Path, digests: Digests, check: Check) -> str:
    """Raise DownloadError unless ``path`` is ``file``; returns what proves it: "sha256", "sha1" or "structure"."""
    if file.bytes is not None and digests.size != file.bytes:
        raise DownloadError(f"{path}: has {digests.size:,} bytes, expected {file.bytes:,}")
    for kind, wanted, found in (("sha256", file.sha256, digests.sha256), ("sha1", file.sha1, digests.sha1)):
        if wanted is not None:
            if found != wanted:
                raise DownloadError(f"{path}: {kind} is {found}, expected {wanted}")
            return kind
    check(path)
    return "structure"


def check_weights(path: Path, model: Entry) -> None:
    """Raise DownloadError unless ``path`` reads as a caffemodel that holds the layer ``model``'s codes come from."""
    from caffe2torch.caffemodel import open_weights

    try:
        with open_weights(path) as weights:
            shapes = {layer.name: layer.blobs[0].shape for layer in weights.layers if layer.blobs}
    except FormatError as error:
        raise DownloadError(f"{path}: is no readable caffemodel: {error}") from error
    if not shapes:
        raise DownloadError(f"{path}: is a caffemodel without weights")
    if model.code_layer is None:
        return
    names = [model.code_layer, *([model.aliases[model.code_layer]] if model.code_layer in model.aliases else [])]
    found = next((shapes[name] for name in names if name in shapes), None)
    if found is None:
        raise DownloadError(
            f"{path}: has no layer {' or '.join(names)}, so these are not the weights of {model.name}; "
            f"its last layers are {', '.join(list(shapes)[-3:])}"
        )
    units = found[-2] if len(found) >= 2 else None  # (units, inputs), or (1, 1, units, inputs) in old files
    if units != model.bits:
        raise DownloadError(f"{path}: its codes have {units} bits, those of {model.name} have {model.bits}")
