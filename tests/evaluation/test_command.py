"""``caffe2torch evaluate`` and ``tools/evaluate_cifar10.py`` as a user types them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from caffe2torch.cli import main
from caffe2torch.commands import evaluating
from caffe2torch.retrieval.readers import read_codes
from evaluation.sets import SmallCifar10, draw_codes, write_csv
from evaluation.test_hashing import written

ROOT = Path(__file__).resolve().parent.parent.parent
CODES = ["evaluate", "--queries", "q.csv", "--database", "d.csv"]
SMALL = ["evaluate", "--cifar10", "small", "-k", "5", "--device", "cpu", "--figure", "none"]


@pytest.fixture(autouse=True)
def _in_a_folder_with_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(Path("q.csv"), *draw_codes(8, seed=1))
    write_csv(Path("d.csv"), *draw_codes(40, seed=2))


@pytest.fixture
def _small_cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caffe2torch.data.cifar10.open_cifar10", lambda source: SmallCifar10(6, Path(source)))


def failure(arguments: list[str], capsys: pytest.CaptureFixture[str], status: int = 1) -> str:
    assert main(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_the_released_codes_give_the_originals_files(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    released, lists = reference / "published" / "kevinnet48", reference / "published" / "cifar10_lists"
    named = ["--queries", str(released / "binary-test.mat"), "--query-labels", str(lists / "test-label.txt")]
    named += ["--database", str(released / "binary-train.mat"), "--database-labels", str(lists / "train-label.txt")]
    assert main(["evaluate", *named, "--out", "results", "--figure", "png", "svg"]) == 0
    for name in ("map.txt", "precision-at-k.txt"):
        assert (tmp_path / "results" / name).read_bytes() == (released / name).read_bytes()
    out, err = capsys.readouterr()
    assert "MAP@1000             0.8973732   0.897373  +0.0000002" in out
    assert "KevinNet, 48 bits, CIFAR-10 (README of caffe-cvprw15); ours is\n  equal in all printed digits" in out
    assert "binary_test, 10,000 codes of 48 bits, one per column" in err
    assert {path.name for path in Path("results").iterdir()} == {
        *("map.txt", "precision-at-k.txt", "scores.json", "precision-at-k.png", "precision-at-k.svg")
    }
    assert "ITQ-CCA" in Path("results/precision-at-k.svg").read_text("utf-8")


def test_codes_files_alone_write_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CODES, "-k", "5", "40"]) == 0
    out, err = capsys.readouterr()
    assert "8 queries against a database of 40, codes of 12 bits" in out
    assert "MAP@40" in out
    assert err == ""
    assert sorted(path.name for path in Path().iterdir()) == ["d.csv", "q.csv"]


def test_the_tool_does_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(CODES) == 0
    tool = [sys.executable, str(ROOT / "tools" / "evaluate_cifar10.py"), *CODES[1:]]
    done = subprocess.run(tool, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout == capsys.readouterr().out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CODES, "-k", "5", "40", "--json", "--ties", "--out", "r", "--figure", "none"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [result["k"] for result in found["results"]] == [5, 40]
    assert found["written"][0] == "r/map.txt"
    whole = json.loads(Path("r/scores.json").read_text())
    assert whole["results"] == found["results"]


def test_the_other_queries_as_database(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--queries", "q.csv", "--database", "test", "-k", "3"]) == 0
    assert "8 queries, each ranking the other 7 queries" in capsys.readouterr().out


def test_results_are_replaced_only_with_force(capsys: pytest.CaptureFixture[str]) -> None:
    command = [*CODES, "--out", "r", "--figure", "svg", "--quiet"]
    assert main(command) == 0
    assert "r/map.txt: exists already; --force" in failure(command, capsys)
    Path("r/map.txt").unlink()
    assert "r/precision-at-k.txt: exists already" in failure(command, capsys)
    assert main([*command, "--force"]) == 0


def test_labels_in_files(capsys: pytest.CaptureFixture[str]) -> None:
    bits, labels = draw_codes(8, seed=1)
    write_csv(Path("bare.csv"), bits)
    assert "bare.csv: holds no labels" in failure(["evaluate", "--queries", "bare.csv", "--database", "d.csv"], capsys)
    Path("list.txt").write_text("".join(f"/else/d/{n}.png {label}\n" for n, label in reversed([*enumerate(labels)])))
    assert main([*CODES, "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["results"]
    assert main(["evaluate", "--queries", "bare.csv", "--query-labels", "list.txt", *CODES[3:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"] == expected


def test_matlab_options(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = reference / "published"
    sigmoid = [str(published / "kevinnet48" / "feat-test.mat"), "--values", "sigmoid", "--variable", "feat_test"]
    labels = ["--query-labels", str(published / "cifar10_lists" / "test-label.txt")]
    outputs = []
    for given in ([*sigmoid, "--layout", "columns", "--bits", "48"], [str(published / "kevinnet48/binary-test.mat")]):
        assert main(["evaluate", "--database", "test", *labels, "-k", "10", "--json", "--queries", *given]) == 0
        outputs.append(json.loads(capsys.readouterr().out)["results"])
    assert outputs[0] == outputs[1]


@pytest.mark.usefixtures("_small_cifar")
def test_cifar10_in_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--accuracy"]) == 0
    out, err = capsys.readouterr()
    assert "6 queries against a database of 30, codes of 48 bits" in out
    assert "codes by ssdh48_small, float32 from CIFAR-10's lossless pictures" in out
    assert "accuracy" in out
    assert "no published figure is comparable" in out
    assert err == ""
    names = {path.name for path in Path("evaluation").iterdir()}
    assert names == {"map.txt", "precision-at-k.txt", "scores.json", "queries.h5", "database.h5"}
    assert main([*SMALL, "--accuracy", "--force"]) == 0
    again, err = capsys.readouterr()
    assert again == out
    assert err.count("used again") == 2


@pytest.mark.usefixtures("_small_cifar")
def test_the_papers_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    written(Path("built/examples/cvprw15-cifar10/dataset"), form="papers")
    assert main([*SMALL, "--pictures", "papers", "--out", "a", "--quiet"]) == 0
    assert main(["evaluate", "--images", "built", *SMALL[3:], "--out", "b", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    for name in ("queries.h5", "database.h5"):
        assert read_codes(f"a/{name}").packed.tolist() == read_codes(f"b/{name}").packed.tolist()
    assert Path("a/map.txt").read_bytes() == Path("b/map.txt").read_bytes()


@pytest.mark.usefixtures("_small_cifar")
def test_only_the_test_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--database", "test"]) == 0
    assert "6 queries, each ranking the other 5" in capsys.readouterr().out
    assert not Path("evaluation/database.h5").exists()


@pytest.mark.usefixtures("_small_cifar")
def test_interrupted_and_resumed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(self: evaluating.Progress, stage: str, done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluating.Progress, "__call__", interrupt)
        assert main([*SMALL, "--batch-size", "8"]) == 130
    assert "kept in evaluation/database.h5.partial: the same command with --resume" in capsys.readouterr().err
    assert "--resume goes on with it" in failure([*SMALL, "--batch-size", "8"], capsys).splitlines()[-1]
    assert main([*SMALL, "--batch-size", "8", "--resume", "--quiet"]) == 0


def test_own_pictures_in_folders_of_classes(capsys: pytest.CaptureFixture[str]) -> None:
    written(Path("all"), form="papers")
    for number, path in enumerate(sorted(Path("all").rglob("*.jpg"))):
        target = Path("test" if number % 5 == 0 else "train") / f"class{number % 3}" / f"{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    own = ["evaluate", "--queries", "test", "--database", "train", "--device", "cpu", "--figure", "none"]
    assert "--folders" in failure(own, capsys)
    assert not Path("evaluation").exists()
    assert main([*own, "--folders"]) == 0
    assert "8 queries against a database of 28" in capsys.readouterr().out
    found = json.loads(Path("evaluation/scores.json").read_text())
    assert found["queries"]["labels_from"] == "the folders the pictures lie in (3)"


def test_pictures_against_codes_of_another_model_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    val, train = written(Path("all"), form="papers")
    main(["extract", str(train), "--root", "all", "--out", "d.h5", "--quiet", "--blob", "latent", "--device", "cpu"])
    mixed = ["evaluate", "--queries", str(val), "--root", "all", "--database", "d.h5", "--figure", "none"]
    assert "blob latent_sigmoid against latent" in failure(mixed, capsys).splitlines()[-1]
    assert main([*mixed, "--any-model", "--quiet", "--device", "cpu"]) == 0


def test_the_word_test_and_a_folder_of_that_name(capsys: pytest.CaptureFixture[str]) -> None:
    written(Path("test"), form="papers")
    shutil.copytree("test/batch1", "train/batch1")
    command = ["evaluate", "--device", "cpu", "--figure", "none", "--folders"]
    assert "write test/" in failure([*command, "--queries", "train", "--database", "test"], capsys, 2)
    assert main([*command, "--queries", "train", "--database", "test/"]) == 0
    assert "6 queries against a database of 36" in capsys.readouterr().out
    assert main([*command, "--queries", "test", "--database", "test", "--out", "b"]) == 0
    assert "36 queries, each ranking the other 35" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        pytest.param(["evaluate"], 2, "nothing names what is to be measured", id="nothing"),
        pytest.param([*CODES, "--images", "x"], 2, "--queries and --images name", id="two"),
        pytest.param(["evaluate", "--queries", "q.csv"], 2, "the database is missing", id="no database"),
        pytest.param([*CODES, "-k", "41"], 1, "the database has 40 pictures", id="k too large"),
        pytest.param([*CODES, "-k", "0"], 1, "k = 0 is not possible", id="k 0"),
        pytest.param([*CODES, "--radius", "-1"], 2, "a Hamming distance is 0 or more", id="radius"),
        pytest.param([*CODES, "--model", "ssdh48_small"], 2, "--compare-with names a model", id="model"),
        pytest.param([*CODES, "--again"], 2, "--again is for hashing pictures", id="again"),
        pytest.param([*CODES, "--figure", "png"], 2, "give --out", id="figure"),
        pytest.param([*CODES, "--out", "r", "--figure", "none", "png"], 2, "give it alone", id="figure none"),
        pytest.param([*CODES, "--compare-with", "x"], 1, "no model called 'x'", id="compare with"),
        pytest.param([*CODES, "--variable", "x"], 2, "for MATLAB files", id="variable"),
        pytest.param([*CODES, "--variable", "x", "y", "z"], 2, "3 names for 2 files", id="variables"),
        pytest.param([*CODES, "--bits", "48"], 1, "expected 48 bits", id="bits"),
        pytest.param([*CODES, "--pictures", "papers"], 2, "--pictures is for --cifar10", id="pictures"),
        pytest.param([*CODES, "--folders", "--query-labels", "x"], 2, "leave --query-labels", id="folders and file"),
        pytest.param(["evaluate", "--cifar10", "x", "--database", "d.csv"], 2, "train (default) or test", id="split"),
        pytest.param(["evaluate", "--cifar10", "x"], 1, "x: ", id="no such archive"),
        pytest.param(["evaluate", "--images", "x"], 1, "x: has no val.txt", id="no such folder"),
        pytest.param(["evaluate", "--queries", "no.h5", "--database", "d.csv"], 1, "no.h5: cannot be read", id="codes"),
        pytest.param(
            ["evaluate", "--queries", "q.csv", "d.csv", "--database", "test"], 2, "give one codes file", id="two files"
        ),
        pytest.param(
            [*CODES[:3], "--database", "test", "--database-labels", "x"], 2, "--database-labels", id="labels of test"
        ),
    ],
)
def test_bad_input(arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    err = failure(arguments, capsys, status)
    assert message in err
    assert err.count("\n") == 1


def test_too_many_neighbours_are_refused_before_pictures_are_hashed(capsys: pytest.CaptureFixture[str]) -> None:
    written(Path("all"), form="papers")
    assert "the database has 30 pictures" in failure(["evaluate", "--images", "all", "-k", "31"], capsys)
    assert not Path("evaluation").exists()


def test_wrong_counts_are_refused_before_pictures_are_hashed(capsys: pytest.CaptureFixture[str]) -> None:
    written(Path("all"), form="papers")
    Path("labels.txt").write_text("1\n2\n")
    given = ["evaluate", "--images", "all", "--query-labels", "labels.txt"]
    assert "labels.txt: 2 labels for 6 pictures" in failure(given, capsys)


def test_accuracy_of_a_net_without_class_scores(capsys: pytest.CaptureFixture[str]) -> None:
    written(Path("all"), form="papers")
    shutil.copy(ROOT / "prototxt" / "ssdh48_small" / "deploy.prototxt", "net.prototxt")
    own = ["--net", "net.prototxt", "--weights", str(ROOT / "weights" / "ssdh48_small.caffemodel"), "--preprocess"]
    message = failure(["evaluate", "--images", "all", *own, "ssdh48_small", "--accuracy"], capsys, 2)
    assert "name the blob: --accuracy BLOB" in message


def test_help_shows_how(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    text = capsys.readouterr().out
    for example in ("--cifar10 cifar-10-python.tar.gz", "--queries test.h5 --database train.h5", "map.txt"):
        assert example in text


def test_numbers_hold_for_a_perfect_and_a_useless_hash(capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.arange(20) % 2
    write_csv(Path("good.csv"), np.repeat(labels[:, None] == 1, 4, axis=1), labels)
    write_csv(Path("bad.csv"), np.zeros((20, 4), np.bool_), labels)
    values = []
    for name in ("good.csv", "bad.csv"):
        assert main(["evaluate", "--queries", name, "--database", name, "-k", "10", "--json", "--ties"]) == 0
        values.append(json.loads(capsys.readouterr().out)["results"][0])
    assert values[0]["map"] == 1.0
    assert values[1]["map_over_tie_orders"]["best"] == 1.0
    assert values[1]["map"] < 1.0
