"""Snapshots: ``PREFIX_iter_N.caffemodel`` and ``.solverstate``, with ``.h5`` where the solver asks for HDF5."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile

from caffe2torch.caffemodel import write_caffemodel
from caffe2torch.errors import FormatError, OutputError
from caffe2torch.files import explain, make_folder
from caffe2torch.hdf5 import write_hdf5
from caffe2torch.loading import load_weights
from caffe2torch.net import CaffeNet
from caffe2torch.saving import net_message, weights_of
from caffe2torch.solver.events import Events
from caffe2torch.solver.settings import Settings
from caffe2torch.solver.state import SolverState, write_state


def check_place(settings: Settings) -> None:
    """Raise OutputError where snapshots cannot be written, before hours of training; Caffe does so too."""
    prefix = settings.snapshot_prefix
    make_folder(prefix.parent)
    try:
        with NamedTemporaryFile(dir=prefix.parent, prefix=f".{prefix.name}_iter_", suffix=".solverstate.h5"):
            pass
    except OSError as error:
        raise OutputError(f"{prefix}: snapshots cannot be written: {explain(error)}") from error


def write_snapshot(settings: Settings, net: CaffeNet, state: SolverState, events: Events) -> tuple[Path, Path]:
    """Write weights, then state, each complete or not at all; earlier snapshots stay. Raises OutputError."""
    hdf5 = settings.parameters.snapshot_format == settings.parameters.HDF5
    prefix, suffix = settings.snapshot_prefix, ".h5" if hdf5 else ""
    model = prefix.with_name(f"{prefix.name}_iter_{state.iteration}.caffemodel{suffix}")
    target = prefix.with_name(f"{prefix.name}_iter_{state.iteration}.solverstate{suffix}")
    make_folder(model.parent)
    events.snapshotting(model, state=False, hdf5=hdf5)
    (write_hdf5 if hdf5 else write_caffemodel)(model, net_message(net), weights_of(net))
    events.snapshotting(target, state=True, hdf5=hdf5)
    write_state(target, replace(state, learned_net=str(model)), hdf5=hdf5)
    return model, target


def restore_weights(net: CaffeNet, path: Path, state: SolverState, root: Path) -> None:
    """Load the weights a state names: beside the state, where they were written, or where it says.

    Beside first: after both were copied, there may be those of another training where they came from.
    """
    if not state.learned_net:
        raise FormatError(f"{path}: names no weights (learned_net); start with --weights instead of --snapshot")
    named = root / state.learned_net
    beside = path.parent / named.name
    weights = beside if beside.is_file() else named
    if not weights.is_file():
        raise FormatError(
            f"{path}: its weights {state.learned_net} are not there, nor {beside}; put them beside the state"
        )
    load_weights(net, weights)
