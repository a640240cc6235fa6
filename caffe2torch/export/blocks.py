"""Groups of layers that a net repeats (fire2/..., fire3/...; inception_3a/...) as one class, made several times.

Two groups are of one class where their text is the same but for whole numbers such as channels; these become arguments
of the class. What is computed, and in which order, stays as it is.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from caffe2torch.export import layout
from caffe2torch.export.body import Body, Line
from caffe2torch.export.embed import HELPERS
from caffe2torch.export.names import Names, class_name

FEWEST = 3
"""Lines of forward below which a group stays among the others."""

_MEMBER = re.compile(r"self\.(\w+) = ([\w.]+)\((.*)\)")
_STRIDE = "stride=1"
_NUMBER = re.compile(r"((?:\w+=)?)(\d+)")
_GLOBAL = frozenset({"torch", "nn", "F", "Tensor", "math", "self", *HELPERS})
_METHODS = frozenset(dir(nn.Module()))
_PREFIXES = (("Conv", "conv"), ("Linear", "fc"), ("Pool", "pool"), ("Norm", "norm"))
"""What comes before the name of a module that begins with a digit, by its class."""
_COUNTS_INPUTS = re.compile(r"nn\.(Conv|Linear|BatchNorm)")


@dataclass(frozen=True)
class _Member:
    name: str
    kind: str
    arguments: tuple[str, ...]

    def form(self) -> tuple[object, ...]:
        """The member without its whole numbers, which may differ from block to block."""
        blank = (_NUMBER.sub(r"\1", text) if _NUMBER.fullmatch(text) else text for text in self.arguments)
        return self.name, self.kind, tuple(blank)


@dataclass(frozen=True)
class _Block:
    """A group: where it stands among the lines of forward, and its text in names of its own."""

    group: str
    start: int
    stop: int
    inputs: tuple[str, ...]
    output: str
    parameters: tuple[str, ...]
    """The names of the inputs inside."""
    members: tuple[_Member, ...]
    lines: tuple[tuple[str, str], ...]
    """Target and expression."""
    renamed: Mapping[str, str]
    """Member of the net -> member of the block."""

    def form(self) -> tuple[object, ...]:
        """The same for all blocks of one class."""
        return self.parameters, tuple(member.form() for member in self.members), self.lines


def gather(body: Body, results: Collection[str], taken: set[str]) -> list[str]:
    """Put blocks in place of the groups that are alike; returns the texts of their classes.

    ``results`` are the names that forward returns; ``taken`` are names of the module, to which the classes are added.
    """
    found = [block for group in dict.fromkeys(body.groups) if group and (block := _block(group, body, results))]
    classes: list[str] = []
    made: list[tuple[_Block, str]] = []
    for form, count in Counter(block.form() for block in found).items():
        if count > 1:
            alike = [block for block in found if block.form() == form]
            name = _class_name([block.group for block in alike], taken)
            text, calls = _class(name, alike)
            classes.append(text)
            made += zip(alike, calls, strict=True)
    _replace(body, made)
    return classes


def _block(group: str, body: Body, results: Collection[str]) -> _Block | None:
    """The group as a block; None where it is not a run of lines with one output, or others use its members."""
    inside = [index for index, line in enumerate(body.lines) if line.group == group]
    if len(inside) < FEWEST or inside[-1] - inside[0] >= len(inside):
        return None
    start, stop = inside[0], inside[-1] + 1
    lines, others = body.lines[start:stop], [*body.lines[:start], *body.lines[stop:]]
    pairs = list(zip(body.members.lines, body.groups, strict=True))
    matches = [_MEMBER.fullmatch(line) for line, other in pairs if other == group]
    members = {match[1]: (match[2], match[3]) for match in matches if match}
    foreign = _attributes(*(line for line, other in pairs if other != group), *(line.expression for line in others))
    if len(members) < len(matches) or _attributes(*(line.expression for line in lines)) != set(members):
        return None
    read = {name for line in others for name in _variables(line.expression)} | set(results)
    outputs = {target for line in lines for target in line.targets} & read
    if not foreign.isdisjoint(members) or outputs != set(lines[-1].targets) or len(outputs) != 1:
        return None
    return _local(group, start, lines, members)


def _local(group: str, start: int, lines: Sequence[Line], members: Mapping[str, tuple[str, str]]) -> _Block | None:
    """The group in names of its own: without the group's name in front, and its inputs as x."""
    scope, attributes = Names(_GLOBAL), Names(_METHODS)
    inside: dict[str, str] = {}
    inputs: list[str] = []
    written = []
    renamed = {name: attributes.new(_inside(name, group), _prefix(kind)) for name, (kind, _) in members.items()}
    for line in lines:
        for name in _variables(line.expression):
            if name not in inside:
                inputs.append(name)
                inside[name] = scope.new("x", "x")
        if len(line.targets) != 1:
            return None
        expression = _rewritten(line.expression, inside, renamed)
        (target,) = line.targets
        if target not in inside:
            inside[target] = scope.new(_inside(target, group), "y")
        written.append((inside[target], expression))
    return _Block(
        group,
        start,
        start + len(lines),
        tuple(inputs),
        lines[-1].targets[0],
        tuple(inside[name] for name in inputs),
        tuple(_Member(renamed[n], kind, _arguments(kind, text)) for n, (kind, text) in members.items()),
        tuple(written),
        renamed,
    )


