"""Connections: programs and files of this machine, and of a real sshd's on loopback."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulelab.errors import HardwareMissing, InstrumentFault, UserError
from joulelab.instruments import battery, cpu_time, powercap, rapl_perf
from joulelab.timebase import BenchNs, MonotonicClock
from joulelab.transports import agent
from joulelab.transports.base import Reply
from joulelab.transports.connection import Connection, connect
from joulelab.transports.files import AgentFiles, split
from joulelab.transports.process import ProcessTransport
from tests.peers import sshd
from tests.peers.sshd import Sshd

CLOCK = MonotonicClock()
HERE = connect("local", CLOCK)


def shell(script: str, *, place: Connection = HERE) -> closing[ProcessTransport]:
    """A shell script on a machine."""
    transport = place.open(["sh", "-c", script])
    assert isinstance(transport, ProcessTransport)
    return closing(transport)


def gone(pid: int) -> bool:
    """Whether a process ends within the test's timeout."""
    with suppress(FileNotFoundError, ProcessLookupError):
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
    return True


class TestProgram:
    def test_lines_come_whole_and_stamped(self) -> None:
        before = CLOCK.now()
        with shell("printf 'one\\ntw'; sleep 0.05; printf 'o\\n\\nthree\\n'; sleep 60") as lines:
            replies = [lines.exchange() for _ in range(4)]
        assert [reply.data for reply in replies] == [b"one", b"two", b"", b"three"]
        assert all(before <= reply.before <= reply.after for reply in replies)
        assert replies[1].after - replies[0].after >= 40_000_000

    def test_takes_lines(self) -> None:
        with shell("read line; echo got $line; sleep 60") as lines:
            assert lines.exchange(b"this").data == b""
            assert lines.exchange().data == b"got this"

    def test_the_end_is_a_fault_again_and_again(self) -> None:
        """A tegrastats that had died was once waited for at 100 % of a core (jetson-stats)."""
        with shell("echo one; printf torn; echo first >&2; echo no such rail >&2; exit 3") as lines:
            assert lines.exchange().data == b"one"
            for _ in range(3):
                with pytest.raises(InstrumentFault, match=r"^sh has ended: no such rail$") as fault:
                    lines.exchange()
                assert fault.value.transient

    def test_an_end_without_a_word_tells_the_status(self) -> None:
        with shell("exit 3") as lines, pytest.raises(InstrumentFault, match=r"^sh has ended: status 3$"):
            lines.exchange()

    def test_a_line_for_a_program_that_has_ended(self) -> None:
        with shell("exec <&-; echo closed") as lines:
            assert lines.exchange().data == b"closed"
            with pytest.raises(InstrumentFault, match="sh has ended"):
                lines.exchange(b"anybody?")

    def test_silence_is_a_fault(self) -> None:
        with shell("sleep 60") as lines:
            lines.timeout_s = 0.05
            with pytest.raises(InstrumentFault, match=r"^sh: silent for 0.05 s$") as fault:
                lines.exchange()
        assert fault.value.transient

    def test_a_chatty_program_is_not_held_up(self) -> None:
        with shell("head -c 300000 /dev/zero >&2; echo done; sleep 60") as lines:
            assert lines.exchange().data == b"done"

    def test_closing_ends_the_whole_group_and_what_ignores_it(self) -> None:
        with shell("trap '' TERM; sleep 60 & echo $!; echo $$; wait; sleep 60") as lines:
            pids = [int(lines.exchange().data) for _ in range(2)]
        assert all(gone(pid) for pid in pids)
        lines.close()

    def test_no_such_program(self) -> None:
        with pytest.raises(HardwareMissing, match=r"^tegrastats: tegrastats cannot be started: No such file"):
            HERE.open(["tegrastats"])


