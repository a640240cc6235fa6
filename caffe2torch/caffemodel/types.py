"""Layer types in the two old syntaxes, as the type names of today."""

from __future__ import annotations

from caffe2torch import schema, upgrade

_ENUM = schema.message_type("V1LayerParameter").DESCRIPTOR.enum_types_by_name["LayerType"].values_by_name

V1_TYPES: dict[int, str] = {_ENUM[old].number: name for old, name in upgrade.V2_TYPES.items()}
"""V1LayerParameter.LayerType by number; 0 is NONE."""

V1_NUMBERS = {name: number for number, name in V1_TYPES.items()}

V0_TYPES = {text: upgrade.V2_TYPES[old] for text, old in upgrade.V0_TYPES.items()}
"""V0LayerParameter.type. A "padding" layer has no weights and becomes part of the next layer."""
