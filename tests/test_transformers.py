"""PyTorch and transformers themselves, on small models of random weights: in a child process and in this one."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from joulelab.devices import transformers_engine, transformers_passes
from joulelab.devices.architectures import ARCHITECTURES
from joulelab.devices.base import Inference, Request
from joulelab.devices.completion import draw
from joulelab.devices.page_cache import evict
from joulelab.devices.random_model import describe_gguf, random_gguf
from joulelab.devices.transformers_child import take_card
from joulelab.devices.transformers_engine import Transformers
from joulelab.devices.transformers_generator import Generator
from joulelab.devices.transformers_model import Spec, describe, explained, load, weight_files
from joulelab.devices.transformers_passes import Histories, decode, filled, forward, move, room
from joulelab.devices.transformers_timing import Bracket, CudaWatch, costs, mapped
from joulelab.errors import ConfigurationFault, DataInvalid, HardwareMissing, InstrumentFault, UserError
from joulelab.timebase import MonotonicClock
from joulelab.transports.tape import Cassette, Line
from tests.orphans import check_child_ends, is_running

needs_torch = pytest.mark.skipif(
    not all(map(find_spec, ("torch", "transformers"))), reason="needs PyTorch and transformers: make torch"
)
CLOCK = MonotonicClock()
SMALL: dict[str, Any] = {"model": {"random": "llama-15m"}, "context": 1024}


def engine(wire: list[Line] | None = None, transport: Cassette | None = None, **options: Any) -> Transformers:
    sink = None if wire is None else wire.append
    return Transformers("dut", Transformers.Options.model_validate(SMALL | options), CLOCK, sink, transport)


def spec(**settings: Any) -> Spec:
    small = Spec("llama-15m", None, "cpu", "float64", "sdpa", "dynamic", 1, 1024, (0,), 0)
    return Spec(**(asdict(small) | settings))


class Taped(NamedTuple):
    """A child that has answered `requests`, what it told of itself, and its tape, which goes on."""

    engine: Transformers
    told: dict[str, Any]
    requests: list[Request]
    inferences: list[Inference]
    wire: list[Line]


def replay(wire: list[Line]) -> Transformers:
    replayed = engine(transport=Cassette(json.loads(json.dumps(wire))))
    replayed.open()
    return replayed


@pytest.fixture(scope="module")
def taped() -> Iterator[Taped]:
    wire: list[Line] = []
    requests = [
        Request(0, 0, 16, 8, 1),
        Request(1, 600, 1, 1, 1),
        Request(2, 600, 33, 4, 1),
        Request(3, 64, 16, 4, 1, 3),
    ]
    live = engine(wire)
    live.open()
    inferences = [live.infer(request) for request in requests]
    yield Taped(live, live.describe(), requests, inferences, wire)
    live.close()


@needs_torch
def test_exactly_the_asked_tokens_are_timed(taped: Taped) -> None:
    for request, inference in zip(taped.requests, taped.inferences, strict=True):
        tokens, (prefill, *decoding) = inference.tokens, inference.phases
        assert len(tokens) == request.output
        assert list(tokens) == sorted(set(tokens))
        assert inference.extra["received"] < prefill.start < prefill.stop == tokens[0]
        assert [(phase.start, phase.stop) for phase in decoding] == [(tokens[0], tokens[-1])] * (request.output > 1)
        assert all(phase.cpu_s for phase in inference.phases)


@needs_torch
def test_the_edges_and_their_uncertainty_are_stated(taped: Taped) -> None:
    for inference in taped.inferences:
        assert 0 < inference.phases[0].boundary_u_s < 200e-6  # type: ignore[operator]
        assert len(inference.extra["edge_difference_s"]) == 1 + len(inference.phases)
        assert all(difference > 0 for difference in inference.extra["edge_difference_s"][1:])


@needs_torch
def test_a_history_is_filled_where_it_is_not_kept(taped: Taped) -> None:
    assert ["fill_s" in inference.extra for inference in taped.inferences] == [False, True, False, True]


@needs_torch
def test_the_manifest_says_what_runs(taped: Taped) -> None:
    told = taped.engine.describe()
    facts = {"model": "llama-15m", "quant": "float32", "weights": "random", "threads": 1, "context": 1024, "batch": 1}
    assert {name: told[name] for name in facts} == facts
    assert told["settings"]["dtype"] == "float32"
    assert os.sched_getaffinity(told["pid"]) == set(told["settings"]["cores"])
    assert told["timing"]["warmup_passes"] >= 16
    assert "torch" in told["build"]
    assert json.loads(json.dumps(told)) is not None


@needs_torch
def test_a_core_is_left_to_the_sampler(taped: Taped) -> None:
    cores, taken = os.sched_getaffinity(0), set(taped.engine.describe()["settings"]["cores"])
    assert taken | set(taped.engine.sampler_cores) == cores
    assert len(cores) == 1 or not taken & set(taped.engine.sampler_cores)


@needs_torch
def test_a_cassette_gives_the_same_inferences(taped: Taped) -> None:
    replayed = replay(taped.wire)
    assert [replayed.infer(request) for request in taped.requests] == taped.inferences
    assert replayed.describe() == taped.told


@needs_torch
def test_another_inference_than_the_taped_one_is_noticed(taped: Taped) -> None:
    with pytest.raises(DataInvalid, match="exchange 2 of the tape differs"):
        replay(taped.wire).infer(Request(0, 0, 16, 9, 1))


@needs_torch
def test_another_number_of_tokens_than_asked_for_is_a_fault(taped: Taped) -> None:
    reply = json.loads(taped.wire[2]["reply"])
    for wrong in ({"cached": 24}, {"marks": reply["marks"][:-1]}):
        wire = [*taped.wire[:2], taped.wire[2] | {"reply": json.dumps(reply | wrong)}]
        with pytest.raises(InstrumentFault, match=f"the model's {next(iter(wrong))} are .*, where .* were asked for"):
            replay(wire).infer(taped.requests[0])


TRANSFERS = [Request(4, 600, 0, 0, 1), Request(5, 600, 0, 0, 1), Request(6, 1024, 0, 0, 1)]


@needs_torch
def test_a_transfer_is_one_phase_of_so_many_bytes(taped: Taped) -> None:
    recorded, size = len(taped.wire), taped.told["architecture"]["kv_bytes_per_token"]
    transfers = [taped.engine.move("transfer", request) for request in TRANSFERS]
    for request, transfer in zip(TRANSFERS, transfers, strict=True):
        (phase,), extra = transfer.phases, transfer.extra
        assert (phase.name, phase.boundary_u_s, transfer.tokens) == ("transfer", None, ())
        assert extra["received"] < phase.start < phase.stop
        assert phase.cpu_s
        assert extra["bytes"] == request.history * size
    assert ["fill_s" in transfer.extra for transfer in transfers] == [True, False, True]

    wire = [taped.wire[0], *taped.wire[recorded:]]
    replayed = replay(wire)
    assert [replayed.move("transfer", request) for request in TRANSFERS] == transfers
    wire[2] = wire[2] | {"reply": wire[2]["reply"].replace('"equal": true', '"equal": false')}
    with pytest.raises(InstrumentFault, match="dut: a cache of 600 tokens did not come back as it was"):
        replay(wire).move("transfer", TRANSFERS[0])


@needs_torch
def test_weights_that_are_made_up_are_not_loaded(taped: Taped) -> None:
    with pytest.raises(ConfigurationFault, match="dut: its weights are made up, there is nothing to load"):
        taped.engine.move("load", Request(0, 0, 0, 0, 1))
    assert is_running(taped.told["pid"])


@needs_torch
def test_the_context_is_not_exceeded(taped: Taped) -> None:
    taped.engine.infer(Request(0, 900, 120, 4, 1))
    with pytest.raises(UserError, match="dut: an inference of 1025 tokens is over the context of 1024"):
        taped.engine.infer(Request(0, 900, 121, 4, 1))
    with pytest.raises(UserError, match="dut: an inference of 1025 tokens is over the context of 1024"):
        taped.engine.move("transfer", Request(0, 1025, 0, 0, 1))


def allocated(pid: object) -> int:
    """What a process has of the memory that RLIMIT_DATA limits [B]."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmData:")[2].split()[0]) * 1024


