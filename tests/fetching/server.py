"""A web server on this machine that misbehaves as told, for tests of downloads.

    with FaultyServer({"/a.zip": data}) as server:
        server.faults["/a.zip"] = Fault(cut_after=1000, times=1)
        fetch_from(server.url("/a.zip"))
        assert server.ranges("/a.zip") == [None, "bytes=1000-"]

It serves a dict of path to bytes, or a folder. It knows Range, If-Range, ETag and Last-Modified.
``server.log`` holds every request; ``faults`` and ``files`` may be changed between requests.
"""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

MODIFIED = "Wed, 01 Jan 2020 00:00:00 GMT"
CHUNK = 8192


@dataclass
class Fault:
    """How a path misbehaves; several may be set at once."""

    times: int | None = None
    """How many requests it concerns, None for all; later ones are answered well."""
    status: int | None = None
    """Answer with this status and no file."""
    retry_after: str | None = None
    """The header Retry-After of such an answer."""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    stall_after: int | None = None
    """Send so many bytes of the body, then nothing more until the server stops."""
    delay: float = 0.0
    """Seconds to sleep before each chunk of 8 KiB."""
    body: bytes | None = None
    """Send these bytes instead of the file's, with their own ETag."""
    no_range: bool = False
    """Take no notice of Range: always 200 and the whole file."""
    ignore_if_range: bool = False
    """Take no notice of If-Range: 206 though the file is another."""
    no_validators: bool = False
    """Send neither ETag nor Last-Modified."""
    no_length: bool = False
    """Send no Content-Length; the end of the connection is the end of the file."""
    content_type: str = "application/octet-stream"
    after: Callable[[], None] | None = None
    """Called once the answer is sent (or cut), such as to change the file."""


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    path: str
    range: str | None
    if_range: str | None
    headers: dict[str, str]


class FaultyServer:
    """A threading HTTP server on 127.0.0.1, on a port of its own; a context manager."""

    def __init__(self, files: dict[str, bytes] | Path) -> None:
        """Serve a dict of path (with a leading slash) to bytes, or the files of a folder."""
        self.files = files
        self.faults: dict[str, Fault] = {}
        self.log: list[Request] = []
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, stalled answers too."""
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str = "") -> str:
        """Return the address of a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def ranges(self, path: str) -> list[str | None]:
        """Return the Range headers of all requests for a path, in order."""
        return [request.range for request in self.log if request.path == path]

    def content(self, path: str) -> bytes | None:
        """Return the bytes of a path, None if there is no such file."""
        if isinstance(self.files, dict):
            return self.files.get(path)
        file = self.files / path.lstrip("/")
        return file.read_bytes() if file.is_file() else None

    def arrived(self, request: Request) -> Fault:
        """Log a request and return how to misbehave."""
        with self._lock:
            self.log.append(request)
            fault = self.faults.get(request.path, Fault())
            if fault.times is None:
                return fault
            fault.times -= 1
            return fault if fault.times >= 0 else Fault()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: FaultyServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that hang up are what tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing; the log is a list."""

    def do_GET(self) -> None:
        headers = dict(self.headers.items())
        asked, if_range = headers.get("Range"), headers.get("If-Range")
        owner = self.server.owner
        fault = owner.arrived(Request(self.path, asked, if_range, headers))
        data = fault.body if fault.body is not None else owner.content(self.path)
        try:
            if fault.status is not None or data is None:
                self._refuse(fault)
            else:
                self._answer(fault, data, asked, if_range)
        finally:
            if fault.after is not None:
                fault.after()

    def _refuse(self, fault: Fault) -> None:
        self.send_response(fault.status or 404)
        if fault.retry_after is not None:
            self.send_header("Retry-After", fault.retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, fault: Fault, data: bytes, asked: str | None, if_range: str | None) -> None:
        etag, size, start = f'"{hashlib.md5(data).hexdigest()}"', len(data), 0
        same = if_range in (None, etag, MODIFIED) or fault.ignore_if_range
        if asked and same and not fault.no_range:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start and start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Type", fault.content_type)
        if not fault.no_validators:
            self.send_header("ETag", etag)
            self.send_header("Last-Modified", MODIFIED)
        if fault.no_length:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(size - start))
        self.end_headers()
        self._send(fault, data[start:])

    def _send(self, fault: Fault, body: bytes) -> None:
        ends = [end for end in (fault.cut_after, fault.stall_after) if end is not None]
        end = min([len(body), *ends])
        for place in range(0, end, CHUNK):
            if fault.delay:
                time.sleep(fault.delay)
            self.wfile.write(body[place : min(place + CHUNK, end)])
        self.wfile.flush()
        if fault.stall_after is not None:
            self.server.owner.stopped.wait()
        if end < len(body) or fault.cut_after is not None:
            self.close_connection = True
            self._hang_up()

    def _hang_up(self) -> None:
        """Close the connection; what was sent still arrives."""
        self.connection.shutdown(socket.SHUT_WR)
