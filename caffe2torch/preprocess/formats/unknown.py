"""Names for files that no reader takes, so that an error can say what the file is."""

from __future__ import annotations

import codecs


def describe(data: bytes) -> str:
    """A name for content that no reader takes."""
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    signs: list[tuple[str, bool]] = [
        ("an AVIF picture", brand in (b"avif", b"avis")),
        ("a HEIC picture", brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")),
        ("a video or other MP4 file", bool(brand)),
        ("a JPEG 2000 picture", data[:12] == b"\0\0\0\x0cjP  \r\n\x87\n" or data[:4] == b"\xff\x4f\xff\x51"),
        ("a JPEG XL picture", data[:2] == b"\xff\x0a" or data[4:8] == b"JXL "),
        ("a BigTIFF picture", data[:4] in (b"II+\0", b"MM\0+")),
        ("an SVG drawing", b"<svg" in start),
        ("an HTML page", start.startswith((b"<!doctype html", b"<html"))),
        ("an XML file", start.startswith(b"<?xml")),
        ("a PDF document", data.startswith(b"%PDF")),
        ("a Photoshop file", data.startswith(b"8BPS")),
        ("an OpenEXR picture", data.startswith(b"\x76\x2f\x31\x01")),
        ("a Radiance HDR picture", data.startswith(b"#?")),
        ("a Windows icon", data.startswith(b"\0\0\1\0")),
        ("a PAM picture", data.startswith(b"P7\n")),
        ("a zip archive", data.startswith(b"PK\x03\x04")),
        ("a gzip archive", data.startswith(b"\x1f\x8b")),
        ("an HDF5 file", data.startswith(b"\x89HDF")),
    ]
    for label, found in signs:
        if found:
            return label
    if _is_text(data[:512]):
        return "text"
    return f"nothing known (first bytes {data[:8].hex(' ')})"


def _is_text(data: bytes) -> bool:
    """UTF-8 without control characters; a character cut at the end does not matter."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return bool(text) and all(letter.isprintable() or letter.isspace() or letter == "\ufeff" for letter in text)
