"""The commands convert_imageset and compute_image_mean, as Caffe's users type them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from caffe2torch.binaryproto import read_mean
from caffe2torch.cli import main
from caffe2torch.data.database import open_database
from caffe2torch.data.datum import read_datum

from .sources import feed, images, png

pytest.importorskip("lmdb")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve pictures in three classes, a list of them, and the current folder there."""
    lines = []
    for index, image in enumerate(images(12, (6, 5, 3))):
        name = f"{'cab'[index % 3]}/{index:02}.png"
        (tmp_path / "pics" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pics" / name).write_bytes(png(image))
        lines.append(f"{name} {index % 3}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def records(path: Path, backend: str = "LMDB") -> list[tuple[str, tuple[int, ...], int]]:
    found = open_database(path, backend).records()
    return [(key.decode(), *(lambda r, label: (r.shape, label))(*read_datum(value, "x"))) for key, value in found]


@pytest.mark.parametrize(
    "flags",
    [
        ["--gray", "--backend=leveldb", "--resize_width=4", "--resize_height=7"],
        ["-gray", "-backend", "leveldb", "-resize_width", "4", "-resize_height=7"],
        ["--gray=true", "--backend", "leveldb", "--resize_width", "4", "--resize_height", "7", "--noshuffle"],
    ],
    ids=["equals", "one-dash", "words"],
)
def test_flags_of_gflags(flags: list[str], folder: Path) -> None:
    assert main(["convert_imageset", *flags, "pics/", "list.txt", "db"]) == 0
    found = records(folder / "db", "LEVELDB")
    assert [(key, label) for key, _, label in found] == [
        (f"{index:08}_{'cab'[index % 3]}/{index:02}.png", index % 3) for index in range(12)
    ]
    assert {shape for _, shape, _ in found} == {(1, 7, 4)}


@pytest.mark.parametrize("flag", ["--nogray", "--gray=false", "-gray=0"])
def test_flags_turned_off(flag: str, folder: Path) -> None:
    assert main(["convert_imageset", "--gray", flag, "pics/", "list.txt", "db"]) == 0
    assert records(folder / "db")[0][1] == (3, 6, 5)


def test_shuffle_keeps_labels_and_depends_on_the_seed(folder: Path) -> None:
    rows = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert main(["convert_imageset", "--shuffle", "--seed", str(seed), "pics/", "list.txt", name]) == 0
        rows.append([(key[9:], label) for key, _, label in records(folder / name)])
    assert rows[0] == rows[1] != rows[2]
    assert sorted(rows[0]) == sorted((f"{'cab'[i % 3]}/{i:02}.png", i % 3) for i in range(12))


def test_class_folders(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert_imageset", "pics", "out/db"]) == 0
    assert "A total of 12 images.\nProcessed 12 files.\n" in capsys.readouterr().out
    assert (folder / "out" / "db-classes.txt").read_text() == "a\nb\nc\n"
    found = records(folder / "out" / "db")
    assert [(key[9:10], label) for key, _, label in found] == [("a", 0)] * 4 + [("b", 1)] * 4 + [("c", 2)] * 4
    assert (folder / "out" / "db-list.txt").read_text().splitlines() == [
        f"{key[9:]} {label}" for key, _, label in found
    ]


def test_mean_of_a_converted_database(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert_imageset", "--quiet", "pics/", "list.txt", "db"]) == 0
    assert main(["compute_image_mean", "-backend=lmdb", "db", "mean.binaryproto"]) == 0
    expected = np.stack(images(12, (6, 5, 3))).mean(0).transpose(2, 0, 1)
    np.testing.assert_allclose(read_mean(folder / "mean.binaryproto"), expected, 1e-6)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4:] == [
        "Number of channels: 3",
        *(f"mean_value channel [{channel}]: {expected[channel].mean():.6g}" for channel in range(3)),
    ]
    text = (
        'layer { name: "d" type: "Data" top: "x" top: "l" transform_param { mean_file: "mean.binaryproto" } '
        'data_param { source: "db" batch_size: 12 backend: LMDB } }'
    )
    np.testing.assert_allclose(next(feed(text, folder))["x"].mean(0), 0, atol=1e-4)


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["pics/", "list.txt"], 1, "list.txt: is there already"),
        (["pics", "list.txt", "db"], 2, "write 'pics/'"),
        (["pics/"], 2, "expected ROOTFOLDER/ LISTFILE DB_NAME"),
        (["pics/", "empty.txt", "db"], 1, "empty.txt: the list is empty"),
        (["pics/", "gone.txt", "db"], 1, "gone.txt: no such file"),
        (["pics/a", "db"], 1, "found 4 pictures and no folders"),
        (["gone", "db"], 1, "gone: no such folder"),
        (["--backend=rocksdb", "pics/", "list.txt", "db"], 2, "backend 'rocksdb'"),
        (["--resize_width=5", "pics/", "list.txt", "db"], 2, "give both"),
        (["--encode_type=xyz", "pics/", "list.txt", "db"], 2, "no such encoder"),
        (["--workers=0", "pics/", "list.txt", "db"], 2, "expected at least 1"),
        (["nowhere/", "list.txt", "db"], 1, "nowhere/c/00.png: cannot be read"),
    ],
)
def test_wrong_use(
    arguments: list[str], status: int, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty.txt").touch()
    assert main(["convert_imageset", *arguments]) == status
    assert message in capsys.readouterr().err
    assert not (folder / "db").exists()


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["gone"], 1, "gone: no such folder, expected an LMDB database"),
        (["--backend=leveldb", "pics"], 1, "expected an LEVELDB database"),
        (["--backend=x", "pics"], 2, "backend 'x'"),
    ],
)
def test_wrong_use_of_the_mean(
    arguments: list[str], status: int, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compute_image_mean", *arguments]) == status
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_bad_pictures_can_be_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pics" / "a" / "01.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    assert main(["convert_imageset", "pics/", "list.txt", "db"]) == 1
    assert "pics/a/01.png" in capsys.readouterr().err
    assert main(["convert_imageset", "--skip_bad", "pics/", "list.txt", "db"]) == 0
    captured = capsys.readouterr()
    assert "left out: pics/a/01.png" in captured.err
    assert "Processed 11 files.\nLeft out 1 files" in captured.out


@pytest.mark.parametrize("tool", ["convert_imageset", "compute_image_mean"])
def test_scripts_run_from_anywhere(tool: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / f"{tool}.py", "--help"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    assert tool in done.stdout
    assert "-gray=t" not in done.stdout
