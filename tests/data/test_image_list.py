"""ImageData layers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe2torch.errors import Caffe2TorchError, FormatError, ImageError
from caffe2torch.loading import load

from .sources import feed, images, png


def layer(settings: str = "", *, batch: int = 2, transform: str = "") -> str:
    return (
        f'layer {{ name: "d" type: "ImageData" top: "x" top: "l" transform_param {{ {transform} }} '
        f'image_data_param {{ source: "list.txt" batch_size: {batch} {settings} }} }}'
    )


def listing(folder: Path, lines: str, count: int = 3) -> Path:
    for index, image in enumerate(images(count, (6, 5, 3))):
        (folder / f"{index}.png").write_bytes(png(image))
    (folder / "list.txt").write_bytes(lines.encode())
    return folder


def labels(folder: Path, settings: str = "", *, batch: int = 3, seed: int = 0) -> list[float]:
    return list(next(feed(layer(settings, batch=batch), folder, seed=seed))["l"])


@pytest.mark.parametrize(
    "label, value",
    [("7", 7), ("-2", -2), ("+3", 3), ("3.9", 3), ("12abc", 12), ("abc", 0), ("", 0), ("\t4", 4), ("5\r", 5)],
)
def test_labels_are_what_atoi_reads(label: str, value: int, tmp_path: Path) -> None:
    assert labels(listing(tmp_path, f"0.png {label}\n"), batch=1) == [value]


def test_line_without_a_label_is_a_name(tmp_path: Path) -> None:
    assert labels(listing(tmp_path, "0.png\n1.png"), batch=2) == [0, 1]  # atoi of "1.png"


def test_names_may_hold_spaces_and_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a b.png 1\n\xe9.png 2\n")
    for name in (b"a b.png", b"\xe9.png"):
        Path(tmp_path, name.decode("utf-8", "surrogateescape")).write_bytes(png(images(1, (6, 5, 3))[0]))
    assert labels(tmp_path, batch=2) == [1, 2]


def test_root_folder_is_put_before_the_name_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    listing(tmp_path / "sub", "")
    (tmp_path / "list.txt").write_text(".png 4\n")
    assert labels(tmp_path, 'root_folder: "sub/0"', batch=1) == [4]


def test_shuffle_draws_every_picture_once_a_round(tmp_path: Path) -> None:
    folder = listing(tmp_path, "".join(f"{i}.png {i}\n" for i in range(8)), 8)
    source = feed(layer("shuffle: true", batch=8), folder)
    rounds = [next(source)["l"].tolist() for _ in range(2)]
    assert [sorted(r) for r in rounds] == [list(range(8))] * 2
    assert rounds[0] != rounds[1] != list(range(8))


def test_rand_skip_starts_later_and_wraps_to_the_first(tmp_path: Path) -> None:
    folder = listing(tmp_path, "".join(f"{i}.png {i}\n" for i in range(3)))
    starts = {tuple(labels(folder, "rand_skip: 3", seed=seed)) for seed in range(20)}
    assert starts == {(0, 1, 2), (1, 2, 0), (2, 0, 1)}


def test_resize_and_grey_are_opencvs(tmp_path: Path) -> None:
    folder = listing(tmp_path, "0.png 1\n")
    image = cv2.imread(str(folder / "0.png"))
    got = next(feed(layer("new_height: 9 new_width: 4", batch=1), folder))["x"]
    np.testing.assert_array_equal(got[0], cv2.resize(image, (4, 9)).transpose(2, 0, 1))
    got = next(feed(layer("is_color: false", batch=1, transform="force_color: true"), folder))["x"]
    np.testing.assert_array_equal(got[0, 0], cv2.imread(str(folder / "0.png"), cv2.IMREAD_GRAYSCALE))


def test_crop_mean_and_scale(tmp_path: Path) -> None:
    folder = listing(tmp_path, "0.png 1\n")
    got = next(feed(layer(batch=1, transform="crop_size: 3 mean_value: 7 scale: 0.25"), folder))["x"]
    image = cv2.imread(str(folder / "0.png")).transpose(2, 0, 1).astype(np.float32)
    np.testing.assert_array_equal(got[0], (image[:, 1:4, 1:4] - 7) * 0.25)


@pytest.mark.parametrize(
    "settings, transform, shape",
    [
        ("", "", (2, 3, 6, 5)),
        ("is_color: false", "", (2, 1, 6, 5)),
        ("is_color: false", "force_color: true crop_size: 2", (2, 1, 2, 2)),
        ("new_height: 9 new_width: 4", "", (2, 3, 9, 4)),
    ],
)
def test_shape_of_a_net_comes_from_its_first_picture(
    settings: str, transform: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    folder = listing(tmp_path, "0.png 1\n")
    (folder / "net.prototxt").write_text(layer(settings, transform=transform))
    assert load(folder / "net.prototxt").input_shapes["x"] == shape
    assert feed(layer(settings, transform=transform), folder).shapes == {"x": shape, "l": (2,)}


@pytest.mark.parametrize(
    "lines, settings, error, message",
    [
        ("", "", FormatError, "list.txt: the list is empty"),
        ("0.png 1\n\n1.png 2\n", "", FormatError, "list.txt: line 2 is ''"),
        ("0.png 99999999999\n", "", FormatError, "line 1: the label 99999999999 does not fit"),
        ("gone.png 1\n", "", ImageError, "gone.png: cannot be read: No such file"),
        ("list.txt 1\n", "", ImageError, "list.txt: not a picture"),
        (". 1\n", "", ImageError, "not an ordinary file"),
        ("0.png 1\n", "new_height: 3", Caffe2TorchError, "only one of new_height and new_width"),
        ("0.png 1\n", "rand_skip: 1000000", Caffe2TorchError, "rand_skip is 1000000, too large"),
    ],
)
def test_bad_lists_are_refused(lines: str, settings: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    folder = listing(tmp_path, lines)
    with pytest.raises(error, match=message):
        next(feed(layer(settings), folder))


def test_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"list\.txt: no such file"):
        feed(layer(), tmp_path)


def test_pictures_of_two_sizes_in_one_batch_are_refused(tmp_path: Path) -> None:
    folder = listing(tmp_path, "0.png 0\nwide.png 1\n")
    (folder / "wide.png").write_bytes(png(images(1, (6, 9, 3))[0]))
    with pytest.raises(ImageError, match=r"wide\.png: 3x6x9 .*0\.png, the first of its batch, is 3x6x5"):
        next(feed(layer(), folder))
