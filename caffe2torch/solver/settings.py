"""What a solver file says: checked once, with the nets it trains and tests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from caffe2torch import prototxt
from caffe2torch.errors import PrototxtError
from caffe2torch.schema import Message, Schema
from caffe2torch.solver.policy import POLICIES
from caffe2torch.solver.updates import RULES

_NET_FIELDS = ("net", "net_param", "train_net", "train_net_param")
_FORKS = (
    "plateau_winsize", "min_lr", "rampup_interval", "rampup_lr", "momentum_power", "momentum_policy", "max_momentum",
    "local_lr_auto", "larc", "warmup_iter", "warmup_start_lr",
)  # fmt: skip
_FACTORS = {"step": "gamma", "exp": "gamma", "multistep": "gamma"}
"""What makes the rate 0 after a while where it is not given; Caffe accepts that."""


@dataclass(frozen=True)
class NetChoice:
    """One net of a solver: the message, in V2 form, and the state it is built in."""

    message: Message = field(repr=False)
    path: Path
    """The file that messages name: the net's own, or the solver's for a net written inside it."""
    phase: str
    level: int
    stages: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """A solver file, read and found free of contradictions."""

    path: Path
    parameters: Message = field(repr=False)
    root: Path
    """Where relative paths start: those of weights and snapshots, and of what data layers name."""
    train: NetChoice
    tests: tuple[NetChoice, ...]
    snapshot_prefix: Path
    """What names of snapshots begin with. Where the file gives none, or a folder, its own name without suffix stands
    in, as in Caffe."""


def read_settings(
    path: str | Path,
    *,
    root: str | Path | None = None,
    level: int | None = None,
    stages: Sequence[str] = (),
    schema: Schema | None = None,
) -> Settings:
    """Read a solver prototxt and the nets it names.

    ``level`` stands in place of the level of the training net, ``stages`` are added to its stages (``train_state``).
    Relative paths start at ``root``; without it, at the current folder as in Caffe, or, where the solver's net is not
    found there, at the solver file's own folder. Nets that are not below ``root`` may lie beside the solver file.
    Raises PrototxtError for anything Caffe refuses.
    """
    path = Path(path)
    p = prototxt.read_solver(path, schema=schema)
    if level is not None:
        p.train_state.level = level
    if stages:
        p.train_state.stage.extend(stages)
    for problem in _problems(p):
        raise PrototxtError(problem, path=str(path))
    start = Path(root) if root is not None else _root(p, path)
    train = _train_net(p, path, start, schema)
    tests = tuple(_test_nets(p, path, start, schema))
    prefix = start / p.snapshot_prefix if p.snapshot_prefix else path.with_suffix("")
    if prefix.is_dir():
        prefix /= path.stem
    missing = _FACTORS.get(p.lr_policy)
    if missing and not p.HasField(missing):
        warnings.warn(f"{path}: lr_policy {p.lr_policy!r} without {missing}: the rate will be 0", stacklevel=2)
    if p.debug_info:
        warnings.warn(f"{path}: debug_info: what Caffe prints of every layer is not shown", stacklevel=2)
    return Settings(path, p, start, train, tests, prefix)


def _problems(p: Message) -> Iterator[str]:
    """What is wrong with the solver's own fields, the first of it first."""
    nets = [name for name in _NET_FIELDS if p.HasField(name)]
    if len(nets) != 1:
        found = f"{len(nets)} training nets ({', '.join(nets) or 'none'})"
        yield f"names {found}, expected exactly one of {', '.join(_NET_FIELDS)}"
    if p.type not in RULES:
        yield f"type {p.type!r} is no solver, expected one of {', '.join(RULES)}"
    yield from _rate_problems(p)
    yield from _update_problems(p)
    yield from _test_problems(p)
    used = [name for name in _FORKS if (len(getattr(p, name)) if name == "plateau_winsize" else p.HasField(name))]
    if used:
        yield f"{', '.join(used)}: settings of a fork's solver, which Caffe 1.0 does not know; remove them"


def _rate_problems(p: Message) -> Iterator[str]:
    if not p.lr_policy:
        yield "has no lr_policy, expected one of " + ", ".join(POLICIES)
    elif p.lr_policy not in POLICIES:
        yield f"lr_policy {p.lr_policy!r} is unknown, expected one of {', '.join(POLICIES)}"
    if not p.HasField("base_lr"):
        yield "has no base_lr, expected the learning rate to start from"
    if p.gamma < 0:
        yield f"gamma {p.gamma:g}, expected at least 0"
    if p.lr_policy == "poly" and p.max_iter < 1:
        yield "lr_policy 'poly' needs max_iter, which is not given"
    if p.lr_policy in ("step", "sigmoid") and p.stepsize < 1:
        yield f"stepsize {p.stepsize}, expected at least 1"
    if list(p.stepvalue) != sorted(p.stepvalue):
        yield f"stepvalue {', '.join(map(str, p.stepvalue))}: expected them in rising order"


