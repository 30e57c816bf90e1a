"""The process that runs a model with PyTorch (`python -m` this module, with its specification in JSON).

It says that it is ready, or why not, in one line of JSON; then each line that it reads is a request, answered by one.
It ends with its standard input.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joulelab.devices.base import Request
from joulelab.devices.transformers_generator import Generator
from joulelab.devices.transformers_model import (
    Spec,
    asked,
    build,
    describe,
    explained,
    is_out_of_memory,
    load,
    one_line,
    weight_files,
)
from joulelab.errors import ConfigurationFault, HardwareMissing, JoulelabError

if TYPE_CHECKING:
    import torch


def answer(generator: Generator, line: str) -> dict[str, Any]:
    """What a line asks for, `"move": "transfer"` or an inference."""
    request = json.loads(line)
    work = generator.transfer if request.pop("move", None) else generator.infer
    return attempt(generator, work, Request(**request))


def attempt(generator: Generator, work: Callable[[Request], dict[str, Any]], request: Request) -> dict[str, Any]:
    """What the request yields, or the error where memory is short: the next one finds it freed."""
    import torch

    try:
        return work(request)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise SystemExit(one_line(error)) from error
        message = f"out of memory with history {request.history}, prompt {request.prompt}, output {request.output}"
        fault = ConfigurationFault(f"{message}, batch {request.batch}{asked(error)}")
    # Out here the traceback has let go of the inference's tensors.
    generator.histories.clear()
    torch.cuda.empty_cache()
    return failure(fault)


def failure(error: JoulelabError) -> dict[str, Any]:
    return {"kind": type(error).__name__, "error": str(error)}


def start(spec: Spec) -> tuple[Generator, dict[str, Any]]:
    """The model, loaded and warm, and what the manifest says of it.

    `loaded` is the bench time when it was on its device, `cpu_ns` the CPU time until then; `bytes` its files' size.
    """
    import torch

    torch.set_num_threads(spec.threads)
    card = take_card(torch.device(spec.device)) if spec.device != "cpu" else None
    with explained(spec):
        generator = Generator(model := load(spec), spec)
        generator.watch.synchronise()
        loaded, cpu_ns = generator.edge()
        timing = {**generator.costs(), **generator.warm_up()}
    told = {"pid": os.getpid(), "build": build(card), "architecture": describe(model), "timing": timing}
    size = sum(file.stat().st_size for file in weight_files(spec))
    return generator, told | {"loaded": loaded, "cpu_ns": cpu_ns, "bytes": size}


def take_card(device: torch.device) -> int:
    """The number of the CUDA card, which is made the current one; HardwareMissing where it cannot be used."""
    import torch

    card = device.index or 0
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        raise HardwareMissing(f"CUDA cannot be used: {one_line(error)}") from error
    if card >= (count := torch.cuda.device_count()):
        raise HardwareMissing(f"there is no cuda:{card}: cuda:{count - 1} is the last card that PyTorch sees")
    torch.cuda.set_device(card)
    return card


def confine(spec: Spec) -> None:
    """Keep to our cores and, on the CPU, to the memory that is free: the kernel would kill what takes more."""
    os.sched_setaffinity(0, spec.cores)
    os.environ |= {"OMP_NUM_THREADS": str(spec.threads), "HF_HUB_OFFLINE": "1"}
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # NVML's, by which the card was checked
    if spec.device == "cpu":
        told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(told["MemAvailable"].split()[0]) * 1024
        limits = resource.getrlimit(resource.RLIMIT_DATA)
        least = min(limit for limit in (free, *limits) if limit != resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_DATA, (least, limits[1]))


def main() -> int:
    spec = Spec(**json.loads(sys.argv[1]))
    wire = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    confine(spec)

    import torch

    with torch.inference_mode():
        try:
            generator, ready = start(spec)
        except JoulelabError as error:
            print(json.dumps(failure(error)), file=wire, flush=True)
            return 1
        print(json.dumps(ready), file=wire, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(generator, line)), file=wire, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
