"""The local page, asked through Flask's test client."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from browse.conftest import Database, naive_ranking
from browse.parsed import parse
from caffe2torch.browse.app import HEADERS, make_app
from caffe2torch.browse.gallery import Gallery
from caffe2torch.browse.responses import MOST_RESULTS
from caffe2torch.browse.same_model import Given, recorded_model
from caffe2torch.browse.serving import is_local, own_names
from caffe2torch.browse.upload import MAX_PIXELS, Uploads
from caffe2torch.extract import Hasher
from caffe2torch.retrieval.readers import read_codes
from pictures import draw

pytest.importorskip("flask")

LIMIT = 200_000


@pytest.fixture(scope="module")
def client(database: Database) -> Any:
    gallery = Gallery.open(database.path)
    uploads = Uploads(gallery, Hasher(recorded_model(database.path, database.codes.provenance, Given())))
    return make_app(gallery, uploads, hosts=["photos.example"], max_bytes=LIMIT, k=5).test_client()


def upload(client: Any, data: bytes, name: str = "x.png", *, k: str | None = None, accept: str = "text/html") -> Any:
    form: dict[str, Any] = {"picture": (io.BytesIO(data), name)}
    return client.post("/search", data={**form, **({"k": k} if k is not None else {})}, headers={"Accept": accept})


def problem(response: Any) -> str:
    return parse(response.text).one("p", "problem").text


def claiming(width: int, height: int) -> bytes:
    """A JPEG of 8 x 8 pixels whose header claims another size."""
    data = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


def test_start_page_shows_pictures_of_the_database(client: Any) -> None:
    response = client.get("/")
    assert response.status_code == 200
    images = parse(response.text).one("section", "samples").all("img")
    assert sorted(int(image.attributes["src"].removeprefix("/picture/")) for image in images) == list(range(12))


def test_an_upload_finds_the_ranking(client: Any, database: Database) -> None:
    data = Path(database.codes.paths[5]).read_bytes()
    root = parse(upload(client, data, "mine.png", k="12").text)
    cards = root.all("li", "card")
    ranking = naive_ranking(database.codes, database.codes.packed[5])
    assert [card.one("p", "path").attributes["title"] for card in cards] == [
        database.codes.paths[r] for r, _ in ranking
    ]
    assert root.one("div", "query").one("h2").text == "mine.png"
    assert root.one("div", "query").one("img").attributes["src"].startswith("data:image/png;base64,")


def test_programs_get_json(client: Any, database: Database) -> None:
    data = Path(database.codes.paths[5]).read_bytes()
    (answer,) = upload(client, data, k="4", accept="application/json").json["queries"]
    ranking = naive_ranking(database.codes, database.codes.packed[5])[:4]
    assert [(hit["id"], hit["distance"]) for hit in answer["results"]] == ranking
    assert upload(client, b"x", accept="application/json").json["error"].startswith("x.png: not a picture")


def test_pictures_of_the_database_as_queries(client: Any, database: Database) -> None:
    root = parse(client.get("/like/7").text)
    ranking = naive_ranking(database.codes, database.codes.packed[7])[:5]
    links = [card.one("a").attributes["href"] for card in root.all("li", "card")]
    assert links == [f"/like/{row}?k=5" for row, _ in ranking]
    assert len(parse(client.get("/like/7?k=2").text).all("li", "card")) == 2


def test_pictures_leave_only_as_thumbnails_by_number(client: Any, database: Database) -> None:
    response = client.get("/picture/1")
    assert response.content_type == "image/png"
    sent = cv2.imdecode(np.frombuffer(response.data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(sent, cv2.imread(database.codes.paths[1]))


@pytest.mark.parametrize(
    "path",
    [
        "/picture/12",
        "/picture/-1",
        "/picture/99999999999999999999999",
        "/picture/0/../1",
        "/picture/1.png",
        "/picture/../../etc/passwd",
        "/picture/%2e%2e%2fetc%2fpasswd",
        "/like/12",
        "/page.py",
        "/static/app.py",
        "/etc/passwd",
    ],
)
def test_there_is_nothing_else(client: Any, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert b"root:" not in response.data


@pytest.mark.parametrize("method, path", [("get", "/search"), ("post", "/"), ("put", "/search"), ("delete", "/like/0")])
def test_other_methods_are_refused(client: Any, method: str, path: str) -> None:
    assert getattr(client, method)(path).status_code == 405


def test_every_response_has_the_security_headers(client: Any) -> None:
    pages = [client.get(p) for p in ("/", "/like/0", "/picture/0", "/page.css", "/page.js", "/nowhere")]
    for response in [*pages, upload(client, b"x"), upload(client, bytes(LIMIT * 2))]:
        assert {name: response.headers[name] for name in HEADERS} == HEADERS
        assert "Cache-Control" in response.headers


def test_pages_load_only_what_the_policy_admits(client: Any) -> None:
    for page in ("/", "/like/3"):
        root = parse(client.get(page).text)
        assert [script.attributes["src"] for script in root.all("script")] == ["/page.js"]
        assert [link.attributes["href"] for link in root.all("link")] == ["data:,", "/page.css"]
        for node in root.all():
            assert not any(name.startswith("on") or name == "style" for name in node.attributes)
            assert node.attributes.get("src", "/").startswith(("/picture/", "data:image/", "/page.js", "/"))
    assert client.get("/page.js").content_type.startswith("text/javascript")
    assert client.get("/page.css").content_type.startswith("text/css")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9000", "127.0.0.1:8000", "[::1]:80", "192.168.1.7", "PHOTOS.example:1"]
)
def test_names_of_this_machine(client: Any, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "evil:127.0.0.1", "", "[::1].evil"],
)
def test_other_names_are_refused(client: Any, host: str) -> None:
    assert client.get("/picture/0", headers={"Host": host}).status_code in (400, 403)


@pytest.mark.parametrize("path", ["/", "/like/0", "/nothing"])
def test_other_names_learn_nothing_about_the_database(client: Any, path: str) -> None:
    response = client.get(path, headers={"Host": "evil.example"})
    assert (response.status_code, response.mimetype) == (403, "text/plain")
    assert response.text.startswith("this page is not called 'evil.example'")
    assert "codes.h5" not in response.text
    assert "ssdh48_small" not in response.text


def test_other_sites_may_not_search(client: Any, database: Database) -> None:
    data = {"picture": (io.BytesIO(Path(database.codes.paths[0]).read_bytes()), "x.png")}
    assert client.post("/search", data=data, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


@pytest.mark.parametrize(
    "data, status, message",
    [
        (b"", 422, "the file is empty"),
        (b"GIF89a", 422, "cut short|damaged"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", 422, "not a picture"),
        (b"%PDF-1.4", 422, "not a picture"),
        (bytes(LIMIT + 1), 413, "larger than the 0.1907 MB"),
        (bytes(LIMIT * 3), 413, "larger than the 0.1907 MB"),
        (claiming(9000, 9000), 422, "9000 x 9000 pixels, more than the 64 million"),
        (claiming(65535, 65535), 422, "pixels, more than the 64 million"),
        (claiming(5, 0), 422, "0"),
        (claiming(8, 8)[:-30], 422, "damaged|cut short|ends"),
    ],
    ids=["empty", "cut", "svg", "pdf", "large", "larger", "bomb", "overflow", "no-pixels", "half"],
)
def test_bad_uploads(client: Any, data: bytes, status: int, message: str) -> None:
    response = upload(client, data)
    assert response.status_code == status
    assert re.search(message, problem(response))


def test_a_bomb_is_refused_before_it_is_decoded(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caffe2torch.browse.upload.decode", lambda *a, **k: pytest.fail("decoded"))
    side = int(MAX_PIXELS**0.5) + 1
    assert upload(client, claiming(side, side)).status_code == 422


@pytest.mark.parametrize("k", ["0", "-1", "1e3", "x", "13", str(MOST_RESULTS + 1), "9" * 50, "²", ""])
def test_impossible_numbers_of_results(client: Any, database: Database, k: str) -> None:
    data = Path(database.codes.paths[0]).read_bytes()
    response = upload(client, data, k=k)
    assert response.status_code == 400
    assert problem(response).startswith("k is ")
    assert client.get(f"/like/0?k={k}").status_code == 400


@pytest.mark.parametrize("form", [{}, {"picture": "text"}, {"other": (io.BytesIO(b"x"), "x.png")}])
def test_a_form_without_a_picture(client: Any, form: dict[str, Any]) -> None:
    response = client.post("/search", data=form, content_type="multipart/form-data")
    assert response.status_code == 400
    assert "choose one first" in problem(response)


def test_two_pictures_or_a_thousand_fields(client: Any) -> None:
    two = {"picture": [(io.BytesIO(b"x"), "x.png"), (io.BytesIO(b"x"), "y.png")]}
    assert client.post("/search", data=two).status_code == 400
    many = {f"f{number}": "x" for number in range(1000)}
    assert client.post("/search", data=many, content_type="multipart/form-data").status_code == 413


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "C:\\x\\<script>alert(1)</script>.png", "a\"b'&.png", "\u202ex" * 99]
)
def test_names_of_uploads_are_only_shown(client: Any, database: Database, name: str) -> None:
    response = upload(client, Path(database.codes.paths[0]).read_bytes(), name)
    root = parse(response.text)
    shown = root.one("div", "query").one("h2").text
    assert response.status_code == 200
    assert len(root.all("script")) == 1
    assert not re.search(r"[/\u202e]|\\x\\", shown)
    assert len(shown) <= 120


def test_a_picture_stored_sideways_is_hashed_as_it_is_and_said_so(client: Any, tmp_path: Path) -> None:
    draw(tmp_path / "a.jpg", 3, (60, 90))
    plain = (tmp_path / "a.jpg").read_bytes()
    tiff = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 274, 3, 1, 6, 0) + b"\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    turned = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    codes = [upload(client, data, accept="application/json").json["queries"][0] for data in (plain, turned)]
    assert codes[0]["code"] == codes[1]["code"]
    assert codes[0]["note"] is None
    assert "stored sideways" in codes[1]["note"]


def test_pictures_whose_files_are_gone(database: Database, tmp_path: Path) -> None:
    gallery = Gallery.open(database.path, root=tmp_path)
    uploads = Uploads(gallery, Hasher(recorded_model(database.path, database.codes.provenance, Given())))
    client: Any = make_app(gallery, uploads).test_client()
    assert client.get("/picture/0").status_code == 404
    root = parse(client.get("/like/0").text)
    assert len(root.all("span", "missing")) == 13
    assert client.get("/").status_code == 200


def test_the_same_code_as_extract_whatever_runs_beside_it(client: Any, database: Database) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def ask(row: int) -> str:
        data = Path(database.codes.paths[row]).read_bytes()
        return str(upload(client.application.test_client(), data, accept="application/json").json["queries"][0]["code"])

    with ThreadPoolExecutor(6) as pool:
        codes = list(pool.map(ask, range(12)))
    expected = ["".join("01"[bit] for bit in row) for row in read_codes(database.path).unpacked().astype(int)]
    assert codes == expected


def test_which_addresses_are_local() -> None:
    assert [is_local(host) for host in ("127.0.0.1", "127.9.9.9", "localhost", "::1")] == [True] * 4
    assert [is_local(host) for host in ("0.0.0.0", "::", "192.168.0.1", "example.org")] == [False] * 4
    assert own_names("127.0.0.1") == []
    assert "0.0.0.0" in own_names("0.0.0.0")


def test_a_thing_that_goes_wrong_inside_shows_no_traceback(
    client: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Uploads, "query", lambda *a: 1 / 0)
    response = upload(client, Path(database.codes.paths[0]).read_bytes())
    assert response.status_code == 500
    assert "ZeroDivision" not in response.text
    assert problem(response) == "500 Internal Server Error"
