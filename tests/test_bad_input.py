"""Bad input through the command line: one clear line, the right exit status, nothing half-written, no traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

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


def test_a_solver_is_called_a_solver_by_every_command(refused: Refused) -> None:
    assert "make it a solver: give the net that the solver names" in refused("draw", SOLVER)


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
    ('layer { name: "d" type: "Data" top: "x" top: "l" }', "(command line: --input x=10,3,227,227 --input l=10)"),
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


IMPOSSIBLE = [
    (one("ReLU", bottoms="nope"), "layer 'l' (ReLU): bottom 0 is 'nope', which no layer before it makes; it has 'x'"),
    (
        one("ReLU", bottoms="b", tops="a") + one("ReLU", bottoms="a", tops="b", name="m"),
        "is 'b', which no layer before",
    ),
    (one("ReLU") + one("ReLU", name="m"), "layer 'm' (ReLU): top 'y' is already made by layer 'l'"),
    (one("ReLU", tops="q") + one("ReLU", tops="x", name="m"), "changes blob 'x' in place, but layer 'l' reads"),
    (one("Split", tops="y y"), "two of its tops have the same name"),
    (one("ReLU", tops="y z"), "layer 'l' (ReLU) has 2 tops (y, z), expected 1"),
    (one("Concat", bottoms=""), "layer 'l' (Concat) has 0 bottoms (none), expected 1"),
    (one("Concat", "concat_param { axis: 7 }", bottoms="x x"), "concat_param.axis is 7, but the bottom has 4 axes"),
    (one("InnerProduct", "inner_product_param { num_output: 0 }"), "num_output 0: expected at least 1"),
    (one("InnerProduct", "inner_product_param { num_output: -1 }"), "-1 is out of range for 'num_output'"),
    (one("InnerProduct", "inner_product_param { num_output: 4294967295 }"), "at most 2147483647 values"),
    (one("Convolution", "convolution_param { num_output: 2 kernel_size: 9 }"), "the kernel covers 9 values"),
    (one("Convolution", "convolution_param { num_output: 2 kernel_size: 3 group: 2 }"), "expected a divisor of both"),
    (one("LRN", "lrn_param { local_size: 4 }"), "local_size is 4: expected an odd number"),
    (one("Reshape", "reshape_param { shape { dim: 7 } }"), "384 values do not fit"),
    (one("Slice", "slice_param { slice_point: 3 }", tops="y z"), "expected 1 rising points between 0 and 3"),
    (one("Conv"), "'Conv' of layer 'l' (did you mean 'Concat'?)"),
    (one("ReLU", "include { phase: TRAIN } exclude { phase: TEST }"), "both include and exclude rules"),
]


@pytest.mark.parametrize("text, message", IMPOSSIBLE)
def test_nets_that_cannot_be_built(text: str, message: str, refused: Refused) -> None:
    write("net.prototxt", INPUT + text)
    err = refused("info", "net.prototxt", lines=None)
    assert message in err
    assert "error: net.prototxt:" in err


def test_a_net_without_layers_in_the_phase(refused: Refused) -> None:
    write("net.prototxt", INPUT.replace(" }\n", " include { phase: TRAIN } }\n"))
    assert "has 1 layers, none of them in phase test" in refused("info", "net.prototxt")


def test_a_loop_is_drawn_as_little_as_it_is_built(refused: Refused) -> None:
    write("net.prototxt", one("ReLU", bottoms="b", tops="a") + one("ReLU", bottoms="a", tops="b", name="m"))
    assert "which no layer before it makes" in refused("draw", "net.prototxt", "-o", "net.dot")


# Weights

DATA_BYTES = WEIGHTS.read_bytes()

NO_WEIGHTS: list[tuple[str, bytes, str]] = [
    ("empty", b"", "is empty (0 bytes); fetch it again"),
    ("cut", DATA_BYTES[: len(DATA_BYTES) // 2], "the file is damaged, cut off or not a caffemodel"),
    ("one_byte_short", DATA_BYTES[:-1], "the file is damaged, cut off"),
    ("one_byte_more", DATA_BYTES + b"\0", "the file is damaged, cut off"),
    ("zeros", bytes(5000), "begins with nothing but zeros; the download was never completed"),
    ("page", b"<html>quota exceeded</html>", "is a web page, saved in place of the download"),
    ("pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n", "is a Git LFS pointer"),
    ("checkpoint", b"PK\x03\x04" + bytes(60), "is a zip archive (or a PyTorch checkpoint)"),
    ("prototxt", NET.read_bytes(), "is text, perhaps a prototxt"),
    ("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(100), "not a sound HDF5 file"),
]


@pytest.mark.parametrize("name, data, message", NO_WEIGHTS, ids=[case[0] for case in NO_WEIGHTS])
def test_files_that_are_no_weights(name: str, data: bytes, message: str, refused: Refused) -> None:
    write(name, data)
    err = refused("info", NET, name)
    assert f"error: {name}: " in err
    assert message in err


def test_weights_that_are_no_files(refused: Refused) -> None:
    Path("folder").mkdir()
    assert "folder: is a folder, expected a file" in refused("info", NET, "folder")
    assert "missing: cannot be read: No such file" in refused("info", NET, "missing")
    assert "is a device or a pipe" in refused("info", NET, os.devnull)


def test_weights_of_another_net_list_every_difference(refused: Refused) -> None:
    err = refused("info", ROOT / "prototxt" / "caffenet" / "deploy.prototxt", WEIGHTS, lines=None)
    assert "does not fit net" in err
    assert "no weights for layer 'fc8'" in err
    assert "--ignore-extra" in err
    assert err.count("\n") > 10


# Options


@pytest.mark.parametrize(
    "shape, message",
    [
        ("data", "expected BLOB=N,C,H,W with positive numbers, as data=10,3,227,227"),
        ("data=a,b", "expected BLOB=N,C,H,W"),
        ("=1,3,32,32", "expected BLOB=N,C,H,W"),
        ("data=1,3,32,0", "with positive numbers"),
        ("data=1,3,-32,32", "with positive numbers"),
        ("data=" + "9" * 5000, "expected BLOB=N,C,H,W"),
    ],
)
def test_input_shapes_that_are_none(shape: str, message: str, refused: Refused) -> None:
    err = refused("info", NET, "--input", shape, status=2)
    assert message in err
    assert len(err) < 300


def test_input_shapes_that_do_not_fit(refused: Refused) -> None:
    assert "names 'dta', but the net's inputs are data" in refused("info", NET, "--input", "dta=1,3,32,32")
    assert "Caffe's limit is 2147483647" in refused("info", NET, "--input", "data=1,3,99999,99999")
    assert "expected 4 axes" in refused("info", NET, "--input", "data=1,3,32")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["info"],
        ["info", "a", "b", "c"],
        ["info", "a", "--level", "x"],
        ["info", "a", "--phase", "deploy"],
        ["draw"],
        ["draw", "a", "b"],
        ["extract"],
        ["extract", "a", "--batch-size", "x"],
        ["zoo", "a", "b"],
        ["download", "a", "--retries", "-1"],
        ["download", "a", "--timeout", "nan"],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], refused: Refused) -> None:
    assert "usage: caffe2torch" in refused(*arguments, status=2)


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "caffe2torch extract photos/" in capsys.readouterr().out


def test_unknown_models_are_answered_with_near_names(refused: Refused) -> None:
    for arguments in (["zoo"], ["download"], ["extract", str(ROOT / "docs" / "samples"), "--model"]):
        assert "did you mean ssdh48_small" in refused(*arguments, "ssdh48_smal")
    assert "give model names or --all" in refused("download", status=2)
    assert "give model names or --all" in refused("download", "--all", "alexnet", status=2)


# Places that cannot be written


@pytest.mark.parametrize(
    "place, reason",
    [
        ("file/net.dot", "file: cannot be created: a file of that name is in the way"),
        ("file/more/net.dot", "file/more: cannot be created: its folder is not a folder"),
        ("folder.dot", "folder.dot: cannot be written: it is a folder; give a file name"),
        ("x" * 300 + ".dot", "cannot be written: the name is too long"),
    ],
)
def test_places_where_nothing_can_be_drawn(place: str, reason: str, refused: Refused) -> None:
    write("file", "")
    Path("folder.dot").mkdir()
    assert reason in refused("draw", NET, "-o", place)


def test_a_missing_folder_is_made_for_the_picture() -> None:
    assert main(["draw", str(NET), "-o", "none/net.dot"]) == 0
    assert Path("none/net.dot").read_text("utf-8").startswith("digraph")


def test_a_picture_of_unknown_kind_is_wrong_usage(refused: Refused) -> None:
    assert "ends in one of .svg, .png, .pdf, .dot" in refused("draw", NET, "-o", "net.bmp", status=2)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in sorted((ROOT / "docs" / "samples").iterdir())[:2]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("place", ["file/codes.h5", f"{os.devnull}/codes.h5"])
def test_places_where_no_codes_can_be_written(place: str, pictures: Path, refused: Refused) -> None:
    write("file", "")
    assert "cannot be written" in refused("extract", pictures, "--out", place)


@pytest.mark.parametrize("kind", ["h5", "mat", "npz", "csv"])
def test_a_disk_that_fills_up_leaves_no_half_written_codes(
    kind: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, replace = Path(f"codes.{kind}"), Path.replace

    def full(source: Path, target: Path) -> Path:
        if target.name == out.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        assert main(["extract", str(pictures), "--out", str(out)]) == 1
    err = capsys.readouterr().err
    assert "the disk is full" in err
    assert err.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(f".part.{kind}")]
    assert not out.exists()
    assert main(["extract", str(pictures), "--out", str(out), "--resume"]) == 0
    assert out.exists()


def test_codes_that_exist_are_kept(pictures: Path, refused: Refused) -> None:
    write("codes.h5", "precious")
    assert "codes.h5: exists already; --force replaces it" in refused("extract", pictures)
    assert Path("codes.h5").read_text() == "precious"


@pytest.mark.parametrize(
    "options, message",
    [
        (["--blob", "nope"], "has no blob 'nope'"),
        (["--features", "fc77"], "has no blob 'fc77'; its last are 'res4a', 'res4b', 'sum4', 'pool5', "),
        (["--weights", "missing"], "missing: cannot be read"),
        (["--weights", str(NET)], "is text, perhaps a prototxt"),
        (["--mean", "missing.npy"], "missing.npy: "),
    ],
)
def test_extract_options_that_name_nothing(options: list[str], message: str, pictures: Path, refused: Refused) -> None:
    assert message in refused("extract", pictures, *options)


MEANS: list[tuple[str, bytes, str]] = [
    ("mean.binaryproto", b"", "is empty (0 bytes)"),
    ("cut.binaryproto", b"\x08\x01\x10\x03\x18\x05\x20\x05\x2a\xff\xff", "the file is damaged or not a mean image"),
    ("mean.npy", b"\x93NUMPY\x01\x00", "not a .npy file of plain numbers"),
    ("mean.mat", b"MATLAB 5.0" + bytes(200), "not a MATLAB v5 file"),
    ("weights.binaryproto", DATA_BYTES[:5000], "weights.binaryproto: "),
]


@pytest.mark.parametrize("name, data, message", MEANS, ids=[case[0] for case in MEANS])
def test_files_that_are_no_mean_image(name: str, data: bytes, message: str, pictures: Path, refused: Refused) -> None:
    write(name, data)
    own = ["--net", DEPLOY, "--weights", WEIGHTS, "--ignore-extra", "--preprocess", "dialect=matcaffe", "resize=32"]
    assert message in refused("extract", pictures, *own, "--mean", name)


NO_LISTS: list[tuple[str, bytes, str]] = [
    ("empty.txt", b"", "this list names no picture"),
    ("utf16.txt", "a.png\n".encode("utf-16"), "this list is UTF-16; save it as UTF-8"),
    ("nul.txt", b"a\0b.png\n", "nul.txt:1: has a NUL byte"),
    ("long.txt", b"x" * 100_000, "long.txt:1: longer than 65536 bytes"),
    ("gone.txt", b"gone.png\n", "gone.png: cannot read: No such file or directory"),
    ("empty.png", b"", "empty.png: the file is empty"),
    ("text.jpg", b"hello", "text.jpg: not a picture that can be read: it looks like text"),
]


@pytest.mark.parametrize("name, data, message", NO_LISTS, ids=[case[0] for case in NO_LISTS])
def test_inputs_that_are_no_pictures(name: str, data: bytes, message: str, refused: Refused) -> None:
    write(name, data)
    assert message in refused("extract", name)


def test_weights_with_nan_give_no_codes(pictures: Path, refused: Refused) -> None:
    from caffe2torch import open_weights, read_net, write_caffemodel

    with open_weights(WEIGHTS) as file:
        weights = {layer.name: [blob.read() for blob in layer.blobs] for layer in file.layers}
    weights["latent"][0][0, 0] = float("nan")
    write_caffemodel("nan.caffemodel", read_net(NET), weights)
    assert "blob 'latent_sigmoid' is NaN or infinite" in refused("extract", pictures, "--weights", "nan.caffemodel")


# Memory


def test_a_hostile_net_takes_no_memory() -> None:
    """Weights that do not fit are refused before the eight gigabytes they should fill are touched."""
    settings = "inner_product_param { num_output: 11000000 }"
    write("net.prototxt", INPUT + one("InnerProduct", settings))
    script = (
        "import resource, sys; from caffe2torch.cli import main; "
        f"status = main(['info', 'net.prototxt', {str(WEIGHTS)!r}]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1
    assert "layer 'l' (InnerProduct: weight 11000000x192" in done.stderr
    kilobytes = int(done.stdout.split()[-1]) // (1024 if sys.platform == "darwin" else 1)
    assert kilobytes < 2_000_000


def test_work_grows_no_faster_than_the_net() -> None:
    """Counted in calls within the package, not in seconds."""

    def calls(layers: int) -> int:
        blobs = ["x", *(f"b{number}" for number in range(layers))]
        chain = (one("ReLU", bottoms=blobs[n], tops=blobs[n + 1], name=f"l{n}") for n in range(layers))
        write("net.prototxt", INPUT + "".join(chain))
        count = 0

        def note(frame: FrameType, event: str, _: object) -> None:
            nonlocal count
            count += event == "call" and "caffe2torch" in frame.f_code.co_filename

        sys.setprofile(note)
        try:
            assert main(["info", "net.prototxt"]) == 0
        finally:
            sys.setprofile(None)
        return count

    calls(10)  # what happens only once
    assert calls(400) < 4.5 * calls(100)
