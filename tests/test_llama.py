"""llama.cpp itself: a server in a child process, on a small model of random weights."""

from __future__ import annotations

import ctypes
import json
import math
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from joulelab.devices import openmp
from joulelab.devices.architectures import ARCHITECTURES
from joulelab.devices.base import Inference, Request
from joulelab.devices.completion import Stream, draw, phases
from joulelab.devices.llama_child import LlamaChild
from joulelab.devices.llama_server import LlamaServer
from joulelab.devices.random_model import describe_gguf, model_cache, random_gguf
from joulelab.errors import DataInvalid, HardwareMissing, InstrumentFault, UserError
from joulelab.timebase import BenchNs, MonotonicClock
from joulelab.transports.tape import Cassette, Line
from tests.orphans import check_child_ends

Taped = tuple[list[Request], list[Inference], list[Line]]

CLOCK = MonotonicClock()
SMALL: dict[str, Any] = {"model": {"random": "llama-15m"}, "context": 512}


def child(server: LlamaServer) -> LlamaChild:
    assert server._child is not None
    return server._child


def engine(wire: list[Line] | None = None, transport: Cassette | None = None, **options: Any) -> LlamaServer:
    sink = None if wire is None else wire.append
    return LlamaServer("dut", LlamaServer.Options.model_validate(options), CLOCK, sink, transport)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield model_cache()


@pytest.fixture(scope="module")
def model(cache: Path) -> Path:
    return random_gguf("llama-15m", cache)


@pytest.fixture(scope="module")
def wire() -> list[Line]:
    return []


@pytest.fixture(scope="module")
def server(cache: Path, wire: list[Line]) -> Iterator[LlamaServer]:
    server = engine(wire, **SMALL)
    server.open()
    yield server
    server.close()


_numbers = iter(range(10_000))


def ask(history: int, prompt: int, output: int, seed: int = 1) -> Request:
    return Request(next(_numbers), history, prompt, output, seed)


@pytest.mark.parametrize(("prompt", "output"), [(1, 2), (16, 8), (130, 3)])
def test_exactly_the_asked_tokens_are_done(server: LlamaServer, prompt: int, output: int) -> None:
    inference = server.infer(ask(0, prompt, output))
    prefill, decode = inference.phases
    assert len(inference.tokens) == output
    assert list(inference.tokens) == sorted(inference.tokens)
    assert prefill.start < prefill.stop == inference.tokens[0] == decode.start
    assert decode.stop == inference.tokens[-1]
    assert (inference.extra["timings"]["prompt_n"], inference.extra["timings"]["predicted_n"]) == (prompt, output)


def test_cpu_time_and_the_uncertainty_of_the_edge_stand_beside_each_phase(server: LlamaServer) -> None:
    prefill, decode = server.infer(ask(0, 64, 8)).phases
    assert min(prefill.cpu_s or 0, decode.cpu_s or 0) > 0
    assert prefill.boundary_u_s == decode.boundary_u_s is not None


def test_one_token_has_no_decode(server: LlamaServer) -> None:
    (prefill,) = server.infer(ask(0, 16, 1)).phases
    assert (prefill.name, prefill.boundary_u_s) == ("prefill", None)


def test_history_is_cached_and_filled_only_where_it_must_be(server: LlamaServer) -> None:
    histories = [64, 64, 0, 64, 32, 128]
    inferences = [server.infer(ask(history, 16, 4, seed=2)) for history in histories]
    assert [inference.extra["timings"]["cache_n"] for inference in inferences] == histories
    assert ["fill_s" in inference.extra for inference in inferences] == [True, False, False, False, False, True]


def test_the_same_inference_again_is_computed_again(server: LlamaServer) -> None:
    request = ask(32, 16, 2)
    timings = [server.infer(request).extra["timings"] for _ in range(2)]
    assert [t["prompt_n"] for t in timings] == [16, 16]


def test_the_whole_context_can_be_used_and_no_more(server: LlamaServer, wire: list[Line]) -> None:
    server.infer(ask(256, 252, 4))
    exchanges = len(wire)
    with pytest.raises(UserError, match="dut: an inference of 513 tokens is over the context of 512"):
        server.infer(ask(256, 253, 4))
    assert len(wire) == exchanges


