"""``caffe2torch edit``: edits in their order, files written all or none, and wrong options refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffe2torch import cli, surgery
from caffe2torch.caffemodel import open_weights, write_caffemodel
from caffe2torch.prototxt import to_text
from surgery.nets import names, trained, values

SHAPES = ["--input", "data=4,3,8,8", "--input", "label=4"]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    net = trained()
    (tmp_path / "net").write_text("# mine\n" + to_text(net.net))
    write_caffemodel(tmp_path / "weights", net.net, net.weights or {})
    return [str(tmp_path / "net"), str(tmp_path / "weights")]


def _out(folder: Path, weights: str = "new.caffemodel") -> list[str]:
    return ["-o", str(folder / "new.prototxt"), str(folder / weights)]


def test_edits_are_made_in_their_order(tmp_path: Path, files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    steps = ["--rename", "fc=scores", "--classes", "scores=5", "--deploy", "--softmax", "prob", "--remove", "relu"]
    assert cli.main(["edit", *files, *_out(tmp_path), *SHAPES, *steps]) == 0
    shown = capsys.readouterr()
    assert "the comments of" in shown.err
    lines = [line.split()[0] for line in shown.out.splitlines()]
    assert lines == ["renamed", "renamed", "scores", "new", "deploy:", "deploy:", "removed", "wrote"]
    new = surgery.read(tmp_path / "new.prototxt", tmp_path / "new.caffemodel")
    assert names(new) == ["data", "conv", "pool", "latent", "code", "scores", "prob"]
    assert values(new, "prob")[0].shape == (4, 5)


def test_renames_that_follow_each_other_are_one(tmp_path: Path, files: list[str]) -> None:
    steps = ["--rename", "layer:fc=latent", "--rename", "layer:latent=fc"]
    assert cli.main(["edit", *files, *_out(tmp_path, "new.h5"), *SHAPES, *steps]) == 0
    new = surgery.read(
        tmp_path / "new.prototxt", tmp_path / "new.h5", input_shapes={"data": (4, 3, 8, 8), "label": (4,)}
    )
    assert names(new)[5:9] == ["fc", "code", "binary", "latent"]
    np.testing.assert_array_equal((new.weights or {})["latent"][0], (trained().weights or {})["fc"][0])


def test_insert_replace_cut_and_merge(tmp_path: Path, files: list[str]) -> None:
    steps = ["--insert", "latent", 'layer { name: "t" type: "TanH" }', "--replace", "code", 'layer { type: "ReLU" }']
    steps += ["--cut", "..fc", "--merge", files[1], "--alias", "fc=fc"]
    assert cli.main(["edit", *files, *_out(tmp_path), *SHAPES, *steps]) == 0
    with open_weights(tmp_path / "new.caffemodel") as new:
        assert [(x.name, x.type) for x in new.layers][6:] == [("t", "TanH"), ("code", "ReLU"), ("fc", "InnerProduct")]


def test_a_net_alone_is_edited_without_its_shapes(tmp_path: Path, files: list[str]) -> None:
    assert cli.main(["edit", files[0], "-o", str(tmp_path / "new"), "--bits", "12", "--rename", "conv=c1"]) == 0
    assert "num_output: 12" in (tmp_path / "new").read_text()


def test_files_are_written_in_the_old_syntax(tmp_path: Path, files: list[str]) -> None:
    assert cli.main(["edit", *files, *_out(tmp_path), *SHAPES, "--syntax", "V1"]) == 0
    assert "layers {" in (tmp_path / "new.prototxt").read_text()
    with open_weights(tmp_path / "new.caffemodel") as new:
        assert new.syntax == "V1"


WRONG = {
    "nothing": ([], "no edit is asked for"),
    "both ways": (["--deploy", "--train"], "undo each other"),
    "softmax alone": (["--softmax", "prob", "--bits", "3"], "--softmax goes with --deploy"),
    "data alone": (["--data", "x", "--bits", "3"], "--data goes with --train"),
    "where possible": (["--where-possible", "--bits", "3"], "goes with --fold-batchnorm"),
    "an alias alone": (["--alias", "a=b"], "belongs behind the --merge"),
    "an alias without a name": (["--merge", "x", "--alias", "a"], "--alias 'a': expected NEW=OLD"),
    "a rename without a name": (["--rename", "a"], "--rename 'a': expected OLD=NEW"),
    "two names": (["--rename", "fc=b", "--rename", "fc=c"], "gives 'fc' two names"),
    "no number": (["--bits", "many"], "--bits 'many': expected a number"),
    "zero": (["--classes", "0"], "--classes '0': expected a number of at least 1"),
    "no range": (["--cut", "fc"], "--cut 'fc': expected FIRST..LAST"),
    "an unknown layer": (["--remove", "convv"], "no layer 'convv'; did you mean 'conv'"),
    "a dangling bottom": (["--remove", "data"], "'data' of layer 'conv'"),
    "bad prototxt": (["--insert", "fc", "layer { name: 3 }"], "<insert>:1:"),
    "twice": (["--deploy", "--deploy"], "--deploy is given 2 times"),
}


@pytest.mark.parametrize("steps, problem", WRONG.values(), ids=WRONG)
def test_wrong_edits_write_nothing(
    tmp_path: Path, files: list[str], capsys: pytest.CaptureFixture[str], steps: list[str], problem: str
) -> None:
    assert cli.main(["edit", *files, *_out(tmp_path), *SHAPES, *steps]) in (1, 2)
    assert problem in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net", "weights"]


def test_files_that_are_there_stay(tmp_path: Path, files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = (tmp_path / "weights").read_bytes()
    same = ["edit", *files, "-o", *files, *SHAPES, "--classes", "3"]
    assert cli.main(same) == 1
    assert "already there; give another name, or force (--force)" in capsys.readouterr().err
    assert (tmp_path / "weights").read_bytes() == before
    assert cli.main([*same, "--force"]) == 0
    assert (tmp_path / "weights").read_bytes() != before


@pytest.mark.parametrize(
    "given, out, problem",
    [
        (1, ["a", "b"], "there are no weights to write to b"),
        (2, ["a"], "-o names only the new net"),
        (2, ["a", "b", "c"], "3 were given"),
        (2, ["a", "a"], "would be the same file"),
    ],
)
def test_weights_in_and_out_belong_together(
    files: list[str], capsys: pytest.CaptureFixture[str], given: int, out: list[str], problem: str
) -> None:
    assert cli.main(["edit", *files[:given], "-o", *out, "--classes", "3"]) == 2
    assert problem in capsys.readouterr().err


def test_weights_of_another_net_are_refused(
    tmp_path: Path, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").write_text((tmp_path / "net").read_text().replace("num_output: 10", "num_output: 9"))
    assert cli.main(["edit", str(tmp_path / "other"), files[1], *_out(tmp_path), *SHAPES, "--deploy"]) == 1
    assert "layer 'fc': blob 0 is 10x8 in the file, 9x8 in the net" in capsys.readouterr().err
