"""llama.cpp's server in a process of its own (`python -m` this module), which ends when its standard input closes.

So it never outlives the process that started it, however that ended. It reads its specification as one JSON line and
answers with one: where it listens, or why it does not.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from typing import Any

from joulelab.devices.openmp import environment
from joulelab.devices.random_model import model_cache
from joulelab.errors import UserError

HOST = "127.0.0.1"
SAVED = 100
"""The descriptor of the memory that takes a slot's cache. It has no name and no quota, and goes with the process."""


@dataclass(frozen=True)
class Spec:
    """How to start the server. `context` [tokens] is that of each of the `slots`; `port` 0 takes a free one."""

    model: str
    threads: int
    context: int
    slots: int
    batch: int
    ubatch: int
    cores: tuple[int, ...]
    port: int = 0


class LlamaChild:
    """The parent's end: a running server, started by `spec`. `url`, `pid` and `build` are what it said of itself.

    UserError with llama.cpp's reason where it does not start.
    """

    def __init__(self, spec: Spec) -> None:
        with tempfile.TemporaryFile("w+") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __spec__.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(model_cache().parent / "lib"),
                start_new_session=True,  # Ctrl-C is for the runner, which closes this process in its own time
            )
            ready = self._ask(asdict(spec))
            if "error" in ready:
                self.close()
                log.seek(0)
                raise UserError(f"{ready['error']}{_first_error(log.read())}")
        self.spec = spec
        self.url: str = ready["url"]
        self.pid: int = ready["pid"]
        self.build: str = ready["build"]

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, spec: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(spec), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": f"llama.cpp ended with status {self._process.wait()}"}


def _first_error(log: str) -> str:
    """The first error in llama.cpp's log, which says most: the later ones say that loading failed."""
    match = re.search(r"^[\d.]+ E (.*)", log, re.MULTILINE)
    return f": {match[1]}" if match else ""


def main() -> int:
    """The child's end."""
    spec = Spec(**json.loads(sys.stdin.readline()))
    os.sched_setaffinity(0, spec.cores)
    try:
        _check_port(spec.port)
        server = _serve(spec)  # it serves as long as it is referred to
    except (ImportError, OSError, RuntimeError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    print(json.dumps({"url": server.listening_address, "pid": os.getpid(), "build": _build()}), flush=True)
    sys.stdin.read()
    os._exit(0)  # the interpreter's own end would wait for an inference in progress


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise OSError(f"port {port} cannot be used ({error.strerror}): name another, or leave it out") from error


def _serve(spec: Spec) -> Any:
    from xllamacpp import CommonParams, Server

    p = CommonParams()
    p.model.path = spec.model
    p.hostnames = [HOST]
    p.port = spec.port
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = spec.threads
    p.n_parallel = spec.slots
    p.n_ctx = spec.context * spec.slots
    p.n_batch, p.n_ubatch = spec.batch, spec.ubatch
    p.fit_params = False  # else it lowers these settings to fit into memory, unasked
    p.cache_ram_mib = 0  # no copies of old prompts: what is cached is what the last request left in its slot
    p.warmup = False  # the protocol warms up, and journals it
    os.dup2(os.memfd_create("cache"), SAVED)
    p.slot_save_path = f"/proc/{os.getpid()}/fd/"
    p.verbosity = 1
    try:
        return Server(p)
    except RuntimeError as error:
        raise RuntimeError(f"llama.cpp cannot serve {spec.model}") from error


def _build() -> str:
    import xllamacpp

    return f"xllamacpp {xllamacpp.__version__} ({xllamacpp.get_system_info().strip(' |')})"


if __name__ == "__main__":
    sys.exit(main())
