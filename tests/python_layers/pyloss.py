"""A layer in the form users of Caffe's Python layers write: half the mean squared distance of two blobs."""

from __future__ import annotations

from typing import Any

import numpy as np


class EuclideanLossLayer:
    def setup(self, bottom: Any, top: Any) -> None:
        assert len(bottom) == 2

    def reshape(self, bottom: Any, top: Any) -> None:
        self.difference = np.zeros_like(bottom[0].data)
        top[0].reshape(1)

    def forward(self, bottom: Any, top: Any) -> None:
        self.difference[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = (self.difference**2).sum() / bottom[0].num / 2

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        for index, sign in enumerate((1, -1)):
            if propagate_down[index]:
                bottom[index].diff[...] = sign * self.difference / bottom[index].num
