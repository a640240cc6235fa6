"""The verifier finds what is wrong: golden cases that were tampered with, and nets that differ from a dump."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe2torch import cli
from caffe2torch.verify.case import bundled, discover
from caffe2torch.verify.compare import compare, tolerances
from caffe2torch.verify.report import failure_lines
from caffe2torch.verify.runner import run_case

GOLDENS = bundled()
WEIGHTS = GOLDENS / "formats" / "weights"
OPENCV = pytest.mark.skipif(not hasattr(cv2.dnn, "readNetFromCaffe"), reason="OpenCV 5 has no Caffe importer")


@pytest.mark.parametrize("case", [c for k in ("data", "formats") for c in discover(GOLDENS / k)], ids=lambda c: c.name)
def test_golden_files_are_read_as_by_caffe(case: object) -> None:
    assert failure_lines(run_case(case)) == []  # type: ignore[arg-type]


def copied(tmp_path: Path, name: str) -> Path:
    target = tmp_path / "goldens" / name
    shutil.copytree(GOLDENS / name, target)
    return target


def tamper(folder: Path, key: str, change: object, file: str = "blobs.npz") -> None:
    arrays = dict(np.load(folder / file))
    if callable(change):
        arrays[key] = change(arrays[key])
    else:
        arrays[key] = np.asarray(change, np.float32)
    np.savez(folder / file, **arrays)


def lines_of(folder: Path) -> list[str]:
    (case,) = discover(folder)
    return failure_lines(run_case(case))


def test_a_wrong_value_is_one_line_with_case_blob_error_and_tolerance(tmp_path: Path) -> None:
    folder = copied(tmp_path, "layers/relu")
    tamper(folder, "out:y", lambda y: y + np.float32(1e-4) * np.abs(y).max())
    (line,) = lines_of(folder)
    assert re.fullmatch(r"FAIL layers/relu out:y: largest error 1\.0e-04, tolerance 1e-05", line)


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda y: y[:1], "has shape"),
        (lambda y: np.where(y == y.max(), np.nan, y), "is not NaN or infinite where Caffe's is"),
        (lambda y: np.where(y == y.max(), np.inf, y), "is not NaN or infinite where Caffe's is"),
    ],
    ids=["shape", "nan", "infinite"],
)
def test_shapes_and_values_that_are_not_finite_must_agree(change: object, reason: str, tmp_path: Path) -> None:
    folder = copied(tmp_path, "layers/relu")
    tamper(folder, "out:y", change)
    (line,) = lines_of(folder)
    assert f"out:y: {reason}" in line


def test_a_wrong_gradient_is_found(tmp_path: Path) -> None:
    folder = copied(tmp_path, "layers/relu")
    tamper(folder, "grad_in:x", lambda g: -g, "grads.npz")
    (line,) = lines_of(folder)
    assert "grad_in:x: largest error 2.0e+00" in line


def test_a_gradient_that_caffe_does_not_propagate_is_found(tmp_path: Path) -> None:
    folder = copied(tmp_path, "layers/relu")
    arrays = dict(np.load(folder / "grads.npz"))
    del arrays["grad_in:x"]
    np.savez(folder / "grads.npz", **arrays)
    assert "has a gradient; Caffe propagates none" in lines_of(folder)[0]


def test_blobs_that_only_one_of_the_nets_has_are_found(tmp_path: Path) -> None:
    folder = copied(tmp_path, "layers/relu")
    tamper(folder, "out:z", [1.0])
    assert "the net lacks z" in lines_of(folder)[0]
    arrays = {k: v for k, v in np.load(folder / "blobs.npz").items() if k.startswith("in:")}
    np.savez(folder / "blobs.npz", **arrays, **{"out:z": np.zeros(1, np.float32)})
    assert "the net lacks z and has y too" in lines_of(folder)[0]


def test_a_parameter_that_only_one_program_changed_is_found(tmp_path: Path) -> None:
    folder = copied(tmp_path, "layers/bn_train")
    arrays = dict(np.load(folder / "blobs.npz"))
    (first, *_) = [key for key in arrays if key.startswith("param_after:")]
    del arrays[first]
    np.savez(folder / "blobs.npz", **arrays)
    assert lines_of(folder) == [f"FAIL layers/bn_train {first}: changed, Caffe's did not"]


def test_later_passes_are_compared(tmp_path: Path) -> None:
    folder = copied(tmp_path, "layers/hdf5_data")
    tamper(folder, "out3:y", lambda y: y + 1)
    (line,) = lines_of(folder)
    assert "out3:y" in line


def test_random_values_are_judged_by_their_distribution(tmp_path: Path) -> None:
    folder = copied(tmp_path, "layers/dropout_train")
    (case,) = discover(folder)
    result = run_case(case)
    assert {check.name for check in result.checks} >= {"random:y", "random:y:rate", "random:y:gradient"}
    assert result.status == "passed"


@pytest.mark.parametrize("spread, agrees", [(2.0, True), (1.5, False)])
def test_random_tops_are_judged_by_mean_and_spread(spread: float, agrees: bool, tmp_path: Path) -> None:
    folder = tmp_path / "layers" / "dummy"
    folder.mkdir(parents=True)
    layers = """
        layer { name: "d" type: "DummyData" top: "c" top: "r" dummy_data_param {
            shape { dim: 50 dim: 40 } data_filler { value: 3 } data_filler { type: "gaussian" std: 2 } } }
        layer { name: "t" type: "TanH" bottom: "r" top: "t" }
        layer { name: "p" type: "Power" bottom: "c" top: "p" }
    """
    (folder / "net.prototxt").write_text(layers, "utf-8")
    (folder / "case.json").write_text('{"layer": "DummyData", "phase": "TRAIN", "random": true}', "utf-8")
    drawn = np.random.RandomState(3).standard_normal((50, 40)).astype(np.float32) * np.float32(spread)
    constant = np.full((50, 40), 3, np.float32)
    np.savez(folder / "blobs.npz", **{"out:c": constant, "out:p": constant, "out:r": drawn, "out:t": np.tanh(drawn)})
    assert [line.split(":")[0] for line in lines_of(folder)] == ([] if agrees else ["FAIL layers/dummy random"])


def test_a_file_the_net_writes_is_compared_and_stays_out_of_the_goldens(tmp_path: Path) -> None:
    folder = copied(tmp_path, "layers/hdf5_output")
    before = (folder / "out.h5").read_bytes()
    (case,) = discover(folder)
    assert {"out.h5:data", "out.h5:label"} <= {check.name for check in run_case(case).checks}
    assert (folder / "out.h5").read_bytes() == before


def test_an_unknown_layer_type_fails_its_case(tmp_path: Path) -> None:
    folder = copied(tmp_path, "layers/relu")
    net = folder / "net.prototxt"
    net.write_text(net.read_text("utf-8").replace('"ReLU"', '"Nobody"'), "utf-8")
    (line,) = lines_of(folder)
    assert line.startswith("FAIL layers/relu: ")
    assert "'Nobody'" in line


def test_a_damaged_case_fails_and_the_others_are_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(tmp_path, "layers/relu")
    copied(tmp_path, "layers/sigmoid_basic")
    (folder / "blobs.npz").write_bytes(b"PK\3\4 nothing")
    assert cli.main(["verify", "--goldens", str(tmp_path / "goldens")]) == 1
    out = capsys.readouterr().out
    assert "FAIL layers/relu: " in out
    assert "cannot be read as an .npz file" in out
    assert out.endswith("1 passed, 1 failed\n")


def test_stored_weights_are_compared_exactly(tmp_path: Path) -> None:
    folder = copied(tmp_path, "formats/weights")
    tamper(folder, "w:ip:1", lambda w: np.nextafter(w, np.float32(9)))
    assert [line.split(":")[0] for line in lines_of(folder)] == [
        "FAIL formats/weights weights.caffemodel w",
        "FAIL formats/weights weights.caffemodel.h5 w",
    ]


def test_solver_states_are_compared(tmp_path: Path) -> None:
    folder = copied(tmp_path, "formats/state_adam")
    tamper(folder, "history:3", lambda h: h + 1)
    assert len(lines_of(folder)) == 2


@pytest.mark.parametrize("suffix", ["solverstate", "solverstate.h5", "caffemodel", "caffemodel.h5"])
def test_a_damaged_file_fails_its_case(suffix: str, tmp_path: Path) -> None:
    folder = copied(tmp_path, "formats/state_sgd")
    (folder / f"s_iter_3.{suffix}").write_bytes(b"\x0f\xff\xff nothing")
    (line,) = lines_of(folder)
    assert f"s_iter_3.{suffix}" in line


def test_a_top_without_a_name_may_be_among_caffes_blobs(tmp_path: Path) -> None:
    folder = copied(tmp_path, "layers/euclidean_basic")
    net = folder / "net.prototxt"
    (top,) = [k[4:] for k in np.load(folder / "blobs.npz") if k.startswith("out:")]
    net.write_text(re.sub(rf'  top: "{top}"\n', "", net.read_text("utf-8")), "utf-8")
    (folder / "grads.npz").unlink()
    arrays = {k.replace(f"out:{top}", "out:(automatic)"): v for k, v in np.load(folder / "blobs.npz").items()}
    np.savez(folder / "blobs.npz", **arrays)
    assert lines_of(folder) == []


def test_filler_moments_are_compared(tmp_path: Path) -> None:
    folder = copied(tmp_path, "formats/fillers")
    samples = json.loads((folder / "fillers.json").read_text("utf-8"))
    samples[0]["mean"] += 0.1
    (folder / "fillers.json").write_text(json.dumps(samples), "utf-8")
    assert any("mean: is 0.3" in line for line in lines_of(folder))


def test_cancelled_sums_are_measured_by_what_cancelled() -> None:
    noise = np.full(3, 1e-6, np.float32)
    assert not compare("g", noise, np.zeros(3, np.float32), 1e-4).passed
    assert compare("g", noise, np.zeros(3, np.float32), 1e-4, floor=0.1).passed


def test_the_tolerance_is_loose_from_the_first_long_sum_on() -> None:
    (case,) = discover(GOLDENS / "layers" / "relu_inplace_chain")
    from caffe2torch.verify.nets import build

    found = tolerances(build(case).structure.graph)
    assert found["c"] == 1e-4
    (case,) = discover(GOLDENS / "layers" / "relu")
    assert tolerances(build(case).structure.graph)["y"] == 1e-5


def test_one_kind_or_one_case_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert [case.name for case in discover(GOLDENS / "layers" / "relu")] == ["layers/relu"]
    assert discover(GOLDENS / "layers")[0].name == "layers/accuracy_all_ignored"
    assert discover(GOLDENS / "fullsize" / "ssdh.npz")[0].name == "fullsize/ssdh"
    assert discover(GOLDENS)[0].name == "data/image_data"


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--goldens", "nowhere"], "there is no such folder"),
        (["--goldens", "."], "no golden cases below it"),
        (["--only", "x*"], "none of the"),
        (["net.prototxt"], "what to compare this net with?"),
        (["net.prototxt", "--against", "x.npz", "--only", "x"], "--goldens and --only run golden cases"),
        (["--against", "x.npz"], "give NET and WEIGHTS"),
        (["net.prototxt", "--against", "x.npz", "--data", "y.npz"], "--data goes with --against opencv"),
    ],
)
def test_impossible_wishes(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["verify", *arguments]) == 2
    assert reason in capsys.readouterr().err


# A user's own net


def dump(tmp_path: Path, **changes: np.ndarray) -> Path:
    arrays = {k: v for k, v in np.load(WEIGHTS / "blobs.npz").items() if k.startswith(("in:", "out:"))}
    arrays |= {f"out:{blob}": value for blob, value in changes.items()}
    np.savez(tmp_path / "blobs.npz", **arrays)
    return tmp_path / "blobs.npz"


def own(*more: object) -> list[str]:
    return ["verify", str(WEIGHTS / "net.prototxt"), str(WEIGHTS / "weights.caffemodel"), *map(str, more)]


def test_a_net_agrees_with_its_dump(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(own("--against", dump(tmp_path))) == 0
    assert capsys.readouterr().out.endswith("4 blobs agree, 0 differ\n")


def test_blobs_may_carry_plain_names_and_caffes_split_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = {k.partition(":")[2]: v for k, v in np.load(dump(tmp_path)).items()}
    np.savez(tmp_path / "plain.npz", **arrays, act_relu_0_split_1=arrays["act"])
    assert cli.main(own("--against", tmp_path / "plain.npz")) == 0
    assert capsys.readouterr().out.endswith("5 blobs agree, 0 differ\n")  # the input is one of them


def test_the_first_layer_that_diverges_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = np.load(WEIGHTS / "blobs.npz")
    changed = {"act": golden["out:act"] * np.float32(1.1), "ip": golden["out:ip"] + 1}
    assert cli.main(own("--against", dump(tmp_path, **changed))) == 1
    out = capsys.readouterr().out
    assert "the first to diverge is blob 'act', made by layer 'relu' (PReLU): off by" in out
    assert out.endswith("2 blobs agree, 2 differ\n")


def test_layers_in_place_are_named_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(own("--against", dump(tmp_path, bn=np.load(WEIGHTS / "blobs.npz")["out:bn"] + 1))) == 1
    assert "'bn' (BatchNorm), then 'scale' (Scale) in place: off by" in capsys.readouterr().out


def test_a_layer_that_only_passes_a_difference_on_agrees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }\n'
        'layer { name: "p" type: "Power" bottom: "x" top: "p" }\n'
        'layer { name: "e" type: "Exp" bottom: "p" top: "e" exp_param { scale: 50 } }\n',
        "utf-8",
    )
    x = np.array([1.0, 0.5], np.float32)
    p = x * np.float32(1 + 2e-6)  # within the tolerance of p, but e differs by 1e-4
    np.savez(tmp_path / "blobs.npz", **{"in:x": x, "out:p": p, "out:e": np.exp(50 * p)})
    assert cli.main(["verify", str(net), "--against", str(tmp_path / "blobs.npz")]) == 0
    assert "'e' (Exp), given their bottoms" in capsys.readouterr().out


def test_the_tolerance_can_be_given(tmp_path: Path) -> None:
    changed = dump(tmp_path, ip=np.load(WEIGHTS / "blobs.npz")["out:ip"] * np.float32(1.001))
    assert cli.main(own("--against", changed)) == 1
    assert cli.main(own("--against", changed, "--tolerance", "0.01")) == 0


def test_inputs_take_the_shapes_of_the_dump(tmp_path: Path) -> None:
    golden = np.load(WEIGHTS / "blobs.npz")
    np.savez(tmp_path / "one.npz", **{k: golden[k][:1] for k in golden.files if k.startswith(("in:", "out:"))})
    assert cli.main(own("--against", tmp_path / "one.npz")) == 0


def test_a_dump_without_the_inputs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "x.npz", ip=np.load(WEIGHTS / "blobs.npz")["out:ip"])
    assert cli.main(own("--against", tmp_path / "x.npz")) == 2
    assert "lacks the input blobs data" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY"], ids=["empty", "cut", "npy"])
def test_a_dump_that_is_no_npz_is_refused(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    assert cli.main(own("--against", tmp_path / "x.npz")) == 1
    assert "x.npz: cannot be read as an .npz file" in capsys.readouterr().err


@OPENCV
@pytest.mark.parametrize("suffix", ["", ".h5"])
def test_a_net_agrees_with_opencv(suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    weights = str(WEIGHTS / f"weights.caffemodel{suffix}")
    assert cli.main(["verify", str(WEIGHTS / "net.prototxt"), weights, "--against", "opencv"]) == 0
    assert capsys.readouterr().out.endswith("4 blobs agree, 0 differ\n")


@OPENCV
def test_opencv_runs_on_the_data_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(own("--against", "opencv", "--data", dump(tmp_path))) == 0


@OPENCV
def test_layers_opencv_lacks_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    folder = GOLDENS / "layers" / "ssdh_objective"
    files = [str(folder / name) for name in ("net.prototxt", "weights.caffemodel")]
    assert cli.main(["verify", *files, "--phase", "train", "--against", "opencv"]) == 0
    out = capsys.readouterr().out
    assert "OpenCV cannot compute them: 'ls' (SoftmaxWithLoss), 'k1' (K1_EuclideanLoss), 'k2'" in out


@OPENCV
def test_layers_that_draw_in_test_are_not_compared_with_opencv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.prototxt").write_text(
        """input: "x" input_shape { dim: 2 dim: 50 }
        layer { name: "p" type: "Power" bottom: "x" top: "p" power_param { scale: 2 } }
        layer { name: "d" type: "Dropout" bottom: "p" top: "d" dropout_param { sample_weights_test: true } }
        layer { name: "r" type: "ReLU" bottom: "d" top: "r" }""",
        "utf-8",
    )
    assert cli.main(["verify", str(tmp_path / "net.prototxt"), "--against", "opencv"]) == 0
    out = capsys.readouterr().out
    assert "OpenCV cannot compute them: 'd' (Dropout), 'r' (ReLU)" in out
    assert out.endswith("1 blobs agree, 0 differ\n")


class Tags(HTMLParser):
    """Counts rows and keeps a stack of open tags."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[str] = []
        self.open: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "tr":
            self.rows.append(values.get("class") or "")
        if tag != "meta":
            self.open.append(tag)
        self.outside += [v for k, v in values.items() if k in ("src", "href") and v]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_one_page_with_a_row_for_every_blob(tmp_path: Path) -> None:
    blobs = dump(tmp_path, ip=np.load(WEIGHTS / "blobs.npz")["out:ip"] + 1)
    assert cli.main(own("--against", blobs, "--report", tmp_path / "r.html")) == 1
    tags = Tags()
    text = (tmp_path / "r.html").read_text("utf-8")
    tags.feed(text)
    assert tags.rows == ["", "passed", "passed", "passed", "failed"]
    assert tags.open == []
    assert tags.outside == []
    assert "the first to diverge is blob &#x27;ip&#x27;" in text


