"""Caffe's message classes, built at run time from the ``caffe.proto`` beside this file.

Generated code breaks across protobuf versions, and protobuf's default pool may hold a real pycaffe's ``caffe`` already,
so the classes live in a private pool. A fork's own ``.proto`` can be added: ``Schema(extra=["their.proto"])``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from caffe2torch.errors import SchemaError
from caffe2torch.schema.merge import merge
from caffe2torch.schema.proto_parser import PACKAGE, ProtoSource, parse_proto, resolve

__all__ = ["Message", "Schema", "default", "is_repeated", "message_type", "new", "required_names"]

# A protobuf message; its fields are only known at run time.
Message: TypeAlias = Any

_OWN = Path(__file__).with_name("caffe.proto")


class Schema:
    """Message classes of our caffe.proto, plus what the ``.proto`` files in ``extra`` add.

    An extra file may be a fork's whole caffe.proto or a few messages; it adds messages, enums, enum values and fields
    to the ones here, matched by name. Raises SchemaError (path:line) if it gives a field a form that contradicts ours.
    """

    def __init__(self, extra: Iterable[str | os.PathLike[str]] = ()) -> None:
        source = parse_proto(_OWN.read_text(encoding="utf-8"), str(_OWN))
        for path in extra:
            merge(source, _read(path))
        resolve(source)
        source.file.name = "caffe2torch/caffe.proto"
        self._pool = descriptor_pool.DescriptorPool()
        self._classes: dict[str, Message] = {}
        try:
            self._pool.AddSerializedFile(source.file.SerializeToString())
        except (TypeError, ValueError) as error:
            raise SchemaError(f"{source.path}: protobuf refuses these messages: {error}") from error

    def message_type(self, name: str) -> Message:
        """The class of the message ``name``, such as ``"NetParameter"``."""
        found = self._classes.get(name)
        if found is None:
            try:
                descriptor = self._pool.FindMessageTypeByName(f"{PACKAGE}.{name}")
            except KeyError:
                raise SchemaError(f"the schema has no message {name!r}") from None
            found = self._classes[name] = message_factory.GetMessageClass(descriptor)
        return found

    def new(self, name: str) -> Message:
        """An empty message ``name``."""
        return self.message_type(name)()


def _read(path: str | os.PathLike[str]) -> ProtoSource:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SchemaError(f"{os.fspath(path)}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SchemaError(f"{os.fspath(path)}: not UTF-8 text (byte {error.start})") from error
    return parse_proto(text, os.fspath(path))


@lru_cache(maxsize=1)
def default() -> Schema:
    """The schema without additions, built at the first call."""
    return Schema()


def message_type(name: str) -> Message:
    """The class of the message ``name`` in the default schema."""
    return default().message_type(name)


def new(name: str) -> Message:
    """An empty message ``name`` of the default schema."""
    return default().new(name)


def is_repeated(field: Any) -> bool:
    """Whether a field descriptor is of a repeated field, in any protobuf version."""
    repeated = getattr(field, "is_repeated", None)
    return field.label == FieldDescriptor.LABEL_REPEATED if repeated is None else bool(repeated)


@cache
def required_names(descriptor: Descriptor) -> tuple[str, ...]:
    """Names of the fields without which a message is not complete."""
    return tuple(field.name for field in descriptor.fields if _is_required(field))


def _is_required(field: Any) -> bool:
    required = getattr(field, "is_required", None)
    return field.label == FieldDescriptor.LABEL_REQUIRED if required is None else bool(required)