@needs_torch
def test_a_configuration_out_of_memory_leaves_the_others_alone(taped: Taped) -> None:
    pid = taped.told["pid"]
    resource.prlimit(pid, resource.RLIMIT_DATA, (allocated(pid) + 2**26, resource.RLIM_INFINITY))
    asked = "history 0, prompt 1000, output 2, batch 64"
    with pytest.raises(ConfigurationFault, match=f"dut: out of memory with {asked}: PyTorch asked for .* GB more"):
        taped.engine.infer(Request(0, 0, 1000, 2, 1, 64))
    with pytest.raises(ConfigurationFault, match="dut: out of memory with history 1000, prompt 0, output 0, batch 64"):
        taped.engine.move("transfer", Request(0, 1000, 0, 0, 1, 64))
    assert len(taped.engine.infer(taped.requests[0]).tokens) == 8


@needs_torch
def test_a_child_that_was_killed_is_a_fault_and_is_started_again(taped: Taped) -> None:
    killed, recorded = taped.engine.describe()["pid"], len(taped.wire)
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(InstrumentFault, match="dut: transformers has ended: status -9") as fault:
        taped.engine.infer(taped.requests[0])
    assert fault.value.transient
    inference = taped.engine.infer(taped.requests[0])
    assert taped.engine.describe()["pid"] != killed
    taped.engine.close()

    replayed = replay([taped.wire[0], *taped.wire[recorded:]])
    with pytest.raises(InstrumentFault):
        replayed.infer(taped.requests[0])
    assert replayed.infer(taped.requests[0]) == inference


