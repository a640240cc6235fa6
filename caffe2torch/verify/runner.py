"""Running golden cases one after the other: what each kind of case is compared by, and the account of them all."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping

from caffe2torch.errors import Caffe2TorchError, MissingPackageError
from caffe2torch.verify import formats, fullsize, nets, training
from caffe2torch.verify.case import Case
from caffe2torch.verify.compare import Check, Result

_RUN: Mapping[str, Callable[[Case], list[Check]]] = {
    "net": nets.run,
    "weights": formats.run_weights,
    "state": formats.run_state,
    "mean": formats.run_mean,
    "fillers": formats.run_fillers,
    "solver": training.run,
    "fullsize": fullsize.run,
}

_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)
"""What a fault of the program (or of torch) raises: it fails its case, and the others are still run."""


def run_case(case: Case) -> Result:
    """Run one case; whatever stops it makes it fail, but for an optional package that is not installed."""
    start = time.perf_counter()
    try:
        checks = tuple(_RUN[case.kind](case))
    except MissingPackageError as error:
        return Result(case.name, "skipped", reason=str(error))
    except Caffe2TorchError as error:
        return _stopped(case, str(error), start)
    except _FAULTS as error:
        return _stopped(case, f"{type(error).__name__}: {error}", start)
    if not checks:
        return _stopped(case, "nothing in it could be compared", start)
    passed = all(check.passed for check in checks)
    return Result(case.name, "passed" if passed else "failed", checks, seconds=_since(start))


def run_cases(cases: Iterable[Case]) -> Iterator[Result]:
    """The result of each case, in order, as they come."""
    for case in cases:
        yield run_case(case)


def _stopped(case: Case, reason: str, start: float) -> Result:
    return Result(case.name, "failed", reason=" ".join(reason.split()), seconds=_since(start))


def _since(start: float) -> float:
    return time.perf_counter() - start
