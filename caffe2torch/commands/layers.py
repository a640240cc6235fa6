"""List the layer types that caffe2torch computes.

caffe2torch layers                            all types, one line each
caffe2torch layers Pooling LRN                what is known of some: parameters, notes
caffe2torch layers --markdown docs/layers.md  a page on all of them, with the errors measured in the golden nets
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caffe2torch.verify.catalogue import Entry, Measured

HELP = "list the layer types that are supported, with their parameters"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``caffe2torch layers``."""
    parser.add_argument("types", metavar="TYPE", nargs="*", help="layer types to tell all about")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page docs/layers.md is made by")


def run(args: argparse.Namespace) -> int:
    """Print the list, the details of some types, or write the page."""
    from caffe2torch.errors import UsageError
    from caffe2torch.files import atomic_path
    from caffe2torch.verify import catalogue
    from caffe2torch.verify.layers_page import page

    if args.markdown:
        if args.types:
            raise UsageError("--markdown writes of all types: name none")
        text = page(measured())
        with atomic_path(args.markdown) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"{args.markdown}: {len(catalogue.entries())} layers")
        return 0
    entries = catalogue.entries()
    if args.types:
        for name in args.types:
            _details(name, entries)
        return 0
    width = max(len(" ".join(entry.names)) for entry in entries)
    for entry in sorted(entries, key=lambda entry: entry.name.casefold()):
        print(f"{' '.join(entry.names):{width}}  {entry.text.splitlines()[0].partition('; ')[0].rstrip('.')}")
    print(f"\nand to feed a net: {', '.join(catalogue.sources())}")
    return 0


def measured() -> dict[str, Measured]:
    """The largest errors by layer type, from the bundled golden nets."""
    from tqdm import tqdm

    from caffe2torch.verify.case import bundled, discover
    from caffe2torch.verify.catalogue import measure
    from caffe2torch.verify.runner import run_case

    cases = [case for kind in ("layers", "data") for case in discover(bundled() / kind)]
    return measure((case, run_case(case)) for case in tqdm(cases, unit="case", leave=False, disable=None))


def _details(name: str, entries: list[Entry]) -> None:
    import difflib

    from caffe2torch.errors import UsageError
    from caffe2torch.verify import catalogue

    found = [entry for entry in entries if name in entry.names]
    if not found and name not in catalogue.SOURCE_FIELDS:
        known = [n for entry in entries for n in entry.names] + catalogue.sources()
        folded = {n.casefold(): n for n in known}
        near = difflib.get_close_matches(name.casefold(), folded, n=3)
        hint = f"; did you mean {' or '.join(folded[n] for n in near)}?" if near else ""
        raise UsageError(f"there is no layer type {name!r}{hint} (`caffe2torch layers` lists them all)")
    messages = found[0].messages if found else catalogue.SOURCE_FIELDS[name]
    print(f"{' '.join(found[0].names) if found else name}\n")
    if found:
        entry = found[0]
        print("\n\n".join(filter(None, (entry.text, *entry.notes, entry.capture))) + "\n")
    for message in messages:
        print(f"{message}:")
        for field, form in catalogue.parameters(message):
            refused = "  (refused)" if found and field in found[0].refused else ""
            print(f"  {field:24} {form}{refused}")
        print()