def test_exchanges_are_written_after_the_inference(server: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    monkeypatch.setattr(server._tape, "sink", lambda line: written.append(CLOCK.now()))
    inference = server.infer(ask(0, 16, 4))
    assert min(written) > inference.tokens[-1]


def test_the_manifest_says_what_is_served(server: LlamaServer, model: Path) -> None:
    told = server.describe()
    facts = {"model": "llama-15m", "quant": "Q8_0", "weights": "random", "threads": 1, "context": 512, "batch": 1}
    assert {name: told[name] for name in facts} == facts
    assert told["settings"]["model"] == str(model)
    assert os.sched_getaffinity(told["pid"]) == set(told["settings"]["cores"])
    assert told["architecture"] == describe_gguf(model)
    assert len(told["sha256"]) == 64
    assert json.loads(json.dumps(told)) is not None


def test_a_core_is_left_to_the_sampler(server: LlamaServer) -> None:
    cores = os.sched_getaffinity(0)
    taken = set(child(server).spec.cores)
    assert taken | set(server.sampler_cores) == cores
    assert len(cores) == 1 or not taken & set(server.sampler_cores)


def test_two_clients_of_a_server_notice_each_other(server: LlamaServer) -> None:
    server.infer(ask(64, 16, 2))
    other = engine(url=child(server).url, model="some-model")
    other.open()
    theirs = other.infer(ask(48, 16, 4, seed=3))
    told = other.describe()
    other.close()
    assert theirs.extra["timings"]["cache_n"] == 48
    assert [phase.cpu_s for phase in theirs.phases] == [None, None]
    assert (told["model"], told["quant"], told["threads"], told["context"]) == ("some-model", "Q8_0", None, 512)

    ours = ask(64, 16, 2)
    with pytest.raises(InstrumentFault, match="dut: the server's cache_n is 0, where 64 was asked for") as fault:
        server.infer(ours)
    assert fault.value.transient
    assert server.infer(ours).extra["timings"]["cache_n"] == 64


@pytest.fixture(scope="module")
def taped(cache: Path) -> Taped:
    """Inferences of a server, and their tape as it comes back from a file."""
    wire: list[Line] = []
    requests = [ask(0, 16, 4), ask(32, 16, 1), ask(32, 8, 4)]
    server = engine(wire, **SMALL)
    server.open()
    inferences = [server.infer(request) for request in requests]
    server.close()
    return requests, inferences, json.loads(json.dumps(wire))


def replay(lines: list[Line]) -> LlamaServer:
    server = engine(transport=Cassette(lines), **SMALL)
    server.open()
    return server


def test_a_cassette_gives_the_same_inferences(taped: Taped) -> None:
    requests, inferences, lines = taped
    server = replay(lines)
    assert [server.infer(request) for request in requests] == inferences


def test_another_inference_than_the_taped_one_is_noticed(taped: Taped) -> None:
    *_, lines = taped
    with pytest.raises(DataInvalid, match="exchange 4 of the tape differs"):
        replay(lines).infer(ask(0, 16, 4))


@pytest.mark.parametrize("count", ["prompt_n", "predicted_n"])
def test_another_number_of_tokens_than_asked_for_is_a_fault(taped: Taped, count: str) -> None:
    requests, _, lines = taped
    wrong = [line | {"reply": re.sub(rf'"{count}":\d+', f'"{count}":7', line["reply"])} for line in lines]
    with pytest.raises(InstrumentFault, match=f"the server's {count} is 7, where") as fault:
        replay(wrong).infer(requests[0])
    assert not fault.value.transient


def event(lines: list[Line], token: int) -> int:
    """Where the tape has the event that brings token `token` of the first inference."""
    return next(i for i, line in enumerate(lines) if f'"tokens_predicted":{token},' in line["reply"])


def test_a_stream_that_breaks_off_is_a_fault(taped: Taped) -> None:
    requests, _, lines = taped
    cut = event(lines, 3)
    with pytest.raises(InstrumentFault, match="the stream broke off after 2 of 4 tokens") as fault:
        replay([*lines[:cut], lines[cut] | {"reply": ""}]).infer(requests[0])
    assert fault.value.transient


def test_a_token_without_an_event_of_its_own_comes_with_the_next(taped: Taped) -> None:
    requests, inferences, lines = taped
    held_back = event(lines, 2)
    inference = replay(lines[:held_back] + lines[held_back + 1 :]).infer(requests[0])
    first, _, third, fourth = inferences[0].tokens
    assert inference.tokens == (first, third, third, fourth)


def test_a_comment_in_the_stream_is_no_token(taped: Taped) -> None:
    requests, inferences, lines = taped
    sent = event(lines, 1)
    reply, cpu, next_reply = lines[sent : sent + 3]
    inference = replay([*lines[:sent], reply | {"reply": ": ping"}, next_reply, cpu, *lines[sent + 3 :]]).infer(
        requests[0]
    )
    _, second, third, fourth = inferences[0].tokens
    assert inference.tokens == (second, second, third, fourth)


def test_the_edge_is_as_sure_as_client_and_server_agree() -> None:
    tokens = [BenchNs(stamp) for stamp in (30_000_000, 40_000_000, 52_000_000)]
    found = phases(Stream(BenchNs(10_000_000), tokens, [0, 20_000_000, 41_000_000], {"predicted_ms": 23.0}))
    assert [phase.boundary_u_s for phase in found] == [pytest.approx(1e-3 / 3**0.5)] * 2
    assert [(phase.name, phase.start, phase.stop, phase.cpu_s) for phase in found] == [
        ("prefill", 10_000_000, tokens[0], 0.020),
        ("decode", tokens[0], tokens[-1], 0.021),
    ]


def test_a_server_that_was_killed_is_a_fault(cache: Path) -> None:
    server = engine(**SMALL)
    server.open()
    os.kill(child(server).pid, signal.SIGKILL)
    with pytest.raises(InstrumentFault):
        server.infer(ask(0, 16, 4))
    server.close()


ORPHAN = """
import time
from joulelab.devices.llama_server import LlamaServer
from joulelab.timebase import MonotonicClock

server = LlamaServer("dut", LlamaServer.Options(model={"random": "llama-15m"}), MonotonicClock())
server.open()
print(server._child.pid, flush=True)
time.sleep(1000)
"""


def test_the_server_ends_with_its_parent(model: Path) -> None:
    check_child_ends(ORPHAN)


def test_a_port_in_use_is_named(server: LlamaServer) -> None:
    port = int(child(server).url.rpartition(":")[2])
    with pytest.raises(UserError, match=rf"port {port} cannot be used \(Address already in use\)"):
        engine(**SMALL, port=port).open()


def test_a_missing_model_is_named_as_it_was_given() -> None:
    with pytest.raises(UserError, match=r"dut: there is no model file models/absent\.gguf"):
        engine(model="models/absent.gguf").open()


def test_a_model_that_cannot_be_loaded_is_named_with_the_reason(tmp_path: Path, model: Path) -> None:
    (tmp_path / "half.gguf").write_bytes(model.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"llama\.cpp cannot serve .*half\.gguf: .*not within the file bounds"):
        engine(model=str(tmp_path / "half.gguf")).open()


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(UserError, match="dut: 4096 threads are more than the"):
        engine(**SMALL, threads=4096).open()


@pytest.mark.parametrize("package", ["gguf", "xllamacpp"])
def test_a_missing_package_is_hardware_missing(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(HardwareMissing, match=r"llama\.cpp is not installed: run 'make run' once"):
        engine(**SMALL).open()


def test_a_server_that_is_not_llama_cpp_is_refused() -> None:
    lines = [{"request": "GET /props", "reply": "<html>", "before": 0, "after": 1}]
    with pytest.raises(UserError, match="dut: http://elsewhere does not answer"):
        engine(transport=Cassette(lines), url="http://elsewhere", model="any").open()


def test_a_random_model_is_written_once_and_the_same_everywhere(tmp_path: Path, model: Path) -> None:
    again = random_gguf("llama-15m", tmp_path)
    assert again.read_bytes() == model.read_bytes()
    written = again.stat().st_mtime_ns
    assert random_gguf("llama-15m", tmp_path).stat().st_mtime_ns == written
    assert list(tmp_path.iterdir()) == [again]


def test_a_random_model_has_its_architecture(model: Path) -> None:
    a, told = ARCHITECTURES["llama-15m"], describe_gguf(model)
    matrices = sum(math.prod(shape) for _, shape in a.tensors() if len(shape) == 2)
    assert (told["layers"], told["d_model"]) == (a.layers, a.d_model)
    assert told["d_kv"] == a.d_model // a.heads * a.kv_heads
    assert told["kv_bytes_per_token"] == a.layers * told["d_kv"] * 2 * 2
    assert told["parameters"] == matrices + (2 * a.layers + 1) * a.d_model
    assert told["weight_bytes"] == matrices * 34 // 32 + (2 * a.layers + 1) * a.d_model * 4


def test_an_unknown_random_model_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no random model is called 'llama-16m'; did you mean 'llama-15m'"):
        random_gguf("llama-16m", tmp_path)
    with pytest.raises(ValidationError, match="no random model is called 'llama-16m'"):
        engine(model={"random": "llama-16m"})


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write the model llama-15m to .*file/models: Not a directory"):
        random_gguf("llama-15m", tmp_path / "file" / "models")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"x" * 5000])
