"""The local web page: a Flask application over one gallery and one model.

What a visitor can reach is a fixed set of addresses. Pictures of the database go by row number, never by path, and
leave only as thumbnails made here. Requests must name this machine (a page elsewhere that made its own name lead here,
"DNS rebinding", does not), and other sites may neither post here nor embed what is here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from importlib import resources
from typing import TYPE_CHECKING

from caffe2torch.browse.gallery import Gallery
from caffe2torch.browse.parts import stylesheet
from caffe2torch.browse.responses import Pages, Refused, need_flask, too_large
from caffe2torch.browse.upload import Uploads
from caffe2torch.errors import Caffe2TorchError

if TYPE_CHECKING:
    from flask import Flask, Response

MAX_BYTES = 32 << 20  # of an upload
DEFAULT_K = 20

POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def make_app(
    gallery: Gallery, uploads: Uploads, *, hosts: Iterable[str] = (), max_bytes: int = MAX_BYTES, k: int = DEFAULT_K
) -> Flask:
    """The application. ``hosts`` are names it may be called by, besides localhost and plain addresses."""
    app: Flask = need_flask().Flask(__name__, static_folder=None)
    app.debug = False  # whatever the environment says
    # The rest of a form is small; the file itself is limited again below.
    app.config.update(MAX_CONTENT_LENGTH=max_bytes + (1 << 16), MAX_FORM_PARTS=8)
    pages = Pages(gallery, uploads, max_bytes, min(k, len(gallery)))
    _guard(app, frozenset(host.lower() for host in hosts))
    _add_pages(app, pages)
    _add_files(app, pages)
    _add_problems(app, pages)
    return app


def _guard(app: Flask, known: frozenset[str]) -> None:
    """Refuse requests that other sites make, and say in each response what a browser may do with it."""
    flask = need_flask()

    @app.before_request
    def check() -> None:
        request = flask.request
        if not _is_ours(request.host, known):
            raise Refused(
                f"this page is not called {request.host!r}; open it by its address, or start it with --allow-host", 403
            )
        if request.headers.get("Sec-Fetch-Site", "none") == "cross-site" and request.method != "GET":
            raise Refused("another site may not search here", 403)

    @app.after_request
    def protect(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers[name] = value
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def _add_pages(app: Flask, pages: Pages) -> None:
    """The start page, the neighbours of a picture of the database, and those of an upload."""
    flask = need_flask()

    @app.get("/")
    def start() -> Response:
        return pages.html(pages.samples())

    @app.get("/like/<int:number>")
    def like(number: int) -> Response:
        if number not in pages.gallery:
            raise Refused(f"there is no picture {number} in the database", 404)
        return pages.answer(pages.gallery.query(number), flask.request.args.get("k"))

    @app.post("/search")
    def search() -> Response:
        files = flask.request.files.getlist("picture")
        if len(files) != 1 or not files[0].filename:
            raise Refused("no picture came with the form: choose one first")
        data = files[0].stream.read(pages.max_bytes + 1)
        if len(data) > pages.max_bytes:
            raise Refused(too_large(pages.max_bytes), 413)
        return pages.answer(pages.uploads.query(data, files[0].filename), flask.request.form.get("k"))


def _add_files(app: Flask, pages: Pages) -> None:
    """Thumbnails, and what the pages are drawn with."""

    @app.get("/picture/<int:number>")
    def picture(number: int) -> Response:
        small = pages.thumbnail(number) if number in pages.gallery else None
        if small is None:
            raise Refused("there is no such picture", 404)
        return pages.respond(small.data, small.type, cache="private, max-age=3600")

    @app.get("/page.css")
    def style() -> Response:
        return pages.respond(stylesheet().encode(), "text/css", cache="no-cache")

    @app.get("/page.js")
    def script() -> Response:
        text = resources.files("caffe2torch.browse").joinpath("page.js").read_bytes()
        return pages.respond(text, "text/javascript", cache="no-cache")


def _add_problems(app: Flask, pages: Pages) -> None:
    """Requests that cannot be answered."""
    from werkzeug.exceptions import HTTPException

    @app.errorhandler(Refused)
    def refused(error: Refused) -> Response:
        return pages.problem(str(error), error.status)

    @app.errorhandler(Caffe2TorchError)
    def unusable(error: Caffe2TorchError) -> Response:
        return pages.problem(str(error), 422)

    @app.errorhandler(HTTPException)
    def other(error: HTTPException) -> Response:
        if error.code == 413:
            return pages.problem(too_large(pages.max_bytes), 413)
        return pages.problem(f"{error.code} {error.name}", error.code or 500)


def _is_ours(host: str, known: frozenset[str]) -> bool:
    """Whether a Host header names this machine: localhost, a plain address, or a name it was told.

    A page elsewhere can make its own name lead here, but not an address.
    """
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    name = name.strip("[]").lower()
    if name in ("localhost", *known):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
