"""One HTTP transfer into a ``.part`` file: resumed by Range where the server allows it, hashed while it streams."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from caffe2torch import __version__
from caffe2torch.errors import DownloadError, OutputError

CHUNK = 1 << 18
SPARE_DISK = 16 << 20
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_NETWORK = (OSError, http.client.HTTPException)


class SourceError(DownloadError):
    """A transfer that failed; ``passing`` says whether the same URL may work a little later."""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True)
class Digests:
    """Of a whole file, in hexadecimal."""

    size: int
    sha256: str
    sha1: str


class _Hasher:
    def __init__(self) -> None:
        self.size = 0
        self._sha256, self._sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)

    def update(self, data: bytes) -> None:
        self.size += len(data)
        self._sha256.update(data)
        self._sha1.update(data)

    def digests(self) -> Digests:
        return Digests(self.size, self._sha256.hexdigest(), self._sha1.hexdigest())


def _hash(path: Path) -> _Hasher:
    hasher = _Hasher()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            hasher.update(chunk)
    return hasher


def digest_file(path: Path) -> Digests:
    """Size and hashes of a file on disk."""
    return _hash(path).digests()


class Part:
    """A download under way: ``NAME.part``, and ``NAME.part.json`` that says which URL and version it is a part of."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + ".part")
        self.origin = target.with_name(target.name + ".part.json")

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other processes off this part, where the system knows file locks (elsewhere open files protect it)."""
        try:
            import fcntl
        except ImportError:
            yield
            return
        path = self.path.with_name(self.path.name + ".lock")
        try:
            lock = path.open("ab")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DownloadError(f"{self.path}: another process is fetching this file") from error
            except OSError:
                pass  # a file system without locks
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def validator(self, url: str) -> str | None:
        """ETag or date of the part when it comes from ``url``, "" when the server gave none, None for no such part."""
        try:
            known = json.loads(self.origin.read_text(encoding="utf-8"))
            started = self.path.stat().st_size > 0
        except (OSError, ValueError):
            return None
        if not started or not isinstance(known, dict) or known.get("url") != url:
            return None
        return str(known.get("validator", ""))

    def begin(self, url: str, validator: str) -> None:
        """Note where the bytes that follow come from."""
        self.origin.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")

    def remove(self) -> None:
        """Forget everything fetched so far."""
        for path in (self.path, self.origin):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it comes: its exact size, or how large it may be at most; whether a hash is."""

    exact: int | None
    at_most: int
    hashed: bool


def fetch(
    url: str, part: Part, expected: Expected, *, timeout: float, progress: Callable[[int, int | None], None]
) -> Digests:
    """Complete ``part`` from ``url`` and return its digests.

    ``progress(done, total)`` is called with bytes after every chunk. Raises SourceError when the source fails (what
    came so far stays in ``part`` where that is of use), OutputError when the disk does.
    """
    try:
        validator = part.validator(url)
        if validator == "" and not expected.hashed:
            validator = None  # nothing would tell whether the rest belongs to the same version of the file
        if validator is None:
            part.remove()
        hasher = _hash(part.path) if validator is not None else _Hasher()
    except OSError as error:
        raise OutputError(f"{part.path}: {error.strerror or error}") from error
    try:
        response = _open(url, hasher.size, validator, timeout)
    except urllib.error.HTTPError as error:
        with error:
            if _complete(error, hasher.size, expected):
                return hasher.digests()
            if error.code == 416:
                part.remove()
                raise SourceError(f"{url}: the server refused to resume", passing=True) from error
            gone = f"{url}: the server answered {error.code} {error.reason}"
            raise SourceError(gone, passing=error.code in _TRY_AGAIN) from error
    except _NETWORK as error:
        raise SourceError(f"{url}: {_why(error)}", passing=True) from error
    except ValueError as error:
        raise SourceError(f"{url}: {error}", passing=False) from error
    with response:
        return _receive(response, url, part, hasher, expected, progress)