def _inside(name: str, group: str) -> str:
    """A name without that of its group: inception_3a_1x1 -> 1x1; in a ResNet bn2a_branch1 -> bn_branch1."""
    if name == group:
        return ""
    tag = group.removeprefix("res")
    return re.sub(rf"^(bn|scale){tag}_", r"\1_", name.removeprefix(f"{group}_"))


def _arguments(kind: str, text: str) -> tuple[str, ...]:
    """The arguments of a member; the stride of a convolution always, since blocks that are else alike differ in it."""
    arguments = layout.split(text)
    if kind.startswith("nn.Conv") and not any(argument.startswith("stride=") for argument in arguments):
        arguments.insert(3, _STRIDE)
    return tuple(arguments)


def _class(name: str, blocks: Sequence[_Block]) -> tuple[str, list[str]]:
    """The text of the class of these blocks, and for each of them how it is made."""
    first, scope = blocks[0], Names(_GLOBAL)
    parameters: dict[tuple[str, ...], str] = {}  # the numbers of all blocks -> their name
    init = ["super().__init__()"]
    for index, member in enumerate(first.members):
        arguments = list(member.arguments)
        for place, argument in enumerate(arguments):
            numbers = tuple(_NUMBER.sub(r"\2", block.members[index].arguments[place]) for block in blocks)
            if len(set(numbers)) > 1:
                keyword = argument.rpartition("=")[0]
                if numbers not in parameters:
                    parameters[numbers] = scope.new(_parameter(member, place, keyword), "count")
                arguments[place] = f"{keyword}={parameters[numbers]}" if keyword else parameters[numbers]
        written = ", ".join(argument for argument in arguments if argument != _STRIDE)
        init.append(f"self.{member.name} = {member.kind}({written})")
    typed = "".join(f", {parameter}: int" for parameter in parameters.values())
    inputs = "".join(f", {parameter}: Tensor" for parameter in first.parameters)
    *lines, (_, last) = first.lines
    forward = [*(f"{target} = {expression}" for target, expression in lines), f"return {last}"]
    text = [
        f"class {name}(nn.Module):",
        f'    """A block of the net: {_listed([block.group for block in blocks])}."""',
        "",
        *layout.indented(layout.wrapped(f"def __init__(self{typed}) -> None:", 0), 1),
        *(f"    {line}" for made in init for line in layout.wrapped(made, 1)),
        "",
        *layout.indented(layout.wrapped(f"def forward(self{inputs}) -> Tensor:", 0), 1),
        *(f"    {line}" for made in forward for line in layout.wrapped(made, 1)),
        "\n",
    ]
    calls = [f"{name}({', '.join(numbers[at] for numbers in parameters)})" for at in range(len(blocks))]
    return "\n".join(text), calls


