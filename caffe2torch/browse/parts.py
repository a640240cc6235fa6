"""The parts that the page of ``search`` and the pages of ``serve`` are made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from caffe2torch import __version__
from caffe2torch.browse.answers import Answer, Hit, Query
from caffe2torch.browse.gallery import Gallery
from caffe2torch.browse.markup import Markup, joined, markup
from caffe2torch.browse.strip import strip
from caffe2torch.browse.text import ORIGINS
from caffe2torch.retrieval.codes import unpack

MISSING = '<span class="missing">'  # begins the placeholder of a picture that is not there


@dataclass(frozen=True)
class Picture:
    """What is shown of a picture: an address (or data URI), its size where known, and where a click leads."""

    src: str
    width: int = 0
    height: int = 0
    tiny: bool = False
    link: str = ""


Source = Callable[[int], "Picture | None"]
"""The picture of the database with a number; None where its file is not to be found."""


def document(title: str, head: Markup, body: Markup) -> Markup:
    """An HTML document around the parts of a page."""
    return markup(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{head}\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        "<title>{title}</title>\n</head>\n<body>\n{body}\n</body>\n</html>\n",
        head=head,
        title=title,
        body=body,
    )


@lru_cache(maxsize=1)
def stylesheet() -> str:
    """The style of all pages."""
    return resources.files("caffe2torch.browse").joinpath("page.css").read_text("utf-8")


def header(gallery: Gallery, title: str) -> Markup:
    """The title, and one line on what is searched."""
    model = markup(" made by <b>{}</b>", gallery.model_name) if gallery.model_name else Markup()
    return markup(
        '<header class="top"><h1>{}</h1><p><b>{}</b> in <b>{}</b>, codes of <b>{} bits</b>{}</p></header>',
        title,
        counted(len(gallery), "picture"),
        gallery.path.name,
        gallery.bits,
        model,
    )


def legend() -> Markup:
    """What the boxes and colours mean."""
    return markup(
        '<p class="legend"><span><i class="key one"></i>bit is 1</span><span><i class="key zero"></i>bit is 0</span>'
        '<span><i class="key one off"></i><i class="key zero off"></i>differs from the query</span></p>'
    )


def answer_section(
    answer: Answer, gallery: Gallery, query_picture: Picture | None, source: Source, *, number: int = 1
) -> Markup:
    """A query and its results."""
    cards = joined(_card(hit, gallery, source(hit.id), itself=hit.id == answer.query.id) for hit in answer.hits)
    if not answer.hits:
        cards = markup('<li class="none">no picture is as near as that</li>')
    return markup(
        '<section class="answer" id="q{}">\n{}\n<ol class="hits">\n{}\n</ol>\n</section>',
        number,
        _query(answer, gallery, query_picture),
        cards,
    )


def _query(answer: Answer, gallery: Gallery, picture: Picture | None) -> Markup:
    query = answer.query
    return markup(
        '<div class="query"><div class="frame">{}</div><div class="about"><p class="kind">Query</p>'
        "<h2>{}</h2>{}{}{}{}</div></div>",
        image(picture, query.name),
        _path(query.name),
        _query_label(query, gallery),
        strip(unpack(query.packed[None], gallery.bits)[0].tolist(), compared=False),
        markup('<p class="found">{}</p>', _found(answer)),
        markup('<p class="note">{}</p>', query.note) if query.note else Markup(),
    )


def _query_label(query: Query, gallery: Gallery) -> Markup:
    origin = markup('<span class="origin">{}</span>', ORIGINS[query.origin])
    if query.labels is None:
        return markup('<p class="labels">{}</p>', origin)
    return markup('<p class="labels"><span class="chip">{}</span>{}</p>', gallery.label_text(query.labels), origin)


def _found(answer: Answer) -> str:
    hits = answer.hits
    if not hits:
        return "no results"
    distances = [hit.distance for hit in hits]
    near, far = min(distances), max(distances)
    away = f"{near} to {far} bits away" if near != far else "with the same code" if not far else _away(far)
    text = f"{counted(len(hits), 'result')}, {away}"
    return text if answer.relevant is None else f"{text}; {answer.relevant} of them with the query's label"


def _away(distance: int) -> str:
    return f"{counted(distance, 'bit')} away"


def _card(hit: Hit, gallery: Gallery, picture: Picture | None, *, itself: bool) -> Markup:
    verdict = {True: " right", False: " wrong", None: ""}[hit.relevant]
    return markup(
        '<li class="card{}"><div class="frame">{}<span class="rank">{}</span></div>'
        '<p class="row"><b class="distance">{}</b>{}{}</p>{}<p class="path" title="{}">{}</p></li>',
        verdict,
        image(picture, hit.name),
        f"{hit.rank} · the query" if itself else hit.rank,
        "same code" if not hit.distance else counted(hit.distance, "bit"),
        _fine(hit),
        _chip(hit, gallery),
        strip(hit.code, hit.differing),
        hit.name,
        _path(hit.name),
    )


def _fine(hit: Hit) -> Markup:
    """The distance that decided the order, where it was not the code's."""
    if hit.feature_distance is None:
        return Markup()
    return markup(
        '<span class="fine" title="distance of the features">features {}</span>', f"{hit.feature_distance:.4g}"
    )


