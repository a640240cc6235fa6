"""Fetching the published files, from a server of our own that has them at the paths of GitHub."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest

from caffe2torch.download import Settings
from caffe2torch.errors import DownloadError, FormatError, UsageError
from caffe2torch.evaluation import reference as material

ROOT = Path(__file__).resolve().parent.parent


class Server(ThreadingHTTPServer):
    """Serves the files below ``root``; ``asked`` are the paths of the requests."""

    daemon_threads = True
    root: Path
    asked: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, path: str, content: bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(unquote(self.path))
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    root = tmp_path / "served"
    root.mkdir()
    with Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(root))) as running:
        running.root, running.asked = root, []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_reference", ROOT / "tools" / "fetch_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONTENT = b"four bytes and more"


def manifest(to: Path, /, **changes: Any) -> Path:
    values = {"commits": ["c1", "c2"], "seen": True, "sha256": hashlib.sha256(CONTENT).hexdigest(), "name": "a+b.txt"}
    values.update(changes)
    text = f"""
schema = {values.get("schema", 1)}
[[groups]]
folder = "{values.get("folder", "set")}"
repository = "owner/name"
commits = {values["commits"]}
upstream = "some/+where"
seen = {str(values["seen"]).lower()}
files = [{{ name = "{values["name"]}", from = "b+c.txt", size = {len(CONTENT)}, sha256 = "{values["sha256"]}" }}]
"""
    (to / "manifest.toml").write_text(text)
    return to / "manifest.toml"


def one(server: Server, to: Path, **changes: Any) -> material.ReferenceFile:
    (file,) = material.files(host=server.url, manifest=manifest(to, **changes))
    return file


QUICK = Settings(retries=0, timeout=5, wait=lambda seconds: None)


def test_the_manifest_is_that_of_the_reference_material(reference: Path) -> None:
    listed = {str(file.path) for file in material.files()}
    here = {str(path.relative_to(reference)) for path in (reference / "published").rglob("*") if path.is_file()}
    assert listed == here - {"published/SOURCES.md"}
    for file in material.files():
        assert material.problem(reference, file) is None


def test_every_file_is_published_at_a_commit_of_github() -> None:
    for file in material.files():
        for url in file.urls:
            owner, name, commit, *path = url.removeprefix("https://raw.githubusercontent.com/").split("/")
            assert owner
            assert name
            assert len(commit) == 40
            assert path
            assert "+" not in url
    assert len({file.path for file in material.files()}) == len(material.files())


def test_a_file_comes_from_the_path_of_its_repository(server: Server, tmp_path: Path) -> None:
    server.put("owner/name/c1/some/+where/b+c.txt", CONTENT)
    outcome = material.fetch(tmp_path / "here", one(server, tmp_path), settings=QUICK)
    assert outcome.path == tmp_path / "here" / "published" / "set" / "a+b.txt"
    assert outcome.path.read_bytes() == CONTENT
    assert server.asked == ["/owner/name/c1/some/+where/b+c.txt"]
    assert [path.name for path in outcome.path.parent.iterdir()] == ["a+b.txt"]


def test_what_is_here_is_left_alone(server: Server, tmp_path: Path) -> None:
    server.put("owner/name/c1/some/+where/b+c.txt", CONTENT)
    file = one(server, tmp_path)
    material.fetch(tmp_path, file, settings=QUICK)
    assert not material.fetch(tmp_path, file, settings=QUICK).fetched
    assert len(server.asked) == 1


def test_the_second_commit_is_tried(server: Server, tmp_path: Path) -> None:
    server.put("owner/name/c2/some/+where/b+c.txt", CONTENT)
    assert material.fetch(tmp_path, one(server, tmp_path), settings=QUICK).fetched


def test_a_wrong_url_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"/c1/some/%2Bwhere/b%2Bc\.txt: the server answered 404.*/c2/") as caught:
        material.fetch(tmp_path, one(server, tmp_path), settings=QUICK)
    assert "inferred" not in str(caught.value)


def test_a_wrong_url_of_an_inferred_name_says_so(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match="name of this file in its repository is inferred: look there for one of 19"
    ):
        material.fetch(tmp_path, one(server, tmp_path, seen=False), settings=QUICK)


def test_another_file_is_never_taken(server: Server, tmp_path: Path) -> None:
    server.put("owner/name/c1/some/+where/b+c.txt", bytes(len(CONTENT)))
    server.put("owner/name/c2/some/+where/b+c.txt", CONTENT[1:])
    with pytest.raises(DownloadError, match=r"sha256 is .*, expected .*offers 18 bytes, expected 19"):
        material.fetch(tmp_path, one(server, tmp_path), settings=QUICK)
    assert not list((tmp_path / "published" / "set").iterdir())


@pytest.mark.parametrize(
    "changes, message",
    [
        pytest.param({"schema": 2}, "schema is 2", id="newer"),
        pytest.param({"name": "../../../x"}, "leads out of the folder", id="name"),
        pytest.param({"folder": "/etc"}, "leads out of the folder", id="folder"),
        pytest.param({"commits": 3}, "TypeError", id="damaged"),
    ],
)
def test_manifests_that_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        material.files(manifest=manifest(tmp_path, **changes))


@pytest.mark.parametrize(
    "name, count", [("kevinnet48", 5), ("published/kevinnet48", 5), ("ssdh48/map.txt", 1), ("prototxt", 30)]
)
def test_folders_and_files_can_be_chosen(name: str, count: int) -> None:
    chosen = material.choose(material.files(), [name])
    assert len(chosen) == count
    assert material.choose(chosen, []) == chosen


def test_an_unknown_name_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="called kevinnet; there are baselines, cifar10_lists,"):
        material.choose(material.files(), ["ssdh48", "kevinnet"])


def test_problems_of_a_folder(server: Server, tmp_path: Path) -> None:
    file = one(server, tmp_path)
    assert material.problem(tmp_path, file) == "is not here"
    path = tmp_path / file.path
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[1:])
    assert material.problem(tmp_path, file) == "has 18 bytes, the published file 19"
    path.write_bytes(bytes(19))
    assert str(material.problem(tmp_path, file)).startswith("sha256 is ")


def test_the_tool_fetches_checks_and_lists(
    server: Server, tool: ModuleType, tmp_path: Path, reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in material.choose(material.files(), ["ssdh48", "baselines"]):
        path = unquote(file.urls[-1].removeprefix("https://raw.githubusercontent.com/"))
        server.put(path, (reference / file.path).read_bytes())
    words = [str(tmp_path / "new"), "--only", "ssdh48", "baselines"]
    assert tool.main([*words, "--check"]) == 1
    assert "0 of 11 files are the published ones" in capsys.readouterr().out
    assert tool.main([*words, "--host", server.url, "--retries", "0"]) == 0
    assert "CAFFE2TORCH_REFERENCE=" in capsys.readouterr().out
    assert tool.main([*words, "--check"]) == 0
    assert tool.main(["--list", "--only", "means"]) == 0
    out = capsys.readouterr().out
    assert "4 files, 3,752,829 bytes" in out
    assert out.count("(name inferred)") == 4


def test_the_tool_goes_on_after_a_failure(
    server: Server, tool: ModuleType, tmp_path: Path, reference: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file,) = material.choose(material.files(), [str(PurePosixPath("ssdh48", "precision-at-k.txt"))])
    server.put(unquote(file.urls[0].removeprefix(material.HOST + "/")), (reference / file.path).read_bytes())
    words = [str(tmp_path / "new"), "--only", "ssdh48", "--host", server.url, "--retries", "0"]
    assert tool.main(words) == 1
    out, err = capsys.readouterr()
    assert "1 of 2 files are in" in out
    assert "map.txt: the server answered 404" in err


@pytest.mark.parametrize("words", [[], ["x", "--only", "nothing"]], ids=["no folder", "unknown name"])
def test_the_tool_refuses_wrong_arguments(tool: ModuleType, words: list[str]) -> None:
    assert tool.main(words) == 2
