"""What is known of every layer type: parameters, oracle, largest error measured, notes; and docs/layers.md from it."""

from __future__ import annotations

import dis
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from caffe2torch import schema
from caffe2torch.graph import SOURCES
from caffe2torch.layers import registry
from caffe2torch.layers.registry import Layer
from caffe2torch.verify.case import Case
from caffe2torch.verify.compare import Result

OPENCV = frozenset(
    {
        "Accum",
        "BatchNorm",
        "ConvolutionDepthwise",
        "Correlation",
        "DataAugmentation",
        "DetectionOutput",
        "FlowWarp",
        "Interp",
        "Normalize",
        "PSROIPooling",
        "PriorBox",
        "Proposal",
        "ROIPooling",
        "ReLU6",
        "Reorg",
        "ShuffleChannel",
    }
)
"""Types that the tests also compare with OpenCV's layer."""

SOURCE_FIELDS: Mapping[str, tuple[str, ...]] = {
    "AnnotatedData": ("data_param", "transform_param"),
    "Data": ("data_param", "transform_param"),
    "HDF5Data": ("hdf5_data_param",),
    "ImageData": ("image_data_param", "transform_param"),
    "Input": ("input_param",),
    "MemoryData": ("memory_data_param", "transform_param"),
    "WindowData": ("window_data_param", "transform_param"),
}
"""Messages that describe the types which feed a net instead of computing."""

CAFFE_TRANSFORM = frozenset({"scale", "mirror", "crop_size", "mean_file", "mean_value", "force_color", "force_gray"})
"""What Caffe 1.0 itself has in ``transform_param``; the rest is of forks."""

_CAPTURE = re.compile(r"Not captured by torch\.export because.*?[.](?=\s|$)")


@dataclass
class Measured:
    """What the golden cases say about one type."""

    cases: int = 0
    forward: float | None = None
    backward: float | None = None


@dataclass(frozen=True)
class Entry:
    """One layer type, or several names of one class."""

    names: tuple[str, ...]
    """Caffe's name first, then the names forks gave it."""
    family: str
    """Module of caffe2torch.layers that has it."""
    text: str
    """The docstring, without the sentence on torch.export."""
    capture: str
    """Why torch.export cannot capture it; empty when it does."""
    messages: tuple[str, ...]
    """Fields of LayerParameter that it reads, as ``convolution_param``."""
    refused: frozenset[str] = frozenset()
    """Fields of these messages that are errors here when they are set."""
    notes: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def oracle(self) -> str:
        """What its values are compared with where no golden case has it."""
        return "OpenCV and the definition" if not OPENCV.isdisjoint(self.names) else "the definition"


def entries() -> list[Entry]:
    """Every registered type, by family and name."""
    names: dict[type[Layer], list[str]] = {}
    for name in registry.types():
        cls = registry.find(name)
        assert cls is not None
        names.setdefault(cls, []).append(name)
    found = [_entry(cls, tuple(sorted(n, key=lambda name: name != cls.caffe_type))) for cls, n in names.items()]
    return sorted(found, key=lambda entry: (entry.family, entry.name))


def _entry(cls: type[Layer], names: tuple[str, ...]) -> Entry:
    text = inspect.cleandoc(cls.__doc__ or "")
    capture = _CAPTURE.search(" ".join(text.split()))
    paragraphs = [_CAPTURE.sub("", " ".join(p.split())).strip() for p in text.split("\n\n")]
    read, refused = _fields(cls)
    notes = []
    if cls.no_gradient:
        notes.append(f"No gradient to bottom {', '.join(map(str, cls.no_gradient))}, as in Caffe.")
    if cls.loss:
        notes.append("A loss: its first top has loss_weight 1 unless the prototxt says otherwise.")
    return Entry(
        names=names,
        family=cls.__module__.rpartition(".")[2],
        text="\n\n".join(filter(None, paragraphs)),
        capture=capture[0] if capture else "",
        messages=tuple(sorted(read)),
        refused=frozenset(refused),
        notes=tuple(notes),
    )


