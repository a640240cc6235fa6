"""docs/layers.md is what `caffe2torch layers --markdown` writes; what it says of oracles is so."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import pytest

from caffe2torch import cli
from caffe2torch.commands.layers import measured
from caffe2torch.layers import registry
from caffe2torch.verify import catalogue
from caffe2torch.verify.catalogue import Measured
from caffe2torch.verify.layers_page import page

ROOT = Path(__file__).resolve().parent.parent
ERROR = re.compile(r"\b\de-\d\d\b|\bexact\b")


@lru_cache(maxsize=1)
def figures() -> dict[str, Measured]:
    return measured()


def test_the_page_is_up_to_date_but_for_digits() -> None:
    """If this fails: caffe2torch layers --markdown docs/layers.md"""
    ours, written = page(figures()), (ROOT / "docs" / "layers.md").read_text("utf-8")
    assert ERROR.sub("E", written).splitlines() == ERROR.sub("E", ours).splitlines()


def test_the_errors_on_the_page_are_of_the_measured_size() -> None:
    def values(text: str) -> list[float]:
        # Below a few times float32's precision every processor has its own figure.
        return [max(float(word.replace("exact", "0")), 3e-7) for word in ERROR.findall(text)]

    written = (ROOT / "docs" / "layers.md").read_text("utf-8")
    for ours, theirs in zip(values(page(figures())), values(written), strict=True):
        assert theirs / 10 <= ours <= theirs * 10


def test_the_page_has_every_type() -> None:
    headings = re.findall(r"^### (.*)$", page({}), re.MULTILINE)
    assert {name for heading in headings for name in heading.split()} == {*registry.types(), *catalogue.sources()}


def test_errors_of_the_goldens_are_those_of_the_layers_that_made_the_blobs() -> None:
    found = figures()
    assert found["Convolution"].cases > 20
    assert 0 < (found["Convolution"].forward or 0) < 1e-5
    assert found["ArgMax"].backward is None


@pytest.mark.parametrize("name", sorted(catalogue.OPENCV))
def test_the_tests_do_compare_with_opencv(name: str) -> None:
    texts = [path.read_text("utf-8") for path in (ROOT / "tests" / "layers").glob("test_*.py")]
    assert any(f'type: "{name}"' in text and "opencv" in text for text in texts)


def test_parameters_are_those_the_class_reads() -> None:
    entries = {entry.name: entry for entry in catalogue.entries()}
    assert entries["Deconvolution"].messages == ("convolution_param",)
    assert entries["SoftmaxWithLoss"].messages == ("loss_param", "softmax_param")
    assert entries["Axpy"].refused == {"axis"}
    assert entries["TanH"].messages == ()
    assert dict(catalogue.parameters("lrn_param"))["local_size"] == "uint32 = 5"


def test_layers_that_cannot_be_captured_say_why() -> None:
    entries = {entry.name: entry for entry in catalogue.entries()}
    assert entries["HDF5Output"].capture == "Not captured by torch.export because it writes a file."
    assert "torch.export" not in entries["HDF5Output"].text


def test_the_command_lists_every_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["layers"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*registry.types(), *catalogue.sources()))


def test_the_command_tells_all_of_a_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["layers", "LRN", "HDF5Data"]) == 0
    told = capsys.readouterr().out
    assert "local_size" in told
    assert "uint32 = 5" in told
    assert "hdf5_data_param:" in told


def test_an_unknown_type_is_named_with_a_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["layers", "poling"]) == 2
    assert "did you mean Pooling" in capsys.readouterr().err


def test_the_command_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caffe2torch.commands.layers.measured", dict)
    assert cli.main(["layers", "--markdown", str(tmp_path / "x.md")]) == 0
    assert (tmp_path / "x.md").read_text("utf-8") == page({})
