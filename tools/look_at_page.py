"""Pictures of a page as a browser shows it, wide and as narrow as a phone, light and dark.

  python tools/look_at_page.py results.html --out shots/
  python tools/look_at_page.py http://127.0.0.1:8000/ --upload cat.jpg    a search on the page of `caffe2torch serve`

Needs a Chromium or Chrome on Linux or macOS, which it talks to through a pipe. Exit status 1 when there is none, when
the page's console has complaints, when it loads anything from elsewhere, or is wider than the window.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SIZES = {"wide": (1280, 1000), "phone": (390, 844)}
SCHEMES = ("light", "dark")
PATIENCE = 60  # seconds for any one answer
TALLEST = 6000  # pixels of a picture of the whole page


class Browser:
    """A headless browser on its debugging pipe: JSON messages that end in NUL."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, back
        self._rest = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []
        self.session = ""

    def attach(self) -> None:
        """Open a tab and listen to it."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; what happens meanwhile goes to ``events``."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read(PATIENCE)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise SystemExit(f"{method}: {answer['error'].get('message')}")
                return dict(answer["result"])
            self.events.append(answer)

    def wait(self, event: str) -> None:
        """Until ``event`` has happened."""
        end = time.monotonic() + PATIENCE
        while not any(seen.get("method") == event for seen in self.events):
            self.events.append(self._read(end - time.monotonic()))

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is in the page, waiting where it is a promise."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    def _read(self, seconds: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._back], [], [], max(0.0, seconds))[0]:
                raise SystemExit("the browser does not answer")
            piece = os.read(self._back, 1 << 20)
            if not piece:
                raise SystemExit("the browser ended")
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def started(program: str) -> Iterator[Browser]:
    """The browser, with a profile of its own; ended afterwards."""
    to_read, to_write = os.pipe()
    back_read, back_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
        ]
        # The browser expects its pipe at the file descriptors 3 and 4, which the shell arranges.
        shell = ["sh", "-c", f'exec "$@" 3<&{to_read} 4>&{back_write}', "sh", program, *options]
        process = subprocess.Popen(
            shell, pass_fds=(to_read, back_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(back_write)
        try:
            browser = Browser(to_write, back_read)
            browser.attach()
            yield browser
        finally:
            process.terminate()
            process.wait(PATIENCE)
            os.close(to_write)
            os.close(back_read)


def draw(browser: Browser, address: str, target: Path, size: tuple[int, int], scheme: str, args: Any) -> list[str]:
    """One picture; returns what is wrong with the page."""
    width, height = size
    browser.events.clear()
    browser.ask(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1.5, mobile=width < 500
    )
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.ask("Page.navigate", url=address)
    browser.wait("Page.loadEventFired")
    if args.upload:
        _upload(browser, args.upload)
    _check_pictures = "Promise.all([...document.images].map(i => i.decode().catch(() => i.alt || i.src)))"
    broken = [name for name in browser.value(_check_pictures) or [] if name]
    across = browser.value("document.documentElement.scrollWidth")
    tall = min(TALLEST, int(browser.value("document.documentElement.scrollHeight"))) if args.whole else height
    clip = {"x": 0, "y": 0, "width": width, "height": tall, "scale": 1}
    browser.value("scrollTo({top: 0, behavior: 'instant'})")
    shot = browser.ask("Page.captureScreenshot", format="png", captureBeyondViewport=args.whole, clip=clip)
    target.write_bytes(base64.b64decode(shot["data"]))
    wrong = [f"a picture does not show: {name}" for name in broken]
    if across > width:
        wrong.append(f"the page is {across} pixels wide in a window of {width}")
    return wrong + _complaints(browser.events, address)


def _upload(browser: Browser, picture: str) -> None:
    """Choose a picture in the form and wait for the answer."""
    root = browser.ask("DOM.getDocument")["root"]["nodeId"]
    field = browser.ask("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
    browser.ask("DOM.setFileInputFiles", nodeId=field, files=[str(Path(picture).resolve())])
    done = "document.querySelector('.answer, .problem') && !document.querySelector('.busy')"
    end = time.monotonic() + PATIENCE
    while not browser.value(f"Boolean({done})"):
        if time.monotonic() > end:
            raise SystemExit("the page shows no answer to the upload")
        time.sleep(0.1)


def _complaints(events: list[dict[str, Any]], address: str) -> list[str]:
    own = re.match(r"https?://[^/]*/", address)
    found = []
    for event in events:
        kind, about = event.get("method"), event.get("params", {})
        if kind == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            found.append(f"log: {about['entry']['text']}")
        elif kind == "Runtime.exceptionThrown":
            found.append(f"script: {about['exceptionDetails'].get('text')}")
        elif kind == "Network.requestWillBeSent":
            url = about["request"]["url"]
            if not url.startswith(("data:", own[0] if own else address)):
                found.append(f"loads {url[:200]}")
    return found


def main() -> int:
    """Draw the page in each size and scheme; print the names of the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", help="an .html file or an http address")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where the pictures go")
    parser.add_argument("--upload", metavar="PICTURE", help="choose this picture in the page's form first")
    parser.add_argument("--whole", action="store_true", help="draw the whole page, not only what a window shows")
    parser.add_argument("--browser", metavar="PROGRAM", help=f"default: the first found of {', '.join(BROWSERS)}")
    args = parser.parse_args()
    program = args.browser or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print(f"no browser found; install one of {', '.join(BROWSERS)}, or name one with --browser", file=sys.stderr)
        return 1
    address = args.page if re.match(r"https?://", args.page) else Path(args.page).resolve().as_uri()
    stem = re.sub(r"\W+", "-", re.sub(r"^https?://", "", args.page) if "//" in args.page else Path(args.page).stem)
    args.out.mkdir(parents=True, exist_ok=True)
    complaints = []
    with started(program) as browser:
        for size in SIZES:
            for scheme in SCHEMES:
                target = args.out / f"{stem.strip('-') or 'page'}-{size}-{scheme}.png"
                complaints += draw(browser, address, target, SIZES[size], scheme, args)
                print(target)
    for line in dict.fromkeys(complaints):
        print(line, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    raise SystemExit(main())