ORPHAN = """
import time
from joulelab.devices.transformers_engine import Transformers
from joulelab.timebase import MonotonicClock

engine = Transformers("dut", Transformers.Options(model={"random": "llama-15m"}), MonotonicClock())
engine.open()
print(engine.describe()["pid"], flush=True)
time.sleep(1000)
"""


@needs_torch
def test_the_child_ends_with_its_parent() -> None:
    check_child_ends(ORPHAN)


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_package_is_hardware_missing(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        HardwareMissing, match=r"dut: PyTorch is not installed: run 'make torch' or .*joulelab\[torch\]"
    ):
        engine().open()


@needs_torch
def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(UserError, match="dut: 4096 threads are more than the"):
        engine(threads=4096).open()


@needs_torch
def test_without_cuda_the_reason_is_one_line() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(HardwareMissing, match=r"CUDA cannot be used: .*\w"):
        take_card(torch.device("cuda"))


TOO_OLD = """The NVIDIA driver on your system is too old (found version 11040).
Please update your GPU driver by downloading and installing a new version"""


@needs_torch
def test_a_card_that_cannot_be_used_is_missing_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def too_old() -> None:
        raise RuntimeError(TOO_OLD)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    with pytest.raises(HardwareMissing, match="there is no cuda:1: cuda:0 is the last card that PyTorch sees"):
        take_card(torch.device("cuda:1"))
    monkeypatch.setattr(torch.cuda, "init", too_old)
    with pytest.raises(HardwareMissing, match=r"CUDA cannot be used: The NVIDIA .* 11040\). Please .* version$"):
        take_card(torch.device("cuda"))


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    """In double precision, so that no two tokens come out equally likely."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield load(spec())
    torch.set_num_threads(threads)


def rows(request: Request, vocabulary: int = 4096) -> list[list[int]]:
    """The tokens of each sequence."""
    return [draw(replace(request, seed=request.seed + row), vocabulary) for row in range(request.batch)]


def passes(generator: Generator, request: Request) -> list[Any]:
    """The token ids (batch x tokens) that each pass of an inference is given."""
    seen: list[Any] = []
    hook = generator.model.register_forward_pre_hook(lambda *call: seen.append(call[2]["input_ids"]), with_kwargs=True)
    told = generator.infer(request)
    hook.remove()
    assert told["cached"] == request.history + request.prompt + request.output - 1
    return seen


def plain(model: Any, tokens: list[int], output: int) -> list[int]:
    """The next tokens, by a pass over all tokens so far for each of them."""
    import torch

    for _ in range(output):
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits
        tokens = [*tokens, int(logits[0, -1].argmax())]
    return tokens[-output:]


@needs_torch
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize(("history", "batch"), [(0, 1), (40, 1), (40, 3)])
def test_the_tokens_are_those_of_a_plain_loop(
    model: Any, cache: str, history: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers_passes, "TURN", 16)
    generator = Generator(model, spec(cache=cache))
    for number, prompt in enumerate([16, 1, 33]):
        request = Request(number, history, prompt, 5, seed=7, batch=batch)
        prefill, *decoding = passes(generator, request)[-request.output :]
        assert prefill.tolist() == [tokens[history:] for tokens in rows(request)]
        assert [list(ids) for ids in zip(*(step.flatten().tolist() for step in decoding), strict=True)] == [
            plain(model, tokens, request.output - 1) for tokens in rows(request)
        ]


@needs_torch
@pytest.mark.parametrize(("cache", "allocation"), [("dynamic", []), ("static", [1])])
def test_there_are_no_more_passes_than_asked_for(model: Any, cache: str, allocation: list[int]) -> None:
    generator = Generator(model, spec(cache=cache))
    lengths = {
        (0, 16, 4): [*allocation, 16, 1, 1, 1],
        (600, 16, 1): [512, 88, 16],
        (600, 9, 2): [9, 1],
        (0, 5, 1): [5],
        (64, 5, 1): [64, 5],
    }
    for number, (asked, expected) in enumerate(lengths.items()):
        assert [step.shape[1] for step in passes(generator, Request(number, *asked, seed=1))] == expected


@needs_torch
def test_a_decode_without_marks_gives_the_same_tokens(model: Any) -> None:
    import torch

    histories, history = Histories(model, static=False, context=1024), rows(Request(0, 40, 1, 1, 1))
    histories.fill(history)
    token = torch.tensor([[1000]])
    tokens, bare, cache = decode(model, histories.cache(history), token, 4, lambda: None), [], histories.cache(history)
    assert cache.get_seq_length() == 41
    for _ in range(4):
        token = forward(model, cache, token)
        bare.append(token)
    assert bare == tokens


@needs_torch
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_transfer_moves_just_the_history_and_leaves_it_as_it_is(model: Any, cache: str) -> None:
    generator, request = Generator(model, spec(cache=cache)), Request(0, 40, 9, 5, seed=7)
    told = generator.transfer(replace(request, prompt=0, output=0))
    assert told["equal"]
    assert told["bytes"] == 40 * describe(model)["kv_bytes_per_token"]
    assert told["host"][0] <= told["marks"][0] < told["marks"][1] <= told["host"][1]
    _, *decoding = passes(generator, request)
    assert [int(ids) for ids in decoding] == plain(model, rows(request)[0], 4)


@needs_torch
def test_a_cache_is_copied_twice(model: Any) -> None:
    import torch

    histories, history = Histories(model, static=True, context=64), rows(Request(0, 40, 0, 0, 1))
    histories.fill(history)
    out = filled(histories.cache(history), 40)
    host, back = room(out)
    assert not any(map(torch.equal, out, back))
    move(out, host)
    move(host, back)
    assert all(map(torch.equal, out, back))
    assert len({tensor.data_ptr() for tensor in (*out, *host, *back)}) == 3 * len(out)
    assert {tuple(tensor.shape[::2]) for tensor in back} == {(1, 40)}


@needs_torch
def test_the_model_is_warm_when_its_passes_take_as_long_as_before(model: Any) -> None:
    told = Generator(model, spec()).warm_up()
    assert told["warmup_passes"] >= 16
    assert told["pass_s"] > 0


@needs_torch
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_random_model_has_its_architecture(name: str) -> None:
    told, a = describe(load(spec(random=name, device="meta", dtype="bfloat16"))), ARCHITECTURES[name]
    assert (told["parameters"], told["weight_bytes"]) == (a.parameters, 2 * a.parameters)
    assert told["embedding_bytes"] == (0 if a.tied else 2 * a.vocabulary * a.d_model)
    assert told["kv_bytes_per_token"] == 2 * 2 * a.layers * a.d_model // a.heads * a.kv_heads


def test_the_shapes_of_published_models_have_their_numbers_of_parameters() -> None:
    counts = {name: ARCHITECTURES[name].parameters for name in ("llama-3.2-1b", "llama-3.1-8b")}
    assert counts == {"llama-3.2-1b": 1_235_814_400, "llama-3.1-8b": 8_030_261_248}


@needs_torch
def test_both_engines_tell_the_same_of_an_architecture(model: Any, tmp_path: Path) -> None:
    ours, theirs = describe(model), describe_gguf(random_gguf("llama-15m", tmp_path))
    differ = {name for name in theirs if ours.pop(name) != theirs[name]}
    assert differ == {"quant", "weight_bytes", "embedding_bytes", "kv_bytes_per_token"}
    assert not ours


def saved(path: Path, vocabulary: int) -> Path:
    """A small checkpoint."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(**shape, vocab_size=vocabulary, max_position_embeddings=256)).save_pretrained(path)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return saved(tmp_path / "tiny", 512)


