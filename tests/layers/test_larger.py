"""MAX of two blobs, bit for bit as ``a > b ? a : b``: any size and layout, several threads, under tracers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from caffe2torch.layers import larger as module
from caffe2torch.layers.larger import larger

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
SPECIAL = torch.tensor([math.nan, -math.inf, -1.0, -0.0, 0.0, 2.0, math.inf])


@pytest.fixture(params=["opencv", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(module, "opencv_agrees", lambda: False)
    elif not module.opencv_agrees():
        pytest.skip("OpenCV's max has another rule for NaN on this processor")
    return request.param


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Normal values, of which half are special."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=generator)
    special = SPECIAL[torch.randint(len(SPECIAL), shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < 0.5, special, normal).to(dtype)


def check(a: Tensor, b: Tensor, *, signs: bool = True) -> None:
    before = a.clone(), b.clone()
    top = larger(a, b)
    x, y = a.double().numpy(), b.double().numpy()
    expected = np.where(x > y, x, y)
    assert (top.dtype, top.shape) == (a.dtype, a.shape)
    np.testing.assert_array_equal(top.double().numpy(), expected)
    if signs:  # those of zeros; NaN has none
        signs_of = [np.signbit(np.nan_to_num(values)) for values in (top.double().numpy(), expected)]
        np.testing.assert_array_equal(*signs_of)
    for x, old in zip((a, b), before, strict=True):
        torch.testing.assert_close(x, old, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "shape", [(), (1,), (7,), (4,), (4, 1), (33,), (2, 3, 5, 7), (1, 1, 4), (0, 3), (3, 1000)], ids=str
)
def test_every_shape_and_type(shape: tuple[int, ...], dtype: torch.dtype, way: str, threads: int) -> None:
    check(draw(*shape, dtype=dtype, seed=1), draw(*shape, dtype=dtype, seed=2))


@pytest.mark.parametrize("more", [-1, 0, 1, 1001])
def test_blocks_of_several_threads(more: int, way: str, threads: int) -> None:
    count = 2 * module._BLOCK + more
    check(draw(count, seed=1), draw(count, seed=2))


@pytest.mark.parametrize("offset", range(1, 9))
def test_parts_that_begin_anywhere(offset: int, way: str, threads: int) -> None:
    check(draw(200, seed=1)[offset:], draw(200, seed=2)[:-offset])


def test_other_layouts(way: str, threads: int) -> None:
    a, b = draw(2, 4, 6, 8, seed=1), draw(2, 4, 6, 8, seed=2)
    check(a.to(memory_format=torch.channels_last), b, signs=False)
    check(a, b.to(memory_format=torch.channels_last), signs=False)
    check(a.permute(0, 1, 3, 2), b.permute(0, 1, 3, 2), signs=False)
    check(a[:, 1:3], b[:, ::2], signs=False)


def test_other_shapes_are_broadcast_as_torch_does(way: str) -> None:
    """Not cut to the first one's: a net may be fed batches of different sizes."""
    one, more = draw(1, 3, seed=1), draw(2, 3, seed=2)
    check(more, one.expand(2, 3), signs=False)
    np.testing.assert_array_equal(larger(more, one).numpy(), larger(more, one.expand(2, 3)).numpy())
    np.testing.assert_array_equal(larger(one, more).numpy(), larger(one.expand(2, 3), more).numpy())
    with pytest.raises(RuntimeError, match="size of tensor"):
        larger(draw(4), draw(3))


def recorded(make: Callable[..., Callable[[Tensor, Tensor], Tensor]], a: Tensor, b: Tensor) -> Tensor:
    """What is recorded with other values than ``a`` and ``b``, run on these."""
    return make(larger, (torch.zeros_like(a), torch.ones_like(b)))(a, b)


@pytest.mark.parametrize(
    "make",
    [
        lambda f, given: torch.jit.trace(f, given),
        lambda f, given: make_fx(f)(*given),
        lambda f, given: make_fx(f, tracing_mode="symbolic")(*given),
        lambda f, given: torch.func.vmap(f),
    ],
    ids=["jit", "make_fx", "make_fx symbolic", "vmap"],
)
def test_torch_sees_what_it_has_to(make: Callable[..., Callable[[Tensor, Tensor], Tensor]]) -> None:
    a, b = draw(3, 50, seed=1), draw(3, 50, seed=2)
    expected = np.where(a.numpy() > b.numpy(), a.numpy(), b.numpy())
    np.testing.assert_array_equal(recorded(make, a, b).numpy(), expected)


def test_forward_derivatives_are_those_of_the_larger() -> None:
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.5, 1.0])
    slopes = torch.full((3,), 10.0), torch.full((3,), 20.0)
    value, slope = torch.func.jvp(larger, (a, b), slopes)
    assert (value.tolist(), slope.tolist()) == ([2.0, 2.5, 3.0], [20.0, 20.0, 10.0])
    with forward_ad.dual_level():
        pair = (forward_ad.make_dual(x, s) for x, s in zip((a, b), slopes, strict=True))
        value, found = forward_ad.unpack_dual(larger(*pair))
        assert found is not None
        assert (value.tolist(), found.tolist()) == ([2.0, 2.5, 3.0], [20.0, 20.0, 10.0])
