"""What the package knows of releases: every name exists, and the files are those of the reference material."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffe2torch import zoo
from caffe2torch.errors import FormatError, UsageError
from caffe2torch.release import choosing, facts
from caffe2torch.release.comparing import read_reference

MODELS = tuple(facts._releases())


@pytest.mark.parametrize("name", MODELS)
def test_a_release_is_of_a_model_and_has_figures_or_codes(name: str) -> None:
    release = facts.release(name)
    assert zoo.entry(name).bits
    assert release.order in facts.ORDERS
    assert release.figures() or release.codes
    assert release.curve is None or release.precision() is not None


@pytest.mark.parametrize("name", MODELS)
def test_the_released_codes_are_in_the_reference_material(name: str, reference: Path) -> None:
    release = facts.release(name)
    for part, place in choosing.codes(release, reference, {}).items():
        assert read_reference(place, part, zoo.entry(name).bits).shape[1] == zoo.entry(name).bits
    for known in choosing.others(release, reference):
        assert all(Path(place).is_file() for place in known.files.values())


def test_kevinnets_figures_are_the_readmes_not_those_of_other_weights() -> None:
    found = {(figure.k, figure.text) for figure in facts.release("kevinnet_cifar10_48").figures()}
    assert found == {(1000, "0.897373"), (1000, "0.8973"), (1000, "0.8973731964"), (50000, "0.915980")}


def test_absent_codes_are_an_error_that_says_how_to_get_them(tmp_path: Path) -> None:
    release = facts.release("kevinnet_cifar10_48")
    for root in (None, tmp_path):
        with pytest.raises(FormatError, match=r"tools/fetch_reference.py FOLDER"):
            choosing.codes(release, root, {})
    with pytest.raises(UsageError, match="nothing is known of a release"):
        choosing.release("alexnet", explicit=False)
    assert choosing.release("alexnet", explicit=True).codes == {}