def load_checkpoint(path: Path, **settings: Any) -> Any:
    settings = {"random": None, "checkpoint": str(path), "dtype": "float32", "context": 256} | settings
    with explained(given := spec(**settings)):
        return load(given)


@needs_torch
def test_a_checkpoint_is_run_as_it_is(checkpoint: Path) -> None:
    told = describe(load_checkpoint(checkpoint, dtype="bfloat16"))
    assert (told["layers"], told["d_model"], told["vocabulary"], told["quant"]) == (2, 64, 512, "bfloat16")


def resident(file: Path) -> int:
    """How much of a file is in the memory of this process [B]."""
    _, _, mapped = Path("/proc/self/smaps").read_text().partition(str(file))
    return int(mapped.partition("Rss:")[2].split()[0]) * 1024


@needs_torch
def test_a_checkpoint_that_is_loaded_has_been_read(tmp_path: Path) -> None:
    wide = spec(random=None, checkpoint=str(saved(tmp_path, 2**15)), dtype="float32", context=256)
    (file,) = weight_files(wide)
    evict([file])
    loaded = load(wide)
    assert resident(file) >= describe(loaded)["weight_bytes"]


@needs_torch
def test_a_load_starts_a_child_that_reads_the_files(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wire: list[Line] = []
    live = engine(wire, model=str(checkpoint), context=256)
    live.open()
    first, evicted = live.describe()["pid"], []
    monkeypatch.setattr(transformers_engine, "evict", lambda files: evicted.append((is_running(first), *files)))
    load, request = live.move("load", Request(0, 0, 0, 0, 1)), Request(1, 16, 4, 2, 1)
    inference, told = live.infer(request), live.describe()
    live.close()
    assert evicted == [(False, checkpoint / "model.safetensors")]
    assert told["pid"] != first

    (phase,) = load.phases
    assert (phase.name, load.extra) == ("load", {"bytes": (checkpoint / "model.safetensors").stat().st_size})
    assert 0 < phase.start < phase.stop < inference.extra["received"]
    assert phase.cpu_s

    shutil.rmtree(checkpoint)
    replayed = engine(transport=Cassette(json.loads(json.dumps(wire))), model=str(checkpoint), context=256)
    replayed.open()
    assert replayed.move("load", Request(0, 0, 0, 0, 1)) == load
    assert (replayed.infer(request), replayed.describe()) == (inference, told)


def change(checkpoint: Path, name: str, tensor: Any) -> None:
    """Set a tensor of a checkpoint; None takes it out."""
    from safetensors.torch import load_file, save_file

    file = checkpoint / "model.safetensors"
    tensors = load_file(file) | {name: tensor}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file, {"format": "pt"})