def _fields(cls: type[Layer]) -> tuple[set[str], set[str]]:
    """Fields of LayerParameter that the class's code names, and those of their own that it gives to ``refuse``.

    The names are looked up in the compiled code of ``from_caffe`` and ``fill``, and of all they call in this package.
    """
    known = schema.message_type("LayerParameter").DESCRIPTOR.fields_by_name
    todo: list[Any] = [getattr(cls.from_caffe, "__func__", cls.from_caffe), cls.fill]
    seen: list[Any] = []
    read: set[str] = set()
    refused: set[str] = set()
    while todo:
        function = todo.pop()
        if function in seen:
            continue
        seen.append(function)
        names, given = _code(function.__code__)
        read.update(name for name in names if name.endswith("_param") and name in known)
        refused |= given
        todo += filter(None, (_helper(cls, function, name) for name in names))
    own = {name: {f.name for f in known[name].message_type.fields} for name in read}
    inner = set().union(*own.values())  # such as nms_param, which a layer and a message of one both have
    return read - inner, refused & inner


def _code(code: CodeType) -> tuple[set[str], set[str]]:
    """The names in compiled code and the texts given to ``refuse``, functions within it included."""
    names: set[str] = set(code.co_names)
    refused: set[str] = set()
    refusing = False
    for step in dis.get_instructions(code):
        if step.opname.startswith(("CALL", "PRECALL")):
            refusing = False
        elif step.argval == "refuse":
            refusing = True
        elif refusing and step.opname.startswith("LOAD_CONST"):
            values = step.argval if isinstance(step.argval, tuple) else (step.argval,)
            refused.update(value for value in values if isinstance(value, str))
    for value in code.co_consts:
        if isinstance(value, CodeType):
            inner_names, inner_refused = _code(value)
            names |= inner_names
            refused |= inner_refused
    return names, refused


def _helper(cls: type[Layer], caller: Any, name: str) -> Any:
    """The function of caffe2torch.layers that a name in ``caller`` stands for: a global one, or a method."""
    found = caller.__globals__.get(name) or getattr(cls, name, None)
    found = getattr(found, "__func__", found)
    return found if inspect.isfunction(found) and found.__module__.startswith("caffe2torch.layers") else None


def parameters(message_field: str) -> Iterator[tuple[str, str]]:
    """Name and form of every parameter in a field of LayerParameter: ``kernel_size``, ``uint32, repeated``."""
    descriptor = schema.message_type("LayerParameter").DESCRIPTOR.fields_by_name[message_field].message_type
    for f in descriptor.fields:
        yield f.name, _form(f)


_KINDS = {
    FieldDescriptor.CPPTYPE_BOOL: "bool",
    FieldDescriptor.CPPTYPE_DOUBLE: "double",
    FieldDescriptor.CPPTYPE_FLOAT: "float",
    FieldDescriptor.CPPTYPE_INT32: "int32",
    FieldDescriptor.CPPTYPE_INT64: "int64",
    FieldDescriptor.CPPTYPE_STRING: "string",
    FieldDescriptor.CPPTYPE_UINT32: "uint32",
    FieldDescriptor.CPPTYPE_UINT64: "uint64",
}


def _form(f: Any) -> str:
    if f.message_type is not None:
        kind = str(f.message_type.name)
    elif f.enum_type is not None:
        kind = " | ".join(value.name for value in f.enum_type.values)
    else:
        kind = _KINDS[f.cpp_type]
    if schema.is_repeated(f):
        return f"{kind}, repeated"
    if not f.has_default_value:
        return kind
    if f.enum_type is not None:
        return f"{kind} = {f.enum_type.values_by_number[f.default_value].name}"
    value = f.default_value
    if isinstance(value, bool):
        return f"{kind} = {str(value).lower()}"
    if isinstance(value, float):
        return f"{kind} = {value:.7g}"
    return f'{kind} = "{value}"' if isinstance(value, str) else f"{kind} = {value}"


def measure(results: Iterable[tuple[Case, Result]]) -> dict[str, Measured]:
    """The largest errors by type of the layer that wrote a blob (gradients of inputs: the type the case is about)."""
    found: dict[str, Measured] = {}
    for case, result in results:
        types = {check.layer for check in result.checks}
        if case.path.is_dir():
            types.add(str(case.facts.get("layer", "")))
        for name in types:
            found.setdefault(name, Measured()).cases += 1
        for check in result.checks:
            entry = found[check.layer]
            if check.name.startswith("grad_"):
                entry.backward = max(entry.backward or 0.0, check.error)
            elif not check.name.startswith("random:"):
                entry.forward = max(entry.forward or 0.0, check.error)
    return found


def family_title(family: str) -> str:
    """The first sentence of the module's docstring."""
    text = inspect.getdoc(importlib.import_module(f"caffe2torch.layers.{family}")) or family
    return text.split("\n")[0]


def sources() -> list[str]:
    """The types that feed a net."""
    return sorted(SOURCES)
