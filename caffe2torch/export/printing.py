"""From a layer class to the function that prints it, and what such a printer is given.

A printer is one function::

    @printer(Power)
    def power(layer: Power, call: Call) -> str:
        return f"({call.x} * {number(layer.scale)} + {number(layer.shift)}) ** {number(layer.power)}"

It returns the expression of the layer's top; for several tops a list of expressions, or one expression that gives a
tuple. What it writes is numbers (``number``), its own words and the names that ``Call`` hands out: never text from the
net.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from torch import Tensor, nn

from caffe2torch.errors import UnsupportedLayerError
from caffe2torch.export.embed import HELPERS
from caffe2torch.export.names import Names
from caffe2torch.graph import Node
from caffe2torch.layers.registry import Layer, Shape
from caffe2torch.sharing import owned

Printed = str | list[str]
Printer = Callable[[Any, "Call"], Printed]
L = TypeVar("L", bound=Printer)


@dataclass(frozen=True)
class _Entry:
    write: Printer
    nests: bool


_OTHER_FORM = "it shares a blob with a layer that holds it in another form"

_printers: dict[type[Layer], _Entry] = {}


def printer(*classes: type[Layer], nests: bool = False) -> Callable[[L], L]:
    """Function decorator: let this function write layers of these very classes.

    ``nests``: the expression names its bottom once, as an argument, so that another call may stand in its place.
    """

    def add(function: L) -> L:
        for cls in classes:
            _printers[cls] = _Entry(function, nests)
        return function

    return add


def find(layer: Layer) -> _Entry | None:
    """The printer of a layer's class, or None; subclasses of a class may compute something else."""
    cls = type(layer)
    return _printers.get(cls.__mro__[1] if cls.__dict__.get("_tied") else cls)


@dataclass
class Members:
    """What ``__init__`` of the written class makes, and the tensors that go there."""

    lines: list[str] = field(default_factory=list)
    state: dict[str, Tensor] = field(default_factory=dict)
    """Key of the state dict -> its value; tied parameters stand under each of their names."""
    helpers: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    names: Names = field(default_factory=lambda: Names({*dir(nn.Module()), "preprocess", "mean"}))
    made: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict)
    owners: dict[int, str] = field(default_factory=dict)
    """Identity of a parameter of the net -> the attribute path under which it was written first."""


@dataclass
class Call:
    """One layer to print: the names of its bottoms, their shapes, and the members it may add."""

    node: Node
    layer: Layer
    bottoms: tuple[str, ...]
    shapes: tuple[Shape, ...]
    top_shapes: tuple[Shape, ...]
    members: Members

    @property
    def x(self) -> str:
        """The first bottom."""
        return self.bottoms[0]

    @property
    def shape(self) -> Shape:
        """The shape of the first bottom."""
        return self.shapes[0]

    def helper(self, function: object) -> str:
        """The name of a function or class of ``helpers``, which the program will then hold."""
        name: str = function.__name__  # type: ignore[attr-defined]
        assert HELPERS[name] is function
        self.members.helpers.add(name)
        return name

    def note(self, text: str) -> None:
        """Say something about this layer in the program's docstring; ``text`` holds nothing from the net."""
        self.members.notes.append(f"{self.node.name} ({self.node.type}): {text}")

    def module(self, expression: str, **state: str | Tensor) -> str:
        """The module ``expression`` as a member: ``self.NAME``.

        ``state`` maps names in the module's state dict to names of the layer's blobs, or to tensors made of them. A
        layer that shares all its blobs with one that was written alike is that same module.
        """
        blobs = tuple(id(owned(self.layer, name)) for name, _ in self.layer.blob_items())
        key = (expression, blobs)
        if blobs and key in self.members.made:
            return f"self.{self.members.made[key]}"
        name = self.members.names.new(self.node.name, "layer")
        self.members.made[key] = name
        self.members.lines.append(f"self.{name} = {expression}")
        if any(isinstance(source, Tensor) for source in state.values()):
            self._remade(name, state)
        for entry, source in state.items():
            if isinstance(source, Tensor):
                self.members.state[f"{name}.{entry}"] = source.detach()
            else:
                self._add(f"{name}.{entry}", source)
        return f"self.{name}"

    def _remade(self, name: str, state: Mapping[str, str | Tensor]) -> None:
        """Blobs that went into tensors made of them cannot be shared with a layer that has them as they are."""
        for blob, _ in self.layer.blob_items():
            if self.members.owners.setdefault(id(owned(self.layer, blob)), f"{name}, remade") != f"{name}, remade":
                self.refuse(_OTHER_FORM)

    def parameter(self, blob: str) -> str:
        """A blob of the layer as a parameter of the program itself: ``self.NAME``."""
        value: Tensor = getattr(self.layer, blob)
        name = self.members.names.new(self.node.name, "layer")
        self.members.lines.append(f"self.{name} = nn.Parameter(torch.zeros({tuple(value.shape)}))")
        self._add(name, blob)
        return f"self.{name}"

    def borrows(self) -> bool:
        """Whether a blob is one that another layer was written with in another shape, so that no module can hold it."""
        for blob, value in self.layer.blob_items():
            place = self.members.owners.get(id(owned(self.layer, blob)))
            if place in self.members.state and self.members.state[place].shape != value.shape:
                return True
        return False

    def value(self, blob: str) -> str:
        """A blob as an expression: another layer's parameter, in this layer's shape, or a parameter of the program."""
        value = getattr(self.layer, blob)
        if value is None:
            return "None"
        place = self.members.owners.get(id(owned(self.layer, blob)))
        if place is None:
            return self.parameter(blob)
        if place not in self.members.state:
            self.refuse(_OTHER_FORM)
        same = self.members.state[place].shape == value.shape
        return f"self.{place}" if same else f"self.{place}.view({tuple(value.shape)})"

    def shares(self) -> bool:
        """Whether another layer was written with a blob of this one."""
        return any(id(owned(self.layer, blob)) in self.members.owners for blob, _ in self.layer.blob_items())

    def _add(self, place: str, blob: str) -> None:
        value, owner = getattr(self.layer, blob), owned(self.layer, blob)
        first = self.members.owners.setdefault(id(owner), place)
        if first != place:
            if first not in self.members.state or self.members.state[first].shape != value.shape:
                self.refuse(_OTHER_FORM)
            self.members.lines.append(f"self.{place} = self.{first}  # one parameter")
        self.members.state[place] = value.detach()

    def refuse(self, reason: str) -> NoReturn:
        """Raise UnsupportedLayerError naming the layer."""
        raise UnsupportedLayerError(f"layer {self.node.name!r} ({self.node.type}) has no plain PyTorch form: {reason}")
