"""Published nets as wholes: forward and backward through every layer."""

from __future__ import annotations

from pathlib import Path

import torch

from caffe2torch.loading import load
from caffe2torch.net import CaffeNet

EXAMPLES = Path("published") / "prototxt" / "Caffe-DeepBinaryCode" / "caffe-examples"


def check_gradients(net: CaffeNet, total: torch.Tensor) -> None:
    """Every parameter that learns gets a finite gradient, and no weight's is all zero.

    (A bias that both branches of a siamese net add cancels in their difference.)
    """
    total.backward()
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.dim() < 2 or parameter.grad.abs().max() > 0, name


def test_googlenet_runs_forward_and_backward(reference: Path) -> None:
    torch.manual_seed(0)
    net = load(reference / EXAMPLES / "googlenet_deploy.prototxt")
    for parameter in net.parameters():  # the deploy net has no fillers worth the name
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
    outputs = net(torch.randn(2, 3, 224, 224))
    assert {blob: tuple(value.shape) for blob, value in outputs.items()} == {"prob": (2, 1000)}
    assert torch.allclose(outputs["prob"].sum(1), torch.ones(2), atol=1e-5)
    check_gradients(net, outputs["prob"][:, 0].sum())


def test_squeezenet_runs_forward_and_backward(reference: Path) -> None:
    folder = reference / "models"
    net = load(folder / "squeezenet_v1.0.prototxt", folder / "squeezenet_v1.0.caffemodel")
    torch.manual_seed(0)
    outputs = net(torch.randn(1, 3, 227, 227) * 50)
    check_gradients(net, outputs[net.outputs[0]].flatten()[:10].sum())


def test_the_siamese_net_learns_through_both_branches(reference: Path) -> None:
    torch.manual_seed(0)
    shapes = {"pair_data": (8, 2, 28, 28), "sim": (8,)}
    net = load(reference / EXAMPLES / "siamese_train_test.prototxt", phase="train", input_shapes=shapes)
    assert net.layer("conv1").weight is net.layer("conv1_p").weight
    pair, similar = torch.rand(8, 2, 28, 28), torch.tensor([0.0, 1.0] * 4)
    loss = net.loss(net({"pair_data": pair, "sim": similar}))
    check_gradients(net, loss)
    both = net.layer("conv1").weight.grad
    net.zero_grad()
    # The gradient of one branch alone, the other held still, differs from the sum of both.
    features = net.select("feat", "feat_p")({"pair_data": pair})
    distance = (features["feat"] - features["feat_p"].detach()).square().sum(1)
    margin = (1 - distance).clamp(min=0)
    (torch.where(similar > 0, distance, margin).sum() / 16).backward()
    assert both is not None
    assert not torch.allclose(net.layer("conv1").weight.grad, both)
