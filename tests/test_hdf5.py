"""HDF5 weights: read as Caffe wrote them, written as Caffe reads them, and nothing but data."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caffe2torch import prototxt
from caffe2torch.caffemodel import open_weights
from caffe2torch.errors import FormatError, OutputError, WeightsError
from caffe2torch.hdf5 import write_hdf5
from weights_files import golden_files, layers_of, parsed

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3) / 7


def _read(path: Path) -> dict[str, list[np.ndarray]]:
    with open_weights(path) as file:
        assert file.syntax == "HDF5"
        return {layer.name: [blob.read() for blob in layer.blobs] for layer in file.layers}


def _make(path: Path, fill: Callable[[Any], object]) -> Path:
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def _refused(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        _read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message


@pytest.mark.parametrize("case", ["weights", "weights_shared"])
def test_values_are_those_real_caffe_held(reference: Path, case: str) -> None:
    folder = reference / "goldens" / "formats" / case
    stored = np.load(folder / "blobs.npz")
    found = {
        f"w:{n}:{i}": b for n, blobs in _read(folder / "weights.caffemodel.h5").items() for i, b in enumerate(blobs)
    }
    assert found
    for key, value in found.items():
        np.testing.assert_array_equal(value, stored[key])


def test_both_formats_of_caffe_hold_the_same(reference: Path) -> None:
    folder = reference / "goldens" / "formats" / "weights"
    binary = dict(layers_of(parsed((folder / "weights.caffemodel").read_bytes())))
    found = _read(folder / "weights.caffemodel.h5")
    assert set(found) == set(binary)
    for name, blobs in binary.items():
        for a, b in zip(found[name], blobs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_shared_parameters_stand_under_their_first_layer_only(reference: Path) -> None:
    found = _read(reference / "goldens" / "formats" / "weights_shared" / "weights.caffemodel.h5")
    assert {name: len(blobs) for name, blobs in found.items()} == {"fa": 2, "fb": 0, "l": 0, "r": 0}


def test_every_file_of_the_reference_is_read_as_h5py_reads_it(reference: Path) -> None:
    files = golden_files(reference, ".caffemodel.h5")
    assert len(files) > 5
    for path in files:
        with h5py.File(path) as file:
            for name, blobs in _read(path).items():
                assert len(blobs) == len(file["data"][name])
                for index, blob in enumerate(blobs):
                    np.testing.assert_array_equal(blob, file["data"][name][str(index)][()])


@pytest.mark.parametrize("case", ["weights", "weights_shared"])
def test_written_files_have_the_structure_of_caffes(reference: Path, tmp_path: Path, case: str) -> None:
    folder = reference / "goldens" / "formats" / case
    with open_weights(folder / "weights.caffemodel") as file:
        write_hdf5(
            tmp_path / "again.h5",
            file.net_message(),
            {layer.name: [blob.read() for blob in layer.blobs] for layer in file.layers},
        )
    assert _structure(tmp_path / "again.h5") == _structure(folder / "weights.caffemodel.h5")


def _structure(path: Path) -> dict[str, object]:
    found: dict[str, object] = {}

    def visit(name: str, item: Any) -> None:
        dataset = isinstance(item, h5py.Dataset)
        found[name] = (item.dtype, item.shape, item.chunks, item[()].tobytes()) if dataset else "group"

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def test_real_models_are_written_again_value_for_value(reference: Path, tmp_path: Path) -> None:
    source = reference / "models" / "cifar10_quick_dmsh_iter_5000.caffemodel.h5"
    net = prototxt.read_net(reference / "models" / "cifar10_quick_dmsh.prototxt")
    names = {layer.name for layer in net.layer}
    stored = {name: blobs for name, blobs in _read(source).items() if name in names}
    write_hdf5(tmp_path / "again.h5", net, stored)
    again = _read(tmp_path / "again.h5")
    assert set(again) == names
    for name, blobs in stored.items():
        for a, b in zip(again[name], blobs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_slash_in_a_layer_name_makes_nested_groups(tmp_path: Path) -> None:
    net = prototxt.parse('layer { name: "fire2/squeeze" } layer { name: "fire2" } layer { name: "a/b/c" }')
    weights = {"fire2/squeeze": [VALUES], "fire2": [VALUES + 1], "a/b/c": [VALUES + 2, VALUES[0]]}
    write_hdf5(tmp_path / "net.h5", net, weights)
    found = _read(tmp_path / "net.h5")
    assert set(found) == set(weights)
    for name, blobs in weights.items():
        for a, b in zip(found[name], blobs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_partly_shared_layer_keeps_its_parameter_numbers(tmp_path: Path) -> None:
    net = prototxt.parse('layer { name: "a" param { name: "w" } } layer { name: "b" param { name: "w" } }')
    write_hdf5(tmp_path / "net.h5", net, {"a": [VALUES, VALUES[0]], "b": [VALUES, VALUES[1]]})
    with open_weights(tmp_path / "net.h5") as file:
        assert [layer.indices for layer in file.layers] == [(0, 1), (1,)]
        np.testing.assert_array_equal(file.layers[1].blobs[0].read(), VALUES[1])


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2", "<i4"])
def test_other_number_types_are_converted(tmp_path: Path, dtype: str) -> None:
    values = np.array([[1, 2.5], [3, 4]], dtype)
    path = _make(tmp_path / "x.h5", lambda file: file.create_dataset("data/f/0", data=values))
    np.testing.assert_array_equal(_read(path)["f"][0], values.astype(np.float32))


def test_compressed_and_chunked_values_are_read(tmp_path: Path) -> None:
    path = _make(
        tmp_path / "x.h5",
        lambda file: file.create_dataset("data/f/0", data=VALUES, chunks=(1, 2), compression="gzip", shuffle=True),
    )
    np.testing.assert_array_equal(_read(path)["f"][0], VALUES)


def test_scalars_and_empty_arrays_are_read(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        file.create_dataset("data/f/0", data=np.float32(3))
        file.create_dataset("data/f/1", data=np.zeros((0, 4), np.float32))

    scalar, empty = _read(_make(tmp_path / "x.h5", fill))["f"]
    assert scalar.shape == ()
    assert scalar[()] == 3
    assert empty.shape == (0, 4)


def test_a_user_block_before_the_data_is_allowed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w", userblock_size=1024) as file:
        file.create_dataset("data/f/0", data=VALUES)
    np.testing.assert_array_equal(_read(tmp_path / "x.h5")["f"][0], VALUES)


def test_net_settings_are_not_in_an_hdf5_file(tmp_path: Path) -> None:
    path = _make(tmp_path / "x.h5", lambda file: file.create_group("data/f"))
    with open_weights(path) as file, pytest.raises(FormatError, match="holds no net settings"):
        file.net_message()


def _external_link(file: Any) -> None:
    file.create_group("data/f")["0"] = h5py.ExternalLink("/etc/passwd", "/x")


def _soft_link(file: Any) -> None:
    file["elsewhere"] = VALUES
    file.create_group("data/f")["0"] = h5py.SoftLink("/elsewhere")


def _data_link(file: Any) -> None:
    file["data"] = h5py.ExternalLink("other.h5", "/data")


def _external_storage(file: Any) -> None:
    file.create_dataset("data/f/0", (6,), "f4", external=[("/etc/passwd", 0, 24)])


def _virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((6,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (6,))
    file.create_virtual_dataset("data/f/0", layout)


def _bomb(file: Any) -> None:
    file.create_dataset("data/f/0", (10**5, 2 * 10**4), "f4", chunks=(100, 100))


def _huge(file: Any) -> None:
    file.create_dataset("data/f/0", (2**20, 2**20), "f4", chunks=(1, 1), compression="gzip")


def _zip_bomb(file: Any) -> None:
    file.create_dataset("data/f/0", data=np.zeros((3000, 1000), "f4"), chunks=(3000, 1000), compression="gzip")


def _loop(file: Any) -> None:
    group = file.create_group("data/f")
    group["inner"] = file["data"]


def _text(file: Any) -> None:
    file["data/f/0"] = "weights"


def _null(file: Any) -> None:
    file["data/f/0"] = h5py.Empty("f4")


def _stray(file: Any) -> None:
    file["data/f/weight"] = VALUES


def _strange_number(file: Any) -> None:
    file["data/f/00"] = VALUES


def _loose(file: Any) -> None:
    file["data/0"] = VALUES


def _no_data(file: Any) -> None:
    file["weights"] = VALUES


def _flat(file: Any) -> None:
    file["data"] = VALUES


def _state(file: Any) -> None:
    file["iter"] = [3]
    file.create_group("history")


@pytest.mark.parametrize(
    "fill, problem",
    [
        (_external_link, "is a link to elsewhere, which is never followed"),
        (_soft_link, "is a link to elsewhere, which is never followed"),
        (_data_link, "is a link to elsewhere, which is never followed"),
        (_external_storage, "keeps its values in another file, which is never followed"),
        (_virtual, "keeps its values in another file, which is never followed"),
        (_bomb, "claims 8000000000 bytes of values, but the file holds 0 for it"),
        (_huge, "is too large, Caffe's limit"),
        (_zip_bomb, "claims 12000000 bytes of values, but the file holds"),
        (_loop, "nested groups"),
        (_text, "is not an array of numbers"),
        (_null, "is not an array of numbers"),
        (_stray, "/data/f/weight is unexpected; expected data/LAYER/0"),
        (_strange_number, "/data/f/00 is unexpected"),
        (_loose, "/data/0 is unexpected"),
        (_no_data, "has no group 'data', so it is not a Caffe weights file"),
        (_flat, "has no group 'data'"),
        (_state, "is a solver state, which holds no weights"),
    ],
    ids=lambda value: getattr(value, "__name__", "")[1:],
)
def test_what_is_not_plain_data_is_refused(tmp_path: Path, fill: Callable[[Any], object], problem: str) -> None:
    assert problem in _refused(_make(tmp_path / "x.h5", fill))


def test_a_filter_that_would_load_a_plugin_is_refused(tmp_path: Path) -> None:
    path = _make(
        tmp_path / "x.h5",
        lambda file: file.create_dataset("data/f/0", data=VALUES, chunks=(2, 3), compression="gzip"),
    )
    data = path.read_bytes()
    deflate = struct.pack("<HHHH", 1, 8, 1, 1)  # filter 1, 8 bytes of name, optional, one parameter
    assert data.count(deflate) == 1
    path.write_bytes(data.replace(deflate, struct.pack("<HHHH", 32015, 8, 1, 1)))
    assert "uses the HDF5 filters [32015], which are not built in" in _refused(path)


def test_a_cut_off_file_is_refused(reference: Path, tmp_path: Path) -> None:
    data = (reference / "goldens" / "formats" / "weights" / "weights.caffemodel.h5").read_bytes()
    for size in (8, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.h5").write_bytes(data[:size])
        assert "not a sound HDF5 file" in _refused(tmp_path / "cut.h5")


@pytest.mark.parametrize("name", ["", "/a", "a//b", "a/", ".", "a/./b"])
def test_names_hdf5_cannot_hold_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match="HDF5 cannot hold a layer named"):
        write_hdf5(tmp_path / "net.h5", prototxt.parse(f'layer {{ name: "{name}" }}'), {})
    assert list(tmp_path.iterdir()) == []


def test_names_that_clash_are_refused(tmp_path: Path) -> None:
    net = prototxt.parse('layer { name: "a" } layer { name: "a/0" }')
    with pytest.raises(WeightsError, match="layer names that HDF5 cannot tell apart"):
        write_hdf5(tmp_path / "net.h5", net, {"a": [VALUES], "a/0": [VALUES]})
    assert list(tmp_path.iterdir()) == []


def test_weights_of_a_layer_the_net_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no layer for these weights: 'f'"):
        write_hdf5(tmp_path / "net.h5", prototxt.parse('layer { name: "a" }'), {"f": [VALUES]})


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="folder does not exist"):
        write_hdf5(tmp_path / "no" / "net.h5", prototxt.parse('layer { name: "a" }'), {"a": [VALUES]})


_LIMITED = """
import resource, signal, sys
import numpy as np
from caffe2torch import schema, write_hdf5
from caffe2torch.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
net = schema.new("NetParameter")
net.layer.add(name="a", type="InnerProduct")
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
try:
    write_hdf5(sys.argv[1], net, {"a": [np.zeros(100000, np.float32)]})
except OutputError as error:
    print(error)
"""


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", _LIMITED, str(tmp_path / "net.h5")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=root)
    assert "net.h5: cannot be written: the file would exceed the size limit" in done.stdout
    assert list(tmp_path.iterdir()) == []
