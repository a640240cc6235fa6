"""The model that made a codes file, found again: a query has a meaning only when the very same one hashes it.

A codes file of ``extract`` records the SHA-256 of the net, the weights and the mean image, and the preprocessing. The
files are looked for where they were, in the zoo, and where the user says; what has another hash is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe2torch import preprocess, zoo
from caffe2torch.browse.pictures import is_file
from caffe2torch.errors import Caffe2TorchError, RetrievalError, UsageError, ZooError
from caffe2torch.extract.model import Model, file_sha256
from caffe2torch.retrieval.comparable import DECISIVE


@dataclass(frozen=True)
class Given:
    """What the user names: where the files are now. Their hashes decide whether they are taken."""

    model: str | None = None
    net: Path | None = None
    weights: Path | None = None
    mean: Path | None = None
    protos: tuple[Path, ...] = ()
    imports: tuple[str, ...] = ()


def is_recorded(provenance: Mapping[str, Any]) -> bool:
    """Whether the codes file says how its codes were made; .csv and other tools' files do not."""
    return all(isinstance(provenance.get(key), str) for key in ("net_sha256", "weights_sha256", "blob"))


def recorded_model(codes_file: Path, provenance: Mapping[str, Any], given: Given) -> Model:
    """The model by its recorded hashes; RetrievalError says what is not here, or differs, and which option helps."""
    finder = _Finder(codes_file, provenance, given)
    try:
        entry = zoo.entry(given.model or str(provenance.get("model")))
    except ZooError:
        if given.model:
            raise
        entry = None
    deploy = entry.deploy if entry else None
    net = finder.find("net", "--net", given.net, deploy)
    weights = finder.find("weights", "--weights", given.weights, _zoo_file(entry.weights if entry else None))
    mean = None
    if provenance.get("mean_sha256"):
        mean = finder.find("mean", "--mean", given.mean, _zoo_file(entry.mean if entry else None))
    elif given.mean:
        raise UsageError(f"--mean {given.mean}: the codes of {codes_file} were made without a mean image")
    try:
        spec = preprocess.Spec.from_dict(dict(provenance["preprocessing"]))
    except (KeyError, TypeError, ValueError, Caffe2TorchError) as error:
        raise RetrievalError(f"{codes_file}: its record of the preprocessing cannot be used: {error}") from error
    ours = entry is not None and deploy is not None and file_sha256(deploy) == provenance["net_sha256"]
    return Model(
        name=str(provenance.get("model")),
        net=net,
        weights=weights,
        spec=spec,
        mean=mean,
        blob=provenance["blob"],
        exif=provenance.get("exif") is True,
        aliases=dict(entry.aliases) if entry and ours else {},
        # The same files were loaded when the codes were made: what they have too much was accepted then.
        ignore_extra=True,
        allow_unknown=True,
        **finder.custom(),
    )


def _zoo_file(file: zoo.FileEntry | None) -> Path | None:
    try:
        return zoo.find_file(file) if file else None
    except ZooError:
        return None


class _Finder:
    """Looks for the files of one provenance."""

    def __init__(self, codes_file: Path, provenance: Mapping[str, Any], given: Given) -> None:
        self.codes_file, self.provenance, self.given = codes_file, provenance, given

    def find(self, part: str, option: str, given: Path | None, in_zoo: Path | None) -> Path:
        """The first file whose SHA-256 is the recorded one; what the user gives must be it."""
        wanted = self.provenance[f"{part}_sha256"]
        seen = []
        for path in [given] if given else self._places(part, in_zoo):
            if not is_file(path):
                seen.append(f"{path} is not here")
            elif (found := file_sha256(path)) != wanted:
                seen.append(f"{path} is another file (sha256 {found[:12]}...)")
            else:
                return path
        other = " or --model" if part != "mean" and not given else ""
        raise RetrievalError(
            f"{self.codes_file}: its codes were made with {DECISIVE[f'{part}_sha256']} of sha256 {str(wanted)[:12]}... "
            f"(model {self.provenance.get('model')}), which a query must be hashed with too: {'; '.join(seen)}; give "
            f"the right file with {option}{other}"
        )

    def _places(self, part: str, in_zoo: Path | None) -> Iterator[Path]:
        recorded, folder = self.provenance.get(part), self.provenance.get("folder")
        places = [
            Path(*(p for p in (folder, recorded) if isinstance(p, str))) if isinstance(recorded, str) else None,
            in_zoo,
        ]
        if self.given.model:
            places.reverse()
        yield from dict.fromkeys(place for place in places if place is not None)

    def custom(self) -> dict[str, Any]:
        """``protos`` and ``imports`` of a fork's net, the same files as then.

        Code is run only when the user names it: a codes file from elsewhere must not choose what is imported.
        """
        recorded, given = self.provenance, self.given
        then, hashes = _texts(recorded.get("imports")), _texts(recorded.get("custom_sha256"))
        if then and not given.imports:
            raise RetrievalError(
                f"{self.codes_file}: its codes were made with layers of one's own: give "
                f"{' '.join(f'--import {source}' for source in then)} to run that code again"
            )
        folder = Path(recorded["folder"]) if isinstance(recorded.get("folder"), str) else Path()
        protos = given.protos or tuple(folder / path for path in _texts(recorded.get("protos")))
        files = [*protos, *(Path(source) for source in given.imports if source.endswith(".py"))]
        if not all(map(is_file, files)) or [file_sha256(path) for path in files] != hashes:
            raise RetrievalError(
                f"{self.codes_file}: its codes were made with {len(hashes)} files of a fork, and these are not here or "
                f"not the same: {', '.join(map(str, files)) or 'none'}; give them with --proto and --import, as then: "
                f"{' '.join([*_texts(recorded.get('protos')), *then])}"
            )
        return {"protos": protos, "imports": given.imports}


def _texts(value: object) -> list[str]:
    """The strings of a recorded list; a record may hold anything."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
