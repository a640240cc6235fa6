"""A project folder in place of a zoo's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffe2torch import zoo
from caffe2torch.errors import ZooError
from caffe2torch.zoo_project import latest

TOML = """\
schema = 1
title = "T"
paper = "P"
deploy = "deploy.prototxt"
weights = "m_iter_*.caffemodel"
bits = 4
code_blob = "c"
code_layer = "l"
feature_blob = "f"
extra_layers = ["x"]
[preprocessing]
dialect = "transformer"
mean_file = "mean.binaryproto"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "m"
    made.mkdir()
    (made / "project.toml").write_text(TOML)
    (made / "deploy.prototxt").write_text("")
    return made


@pytest.mark.parametrize("name", ["m", "./m", "m/", "m/project.toml"])
def test_folder_and_file_name_it(folder: Path, name: str) -> None:
    entry = zoo.entry(name)
    assert (entry.name, entry.bits, entry.code_blob, entry.extra_layers) == ("m", 4, "c", ("x",))
    assert entry.deploy == Path("m/deploy.prototxt")


def test_within_the_folder_it_is_named_in_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert zoo.entry(".").name == str(folder)


def test_a_folder_called_like_a_model_of_the_zoo(folder: Path) -> None:
    folder.rename(folder.with_name("ssdh48_small"))
    assert zoo.entry("ssdh48_small").weights.bundled
    mine = zoo.entry("./ssdh48_small")
    assert mine.title == "T"
    assert zoo.entry(mine.name).title == "T"


def test_the_latest_snapshot_is_taken(folder: Path) -> None:
    with pytest.raises(ZooError, match=r"not trained yet: `caffe2torch train --solver m/solver\.prototxt`"):
        zoo.find_file(zoo.entry("m").weights)
    for name in ("m_iter_9.caffemodel", "m_iter_100.caffemodel", "m_iter_20.caffemodel.h5", "m_iter_100.solverstate"):
        (folder / name).write_bytes(b"12")
    for name in ("m_iter_999x.caffemodel", "mm_iter_999.caffemodel", "m_iter_.caffemodel"):
        (folder / name).write_bytes(b"")
    assert zoo.find_file(zoo.entry("m").weights) == Path("m/m_iter_100.caffemodel")
    (folder / "m_iter_101.caffemodel.h5").write_bytes(b"")
    assert latest(folder, "m_iter_*.caffemodel") == folder / "m_iter_101.caffemodel.h5"


def test_a_missing_mean_is_named(folder: Path) -> None:
    mean = zoo.entry("m").mean
    assert mean is not None
    with pytest.raises(ZooError, match=r"mean\.binaryproto: no such file; .*--mean"):
        zoo.find_file(mean)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema = 1", "schema = 2", "schema is 2"),
        ("bits = 4\n", "", "bits is missing"),
        ("bits = 4", 'bits = "4"', "bits: expected int"),
        ('deploy = "deploy.prototxt"', 'deploy = "../x.prototxt"', "deploy: expected a relative path"),
        ('deploy = "deploy.prototxt"', 'deploy = "other.prototxt"', "does not exist; make the project anew"),
        ("m_iter_*", "a*b*", "with one \\*"),
        ("m_iter_*", "../m_*", "expected a file name"),
        ('"mean.binaryproto"', '"/etc/mean"', "mean_file: expected a file name"),
        ("title", "titel", "title is missing"),
        ("[preprocessing]", "strange = 1\n[preprocessing]", "unknown keys: strange"),
        ("schema = 1", "schema = ", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, old: str, new: str, said: str) -> None:
    (folder / "project.toml").write_text(TOML.replace(old, new))
    with pytest.raises(ZooError, match=rf"project\.toml.*{said}"):
        zoo.entry("m")


@pytest.mark.parametrize("name", ["elsewhere/m", "empty", "empty/project.toml"])
def test_folders_that_are_no_projects(folder: Path, name: str) -> None:
    (folder.parent / "empty").mkdir()
    with pytest.raises(ZooError, match=r"project\.toml; `caffe2torch new-project`"):
        zoo.entry(name)


def test_other_names_are_still_the_zoos(folder: Path) -> None:
    with pytest.raises(ZooError, match="did you mean ssdh48_small"):
        zoo.entry("ssdh48_smal")


@pytest.mark.parametrize("name", ["a" * 5000, f"m/{'a' * 5000}", "m\0"])
def test_a_name_no_folder_can_have(folder: Path, name: str) -> None:
    with pytest.raises(ZooError):
        zoo.entry(name)
