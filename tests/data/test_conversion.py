"""Pictures into databases, held against real Caffe's records and OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe2torch import schema
from caffe2torch.data.conversion import Conversion, Converted, convert
from caffe2torch.data.database import open_database
from caffe2torch.data.leveldb import LevelDb
from caffe2torch.errors import ImageError, UsageError

from .sources import Image, images, png

lmdb = pytest.importorskip("lmdb")


def records(path: Path, backend: str = "LMDB") -> dict[str, bytes]:
    return {key.decode(): value for key, value in open_database(path, backend).records()}


def parsed(value: bytes) -> schema.Message:
    message = schema.new("Datum")
    message.ParseFromString(value)
    return message


def pictures(folder: Path, count: int = 3, shape: tuple[int, ...] = (6, 5, 3)) -> list[Image]:
    made = images(count, shape)
    for index, image in enumerate(made):
        (folder / f"{index}.png").write_bytes(png(image))
    return made


def run(folder: Path, names: list[str], *, to: str = "db", skip_bad: bool = False, **settings: object) -> Converted:
    lines = [(name, index) for index, name in enumerate(names)]
    conversion = Conversion(**settings)  # type: ignore[arg-type]
    return convert(lines, f"{folder}/", folder / to, conversion, skip_bad=skip_bad, workers=2)


def test_raw_records_equal_real_caffes(reference: Path, tmp_path: Path) -> None:
    theirs = dict(LevelDb(reference / "goldens" / "data" / "leveldb_convert_imageset" / "db").records())
    lines = []
    for key, value in theirs.items():
        datum, name = parsed(value), key.decode().partition("_")[2]
        planes = np.frombuffer(datum.data, np.uint8).reshape(datum.channels, datum.height, datum.width)
        (tmp_path / name).write_bytes(png(np.ascontiguousarray(planes.transpose(1, 2, 0))))
        lines.append((name, datum.label))
    for backend in ("lmdb", "leveldb"):
        convert(lines, f"{tmp_path}/", tmp_path / backend, Conversion(), backend=backend, workers=2)
        assert dict(open_database(tmp_path / backend, backend.upper()).records()) == theirs


def test_encoded_records_equal_real_caffes(reference: Path, tmp_path: Path) -> None:
    path = reference / "goldens" / "data" / "lmdb_convert_imageset" / "db"
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        theirs = dict(transaction.cursor())
    lines = []
    for key, value in theirs.items():
        name = key.decode().partition("_")[2]
        (tmp_path / name).write_bytes(parsed(value).data)
        lines.append((name, parsed(value).label))
    convert(lines, f"{tmp_path}/", tmp_path / "kept", Conversion(encoded=True))
    assert dict(open_database(tmp_path / "kept", "LMDB").records()) == theirs
    convert(lines, f"{tmp_path}/", tmp_path / "anew", Conversion(encoded=True, encode_type="png", size=(12, 12)))
    for key, value in open_database(tmp_path / "anew", "LMDB").records():
        mine, their = parsed(value), parsed(theirs[key])
        decoded = [cv2.imdecode(np.frombuffer(d.data, np.uint8), cv2.IMREAD_UNCHANGED) for d in (mine, their)]
        np.testing.assert_array_equal(*decoded)
        their.data = mine.data  # coders differ in how well they compress
        assert mine == their


def test_keys_are_numbers_and_names(tmp_path: Path) -> None:
    pictures(tmp_path)
    (tmp_path / "a b").mkdir()
    (tmp_path / "0.png").rename(tmp_path / "a b" / "ü.png")
    run(tmp_path, ["a b/ü.png", "2.png"])
    assert list(records(tmp_path / "db")) == ["00000000_a b/ü.png", "00000001_2.png"]


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("size", [None, (4, 9)])
def test_pixels_are_opencvs(gray: bool, size: tuple[int, int] | None, tmp_path: Path) -> None:
    pictures(tmp_path)
    run(tmp_path, ["1.png"], gray=gray, size=size)
    image = cv2.imread(str(tmp_path / "1.png"), cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR)
    if size:
        image = cv2.resize(image, (size[1], size[0]))
    datum = parsed(records(tmp_path / "db")["00000000_1.png"])
    assert (datum.channels, datum.height, datum.width) == (1 if gray else 3, *image.shape[:2])
    assert datum.data == np.atleast_3d(image).transpose(2, 0, 1).tobytes()
    assert (datum.label, datum.encoded, datum.HasField("encoded")) == (0, False, True)


@pytest.mark.parametrize(
    "settings, kept",
    [
        ({"encoded": True}, True),
        ({"encoded": True, "gray": True}, True),
        ({"encoded": True, "size": (6, 5)}, False),
        ({"encoded": True, "encode_type": "png"}, False),
        ({"encode_type": "jpg"}, False),
    ],
    ids=str,
)
def test_encoded_files_keep_their_bytes_unless_resized_or_given_a_type(
    settings: dict[str, object], kept: bool, tmp_path: Path
) -> None:
    image = pictures(tmp_path)[0]
    stored = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()
    (tmp_path / "A.PNG").write_bytes(stored)
    run(tmp_path, ["A.PNG"], **settings)
    datum = parsed(records(tmp_path / "db")["00000000_A.PNG"])
    assert (datum.data == stored) == kept
    assert datum.data.startswith(b"\xff\xd8" if settings.get("encode_type") == "jpg" else b"\x89PNG")
    assert datum.encoded
    assert not datum.HasField("channels")


def test_check_size(tmp_path: Path) -> None:
    pictures(tmp_path)
    (tmp_path / "wide.png").write_bytes(png(images(1, (5, 6, 3))[0]))
    run(tmp_path, ["0.png", "wide.png"], to="any")
    for settings in ({}, {"encoded": True}):
        with pytest.raises(ImageError, match=r"wide\.png: 3x5x6 .*0\.png is 3x6x5"):
            run(tmp_path, ["0.png", "wide.png"], check_size=True, **settings)
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize("bad", ["gone", "cut", "text"])
def test_picture_that_cannot_be_read_is_named(bad: str, tmp_path: Path) -> None:
    pictures(tmp_path, 70)
    names = [f"{index}.png" for index in range(70)]
    {
        "gone": (tmp_path / "40.png").unlink,
        "cut": lambda: (tmp_path / "40.png").write_bytes((tmp_path / "40.png").read_bytes()[:50]),
        "text": lambda: (tmp_path / "40.png").write_text("no picture"),
    }[bad]()
    with pytest.raises(ImageError, match=r"40\.png"):
        run(tmp_path, names)
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.suffix != ".png") == []
    converted = run(tmp_path, names, skip_bad=True)
    assert converted.written == 69
    assert len(converted.skipped) == 1
    assert "40.png" in converted.skipped[0]
    assert list(records(tmp_path / "db")) == [f"{i:08}_{i}.png" for i in range(70) if i != 40]


def test_list_of_nothing_but_bad_pictures(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="none of the 2 pictures can be read"):
        run(tmp_path, ["x", "y"], skip_bad=True)


def test_encoding_without_a_suffix(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(png(images(1, (6, 5, 3))[0]))
    with pytest.raises(ImageError, match="plain: the name does not say how to encode"):
        run(tmp_path, ["plain"], encoded=True)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"size": (5, 0)}, "resize_height 5 and resize_width 0: give both"),
        ({"encode_type": "xyz"}, "encode_type 'xyz': OpenCV has no such encoder"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Conversion(**settings)  # type: ignore[arg-type]
