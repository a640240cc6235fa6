"""``caffe2torch extract`` and ``tools/extract_codes.py`` as a user types them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from caffe2torch import zoo
from caffe2torch.cli import main
from caffe2torch.commands import extract as command
from caffe2torch.retrieval.readers import read_codes

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_one_command_writes_codes_h5_and_says_what_it_did(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", str(pictures)]) == 0
    out, err = capsys.readouterr()
    codes = read_codes("codes.h5")
    first = "".join("01"[int(bit)] for bit in codes.unpacked()[0])
    assert f"p00.png  {first}" in out
    assert "20 codes of 48 bits" in out
    assert "from 20 pictures with ssdh48_small on cpu in float32" in out
    assert "pictures a second" in out
    assert "wrote codes.h5" in out
    assert "next: caffe2torch search codes.h5 PICTURE" in out
    assert "read_codes('codes.h5').unpacked()" in out
    assert err == ""


def test_the_tool_does_the_same(pictures: Path, tmp_path: Path) -> None:
    tool = [sys.executable, str(ROOT / "tools" / "extract_codes.py"), str(pictures), "--out", "a.npz", "--quiet"]
    done = subprocess.run(tool, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    assert (done.stdout, done.stderr) == ("", "")
    assert main(["extract", str(pictures), "--out", "b.npz", "--quiet"]) == 0
    np.testing.assert_array_equal(read_codes("a.npz").packed, read_codes("b.npz").packed)


def test_json_summary(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", str(pictures), "--json", "--out", "x.csv", "--features", "pool5"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["images"], summary["written"], summary["bits"]) == (20, 20, 48)
    assert (summary["out"], summary["features_out"]) == ("x.csv", "x.pool5.csv")


def test_a_net_of_ones_own(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = zoo.entry("ssdh48_small")
    shutil.copy(entry.deploy, "net.prototxt")
    shutil.copy(zoo.find_file(entry.weights), "mine.caffemodel")
    own = [str(pictures), "--net", "net.prototxt", "--weights", "mine.caffemodel", "--quiet"]
    settings = ["dialect=matcaffe", "resize=32", "mean_values=113.9,123.0,125.3", f"scale={1 / 62}"]
    assert main(["extract", *own, "--ignore-extra", "--out", "a.npz", "--preprocess", *settings]) == 0
    assert main(["extract", *own, "--ignore-extra", "--out", "b.npz", "--preprocess", "ssdh48_small"]) == 0
    assert main(["extract", str(pictures), "--out", "c.npz", "--quiet"]) == 0
    expected = read_codes("c.npz").packed
    np.testing.assert_array_equal(read_codes("a.npz").packed, expected)
    np.testing.assert_array_equal(read_codes("b.npz").packed, expected)
    assert main(["extract", *own, "--out", "d.npz", "--preprocess", "ssdh48_small"]) == 1
    assert "ignore" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        ("--net n --model m", "give one of them"),
        ("--net n", "its weights are missing"),
        ("--net n --weights w", "give --preprocess with the name of a zoo model"),
        ("--preprocess ssdh48_small", "is for --net"),
        ("--model caffenet", ""),
        ("--mean-layout whc", "there is no mean_file"),
        ("--out codes.xls", "the suffix decides the format"),
    ],
)
def test_contradicting_options_are_usage_errors(
    pictures: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    status = main(["extract", str(pictures), *options.split()])
    err = capsys.readouterr().err
    assert status in (1, 2)
    assert err.startswith("caffe2torch: error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_inputs_without_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["extract", name]) == 1
    assert capsys.readouterr().err.startswith(f"caffe2torch: error: {name}: no ")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_failures_are_counted_and_listed(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", str(damaged), "--on-error", "skip"]) == 0
    out = capsys.readouterr().out
    assert "3 codes of 48 bits" in out
    assert "2 pictures could not be read and were left out:" in out
    assert "1.png" in out.split("could not be read")[1]


def test_pictures_with_a_code_of_zeros_are_told_from_those_left_out(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (damaged / "1.png").unlink()
    assert main(["extract", str(damaged), "--on-error", "zero"]) == 0
    assert "1 picture could not be read and got a code of zeros:" in capsys.readouterr().out


def test_one_is_no_plural(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", str(pictures / "p00.png")]) == 0
    assert "1 code of 48 bits (1 different) from 1 picture with" in capsys.readouterr().out


def test_interrupt_says_how_to_go_on(
    pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: object, stage: str, done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command.Steps, "__call__", interrupt)
        assert main(["extract", str(pictures), "--batch-size", "4"]) == 130
    assert "the same command with --resume goes on" in capsys.readouterr().err
    assert main(["extract", str(pictures), "--batch-size", "4", "--resume"]) == 0
    assert "8 of them were done by the run that this one resumed" in capsys.readouterr().out


def test_list_file_below_a_root(pictures: Path) -> None:
    Path("list.txt").write_text("/p01.png 4\n/sub/x y.png 2\n")
    assert main(["extract", "list.txt", "--root", str(pictures), "--quiet"]) == 0
    codes = read_codes("codes.h5")
    assert codes.paths == ("/p01.png", "/sub/x y.png")
    assert codes.labels is not None
    assert codes.labels.tolist() == [4, 2]


def test_a_list_that_names_a_missing_picture(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("list.txt").write_text("p01.png\ngone.png\n")
    assert main(["extract", "list.txt", "--root", str(pictures)]) == 1
    err = capsys.readouterr().err
    assert "gone.png: cannot read: No such file" in err
    assert "start at the current folder, or at --root" in err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["extract", "--help"])
    text = capsys.readouterr().out
    for word in ("which model", "what is written", "how it runs", "caffe2torch extract photos/", "--resume"):
        assert word in text


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_names_that_are_no_text_are_shown_all_the_same(pictures: Path) -> None:
    Path("odd").mkdir()
    shutil.copy(next(pictures.glob("*.png")), "odd/a\n\udcff.png")
    tool = [sys.executable, str(ROOT / "tools" / "extract_codes.py"), "odd"]
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(tool, capture_output=True, text=True, check=True, timeout=300, env=strict)
    assert r"odd/a\n\udcff.png  " in done.stdout