def _open(url: str, have: int, validator: str | None, timeout: float) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"caffe2torch/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    response: http.client.HTTPResponse = urllib.request.urlopen(  # the manifest admits http and https only
        urllib.request.Request(url, headers=headers), timeout=timeout
    )
    return response


def _complete(error: urllib.error.HTTPError, have: int, expected: Expected) -> bool:
    """Whether "range not satisfiable" means that all bytes are here already."""
    total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
    return error.code == 416 and total is not None and int(total[1]) == have and expected.exact in (None, have)


def _receive(
    response: http.client.HTTPResponse,
    url: str,
    part: Part,
    hasher: _Hasher,
    expected: Expected,
    progress: Callable[[int, int | None], None],
) -> Digests:
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise _web_page(url)
    if response.status != 206 and hasher.size:
        hasher = _Hasher()  # the server ignored Range, or the file is another one now: from the start
    total = _total(response, url, part, hasher.size)
    _check_total(url, total, expected)
    limit = next(size for size in (total, expected.exact, expected.at_most) if size is not None)
    _check_disk(part.path, limit - hasher.size)
    try:
        part.begin(url, _validator(response))
        with part.path.open("ab" if hasher.size else "wb") as file:
            for chunk in _chunks(response, url):
                if not hasher.size and _looks_like_html(chunk):
                    part.remove()
                    raise _web_page(url)
                hasher.update(chunk)
                if hasher.size > limit:
                    part.remove()
                    raise SourceError(f"{url}: sent more than the expected {limit:,} bytes", passing=False)
                file.write(chunk)
                progress(hasher.size, total)
    except OSError as error:
        raise OutputError(f"{part.path}: {error.strerror or error}; what came so far is kept") from error
    wanted = total if total is not None else expected.exact
    if wanted is not None and hasher.size < wanted:
        short = f"{url}: the connection ended after {hasher.size:,} of {wanted:,} bytes"
        raise SourceError(short, passing=True)
    return hasher.digests()


def _chunks(response: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    """The body piece by piece; a failing network becomes a SourceError, so that an OSError is the disk's."""
    while True:
        try:
            chunk = response.read1(CHUNK)
        except _NETWORK as error:
            raise SourceError(f"{url}: {_why(error)}", passing=True) from error
        if not chunk:
            return
        yield chunk


def _total(response: http.client.HTTPResponse, url: str, part: Part, have: int) -> int | None:
    """The whole file's size as the server tells it; checks that a resumed body starts where ours ends."""
    if response.status == 206:
        given = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", given)
        if match is None or int(match[1]) != have:
            part.remove()
            raise SourceError(f"{url}: asked for bytes from {have:,} on, the server sent {given!r}", passing=True)
        return int(match[2])
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"\d+", length) else None


def _check_total(url: str, total: int | None, expected: Expected) -> None:
    if total is None:
        return
    if expected.exact is not None and total != expected.exact:
        raise SourceError(f"{url}: offers {total:,} bytes, expected {expected.exact:,}", passing=False)
    if total > expected.at_most:
        raise SourceError(f"{url}: offers {total:,} bytes, expected at most {expected.at_most:,}", passing=False)


def _check_disk(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needed + SPARE_DISK:
        raise OutputError(
            f"{path.parent}: {needed:,} bytes are still to come and only {free:,} are free; make room or choose "
            "another folder with --to"
        )


def _validator(response: http.client.HTTPResponse) -> str:
    """What identifies this version of the file for If-Range: a strong ETag, else the date."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _looks_like_html(chunk: bytes) -> bool:
    start = chunk[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head"))


def _web_page(url: str) -> SourceError:
    return SourceError(
        f"{url}: sent a web page instead of the file (the link is dead or asks for a login)", passing=False
    )


def _why(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError):
        return f"cannot be reached: {error.reason}"
    if isinstance(error, TimeoutError):
        return "timed out"
    return f"the connection failed: {error or type(error).__name__}"