@needs_torch
def test_a_checkpoint_that_does_not_fit_its_configuration_names_the_tensor(checkpoint: Path) -> None:
    import torch

    change(checkpoint, "model.layers.7.mlp.up_proj.weight", torch.ones(128, 64))
    with pytest.raises(
        UserError, match=r"tiny does not fit its config.json: model.layers.7.mlp.up_proj.weight is unex"
    ):
        load_checkpoint(checkpoint)
    change(checkpoint, "model.norm.weight", None)
    with pytest.raises(UserError, match=r"tiny does not fit its config.json: model.norm.weight is missing"):
        load_checkpoint(checkpoint)
    change(checkpoint, "model.norm.weight", torch.ones(32))
    with pytest.raises(UserError, match=r"tiny: model.norm.weight is \[32\], but by config.json it is \[64\]"):
        load_checkpoint(checkpoint)


@needs_torch
def test_what_is_no_checkpoint_is_named(checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"there is no checkpoint .*/absent: it is a folder with a config.json"):
        load_checkpoint(checkpoint / "absent")
    (checkpoint / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"cannot run .*/tiny: "):
        load_checkpoint(checkpoint)
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot run .*/tiny: "):
        load_checkpoint(checkpoint)


@needs_torch
def test_a_context_over_the_models_own_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"a context of 257 tokens is over the 256 of .*/tiny"):
        load_checkpoint(checkpoint, context=257)


@needs_torch
def test_a_missing_attention_library_is_hardware_missing(checkpoint: Path) -> None:
    with pytest.raises(HardwareMissing, match="transformers lacks a library: FlashAttention2 "):
        load_checkpoint(checkpoint, attention="flash_attention_2", dtype="bfloat16")


@needs_torch
def test_a_model_that_does_not_fit_into_memory_is_refused() -> None:
    limits, given = resource.getrlimit(resource.RLIMIT_DATA), spec(random="llama-3.2-1b")
    refusal = "llama-3.2-1b in float64 does not fit into the memory of cpu: PyTorch asked for 9.89 GB more"
    resource.setrlimit(resource.RLIMIT_DATA, (allocated("self") + 2**28, limits[1]))
    try:
        with pytest.raises(UserError, match=refusal), explained(given):
            load(given)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)


