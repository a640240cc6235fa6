"""Search a set of hashed pictures with pictures of your own.

  caffe2torch search codes.h5 cat.jpg                             the ten nearest, as a table
  caffe2torch search codes.h5 cat.jpg dog.jpg --html results.html   and a page with the pictures, to open or to send
  caffe2torch search codes.h5 queries/ -k 50                      every picture of a folder
  caffe2torch search codes.h5 train/17.jpg --skip-self            a picture of the database: nothing is hashed
  caffe2torch search codes.h5 other.h5 --radius 2                 all within two bits of each code of another file
  caffe2torch search codes.h5 cat.jpg --rerank fc7                the nearest by code, ranked again by fc7

A query is hashed with the very model that made codes.h5, which records it; another one is refused. Results stand in
the order of their Hamming distance, equal ones in the order of the database.
"""

from __future__ import annotations

import argparse
import json
import sys

from caffe2torch.errors import UsageError

HELP = "find the pictures most like your own, as a table or a page"

DEFAULT_K = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The database, the queries, what to find and how to show it."""
    from caffe2torch.commands.searching import add_gallery_options, add_model_options, add_rerank_options

    add_gallery_options(parser)
    parser.add_argument(
        "queries",
        nargs="+",
        metavar="QUERY",
        help="a picture, a folder, a list file, the path of a picture of the database, or a second codes file",
    )
    group = parser.add_argument_group("what is found")
    group.add_argument("-k", type=int, metavar="N", help=f"results for each query; default: {DEFAULT_K}")
    group.add_argument("--radius", type=int, metavar="BITS", help="only results within this distance; without -k, all")
    group.add_argument("--skip-self", action="store_true", help="leave out the query, where it is in the database")
    group.add_argument("--query-root", metavar="DIR", help="where the paths of list files with queries start")
    add_rerank_options(parser)
    group = parser.add_argument_group("how it is shown")
    group.add_argument("--html", metavar="FILE", help="write a page with all pictures in it; it opens without a server")
    group.add_argument("--json", action="store_true", help="print JSON")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Search and show."""
    from caffe2torch.browse.gallery import Wanted
    from caffe2torch.browse.markup import printable
    from caffe2torch.browse.page import check_size, write_page
    from caffe2torch.browse.queries import read_queries
    from caffe2torch.browse.text import tables, to_dict
    from caffe2torch.commands.searching import hasher_maker, open_gallery

    _check(args)
    gallery = open_gallery(args)
    k = args.k
    if k is None and (args.radius is None or args.rerank):
        k = max(1, min(DEFAULT_K, len(gallery) - args.skip_self))
    wanted = Wanted(k, args.radius, args.skip_self, args.metric if args.rerank else None, args.candidates)
    queries = read_queries(
        args.queries,
        gallery,
        hasher_maker(args, gallery),
        root=args.query_root,
        thumbnails=bool(args.html),
        any_model=args.another_model,
    )
    if args.html and k:
        check_size(args.html, len(queries) * (1 + k))
    answers = gallery.answer(queries, wanted)
    if args.html:
        missing = write_page(args.html, answers, gallery, fine=wanted.metric)
        if missing:
            print(
                f"caffe2torch: note: {missing} pictures of the page were not found or cannot be read; --root DIR says "
                "where those of the database lie now",
                file=sys.stderr,
            )
    if args.json:
        print(json.dumps(to_dict(answers, gallery)))
        return 0
    print(tables(answers, gallery))
    if args.html:
        print(f"\nwrote {printable(args.html)}")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.k is not None and args.k < 1:
        raise UsageError(f"-k {args.k}: ask for at least one result")
    if args.radius is not None and args.radius < 0:
        raise UsageError(f"--radius {args.radius}: a Hamming distance is 0 or more")
    if args.candidates < 1:
        raise UsageError(f"--candidates {args.candidates}: at least one must be ranked again")
    if args.features and not args.rerank:
        raise UsageError("--features names the features to rank by: say which blob they are of with --rerank BLOB")
