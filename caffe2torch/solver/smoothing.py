"""The loss as it is displayed: ``Solver::UpdateSmoothedLoss`` of Caffe 1.0."""

from __future__ import annotations


class SmoothedLoss:
    """The mean of the last ``size`` losses (``average_loss``) from iteration ``start`` on, summed up in Caffe's way."""

    def __init__(self, size: int, start: int) -> None:
        self.size, self.start = size, start
        self._losses: list[float] = []
        self._mean = 0.0

    def add(self, iteration: int, loss: float) -> float:
        """The mean, with the loss of this iteration."""
        if len(self._losses) < self.size:
            self._losses.append(loss)
            count = len(self._losses)
            self._mean = (self._mean * (count - 1) + loss) / count
        else:
            index = (iteration - self.start) % self.size
            self._mean += (loss - self._losses[index]) / self.size
            self._losses[index] = loss
        return self._mean
