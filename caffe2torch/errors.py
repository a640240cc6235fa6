"""Every exception caffe2torch raises on purpose.

::

    Caffe2TorchError
      PrototxtError         text that does not parse, or has fields the schema lacks (path:line:column)
      SchemaError           a .proto file that cannot be used
      FormatError           a binary file (caffemodel, HDF5, binaryproto, codes) that is damaged or of another kind
      GraphError            a net whose layers do not connect
      LayerError            a layer whose parameters or input shapes are impossible
        UnsupportedLayerError   layer types nobody registered, all of them at once
      WeightsError          weights that do not fit the net, all mismatches at once
      ImageError            a picture that cannot be read or has a form no dialect defines
      ZooError              an unknown model name, or a model whose files are not here
        DownloadError       a source that is gone, needs a browser, or delivered the wrong bytes
      RetrievalError        codes, features or labels that do not belong together, or a search nothing can answer
      TrainingError         a training that cannot go on: its loss is not finite, or it has collapsed
      OutputError           a result that cannot be written where it was asked for
      UsageError            options that contradict each other
        MissingPackageError     an optional package that this needs and that is not installed

The command line prints the message and exits with status 1 (2 for UsageError).
"""

from __future__ import annotations


class Caffe2TorchError(Exception):
    """Base of all errors a caller can cause; the message names the file, what was found and what to do."""


class PrototxtError(Caffe2TorchError):
    """Prototxt text that cannot be read; ``path``, ``line`` and ``column`` (both from 1) say where."""

    def __init__(self, message: str, *, path: str = "<string>", line: int = 0, column: int = 0) -> None:
        self.path, self.line, self.column = path, line, column
        place = f"{path}:{line}:{column}" if line else path
        super().__init__(f"{place}: {message}")


class SchemaError(Caffe2TorchError):
    """A ``.proto`` file that cannot be parsed or clashes with Caffe's own."""


class FormatError(Caffe2TorchError):
    """A binary file that is damaged, truncated or of another kind than expected."""


class GraphError(Caffe2TorchError):
    """A net whose layers do not connect: unknown bottoms, duplicate tops, clashing shared parameters."""


class LayerError(Caffe2TorchError):
    """A layer whose parameters are impossible, or that cannot take the shapes it is given."""


class UnsupportedLayerError(LayerError):
    """Layer types that are not registered; the message lists all of them with their layers."""


class WeightsError(Caffe2TorchError):
    """Weights that do not fit the net; the message lists every missing, extra and misshapen layer."""


class ImageError(Caffe2TorchError):
    """A picture that cannot be decoded, or whose pixel format has no defined meaning for the net."""


class ZooError(Caffe2TorchError):
    """A model name the zoo does not know, or a model whose files are not on this machine."""


class DownloadError(ZooError):
    """A download that failed: source gone, browser needed, wrong size or wrong hash."""


class RetrievalError(Caffe2TorchError):
    """Codes, features or labels that do not belong together, or a search that cannot be answered exactly."""


class TrainingError(Caffe2TorchError):
    """A training that cannot usefully go on; the message says what happened, where, and what to change."""


class OutputError(Caffe2TorchError):
    """A result that cannot be written: no permission, disk full, file exists."""


class UsageError(Caffe2TorchError):
    """Options that contradict each other or miss a required companion."""


class MissingPackageError(UsageError):
    """An optional package that is needed here and not installed; the message names the extra to install."""