def _chip(hit: Hit, gallery: Gallery) -> Markup:
    if hit.labels is None:
        return Markup()
    sign, kind, words = {
        True: ("✓ ", " right", "the query's label: "),
        False: ("✗ ", " wrong", "another label: "),
        None: ("", "", "label: "),
    }[hit.relevant]
    text = gallery.label_text(hit.labels)
    return markup('<span class="chip{}" title="{}{}">{}{}</span>', kind, words, text, sign, text)


def _path(name: str) -> Markup:
    """Folder and file name apart, so that the folder is what is cut where there is no room."""
    cut = max(name.rfind("/"), name.rfind("\\")) + 1
    return markup('<span class="folder">{}</span><bdi class="file">{}</bdi>', name[:cut], name[cut:])


def image(picture: Picture | None, name: str) -> Markup:
    """The picture, or in its place the name of one that is missing."""
    if picture is None:
        return markup(MISSING + "<span>picture not found</span><bdi>{}</bdi></span>", name)
    size = markup(' width="{}" height="{}"', picture.width, picture.height) if picture.width else Markup()
    kind = Markup(' class="tiny"') if picture.tiny else Markup()
    shown = markup('<img src="{}" alt="{}"{}{} decoding="async">', picture.src, name, size, kind)
    return markup('<a href="{}" title="search with {}">{}</a>', picture.link, name, shown) if picture.link else shown


def footer(gallery: Gallery, *, fine: str | None = None) -> Markup:
    """How the ranking is made (``fine`` is the metric of features, where they had a say) and how the codes were."""
    order = (
        f"The nearest by Hamming distance, the number of bits that differ, ranked by the {fine} distance of their "
        "features."
        if fine
        else "Ranked by Hamming distance: the number of bits that differ. Equal distances stand in the order of the "
        "database."
    )
    rows = joined(markup("<dt>{}</dt><dd>{}</dd>", name, value) for name, value in _facts(gallery))
    return markup(
        "<footer><p>{}</p>\n<details><summary>How the codes were made</summary><dl>{}</dl></details>\n"
        "<p>caffe2torch {}</p></footer>",
        order,
        rows or markup("<dt>unknown</dt><dd>the codes file does not say</dd>"),
        __version__,
    )


def _facts(gallery: Gallery) -> list[tuple[str, str]]:
    recorded = gallery.provenance
    runs = recorded.get("runs")
    dates = [str(run.get("date")) for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []
    values: dict[str, Any] = {
        "model": recorded.get("model"),
        "blob": recorded.get("blob"),
        "net, sha256": recorded.get("net_sha256"),
        "weights, sha256": recorded.get("weights_sha256"),
        "mean image, sha256": recorded.get("mean_sha256"),
        "preprocessing": json.dumps(recorded["preprocessing"]) if recorded.get("preprocessing") else None,
        "precision": recorded.get("precision"),
        "date": ", ".join(dates),
    }
    return [(name, str(value)) for name, value in values.items() if value]


def counted(number: int, thing: str) -> str:
    """``1 picture``, ``50,000 pictures``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")
