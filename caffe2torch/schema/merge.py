"""Add a fork's messages to ours, by name.

Text files name fields, so names decide: a field that both sides have stays at our number, a new one keeps its number
unless ours uses it already, and then gets a private one. A default, or another width of integer or float, is taken from
the fork. What would change how our layers read a field is refused.
"""

from __future__ import annotations

import itertools

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FieldDescriptorProto

from caffe2torch.schema.proto_parser import ProtoSource

_OURS = 10000  # private numbers of caffe.proto start here
_PRIVATE = 20000  # and those given here start here; protobuf reserves 19000 to 19999
_REPEATED = FieldDescriptorProto.LABEL_REPEATED
_KINDS = {
    **dict.fromkeys((3, 4, 5, 7, 13, 15, 16, 17, 18, 6), "an integer"),
    **dict.fromkeys((1, 2), "a float"),
    8: "a bool",
    9: "a string",
    12: "bytes",
}


def merge(into: ProtoSource, extra: ProtoSource) -> None:
    """Add all of ``extra`` to ``into``; raises SchemaError at the line of the first contradiction."""
    enums = {enum.name: enum for enum in into.file.enum_type}
    for enum in extra.file.enum_type:
        if enum.name in enums:
            _merge_enum(enums[enum.name], enum, enum.name, extra)
        else:
            into.file.enum_type.add().CopyFrom(enum)
    messages = {message.name: message for message in into.file.message_type}
    for message in extra.file.message_type:
        if message.name in messages:
            _merge_message(messages[message.name], message, message.name, extra)
        else:
            into.file.message_type.add().CopyFrom(message)
    into.places.update({name: place for name, place in extra.places.items() if name not in into.places})


def _merge_message(ours: DescriptorProto, theirs: DescriptorProto, name: str, extra: ProtoSource) -> None:
    enums = {enum.name: enum for enum in ours.enum_type}
    for enum in theirs.enum_type:
        if enum.name in enums:
            _merge_enum(enums[enum.name], enum, f"{name}.{enum.name}", extra)
        else:
            ours.enum_type.add().CopyFrom(enum)
    nested = {message.name: message for message in ours.nested_type}
    for message in theirs.nested_type:
        if message.name in nested:
            _merge_message(nested[message.name], message, f"{name}.{message.name}", extra)
        else:
            ours.nested_type.add().CopyFrom(message)
    fields = {member.name: member for member in ours.field}
    numbers = {member.number for member in ours.field}
    for member in theirs.field:
        if member.name in fields:
            _merge_field(fields[member.name], member, name, extra)
            continue
        added = ours.field.add()
        added.CopyFrom(member)
        if added.number in numbers:
            added.number = _free(numbers)
        numbers.add(added.number)
        fields[added.name] = added


def _merge_field(ours: FieldDescriptorProto, theirs: FieldDescriptorProto, owner: str, extra: ProtoSource) -> None:
    place, found, expected = f"{owner}.{theirs.name}", _kind(theirs), _kind(ours)
    if found != expected:
        raise extra.error(place, f"the field {theirs.name!r} of {owner} is {found} here, but {expected} in Caffe")
    if theirs.label == _REPEATED and ours.label != _REPEATED:
        raise extra.error(place, f"the field {theirs.name!r} of {owner} is repeated here, but single in Caffe")
    if not ours.type_name:
        ours.type = theirs.type
    if ours.label != _REPEATED:
        if theirs.HasField("default_value"):
            ours.default_value = theirs.default_value
        else:
            ours.ClearField("default_value")


def _kind(member: FieldDescriptorProto) -> str:
    return f"of type {member.type_name.rpartition('.')[2]}" if member.type_name else _KINDS[member.type]


def _merge_enum(ours: EnumDescriptorProto, theirs: EnumDescriptorProto, name: str, extra: ProtoSource) -> None:
    numbers = {value.number for value in ours.value}
    names = {value.name: value.number for value in ours.value}
    for value in theirs.value:
        if value.name not in names:
            number = value.number if value.number not in numbers else _free(numbers)
            ours.value.add(name=value.name, number=number)
            numbers.add(number)
            names[value.name] = number
        elif names[value.name] != value.number and names[value.name] < _OURS:
            problem = f"{value.name} is {value.number} here, but {names[value.name]} in Caffe"
            raise extra.error(f"{name}.{value.name}", problem)


def _free(numbers: set[int]) -> int:
    """The first private number nobody uses."""
    return next(number for number in itertools.count(_PRIVATE) if number not in numbers)