def _replace(body: Body, made: Sequence[tuple[_Block, str]]) -> None:
    """One member and one line for each block, and the names of the state dict as they are then."""
    calls = {block.group: call for block, call in made}
    names = {group: body.members.names.new(group, "block") for group in calls}
    members: dict[str, str] = {}  # the new line -> its group, in order
    for line, group in zip(body.members.lines, body.groups, strict=True):
        if group in calls:
            members.setdefault(f"self.{names[group]} = {calls[group]}", "")
        else:
            members[line] = group
    places = {old: f"{names[block.group]}.{new}" for block, _ in made for old, new in block.renamed.items()}
    state = {_moved(key, places): value for key, value in body.members.state.items()}
    body.members.lines, body.groups, body.members.state = list(members), list(members.values()), state
    for block, _ in sorted(made, key=lambda pair: -pair[0].start):
        call = f"self.{names[block.group]}({', '.join(block.inputs)})"
        comment = body.lines[block.stop - 1].comment
        body.lines[block.start : block.stop] = [Line((block.output,), call, "", comment)]


def _moved(key: str, places: Mapping[str, str]) -> str:
    head, dot, rest = key.partition(".")
    return f"{places.get(head, head)}{dot}{rest}"


def _class_name(groups: Sequence[str], taken: set[str]) -> str:
    words = {re.sub("[0-9].*", "", group.split("_")[0]) for group in groups}
    word = words.pop() if len(words) == 1 else "block"
    base = class_name("residual" if word == "res" else word)
    name, number = base, 2
    while name in taken:
        name, number = f"{base}{number}", number + 1
    taken.add(name)
    return name


def _parameter(member: _Member, place: int, keyword: str) -> str:
    if keyword:
        return f"{member.name}_{keyword}"
    return "inputs" if place == 0 and _COUNTS_INPUTS.match(member.kind) else member.name


def _prefix(kind: str) -> str:
    return next((prefix for part, prefix in _PREFIXES if part in kind), "layer")


def _listed(groups: Sequence[str]) -> str:
    whole = ", ".join(groups)
    return whole if len(whole) < layout.NESTED else f"{', '.join(groups[:3])}, ... {groups[-1]}"


def _attributes(*texts: str) -> set[str]:
    return {name for text in texts for name in re.findall(r"\bself\.(\w+)", text)}


def _variables(expression: str) -> list[str]:
    """The local names that an expression reads, in the order of their places."""
    found = [node for node in ast.walk(_parsed(expression)) if isinstance(node, ast.Name)]
    names = (node.id for node in sorted(found, key=lambda node: node.col_offset))
    return [name for name in names if name not in _GLOBAL and not hasattr(builtins, name)]


def _rewritten(expression: str, variables: Mapping[str, str], attributes: Mapping[str, str]) -> str:
    """The expression with other names for its local names and for the attributes of self."""
    for node in sorted(_named(expression), key=lambda node: -(node.end_col_offset or 0)):
        end = node.end_col_offset or 0
        if isinstance(node, ast.Name):
            expression = expression[: node.col_offset] + variables.get(node.id, node.id) + expression[end:]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            new = attributes.get(node.attr, node.attr)
            expression = expression[: end - len(node.attr)] + new + expression[end:]
    return expression


def _named(expression: str) -> Iterable[ast.Name | ast.Attribute]:
    return [node for node in ast.walk(_parsed(expression)) if isinstance(node, ast.Name | ast.Attribute)]


def _parsed(expression: str) -> ast.Expression:
    return ast.parse(expression, mode="eval")
