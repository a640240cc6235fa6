"""new-project as a user meets it: from a folder to a model that other commands take by name, and what goes wrong."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffe2torch import prototxt, zoo
from caffe2torch.binaryproto import read_mean, write_mean
from caffe2torch.cli import main
from caffe2torch.data import open_feed
from caffe2torch.graph import build_graph
from caffe2torch.retrieval.readers import read_codes
from caffe2torch.solver.settings import read_settings

from .pictures import folders, write

COUNTS = {"blue jays": 12, "Grünfinken": 9, "robins": 8}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with pictures in photos/."""
    monkeypatch.chdir(tmp_path)
    folders(tmp_path / "photos", COUNTS)
    return tmp_path


def made(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["new-project", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 1) -> str:
    capsys.readouterr()
    assert main(["new-project", *arguments, "--quiet"]) == status
    return capsys.readouterr().err


def test_from_pictures_to_answers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = made(capsys, "birds", "--images", "photos", "--bits", "12", "--epochs", "0.6", "--batch-size", "8")
    assert (project["classes"], project["train"], project["test"]) == (["Grünfinken", "blue jays", "robins"], 26, 3)
    commands = [shlex.split(command)[1:] for command in project["next"].values()]
    assert [command[0] for command in commands] == ["train", "plot-log", "evaluate", "extract", "search"]
    train, plot, evaluate, extract, search = commands
    assert main(["extract", "photos", "--model", "birds"]) == 1
    assert "not trained yet: `caffe2torch train --solver birds/solver.prototxt`" in capsys.readouterr().err
    assert main([*train, "--quiet", "--device", "cpu"]) == 0
    assert main([*plot[:2], "--json"]) == 0
    assert main([*evaluate, "--quiet", "--figure", "none"]) == 0
    scores = json.loads((here / "birds/evaluation/scores.json").read_text())
    assert (scores["queries"]["pictures"], scores["database"]["pictures"]) == (3, 26)
    assert main([*extract, "--quiet"]) == 0
    codes = read_codes(here / "birds/codes.h5")
    assert (len(codes), codes.bits, codes.provenance["model"]) == (26, 12, "birds")
    capsys.readouterr()
    assert (
        main(["photos/robins/000.png" if word == "PICTURE" else word for word in search] + ["-k", "3", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)
    assert (here / "birds/results.html").is_file()


def test_lists_hold_every_picture_once_with_its_class(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(capsys, "p", "--images", "photos")
    classes = (here / "p/classes.txt").read_text("utf-8").splitlines()
    lines = [
        line.rsplit(" ", 1) for part in ("train", "test") for line in (here / f"p/{part}.txt").open(encoding="utf-8")
    ]
    names = {f"{name}/{number:03d}.png" for name, count in COUNTS.items() for number in range(count)}
    assert sorted(name for name, _ in lines) == sorted(names)
    assert all(name.startswith(f"{classes[int(label)]}/") for name, label in lines)


def test_the_project_can_move_with_its_pictures(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(capsys, "p", "--images", "photos")
    (here / "elsewhere").mkdir()
    shutil.move("photos", "elsewhere/photos")
    shutil.move("p", "elsewhere/q")
    settings = read_settings("elsewhere/q/solver.prototxt")
    for choice in (settings.train, *settings.tests):
        feed = open_feed(build_graph(choice.message, phase=choice.phase), settings.root, seed=1)
        assert feed.next_batch()["data"].shape[1:] == (3, 32, 32)
    monkeypatch.chdir("elsewhere/q")
    assert zoo.entry(".").deploy.is_file()


def test_a_net_in_the_current_folder_is_not_taken_for_the_projects(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "train_val.prototxt").write_text('name: "another"')
    train = next(iter(made(capsys, "p", "--images", "photos")["next"].values()))
    assert train == "caffe2torch train --solver p/solver.prototxt --root p"


def test_several_labels_are_trained_and_measured(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.random.default_rng(0).integers(0, 2, (24, 4))
    rows[:, 2:] = 0, 1
    lines = []
    for number, row in enumerate(rows.tolist()):
        write(here / f"tags/{number} b.png", number % 4, number)
        lines.append(f"tags/{number} b.png {' '.join(map(str, row))}\n")
    (here / "tags.txt").write_text("".join(lines))
    project = made(capsys, "p", "--images", "tags.txt", "--bits", "8", "--epochs", "1")
    assert "no picture to train with has 1 of the labels: 2" in project["notes"]
    assert project["several_labels"] is True
    listed = [
        line.split(" ") for part in ("train", "test") for line in (here / f"p/{part}.txt").read_text().splitlines()
    ]
    texts = [line for part in ("train", "test") for line in (here / f"p/{part}_labels.txt").read_text().splitlines()]
    for (name, _, _), text in zip(listed, texts, strict=True):
        assert text == " ".join(map(str, rows[int(name.removeprefix("tags/"))]))
    order = [int(name.removeprefix("tags/")) for name, _, _ in listed[: project["train"]]]
    assert order != sorted(order)  # the net does not shuffle
    commands = [shlex.split(command)[1:] for command in project["next"].values()]
    assert main([*commands[0], "--quiet", "--device", "cpu"]) == 0
    tests = [record for record in map(json.loads, (here / "p/p.jsonl").open()) if record["event"] == "test"]
    assert tests
    assert [len(record["outputs"]["accuracy"]) for record in tests] == [5] * len(tests)
    assert main([*commands[2], "--quiet", "--figure", "none"]) == 0
    assert main([*commands[3], "--quiet"]) == 0
    assert read_codes(here / "p/codes.h5").labels is None  # a row of the list is no label


def test_rows_of_labels_stay_in_step_with_the_pictures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A label that is the picture's colour, read through the nets' own data layers for more than an epoch."""
    lines = []
    for number in range(10):
        write(here / f"{number}.png", number % 2, number)
        lines.append(f"{number}.png {number % 2} {1 - number % 2}\n")
    (here / "l.txt").write_text("".join(lines))
    made(capsys, "p", "--images", "l.txt", "--batch-size", "4")
    feed = open_feed(build_graph(prototxt.read_net(here / "p/train_val.prototxt"), phase="train"), here / "p", seed=1)
    for _ in range(7):
        batch = feed.next_batch()
        greener = batch["data"][:, 1].mean(axis=(1, 2)) > batch["data"][:, 0].mean(axis=(1, 2))
        assert (np.where(greener, 1, -1) == batch["label"][:, 0]).all()
        assert (batch["label"].sum(axis=1) == 0).all()


def test_pictures_to_test_with_of_ones_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders(here / "more", {"blue jays": 3, "robins": 2})
    project = made(capsys, "p", "--images", "photos", "--test-images", "more")
    assert (project["train"], project["test"]) == (29, 5)
    assert "no picture to test with for 1 of the classes: Grünfinken" in " ".join(project["notes"])
    solver = prototxt.read_solver(here / "p/solver.prototxt")
    assert list(solver.test_iter) == [1]


def test_the_mean_is_written_or_taken(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = np.full((3, 256, 256), 7, np.float32)
    write_mean(here / "m.binaryproto", given)
    made(capsys, "p", "--images", "photos", "--base", "kevinnet", "--mean", "m.binaryproto")
    np.testing.assert_array_equal(read_mean(here / "p/mean.binaryproto"), given)
    made(capsys, "q", "--images", "photos", "--base", "ssdh", "--no-check")
    assert 40 < read_mean(here / "q/mean.binaryproto").mean() < 200
    assert zoo.entry("q").mean is not None
    write_mean(here / "m.binaryproto", given[:, :9])
    assert "(3, 256, 256)" in refused(capsys, "r", "--images", "photos", "--base", "ssdh", "--mean", "m.binaryproto")
    assert "subtracts the mean of each channel" in refused(
        capsys, "r", "--images", "photos", "--mean", "m.binaryproto", status=2
    )


def test_bases_that_are_fine_tuned_name_their_weights(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = list(made(capsys, "p", "--images", "photos", "--base", "ssdh")["next"].values())
    assert "caffe2torch download caffenet" in steps or zoo.is_here(zoo.entry("caffenet").weights)
    assert any("--weights" in step and "bvlc_reference_caffenet.caffemodel" in step for step in steps)
    steps = list(made(capsys, "q", "--images", "photos", "--base", "ssdh_vgg16")["next"].values())
    assert "VGG_ILSVRC_16_layers.caffemodel" in steps[0]


def test_bad_pictures_stop_it_before_anything_is_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "photos/robins/003.png").write_bytes(b"\x89PNG but not really")
    (here / "photos/robins/004.png").write_bytes(b"")
    error = refused(capsys, "p", "--images", "photos")
    assert "2 of 29 pictures cannot be read (--skip-bad leaves them out)" in error
    assert "003.png" in error
    assert "004.png" in error
    assert not (here / "p").exists()
    project = made(capsys, "p", "--images", "photos", "--skip-bad")
    assert project["train"] + project["test"] == 27
    assert "robins/003.png" not in (here / "p/train.txt").read_text("utf-8")
    assert "003.png" in " ".join(project["notes"])
    assert made(capsys, "q", "--images", "photos", "--base", "ssdh_small", "--no-check", "--skip-bad")


def test_a_class_of_which_nothing_can_be_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (here / "photos/robins").iterdir():
        path.write_bytes(b"")
    assert "no training picture of class 'robins'" in refused(capsys, "p", "--images", "photos", "--skip-bad")


def test_an_existing_folder_needs_force_and_a_trained_one_is_kept(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(capsys, "p", "--images", "photos")
    (here / "p/notes.txt").write_text("mine")
    assert "exists and is not empty; --force" in refused(capsys, "p", "--images", "photos")
    made(capsys, "p", "--images", "photos", "--bits", "9", "--force")
    assert zoo.entry("p").bits == 9
    assert (here / "p/notes.txt").read_text() == "mine"
    (here / "p/p_iter_10.caffemodel").write_bytes(b"")
    assert "p_iter_10.caffemodel: was trained" in refused(capsys, "p", "--images", "photos", "--force")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["p", "--images", "nowhere"], 1, "nowhere: no such folder or list"),
        (["p", "--images", "photos/robins"], 1, "no folders"),
        (["p", "--images", "one"], 1, "holds the one class 'only'"),
        (["p", "--images", "empty"], 1, "no pictures in this class folder"),
        (["p", "--images", "singles"], 1, "no class has two pictures"),
        (["photos/p", "--images", "photos"], 2, "lies within the pictures"),
        (["file", "--images", "photos"], 1, "file: is a file"),
        (["p", "--images", "photos", "--bits", "0"], 2, "--bits 0"),
        (["p", "--images", "photos", "--base", "x"], 2, "--base x"),
        (["p", "--images", "photos", "--test-share", "1"], 2, "--test-share 1"),
        (["p", "--images", "photos", "--epochs", "0"], 2, "--epochs 0"),
        (["p", "--images", "photos", "--batch-size", "0"], 2, "--batch-size 0"),
        (["p", "--images", "photos", "--seed", "-1"], 2, "--seed -1"),
        (["p", "--images", "photos", "--root", "x"], 2, "--root x: is for list files"),
        (["p", "--images", "photos", "--test-images", "singles"], 1, "class 'x', which there is none of"),
        (["p", "--images", "photos", "--test-images", "photos"], 1, "has 29 pictures of --images too"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str
) -> None:
    folders(here / "one", {"only": 3})
    folders(here / "singles", {"x": 1, "y": 1})
    (here / "empty/a").mkdir(parents=True)
    (here / "file").write_text("")
    assert said in refused(capsys, *arguments, status=status)
    assert not (here / "p").exists()


def test_notes_on_copies_single_pictures_and_odd_sizes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders(here / "photos", {"a": 0, "b": 0, "c": 0, "wrens": 1})
    shutil.copy("photos/robins/000.png", "photos/blue jays/copy.png")
    (here / "photos/robins/readme.md").write_text("")
    notes = " ".join(made(capsys, "p", "--images", "photos")["notes"])
    assert "1 pictures are copies of others" in notes
    assert "1 of them with another label" in notes
    assert "no picture to test with for 1 of the classes: wrens" in notes
    assert "passed over 1 files" in notes


def test_the_report_reads_well(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-project", "my birds", "--images", "photos", "--bits", "24", "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "my birds: compact SSDH net, 24 bits, 3 classes (Grünfinken, blue jays, robins)" in text
    assert "caffe2torch train --solver 'my birds/solver.prototxt'" in text
    assert prototxt.read_solver(here / "my birds/solver.prototxt").snapshot_prefix == "my_birds"