def _update_problems(p: Message) -> Iterator[str]:
    rule = RULES[p.type]
    if p.momentum and not rule.momentum:
        yield f"momentum {p.momentum:g} cannot be used with {p.type}; remove it"
    if p.type == "RMSProp" and not 0 <= p.rms_decay < 1:
        yield f"rms_decay {p.rms_decay:g}, expected at least 0 and below 1"
    if p.type == "Adam" and not (0 <= p.momentum < 1 and 0 <= p.momentum2 < 1):
        yield f"momentum {p.momentum:g} and momentum2 {p.momentum2:g}: Adam needs both at least 0 and below 1"
    if p.weight_decay and p.regularization_type not in ("L1", "L2"):
        yield f"regularization_type {p.regularization_type!r} is unknown, expected L1 or L2"
    for name, least in (("iter_size", 1), ("average_loss", 1), ("max_iter", 0), ("snapshot", 0), ("display", 0)):
        if getattr(p, name) < least:
            yield f"{name} {getattr(p, name)}, expected at least {least}"
    if p.snapshot_diff:
        yield "snapshot_diff: snapshots of gradients are not written; remove it"


def _test_problems(p: Message) -> Iterator[str]:
    own = len(p.test_net) + len(p.test_net_param)
    generic = p.HasField("net") or p.HasField("net_param")
    if generic and own > len(p.test_iter):
        yield f"{own} test nets but {len(p.test_iter)} test_iter, expected one for each"
    if not generic and own != len(p.test_iter):
        yield f"{own} test nets but {len(p.test_iter)} test_iter, expected one for each"
    if p.test_state and len(p.test_state) != len(p.test_iter):
        yield f"{len(p.test_state)} test_state for {len(p.test_iter)} test nets, expected none or one for each"
    if len(p.test_iter) and p.test_interval < 1:
        yield f"test_iter is given, but test_interval is {p.test_interval}, expected at least 1"
    for count in p.test_iter:
        if count < 1:
            yield f"test_iter {count}, expected at least 1"


def _root(p: Message, path: Path) -> Path:
    name = p.net or p.train_net
    if name and not Path(name).exists() and (path.parent / name).exists():
        return path.parent
    return Path() if name else path.parent


def _train_net(p: Message, path: Path, root: Path, schema: Schema | None) -> NetChoice:
    inside = p.net_param if p.HasField("net_param") else p.train_net_param if p.HasField("train_net_param") else None
    net, where = (inside, path) if inside is not None else _read(p.net or p.train_net, path, root, schema)
    return _choice(net, where, "train", p.train_state if p.HasField("train_state") else None)


def _test_nets(p: Message, path: Path, root: Path, schema: Schema | None) -> Iterator[NetChoice]:
    """Caffe's order: the nets inside the solver file, those in files, and the training file for what is left."""
    found = [(net, path) for net in p.test_net_param]
    found += [_read(name, path, root, schema) for name in p.test_net]
    left = len(p.test_iter) - len(found)
    if left > 0:
        found += [(p.net_param, path) if p.HasField("net_param") else _read(p.net, path, root, schema)] * left
    for index, (net, where) in enumerate(found):
        yield _choice(net, where, "test", p.test_state[index] if p.test_state else None)


def _read(name: str, solver: Path, root: Path, schema: Schema | None) -> tuple[Message, Path]:
    """A net that the solver names, below ``root`` or beside the solver file."""
    places = dict.fromkeys((root / name, solver.parent / name))
    path = next((place for place in places if place.exists()), None)
    if path is None:
        raise PrototxtError(
            f"names the net {name!r}, but there is no {' and no '.join(map(str, places))}", path=str(solver)
        )
    return prototxt.read_net(path, schema=schema), path


def _choice(net: Message, path: Path, phase: str, state: Message | None) -> NetChoice:
    """Caffe merges the states: the phase, then the net's own state, then the solver's."""
    merged = type(net.state)()
    merged.MergeFrom(net.state)
    merged.phase = {"train": 0, "test": 1}[phase]
    if net.state.HasField("phase"):
        merged.phase = net.state.phase
    if state is not None:
        merged.MergeFrom(state)
    return NetChoice(net, path, ("train", "test")[merged.phase], merged.level, tuple(merged.stage))
