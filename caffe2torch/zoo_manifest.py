"""``weights/manifest.toml`` read strictly into frozen records: the models of the zoo and the files they need."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from caffe2torch.zoo_table import Table, net_path, read_table, required_net_path

SCHEMA = 1
AUTOMATIC = ("direct", "dropbox")
BY_HAND = ("mega", "baidu", "page")


@dataclass(frozen=True)
class Source:
    """One place a file can be had from; ``kind`` says whether a program can fetch it (AUTOMATIC) or a person must."""

    kind: str
    url: str

    @property
    def automatic(self) -> bool:
        return self.kind in AUTOMATIC


@dataclass(frozen=True)
class FileEntry:
    """A file a model needs. ``bytes`` is exact, ``approx_bytes`` four bytes per parameter; one of them is set."""

    name: str
    licence: str
    bytes: int | None = None
    approx_bytes: int | None = None
    sha256: str | None = None
    sha1: str | None = None
    sources: tuple[Source, ...] = ()
    published_as: str | None = None
    note: str | None = None
    bundled: bool = False
    path: Path | None = None
    """Where it is, or would be: for the files of a project, which no folder is searched for."""

    @property
    def size(self) -> int:
        """Exact size where known, otherwise the estimate."""
        return self.bytes if self.bytes is not None else cast(int, self.approx_bytes)


@dataclass(frozen=True)
class Figure:
    """One published result: ``value`` is a fraction of 1, ``k`` the length of the ranking a MAP looks at."""

    metric: str
    value: float
    source: str
    k: int | None = None


@dataclass(frozen=True)
class Entry:
    """A model of the zoo: where its nets are, which files it needs, how pictures go in, what comes out.

    ``aliases`` maps a layer of the net to a second name under which a weight file may store it; ``extra_layers`` are
    layers the weights hold and the deploy net has no use for (the classifier the model was trained with).
    ``preprocessing`` has the keys of ``caffe2torch.preprocess.Spec``.
    """

    name: str
    title: str
    paper: str
    deploy: Path
    weights: FileEntry
    preprocessing: Mapping[str, Any]
    feature_blob: str
    mean: FileEntry | None = None
    train_val: Path | None = None
    solver: Path | None = None
    with_classifier: Path | None = None
    bits: int | None = None
    code_blob: str | None = None
    code_layer: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    extra_layers: tuple[str, ...] = ()
    published: tuple[Figure, ...] = ()

    @property
    def licence(self) -> str:
        """Terms of the weights."""
        return self.weights.licence

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Everything to have on disk before the model runs: the weights, then the mean image if there is one."""
        return (self.weights,) if self.mean is None else (self.weights, self.mean)


@dataclass(frozen=True)
class Manifest:
    """All models by name, in the manifest's order, and the name of the default one."""

    default: str
    models: Mapping[str, Entry]


def read_manifest(path: Path, root: Path) -> Manifest:
    """Read and check the manifest at ``path``; net paths in it are relative to ``root``. Raises ZooError."""
    top = read_table(path, "manifest", advice="the installation is incomplete")
    schema, default = top.required("schema", int), top.required("default", str)
    if schema != SCHEMA:
        raise top.error(f"schema is {schema}, this version of caffe2torch reads {SCHEMA}")
    files = {name: _file(name, table) for name, table in top.named("files").items()}
    preprocessing = top.required("preprocessing", dict)
    models = {name: _model(name, table, files, preprocessing, root) for name, table in top.named("models").items()}
    top.done()
    if default not in models:
        raise top.error(f"default: no model is called {default!r}")
    return Manifest(default, MappingProxyType(models))