class TestFiles:
    def test_holds_what_files_hold(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("1\n")
        with closing(HERE.files()) as files:
            reply = files.exchange(f"cat {tmp_path}/a {tmp_path}/none".encode())
            assert reply.before <= reply.after
            assert split(reply.data) == (None, [b"1\n", b"!No such file or directory"])
            (tmp_path / "a").write_text("22\n")
            assert split(files.exchange(f"cat {tmp_path}/a".encode()).data)[1] == [b"22\n"]

    def test_lists_what_there_is(self, tmp_path: Path) -> None:
        for name in ("b2", "b1", "c"):
            (tmp_path / name).touch()
        with closing(HERE.files()) as files:
            listed = split(files.exchange(f"ls {tmp_path}/b* {tmp_path}/none {tmp_path}/c".encode()).data)[1]
        assert [path.rpartition(b"/")[2] for path in listed] == [b"b1", b"b2", b"c"]

    def test_a_device_that_comes_back_is_read_again(self) -> None:
        """A number of a process in /proc vanishes under an open descriptor, as a device's does."""
        with closing(HERE.files()) as files, subprocess.Popen(["sleep", "60"]) as process:
            request = f"cat /proc/{process.pid}/oom_score".encode()
            assert split(files.exchange(request).data)[1][0].strip().isdigit()
            process.kill()
            process.wait()
            for reason in (b"!No such process", b"!No such file or directory"):
                assert split(files.exchange(request).data)[1] == [reason]

    @given(st.lists(st.binary()))
    def test_an_agent_out_of_step_is_a_fault(self, said: list[bytes]) -> None:
        """Whatever it says: nothing, too little, or no number where one was due."""
        lines = [line for text in said for line in text.split(b"\n")]
        try:
            AgentFiles(Said(lines)).exchange(b"cat x")
        except InstrumentFault as fault:
            transient = fault.transient
        else:
            transient = True
        assert transient


class Said:
    """Lines that were said; the end is a fault."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    def exchange(self, request: bytes = b"") -> Reply:
        if not request and not self._lines:
            raise InstrumentFault("ended", transient=True)
        return Reply(b"" if request else self._lines.pop(0), BenchNs(1), BenchNs(2))

    def close(self) -> None:
        pass


class TestAgent:
    SOURCE = Path(agent.__file__)

    def test_keeps_to_python_3_8_and_the_standard_library(self) -> None:
        tree = ast.parse(self.SOURCE.read_text(), feature_version=(3, 8))
        imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        assert imported <= sys.stdlib_module_names

    @pytest.mark.parametrize("ending", ["its input ends", "it is told to end"])
    def test_takes_its_program_with_it(self, ending: str) -> None:
        command = [sys.executable, "-IS", str(self.SOURCE), "open", "sh", "-c", "echo $$; exec sleep 60"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline().strip() == agent.HELLO
            stamp, pid = process.stdout.readline().split()
            assert int(stamp) <= agent.now()
            if ending == "its input ends":
                process.stdin.close()
            else:
                process.terminate()
            assert gone(int(pid))


@pytest.mark.parametrize("url", ["ssh://", "ssh://host:port", "ssh://a@b@c", "ssh://-oProxyCommand=x", "ssh://h/path"])
def test_no_host_in_a_url(url: str) -> None:
    with pytest.raises(UserError, match=r"names no host: expected ssh://\[user@\]host\[:port\]"):
        connect(url, CLOCK)


@pytest.mark.parametrize("url", ["orin", "telnet://orin"])
def test_no_connection(url: str) -> None:
    with pytest.raises(UserError, match="names no connection: expected local, ssh://"):
        connect(url, CLOCK)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if sshd.PROGRAM is None:
        pytest.skip(sshd.MISSING)
    with sshd.running(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Sshd) -> str:
    return server.client("user")


@pytest.fixture
def host(server: Sshd, client: str, monkeypatch: pytest.MonkeyPatch) -> Connection:
    monkeypatch.setenv("JOULELAB_SSH", client)
    return connect(server.url, CLOCK)


@pytest.mark.peers
class TestSsh:
    def test_streams_lines_with_stamps(self, host: Connection) -> None:
        began = agent.now()
        with shell("echo one; read line; echo got $line; echo; sleep 60", place=host) as lines:
            stamp, line = lines.exchange().data.split(b" ")
            assert line == b"one"
            lines.exchange(b"clock")
            clock = int(lines.exchange().data)
            lines.exchange(b"this")
            replies = [lines.exchange() for _ in range(2)]
        assert [reply.data.partition(b" ")[2] for reply in replies] == [b"got this", b""]
        assert began <= int(stamp) <= clock <= int(replies[0].data.split()[0]) <= agent.now()

    def test_reads_files(self, host: Connection, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("1\n\n2\n")
        began = agent.now()
        with closing(host.files()) as files:
            stamp, records = split(files.exchange(f"cat {tmp_path}/a {tmp_path}/none".encode()).data)
            assert records == [b"1\n\n2\n", b"!No such file or directory"]
            assert stamp is not None
            assert began <= stamp <= agent.now()
            assert split(files.exchange(b"ls /none*").data)[1] == []
            assert split(files.exchange(b"ls /proc/sel?").data)[1] == [b"/proc/self"]

    @pytest.mark.skipif(os.geteuid() != 0, reason="finding the process of a login needs root")
    def test_a_connection_that_breaks_is_a_transient_fault(self, host: Connection, server: Sshd) -> None:
        with shell("echo $$; sleep 60", place=host) as lines:
            pid = int(lines.exchange().data.split()[1])
            for session in server.sessions:
                os.kill(session, signal.SIGKILL)
            with pytest.raises(InstrumentFault, match=rf"^{server.url}: sh has ended: ") as fault:
                lines.exchange()
            assert fault.value.transient
        assert gone(pid)

    def test_closing_ends_the_program_there(self, host: Connection) -> None:
        with shell("echo $$; sleep 60", place=host) as lines:
            pid = int(lines.exchange().data.split()[1])
        assert gone(pid)

    @pytest.mark.parametrize(("script", "said"), [("echo no rail >&2; exit 3", "no rail"), ("exit 3", "status 3")])
    def test_a_program_that_ends_there(self, host: Connection, script: str, said: str) -> None:
        with shell(script, place=host) as lines, pytest.raises(InstrumentFault, match=f"sh has ended: {said}$"):
            lines.exchange()

    def test_no_such_program_there(self, host: Connection) -> None:
        with pytest.raises(HardwareMissing, match=rf"^{host.url}: tegrastats: No such file or directory$"):
            host.open(["tegrastats"])

    def test_words_of_a_login_script_are_passed_over(
        self, server: Sshd, host: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        login = 'command="echo Welcome; eval \\"$SSH_ORIGINAL_COMMAND\\""'
        monkeypatch.setenv("JOULELAB_SSH", server.client("welcomed", login))
        with shell("echo one; sleep 60", place=host) as lines:
            assert lines.exchange().data.endswith(b" one")

    def test_no_python_there(self, server: Sshd, host: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
        login = 'command="PATH=/none; eval \\"$SSH_ORIGINAL_COMMAND\\""'
        monkeypatch.setenv("JOULELAB_SSH", server.client("bare", login))
        with pytest.raises(HardwareMissing, match="it has no python3: install it there"):
            host.files()

    def test_a_key_that_it_does_not_take(self, server: Sshd, host: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JOULELAB_SSH", server.client("stranger", None))
        with pytest.raises(HardwareMissing, match="it takes none of your keys: run `ssh-copy-id -p "):
            host.files()

    def test_a_host_key_that_nobody_accepted(
        self, client: str, host: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("JOULELAB_SSH", f"{client} -o UserKnownHostsFile=/dev/null")
        login, port = host.url.removeprefix("ssh://").split(":")
        message = f"{host.url}: its host key is not known yet: run `ssh -p {port} {login}` once and accept it"
        with pytest.raises(HardwareMissing, match=f"^{message}$"):
            host.files()

    def test_another_host_key_than_before(
        self, server: Sshd, client: str, host: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = (server.folder / "known_hosts").read_text().split()[0]
        (tmp_path / "known").write_text(f"{name} {(server.folder / 'user.pub').read_text()}")
        monkeypatch.setenv("JOULELAB_SSH", f"{client} -o UserKnownHostsFile={tmp_path}/known")
        with pytest.raises(HardwareMissing, match="its host key is another than before"):
            host.files()

    @pytest.mark.usefixtures("host")
    def test_nobody_listens(self) -> None:
        with pytest.raises(HardwareMissing, match=r"cannot be reached \(Connection refused\): see whether `ssh -p 1 "):
            connect("ssh://127.0.0.1:1", CLOCK).files()

    def test_no_ssh_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JOULELAB_SSH", "no-such-ssh")
        with pytest.raises(HardwareMissing, match="no-such-ssh cannot be started: No such file"):
            connect("ssh://orin", CLOCK).files()


@pytest.fixture
def rapl(tmp_path: Path) -> Path:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, text in {"name": "package-0", "energy_uj": 81_234_567, "max_energy_range_uj": 262_143_328_850}.items():
        (zone / name).write_text(f"{text}\n")
    return tmp_path


@pytest.mark.peers
class TestMetersOverSsh:
    def test_reads_the_same_channels_as_here_with_the_devices_stamps(self, host: Connection, rapl: Path) -> None:
        options = powercap.Driver.Options(root=str(rapl))
        here, there = powercap.Driver("here", options, CLOCK), powercap.Driver("there", options, CLOCK, host)
        began = agent.now()
        for meter in (here, there):
            meter.open()
        block = there.read()
        assert block.values == here.read().values == [[81.234567]]
        for meter in (here, there):
            meter.close()
        assert (there.channels, there.identity) == (here.channels, here.identity)
        assert block.device is not None
        assert began <= block.device[0] <= agent.now()

    @pytest.mark.skipif(os.geteuid() != 0, reason="finding the process of a login needs root")
    def test_a_broken_connection_is_mended_by_opening_again(self, host: Connection, server: Sshd) -> None:
        meter = cpu_time.Driver("there", cpu_time.Driver.Options(), CLOCK, host)
        meter.open()
        for session in server.sessions:
            os.kill(session, signal.SIGKILL)
        with pytest.raises(InstrumentFault, match="files has ended") as fault:
            meter.read()
        assert fault.value.transient
        meter.close()
        meter.open()
        assert meter.read().values[1][0] > 0
        meter.close()

    def test_doctor_and_discover_look_there(self, host: Connection) -> None:
        (check,) = battery.Driver.doctor(host)
        assert (check.what, check.ok) == ("battery", False)
        assert list(battery.Driver.discover(host, None)) == []

    def test_a_place_that_cannot_be_reached_is_said(self, host: Connection) -> None:
        with pytest.raises(HardwareMissing, match="it cannot be reached"):
            list(powercap.Driver.discover(connect("ssh://127.0.0.1:1", CLOCK), None))

    def test_perf_events_stay_here(self, host: Connection) -> None:
        (check,) = rapl_perf.Driver.doctor(host)
        assert check.message.startswith("perf events are read on this machine only")