def test_the_report_of_golden_cases_has_failures_first(tmp_path: Path) -> None:
    copied(tmp_path, "layers/relu")
    tamper(copied(tmp_path, "layers/sigmoid_basic"), "out:y", lambda y: y + 1)
    shutil.copytree(GOLDENS / "solvers" / "adam", tmp_path / "goldens" / "solvers" / "adam")
    report = tmp_path / "r.html"
    assert cli.main(["verify", "--goldens", str(tmp_path / "goldens"), "--report", str(report)]) == 1
    tags = Tags()
    tags.feed(report.read_text("utf-8"))
    assert tags.rows == ["", "failed", "passed", "passed"]


def test_the_script_in_the_help_makes_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run it with a stand-in for pycaffe that has the attributes it uses."""
    from types import ModuleType, SimpleNamespace

    from caffe2torch.commands import verify

    golden = np.load(WEIGHTS / "blobs.npz")
    blobs = {k[4:]: SimpleNamespace(data=golden[k].copy()) for k in golden.files if k.startswith("out:")}
    blobs["data"] = SimpleNamespace(data=golden["in:data"].copy())

    def forward() -> None:
        import torch

        from caffe2torch.loading import load

        net = load(WEIGHTS / "net.prototxt", WEIGHTS / "weights.caffemodel")
        with torch.no_grad():
            found = net.select(*net.blob_shapes)(torch.from_numpy(blobs["data"].data))
        for name, value in found.items():
            blobs[name].data[...] = value.numpy()

    caffe = ModuleType("caffe")
    caffe.Net = lambda *_: SimpleNamespace(inputs=["data"], blobs=blobs, forward=forward)  # type: ignore[attr-defined]
    caffe.TEST = 1  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "caffe", caffe)
    monkeypatch.chdir(tmp_path)
    lines = (verify.__doc__ or "").split("this makes blobs.npz:\n")[1].split("\nBlobs are compared")[0].splitlines()
    exec("\n".join(line[2:] for line in lines), {})
    assert cli.main(own("--against", tmp_path / "blobs.npz")) == 0
    assert capsys.readouterr().out.endswith("5 blobs agree, 0 differ\n")


def test_an_optional_package_that_is_not_installed_skips_its_cases(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    assert cli.main(["verify", "--only", "data/lmdb_raw*"]) == 0
    out = capsys.readouterr().out
    assert "0 passed, 0 failed, 5 skipped" in out
    assert "need the package lmdb: pip install 'caffe2torch[data]'" in out
