"""Codes for an evaluation: the same as extract's, kept, used again where they hold, resumed after a stop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from caffe2torch.data.cifar10 import Cifar10, papers_file, papers_jpeg, papers_order
from caffe2torch.errors import FormatError, OutputError, UsageError, WeightsError
from caffe2torch.evaluation import hashing
from caffe2torch.evaluation.hashing import How, hash_pictures
from caffe2torch.evaluation.pictures import CifarPart, Files, from_folder
from caffe2torch.extract import Hasher, Model, extract
from caffe2torch.extract.journal import journal_folder
from caffe2torch.retrieval.readers import read_codes
from evaluation.sets import SmallCifar10

SIZE = 6


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.from_zoo("ssdh48_small")


def part(form: str = "lossless", *, test: bool = True, small: SmallCifar10 | None = None) -> CifarPart:
    return CifarPart(cast(Cifar10, small or SmallCifar10(SIZE)), test=test, form=form)


def how(model: Model, **changes: Any) -> How:
    return replace(How(model, device="cpu", batch_size=4), **changes)


def written(folder: Path, *, form: str) -> tuple[Path, Path]:
    """The small CIFAR-10 as files with labelled lists, the lossless ones under the papers' names too."""
    small = SmallCifar10(SIZE)
    for name, batch, walk in (("val", small.test, ("test",)), ("train", small.train, hashing_walk())):
        lines = []
        for index in papers_order(walk, first=SIZE).tolist():
            number, rest = divmod(index, SIZE)
            path = papers_file("test" if name == "val" else f"batch{number + 1}", rest)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            image = batch.images[index]
            if form == "papers":
                (folder / path).write_bytes(papers_jpeg(image))
            else:
                (folder / path).write_bytes(cv2.imencode(".png", image[:, :, ::-1])[1].tobytes())
            lines.append(f"{path} {batch.labels[index]}\n")
        (folder / f"{name}.txt").write_text("".join(lines))
    return folder / "val.txt", folder / "train.txt"


def hashing_walk() -> tuple[str, ...]:
    return ("batch1", "batch2", "batch4", "batch3", "batch5")


@pytest.mark.parametrize("form", ["lossless", "papers"])
@pytest.mark.parametrize("test", [True, False], ids=["test", "train"])
def test_pictures_in_memory_get_the_codes_of_the_same_files(
    tmp_path: Path, model: Model, form: str, test: bool
) -> None:
    hash_pictures(part(form, test=test), tmp_path / "memory.h5", how(model))
    lists = written(tmp_path / "files", form=form)
    extract(lists[0 if test else 1], tmp_path / "files.h5", model=model, root=tmp_path / "files", device="cpu")
    memory, files = read_codes(tmp_path / "memory.h5"), read_codes(tmp_path / "files.h5")
    assert memory.packed.tolist() == files.packed.tolist()
    assert memory.paths == files.paths
    assert memory.labels is not None
    assert files.labels is not None
    assert memory.labels.tolist() == files.labels.tolist()
    assert memory.provenance["pictures_as"] == form
    assert memory.provenance["weights_sha256"] == files.provenance["weights_sha256"]


def test_the_papers_order_of_training_batches(model: Model) -> None:
    names = [entry.shown for entry in part(test=False).entries()]
    assert [name.split("/")[0] for name in names[::SIZE]] == list(hashing_walk())
    assert len(names) == 5 * SIZE


def test_features_are_kept(tmp_path: Path, model: Model) -> None:
    hash_pictures(part(), tmp_path / "x.h5", how(replace(model, features="pool5")))
    features = read_codes(tmp_path / "x.h5").features
    assert features is not None
    assert features.shape[0] == SIZE
    assert np.isfinite(features).all()


def sources(folder: Path) -> list[Any]:
    written(folder / "files", form="lossless")
    return [part(), from_folder(folder / "files")[0]]


@pytest.mark.parametrize("source", [0, 1], ids=["memory", "files"])
def test_codes_are_used_again(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch, source: int) -> None:
    pictures, out = sources(tmp_path)[source], tmp_path / "x.h5"
    said: list[str] = []
    hash_pictures(pictures, out, how(model), say=said.append)
    assert said == []
    first = out.read_bytes()
    monkeypatch.setattr(Hasher, "__init__", lambda *args, **kwargs: pytest.fail("hashed again"))
    hash_pictures(sources(tmp_path)[source], out, how(model, force=True), say=said.append)
    assert out.read_bytes() == first
    assert "used again" in said[0]


