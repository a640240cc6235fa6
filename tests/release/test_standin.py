"""The whole chain on stand-in releases: the right run is verified, each wrong one is caught and its cause named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caffe2torch.extract.model import Model
from caffe2torch.release import choosing, facts, report
from caffe2torch.release.pictures import Form, FromCifar, row_order
from caffe2torch.release.trial import NEAR
from caffe2torch.release.verify import Job, Result, verify

from .conftest import COUNT
from .standin import CROP, StandIn, forward, prepare

SETTINGS = ["dialect=matcaffe", "resize=256", "crop=227", "crop_offset=15,15"]


def told(standin: StandIn, settings: list[str], mean: Path | None = None) -> Model:
    return choosing.model(
        None, net=str(standin.net), weights=str(standin.weights), mean=str(mean or standin.mean), settings=settings
    )


def run(standin: StandIn, pictures: FromCifar, out: Path, model: Model, **changes: object) -> Result:
    job = Job(
        model=model,
        release=facts.unknown("standin"),
        pictures=pictures,
        codes={"test": str(standin.codes)},
        out=out,
        parts=("test",),
        limit=COUNT,
        trial=COUNT,
        device="cpu",
    )
    return verify(replace(job, **changes))  # type: ignore[arg-type]


def cause(result: Result) -> str:
    """The topics and texts of what was found."""
    assert result.findings is not None
    assert result.findings.agrees
    return "; ".join(f"{step.variation.topic}: {step.variation.text}" for step in result.findings.steps)


def test_the_right_run_is_verified(standin: StandIn, papers_pictures: FromCifar, tmp_path: Path) -> None:
    result = run(standin, papers_pictures, tmp_path, told(standin, SETTINGS))
    (part,) = result.parts
    assert part.status in ("agrees", "rounding")
    assert part.difference is not None
    assert part.difference.count <= 2
    assert result.agrees()
    assert "verified: everything agrees" in report.text(result)


def wrong_mean(model: Model) -> Model:
    return model.with_mean_layout("whc")


def wrong_crop(model: Model) -> Model:
    return replace(model, spec=replace(model.spec, crop_offset=(14, 14)))


def wrong_resize(model: Model) -> Model:
    return replace(model, spec=replace(model.spec, dialect="transformer"))


def wrong_channels(model: Model) -> Model:
    return replace(model, spec=replace(model.spec, order="rgb"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (wrong_mean, "mean: the mean image mean.npy"),
        (wrong_crop, "crop: a crop of 227x227 at row 15, column 15 (from 0) of 256x256"),
        (wrong_resize, "resize: pictures resized to 256x256: bilinear as MATLAB's"),
        (wrong_channels, "channels: channels in the order B, G, R"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_run_that_was_told_wrong_is_caught_and_the_mistake_named(
    standin: StandIn, papers_pictures: FromCifar, tmp_path: Path, change: Callable[[Model], Model], named: str
) -> None:
    result = run(standin, papers_pictures, tmp_path, change(told(standin, SETTINGS)))
    assert [part.status for part in result.parts] == ["differs"]
    assert not result.agrees()
    assert cause(result).startswith(named)
    assert len(result.findings.steps) == 1  # type: ignore[union-attr]
    text = report.text(result)
    assert f"CAUSE: {named.partition(':')[0]}. With" in text
    assert "NOT verified; the cause:" in text


def test_pictures_of_another_form_are_named(standin: StandIn, cifar: object, tmp_path: Path) -> None:
    pictures = FromCifar(cifar, Form(mirrored=False, jpeg=0))  # type: ignore[arg-type]
    result = run(standin, pictures, tmp_path, told(standin, SETTINGS))
    assert cause(result) == "mirror: pictures mirrored left-right; jpeg: pictures twice through JPEG"


def test_codes_that_were_released_without_the_mean_are_recognised(
    standin: StandIn, papers_pictures: FromCifar, tmp_path: Path
) -> None:
    order = row_order("test", "papers")[:COUNT]
    images = [papers_pictures.read("test", int(position), Form()) for position in order]
    batch = np.stack([prepare(image, np.zeros((3, 1, 1))) for image in images]).astype(np.float32)
    np.save(tmp_path / "codes.npy", forward(standin, batch, "code") > np.float32(0.5))
    changed = replace(standin, codes=tmp_path / "codes.npy")
    assert cause(run(changed, papers_pictures, tmp_path, told(standin, SETTINGS))) == "mean: no mean"


def test_pictures_the_others_could_not_read_are_counted(
    standin: StandIn, papers_pictures: FromCifar, tmp_path: Path
) -> None:
    codes = np.load(standin.codes)
    codes[10:30] = forward(standin, np.zeros((1, 3, CROP, CROP), np.float32), "code")[0] > np.float32(0.5)
    np.save(tmp_path / "codes.npy", codes)
    changed = replace(standin, codes=tmp_path / "codes.npy")
    result = run(changed, papers_pictures, tmp_path, told(standin, SETTINGS), trial=0)
    assert [part.unread for part in result.parts] == [20]
    assert "20 of the 20 images that differ have the code of an input of zeros" in report.text(result)


def test_a_bit_at_the_threshold_is_rounding_and_one_far_from_it_is_not(
    standin: StandIn, papers_pictures: FromCifar, tmp_path: Path
) -> None:
    order = row_order("test", "papers")[:COUNT]
    images = [papers_pictures.read("test", int(position), Form()) for position in order]
    batch = np.stack([prepare(image, np.load(standin.mean)) for image in images]).astype(np.float32)
    far = np.abs(forward(standin, batch, "code") - 0.5)
    assert far.min() < NEAR
    nearest = np.unravel_index(far.argmin(), far.shape)
    for where, status in ((nearest, "rounding"), (np.unravel_index(far.argmax(), far.shape), "differs")):
        codes = np.load(standin.codes)
        codes[where] ^= True
        np.save(tmp_path / "codes.npy", codes)
        changed = replace(standin, codes=tmp_path / "codes.npy")
        result = run(changed, papers_pictures, tmp_path, told(standin, SETTINGS), trial=0)
        assert [part.status for part in result.parts] == [status], far[where]
        assert result.agrees() == (status == "rounding")
        assert not result.agrees(exact=True)
