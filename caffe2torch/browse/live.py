"""The pages of ``caffe2torch serve``: the same parts as the page of ``search``, and a place to drop a picture on."""

from __future__ import annotations

from collections.abc import Sequence

from caffe2torch.browse.answers import Answer
from caffe2torch.browse.gallery import Gallery
from caffe2torch.browse.markup import Markup, joined, markup
from caffe2torch.browse.page import data_picture
from caffe2torch.browse.parts import Picture, Source, answer_section, document, footer, header, image, legend
from caffe2torch.browse.pictures import Thumbnail

# Formats by name, not image/*: phones then convert their own (HEIC) to JPEG.
ACCEPT = "image/jpeg,image/png,image/webp,image/gif,image/bmp,image/tiff,.ppm,.pgm"
CHOICES = (10, 20, 50, 100)

_HEAD = Markup(
    '<link rel="icon" href="data:,">\n<link rel="stylesheet" href="/page.css">\n<script src="/page.js" defer></script>'
)


def stored_picture(number: int, small: Thumbnail | None, *, k: int) -> Picture | None:
    """A picture of the database, by its number, leading to the ``k`` most like it."""
    if small is None:
        return None
    return Picture(f"/picture/{number}", small.width, small.height, tiny=small.tiny, link=f"/like/{number}?k={k}")


def live_page(gallery: Gallery, content: Markup, *, k: int, most_bytes: int) -> Markup:
    """The page around ``content``, with the form on top."""
    body = joined(
        [
            header(gallery, "Find pictures like yours"),
            _form(gallery, k, most_bytes),
            markup('<main id="content">{}</main>', content),
            footer(gallery),
        ]
    )
    return document(f"Search in {gallery.path.name}", _HEAD, body)


def _form(gallery: Gallery, k: int, most_bytes: int) -> Markup:
    counts = sorted({min(count, len(gallery)) for count in (*CHOICES, k)})
    options = joined(
        markup('<option value="{}"{}>{}</option>', count, Markup(" selected") if count == k else Markup(), count)
        for count in counts
    )
    return markup(
        '<form id="search" class="drop" action="/search" method="post" enctype="multipart/form-data" '
        'data-most="{}"><label class="pick"><input type="file" name="picture" accept="{}" required>'
        "<b>Choose a picture</b><span>or take one, drop it here, or paste it</span></label>"
        '<div class="more"><label>results <select name="k">{}</select></label><button>Search</button></div>'
        '<p class="small">JPEG, PNG, WebP, GIF, BMP or TIFF, up to {} MB. It stays on the computer that runs this '
        "page, and is not kept.</p></form>",
        most_bytes,
        ACCEPT,
        options,
        f"{most_bytes / (1 << 20):.4g}",
    )


def answer_content(gallery: Gallery, answer: Answer, source: Source) -> Markup:
    """A query and its results."""
    section = answer_section(answer, gallery, data_picture(answer.query.thumbnail), source)
    return joined([legend(), section, markup('<p class="back"><a href="/">other pictures of the database</a></p>')])


def samples_content(gallery: Gallery, numbers: Sequence[int], source: Source) -> Markup:
    """Some pictures of the database to begin with."""
    items = joined(markup("<li>{}</li>", image(source(number), gallery.name(number))) for number in numbers)
    return markup(
        '<section class="samples"><h2>Or start from a picture of the database</h2><ul>{}</ul>'
        '<p><a href="/">show others</a></p></section>',
        items,
    )


def problem_content(message: str) -> Markup:
    """What was wrong with a request."""
    return markup('<p class="problem" role="alert">{}</p><p class="back"><a href="/">start again</a></p>', message)
