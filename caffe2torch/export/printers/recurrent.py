"""LSTM, RNN and LSTMUnit."""

from __future__ import annotations

from caffe2torch.export import helpers
from caffe2torch.export.printing import Call, printer
from caffe2torch.layers.lstm import LSTM, LSTMUnit
from caffe2torch.layers.recurrent import RNN, Recurrent


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
