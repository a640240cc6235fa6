"""The pickled batches of the official archive, read without letting the pickle do anything.

A pickle is a program: it names functions and has them called. Here it has the instructions, and the few names, that a
dict with an array, lists and strings needs; each name is a stand-in that keeps its arguments. Nothing is imported, no
constructor of numpy runs, and keys are strings (hashing a tuple nested a million deep ends the process). The reader is
Python's own, written in Python: the faster one in C reserves as much memory as a damaged pickle asks for.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffe2torch.data.cifar10.records import Records, make_records
from caffe2torch.errors import FormatError

_BROKEN = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    TypeError,
    ValueError,
    struct.error,
)


class _Kept:
    """Stands for an object the pickle makes: the arguments it is made with and the state it is given."""

    __slots__ = ("arguments", "kind", "state")

    def __init__(self, kind: str, arguments: tuple[Any, ...]) -> None:
        self.kind, self.arguments = kind, arguments
        self.state: Any = None


def _keeper(kind: str) -> Callable[..., _Kept]:
    return lambda *arguments: _Kept(kind, arguments)


def _encode(text: Any, encoding: Any) -> bytes:
    """How protocol 2 of Python 3 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes written in another way than numpy writes them")
    return text.encode("latin1")


def _build(reader: Any) -> None:
    state, made = reader.stack.pop(), reader.stack[-1]
    if not isinstance(made, _Kept):
        raise pickle.UnpicklingError(f"it changes a {type(made).__name__}")
    made.state = state


def _set_item(reader: Any) -> None:
    _check_keys(reader.stack[-2:-1])
    pickle._Unpickler.dispatch[pickle.SETITEM[0]](reader)


def _set_items(reader: Any) -> None:
    _check_keys(reader.stack[::2])
    pickle._Unpickler.dispatch[pickle.SETITEMS[0]](reader)


def _check_keys(keys: list[Any]) -> None:
    for key in keys:
        if not isinstance(key, (str, bytes)):
            raise pickle.UnpicklingError(f"a key of its dict is a {type(key).__name__}")


class _Instructions(dict[int, Callable[[Any], None]]):
    def __missing__(self, code: int) -> Callable[[Any], None]:
        raise pickle.UnpicklingError(f"instruction {bytes([code])!r}, which a batch of CIFAR-10 has no use for")


_PLAIN = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
    *(pickle.INT, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1),
    *(pickle.BINSTRING, pickle.SHORT_BINSTRING),
    *(pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINBYTES, pickle.SHORT_BINBYTES),
    *(pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3),
    *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE),
)


class _Reader(pickle._Unpickler):
    dispatch = _Instructions(
        {code[0]: pickle._Unpickler.dispatch[code[0]] for code in _PLAIN}
        | {pickle.BUILD[0]: _build, pickle.SETITEM[0]: _set_item, pickle.SETITEMS[0]: _set_items}
    )

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _keeper("array")
        if module == "numpy" and name == "dtype":
            return _keeper("dtype")
        if module == "numpy" and name == "ndarray":
            return None  # an argument of _reconstruct, never called
        if module == "_codecs" and name == "encode":
            return _encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a batch of CIFAR-10 has no use for")


def read_batch(data: bytes, place: str) -> Records:
    """The records in a pickled batch; raises FormatError, and never runs what the pickle asks for."""
    try:
        content = _Reader(io.BytesIO(data), encoding="bytes").load()
    except _BROKEN as error:
        raise FormatError(
            f"{place}: not read as a batch of CIFAR-10: {error or type(error).__name__}; get the official archive again"
        ) from error
    if not isinstance(content, dict):
        raise FormatError(f"{place}: holds a {type(content).__name__}, expected a dict with data and labels")
    return make_records(_labels(_entry(content, "labels", place), place), _planes(content, place), place)


def _entry(content: dict[Any, Any], key: str, place: str) -> Any:
    for form in (key.encode(), key):
        if form in content:
            return content[form]
    keys = ", ".join(repr(known)[:40] for known in list(content)[:6]) or "none"
    raise FormatError(f"{place}: has no {key!r}, expected a batch of CIFAR-10 (its keys: {keys})")


def _labels(value: Any, place: str) -> NDArray[np.uint8]:
    if not isinstance(value, list) or not all(type(label) is int and 0 <= label <= 255 for label in value):
        raise FormatError(f"{place}: the labels are not a list of small numbers")
    return np.array(value, np.uint8)


def _planes(content: dict[Any, Any], place: str) -> NDArray[np.uint8]:
    """The array under data; numpy pickles one as version, shape, dtype, whether in Fortran order, and bytes."""
    array = _entry(content, "data", place)
    if isinstance(array, _Kept) and array.kind == "array" and isinstance(array.state, tuple) and len(array.state) == 5:
        _, shape, dtype, fortran, data = array.state
        bytes_only = isinstance(dtype, _Kept) and dtype.kind == "dtype" and dtype.arguments[:1] in (("u1",), (b"u1",))
        sound = isinstance(shape, tuple) and len(shape) == 2 and all(type(size) is int and size > 0 for size in shape)
        if bytes_only and sound and isinstance(data, bytes) and len(data) == shape[0] * shape[1] and not fortran:
            return np.frombuffer(data, np.uint8).reshape(shape)
    raise FormatError(f"{place}: data is not a uint8 array of pictures")
