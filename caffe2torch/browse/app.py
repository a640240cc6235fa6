"""The local web page: a Flask application over one gallery and one model.

What a visitor can reach is a fixed set of addresses. Pictures of the database go by row number, never by path, and
leave only as thumbnails made here. Requests must name this machine (a page elsewhere that made its own name lead here,
"DNS rebinding", does not), and other sites may neither post here nor embed what is here.
"""

from __future__ import annotations

import ipaddress
import json
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from caffe2torch.browse.answers import Query
from caffe2torch.browse.gallery import Gallery, Wanted
from caffe2torch.browse.live import answer_content, live_page, problem_content, samples_content, stored_picture
from caffe2torch.browse.markup import Markup
from caffe2torch.browse.parts import Source, stylesheet
from caffe2torch.browse.pictures import THREADS, Thumbnail
from caffe2torch.browse.text import to_dict
from caffe2torch.browse.upload import Uploads
from caffe2torch.errors import Caffe2TorchError, MissingPackageError

if TYPE_CHECKING:
    from flask import Flask, Response

MAX_BYTES = 32 << 20  # of an upload
MOST_RESULTS = 200
DEFAULT_K = 20
SAMPLES = 24
CACHED = 2000  # thumbnails kept, 20 MB

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


class Refused(Exception):
    """A request that cannot be answered; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def make_app(
    gallery: Gallery, uploads: Uploads, *, hosts: Iterable[str] = (), max_bytes: int = MAX_BYTES, k: int = DEFAULT_K
) -> Flask:
    """The application. ``hosts`` are names it may be called by, besides localhost and plain addresses."""
    flask = need_flask()
    from werkzeug.exceptions import HTTPException

    app: Flask = flask.Flask(__name__, static_folder=None)
    # The rest of a form is small; the file itself is limited again below.
    app.debug = False  # whatever the environment says
    app.config.update(MAX_CONTENT_LENGTH=max_bytes + (1 << 16), MAX_FORM_PARTS=8)
    pages = _Pages(gallery, uploads, max_bytes, min(k, len(gallery)))
    known = frozenset(host.lower() for host in hosts)

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

    @app.get("/")
    def start() -> Response:
        return pages.html(pages.samples())

    @app.get("/like/<int:number>")
    def like(number: int) -> Response:
        if number not in gallery:
            raise Refused(f"there is no picture {number} in the database", 404)
        return pages.answer(gallery.query(number), flask.request.args.get("k"))

    @app.get("/picture/<int:number>")
    def picture(number: int) -> Response:
        small = pages.thumbnail(number) if number in gallery else None
        if small is None:
            raise Refused("there is no such picture", 404)
        return pages.respond(small.data, small.type, cache="private, max-age=3600")

    @app.post("/search")
    def search() -> Response:
        files = flask.request.files.getlist("picture")
        if len(files) != 1 or not files[0].filename:
            raise Refused("no picture came with the form: choose one first")
        data = files[0].stream.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise Refused(_too_large(max_bytes), 413)
        return pages.answer(uploads.query(data, files[0].filename), flask.request.form.get("k"))

    @app.get("/page.css")
    def style() -> Response:
        return pages.respond(stylesheet().encode(), "text/css", cache="no-cache")

    @app.get("/page.js")
    def script() -> Response:
        text = resources.files("caffe2torch.browse").joinpath("page.js").read_bytes()
        return pages.respond(text, "text/javascript", cache="no-cache")

    @app.errorhandler(Refused)
    def refused(error: Refused) -> Response:
        return pages.problem(str(error), error.status)

    @app.errorhandler(Caffe2TorchError)
    def unusable(error: Caffe2TorchError) -> Response:
        return pages.problem(str(error), 422)

    @app.errorhandler(HTTPException)
    def other(error: HTTPException) -> Response:
        if error.code == 413:
            return pages.problem(_too_large(max_bytes), 413)
        return pages.problem(f"{error.code} {error.name}", error.code or 500)

    return app


class _Pages:
    """Answers as responses."""

    def __init__(self, gallery: Gallery, uploads: Uploads, max_bytes: int, k: int) -> None:
        self.gallery, self.uploads, self.max_bytes, self.k = gallery, uploads, max_bytes, k
        self.thumbnail = lru_cache(maxsize=CACHED)(self._thumbnail)
        self._pool = ThreadPoolExecutor(THREADS)

    def _thumbnail(self, number: int) -> Thumbnail | None:
        return self.gallery.places.thumbnail(self.gallery.name(number))

    def samples(self) -> Markup:
        """Other pictures at each call, so that one can leaf through a database."""
        places = sorted(random.sample(range(len(self.gallery)), min(SAMPLES, len(self.gallery))))
        numbers = self.gallery.index.ids[places].tolist()
        self._warm(numbers)
        return samples_content(self.gallery, numbers, self._source(self.k))

    def _warm(self, numbers: Sequence[int]) -> None:
        """Several thumbnails at a time, where large pictures take long to decode."""
        list(self._pool.map(self.thumbnail, numbers))

    def _source(self, k: int) -> Source:
        return lambda number: stored_picture(number, self.thumbnail(number), k=k)

    def answer(self, query: Query, k: str | None) -> Response:
        """The results of one query, as JSON for programs that ask for it."""
        count = self._count(k)
        (answer,) = self.gallery.answer([query], Wanted(count))
        if _wants_json():
            return self.respond(json.dumps(to_dict([answer], self.gallery)).encode(), "application/json")
        self._warm([hit.id for hit in answer.hits])
        return self.html(answer_content(self.gallery, answer, self._source(count)), k=count)

    def _count(self, k: str | None) -> int:
        if k is None:
            return self.k
        if not (k.isascii() and k.isdigit()) or len(k) > 9 or not 1 <= int(k) <= MOST_RESULTS:
            raise Refused(f"k is {k[:20]!r}; expected a number from 1 to {MOST_RESULTS}")
        if int(k) > len(self.gallery):
            raise Refused(f"k is {int(k)}, but there are {len(self.gallery)} pictures in the database")
        return int(k)

    def html(self, content: Markup, *, status: int = 200, k: int | None = None) -> Response:
        """A whole page around the content."""
        page = live_page(self.gallery, content, k=k or self.k, most_bytes=self.max_bytes)
        return self.respond(page.encode("utf-8"), "text/html; charset=utf-8", status=status)

    def problem(self, message: str, status: int) -> Response:
        """Why a request was not answered."""
        if _wants_json():
            return self.respond(json.dumps({"error": message}).encode(), "application/json", status=status)
        if status == 403:  # who may not ask learns nothing about the database
            return self.respond(f"{message}\n".encode(), "text/plain; charset=utf-8", status=status)
        return self.html(problem_content(message), status=status)

    @staticmethod
    def respond(data: bytes, kind: str, *, status: int = 200, cache: str = "no-store") -> Response:
        """Bytes of a given type."""
        response: Response = need_flask().Response(data, status=status, content_type=kind)
        response.headers["Cache-Control"] = cache
        return response


def _wants_json() -> bool:
    accept = need_flask().request.accept_mimetypes
    return bool(accept.best_match(["text/html", "application/json"]) == "application/json")


def _too_large(max_bytes: int) -> str:
    return f"the picture is larger than the {max_bytes / (1 << 20):.4g} MB taken here; make it smaller first"


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


def need_flask() -> Any:
    """The package; MissingPackageError says how to install it."""
    try:
        import flask
    except ImportError as error:
        raise MissingPackageError(
            "the local page needs the package flask: pip install 'caffe2torch[serve]' (or pip install flask)"
        ) from error
    return flask
