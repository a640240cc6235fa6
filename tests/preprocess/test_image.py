"""Reading pictures: every form against Pillow, every refused form by name, every damage as an error."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from caffe2torch.errors import ImageError
from caffe2torch.preprocess import decode, read_image

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = RGB[:, :, 0].copy()
ALPHA = np.random.default_rng(1).integers(0, 256, (20, 30), dtype=np.uint8)
BGR = RGB[:, :, ::-1]
HAS_GIF = tuple(int(part) for part in cv2.__version__.split(".")[:2]) >= (4, 12)
needs_gif = pytest.mark.skipif(not HAS_GIF, reason="OpenCV before 4.12 has no GIF decoder")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pillow_bgr(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))[:, :, ::-1]


def palette() -> Image.Image:
    return Image.fromarray(RGB).quantize(16)


def bilevel() -> Image.Image:
    return Image.fromarray(np.where(GREY > 128, 255, 0).astype(np.uint8)).convert("1")


def jpeg(quality: int = 90, **options: object) -> bytes:
    return saved(Image.fromarray(RGB), "JPEG", quality=quality, **options)


COLOUR = {
    "png": saved(Image.fromarray(RGB), "PNG"),
    "png rgba": saved(Image.fromarray(np.dstack([RGB, ALPHA])), "PNG"),
    "png palette": saved(palette(), "PNG"),
    "png palette transparent": saved(palette(), "PNG", transparency=3),
    "bmp": saved(Image.fromarray(RGB), "BMP"),
    "bmp rgba": saved(Image.fromarray(np.dstack([RGB, ALPHA])), "BMP"),
    "bmp palette": saved(palette(), "BMP"),
    "tiff": saved(Image.fromarray(RGB), "TIFF"),
    "tiff lzw": saved(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"),
    "tiff palette": saved(palette(), "TIFF"),
    "webp": saved(Image.fromarray(RGB), "WEBP", lossless=True),
    "webp lossy": saved(Image.fromarray(RGB), "WEBP", quality=80),
    "webp rgba": saved(Image.fromarray(np.dstack([RGB, ALPHA])), "WEBP", lossless=True, exact=True),
    "ppm": saved(Image.fromarray(RGB), "PPM"),
    "ppm text": b"P3 # colours\n2 1\n255\n1 2 3 250 251 252\n",
}
GREYS = {
    "png": saved(Image.fromarray(GREY), "PNG"),
    "png with alpha": saved(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), "PNG"),
    "png bilevel": saved(bilevel(), "PNG"),
    "bmp": saved(Image.fromarray(GREY), "BMP"),
    "bmp bilevel": saved(bilevel(), "BMP"),
    "tiff": saved(Image.fromarray(GREY), "TIFF"),
    "tiff bilevel": saved(bilevel(), "TIFF"),
    "tiff fax": saved(bilevel(), "TIFF", compression="group4"),
    "pgm": saved(Image.fromarray(GREY), "PPM"),
    "pgm text": b"P2\n# a comment\n3 2\n255\n0 1 2 3 14 255\n",
    "pbm": saved(bilevel(), "PPM"),
    "jpeg": saved(Image.fromarray(GREY), "JPEG", quality=100),
}


@pytest.mark.parametrize("name", COLOUR)
def test_colours_come_as_stored(name: str) -> None:
    image = decode(COLOUR[name], name)
    assert image.dtype == np.uint8
    assert np.array_equal(image, pillow_bgr(COLOUR[name]))


@pytest.mark.parametrize("name", GREYS)
def test_grey_stays_grey(name: str) -> None:
    expected = np.array(Image.open(io.BytesIO(GREYS[name])).convert("L"))
    assert np.array_equal(decode(GREYS[name], name), expected)


def test_webp_with_alpha_keeps_its_colours() -> None:
    assert np.array_equal(decode(COLOUR["webp rgba"], "x"), BGR)


def test_jpeg_within_the_decoders_rounding() -> None:
    assert np.abs(decode(jpeg(), "x").astype(int) - pillow_bgr(jpeg())).max() <= 3


def test_progressive_jpeg() -> None:
    data = jpeg(progressive=True)
    assert np.abs(decode(data, "x").astype(int) - pillow_bgr(data)).max() <= 3


@needs_gif
@pytest.mark.parametrize("transparency", [None, 3])
def test_gif_palette_becomes_colours(transparency: int | None) -> None:
    data = saved(palette(), "GIF", **({} if transparency is None else {"transparency": transparency}))
    assert np.array_equal(decode(data, "x"), np.array(palette().convert("RGB"))[:, :, ::-1])


@needs_gif
def test_animated_gif_gives_its_first_picture() -> None:
    frames = [Image.fromarray(np.roll(RGB, 5 * k, 0)).quantize(16) for k in range(3)]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.array_equal(decode(data, "x"), np.array(frames[0].convert("RGB"))[:, :, ::-1])


def test_gif_that_this_opencv_cannot_read_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: None)
    with pytest.raises(ImageError, match=r"GIF needs OpenCV 4\.12"):
        decode(saved(palette(), "GIF"), "a.gif")


@pytest.mark.parametrize(("grey", "shape"), [(False, (20, 30, 3)), (True, (20, 30))])
@pytest.mark.parametrize("data", [COLOUR["png"], GREYS["png"]], ids=["colour", "grey"])
def test_colour_or_grey_can_be_forced(data: bytes, grey: bool, shape: tuple[int, ...]) -> None:
    assert decode(data, "x", grey=grey).shape == shape


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_ignored_unless_asked_for(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(Image.fromarray(RGB), kind, exif=exif.tobytes() if kind != "TIFF" else exif, **options)
    plain = decode(data, "x")
    turned = decode(data, "x", exif=True)
    upright = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))[:, :, ::-1]
    tolerance = 3 if kind == "JPEG" else 0
    assert plain.shape == BGR.shape
    assert turned.shape == upright.shape
    if kind != "JPEG":
        assert np.array_equal(plain, BGR)
    assert np.abs(turned.astype(int) - upright).max() <= tolerance
    assert turned.flags.c_contiguous


def test_senseless_exif_is_upright() -> None:
    for block in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        data = jpeg(exif=block)
        assert decode(data, "x", exif=True).shape == BGR.shape


def one_pixel(depth: int, colour: int, width: int = 1, height: int = 1, pixels: bytes = b"\0\0\0") -> bytes:
    """A PNG made by hand."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    packed = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + packed + chunk(b"IEND", b"")


