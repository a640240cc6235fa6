"""A picture file to bytes: (H, W, 3) in B, G, R order, or (H, W) for a grey file, decoded by OpenCV.

What comes out, by form: **EXIF orientation** is ignored, as MATLAB does, unless asked for. **Grey** files stay grey.
**Palettes** (PNG, GIF, BMP, TIFF) become their colours (MATLAB's imread alone would return indices). **Alpha** of
PNG, BMP and WebP is dropped and the stored colours kept, as MATLAB returns them; transparent palette entries
likewise. Of an **animation** or a multi-page file the first picture is read, again as MATLAB does.

Refused by name, because every tool makes other numbers of them: **16-bit** (and other deep) samples - MATLAB's code
would feed 0..65535 to the net, OpenCV keeps the high byte, scikit-image divides - **CMYK**, whose colours depend on
an ink profile, TIFF with alpha, and all formats but JPEG, PNG, BMP, GIF, TIFF, WebP and PNM. Files that end early are
errors too; bits that changed inside a JPEG's compressed data cannot be told.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from caffe2torch.errors import ImageError
from caffe2torch.preprocess.formats import Header, is_picture, read_header

MAX_PIXELS = 1 << 28  # more than any camera makes; 0.8 GB decoded
MAX_BYTES = 1 << 30

# OpenCV reports damaged files on stderr as well; here they are exceptions. The function moved between versions.
# (libjpeg and libpng write some lines of their own, which only a redirected stderr would hide.)
_set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
_set_log_level(0)


def read_image(path: str | os.PathLike[str], *, exif: bool = False) -> NDArray[np.uint8]:
    """The picture in ``path``: (H, W, 3) BGR or (H, W) grey, uint8; ``exif`` turns it upright by its EXIF orientation.

    Raises ImageError, naming the file and what it is, for everything that is not a whole picture of a handled form.
    """
    name = os.fspath(path)
    try:
        status = Path(path).stat()  # before opening, which would wait for ever at a pipe
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{name}: a {'folder' if stat.S_ISDIR(status.st_mode) else 'device or pipe'}, not a file")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"{name}: {status.st_size} bytes, more than the {MAX_BYTES} a picture may have")
        with Path(path).open("rb") as file:
            data = file.read(64)
            if is_picture(data):
                data += file.read()
            else:
                data += file.read(4096)  # enough to say what it is
    except OSError as error:
        raise ImageError(f"{name}: cannot read: {error.strerror or error}") from error
    return decode(data, name, exif=exif)


def decode(data: bytes, name: str, *, exif: bool = False, grey: bool | None = None) -> NDArray[np.uint8]:
    """The picture in ``data``, as `read_image`; ``name`` is for messages.

    ``grey`` False gives (H, W, 3) and True (H, W) whatever the file holds, as OpenCV converts while decoding (Caffe's
    force_color and force_gray); None keeps the file's own.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty")
    header = read_header(data, name)
    if header.width < 1 or header.height < 1:
        raise ImageError(f"{name}: a {header.kind} of {header.width}x{header.height} pixels")
    if header.width * header.height > MAX_PIXELS:
        raise ImageError(f"{name}: {header.width}x{header.height} pixels, more than the {MAX_PIXELS} that are decoded")
    grey = header.grey if grey is None else grey
    image = _imdecode(header, name, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
    return _upright(image, header.orientation) if exif else image


def _imdecode(header: Header, name: str, flags: int) -> NDArray[np.uint8]:
    reason = "" if header.kind != "GIF" else "; GIF needs OpenCV 4.12 or later"
    try:
        image = cv2.imdecode(np.frombuffer(header.data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        reason = f": {error.err}"
        image = None
    if image is None:
        raise ImageError(f"{name}: a damaged {header.kind}: OpenCV {cv2.__version__} cannot decode it{reason}")
    if image.shape[:2] != (header.height, header.width) or image.dtype != np.uint8:
        raise ImageError(
            f"{name}: a damaged {header.kind}: {header.width}x{header.height} by its header, decoded to {image.dtype} "
            f"{image.shape[1]}x{image.shape[0]}"
        )
    return np.asarray(image, np.uint8)


def _upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undoes EXIF orientation 1..8: 5 to 8 have rows and columns exchanged, then each is flipped or not."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
