"""Bad input through the command line: one clear line, the right exit status, nothing half-written, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from caffe2torch.cli import main

ROOT = Path(__file__).resolve().parent.parent
NET = ROOT / "prototxt" / "ssdh48_small" / "with_classifier.prototxt"
DEPLOY = NET.with_name("deploy.prototxt")
SOLVER = ROOT / "prototxt" / "kevinnet_cifar10_48" / "solver.prototxt"
WEIGHTS = ROOT / "weights" / "ssdh48_small.caffemodel"
FULL = Path("/dev/full")

Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must fail: returns its one error message, after checking all that holds for every failure."""

    def run(*arguments: str | Path, status: int = 1, lines: int | None = 1) -> str:
        before = sorted(tmp_path.rglob("*"))
        try:
            got = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse's own way to refuse
            got, lines = stop.code, None
        out, err = capsys.readouterr()
        assert got == status, err
        assert "error: " in err
        assert "Traceback" not in out + err
        if lines is not None:
            assert err.startswith("caffe2torch: error: ")
            assert err.count("\n") == lines, err
        assert sorted(tmp_path.rglob("*")) == before
        return err

    return run


def write(name: str, data: str | bytes) -> Path:
    path = Path(name)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def command(*arguments: str | Path, stdout: int | None = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, for what only a process shows."""
    words: Sequence[str] = [sys.executable, "-m", "caffe2torch", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": ""}
    return subprocess.run(
        words, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment, check=False, timeout=300
    )


# What a process does with its output


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("zoo",), ("zoo", "--json"), ("--help",), ("--version",)])
def test_a_full_disk_behind_standard_output_is_one_line(arguments: tuple[str, ...]) -> None:
    with FULL.open("w") as full:
        done = command(*arguments, stdout=full.fileno())
    assert done.stderr == "caffe2torch: error: standard output: No space left on device\n"
    assert done.returncode == 1


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = command("zoo", "--json", stdout=writer)
    finally:
        os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 1


def test_a_closed_standard_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["zoo"]) == 0


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("caffe2torch.zoo.names", interrupt)
    assert main(["zoo"]) == 130
    assert capsys.readouterr().err == "caffe2torch: interrupted\n"


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")]
)
def test_too_little_memory_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("caffe2torch.zoo.names", fail)
    assert "not enough memory" in refused("zoo")


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr("caffe2torch.zoo.names", fail)
    with pytest.raises(RuntimeError, match="a mistake"):
        main(["zoo"])
