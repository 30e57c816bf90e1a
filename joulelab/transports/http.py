"""HTTP, whole replies and event streams. The standard library's client takes half of httpx's CPU time per token."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urlsplit

from joulelab.errors import InstrumentFault
from joulelab.timebase import BenchNs, Clock
from joulelab.transports.base import Reply

# llama.cpp's server drops a kept-alive connection after a streamed reply, so each request has a connection of its own.
_HEADERS = {"Content-Type": "application/json", "Connection": "close"}


class HttpTransport:
    """One server. A request is `METHOD /path`, then, where there is a body, a newline and the body.

    The reply to a request is the whole body, or the first line of an event stream; the lines that follow are the next
    pieces. `before` of a request is stamped once connected, so that connecting is in no measured time.
    """

    def __init__(self, url: str, clock: Clock, timeout_s: float = 600.0) -> None:
        self._url = url.rstrip("/")
        self._clock = clock
        self._timeout_s = timeout_s
        self._connection: HTTPConnection | None = None
        self._response: HTTPResponse | None = None

    def exchange(self, request: bytes = b"") -> Reply:
        try:
            before = self._send(request) if request else self._clock.now()
            data = self._piece()
        except (OSError, HTTPException) as error:
            reason = getattr(error, "strerror", None) or error
            transient = not isinstance(error, ConnectionRefusedError)
            raise InstrumentFault(f"{self._url}: {reason}", transient=transient) from error
        return Reply(data, before, self._clock.now())

    def close(self) -> None:
        for end in (self._response, self._connection):
            if end is not None:
                end.close()
        self._response = self._connection = None

    def _send(self, request: bytes) -> BenchNs:
        self.close()
        head, _, body = request.partition(b"\n")
        method, path = head.decode().split(" ", 1)
        self._connection = self._connect()
        before = self._clock.now()
        self._connection.request(method, urlsplit(self._url).path + path, body or None, _HEADERS)
        self._response = self._connection.getresponse()
        if (status := self._response.status) >= 300:
            said = " ".join(self._response.read(300).decode(errors="replace").split())
            raise InstrumentFault(f"{self._url}{path}: HTTP {status}: {said}", transient=status >= 500)
        self._streams = (self._response.getheader("Content-Type") or "").startswith("text/event-stream")
        return before

    def _connect(self) -> HTTPConnection:
        url = urlsplit(self._url)
        kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
        connection = kind(url.netloc, timeout=self._timeout_s)
        connection.connect()
        return connection

    def _piece(self) -> bytes:
        if self._response is None:
            return b""
        if not self._streams:
            return self._response.read()
        while (line := self._response.readline()).isspace():
            pass
        return line.rstrip()
