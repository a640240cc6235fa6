"""Downloads against a server of our own that does what bad servers do."""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from caffe2torch import download_http, zoo
from caffe2torch.commands import download as command
from caffe2torch.download import Outcome, Settings, check_weights, obtain
from caffe2torch.errors import DownloadError, OutputError, UsageError
from caffe2torch.zoo_manifest import Entry, FileEntry, Manifest, Source

BODY = random.Random(7).randbytes(1_000_003)
SHA256 = hashlib.sha256(BODY).hexdigest()
HALF = 500_000
ETAG = '"v1"'

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers each request with the next of the server's answers, the last one again and again."""

    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers))
        number = min(len(self.server.seen), len(self.server.answers)) - 1
        with contextlib.suppress(ConnectionError):
            self.server.answers[number](self)

    def head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    answers: list[Answer]
    seen: list[dict[str, str]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/model.caffemodel"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as running:
        running.answers, running.seen = [good], []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def good(handler: Handler) -> None:
    """A server that knows Range, If-Range and ETag."""
    wanted = handler.headers.get("Range")
    if wanted is None or handler.headers.get("If-Range", ETAG) != ETAG:
        handler.head(200, len(BODY), ETag=ETAG)
        handler.wfile.write(BODY)
        return
    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    if start >= len(BODY):
        handler.head(416, 0, Content_Range=f"bytes */{len(BODY)}")
        return
    content_range = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
    handler.head(206, len(BODY) - start, Content_Range=content_range, ETag=ETAG)
    handler.wfile.write(BODY[start:])


def whole(handler: Handler) -> None:
    """A server that has never heard of Range."""
    handler.head(200, len(BODY))
    handler.wfile.write(BODY)


def truncated(handler: Handler) -> None:
    handler.head(200, len(BODY), ETag=ETAG)
    handler.wfile.write(BODY[:HALF])


def dropped(handler: Handler) -> None:
    """Half of the body, then the connection is reset."""
    truncated(handler)
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.close()


def status(code: int) -> Answer:
    return lambda handler: handler.head(code, 0)


def sends(body: bytes, **headers: str) -> Answer:
    def answer(handler: Handler) -> None:
        handler.head(200, len(body), **headers)
        handler.wfile.write(body)

    return answer


class Run:
    """Everything around one call of ``obtain``: the folder, what was said, how long was waited."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.target = folder, folder / "model.caffemodel"
        self.said: list[str] = []
        self.waits: list[float] = []
        self.checked: list[Path] = []

    def __call__(self, file: FileEntry, *, retries: int = 2, force: bool = False, **more: Any) -> Outcome:
        arguments = {
            "check": self.checked.append,
            "settings": Settings(retries=retries, timeout=5, wait=self.waits.append),
            "say": self.said.append,
            "force": force,
            **more,
        }
        return obtain(file, self.folder, **arguments)

    def half(self, url: str, data: bytes = BODY[:HALF], validator: str = ETAG) -> None:
        """Leave what an interrupted download leaves."""
        (self.folder / "model.caffemodel.part").write_bytes(data)
        text = json.dumps({"url": url, "validator": validator})
        (self.folder / "model.caffemodel.part.json").write_text(text)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def entry(*urls: str, **changes: Any) -> FileEntry:
    sources = tuple(Source("direct", url) for url in urls)
    facts: dict[str, Any] = {"bytes": len(BODY), "sha256": SHA256, "sources": sources, **changes}
    return FileEntry("model.caffemodel", "none", **facts)


def test_a_file_comes_whole_and_proved(server: Server, run: Run) -> None:
    outcome = run(entry(server.url))
    assert outcome == Outcome(run.target, True, len(BODY), SHA256, "sha256")
    assert run.target.read_bytes() == BODY
    assert run.names() == ["model.caffemodel"]
    assert (run.said, run.waits) == ([], [])


def test_the_folder_is_made(server: Server, tmp_path: Path) -> None:
    run = Run(tmp_path / "a" / "b")
    assert run(entry(server.url)).path.read_bytes() == BODY


def test_progress_counts_bytes_up_to_the_total(server: Server, run: Run) -> None:
    steps: list[tuple[int, int | None]] = []
    run(entry(server.url), progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (len(BODY), len(BODY))
    assert steps == sorted(steps)


def test_what_is_here_and_proved_is_left_alone(server: Server, run: Run) -> None:
    run.target.write_bytes(BODY)
    assert not run(entry(server.url)).fetched
    assert server.seen == []


def test_force_fetches_what_is_here(server: Server, run: Run) -> None:
    run.target.write_bytes(BODY)
    assert run(entry(server.url), force=True).fetched
    assert len(server.seen) == 1


def test_a_damaged_file_is_fetched_again(server: Server, run: Run) -> None:
    run.target.write_bytes(BODY[:-1] + b"?")
    assert run(entry(server.url)).fetched
    assert run.target.read_bytes() == BODY
    assert "sha256 is" in run.said[0]


def test_a_damaged_file_stays_until_the_new_one_is_proved(server: Server, run: Run) -> None:
    run.target.write_bytes(b"old")
    server.answers = [status(404)]
    with pytest.raises(DownloadError):
        run(entry(server.url))
    assert run.target.read_bytes() == b"old"


def test_sha1_proves_where_no_sha256_is_published(server: Server, run: Run) -> None:
    sha1 = hashlib.sha1(BODY).hexdigest()
    assert run(entry(server.url, sha256=None, sha1=sha1)).proof == "sha1"
    assert run.checked == []


# --- resume


def test_resume_asks_for_the_rest_only(server: Server, run: Run) -> None:
    run.half(server.url)
    assert run(entry(server.url)).path.read_bytes() == BODY
    assert server.seen[0]["Range"] == f"bytes={HALF}-"
    assert server.seen[0]["If-Range"] == ETAG
    assert run.names() == ["model.caffemodel"]


def test_resume_starts_over_when_the_server_ignores_range(server: Server, run: Run) -> None:
    run.half(server.url)
    server.answers = [whole]
    assert run(entry(server.url)).path.read_bytes() == BODY


def test_resume_starts_over_when_the_file_changed(server: Server, run: Run) -> None:
    run.half(server.url, b"x" * HALF, validator='"v0"')
    assert run(entry(server.url)).path.read_bytes() == BODY
    assert len(server.seen) == 1


def test_a_part_of_another_source_is_not_continued(server: Server, run: Run) -> None:
    run.half("http://elsewhere.invalid/x")
    assert run(entry(server.url)).path.read_bytes() == BODY
    assert "Range" not in server.seen[0]


@pytest.mark.parametrize("note", ["", "[]", "{", '{"url": 3}'], ids=["empty", "list", "broken", "number"])
def test_a_part_of_unknown_origin_is_not_continued(server: Server, run: Run, note: str) -> None:
    run.half(server.url)
    (run.folder / "model.caffemodel.part.json").write_text(note)
    assert run(entry(server.url)).path.read_bytes() == BODY
    assert "Range" not in server.seen[0]


def test_a_part_that_nothing_identifies_is_not_continued(server: Server, run: Run) -> None:
    """Neither ETag nor date nor hash: the rest might be of another version."""
    run.half(server.url, validator="")
    assert run(entry(server.url, sha256=None)).path.read_bytes() == BODY
    assert "Range" not in server.seen[0]


def test_a_part_without_etag_is_continued_where_a_hash_proves_it(server: Server, run: Run) -> None:
    run.half(server.url, validator="")
    assert run(entry(server.url)).path.read_bytes() == BODY
    assert server.seen[0]["Range"] == f"bytes={HALF}-"


def test_a_file_that_another_process_fetches_is_left_to_it(server: Server, run: Run) -> None:
    pytest.importorskip("fcntl", reason="file locks are those of Unix")
    with (
        download_http.Part(run.target).claimed(),
        pytest.raises(DownloadError, match="another process is fetching"),
    ):
        run(entry(server.url))
    assert server.seen == []


def test_a_wrong_content_range_starts_over(server: Server, run: Run) -> None:
    run.half(server.url)
    server.answers = [
        lambda handler: handler.head(206, 10, Content_Range=f"bytes 0-9/{len(BODY)}"),
        good,
    ]
    assert run(entry(server.url)).path.read_bytes() == BODY
    assert "Range" not in server.seen[1]


def test_a_part_that_is_complete_already_needs_no_more_bytes(server: Server, run: Run) -> None:
    run.half(server.url, BODY)
    assert run(entry(server.url)).path.read_bytes() == BODY
    assert len(server.seen) == 1


def test_a_part_longer_than_the_file_starts_over(server: Server, run: Run) -> None:
    run.half(server.url, BODY + b"more")
    assert run(entry(server.url)).path.read_bytes() == BODY


def test_a_spoiled_part_is_thrown_away_and_fetched_once_more(server: Server, run: Run) -> None:
    run.half(server.url, b"x" * HALF)
    assert run(entry(server.url)).path.read_bytes() == BODY
    assert [request.get("Range") for request in server.seen] == [f"bytes={HALF}-", None]


def test_an_interrupted_download_goes_on_where_it_stopped(server: Server, run: Run) -> None:
    def interrupt(done: int, total: int | None) -> None:
        if done > 300_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(entry(server.url), progress=interrupt)
    assert run(entry(server.url)).path.read_bytes() == BODY
    assert int(server.seen[1]["Range"].removeprefix("bytes=").removesuffix("-")) > 300_000


# --- servers that fail


@pytest.mark.parametrize(
    "failure", [truncated, dropped, status(503), status(429)], ids=["short", "reset", "503", "429"]
)
def test_a_passing_failure_is_tried_again_after_a_pause(server: Server, run: Run, failure: Answer) -> None:
    server.answers = [failure, good]
    assert run(entry(server.url)).path.read_bytes() == BODY
    assert run.waits == [1.0]
    assert "trying again in 1 s (1 of 2)" in run.said[0]


def test_a_short_answer_is_continued_not_repeated(server: Server, run: Run) -> None:
    server.answers = [truncated, good]
    run(entry(server.url))
    assert server.seen[1]["Range"] == f"bytes={HALF}-"


def test_a_short_answer_without_a_length_is_noticed(server: Server, run: Run) -> None:
    def nameless(handler: Handler) -> None:
        handler.head(200, None)
        handler.wfile.write(BODY[:HALF])

    server.answers = [nameless, good]
    assert run(entry(server.url)).path.read_bytes() == BODY


def test_silence_times_out_and_is_tried_again(server: Server, run: Run) -> None:
    release = threading.Event()

    def silent(handler: Handler) -> None:
        truncated(handler)
        handler.wfile.flush()
        release.wait(5)

    server.answers = [silent, good]
    outcome = run(entry(server.url), settings=Settings(retries=9, timeout=0.2, wait=run.waits.append))
    release.set()
    assert outcome.path.read_bytes() == BODY
    assert "timed out" in run.said[0]


def test_retries_end_and_keep_what_came(server: Server, run: Run) -> None:
    server.answers = [truncated, dropped_rest, dropped_rest]
    with pytest.raises(DownloadError, match="every source failed"):
        run(entry(server.url), retries=2)
    assert len(server.seen) == 3
    assert run.waits == [1.0, 2.0]
    assert run.names() == ["model.caffemodel.part", "model.caffemodel.part.json"]
    assert (run.folder / "model.caffemodel.part").read_bytes() == BODY[:HALF]


def dropped_rest(handler: Handler) -> None:
    content_range = f"bytes {HALF}-{len(BODY) - 1}/{len(BODY)}"
    handler.head(206, len(BODY) - HALF, Content_Range=content_range, ETag=ETAG)


def test_pauses_grow_to_half_a_minute(server: Server, run: Run) -> None:
    server.answers = [status(500)]
    with pytest.raises(DownloadError):
        run(entry(server.url), retries=7)
    assert run.waits == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_source_that_is_gone_is_not_asked_twice(server: Server, run: Run, code: int) -> None:
    server.answers = [status(code)]
    with pytest.raises(DownloadError, match=f"answered {code}"):
        run(entry(server.url))
    assert len(server.seen) == 1


def test_the_next_source_is_used_when_one_is_gone(server: Server, run: Run) -> None:
    server.answers = [status(404), good]
    outcome = run(entry(server.url + "?gone", server.url))
    assert outcome.path.read_bytes() == BODY
    assert "answered 404" in run.said[0]


def test_a_server_that_does_not_exist_is_named(run: Run) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
        with pytest.raises(DownloadError, match="cannot be reached"):
            run(entry(url), retries=0)


@pytest.mark.parametrize(
    "page",
    [
        sends(b"<p>gone</p>", Content_Type="text/html; charset=utf-8"),
        sends(b"\n <!DOCTYPE HTML><html>" + BODY, Content_Type="application/octet-stream"),
    ],
    ids=["by type", "by content"],
)
def test_a_web_page_is_not_taken_for_the_file(server: Server, run: Run, page: Answer) -> None:
    server.answers = [page]
    with pytest.raises(DownloadError, match="sent a web page instead of the file"):
        run(entry(server.url, bytes=None, approx_bytes=len(BODY), sha256=None))
    assert run.names() == []
    assert len(server.seen) == 1


# --- wrong bytes


def test_a_wrong_hash_leaves_nothing_behind(server: Server, run: Run) -> None:
    server.answers = [sends(BODY[:-1] + b"?")]
    with pytest.raises(DownloadError, match=f"sha256 is .*, expected {SHA256}"):
        run(entry(server.url))
    assert run.names() == []
    assert len(server.seen) == 1


def test_a_wrong_size_is_refused_before_the_body(server: Server, run: Run) -> None:
    server.answers = [sends(BODY + b"!")]
    with pytest.raises(DownloadError, match="offers 1,000,004 bytes, expected 1,000,003"):
        run(entry(server.url))
    assert run.names() == []


def test_a_file_far_beyond_its_estimate_is_refused(server: Server, run: Run) -> None:
    with pytest.raises(DownloadError, match="expected at most 200,000"):
        run(entry(server.url, bytes=None, approx_bytes=100_000, sha256=None))


def test_an_endless_answer_is_cut_off(server: Server, run: Run) -> None:
    def endless(handler: Handler) -> None:
        handler.head(200, None)
        while True:
            handler.wfile.write(BODY)

    server.answers = [endless]
    with pytest.raises(DownloadError, match="sent more than"):
        run(entry(server.url))
    assert run.names() == []


def test_without_a_published_hash_the_structure_decides(server: Server, run: Run) -> None:
    outcome = run(entry(server.url, bytes=None, approx_bytes=len(BODY), sha256=None))
    assert (outcome.proof, outcome.sha256) == ("structure", SHA256)
    assert run.checked == [run.folder / "model.caffemodel.part"]


def test_a_file_of_the_wrong_structure_leaves_nothing_behind(server: Server, run: Run) -> None:
    def refuse(path: Path) -> None:
        raise DownloadError(f"{path}: is no readable caffemodel")

    with pytest.raises(DownloadError, match="no readable caffemodel"):
        run(entry(server.url, sha256=None), check=refuse)
    assert run.names() == []


# --- what a person has to do


def test_sources_that_need_a_browser_are_explained(run: Run) -> None:
    by_hand = (Source("mega", "https://mega.nz/#!abc"), Source("baidu", "http://pan.baidu.com/s/1"))
    file = entry(sources=by_hand, published_as="theirs.caffemodel")
    with pytest.raises(DownloadError) as caught:
        run(file)
    message = str(caught.value)
    for fact in ("theirs.caffemodel", "https://mega.nz/#!abc", "pan.baidu.com", str(run.target), "1,000,003", SHA256):
        assert fact in message


def test_the_way_by_hand_is_told_when_all_sources_failed(server: Server, run: Run) -> None:
    server.answers = [status(404)]
    with pytest.raises(DownloadError, match=r"By hand: .* save it as"):
        run(entry(server.url))


def test_a_damaged_file_put_there_by_hand_is_named(run: Run) -> None:
    run.target.write_bytes(b"half")
    with pytest.raises(DownloadError, match="has 4 bytes, expected 1,000,003"):
        run(entry(sources=(Source("mega", "https://mega.nz/#!abc"),)))


# --- the disk


def test_a_full_disk_is_noticed_before_the_body(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(download_http.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="only 1,000 are free"):
        run(entry(server.url))
    assert run.names() == []


def test_a_disk_that_fills_up_is_no_fault_of_the_source(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A file on a full disk."""

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode="r", **k: Full() if mode == "wb" else opened(path, mode, **k))
    with pytest.raises(OutputError, match="No space left on device"):
        run(entry(server.url))
    assert len(server.seen) == 1