def bmp_header(width: int, height: int, bits: int = 24, compression: int = 0) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 0, 0, 0, 54)
        + struct.pack("<IiiHHI", 40, width, height, 1, bits, compression)
        + bytes(40)
    )


def tiff(image: np.ndarray | Image.Image, **options: object) -> bytes:
    return saved(image if isinstance(image, Image.Image) else Image.fromarray(image), "TIFF", **options)


REFUSED = {
    "16-bit PNG": (saved(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"), "PNG of 16 bits"),
    "16-bit TIFF": (tiff(GREY.astype(np.uint16)), "16 bits"),
    "float TIFF": (tiff(GREY.astype(np.float32)), "sample format 3"),
    "CMYK TIFF": (tiff(Image.fromarray(RGB).convert("CMYK")), "CMYK"),
    "TIFF with alpha": (tiff(np.dstack([RGB, ALPHA])), "4 samples"),
    "CMYK JPEG": (saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "CMYK"),
    "PGM of 16 bits": (b"P5 1 1 65535\n\0\0", "up to 65535"),
    "PGM of 15 levels": (b"P5 1 1 15\n\0", "up to 15"),
    "BMP with PNG inside": (bmp_header(4, 4, 24, 5), "compression 5"),
    "partial GIF": (
        b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0, 0, 0) + b"," + struct.pack("<HHHH", 1, 0, 3, 4),
        "cover",
    ),
    "HEIC": (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
    "AVIF": (b"\0\0\0\x1cftypavif" + bytes(20), "AVIF"),
    "MP4": (b"\0\0\0\x1cftypisom" + bytes(20), "video"),
    "SVG": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "HTML": (b"<!DOCTYPE html><html>404</html>", "HTML"),
    "PDF": (b"%PDF-1.7", "PDF"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    "JPEG XL": (b"\xff\x0a\x00\x00", "JPEG XL"),
    "BigTIFF": (b"II+\0\x08\0\0\0", "BigTIFF"),
    "text": (b"/airplane/1.jpg 0\n", "text"),
    "binary": (bytes(range(200, 256)), "first bytes c8 c9"),
    "npy": (b"\x93NUMPY\x01\0", "nothing known"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    data, message = REFUSED[name]
    with pytest.raises(ImageError, match=rf"^pics/a: .*{message}") as caught:
        decode(data, "pics/a")
    assert "convert it" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        one_pixel(8, 2, 0, 5),
        b"P5 0 4 255\n",
        bmp_header(0, 3),
        b"GIF89a" + bytes(7) + b"," + bytes(9),
    ],
    ids=["png", "pgm", "bmp", "gif"],
)
def test_no_pixels(data: bytes) -> None:
    with pytest.raises(ImageError, match="pixels"):
        decode(data, "x")


@pytest.mark.parametrize(
    "data",
    [
        one_pixel(8, 2, 60000, 60000),
        one_pixel(1, 0, 20000, 20000),
        bmp_header(2**31 - 1, 2**31 - 1),
        bmp_header(2**31 - 1, -(2**31), 8, 1),
        b"P5 999999999 999999999 255\n",
        jpeg().replace(struct.pack(">HH", 20, 30), b"\xff\xff\xff\xff"),
        b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0",
    ],
    ids=["png", "png of a bit", "bmp", "rle bmp", "pgm", "jpeg", "gif"],
)
def test_huge_sizes_are_refused_before_decoding(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"more than the|cut short"):
        decode(data, "x")


def test_smallest_picture() -> None:
    assert decode(saved(Image.fromarray(RGB[:1, :1]), "PNG"), "x").tolist() == [[BGR[0, 0].tolist()]]


def test_tiff_that_claims_more_than_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """libtiff would first take the memory that the strip claims."""
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: pytest.fail("decoded"))
    data = COLOUR["tiff"]
    size = struct.pack("<I", RGB.size)
    assert data.count(size) == 1
    with pytest.raises(ImageError, match="cut short"):
        decode(data.replace(size, struct.pack("<I", 1 << 31)), "x")


@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", [*COLOUR, "jpeg", "progressive"])
def test_cut_files_are_errors(name: str, part: float) -> None:
    """Half a JPEG is what OpenCV before 4.12 returns with its lower part grey."""
    data = {"jpeg": jpeg(), "progressive": jpeg(progressive=True)}.get(name) or COLOUR[name]
    if name == "ppm text" and part == 0.95:
        pytest.skip("a number that lost its last digit is still a number")
    with pytest.raises(ImageError):
        decode(data[: max(1, int(len(data) * part))], "x")


def test_jpeg_without_its_end_marker() -> None:
    with pytest.raises(ImageError, match="no end marker"):
        decode(jpeg()[:-2], "x")


def test_end_marker_of_a_thumbnail_does_not_count() -> None:
    data = jpeg(exif=b"Exif\0\0II*\0" + b"\xff\xd8thumbnail\xff\xd9")
    with pytest.raises(ImageError, match="no end marker"):
        decode(data[:-10], "x")


def test_jpeg_with_bytes_after_its_end() -> None:
    assert np.array_equal(decode(jpeg() + b"\0" * 100, "x"), decode(jpeg(), "x"))


def test_png_with_a_changed_bit() -> None:
    data = bytearray(COLOUR["png"])
    data[len(data) // 2] ^= 4
    with pytest.raises(ImageError, match="checksum"):
        decode(bytes(data), "x")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"a\.jpg: the file is empty"):
        read_image(tmp_path / "a.jpg")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot read"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="a folder, not a file"):
        read_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    result: list[BaseException] = []

    def attempt() -> None:
        try:
            read_image(tmp_path / "pipe.jpg")
        except ImageError as error:
            result.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(10)
    assert len(result) == 1


def test_name_outside_ascii(tmp_path: Path) -> None:
    path = tmp_path / "Flugzeug \u00fc \u98de\u673a.png"
    path.write_bytes(COLOUR["png"])
    assert np.array_equal(read_image(str(path)), BGR)


def test_extension_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(COLOUR["png"])
    assert np.array_equal(read_image(tmp_path / "a.jpg"), BGR)


def test_large_file_of_another_kind_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    with path.open("wb") as file:
        file.write(b"\0\0\0\x1cftypisom")
        file.truncate(900_000_000)
    with pytest.raises(ImageError, match="video"):
        read_image(path)


def test_reads_the_reference_photographs(reference: Path) -> None:
    for path in sorted((reference / "images").iterdir()):
        image = read_image(path)
        with Image.open(path) as expected:
            assert image.shape[:2] == (expected.height, expected.width)
            assert (image.ndim == 2) == (expected.mode == "L")