@pytest.mark.parametrize("source", [0, 1], ids=["memory", "files"])
@pytest.mark.parametrize(
    "change, named",
    [
        pytest.param(lambda model: how(model, precision="bf16"), "precision was 'float32', is 'bf16'", id="precision"),
        pytest.param(lambda model: how(replace(model, features="pool5")), "features", id="features"),
        pytest.param(lambda model: how(replace(model, spec=replace(model.spec, scale=1.0))), "scale", id="scale"),
    ],
)
def test_codes_made_otherwise_are_not_used(tmp_path: Path, model: Model, source: int, change: Any, named: str) -> None:
    pictures, out = sources(tmp_path)[source], tmp_path / "x.h5"
    hash_pictures(pictures, out, how(model))
    with pytest.raises(OutputError, match=f"made otherwise: .*{named}.*--force"):
        hash_pictures(pictures, out, change(model))
    hash_pictures(pictures, out, replace(change(model), force=True))
    assert hashing._changes(out, pictures, change(model)) == []


def test_codes_of_other_pictures_are_not_used(tmp_path: Path, model: Model) -> None:
    hash_pictures(part(), tmp_path / "x.h5", how(model))
    with pytest.raises(OutputError, match="list_sha256"):
        hash_pictures(part("papers"), tmp_path / "x.h5", how(model))


def test_again_hashes_anew(tmp_path: Path, model: Model) -> None:
    out = hash_pictures(part(), tmp_path / "x.h5", how(model))
    before = out.stat().st_ino
    hash_pictures(part(), out, how(model, again=True))
    assert out.stat().st_ino != before


class Stop(Exception):
    pass


def stopping(after: int) -> Any:
    def progress(stage: str, done: int, total: int) -> None:
        if stage == "extract" and done >= after:
            raise Stop

    return progress


def test_an_interrupted_run_is_resumed(tmp_path: Path, model: Model) -> None:
    out, whole = tmp_path / "x.h5", tmp_path / "whole.h5"
    hash_pictures(part(test=False), whole, how(model))
    with pytest.raises(Stop):
        hash_pictures(part(test=False), out, how(model), progress=stopping(8))
    assert not out.exists()
    with pytest.raises(OutputError, match="unfinished run; --resume"):
        hash_pictures(part(test=False), out, how(model))
    with pytest.raises(OutputError, match=r"another job: .*precision"):
        hash_pictures(part(test=False), out, how(model, resume=True, precision="bf16"))
    seen: list[int] = []
    hash_pictures(part(test=False), out, how(model, resume=True), progress=lambda stage, done, total: seen.append(done))
    assert seen[0] == 8
    assert not journal_folder(out).exists()
    assert read_codes(out).packed.tolist() == read_codes(whole).packed.tolist()


def test_force_starts_an_interrupted_run_again(tmp_path: Path, model: Model) -> None:
    with pytest.raises(Stop):
        hash_pictures(part(test=False), tmp_path / "x.h5", how(model), progress=stopping(8))
    seen: list[int] = []
    hash_pictures(
        part(test=False),
        tmp_path / "x.h5",
        how(model, force=True),
        progress=lambda stage, done, total: seen.append(done),
    )
    assert seen[0] == 0


def test_a_run_that_fails_before_the_first_code_leaves_nothing(tmp_path: Path, model: Model) -> None:
    with pytest.raises(Stop):
        hash_pictures(part(), tmp_path / "x.h5", how(model), progress=stopping(0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_net_that_gives_nan_is_refused(tmp_path: Path, model: Model) -> None:
    broken = replace(model, spec=replace(model.spec, scale=1e38))
    with pytest.raises(WeightsError, match="NaN or infinite"):
        hash_pictures(part(), tmp_path / "x.h5", how(replace(broken, blob="pool5")))


def test_a_blob_that_is_no_sigmoid_is_said(tmp_path: Path, model: Model) -> None:
    said: list[str] = []
    hash_pictures(part(), tmp_path / "x.h5", how(replace(model, blob="pool5")), say=said.append)
    assert "sigmoid" in said[0]


def test_a_folder_as_the_cifar10_command_builds_it(tmp_path: Path) -> None:
    dataset = tmp_path / "examples" / "cvprw15-cifar10" / "dataset"
    written(dataset, form="papers")
    for root in (tmp_path, dataset):
        queries, database = from_folder(root)
        assert (queries.listing.count, database.listing.count) == (SIZE, 5 * SIZE)
        assert queries.root == dataset


def test_a_folder_without_lists(tmp_path: Path) -> None:
    (tmp_path / "val.txt").touch()
    with pytest.raises(FormatError, match=r"has no val\.txt \(queries\) and train\.txt"):
        from_folder(tmp_path)


def test_an_unknown_form() -> None:
    with pytest.raises(UsageError, match="lossless, papers"):
        part("jpeg")


def test_files_are_listed_as_extract_lists_them(tmp_path: Path, model: Model) -> None:
    lists = written(tmp_path, form="papers")
    pictures = Files((lists[0],), tmp_path)
    extract(lists[0], tmp_path / "x.h5", model=model, root=tmp_path, device="cpu")
    assert pictures.listing.sha256 == read_codes(tmp_path / "x.h5").provenance["list_sha256"]
