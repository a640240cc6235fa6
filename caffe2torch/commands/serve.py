"""A local web page: drop a picture on it and see its neighbours.

  caffe2torch serve codes.h5                    then open http://127.0.0.1:8000/
  caffe2torch serve codes.h5 --root ~/photos    where the pictures lie now, if they were moved
  caffe2torch serve codes.h5 --host 0.0.0.0     for phones in the same network, see the warning

Programs can ask too: curl -F picture=@cat.jpg -F k=5 -H 'Accept: application/json' http://127.0.0.1:8000/search
"""

from __future__ import annotations

import argparse
import sys

from caffe2torch.errors import UsageError

HELP = "a local web page to search with pictures (needs flask)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The database, the address, the limits, the model."""
    from caffe2torch.commands.searching import add_gallery_options, add_model_options

    add_gallery_options(parser)
    group = parser.add_argument_group("the server")
    group.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1, this machine only")
    group.add_argument("--port", type=int, default=8000, metavar="N", help="default: 8000; 0 takes a free one")
    group.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name the page may be called by as well"
    )
    group.add_argument("-k", type=int, default=20, metavar="N", help="results shown at first; default: 20")
    group.add_argument("--max-upload", type=float, default=32, metavar="MB", help="largest upload; default: 32")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Open everything, so that what is wrong shows before the first visitor, then serve."""
    from caffe2torch.browse.app import make_app
    from caffe2torch.browse.gallery import Wanted
    from caffe2torch.browse.responses import MOST_RESULTS, need_flask
    from caffe2torch.browse.serving import is_local, make_server, own_names
    from caffe2torch.browse.serving import run as serve
    from caffe2torch.browse.upload import Uploads
    from caffe2torch.commands.searching import hasher_maker, open_gallery

    if not 1 <= args.k <= MOST_RESULTS:
        raise UsageError(f"-k {args.k}: expected 1 to {MOST_RESULTS}")
    if not 0.01 <= args.max_upload <= 1024:
        raise UsageError(f"--max-upload {args.max_upload}: expected 0.01 to 1024 MB")
    if not 0 <= args.port <= 65535:
        raise UsageError(f"--port {args.port}: expected 0 to 65535")
    need_flask()
    gallery = open_gallery(args)
    gallery.answer([gallery.query(int(gallery.index.ids[0]), thumbnail=False)], Wanted(1))  # makes the engine ready
    uploads = Uploads(gallery, hasher_maker(args, gallery)())
    app = make_app(
        gallery,
        uploads,
        hosts=[*args.allow_host, *own_names(args.host)],
        max_bytes=int(args.max_upload * (1 << 20)),
        k=args.k,
    )
    server = make_server(app, args.host, args.port)
    if not is_local(args.host):
        print(
            f"caffe2torch: warning: at {args.host} everyone who can reach this machine can see the pictures and "
            "search in them; there is no password and no encryption",
            file=sys.stderr,
        )
    serve(server, args.host)
    return 0
