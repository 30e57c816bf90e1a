"""The meter that CONTRIBUTING.md shows is complete: it runs against a server that answers like the plug."""

from __future__ import annotations

import importlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from joulelab.errors import InstrumentFault
from joulelab.timebase import MonotonicClock
from joulelab.transports.tape import Cassette, Line

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"
MOST_LINES = 60
ANSWERS = {
    "/rpc/Shelly.GetDeviceInfo": {"mac": "A8032ABE54DC"},
    "/rpc/Switch.GetStatus?id=0": {"apower": 42.5, "aenergy": {"total": 2.0}},
}
"""After the maker's documentation of the Gen2 RPC."""


class Plug(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(ANSWERS[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (code,) = re.findall(r"```python\n(\"\"\"Smart plugs.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= MOST_LINES
    (tmp_path / "meter_of_the_guide.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("meter_of_the_guide")


@pytest.fixture
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Plug) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_meter_of_the_guide_runs(shown: Any, url: str) -> None:
    driver = shown.Driver
    lines: list[Line] = []
    options = driver.Options(url=url)
    meter = driver("plug", options, MonotonicClock())
    meter.open()
    meter.record(lines.append)
    block = meter.read()
    meter.close()
    meter.tape.flush()
    assert block.values == [[42.5], [7200.0]]
    assert meter.identity == {"serial": "A8032ABE54DC"}
    replayed = driver("plug", options, MonotonicClock(), transport=Cassette(lines))
    replayed.open()
    assert replayed.read() == block
    with pytest.raises(InstrumentFault, match="not a switch's status"):
        shown.parse(b"<html>")
