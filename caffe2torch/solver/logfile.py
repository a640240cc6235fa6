"""Reading logs of trainings: Caffe's own of any version, ours in the same words, and our JSON lines.

Only the lines that give figures are read; whatever else a program wrote between them is passed over. A log may hold
several runs one after the other: where the iterations go back, a training was resumed from a snapshot (or begun anew),
and what the earlier run had done from there on is dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe2torch.errors import FormatError

_LONGEST = 1 << 16
"""Bytes of a line that are looked at."""
_MOST = 1 << 53
"""No training has as many iterations."""
_PREFIX = re.compile(r"^.*?\b[IWEF]\d{4,8} \d\d:\d\d:\d\d\.\d+ +\d+ [^\]]*\] ?")
"""What glog writes before a line, with anything a wrapper may have put before that."""
_NUMBER = r"([-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf|NaN|Infinity)(?:\(ind\))?)"
_LOSS = re.compile(rf"Iteration (\d+)(?: \(.*\))?, loss = {_NUMBER}\s*$")
_RATE = re.compile(rf"Iteration (\d+), lr = {_NUMBER}(?:,.*)?\s*$")
_TESTING = re.compile(r"Iteration (\d+), Testing net \(#(\d+)\)")
_TEST_LOSS = re.compile(rf"Test loss: {_NUMBER}\s*$")
_OUTPUT = re.compile(rf"\s*(Train|Test) net output #(\d+): (.*) = {_NUMBER}(?: \(\* {_NUMBER} = {_NUMBER} loss\))?\s*$")
_SCORE = re.compile(rf"\s*Test score #(\d+): {_NUMBER}\s*$")

Outputs = dict[str, list[float]]


@dataclass(frozen=True, eq=False)
class Series:
    """Values over iterations, which rise strictly."""

    iterations: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def last(self) -> float:
        """The value at the latest iteration."""
        return float(self.values[-1])


@dataclass(frozen=True, eq=False)
class TrainingLog:
    """What a log says. Series may be empty; ``train`` and ``test`` are the outputs of the nets by name.

    ``loss`` is the whole loss as displayed, a mean over the last ``average_loss`` iterations. A blob with several
    values is several outputs, ``name[0]``, ``name[1]``, ...; an output of a second test net is ``name (net 1)``.
    ``restarts`` are the iterations at which the log goes back to an earlier one.
    """

    path: Path
    loss: Series
    rate: Series
    train: dict[str, Series]
    test: dict[str, Series]
    losses: frozenset[str]
    """Names of outputs that are losses, where the log says so."""
    restarts: tuple[int, ...]

    @property
    def last_iteration(self) -> int:
        """The latest iteration of any figure."""
        return max(int(s.iterations[-1]) for s in self.all_series().values() if len(s))

    def all_series(self) -> dict[str, Series]:
        """Every series with at least one value, by a name that tells them apart."""
        named = {"loss": self.loss, "learning rate": self.rate}
        named |= {f"train {name}": series for name, series in self.train.items()}
        named |= {f"test {name}": series for name, series in self.test.items()}
        return {name: series for name, series in named.items() if len(series)}


def read_log(path: str | Path) -> TrainingLog:
    """Read a log; FormatError for a file that cannot be read or in which no line belongs to a training."""
    path = Path(path)
    reader = _Reader()
    try:
        for line in _lines(path):
            reader.take(line)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}") from error
    log = reader.log(path)
    if not log.all_series():
        hint = f"; {reader.hint}" if reader.hint else ""
        raise FormatError(
            f"{path}: not the log of a training: none of its {reader.count:,} lines is like 'Iteration 100, loss = 1' "
            f"or 'Test net output #0: accuracy = 0.9'{hint}"
        )
    return log


def _lines(path: Path) -> Iterator[str]:
    """The complete lines; one without its end was cut off while it was written, and its number may be a part only."""
    with path.open("rb") as file:
        whole = True
        while raw := file.readline(_LONGEST):
            begins, whole = whole, raw.endswith(b"\n")
            if begins and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise FormatError(f"{path}: this log is UTF-16; save it as UTF-8")
            if begins and whole:
                yield raw.decode("utf-8", "replace").rstrip("\r\n")


@dataclass
class _Points:
    """A series in the making."""

    iterations: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def put(self, iteration: int, value: float) -> None:
        self.drop_from(iteration)
        self.iterations.append(iteration)
        self.values.append(value)

    def drop_from(self, iteration: int) -> None:
        while self.iterations and self.iterations[-1] >= iteration:
            self.iterations.pop()
            self.values.pop()

    def series(self) -> Series:
        return Series(np.array(self.iterations, np.int64), np.array(self.values, np.float64))


class _Reader:
    """Takes lines one by one. Outputs belong to the iteration of the line before them."""

    def __init__(self) -> None:
        self.count = 0
        self.hint = ""
        self._points: dict[tuple[str, str], _Points] = {}
        self._losses: set[str] = set()
        self._restarts: list[int] = []
        self._iteration: int | None = None
        self._kind, self._net = "", 0
        self._block: Outputs = {}

    def take(self, line: str) -> None:
        self.count += 1
        if line.startswith("{"):
            self._take_json(line)
        elif "Iteration" in line or " net output #" in line or "Test " in line or "Batch " in line:
            self._take_text(_PREFIX.sub("", line))

    def log(self, path: Path) -> TrainingLog:
        self._close()
        series = {key: points.series() for key, points in self._points.items()}
        empty = _Points().series()
        return TrainingLog(
            path,
            series.get(("", "loss"), empty),
            series.get(("", "rate"), empty),
            {name: s for (kind, name), s in series.items() if kind == "Train"},
            {name: s for (kind, name), s in series.items() if kind == "Test"},
            frozenset(self._losses),
            tuple(self._restarts),
        )

    def _take_text(self, line: str) -> None:
        if found := _OUTPUT.match(line):
            self._output(found[1], found[3], _float(found[4]), is_loss=found[5] is not None)
        elif found := _SCORE.match(line):
            self._output("Test", f"score {found[1]}", _float(found[2]), is_loss=False)
        elif found := _LOSS.match(line):
            self._at(int(found[1]), "Train")
            self._put("", "loss", _float(found[2]))
        elif found := _RATE.match(line):
            self._at(int(found[1]), "")
            self._put("", "rate", _float(found[2]))
        elif found := _TESTING.match(line):
            self._at(int(found[1]), "Test", int(found[2]))
        elif found := _TEST_LOSS.match(line):
            self._output("Test", "loss (all)", _float(found[1]), is_loss=True)
        elif re.match(r"Batch \d+, .* = ", line):
            self.hint = "it is the log of a test (caffe test), which has no iterations"

    def _take_json(self, line: str) -> None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return
        iteration = record.get("iteration")
        if not isinstance(iteration, int) or isinstance(iteration, bool):
            return
        if record.get("event") == "train":
            self._at(iteration, "Train")
            for key, name in (("loss", "loss"), ("lr", "rate")):
                if _is_number(record.get(key)):
                    self._put("", name, float(record[key]))
            self._json_outputs("Train", record)
        elif record.get("event") == "test":
            net = record.get("net")
            self._at(iteration, "Test", net if isinstance(net, int) else 0)
            self._json_outputs("Test", record)
            if _is_number(record.get("loss")):
                self._output("Test", "loss (all)", float(record["loss"]), is_loss=True)

    def _json_outputs(self, kind: str, record: dict[str, Any]) -> None:
        outputs = record.get("outputs")
        for name, values in outputs.items() if isinstance(outputs, dict) else ():
            for value in values if isinstance(values, list) else ():
                if _is_number(value):
                    self._output(kind, name, float(value), is_loss=False)

    def _at(self, iteration: int, kind: str, net: int = 0) -> None:
        """What comes now belongs to ``iteration``."""
        self._close()
        if not 0 <= iteration < _MOST:
            self._iteration, self._kind = None, ""
            return
        if self._iteration is not None and iteration < self._iteration:
            self._restarts.append(iteration)
            for points in self._points.values():
                points.drop_from(iteration)
        self._iteration, self._kind, self._net = iteration, kind, net

    def _output(self, kind: str, name: str, value: float, *, is_loss: bool) -> None:
        if self._iteration is None or kind != self._kind:  # the line that says where it belongs is not there
            return
        if self._net:
            name = f"{name} (net {self._net})"
        self._block.setdefault(name, []).append(value)
        if is_loss:
            self._losses.add(name)

    def _put(self, kind: str, name: str, value: float) -> None:
        if self._iteration is not None:
            self._points.setdefault((kind, name), _Points()).put(self._iteration, value)

    def _close(self) -> None:
        """The outputs of one display or test are complete."""
        for name, values in self._block.items():
            for index, value in enumerate(values):
                self._put(self._kind, name if len(values) == 1 else f"{name}[{index}]", value)
        self._block = {}


def _float(text: str) -> float:
    return float(text.removesuffix("(ind)"))  # Microsoft's way to print one kind of NaN


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
