"""LSTM, RNN, LSTMUnit, CTPN's Lstm and ContinuationIndicator."""

from __future__ import annotations

import torch

from caffe2torch.export import helpers
from caffe2torch.export.printing import Call, printer
from caffe2torch.layers.lstm import LSTM, LSTMUnit, in_torchs_order
from caffe2torch.layers.recurrent import RNN, Recurrent
from caffe2torch.layers.sequence import ContinuationIndicator, Lstm


@printer(LSTM, RNN)
def recurrent(layer: Recurrent, call: Call) -> str | list[str]:
    lstm = isinstance(layer, LSTM)
    name = call.helper(helpers.LSTM if lstm else helpers.RNN)
    if lstm:
        call.helper(helpers.lstm_step)
    blobs = dict(layer.blob_items())
    inputs = blobs["W_xc" if lstm else "W_xh"].shape[1]
    static = blobs.get("W_xc_static" if lstm else "W_xh_static")
    settings = f"{inputs}, {layer.num_output}" + ("" if static is None else f", static={static.shape[1]}")
    module = call.module(f"{name}({settings})", **{blob: blob for blob in blobs})
    arguments = list(call.bottoms)
    if layer.expose_hidden:
        states = ("h", "c") if lstm else ("h",)
        for index, state in enumerate(states, start=len(arguments) - len(states)):
            arguments[index] = f"{state}={arguments[index]}"
        return f"{module}({', '.join(arguments)})"
    call.note(
        "begins from 0 in every call; Caffe goes on from the pass before where the first cont is not 0, "
        "for which the module takes and gives its states"
    )
    return f"{module}({', '.join(arguments)})[0]"


@printer(LSTMUnit)
def unit(layer: LSTMUnit, call: Call) -> str:
    return f"{call.helper(helpers.lstm_step)}({', '.join(call.bottoms)})"


@printer(Lstm)
def ctpn(layer: Lstm, call: Call) -> str:
    names = {"weight_ih_l0": layer.W_x, "weight_hh_l0": layer.W_h, "bias_ih_l0": layer.b}
    state = {name: torch.cat(in_torchs_order(blob.detach())) for name, blob in names.items()}
    state["bias_hh_l0"] = torch.zeros_like(layer.b)
    module = call.module(f"nn.LSTM({layer.W_x.shape[1]}, {layer.num_output})", **state)
    return f"{module}({call.x if len(call.shape) == 3 else f'torch.flatten({call.x}, 2)'})[0]"


@printer(ContinuationIndicator)
def continuation_indicator(layer: ContinuationIndicator, call: Call) -> str:
    columns = layer.batch_size if layer.batch_size is not None else f"{call.x}.shape[0]"
    given = "" if layer.batch_size is not None else f", device={call.x}.device"
    sizes = f"({layer.time_step - 1}, {columns})"
    zeros, ones = f"torch.zeros((1, {columns}){given})", f"torch.ones({sizes}{given})"
    return f"torch.cat(({zeros}, {ones}))"
