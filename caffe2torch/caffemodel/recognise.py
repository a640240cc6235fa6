"""Telling what a file is that was given as a caffemodel and is none."""

from __future__ import annotations

from itertools import islice

from caffe2torch import wire
from caffe2torch.errors import FormatError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HEAD = 4096
_MAGIC = {
    b"PK\x03\x04": "a zip archive (or a PyTorch checkpoint); unpack it and give the caffemodel inside",
    b"\x1f\x8b": "a gzip archive; unpack it and give the caffemodel inside",
    b"BZh": "a bzip2 archive; unpack it and give the caffemodel inside",
    b"\xfd7zXZ\x00": "an xz archive; unpack it and give the caffemodel inside",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it and give the caffemodel inside",
    b"Rar!": "a rar archive; unpack it and give the caffemodel inside",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`",
    b"\x93NUMPY": "a NumPy array, not a caffemodel",
    b"MATLAB 5.0": "a MATLAB file, not a caffemodel",
    b"\x80\x02": "a Python pickle (perhaps a PyTorch checkpoint), not a caffemodel",
    b"\xff\xd8\xff": "a JPEG image, not a caffemodel",
    b"\x89PNG": "a PNG image, not a caffemodel",
    b"%PDF": "a PDF document, not a caffemodel",
}
_HTML = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<script")


def is_hdf5(view: wire.Buffer) -> bool:
    """Whether an HDF5 file begins at byte 0, 512, 1024, 2048, ... as that format allows."""
    offset = 0
    while offset + len(_HDF5) <= len(view):
        if bytes(view[offset : offset + len(_HDF5)]) == _HDF5:
            return True
        offset = max(512, 2 * offset)
    return False


def what_it_is(view: wire.Buffer, wanted: str = "caffemodel") -> str | None:
    """What the file is that was given as a ``wanted``, and what to do, as the end of a sentence.

    None where nothing familiar shows.
    """
    meaning = _meaning(view)
    return meaning.replace("caffemodel", wanted) if meaning else None


def _meaning(view: wire.Buffer) -> str | None:
    head = bytes(view[:_HEAD])
    for magic, meaning in _MAGIC.items():
        if head.startswith(magic):
            return f"is {meaning}"
    if head[257:262] == b"ustar":
        return "is a tar archive; unpack it and give the caffemodel inside"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML):
        return "is a web page, saved in place of the download; fetch the file itself"
    if not head.strip(b"\0"):
        return "begins with nothing but zeros; the download was never completed, fetch it again"
    return _other_message(view) or _text(head)


def _other_message(view: wire.Buffer) -> str | None:
    """Caffe's other binary files, by their first fields."""
    kinds = set()
    try:
        for item in islice(wire.fields(view), 16):
            kinds.add((item.number, item.wire))
    except FormatError:
        pass  # what was seen before the damage may suffice
    if (1, wire.VARINT) in kinds and {(3, wire.LENGTH), (2, wire.LENGTH)} & kinds:
        return "is a solver state, which holds no weights; give the .caffemodel that was saved beside it"
    if (5, wire.LENGTH) in kinds and ({(7, wire.LENGTH), (3, wire.VARINT)} & kinds):
        return "is a single blob, such as a mean image (.binaryproto), not a caffemodel"
    return None


def _text(head: bytes) -> str | None:
    """A text file has no control characters; protobuf cannot do without for long."""
    text = head[: head.rfind(b"\n") + 1] if len(head) == _HEAD else head  # do not cut a character in two
    if any(byte < 32 and byte not in b"\t\n\r\f" for byte in text) or not text:
        return None
    if b"{" in text or b":" in text:
        return "is text, perhaps a prototxt; the weights are in the .caffemodel that belongs to it"
    return "is text, not a caffemodel"
