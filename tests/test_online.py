"""From what is plugged in to a checked bench, as an operator types it: discover, doctor, check --online and --load."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from joulelab.cli import main
from joulelab.instruments.undo import Undo
from tests.peers import scpi

Call = Callable[..., tuple[int, Any]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the command line with `--json` on `lab.yaml` in a folder of its own: exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def called(*arguments: str) -> tuple[int, Any]:
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--json"])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return int(end.value.code or 0), json.loads(said.out)

    return called


@pytest.fixture
def meter() -> Iterator[tuple[scpi.Meter, str]]:
    peer = scpi.WT310E()
    with scpi.tcp(peer) as resource:
        yield peer, resource


def test_what_discover_prints_check_accepts_unchanged(
    call: Call, meter: tuple[scpi.Meter, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peer, resource = meter
    before = dict(peer.settings)
    with pytest.raises(SystemExit):
        main(["discover", resource])
    (tmp_path / "lab.yaml").write_text("version: 1\n" + capsys.readouterr().out)
    code, found = call("check", "--online")
    assert code == 0
    (row,) = found["checks"]
    assert row["ok"]
    assert row["reads"]["power"].endswith("W at the wall")
    assert peer.settings == before


def test_a_meter_that_is_gone_or_another_one_is_told_with_its_name(
    call: Call, meter: tuple[scpi.Meter, str], tmp_path: Path
) -> None:
    _, resource = meter
    lab = "version: 1\ninstruments:\n  wall: {{driver: {}, resource: '{}', scope: wall, serial: {}}}\n"
    (tmp_path / "lab.yaml").write_text(lab.format("scpi/yokogawa-wt310e", resource, "C3WA09999E"))
    code, found = call("check", "--online")
    assert code == 2
    assert "lab.yaml says C3WA09999E" in found["checks"][0]["message"]
    (tmp_path / "lab.yaml").write_text(lab.format("scpi/siglent-spd", resource, "x"))
    assert "WT310E" in call("check", "--online")[1]["checks"][0]["message"]
    (tmp_path / "lab.yaml").write_text(lab.format("scpi/siglent-spd", "TCPIP0::127.0.0.1::9::SOCKET", "x"))
    code, found = call("check", "--online")
    assert code == 2
    assert found["checks"][0]["instrument"] == "wall"


def test_nothing_is_found_where_nothing_answers(call: Call) -> None:
    assert call("discover", "TCPIP0::127.0.0.1::9::SOCKET") == (0, [])


def test_the_doctor_names_what_a_crash_left_changed(call: Call) -> None:
    Undo("TCPIP0::192.0.2.1::INSTR", str).remember([":RATE 1"])
    code, rows = call("doctor")
    assert code == 0
    (left,) = [row for row in rows if row["driver"] == "settings"]
    assert left["what"] == "TCPIP0::192.0.2.1::INSTR"
    assert not left["ok"]
    assert all(row["message"] for row in rows)
    assert len({(row["what"], row["message"]) for row in rows}) == len(rows)


LAB = """
version: 1
instruments:
  one: {{driver: scpi/yokogawa-wt310e, resource: "{one}", scope: wall, feeds: [{first}]}}
  two: {{driver: scpi/yokogawa-wt310e, resource: "{two}", scope: wall, feeds: [{second}]}}
devices:
  small: {{engine: {{driver: llama-server, model: {{random: llama-15m}}, context: 512}}}}
  other: {{engine: {{driver: llama-server, model: {{random: llama-15m}}, context: 512, batch: 256}}}}
"""


def engines() -> Iterator[tuple[int, int]]:
    """The engines that this process runs: process number and CPU time [ticks]."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
            if int(fields[1]) == os.getpid() and "llama_child" in (folder / "cmdline").read_text():
                yield int(folder.name), int(fields[11]) + int(fields[12])
        except OSError:
            continue


@contextmanager
def drawing(meters: Sequence[scpi.WT310E]) -> Iterator[None]:
    """Have each meter in turn show the load of one engine after another: more current while it computes."""
    ending = threading.Event()

    def follow() -> None:
        seen: dict[int, int] = {}
        while not ending.wait(0.05):
            for pid, ticks in engines():
                busy = ticks > seen.get(pid, ticks) + 2
                seen[pid] = ticks
                meters[list(seen).index(pid) % len(meters)].amps = 0.4 if busy else 0.1

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


@pytest.mark.long
def test_a_load_on_each_device_shows_what_is_wired_where(call: Call, tmp_path: Path) -> None:
    meters = [scpi.WT310E(), scpi.WT310E()]
    with scpi.tcp(meters[0]) as one, scpi.tcp(meters[1]) as two, drawing(meters):
        (tmp_path / "lab.yaml").write_text(LAB.format(one=one, two=two, first="small", second="other"))
        code, found = call("check", "--load")
        assert code == 0, json.dumps(found["checks"], indent=1)
        (tmp_path / "lab.yaml").write_text(LAB.format(one=one, two=two, first="other", second="small"))
        code, swapped = call("check", "--load")
        assert code == 2
    assert "the two are swapped" in json.dumps(swapped)
