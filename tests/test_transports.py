"""Transports against real servers on loopback, and tapes of what they said."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulelab.errors import DataInvalid, InstrumentFault
from joulelab.timebase import BenchNs, MonotonicClock, VirtualClock
from joulelab.transports.base import Reply
from joulelab.transports.cpu import CPU, CpuClock
from joulelab.transports.http import HttpTransport
from joulelab.transports.tape import Cassette, Line, Tape

CLOCK = MonotonicClock()


class Handler(BaseHTTPRequestHandler):
    """Echoes JSON, streams events one chunk each, refuses, breaks off, or says nothing."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/silent":
            self.rfile.read(1)  # until the client hangs up
        if self.path in {"/silent", "/nothing"}:
            return
        status = {"/missing": 404, "/loading": 503}.get(self.path, 200)
        self._reply(status, b'{"path": "%s"}\n' % self.path.encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/echo":
            self._reply(200, body)
        else:
            self._stream(end=b"0\r\n\r\n" if self.path == "/stream" else b"")

    def _stream(self, end: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        # As servers may send them: a comment, two events at once, one event in two pieces.
        for chunk in (b": ping\n\n", b"data: 1\n\ndata: 2\r\n\r\n", b"data: ", b"3\n\n"):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        self.wfile.write(end)

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def http(url: str) -> Iterator[HttpTransport]:
    transport = HttpTransport(url, CLOCK, timeout_s=0.1)
    yield transport
    transport.close()


def pieces(transport: HttpTransport | Tape | Cassette, request: bytes) -> list[Reply]:
    """Every piece of a stream, its empty end included."""
    replies = [transport.exchange(request)]
    while replies[-1].data:
        replies.append(transport.exchange())
    return replies


def test_a_whole_reply_is_one_piece(http: HttpTransport) -> None:
    assert http.exchange(b"GET /here").data == b'{"path": "/here"}\n'
    assert http.exchange().data == b""


def test_a_body_goes_out_unchanged(http: HttpTransport) -> None:
    body = b'{"a": "line\nand another"}'
    assert http.exchange(b"POST /echo\n" + body).data == body


def test_a_stream_comes_line_by_line(http: HttpTransport) -> None:
    data = [reply.data for reply in pieces(http, b"POST /stream\n{}")]
    assert data == [b": ping", b"data: 1", b"data: 2", b"data: 3", b""]


def test_stamps_follow_each_other(http: HttpTransport) -> None:
    replies = pieces(http, b"POST /stream\n{}")
    stamps = [stamp for reply in replies for stamp in (reply.before, reply.after)]
    assert stamps == sorted(stamps)


def test_a_stream_that_breaks_off_ends(http: HttpTransport) -> None:
    assert [reply.data for reply in pieces(http, b"POST /broken\n{}")][-2:] == [b"data: 3", b""]


def test_a_new_request_leaves_the_old_stream(http: HttpTransport) -> None:
    http.exchange(b"POST /stream\n{}")
    assert http.exchange(b"GET /next").data == b'{"path": "/next"}\n'


def test_a_path_in_the_address_comes_first(url: str) -> None:
    transport = HttpTransport(f"{url}/v2/", CLOCK)
    assert transport.exchange(b"GET /here").data == b'{"path": "/v2/here"}\n'
    transport.close()


@pytest.mark.parametrize(
    ("path", "says", "transient"),
    [
        ("/missing", 'HTTP 404: {"path": "/missing"}', False),
        ("/loading", "HTTP 503", True),
        ("/silent", "timed out", True),
        ("/nothing", "closed connection without response", True),
    ],
)
def test_a_failed_exchange_is_a_fault(http: HttpTransport, path: str, says: str, transient: bool) -> None:
    with pytest.raises(InstrumentFault, match=says) as fault:
        http.exchange(b"GET " + path.encode())
    assert str(fault.value).startswith("http://127.0.0.1:")
    assert fault.value.transient == transient


def test_nobody_listening_is_a_stable_fault() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(InstrumentFault, match=f"{url}: Connection refused") as fault:
        HttpTransport(url, CLOCK).exchange(b"GET /")
    assert not fault.value.transient


def test_cpu_time_comes_with_the_other_exchanges(http: HttpTransport) -> None:
    transport = CpuClock(http, os.getpid(), CLOCK)
    first = int(transport.exchange(CPU).data)
    assert transport.exchange(b"GET /here").data == b'{"path": "/here"}\n'
    assert 0 < first < int(transport.exchange(CPU).data) <= time.process_time_ns()


def test_the_cpu_time_of_an_ended_process_is_a_fault(http: HttpTransport) -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    with pytest.raises(InstrumentFault, match=f"process {pid} has ended"):
        CpuClock(http, pid, CLOCK).exchange(CPU)


class Script:
    """Replies what it was given, whatever is asked."""

    def __init__(self, replies: list[Reply | InstrumentFault]) -> None:
        self._replies = iter(replies)

    def exchange(self, request: bytes = b"") -> Reply:
        reply = next(self._replies)
        if isinstance(reply, InstrumentFault):
            raise reply
        return reply

    def close(self) -> None:
        """There is nothing to close."""


def outcome(transport: Tape | Cassette, request: bytes) -> Reply | tuple[str, bool]:
    try:
        return transport.exchange(request)
    except InstrumentFault as fault:
        return str(fault), fault.transient


STAMP = st.integers(0, 2**62).map(BenchNs)
REPLIES = st.builds(Reply, st.binary(), STAMP, STAMP)
FAULTS = st.builds(lambda text, transient: InstrumentFault(text, transient=transient), st.text(), st.booleans())


@given(st.lists(st.tuples(st.binary(), REPLIES | FAULTS)))
def test_a_cassette_plays_what_was_taped(exchanges: list[tuple[bytes, Reply | InstrumentFault]]) -> None:
    lines: list[str] = []
    tape = Tape(Script([reply for _, reply in exchanges]), lambda line: lines.append(json.dumps(line)))
    taped = [outcome(tape, request) for request, _ in exchanges]
    tape.flush()
    cassette = Cassette(map(json.loads, lines))
    assert [outcome(cassette, request) for request, _ in exchanges] == taped


def test_nothing_is_written_before_the_flush(http: HttpTransport) -> None:
    lines: list[Line] = []
    tape = Tape(http, lines.append)
    replies = pieces(tape, b"POST /stream\n{}")
    assert lines == []
    tape.flush()
    tape.flush()
    assert lines == [
        {"request": request, "reply": reply.data.decode(), "before": reply.before, "after": reply.after}
        for request, reply in zip(["POST /stream\n{}", "", "", "", ""], replies, strict=True)
    ]


def cassette(*requests: str) -> Cassette:
    now = VirtualClock().now()
    return Cassette({"request": request, "reply": "", "before": now, "after": now} for request in requests)


def test_a_driver_that_asks_for_something_else_is_told_where() -> None:
    tape = cassette("same", "GET /props")
    tape.exchange(b"same")
    with pytest.raises(DataInvalid, match=r"exchange 2 .* byte 5 on: recorded b'props', asked now b'slots'"):
        tape.exchange(b"GET /slots")


def test_a_driver_that_asks_for_more_is_told_so() -> None:
    with pytest.raises(DataInvalid, match=r"the tape has ended, but the driver goes on with b'more'"):
        cassette().exchange(b"more")
