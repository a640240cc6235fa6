"""Following a module's forward pass: every call of torch's Python functions, in order, on example inputs.

``TorchFunctionMode`` sees the calls as the user's code and torch's modules make them (``conv2d`` with its stride, not
what it becomes further down), under signatures that torch keeps from version to version, and lets Python run as
it is: shapes are numbers, loops are unrolled, weights that are computed from others are constants. ``torch.export``'s
graph has other operations from one version to the next, and takes normalisation and activations to pieces that Caffe's
layers would have to be guessed from; ``torch.fx`` stops where Python looks at a shape.

Where a value decides what happens next, or a call has no converter, the trace notes the problem and goes on, so that
all problems are told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from caffe2torch.importing import registry
from caffe2torch.importing.builder import Builder, Origin
from caffe2torch.importing.place import ModuleStack, Place
from caffe2torch.importing.values import PENDING, Refused, Value, is_whole, lost

_READS = frozenset(
    (
        *("item", "tolist", "numpy", "__array__", "__bool__", "__int__", "__float__", "__index__", "__complex__"),
        *("equal", "allclose", "is_nonzero", "__contains__"),
    )
)
"""Functions that make Python values of a tensor's values; all others that return no tensor tell its form."""

_PLAIN = (torch.float32, torch.bool)


@dataclass
class _Entry:
    """A tensor that depends on the inputs; ``version`` is torch's count of in-place changes when it was noted."""

    tensor: Tensor
    value: Value
    version: int


class Tracer(TorchFunctionMode):
    """Adds layers to a builder while a module runs inside ``with tracer:``."""

    def __init__(self, builder: Builder, modules: ModuleStack) -> None:
        super().__init__()
        self.builder, self.modules = builder, modules
        self.problems: list[str] = []
        self._entries: dict[int, _Entry] = {}

    def note(self, tensor: Tensor, value: Value) -> None:
        """From now on this tensor is this blob."""
        self._entries[id(tensor)] = _Entry(tensor, value, tensor._version)

    def find(self, tensor: Tensor) -> Value | None:
        """The blob a tensor is; None for a constant."""
        entry = self._entries.get(id(tensor))
        return entry.value if entry else None

    def current(self, tensor: Tensor) -> Value | None:
        """As ``find``, for a result: a problem is noted where the tensor has changed since it was made."""
        entry = self._entries.get(id(tensor))
        if entry and entry.version != tensor._version and not entry.value.lost:
            self.problems.append("an output was changed in place through another tensor that shares its memory")
        return entry.value if entry else None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = list(_tensors((args, kwargs)))
        traced = [tensor for tensor in tensors if id(tensor) in self._entries]
        if not traced:
            return self._constant(func(*args, **kwargs), tensors)
        place, name = self.modules.place(), _name(func)
        stale = [t for t in traced if self._entries[id(t)].version != t._version]
        versions = [tensor._version for tensor in tensors]
        result = func(*args, **kwargs)
        if _form_only(name, result):
            return result
        made = list(_tensors(result))
        changed = [t for t, version in zip(tensors, versions, strict=True) if t._version != version]
        values = self._convert(place, name, args, kwargs, result, traced, stale)
        if values is not None and any(all(t is not m for m in made) for t in changed):
            self._problem(
                place, name, "it writes into a tensor that other tensors share; Caffe's layers make new blobs"
            )
            values = None
        if values is not None and not changed and any(result is t and self.find(t) is not values[0] for t in traced):
            # Dropout in evaluation returns its input itself; the two need names of their own.
            result = result.view_as(result)
            made = [result]
        for index, tensor in enumerate(made):
            self.note(tensor, values[index] if values is not None else lost(tensor.shape))
        for tensor in changed:
            if all(tensor is not m for m in made):
                self.note(tensor, lost(tensor.shape))
        return result

    def _constant(self, result: Any, tensors: Sequence[Tensor]) -> Any:
        """Note what is computed from constants: it is learned where they are, and a view of one is still that one."""
        origins = [self.builder.origin(tensor) for tensor in tensors]
        for made in _tensors(result):
            if any(made is tensor for tensor in tensors):
                continue
            same = [origin for tensor, origin in zip(tensors, origins, strict=True) if _same_data(made, tensor)]
            self.builder.remember(made, same[0] if same else Origin("", any(o.learned for o in origins)))
        return result

    def _convert(
        self,
        place: Place,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        result: Any,
        traced: Sequence[Tensor],
        stale: Sequence[Tensor],
    ) -> list[Value] | None:
        """The values of the tensors in ``result``; None, and a problem noted, where the call is refused."""
        try:
            converter = registry.find(name)
            if name in _READS:
                raise Refused("the values themselves decide what happens next; a Caffe net computes the same for all")
            if converter is None:
                raise Refused(registry.reason(name if name.endswith("__") else name.removesuffix("_")))
            if any(self._entries[id(tensor)].value.lost for tensor in traced):
                return None
            if stale:
                raise Refused("its input was changed in place through another tensor that shares its memory")
            _check_given(converter, traced)
            bound = _bind(converter, self.builder, self._values(args), self._values(kwargs))
            for tensor in traced:
                pending = self._entries[id(tensor)].value.pending
                if pending and pending not in converter.takes:
                    raise Refused(PENDING[pending])
            self.builder.place, self.builder.operation = place, name.split(".")[0].strip("_")
            values = converter.function(*bound.args, **bound.kwargs)
            _check_made(traced, result)
            return _agreeing(values, list(_tensors(result)))
        except Refused as refused:
            self._problem(place, name, str(refused))
            return None

    def _values(self, arguments: Any) -> Any:
        """The arguments with blobs in place of tensors that depend on the inputs."""
        if isinstance(arguments, Tensor):
            return self.find(arguments) or arguments
        if isinstance(arguments, tuple) and not isinstance(arguments, torch.Size):
            return tuple(self._values(a) for a in arguments)
        if isinstance(arguments, list):
            return [self._values(a) for a in arguments]
        if isinstance(arguments, Mapping):
            return {key: self._values(a) for key, a in arguments.items()}
        return arguments

    def _problem(self, place: Place, name: str, reason: str) -> None:
        text = f"{place}: {name.removesuffix('.__get__')}: {reason}"
        if text not in self.problems:
            self.problems.append(text)


