"""Random-weight Llama models, written once to the cache, and the architecture of any GGUF file."""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from joulelab.devices.architectures import Architecture, architecture
from joulelab.errors import HardwareMissing, UserError

if TYPE_CHECKING:
    from gguf import GGUFReader, GGUFWriter

RECIPE = 2
"""Counts the changes to what `random_gguf` writes; it is in the file's name, so that no older file is taken for it."""


def need_llama_cpp() -> None:
    """HardwareMissing where the packages that bring llama.cpp are not installed."""
    if not all(map(find_spec, ("gguf", "xllamacpp"))):
        raise HardwareMissing("llama.cpp is not installed: run 'make run' once or 'uv sync --extra host'")


def model_cache() -> Path:
    """Where random models are kept: $XDG_CACHE_HOME/joulelab/models, else below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "joulelab" / "models"


def random_gguf(name: str, folder: Path) -> Path:
    """The random-weight model `name` (q8_0) in `folder`, written from a fixed seed if it is not there."""
    shape = architecture(name)
    path = folder / f"{name}-q8_0-{RECIPE}.gguf"
    if not path.exists():
        need_llama_cpp()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as draft:
                _write(Path(draft, path.name), shape)
                Path(draft, path.name).replace(path)
        except OSError as error:
            reason = error.strerror or "the disk is full"  # numpy's error for a short write has no number
            raise UserError(f"cannot write the model {name} to {folder}: {reason}") from error
    return path


def _write(path: Path, a: Architecture) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    writer = GGUFWriter(path, "llama")
    _write_metadata(writer, a)
    rng = np.random.default_rng(0)
    for name, shape in a.tensors():
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
        else:
            weights = rng.standard_normal(shape, np.float32) * np.float32(0.02)
            q8_0 = GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{name}.weight", quants.quantize(weights, q8_0), raw_dtype=q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_metadata(writer: GGUFWriter, a: Architecture) -> None:
    from gguf import LlamaFileType, TokenType

    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_context_length(a.context)
    writer.add_embedding_length(a.d_model)
    writer.add_block_count(a.layers)
    writer.add_feed_forward_length(a.feed_forward)
    writer.add_head_count(a.heads)
    writer.add_head_count_kv(a.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(a.d_model // a.heads)
    writer.add_rope_freq_base(a.rope_theta)
    writer.add_vocab_size(a.vocabulary)
    # No byte tokens: the server holds back a token that ends inside a UTF-8 character, and with it its arrival time.
    writer.add_tokenizer_model("llama")
    ordinary = a.vocabulary - 3
    writer.add_token_list([b"<unk>", b"<s>", b"</s>", *(b"t%d" % i for i in range(ordinary))])
    writer.add_token_scores([0.0] * a.vocabulary)
    writer.add_token_types([TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.NORMAL] * ordinary])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def describe_gguf(path: Path) -> dict[str, Any]:
    """What the header of a GGUF file says of its architecture.

    `d_kv` is the width of a layer's keys (KV heads x head size); `kv_bytes_per_token` is of an f16 cache, all layers.
    UserError where the file cannot be read or is not a whole GGUF file of a language model.
    """
    need_llama_cpp()
    from gguf import GGUFReader

    try:
        return _describe(GGUFReader(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, LookupError) as error:
        raise UserError(f"{path} is not a whole GGUF file of a language model") from error


def _describe(reader: GGUFReader) -> dict[str, Any]:
    from gguf import LlamaFileType

    header = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("tokenizer.")}
    family = header["general.architecture"]
    layers, d_model = header[f"{family}.block_count"], header[f"{family}.embedding_length"]
    heads = header[f"{family}.attention.head_count"]
    kv_heads = header.get(f"{family}.attention.head_count_kv", heads)
    d_head = header.get(f"{family}.attention.key_length") or d_model // np.max(heads)
    d_kv = int(np.broadcast_to(kv_heads, layers).sum() * d_head) // layers
    embedding = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    return {
        "family": family,
        "quant": LlamaFileType(header["general.file_type"]).name.removeprefix("MOSTLY_"),
        "parameters": sum(tensor.n_elements for tensor in reader.tensors),
        "layers": layers,
        "heads": int(np.max(heads)),
        "head_dim": int(d_head),
        "vocabulary": int(embedding.n_elements) // d_model,
        "d_model": d_model,
        "d_kv": d_kv,
        "weight_bytes": sum(tensor.n_bytes for tensor in reader.tensors),
        "embedding_bytes": 0 if tied else int(embedding.n_bytes),
        "kv_bytes_per_token": layers * 2 * d_kv * 2,
    }
