"""What the local page answers: whole pages, thumbnails, JSON for programs, and why a request was refused."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from caffe2torch.browse.answers import Query
from caffe2torch.browse.gallery import Gallery, Wanted
from caffe2torch.browse.live import answer_content, live_page, problem_content, samples_content, stored_picture
from caffe2torch.browse.markup import Markup
from caffe2torch.browse.parts import Source
from caffe2torch.browse.pictures import THREADS, Thumbnail
from caffe2torch.browse.text import to_dict
from caffe2torch.browse.upload import Uploads
from caffe2torch.errors import MissingPackageError

if TYPE_CHECKING:
    from flask import Response

MOST_RESULTS = 200
SAMPLES = 24
CACHED = 2000  # thumbnails kept, 20 MB


class Refused(Exception):
    """A request that cannot be answered; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Pages:
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


def too_large(max_bytes: int) -> str:
    return f"the picture is larger than the {max_bytes / (1 << 20):.4g} MB taken here; make it smaller first"


def need_flask() -> Any:
    """The package; MissingPackageError says how to install it."""
    try:
        import flask
    except ImportError as error:
        raise MissingPackageError(
            "the local page needs the package flask: pip install 'caffe2torch[serve]' (or pip install flask)"
        ) from error
    return flask