def test_a_folder_that_cannot_be_written_is_an_error(server: Server, run: Run) -> None:
    for suffix in (".part.lock", ".part.json"):  # folders in the way fail for every user, permissions not for root
        (run.folder / f"model.caffemodel{suffix}").mkdir()
    with pytest.raises(OutputError, match=r"model\.caffemodel\.part"):
        run(entry(server.url))
    assert not run.target.exists()


def test_a_folder_that_cannot_be_made_is_an_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be created"):
        Run(tmp_path / "file" / "sub")(entry(server.url))


# --- the structure of weights


def test_the_bundled_weights_have_the_right_structure() -> None:
    model = zoo.entry("ssdh48_small")
    check_weights(zoo.find_file(model.weights), model)


def test_weights_of_another_model_are_refused() -> None:
    path = zoo.find_file(zoo.entry("ssdh48_small").weights)
    with pytest.raises(DownloadError, match=r"no layer fc8_kevin, so .* not the weights of kevinnet_cifar10_48"):
        check_weights(path, zoo.entry("kevinnet_cifar10_48"))


def test_weights_of_another_bit_length_are_refused() -> None:
    model = zoo.entry("ssdh48_small")
    changed = Entry(**{**vars(model), "bits": 64})
    with pytest.raises(DownloadError, match="codes have 48 bits, those of ssdh48_small have 64"):
        check_weights(zoo.find_file(model.weights), changed)


