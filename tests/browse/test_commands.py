"""``caffe2torch search``, ``serve`` and ``index`` as a user types them."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from browse.conftest import Database, naive_ranking
from browse.parsed import parse
from caffe2torch import zoo
from caffe2torch.cli import main
from caffe2torch.extract import extract
from caffe2torch.retrieval.readers import read_codes
from pictures import draw


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path, status: int = 1) -> str:
    assert main([str(argument) for argument in arguments]) == status
    return capsys.readouterr().err


def test_search_prints_a_table(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", str(database.path), database.codes.paths[3], "-k", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{database.codes.paths[3]}  (code from the database, label 0)"
    assert lines[1].split() == ["rank", "distance", "label", "path"]
    ranking = naive_ranking(database.codes, database.codes.packed[3])[:4]
    assert database.codes.labels is not None
    for rank, (line, (row, distance)) in enumerate(zip(lines[2:6], ranking, strict=True), start=1):
        label = int(database.codes.labels[row])
        sign = "+" if label == 0 else "-"
        assert line.split() == [str(rank), str(distance), sign, str(label), database.codes.paths[row]]
    right = sum(database.codes.labels[row] == 0 for row, _ in ranking)
    assert lines[6] == f"{right} of 4 share a label with the query"


def test_search_hashes_a_new_picture_and_writes_a_page(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "new one.png", 50)
    extract("new one.png", "new.npz")
    assert main(["search", str(database.path), "new one.png", "--html", "results.html", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ranking = naive_ranking(database.codes, read_codes("new.npz").packed[0])[:10]
    assert [(hit["id"], hit["distance"]) for hit in found["queries"][0]["results"]] == ranking
    cards = parse(Path("results.html").read_text("utf-8")).all("li", "card")
    assert [card.one("p", "path").attributes["title"] for card in cards] == [
        database.codes.paths[r] for r, _ in ranking
    ]


def test_search_with_rerank_of_a_new_picture(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(tmp_path / "new.png", 50)
    command = ["search", str(database.path), "new.png", "--rerank", "pool5", "--candidates", "6", "-k", "3", "--json"]
    assert main([*command, "--html", "x.html"]) == 0
    hits = json.loads(capsys.readouterr().out)["queries"][0]["results"]
    assert [hit["feature_distance"] for hit in hits] == sorted(hit["feature_distance"] for hit in hits)
    root = parse(Path("x.html").read_text("utf-8"))
    assert "euclidean distance of their features" in root.one("footer").text
    distances = [hit["distance"] for hit in hits]
    assert f"3 results, {min(distances)} to {max(distances)} bits away" in root.one("p", "found").text
    assert "give --rerank pool5" in fails(capsys, *command[:3], "--rerank", "fc7")


def test_pictures_that_are_gone_are_counted(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    command = ["search", str(database.path), database.codes.paths[0], "-k", "3", "--html", "x.html"]
    assert main([*command, "--root", "empty"]) == 0
    assert "4 pictures of the page were not found" in capsys.readouterr().err
    assert main([*command, "--root", str(database.folder)]) == 0
    assert "4 pictures of the page were not found" in capsys.readouterr().err
    assert main(command) == 0
    assert capsys.readouterr().err == ""


def test_search_needs_no_more_than_there_is(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    few = read_codes(database.path)
    np.savez("few.npz", codes=few.packed[:3], bits=48, paths=np.array(few.paths[:3]), provenance="{}")
    assert main(["search", "few.npz", few.paths[0], "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["queries"][0]["results"]) == 3
    assert main(["search", "few.npz", few.paths[0], "--json", "--skip-self"]) == 0
    assert len(json.loads(capsys.readouterr().out)["queries"][0]["results"]) == 2
    assert "give -k 3 or less" in fails(capsys, "search", "few.npz", few.paths[0], "-k", "4")
    np.savez("one.npz", codes=few.packed[:1], bits=48, paths=np.array(few.paths[:1]), provenance="{}")
    assert "no picture besides" in fails(capsys, "search", "one.npz", few.paths[0], "--skip-self")


def test_codes_that_do_not_say_their_model(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    few = read_codes(database.path)
    np.savez("few.npz", codes=few.packed, bits=48, paths=np.array(few.paths), provenance="{}")
    draw(Path("new.png"), 50)
    assert "name it with --model NAME" in fails(capsys, "search", "few.npz", "new.png")
    assert main(["search", "few.npz", "new.png", "--json", "--model", "ssdh48_small"]) == 0
    named = json.loads(capsys.readouterr().out)["queries"]
    assert main(["search", str(database.path), "new.png", "--json"]) == 0
    assert [hit["id"] for hit in named[0]["results"]] == [
        hit["id"] for hit in json.loads(capsys.readouterr().out)["queries"][0]["results"]
    ]


def test_another_model_is_refused_or_warned_of(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    entry = zoo.entry("ssdh48_small")
    shutil.copy(zoo.find_file(entry.weights), "mine.caffemodel")
    with Path("mine.caffemodel").open("ab") as file:
        file.write(b"\x0a\x00")  # the net's name once more, empty
    draw(Path("new.png"), 50)
    own = ["search", database.path, "new.png", "--weights", "mine.caffemodel"]
    assert "mine.caffemodel is another file" in fails(capsys, *own)
    assert "--blob" in fails(capsys, *own, "--blob", "x", status=2)
    assert "say which" in fails(capsys, *own, "--another-model", status=2)
    assert main([*map(str, own), "--another-model", "--model", "ssdh48_small"]) == 0
    assert "warning" in (err := capsys.readouterr().err)
    assert "the weights" in err


@pytest.mark.parametrize(
    "options, message",
    [
        ("-k 0", "at least one"),
        ("--radius -1", "0 or more"),
        ("--candidates 0", "at least one"),
        ("--features x.npy", "--rerank"),
        ("--html no/where/x.html", "its folder does not exist"),
        ("--label-names nothing.txt", "cannot be read"),
        ("--list nothing.txt", "cannot be read"),
    ],
)
def test_impossible_options(database: Database, capsys: pytest.CaptureFixture[str], options: str, message: str) -> None:
    assert main(["search", str(database.path), database.codes.paths[0], *options.split()]) in (1, 2)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nothing.h5", "text.txt", "empty.h5"])
def test_a_database_that_is_none(capsys: pytest.CaptureFixture[str], name: str) -> None:
    Path("text.txt").write_text("x")
    Path("empty.h5").write_bytes(b"")
    assert name in fails(capsys, "search", name, "q.png")


def test_index_is_made_and_grows_and_shrinks(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", "db.index", "--add", str(database.path)]) == 0
    assert "db.index: 12 pictures (+12), codes of 48 bits by ssdh48_small" in capsys.readouterr().out
    more = [f"{draw(Path('more') / f'{n}.png', 60 + n).resolve()} {n}" for n in range(3)]
    Path("more.txt").write_text("\n".join(more))
    extract("more.txt", "more.h5")
    assert main(["index", "db.index", "--add", "more.h5", "--remove", database.codes.paths[2], "7", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["pictures"], about["before"]) == (13, 12)
    assert main(["search", "db.index", str(Path("more/1.png").resolve()), "-k", "13", "--json"]) == 0
    (query,) = json.loads(capsys.readouterr().out)["queries"]
    assert query["origin"] == "database"
    assert sorted(hit["id"] for hit in query["results"]) == [0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14]


def test_known_pictures_are_refused_skipped_or_replaced(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    index = ["index", "db.index", "--add", str(database.path)]
    assert main(index) == 0
    assert main(["index", "db.index", "--remove", "0"]) == 0
    assert "11 of its 12 pictures are in db.index already" in fails(capsys, *index)
    assert main([*index, "--known", "skip"]) == 0
    assert "12 pictures (+1, 11 skipped)" in capsys.readouterr().out
    assert main([*index, "--known", "replace"]) == 0
    assert "12 pictures (12 replaced), " in capsys.readouterr().out
    rerank = ["search", "db.index", database.codes.paths[0], "--rerank", "pool5", "--features", str(database.path)]
    assert "features of 12 pictures, but 25 were added to db.index in all" in fails(capsys, *rerank)


def test_index_is_made_in_an_empty_folder_and_where_a_writer_died(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("db.index").mkdir()
    assert main(["index", "db.index", "--add", str(database.path)]) == 0
    Path("db.index/index.json").unlink()
    assert "db.index: a folder, but no index" in fails(capsys, "search", "db.index", "q.png")
    assert "no index here" in fails(capsys, "index", "db.index", status=2)
    assert main(["index", "db.index", "--add", str(database.path)]) == 0
    assert "12 pictures (+12)" in capsys.readouterr().out
    Path("other").mkdir()
    Path("other/x.jpg").touch()
    assert "other things in it" in fails(capsys, "index", "other", "--add", str(database.path))


def test_index_refuses_what_does_not_belong(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--add CODES makes one" in fails(capsys, "index", "db.index", status=2)
    assert main(["index", "db.index", "--add", str(database.path)]) == 0
    capsys.readouterr()
    assert "recorded as 'no.png'" in fails(capsys, "index", "db.index", "--remove", "no.png")
    assert "recorded as '77', or has that number" in fails(capsys, "index", "db.index", "--remove", "77")
    few = read_codes(database.path)
    np.savez("other.npz", codes=few.packed[:, :4], bits=32, paths=np.array(few.paths), provenance="{}")
    assert "32 bits" in fails(capsys, "index", "db.index", "--add", "other.npz")
    np.savez("bare.npz", codes=few.packed, bits=48, paths=np.array([f"{n}" for n in range(12)]), provenance="{}")
    assert "bare.npz: the index has labels" in fails(capsys, "index", "db.index", "--add", "bare.npz")
    assert main(["index", "db.index"]) == 0
    assert "12 pictures, " in capsys.readouterr().out


def test_paths_of_another_folder_become_absolute(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("a", "b"):
        draw(tmp_path / folder / "p.png", ord(folder))
        monkeypatch.chdir(tmp_path / folder)
        extract("p.png", "codes.npz")
    monkeypatch.chdir(tmp_path)
    assert main(["index", "db.index", "--add", "a/codes.npz", "b/codes.npz"]) == 0
    assert main(["search", "db.index", "b/p.png", "--json", "--html", "x.html"]) == 0
    (query,) = json.loads(capsys.readouterr().out.splitlines()[-1])["queries"]
    assert sorted(hit["path"] for hit in query["results"]) == [str(tmp_path / "b" / "p.png"), "p.png"]
    assert len(parse(Path("x.html").read_text("utf-8")).all("img")) == 3


@pytest.mark.parametrize("options", ["-k 0", "-k 1000", "--max-upload 0", "--port 70000", "--host 203.0.113.9"])
def test_serve_with_impossible_options(database: Database, capsys: pytest.CaptureFixture[str], options: str) -> None:
    pytest.importorskip("flask")
    name, value = options.split()
    message = fails(capsys, "serve", database.path, name, value, status=2)
    assert value in message


def test_serve_without_flask(
    database: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flask", None)
    assert "pip install 'caffe2torch[serve]'" in fails(capsys, "serve", database.path, status=2)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_serve_answers_until_interrupted(database: Database) -> None:
    pytest.importorskip("flask")
    command = [sys.executable, "-m", "caffe2torch", "serve", str(database.path), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/", line := server.stdout.readline())
        assert found, line
        with urllib.request.urlopen(found[0], timeout=60) as response:
            assert response.headers["Server"] == "caffe2torch"
            assert b"Find pictures like yours" in response.read()
        request = urllib.request.Request(found[0], headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(request, timeout=60)
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=60)
        assert (server.returncode, err) == (0, "\nended\n")
    finally:
        server.kill()
        server.communicate()
