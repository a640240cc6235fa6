"""The whole chain on stand-in releases: the right run is verified, each wrong one is caught and its cause named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from caffe2torch.extract.model import Model
from caffe2torch.release import choosing, facts, report
from caffe2torch.release.pictures import Form, FromCifar
from caffe2torch.release.verify import Job, Result, verify

from .conftest import COUNT
from .standin import StandIn

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


def no_mean(model: Model) -> Model:
    return replace(model, mean=None, spec=replace(model.spec, mean_file=None))


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
        (wrong_resize, "resize: resized to 256x256: bilinear as MATLAB's"),
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
    assert cause(result) == "mirror: mirrored left-right; jpeg: twice through JPEG"
