"""The self-contained page of ``caffe2torch search --html``.

It has no script and loads nothing: the style stands inside, thumbnails are data URIs, and its content security policy
forbids all else. So it works from file://, sent by mail, and for ever.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from caffe2torch.browse.answers import Answer
from caffe2torch.browse.gallery import Gallery
from caffe2torch.browse.markup import Markup, joined, markup
from caffe2torch.browse.parts import (
    MISSING,
    Picture,
    Source,
    answer_section,
    document,
    footer,
    header,
    legend,
    stylesheet,
)
from caffe2torch.browse.pictures import Thumbnail
from caffe2torch.errors import UsageError
from caffe2torch.files import atomic_path

MOST_PICTURES = 3000  # in one page: some 40 MB, and as much as a phone can show


def check_size(path: str | Path, pictures: int) -> None:
    """UsageError when a page would hold more pictures than a browser likes."""
    if pictures > MOST_PICTURES:
        raise UsageError(
            f"{path}: the page would hold {pictures:,} pictures, more than {MOST_PICTURES:,}; give fewer queries, a "
            "smaller -k or a smaller --radius"
        )


def write_page(path: str | Path, answers: Sequence[Answer], gallery: Gallery, *, fine: str | None = None) -> int:
    """Write the page, complete or not at all; returns how many of its pictures have only a placeholder."""
    check_size(path, sum(1 + len(answer.hits) for answer in answers))
    text = page(answers, gallery, fine=fine)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return text.count(MISSING)


def page(answers: Sequence[Answer], gallery: Gallery, *, fine: str | None = None) -> Markup:
    """The page as text; ``fine`` names the metric of features, where they decided the order."""
    source = _stored(gallery, answers)
    sections = joined(
        answer_section(answer, gallery, data_picture(answer.query.thumbnail), source, number=number)
        for number, answer in enumerate(answers, start=1)
    )
    body = joined(
        [header(gallery, "Search results"), _contents(answers), legend(), sections, footer(gallery, fine=fine)]
    )
    style = stylesheet()
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = markup('<meta http-equiv="Content-Security-Policy" content="{}">\n<style>{}</style>', policy, Markup(style))
    return document(f"Search in {gallery.path.name}", head, body)


def data_picture(small: Thumbnail | None) -> Picture | None:
    """A thumbnail within the page."""
    if small is None:
        return None
    text = base64.b64encode(small.data).decode("ascii")
    return Picture(f"data:{small.type};base64,{text}", small.width, small.height, tiny=small.tiny)


def _stored(gallery: Gallery, answers: Sequence[Answer]) -> Source:
    """Pictures of the database; one found for several queries is read once."""
    names = {hit.id: hit.name for answer in answers for hit in answer.hits}
    small = gallery.places.thumbnails(list(names.values()))
    return dict(zip(names, map(data_picture, small), strict=True)).get


def _contents(answers: Sequence[Answer]) -> Markup:
    """Links to the queries, where there are several."""
    if len(answers) < 2:
        return Markup()
    links = joined(
        markup('<a href="#q{}">{}</a>', number, PurePosixPath(answer.query.name).name or answer.query.name)
        for number, answer in enumerate(answers, start=1)
    )
    return markup('<nav class="contents" aria-label="queries">{}</nav>', links)
