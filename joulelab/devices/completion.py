"""One completion by llama.cpp's server: the tokens that go in, the stream that comes back, the phases it shows."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from joulelab.devices.base import Phase, Request
from joulelab.errors import InstrumentFault
from joulelab.timebase import SECOND, BenchNs
from joulelab.transports.base import Reply, Transport
from joulelab.transports.cpu import CPU


class Stream(NamedTuple):
    """A streamed completion: the stamps of the request and of the tokens' arrivals [ns], and the server's timings.

    `cpu` is the server's CPU time at the request, the first and the last token [ns]; empty where it was not asked for.
    """

    sent: BenchNs
    tokens: list[BenchNs]
    cpu: list[int]
    timings: dict[str, Any]


def draw(request: Request, vocabulary: int) -> list[int]:
    """The tokens of an inference: the history, fixed by the seed, then the prompt, by the seed and the number.

    They are ordinary ones: control, byte and added tokens stand at the ends of every vocabulary in use.
    """
    low, high = vocabulary // 16, vocabulary * 15 // 16
    history = np.random.default_rng((request.seed, 0)).integers(low, high, request.history)
    prompt = np.random.default_rng((request.seed, 1 + request.number)).integers(low, high, request.prompt)
    return [*history.tolist(), *prompt.tolist()]


def complete(transport: Transport, slot: int, prompt: list[int], output: int, **how: bool) -> Reply:
    """Ask for `output` tokens, by greedy sampling, which costs least; the reply, or the first piece of its stream."""
    body = {"id_slot": slot, "prompt": prompt, "n_predict": output, **how}
    sampling = {"samplers": ["top_k"], "top_k": 1, "ignore_eos": True}
    return transport.exchange(b"POST /completion\n" + json.dumps(body | sampling).encode())


def stream(transport: Transport, slot: int, prompt: list[int], output: int, *, cache_prompt: bool, cpu: bool) -> Stream:
    """Complete and watch the tokens come, with the server's CPU time if it can be read.

    InstrumentFault where the stream breaks off.
    """
    edges = _cpu(transport) if cpu else []
    reply = complete(transport, slot, prompt, output, cache_prompt=cache_prompt, stream=True)
    sent, tokens, event = reply.before, list[BenchNs](), dict[str, Any]()
    while reply.data:
        event = _event(reply.data)
        # A token that ends inside a UTF-8 character has no event of its own: the next event counts it.
        new = event.get("tokens_predicted", 0) - len(tokens)
        if cpu and new > 0 and (not tokens or len(tokens) + new == output):
            edges += _cpu(transport)
        tokens += [reply.after] * new
        reply = transport.exchange()
    if not tokens or "timings" not in event:
        raise InstrumentFault(f"the stream broke off after {len(tokens)} of {output} tokens", transient=True)
    return Stream(sent, tokens, edges, event["timings"])


def phases(stream: Stream) -> tuple[Phase, ...]:
    """Prefill, up to the first token, and decode, up to the last; one token has no decode."""
    first, last, cpu = stream.tokens[0], stream.tokens[-1], stream.cpu
    prefill_s, decode_s = ((cpu[1] - cpu[0]) / SECOND, (cpu[-1] - cpu[1]) / SECOND) if cpu else (None, None)
    if len(stream.tokens) == 1:
        return (Phase("prefill", stream.sent, first, cpu_s=prefill_s),)
    # Client and server time the decode apart. Were their last edges one, the first would differ by this much at most:
    # the limit of a rectangular distribution (GUM 4.3.7).
    limit_s = abs((last - first) / SECOND - stream.timings["predicted_ms"] / 1e3)
    u_s = limit_s / math.sqrt(3)
    return Phase("prefill", stream.sent, first, u_s, prefill_s), Phase("decode", first, last, u_s, decode_s)


def move(transport: Transport, slot: int, file: int) -> tuple[Phase, dict[str, Any]]:
    """Write a slot's cache to a file of the server's, named by a number, and read it back; the server's last reply."""
    [before] = _cpu(transport)
    out, back = (
        transport.exchange(f'POST /slots/{slot}?action={way}\n{{"filename": "{file}"}}'.encode())
        for way in ("save", "restore")
    )
    [after] = _cpu(transport)
    return Phase("transfer", out.before, back.after, cpu_s=(after - before) / SECOND), json.loads(back.data)


def _cpu(transport: Transport) -> list[int]:
    return [int(transport.exchange(CPU).data)]


def _event(line: bytes) -> dict[str, Any]:
    """The JSON of an event; empty for a comment, which only keeps the connection alive, and for a line cut short."""
    event: dict[str, Any] = {}
    with suppress(ValueError):
        event = json.loads(line.removeprefix(b"data:"))
    return event
