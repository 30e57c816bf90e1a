"""A causal language model in PyTorch: its weights, from a seed or from a checkpoint, and what it says of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joulelab.devices.architectures import architecture
from joulelab.errors import HardwareMissing, UserError

WEIGHT_FILES = ("model*.safetensors", "pytorch_model*.bin")
"""The first kind that is there is read."""
PAGE = 4096
"""Bytes, of the smallest pages in use."""
NO_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How PyTorch says so: the CPU has no exception for it."""


@dataclass(frozen=True)
class Spec:
    """How to run a model: `random` weights of an architecture, or a `checkpoint`'s folder; on a device, from CPU cores.

    `context` in tokens; `clock_offset_ns` from CLOCK_MONOTONIC to the bench clock.
    """

    random: str | None
    checkpoint: str | None
    device: str
    dtype: str
    attention: str
    cache: str
    threads: int
    context: int
    cores: tuple[int, ...]
    clock_offset_ns: int

    @property
    def model(self) -> str:
        return self.random or str(self.checkpoint)


@contextmanager
def explained(spec: Spec) -> Iterator[None]:
    """What the libraries say while a model is loaded and tried, as HardwareMissing or UserError."""
    from safetensors import SafetensorError

    try:
        yield
    except ImportError as error:
        raise HardwareMissing(f"transformers lacks a library: {one_line(error)}") from error
    except (OSError, ValueError, TypeError, RuntimeError, MemoryError, SafetensorError) as error:
        if is_out_of_memory(error):
            message = f"{spec.model} in {spec.dtype} does not fit into the memory of {spec.device}"
            raise UserError(f"{message}{asked(error)}") from error
        raise UserError(f"cannot run {spec.model}: {one_line(error)}") from error


def load(spec: Spec) -> Any:
    """The model on its device. UserError where a checkpoint does not fit its configuration, or is too short for us."""
    model = _random(spec, spec.random) if spec.random else _from_checkpoint(spec)
    if spec.context > (most := text_config(model).max_position_embeddings):
        raise UserError(f"a context of {spec.context} tokens is over the {most} of {spec.model}")
    return model.eval()


def _random(spec: Spec, name: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    a, dtype = architecture(name), getattr(torch, spec.dtype)
    config = LlamaConfig(
        hidden_size=a.d_model,
        num_hidden_layers=a.layers,
        num_attention_heads=a.heads,
        num_key_value_heads=a.kv_heads,
        intermediate_size=a.feed_forward,
        vocab_size=a.vocabulary,
        max_position_embeddings=a.context,
        tie_word_embeddings=a.tied,
        rope_parameters={"rope_type": "default", "rope_theta": a.rope_theta},
    )
    torch.manual_seed(0)
    with torch.device(spec.device):  # weights are made where they stay
        torch.empty(a.parameters, dtype=dtype)  # what does not fit is told at once
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=spec.attention)


def _from_checkpoint(spec: Spec) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    if not Path(spec.model, "config.json").is_file():
        raise UserError(f"there is no checkpoint {spec.model}: it is a folder with a config.json")
    disable_progress_bar()
    model, told = AutoModelForCausalLM.from_pretrained(
        spec.model,
        dtype=getattr(torch, spec.dtype),
        attn_implementation=spec.attention,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are named below
    )
    _check_tensors(spec.model, told)
    return _read(model.to(spec.device))


def _read(model: Any) -> Any:
    """A model whose pages have all been touched: on the CPU they are mapped, and else read when they are first used."""
    for tensor in model.parameters():
        tensor.flatten()[:: PAGE // tensor.itemsize].sum()
    return model


def weight_files(spec: Spec) -> list[Path]:
    """The files of a checkpoint that transformers reads weights from; random weights have none."""
    folder = Path(spec.checkpoint) if spec.checkpoint else None
    named = (sorted(folder.glob(name)) for name in WEIGHT_FILES) if folder else ()
    return next((files for files in named if files), [])


def _check_tensors(model: str, told: dict[str, Any]) -> None:
    """UserError with the first tensor that the checkpoint has too many, too few or in another shape."""
    for name, found, expected in sorted(told["mismatched_keys"]):
        raise UserError(f"{model}: {name} is {list(found)}, but by config.json it is {list(expected)}")
    for kind in ("missing", "unexpected"):
        for name in sorted(told[f"{kind}_keys"]):
            raise UserError(f"{model} does not fit its config.json: {name} is {kind}")


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(text in str(error) for text in NO_MEMORY)


def asked(error: BaseException) -> str:
    """How much memory was asked for in vain, as the end of a message; empty where PyTorch does not say."""
    units = ("bytes", "KiB", "MiB", "GiB")
    match = re.search(rf"ried to allocate ([\d.]+) ({'|'.join(units)})", str(error))
    return f": PyTorch asked for {float(match[1]) * 1024 ** units.index(match[2]) / 1e9:.3g} GB more" if match else ""


def one_line(error: BaseException) -> str:
    """A library's message without its line breaks, and without the advice that follows."""
    return " ".join(str(error).split())[:300]


def text_config(model: Any) -> Any:
    return model.config.get_text_config(decoder=True)


def describe(model: Any) -> dict[str, Any]:
    """The architecture, with the keys of `describe_gguf`; the cache is of the model's own type."""
    config, weights = text_config(model), list(model.parameters())
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    d_kv = head_dim * (getattr(config, "num_key_value_heads", None) or heads)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return {
        "family": config.model_type,
        "quant": str(model.dtype).removeprefix("torch."),
        "parameters": sum(tensor.numel() for tensor in weights),
        "layers": config.num_hidden_layers,
        "heads": heads,
        "head_dim": head_dim,
        "vocabulary": config.vocab_size,
        "d_model": config.hidden_size,
        "d_kv": d_kv,
        "weight_bytes": sum(tensor.nbytes for tensor in weights),
        "embedding_bytes": 0 if head is embedding else embedding.nbytes,
        "kv_bytes_per_token": 2 * config.num_hidden_layers * d_kv * model.dtype.itemsize,
    }


def build(card: int | None) -> str:
    """What runs the model: the libraries' versions, and on a card CUDA's and its name."""
    import torch
    import transformers

    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    if card is None:
        return versions
    return f"{versions}, CUDA {torch.version.cuda}, {torch.cuda.get_device_name(card)}"
