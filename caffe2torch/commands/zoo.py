"""List the models known by name and which of their files are on this machine; with a name, all that is known of one."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caffe2torch.zoo_manifest import Entry, FileEntry

HELP = "list the models known by name, or show one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``caffe2torch zoo``."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this model instead of the list")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def run(args: argparse.Namespace) -> int:
    """Print the list, or one model; returns 0."""
    from caffe2torch import zoo

    if args.json:
        chosen = [args.name] if args.name else zoo.names()
        facts = [_facts(zoo.entry(name)) for name in chosen]
        print(json.dumps(facts[0] if args.name else facts, indent=2))
    elif args.name:
        _show(zoo.entry(args.name))
    else:
        _list([zoo.entry(name) for name in zoo.names()], zoo.default_name())
    return 0


def _list(entries: list[Entry], default: str) -> None:
    from caffe2torch import zoo

    rows = [("model", "bits", "weights", "size", "what it is")]
    for entry in entries:
        here = "here" if all(zoo.is_here(file) for file in entry.files) else _absence(entry)
        size = f"{entry.weights.size / 1e6:.0f} MB"
        rows.append((entry.name, str(entry.bits or "-"), here, size, entry.title))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + "  " + row[4])
    print(f"\n{default} is the default. `caffe2torch download NAME` fetches one; `caffe2torch zoo NAME` shows one.")


def _absence(entry: Entry) -> str:
    from caffe2torch import zoo

    if zoo.is_here(entry.weights):
        return "mean missing"
    return "to fetch" if any(source.automatic for source in entry.weights.sources) else "by hand"


def _show(entry: Entry) -> None:
    print(f"{entry.name}: {entry.title}\n{entry.paper}\n")
    for label, path in _nets(entry).items():
        print(f"{label:<16}{path}")
    for label, file in (("weights", entry.weights), ("mean image", entry.mean)):
        if file is not None:
            print(f"{label:<16}{_file(file)}")
    print(f"{'terms':<16}{entry.licence}")
    if entry.code_blob:
        print(f"{'code':<16}{entry.code_blob} > 0.5, {entry.bits} bits")
    print(f"{'feature':<16}{entry.feature_blob}")
    print(f"{'preprocessing':<16}" + ", ".join(f"{key} {value}" for key, value in entry.preprocessing.items()))
    for mine, theirs in entry.aliases.items():
        print(f"{'alias':<16}layer {mine} may be called {theirs} in the weights")
    for figure in entry.published:
        at = f" at {figure.k:,}" if figure.k else ""
        print(f"{'published':<16}{figure.metric}{at} {figure.value:.6g} ({figure.source})")


def _nets(entry: Entry) -> dict[str, str]:
    nets = {"deploy": entry.deploy, "with classifier": entry.with_classifier}
    nets |= {"train_val": entry.train_val, "solver": entry.solver}
    return {label: str(path) for label, path in nets.items() if path is not None}


def _file(file: FileEntry) -> str:
    from caffe2torch import zoo
    from caffe2torch.errors import ZooError

    try:
        return str(zoo.find_file(file))
    except ZooError as error:
        return str(error)


def _facts(entry: Entry) -> dict[str, Any]:
    from caffe2torch import zoo

    files = [
        {
            "name": file.name,
            "path": str(zoo.find_file(file)) if zoo.is_here(file) else None,
            "bytes": file.bytes,
            "approx_bytes": file.approx_bytes,
            "sha256": file.sha256,
            "sha1": file.sha1,
            "sources": [{"kind": source.kind, "url": source.url} for source in file.sources],
            "licence": file.licence,
        }
        for file in entry.files
    ]
    return {
        "name": entry.name,
        "title": entry.title,
        "paper": entry.paper,
        "nets": _nets(entry),
        "files": files,
        "bits": entry.bits,
        "code_blob": entry.code_blob,
        "feature_blob": entry.feature_blob,
        "preprocessing": dict(entry.preprocessing),
        "aliases": dict(entry.aliases),
        "published": [{"metric": f.metric, "value": f.value, "k": f.k, "source": f.source} for f in entry.published],
    }