def test_weights_under_an_alias_are_accepted() -> None:
    model = zoo.entry("ssdh48_small")
    renamed = Entry(**{**vars(model), "code_layer": "hash", "aliases": {"hash": "latent"}})
    check_weights(zoo.find_file(model.weights), renamed)


def test_what_is_no_caffemodel_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"not weights at all")
    with pytest.raises(DownloadError, match="no readable caffemodel"):
        check_weights(path, zoo.entry("kevinnet_cifar10_48"))


# --- the command


@pytest.fixture
def small_zoo(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, FileEntry]:
    """Two models in place of the zoo's: ``good`` from the server, ``hand`` from a browser; both share a mean."""
    model = zoo.entry("ssdh48_small")
    mean = FileEntry("mean.mat", "none", bytes=len(BODY), sha256=SHA256, sources=(Source("direct", server.url),))
    hand = FileEntry("hand.caffemodel", "none", approx_bytes=9, sources=(Source("mega", "https://mega.nz/#!x"),))
    models = {
        name: Entry(**{**vars(model), "name": name, "weights": weights, "mean": mean})
        for name, weights in (("good", entry(server.url)), ("hand", hand))
    }
    monkeypatch.setattr(zoo, "_manifest", lambda: Manifest("good", models))
    return {"mean.mat": mean, "hand.caffemodel": hand}


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([*words]))


