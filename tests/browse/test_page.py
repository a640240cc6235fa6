"""The self-contained page, read back with html.parser and held against a ranking made bit by bit."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from browse.conftest import Database, naive_ranking
from browse.parsed import Node, parse
from caffe2torch.browse.answers import Query
from caffe2torch.browse.gallery import Gallery, Wanted
from caffe2torch.browse.markup import markup, printable
from caffe2torch.browse.page import MOST_PICTURES, page, write_page
from caffe2torch.browse.strip import strip
from caffe2torch.errors import UsageError
from caffe2torch.retrieval.codes import Codes
from caffe2torch.retrieval.index import Index
from pictures import draw

HOSTILE = "a\"b'c<script>alert(1)</script>&amp;/</title>\u202e\udcff\x1b[31m\n.png"


def gallery_of(
    names: list[str], *, bits: int = 48, labels: list[int] | None = None, root: Path | None = None
) -> Gallery:
    """A database with random codes."""
    packed = np.random.RandomState(0).randint(0, 256, (len(names), bits // 8), np.uint8)
    codes = Codes(
        packed, bits, tuple(names), {"model": "some <model>"}, labels=None if labels is None else np.array(labels)
    )
    return Gallery(Path("codes.h5"), Index.of(codes), root=root)


def made(gallery: Gallery, queries: list[Query], **wanted: int) -> Node:
    return parse(page(gallery.answer(queries, Wanted(**{"k": len(gallery), **wanted})), gallery))


def test_results_are_the_ranking(database: Database) -> None:
    gallery = Gallery.open(database.path)
    text = page(gallery.answer([gallery.query(3), gallery.query(7)], Wanted(10)), gallery)
    sections = parse(text).all("section", "answer")
    assert len(sections) == 2
    for section, row in zip(sections, (3, 7), strict=True):
        ranking = naive_ranking(database.codes, database.codes.packed[row])[:10]
        cards = section.all("li", "card")
        assert [card.one("p", "path").attributes["title"] for card in cards] == [
            database.codes.paths[other] for other, _ in ranking
        ]
        shown = [card.one("b", "distance").text for card in cards]
        assert shown == [f"{d} bit{'s' * (d != 1)}" if d else "same code" for _, d in ranking]
        assert [int(card.one("span", "rank").text.split()[0]) for card in cards] == list(range(1, 11))


def test_coloured_boxes_are_the_differing_bits(database: Database) -> None:
    gallery = Gallery.open(database.path)
    own = database.codes.unpacked()[0]
    for card in made(gallery, [gallery.query(0)]).all("li", "card"):
        row = database.codes.paths.index(card.one("p", "path").attributes["title"])
        drawn = {bit: (kind, coloured) for bit, kind, coloured in boxes(card)}
        code = database.codes.unpacked()[row]
        assert drawn == {bit: (bool(code[bit]), bool(code[bit] != own[bit])) for bit in range(48)}


def boxes(card: Node) -> list[tuple[int, bool, bool]]:
    """(bit, whether it is 1, whether it is coloured) of every box in a strip of 2 lines with 24 bits."""
    found = []
    for path in card.one("svg", "strip").all("path"):
        kinds = path.attributes["class"].split()
        for outline in path.attributes["d"].split("z"):
            corner = re.match(r"M(\d+) (\d+)", outline)
            if corner is None or int(corner[1]) % 10:  # the hole of a hollow box begins inside it
                continue
            found.append((int(corner[1]) // 10 + 24 * (int(corner[2]) // 14), "one" in kinds, "off" in kinds))
    return found


def test_nothing_is_loaded_and_nothing_runs(database: Database) -> None:
    gallery = Gallery.open(database.path)
    root = made(gallery, [gallery.query(0), gallery.query(1)])
    for node in root.all():
        assert node.tag not in {
            "script",
            "link",
            "iframe",
            "object",
            "embed",
            "base",
            "form",
            "video",
            "audio",
            "source",
        }
        assert not any(name.startswith("on") or name in {"style", "srcset"} for name in node.attributes)
        assert node.attributes.get("src", "data:image/").startswith("data:image/")
        assert node.attributes.get("href", "#").startswith("#")
    assert not re.search(r"url\(|@import|image-set|</", root.one("style").text)


def test_content_security_policy_admits_the_style_and_no_more(database: Database) -> None:
    gallery = Gallery.open(database.path)
    head = made(gallery, [gallery.query(0)]).one("head")
    assert head.children[0].attributes == {"charset": "utf-8"}
    assert head.children[1].attributes["http-equiv"] == "Content-Security-Policy"  # before what it is to govern
    rules = dict(rule.strip().split(" ", 1) for rule in head.children[1].attributes["content"].split(";"))
    digest = base64.b64encode(hashlib.sha256(head.one("style").text.encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_thumbnails_show_the_pictures(database: Database) -> None:
    gallery = Gallery.open(database.path)
    for card in made(gallery, [gallery.query(0)]).all("li", "card"):
        path = card.one("p", "path").attributes["title"]
        image = card.one("img")
        kind, data = image.attributes["src"].removeprefix("data:").split(";base64,")
        small = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        whole = cv2.imread(path)
        assert (small.shape[1], small.shape[0]) == (int(image.attributes["width"]), int(image.attributes["height"]))
        if kind == "image/png":  # tiny pictures whole
            np.testing.assert_array_equal(small, whole)
        else:
            assert small.shape == whole.shape
            assert np.abs(small.astype(int) - whole).mean() < 8


def test_large_pictures_become_small_ones(tmp_path: Path) -> None:
    draw(tmp_path / "wide.png", 1, (300, 1200))
    gallery = gallery_of(["wide.png"], root=tmp_path)
    card = made(gallery, [gallery.query(0)]).one("li", "card")
    assert (card.one("img").attributes["width"], card.one("img").attributes["height"]) == ("256", "64")


@pytest.mark.parametrize(
    "name", [HOSTILE, "<img src=x onerror=alert(1)>", "x' onmouseover='alert(1)", "{0}{name}", "-->"]
)
def test_names_are_text(name: str) -> None:
    gallery = gallery_of([name, "b.png"])
    query = Query(name, gallery.query(0).packed, "hashed", note=name)
    text = page(gallery.answer([query], Wanted(2)), gallery)
    text.encode("utf-8")
    root = parse(text)
    assert not root.all("script")
    assert [img for img in root.all("img") if "onerror" in img.attributes] == []
    card = root.all("li", "card")[0] if root.all("li", "card")[0].one("b", "distance").text == "same code" else None
    assert card is not None
    assert card.one("p", "path").attributes["title"] == printable(name)
    assert root.one("p", "note").text == printable(name)


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_survives_as_text_and_as_attribute(text: str) -> None:
    node = parse(markup('<p title="{}">{}</p>', text, text)).one("p")
    assert node.attributes["title"] == node.text == printable(text)
    assert node.children == []
    assert printable(text).isprintable()


def test_missing_pictures_have_their_path_in_place(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    names = ["gone/away.png", "broken.png", "nul\0.png", "x" * 5000 + ".png", "."]
    gallery = gallery_of(names, root=tmp_path)
    root = made(gallery, [gallery.query(0)])
    cards = root.all("li", "card")
    assert len(cards) == 5
    assert not root.all("img")
    assert {card.one("span", "missing").one("bdi").text for card in cards} == {printable(name) for name in names}


def test_labels_and_whether_they_are_the_query_s(database: Database) -> None:
    gallery = Gallery.open(database.path)
    gallery.label_names = ("cat", "dog & co")
    assert database.codes.labels is not None
    root = made(gallery, [gallery.query(1)])
    assert root.one("div", "query").one("span", "chip").text == "dog & co"
    for card in root.all("li", "card"):
        row = database.codes.paths.index(card.one("p", "path").attributes["title"])
        label = int(database.codes.labels[row])
        right = label == 1
        assert card.one("span", "chip").text == f"{'✓' if right else '✗'} {['cat', 'dog & co', '2'][label]}"
        assert ("right" in card.attributes["class"], "wrong" in card.attributes["class"]) == (right, not right)
    assert "4 of them with the query's label" in root.one("p", "found").text


def test_without_labels_nothing_is_right_or_wrong(database: Database) -> None:
    gallery = Gallery.open(database.path)
    query = Query("mine", database.codes.packed[0], "hashed")
    root = made(gallery, [query])
    assert not root.all(None, "right")
    assert not root.all(None, "wrong")
    assert [chip.text for chip in root.all("span", "chip")][:1] == ["0"]
    assert not made(gallery_of(["a", "b"]), [query]).all("span", "chip")


def test_the_query_is_marked_among_its_results(database: Database) -> None:
    gallery = Gallery.open(database.path)
    cards = made(gallery, [gallery.query(5)]).all("li", "card")
    marked = [card.one("p", "path").attributes["title"] for card in cards if "the query" in card.one(None, "rank").text]
    assert marked == [database.codes.paths[5]]


def test_several_queries_have_a_table_of_contents(database: Database) -> None:
    gallery = Gallery.open(database.path)
    root = made(gallery, [gallery.query(0), gallery.query(1)])
    targets = {node.attributes["id"] for node in root.all("section")}
    assert {link.attributes["href"].removeprefix("#") for link in root.one("nav").all("a")} == targets
    assert not made(gallery, [gallery.query(0)]).all("nav")


def test_nothing_within_the_radius() -> None:
    gallery = gallery_of(["a"])
    query = Query("q", ~gallery.query(0).packed, "hashed")
    root = parse(page(gallery.answer([query], Wanted(radius=2)), gallery))
    assert not root.all("li", "card")
    assert "no picture is as near" in root.one("li", "none").text


def test_too_many_pictures_for_one_page(tmp_path: Path) -> None:
    gallery = gallery_of([f"{n}" for n in range(100)])
    answers = gallery.answer([gallery.query(0)], Wanted(100)) * (MOST_PICTURES // 100 + 1)
    with pytest.raises(UsageError, match="give fewer queries"):
        write_page(tmp_path / "x.html", answers, gallery)
    assert not list(tmp_path.iterdir())


def test_long_codes_are_shown_in_part() -> None:
    code = [True] * 1024
    root = parse(strip(code, list(range(100))))
    assert root.one("p", "cut").text == "the first 512 of 1024 bits"
    assert root.one("svg").attributes["aria-label"].startswith("100 of 1024 bits differ: 0, 1, 2,")
    assert root.one("svg").attributes["viewbox"] == "0 0 640 112"