def _file(name: str, table: Table) -> FileEntry:
    if name in (".", "..") or not re.fullmatch(r"[A-Za-z0-9._+-]+", name):
        raise table.error("a file's name has letters, digits, '.', '_', '+' and '-' only")
    entry = FileEntry(
        name,
        table.required("licence", str),
        bytes=table.optional("bytes", int),
        approx_bytes=table.optional("approx_bytes", int),
        sha256=_digest(table, "sha256", 64),
        sha1=_digest(table, "sha1", 40),
        sources=tuple(_source(row) for row in table.tables("sources")),
        published_as=table.optional("published_as", str),
        note=table.optional("note", str),
        bundled=table.optional("bundled", bool) or False,
    )
    table.done()
    if (entry.bytes is None) == (entry.approx_bytes is None):
        raise table.error("expected exactly one of bytes and approx_bytes")
    if entry.size <= 0:
        raise table.error(f"the size must be positive, found {entry.size}")
    if not entry.sources and not entry.bundled:
        raise table.error("expected at least one source, or bundled = true")
    return entry


def _source(table: Table) -> Source:
    source = Source(table.required("kind", str), table.required("url", str))
    table.done()
    if source.kind not in AUTOMATIC + BY_HAND:
        raise table.error(f"kind: expected one of {', '.join(AUTOMATIC + BY_HAND)}, found {source.kind!r}")
    if not source.url.startswith(("http://", "https://")):
        raise table.error(f"url: expected http:// or https://, found {source.url!r}")
    return source


def _digest(table: Table, key: str, length: int) -> str | None:
    value = table.optional(key, str)
    if value is not None and not re.fullmatch(rf"[0-9a-f]{{{length}}}", value):
        raise table.error(f"{key}: expected {length} lower-case hexadecimal digits, found {value!r}")
    return value


def _model(
    name: str, table: Table, files: Mapping[str, FileEntry], preprocessing: Mapping[str, Any], root: Path
) -> Entry:
    chosen = table.required("preprocessing", str)
    if chosen not in preprocessing:
        raise table.error(f"preprocessing: there is no [preprocessing.{chosen}]")
    spec = preprocessing[chosen]
    if not isinstance(spec, dict):
        raise table.error(f"preprocessing.{chosen}: expected a table, found {type(spec).__name__}")
    mean = spec.get("mean_file")
    entry = Entry(
        name,
        title=table.required("title", str),
        paper=table.required("paper", str),
        deploy=required_net_path(table, "deploy", root),
        weights=_known_file(table, "weights", table.required("weights", str), files),
        preprocessing=MappingProxyType(spec),
        feature_blob=table.required("feature_blob", str),
        mean=None if mean is None else _known_file(table, f"preprocessing.{chosen}.mean_file", mean, files),
        train_val=net_path(table, "train_val", root),
        solver=net_path(table, "solver", root),
        with_classifier=net_path(table, "with_classifier", root),
        bits=table.optional("bits", int),
        code_blob=table.optional("code_blob", str),
        code_layer=table.optional("code_layer", str),
        aliases=_aliases(table),
        extra_layers=tuple(table.strings("extra_layers")),
        published=tuple(_figure(row) for row in table.tables("published")),
    )
    table.done()
    if len({entry.bits is None, entry.code_blob is None, entry.code_layer is None}) != 1:
        raise table.error("bits, code_blob and code_layer go together: give all three or none")
    return entry


def _known_file(table: Table, key: str, name: object, files: Mapping[str, FileEntry]) -> FileEntry:
    if not isinstance(name, str) or name not in files:
        raise table.error(f"{key}: there is no [files.{name!r}]")
    return files[name]


def _aliases(table: Table) -> Mapping[str, str]:
    aliases = table.optional("aliases", dict) or {}
    for key, value in aliases.items():
        if type(value) is not str or not value:
            raise table.error(f"aliases.{key}: expected a layer name, found {value!r}")
    return MappingProxyType(aliases)


def _figure(table: Table) -> Figure:
    figure = Figure(
        table.required("metric", str),
        table.required("value", float),
        table.required("source", str),
        k=table.optional("k", int),
    )
    table.done()
    if not 0 < figure.value <= 1:
        raise table.error(f"value: expected a fraction of 1, found {figure.value}")
    return figure
