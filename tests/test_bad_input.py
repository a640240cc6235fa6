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


# A net that is no net

TEXT = NET.read_text("utf-8")

NO_NETS: list[tuple[str, str | bytes, str]] = [
    ("empty", "", "no layers in this file"),
    ("comment", "# nothing\n", "no layers in this file"),
    ("utf16", TEXT.encode("utf-16"), "the text is UTF-16, expected UTF-8; save the file as UTF-8"),
    ("utf16be", TEXT.encode("utf-16-be"), "the text is UTF-16"),
    ("page", "<!DOCTYPE html>\n<html><title>404</title></html>", "this is a web page, saved in place of the prototxt"),
    ("json", '{"layers": [1]}', "json:1:1: found '{', expected a field of NetParameter"),
    ("python", "import caffe\n", "python:1:8: found 'caffe', expected ':' or '{'"),
    ("binary", bytes(range(256)), "byte 0x00 at offset 0: this is a binary file"),
    ("gzip", b"\x1f\x8b\x08\x00" + bytes(40), "this is a binary file"),
    ("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(40), "this is an HDF5 file (weights?)"),
    ("nul", TEXT.encode() + b"\0", "byte 0x00 at offset"),
    ("cut", TEXT[: len(TEXT) // 2], "found the end of the file, expected"),
    ("deep", "layer {" * 5000, "messages nest more than 100 deep"),
    ("solver", SOLVER.read_bytes(), "its net, test_iter, test_interval make it a solver: give the net that"),
    ("caffemodel", WEIGHTS.read_bytes(), "this is a binary file (weights?)"),
]


@pytest.mark.parametrize("name, data, message", NO_NETS, ids=[case[0] for case in NO_NETS])
def test_a_file_that_is_no_net(name: str, data: str | bytes, message: str, refused: Refused) -> None:
    write(name, data)
    assert message in refused("info", name)


def test_names_that_are_no_files(refused: Refused) -> None:
    Path("folder").mkdir()
    assert "missing: cannot be read: No such file or directory" in refused("info", "missing")
    assert "folder: cannot be read: Is a directory" in refused("info", "folder")
    assert "'a\\x00b' cannot be the name of a file" in refused("info", "a\0b")
    assert "no layers" in refused("info", os.devnull)


def test_an_endless_pipe_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr("caffe2torch.prototxt._MAX_BYTES", 1 << 12)
    reader, writer = os.pipe()
    os.write(writer, b"#" * (1 << 14))
    try:
        assert "found more" in refused("info", f"/dev/fd/{reader}")
    finally:
        os.close(reader)
        os.close(writer)


def test_a_solver_lists_what_a_net_does_not_have(refused: Refused) -> None:
    err = refused("draw", SOLVER, lines=None)
    assert "no field 'net' in NetParameter; SolverParameter has one" in err
    assert all(f"{SOLVER}:" in line for line in err.splitlines())


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b"# caf\xe9\n", b"\r\n\t"])
def test_a_byte_order_mark_latin_1_and_line_ends_are_no_errors(start: bytes) -> None:
    write("net.prototxt", start + TEXT.replace("\n", "\r\n").encode())
    assert main(["info", "net.prototxt"]) == 0


# A net that cannot be built

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }\n'


def one(kind: str, settings: str = "", *, bottoms: str = "x", tops: str = "y", name: str = "l") -> str:
    """A layer; ``bottoms`` and ``tops`` are names with spaces between them."""
    ends = " ".join(f'{end}: "{blob}"' for end, blobs in (("bottom", bottoms), ("top", tops)) for blob in blobs.split())
    return f'layer {{ name: "{name}" type: "{kind}" {ends} {settings} }}\n'


def test_a_scalar_input_is_no_error() -> None:
    write("net.prototxt", 'layer { name: "in" type: "Input" top: "x" input_param { shape { } } }' + one("ReLU"))
    assert main(["info", "net.prototxt"]) == 0


DATA = 'layer { name: "d" type: "Data" top: "x" %s }'

SOURCES = [
    ('layer { name: "d" type: "Data" top: "x" }', "give it: input_shapes={'x': (batch, channels, height, width)}"),
    (
        DATA % 'top: "l" top: "z" transform_param { crop_size: 4 } data_param { batch_size: 2 }',
        "layer 'd' (Data) names 3 tops (x, l, z), expected at most 2: data and labels",
    ),
    ('layer { name: "d" type: "MemoryData" top: "x" top: "l" top: "z" }', "expected at most 2"),
    ('layer { name: "d" type: "MemoryData" top: "x" top: "l" }', "input blob 'x' has shape 0x0x0x0; every dimension"),
    ('layer { name: "d" type: "WindowData" top: "x" }', "has shape 0x3x0x0"),
    ('layer { name: "d" type: "HDF5Data" top: "x" hdf5_data_param { source: "binary.txt" } }', "binary.txt cannot be"),
    (
        'layer { name: "d" type: "HDF5Data" top: "x" hdf5_data_param { source: "text.txt" } }',
        "cannot give the datasets",
    ),
    ('layer { name: "d" type: "HDF5Data" top: "x" hdf5_data_param { source: "/dev/zero" } }', "give it: input_shapes"),
    (f'layer {{ name: "d" type: "HDF5Data" top: "x" hdf5_data_param {{ source: "{"x" * 5000}" }} }}', "give it: input"),
    (DATA % 'transform_param { mean_file: "binary.txt" }', "binary.txt: "),
    (DATA % f'transform_param {{ mean_file: "{"x" * 5000}" }}', "give it: input_shapes"),
    (DATA % 'transform_param { mean_file: "a\\000b" }', "give it: input_shapes"),
    (DATA % "transform_param { crop_size: 4294967295 } data_param { batch_size: 3 }", "Caffe's limit is 2147483647"),
    ('layer { name: "in" type: "Input" top: "x" input_param { shape { dim: -1 } } }', "shape -1; every dimension must"),
    (
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 0 } } }',
        "every dimension must be at least",
    ),
    (
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 9223372036854775807 dim: 2 } } }',
        "18446744073709551614 values",
    ),
    (
        f'layer {{ type: "Input" top: "x" input_param {{ shape {{ {"dim: 1 " * 33} }} }} }}',
        "33 axes; Caffe's limit is 32",
    ),
    ('layer { name: "in" type: "Input" top: "x" input_param { shape { } shape { } } }', "2 shapes for 1 tops"),
    ('input: "x" input_dim: 1 ' + one("ReLU"), "1 'input' but 1 'input_dim', expected four"),
]


@pytest.mark.parametrize("text, message", SOURCES)
def test_inputs_whose_shape_is_impossible_or_unknown(text: str, message: str, refused: Refused) -> None:
    write("binary.txt", b"\xff\xfe\xff\n")
    write("text.txt", "text.txt\n")
    write("net.prototxt", text)
    assert message in refused("info", "net.prototxt")