@needs_torch
def test_a_static_cache_that_forgets_is_refused(tmp_path: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = MistralConfig(**shape, num_key_value_heads=2, vocab_size=512, sliding_window=16, head_dim=32)
    sliding = MistralForCausalLM(config).eval()
    with pytest.raises(
        UserError, match="a static cache with StaticSlidingWindowLayers cannot be taken back to its hist"
    ):
        Histories(sliding, static=True, context=64).fill([[]])
    (_, *decoding), tokens = (
        passes(Generator(sliding, spec()), Request(0, 0, 40, 4, 1)),
        rows(Request(0, 0, 40, 4, 1), 512)[0],
    )
    assert [int(ids) for ids in decoding] == plain(sliding, tokens, 3)
    told = Generator(sliding, spec()).transfer(Request(0, 40, 0, 0, 1))
    assert told["bytes"] == (16 - 1) * describe(sliding)["kv_bytes_per_token"]


MICROSECOND = 1_000


@given(
    drift=st.floats(-1e-4, 1e-4),
    length=st.integers(10 * MICROSECOND, 10**11),
    waits=st.tuples(*[st.integers(0, 50 * MICROSECOND)] * 4),
    shares=st.lists(st.floats(0, 1)),
)
def test_a_mapped_event_is_off_by_no_more_than_is_said(
    drift: float, length: int, waits: tuple[int, ...], shares: list[float]
) -> None:
    opening, closing = 10**14, 10**14 + length
    brackets = Bracket(opening - waits[0], opening + waits[1]), Bracket(closing - waits[2], closing + waits[3])
    told = mapped(*brackets, [length * (1 + drift) * share for share in (*shares, 1.0)])
    for share, mark in zip(shares, told.marks, strict=True):
        assert abs(mark - (opening + length * share)) <= told.limit_s * 1e9 + 2


class Event:
    """A stand-in for an event of a card whose clock is 1 % fast."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: object) -> None:
        self.at = CLOCK.now() * 1.01

    def elapsed_time(self, other: Event) -> float:
        return (other.at - self.at) / 1e6


@pytest.fixture
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


@needs_torch
@pytest.mark.usefixtures("_stand_in")
def test_an_inference_has_an_event_a_pass(model: Any) -> None:
    generator = Generator(model, spec())
    generator.watch = CudaWatch(CLOCK)
    for number, output in enumerate([3, 1, 5]):
        told = generator.infer(Request(number, 0, 16, output, 1))
        assert told["host"][0] - told["limit_s"] * 1e9 <= told["marks"][0]
        assert told["marks"] == sorted(told["marks"])
        assert told["marks"][-1] <= told["host"][-1] + told["limit_s"] * 1e9
        assert len(told["marks"]) == 1 + output
    told = generator.transfer(Request(3, 40, 0, 0, 1))
    assert told["equal"]
    assert len(told["marks"]) == 2


@needs_torch
@pytest.mark.usefixtures("_stand_in")
def test_events_of_a_card_are_mapped_to_the_bench_clock() -> None:
    watch = CudaWatch(CLOCK)
    watch.begin(3)
    seen = []
    for _ in range(3):
        before = CLOCK.now()
        watch.mark()
        seen.append((before, CLOCK.now()))
        time.sleep(0.01)
    told = watch.end()
    slack = told.limit_s * 1e9
    assert all(before - slack <= mark <= after + slack for (before, after), mark in zip(seen, told.marks, strict=True))
    assert told.drift == pytest.approx(-0.01 / 1.01, rel=0.05)
    assert {"synchronisation_s", "event_s", "limit_s"} == costs(watch, CLOCK).keys()


def test_options_survive_the_manifest(tmp_path: Path) -> None:
    for model in ({"random": "llama-3.2-1b"}, "checkpoints/mine"):
        options = Transformers.Options.model_validate(
            {"model": model, "device": "cuda:1"}, context={"folder": tmp_path}
        )
        assert Transformers.Options.model_validate(options.model_dump(mode="json")) == options
        assert options.card == 1
    assert (options.model, options.label) == (tmp_path / "checkpoints/mine", "mine")


@pytest.mark.parametrize(
    "wrong", [{"device": "gpu"}, {"dtype": "int4"}, {"model": {"random": "llama-16m"}}, {"context": 8}]
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        engine(**wrong)