def test_what_is_no_gguf_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.gguf").write_bytes(content)
    with pytest.raises(UserError, match=r"other\.gguf is not a whole GGUF file"):
        describe_gguf(tmp_path / "other.gguf")


def test_the_history_is_fixed_by_the_seed_and_the_prompt_by_the_number() -> None:
    one, other, longer = (
        draw(Request(number, history, 16, 1, seed=3), 4096) for number, history in [(0, 8), (1, 8), (0, 9)]
    )
    assert one[:8] == other[:8] == longer[:8]
    assert one[8:] == longer[9:] != other[8:]
    assert min(one) >= 256


def test_options_survive_the_manifest(tmp_path: Path) -> None:
    options = LlamaServer.Options.model_validate({"model": "m.gguf"}, context={"folder": tmp_path})
    assert (options.model, options.label) == (str(tmp_path / "m.gguf"), "m")
    for given in (options, LlamaServer.Options.model_validate({"url": "http://a:1", "model": "m"})):
        assert LlamaServer.Options.model_validate(given.model_dump(mode="json")) == given


def test_settings_of_a_server_elsewhere_are_refused() -> None:
    with pytest.raises(ValidationError, match="the server at http://a:1 has its own threads: leave that out"):
        engine(url="http://a:1", model="m", threads=2)


def test_where_the_system_has_no_openmp_the_carried_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openmp, "LIBRARY", "libgomp-nowhere.so.1")
    found = openmp.environment(tmp_path)
    assert found["LD_LIBRARY_PATH"].split(":")[0] == str(tmp_path)
    ctypes.CDLL(str(tmp_path / "libgomp-nowhere.so.1"))
