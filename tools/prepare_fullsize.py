"""SSDH or KevinNet at full size, ready to train: `python tools/prepare_fullsize.py SOURCE CONVOLUTIONS FOLDER`.

SOURCE is CIFAR-10 in any of its published forms (cifar-10-python.tar.gz, the folder it unpacks to, lossless strips);
CONVOLUTIONS an .npz with ImageNet-trained AlexNet convolutions (bvlc_alexnet/conv1/0 and so on, weights as rows,
columns, outputs, inputs of a group). In FOLDER come the pictures as PNG, a project with the published net (ImageData
layers that enlarge to 256 x 256 and cut 227 x 227 at random), and convolutions.caffemodel to start from.

What differs from the published training: the fully connected layers start from their fillers, because no ImageNet
weights of theirs are at hand, so they learn at 0.01 and the convolutions at 0.003; batches are of 128; and the rate
falls in a straight line over the epochs, since far fewer than the published 32 have to do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from tqdm import tqdm

from caffe2torch import prototxt, schema
from caffe2torch.caffemodel import write_caffemodel
from caffe2torch.data.cifar10 import open_cifar10
from caffe2torch.data.cifar10.dataset import CLASSES, Batch
from caffe2torch.errors import Caffe2TorchError, WeightsError
from caffe2torch.project.make import Project, Wishes, make_project

MODEL = "bvlc_alexnet"
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
RATE, CONNECTED_RATE = 0.003, 0.01


def write_pictures(batch: Batch, folder: Path) -> None:
    """PNG files in a folder for each class; those that are there are left alone."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    bar = tqdm(batch.images, desc=folder.name, disable=not sys.stderr.isatty())
    for number, (image, label) in enumerate(zip(bar, batch.labels, strict=True)):
        path = folder / CLASSES[label] / f"{number:05d}.png"
        if not path.exists():
            cv2.imwrite(str(path), image[..., ::-1])


def write_convolutions(source: Path, target: Path) -> None:
    """The convolutions as a caffemodel, each (outputs, inputs of a group, rows, columns)."""
    with np.load(source) as arrays:
        missing = [f"{MODEL}/{layer}/{part}" for layer in LAYERS for part in "01"]
        missing = [name for name in missing if name not in arrays]
        if missing:
            raise WeightsError(f"{source}: lacks {', '.join(missing)}")
        weights = {
            layer: [
                np.ascontiguousarray(arrays[f"{MODEL}/{layer}/0"].transpose(2, 3, 0, 1)),
                np.ascontiguousarray(arrays[f"{MODEL}/{layer}/1"]),
            ]
            for layer in LAYERS
        }
    net = schema.new("NetParameter")
    net.name = f"convolutions of {MODEL}"
    for name in LAYERS:
        layer = net.layer.add()
        layer.name, layer.type = name, "Convolution"
    write_caffemodel(target, net, weights)


def set_rates(project: Project, epochs: float) -> None:
    """Rewrite the rates in the project's solver and net."""
    path = project.folder / "solver.prototxt"
    solver = prototxt.read(path, "SolverParameter")
    for field in ("gamma", "stepsize"):
        solver.ClearField(field)
    solver.base_lr, solver.lr_policy, solver.power = RATE, "poly", 1.0
    solver.display = solver.average_loss = 20
    epoch = round(solver.max_iter / epochs)
    solver.max_iter = round(epochs * epoch)  # whole epochs end with a test, as Caffe only tests at its interval
    solver.test_interval, solver.snapshot = epoch if round(epochs) % 2 else 2 * epoch, epoch
    path.write_text(prototxt.to_text(solver), encoding="utf-8")
    path = project.folder / "train_val.prototxt"
    net = prototxt.read(path)
    for layer in net.layer:
        if layer.type == "InnerProduct":
            for param, share in zip(layer.param, (1, 2), strict=True):
                param.lr_mult = share * CONNECTED_RATE / RATE
    path.write_text(prototxt.to_text(net), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="CIFAR-10: archive, folder or strips")
    parser.add_argument("convolutions", type=Path, metavar="CONVOLUTIONS", help=".npz of AlexNet's convolutions")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where everything goes")
    parser.add_argument("--base", choices=("ssdh", "kevinnet"), default="ssdh", help="default: ssdh")
    parser.add_argument("--epochs", type=float, default=12, help="default: 12")
    args = parser.parse_args()
    try:
        cifar = open_cifar10(args.source)
        pictures = args.folder / "pictures"
        for batch in (cifar.train, cifar.test):
            write_pictures(batch, pictures / batch.name)
        project = make_project(
            Wishes(
                args.folder / f"{args.base}48",
                pictures / "train",
                test_images=pictures / "test",
                base=args.base,
                epochs=args.epochs,
                batch=128,
                check=False,
            )
        )
        set_rates(project, args.epochs)
        weights = args.folder / "convolutions.caffemodel"
        write_convolutions(args.convolutions, weights)
    except Caffe2TorchError as error:
        print(f"prepare_fullsize: error: {error}", file=sys.stderr)
        return 1
    solver = project.folder / "solver.prototxt"
    print(f"now: caffe2torch train --solver {solver} --weights {weights} --precision bf16")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
