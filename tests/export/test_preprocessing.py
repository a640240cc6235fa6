"""Written preprocessing against the package's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffe2torch import zoo
from caffe2torch.errors import UsageError
from caffe2torch.export.embed import embedded
from caffe2torch.export.preprocessing import Written, write_preprocessing
from caffe2torch.preprocess import Spec, make

RNG = np.random.default_rng(0)
MEAN = RNG.uniform(90, 130, (3, 20, 24)).astype(np.float32)
SPECS = {
    "matcaffe": (Spec("matcaffe", resize=(20, 24), crop=(13, 17), mean_file="m", scale=0.5), MEAN),
    "matcaffe-whole": (Spec("matcaffe", resize=(32, 32), mean_values=(104.0, 117.0, 123.0)), None),
    "matcaffe-transposed": (
        Spec("matcaffe", resize=(24, 24), mean_file="m", mean_layout="whc"),
        np.ascontiguousarray(np.pad(MEAN, ((0, 0), (0, 4), (0, 0)))),
    ),
    "matcaffe-rgb": (Spec("matcaffe", resize=(9, 50), order="rgb"), None),
    "pycaffe": (
        Spec("pycaffe", resize=(20, 24), crop=(13, 17), raw_scale=255.0, mean_values=(104.0, 117.0, 123.0)),
        None,
    ),
    "pycaffe-unit": (Spec("pycaffe", resize=(20, 24), scale=2.0), None),
}


def run(written: Written, images: torch.Tensor) -> torch.Tensor:
    """The method as a program holds it."""
    lines = ["import torch", "from torch import Tensor, nn", *embedded(set(written.helpers)), "class Net(nn.Module):"]
    lines += [
        "    def __init__(self) -> None:",
        "        super().__init__()",
        *(f"        {m}" for m in written.members),
    ]
    lines += ["", *(f"    {line}" for line in written.method)]
    scope: dict[str, object] = {}
    exec("\n".join(lines), scope)
    net = scope["Net"]()  # type: ignore[operator]
    net.load_state_dict(dict(written.state))
    result: torch.Tensor = net.preprocess(images)
    return result


@pytest.mark.parametrize("size", [(40, 61), (20, 24), (7, 90), (300, 11)], ids=str)
@pytest.mark.parametrize("name", SPECS)
def test_pictures_come_out_as_the_package_prepares_them(name: str, size: tuple[int, int]) -> None:
    spec, mean = SPECS[name]
    rgb = RNG.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    prepare = make(spec, mean)
    expected = np.stack([prepare(np.ascontiguousarray(image[:, :, ::-1])) for image in rgb])
    found = run(write_preprocessing(spec, mean), torch.from_numpy(rgb)).numpy()
    for index in range(len(rgb)):
        assert np.abs(found[index] - expected[index]).max() <= 255 * 2e-6 * max(spec.scale, 1.0)


def test_a_data_layers_pictures_must_have_their_size() -> None:
    spec = Spec("transformer", resize=(20, 24), crop=(13, 17), mean_file="m")
    written = write_preprocessing(spec, MEAN)
    rgb = RNG.integers(0, 256, (1, 20, 24, 3), dtype=np.uint8)
    expected = make(spec, MEAN)(np.ascontiguousarray(rgb[0, :, :, ::-1]))
    assert np.array_equal(run(written, torch.from_numpy(rgb)).numpy()[0], expected)
    with pytest.raises(ValueError, match="resize pictures to 20 x 24 first"):
        run(written, torch.zeros(1, 21, 24, 3, dtype=torch.uint8))


def test_what_has_no_written_form_is_refused() -> None:
    with pytest.raises(UsageError, match="grey nets"):
        write_preprocessing(Spec("transformer", channels=1, resize=(8, 8)), None)
    with pytest.raises(UsageError, match="give resize"):
        write_preprocessing(Spec("transformer"), None)


def test_every_model_of_the_zoo_has_a_written_form() -> None:
    for name in zoo.names():
        entry = zoo.entry(name)
        spec = Spec.from_dict(entry.preprocessing)
        mean = None if entry.mean is None else np.zeros((3, 256, 256), np.float32)
        assert write_preprocessing(spec, mean).method[-1].strip() == "return x"