def _name(func: Callable[..., Any]) -> str:
    """The function's own name; a property of Tensor is ``NAME.__get__``."""
    name = getattr(func, "__name__", type(func).__name__)
    if name != "__get__":
        return "threshold" if name == "_threshold" else name
    return ".".join((resolve_name(func) or "property.__get__").split(".")[-2:])


def _same_data(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are the same values in the same order in the same memory, under any two shapes."""
    whole = a.is_contiguous() and b.is_contiguous() and a.numel() == b.numel() and a.dtype == b.dtype
    return whole and a.layout == torch.strided and a.data_ptr() == b.data_ptr() and a.device == b.device


def _form_only(name: str, result: Any) -> bool:
    """Whether a call only asked for a shape, a type or the like."""
    return name not in _READS and next(_tensors(result), None) is None and name not in ("__setitem__", "__setattr__")


def _tensors(nested: Any) -> Iterator[Tensor]:
    if isinstance(nested, Tensor):
        yield nested
    elif isinstance(nested, list | tuple):
        for item in nested:
            yield from _tensors(item)
    elif isinstance(nested, Mapping):
        for item in nested.values():
            yield from _tensors(item)


def _check_given(converter: registry.Converter, traced: Sequence[Tensor]) -> None:
    for tensor in traced:
        if is_whole(tensor.dtype) and not converter.whole:
            raise Refused(f"it computes with {_short(tensor.dtype)}; a Caffe blob is float32")


def _check_made(traced: Sequence[Tensor], result: Any) -> None:
    given = {tensor.dtype for tensor in traced}
    for tensor in _tensors(result):
        if tensor.dtype not in (*_PLAIN, *given):
            raise Refused(f"it gives {_short(tensor.dtype)}; a Caffe blob is float32")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _bind(converter: registry.Converter, builder: Builder, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    parameters = converter.signature.parameters
    first = list(parameters)[1]
    given = {(first if key in ("input", "self") and key not in parameters else key): v for key, v in kwargs.items()}
    if given.get("out") is None:
        given = {key: value for key, value in given.items() if key != "out" or "out" in parameters}
    try:
        return converter.signature.bind(builder, *args, **given)
    except TypeError as error:
        raise Refused(f"it is called in a form that is not known: {error}") from error


def _agreeing(values: Any, made: Sequence[Tensor]) -> list[Value]:
    found = list(values) if isinstance(values, list | tuple) else [values]
    shapes = [value.shape for value in found]
    if shapes != [tuple(tensor.shape) for tensor in made]:
        raise Refused(f"its layers would give {shapes}, and torch gives {[tuple(t.shape) for t in made]}")
    return found
