"""The bundled model's codes of CIFAR-10 by OpenCV instead of this package: `python tools/record_codes.py SOURCE OUT`.

SOURCE is CIFAR-10 in any of its published forms; OUT an .npz with `test_codes` (10,000, 6) and `train_codes`
(50,000, 6), packed by numpy.packbits, and `test_classes` (10,000,), pictures in CIFAR-10's order. OpenCV reads the
prototxt and the weights by its own importer and computes by its own layers, and the preprocessing is written out here;
so `tools/verify_release.py --model ssdh48_small` compares two programs that share nothing but the files.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from tqdm import tqdm

from caffe2torch.data.cifar10 import open_cifar10
from caffe2torch.errors import Caffe2TorchError

ROOT = Path(__file__).resolve().parent.parent
NET = ROOT / "prototxt" / "ssdh48_small" / "with_classifier.prototxt"
MEAN = (113.9, 123.0, 125.3)
"""Of the channels in B, G, R order."""
SCALE = 1 / 62
BATCH = 500


def hashed(net: cv2.dnn.Net, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 32, 32, 3) bytes in R, G, B order to (N, 6) packed codes and (N,) classes."""
    codes, classes = [], []
    for start in tqdm(range(0, len(images), BATCH), disable=not sys.stderr.isatty()):
        pixels = images[start : start + BATCH, :, :, ::-1].astype(np.float64)
        net.setInput(((pixels - MEAN) * SCALE).transpose(0, 3, 1, 2).astype(np.float32))
        values, scores = net.forward(["latent_sigmoid", "classifier"])
        codes.append(np.packbits(values.reshape(len(pixels), -1) > 0.5, axis=1))
        classes.append(scores.reshape(len(pixels), -1).argmax(axis=1).astype(np.uint8))
    return np.concatenate(codes), np.concatenate(classes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="CIFAR-10: archive, folder or strips")
    parser.add_argument("out", type=Path, metavar="OUT", help="the .npz to write")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "ssdh48_small.caffemodel", metavar="FILE")
    args = parser.parse_args()
    try:
        cifar = open_cifar10(args.source)
        net = cv2.dnn.readNetFromCaffe(str(NET), str(args.weights))
        test_codes, test_classes = hashed(net, cifar.test.images)
        train_codes, _ = hashed(net, cifar.train.images)
    except Caffe2TorchError as error:
        print(f"record_codes: error: {error}", file=sys.stderr)
        return 1
    np.savez(args.out, test_codes=test_codes, test_classes=test_classes, train_codes=train_codes)
    print(f"accuracy on the test pictures: {np.mean(test_classes == cifar.test.labels):.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
