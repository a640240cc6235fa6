"""The server under the local page.

Flask's own (werkzeug's), started without its debugger and reloader: it comes with Flask, so nothing more has to be
installed, and it serves the handful of people a local page has. What production servers add (many processes, a
defence against thousands of slow connections) has no use here; the two things that do, a time limit on silent
connections and one request at a time in the net, are set here and in ``upload``.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from typing import TYPE_CHECKING, Any

from caffe2torch.errors import UsageError

if TYPE_CHECKING:
    from flask import Flask

SILENCE = 60  # seconds a connection may say nothing


def is_local(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_names(host: str) -> list[str]:
    """Names under which others on the network may know this machine, when it listens to them."""
    if is_local(host):
        return []
    name = socket.gethostname()
    return [host, name, f"{name}.local", socket.getfqdn()]


def make_server(app: Flask, host: str, port: int) -> Any:
    """A threaded server, bound and ready; UsageError where the port is taken or the address is not this machine's."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        timeout = SILENCE
        server_version, sys_version = "caffe2torch", ""

        def version_string(self) -> str:
            return self.server_version

        def log(self, type: str, message: str, *args: Any) -> None:
            if type == "error":
                super().log(type, message, *args)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """No line for each picture."""

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen at {host} port {port}: {reason}; choose another --port or --host") from error
    with listener:  # the server takes a copy; on its own it would print and exit where a port is taken
        port = listener.getsockname()[1]
        return make_server(host, port, app, threaded=True, request_handler=Handler, fd=listener.fileno())


def run(server: Any, host: str) -> None:
    """Say where the page is and serve it until Ctrl-C."""
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown if host not in ('0.0.0.0', '::') else socket.gethostname()}:{server.port}/"
    print(f"open {address} in a browser; Ctrl-C ends", flush=True)
    server.serve_forever()  # returns on Ctrl-C, and closes
    print("\nended", file=sys.stderr)
