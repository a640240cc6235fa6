"""The whole job with the bundled model: codes, batches, errors, what may be overwritten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from caffe2torch import load, preprocess, zoo
from caffe2torch.errors import ImageError, OutputError, UsageError, WeightsError
from caffe2torch.extract import Hasher, Model, extract
from caffe2torch.extract.pipeline import Pipeline
from caffe2torch.retrieval.readers import read_codes


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.from_zoo("ssdh48_small")


def bits_one_by_one(files: list[Path]) -> np.ndarray:
    """The definition: each picture by itself through preprocessing and net, sigmoid above 0.5."""
    entry = zoo.entry("ssdh48_small")
    net = load(entry.deploy, zoo.find_file(entry.weights), ignore_extra=True).eval()
    prepare = preprocess.make(preprocess.Spec.from_dict(entry.preprocessing))
    with torch.inference_mode():
        rows = [net(torch.from_numpy(prepare(preprocess.read_image(file))[None]))["latent_sigmoid"] for file in files]
    return torch.cat(rows).numpy() > np.float32(0.5)


def test_codes_are_those_of_each_picture_by_itself(pictures: Path, tmp_path: Path) -> None:
    summary = extract(pictures, tmp_path / "codes.h5")
    codes = read_codes(tmp_path / "codes.h5")
    assert codes.paths == tuple(str(file) for file in sorted(pictures.rglob("*.*")))
    np.testing.assert_array_equal(codes.unpacked(), bits_one_by_one([Path(path) for path in codes.paths]))
    assert (summary.images, summary.written, summary.failed, summary.bits) == (20, 20, 0, 48)
    assert summary.distinct == len({row.tobytes() for row in codes.packed}) > 1
    assert summary.samples[0] == (codes.paths[0], "".join("01"[bit] for bit in codes.unpacked()[0].astype(int)))
    assert not (tmp_path / "codes.h5.partial").exists()


@pytest.mark.parametrize("data_layer", ["Data", "ForkData"])
def test_a_training_net_gives_the_codes_of_its_deploy_net(
    pictures: Path, tmp_path: Path, model: Model, data_layer: str
) -> None:
    """Neither its losses nor its data layers have to run, and the preprocessing says how large a picture is."""
    text = model.net.with_name("train_val.prototxt").read_text("utf-8").replace('"Data"', f'"{data_layer}"')
    net = tmp_path / "train_val.prototxt"
    net.write_text(text.replace('"EuclideanLoss"', '"ForkLoss"'), "utf-8")
    extract(pictures, tmp_path / "a.npz", model=model)
    extract(pictures, tmp_path / "b.npz", model=replace(model, net=net))
    np.testing.assert_array_equal(read_codes(tmp_path / "a.npz").packed, read_codes(tmp_path / "b.npz").packed)


def test_a_training_net_that_cannot_run_whole_wants_to_know_the_blob(
    pictures: Path, tmp_path: Path, model: Model
) -> None:
    net = tmp_path / "train_val.prototxt"
    text = model.net.with_name("train_val.prototxt").read_text("utf-8")
    net.write_text(text.replace('"SoftmaxWithLoss"', '"ForkLoss"').replace('"Data"', '"ForkData"'), "utf-8")
    with pytest.raises(UsageError, match="Say with --blob which blob holds the code"):
        extract(pictures, tmp_path / "a.npz", model=replace(model, net=net, blob=None))


@pytest.mark.parametrize("batch_size, workers", [(1, 1), (3, 2), (7, 5), (20, 1), (64, 3)])
def test_codes_do_not_depend_on_batches_and_workers(
    pictures: Path, tmp_path: Path, model: Model, batch_size: int, workers: int
) -> None:
    extract(pictures, tmp_path / "a.npz", model=model)
    extract(pictures, tmp_path / "b.npz", model=model, batch_size=batch_size, workers=workers)
    np.testing.assert_array_equal(read_codes(tmp_path / "a.npz").packed, read_codes(tmp_path / "b.npz").packed)


def test_a_short_last_batch_gives_the_very_same_values(model: Model) -> None:
    hasher = Hasher(model, device="cpu")
    batch = np.random.RandomState(0).standard_normal((8, 3, 32, 32)).astype(np.float32)
    padded = batch.copy()
    padded[5:] = 0
    np.testing.assert_array_equal(hasher.run(padded).values[:5], hasher.run(batch).values[:5])


def test_features_are_saved_beside_the_codes(pictures: Path, tmp_path: Path, model: Model) -> None:
    extract(pictures, tmp_path / "codes.h5", model=replace(model, features="pool5"))
    codes = read_codes(tmp_path / "codes.h5")
    assert codes.features is not None
    assert codes.features.shape == (20, 256)
    assert codes.features.dtype == np.float32
    assert codes.provenance["features"] == "pool5"


def test_provenance_says_how_the_codes_were_made(pictures: Path, tmp_path: Path) -> None:
    extract(pictures, tmp_path / "codes.h5", batch_size=16)
    made = read_codes(tmp_path / "codes.h5").provenance
    assert made["model"] == "ssdh48_small"
    assert made["weights_sha256"] == zoo.entry("ssdh48_small").weights.sha256
    assert made["preprocessing"]["dialect"] == "matcaffe"
    assert (made["threshold"], made["precision"], made["blob"], made["bits"]) == (0.5, "float32", "latent_sigmoid", 48)
    assert (made["pictures"], made["failed"], made["on_error"]) == (20, 0, "stop")
    (run,) = made["runs"]
    assert {"caffe2torch", "torch", "opencv", "numpy", "python", "h5py"} == set(run["versions"])
    assert (run["device"], run["batch_size"], run["first_row"]) == ("cpu", 16, 0)


def test_an_unreadable_picture_stops_the_run_and_is_named(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"1\.png.*stopped at picture 2 of 5.*--on-error skip"):
        extract(damaged, tmp_path / "codes.h5")
    assert not (tmp_path / "codes.h5").exists()
    assert not (tmp_path / "codes.h5.partial").exists(), "there is nothing to resume"


def test_unreadable_pictures_can_be_skipped(damaged: Path, tmp_path: Path) -> None:
    summary = extract(damaged, tmp_path / "codes.h5", on_error="skip", batch_size=2)
    codes = read_codes(tmp_path / "codes.h5")
    assert [Path(path).name for path in codes.paths] == ["0.png", "2.png", "4.png"]
    np.testing.assert_array_equal(codes.unpacked(), bits_one_by_one([Path(path) for path in codes.paths]))
    assert (summary.images, summary.written, summary.failed) == (5, 3, 2)
    assert [(f.row, Path(f.path).name) for f in summary.failures] == [(1, "1.png"), (3, "3.png")]


def test_unreadable_pictures_can_have_code_zero(damaged: Path, tmp_path: Path) -> None:
    summary = extract(damaged, tmp_path / "codes.h5", on_error="zero", batch_size=2)
    codes = read_codes(tmp_path / "codes.h5")
    assert [row.any() for row in codes.packed] == [True, False, True, False, True]
    assert (summary.written, summary.failed, codes.provenance["failed"]) == (5, 2, 2)
    assert [failure[0] for failure in codes.provenance["failures"]] == [1, 3]


def test_a_stopped_run_can_go_on_with_another_policy(damaged: Path, tmp_path: Path) -> None:
    out = tmp_path / "codes.h5"
    with pytest.raises(ImageError, match="1 codes are kept, --resume goes on"):
        extract(damaged, out, batch_size=1)
    assert extract(damaged, out, batch_size=1, on_error="skip", resume=True).resumed_from == 1
    assert len(read_codes(out)) == 3


def test_a_run_that_skipped_cannot_be_resumed_as_if_nothing_had_failed(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "codes.h5"
    with monkeypatch.context() as patch:
        patch.setattr("caffe2torch.extract.job._write", lambda *args, **options: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extract(damaged, out, on_error="skip")
    with pytest.raises(OutputError, match=r"1\.png: could not be read in the unfinished run"):
        extract(damaged, out, on_error="stop", resume=True)


def test_existing_output_is_not_overwritten(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "codes.csv"
    out.write_text("mine")
    with pytest.raises(OutputError, match=r"codes\.csv: exists already; --force replaces it"):
        extract(pictures, out)
    with pytest.raises(OutputError, match="nothing to resume"):
        extract(pictures, out, resume=True)
    assert out.read_text() == "mine"
    extract(pictures, out, force=True)
    assert len(read_codes(out)) == 20


def test_existing_sheet_and_feature_file_are_not_overwritten(pictures: Path, tmp_path: Path, model: Model) -> None:
    for name in ("sheet.png", "codes.pool5.csv"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(OutputError, match=f"{name}: exists already"):
            extract(
                pictures, tmp_path / "codes.csv", model=replace(model, features="pool5"), sheet=tmp_path / "sheet.png"
            )
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"out": "codes.txt"}, "the suffix decides the format"),
        ({"on_error": "ignore"}, "expected one of stop, skip, zero"),
        ({"batch_size": 0}, "batch size must be at least 1"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"resume": True, "force": True}, "give one of them"),
        ({"device": "tpu9"}, "expected auto, cpu or cuda:N"),
        ({"device": "cuda:99"}, "this machine has"),
        ({"precision": "int8"}, "expected one of float32"),
        ({"sheet": "codes.h5.pdf"}, "a picture is drawn there"),
    ],
    ids=str,
)
def test_impossible_options(pictures: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    options = {"out": "codes.h5", **options}
    with pytest.raises(UsageError, match=message):
        extract(pictures, tmp_path / str(options.pop("out")), **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_output_that_cannot_be_written_is_said_before_the_work(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"partial: cannot be written: its folder is not a folder; choose another"):
        extract(pictures, tmp_path / "file" / "codes.h5")


def test_nan_in_the_code_names_the_picture(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Pipeline._check

    def broken(self: Pipeline, batch: object, good: object, values: np.ndarray, features: object) -> None:
        values = values.copy()
        values[3, 5] = np.nan
        run(self, batch, good, values, features)  # type: ignore[arg-type]

    monkeypatch.setattr(Pipeline, "_check", broken)
    with pytest.raises(WeightsError, match=r"p03\.png: blob 'latent_sigmoid' is NaN or infinite"):
        extract(pictures, tmp_path / "codes.h5")


def test_a_blob_before_the_sigmoid_is_suspicious(pictures: Path, tmp_path: Path, model: Model) -> None:
    summary = extract(pictures, tmp_path / "codes.h5", model=replace(model, blob="latent"))
    assert "sigmoids lie between 0 and 1: is this the right blob?" in summary.warnings[0]


def test_equal_codes_are_suspicious(pictures: Path, tmp_path: Path) -> None:
    summary = extract([pictures / "p00.png"] * 3, tmp_path / "codes.h5")
    assert "all 3 codes are equal" in summary.warnings[0]
    assert summary.distinct == 1


def test_a_faster_precision_reports_the_bits_it_flips(pictures: Path, tmp_path: Path) -> None:
    exact = extract(pictures, tmp_path / "exact.h5")
    fast = extract(pictures, tmp_path / "fast.h5", precision="bf16", batch_size=8)
    flips = read_codes(tmp_path / "exact.h5").unpacked() != read_codes(tmp_path / "fast.h5").unpacked()
    assert (exact.flipped, exact.compared) == (0, 0)
    assert (fast.flipped, fast.compared) == (np.count_nonzero(flips), flips.size)
    assert fast.flipped < 0.05 * flips.size
    assert read_codes(tmp_path / "fast.h5").provenance["runs"][0]["flipped_bits"] == fast.flipped


def test_preprocessing_of_another_net_is_refused(pictures: Path, tmp_path: Path, model: Model) -> None:
    other = replace(model, spec=preprocess.Spec.from_dict({"dialect": "matcaffe", "resize": 227}))
    with pytest.raises(UsageError, match=r"takes 3 x 32 x 32 .* preprocessing makes 3 x 227 x 227"):
        extract(pictures, tmp_path / "codes.h5", model=other)


def test_progress_ends_at_the_total(pictures: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    extract(pictures, tmp_path / "codes.h5", batch_size=8, progress=lambda *step: seen.append(step))
    assert seen == [("extract", 0, 20), ("extract", 8, 20), ("extract", 16, 20), ("extract", 20, 20), ("write", 0, 0)]


def pair_distances(out: Path) -> tuple[list[int], list[int]]:
    """Hamming distances between pictures of one class (names alike but for the number), and between the others."""
    codes = read_codes(out)
    classes = [Path(path).stem.rstrip("12") for path in codes.paths]
    bits = codes.unpacked()
    distance = (bits[:, None] != bits[None]).sum(axis=2)
    pairs = [(i, j) for i in range(len(bits)) for j in range(i)]
    same = [int(distance[i, j]) for i, j in pairs if classes[i] == classes[j]]
    other = [int(distance[i, j]) for i, j in pairs if classes[i] != classes[j]]
    assert (len(same), len(other)) == (6, 60)
    return same, other


def test_same_class_pairs_of_the_papers_demo_lie_nearer_than_others(reference: Path, tmp_path: Path) -> None:
    """By the weights whose codes real Caffe recorded."""
    weights = reference / "models" / "ssdh48_small" / "ssdh48_small.caffemodel"
    model = Model.from_zoo("ssdh48_small", weights=weights)
    assert extract(reference / "published" / "demo_images", tmp_path / "codes.h5", model=model).written == 12
    same, other = pair_distances(tmp_path / "codes.h5")
    assert max(same) < min(other)


def test_same_class_pairs_of_our_own_samples_lie_nearer_than_others(tmp_path: Path) -> None:
    extract(Path(__file__).parent.parent.parent / "docs" / "samples", tmp_path / "codes.h5")
    same, other = pair_distances(tmp_path / "codes.h5")
    assert max(same) < min(other)