@pytest.mark.usefixtures("small_zoo")
def test_the_command_fetches_a_models_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("good", "--to", str(tmp_path)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mean.mat", "model.caffemodel"]
    out = capsys.readouterr().out
    assert "model.caffemodel: fetched, 1,000,003 bytes, sha256 as published" in out


@pytest.mark.usefixtures("small_zoo")
def test_the_command_says_what_is_here_already(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("good", "--to", str(tmp_path))
    requests = len(server.seen)
    assert call("good", "--to", str(tmp_path)) == 0
    assert len(server.seen) == requests
    assert "model.caffemodel: already here" in capsys.readouterr().out


@pytest.mark.usefixtures("small_zoo")
def test_all_goes_on_after_a_failure_and_ends_with_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--all", "--to", str(tmp_path)) == 1
    out, err = capsys.readouterr()
    table = out.split("\n\n")[1].splitlines()
    assert [line.split()[0] for line in table] == ["model.caffemodel", "mean.mat", "hand.caffemodel"]
    assert [line.split()[1] for line in table] == ["fetched,", "fetched,", "FAILED"]
    assert "https://mega.nz/#!x" in err


@pytest.mark.usefixtures("small_zoo")
def test_a_file_can_be_named_instead_of_a_model(server: Server, tmp_path: Path) -> None:
    assert call("mean.mat", "--to", str(tmp_path)) == 0
    assert len(server.seen) == 1


@pytest.mark.usefixtures("small_zoo")
def test_the_chosen_folder_takes_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAFFE2TORCH_WEIGHTS", str(tmp_path / "chosen"))
    assert call("good") == 0
    assert zoo.find_file(zoo.entry("good").weights) == tmp_path / "chosen" / "model.caffemodel"


@pytest.mark.parametrize("words", [[], ["good", "--all"]], ids=["nothing", "both"])
def test_names_or_all_must_be_given(words: list[str]) -> None:
    with pytest.raises(UsageError, match="model names or --all"):
        call(*words)


@pytest.mark.parametrize("words", [["--retries", "-1"], ["--timeout", "0"], ["--timeout", "nan"]])
def test_impossible_numbers_are_usage_errors(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        call("good", *words)
    assert caught.value.code == 2
