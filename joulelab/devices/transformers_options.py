"""What `lab.yaml` may say of a model that PyTorch and transformers run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from joulelab.devices.architectures import RandomModel
from joulelab.options import LabPath


class TransformersOptions(BaseModel):
    """`model` is a random model or the folder of a checkpoint; `context` [tokens] has room for the warm-up at least.

    A `static` cache is allocated for the whole `context`, and attention reads all of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: RandomModel | LabPath
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d{1,2})?)$")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    cache: Literal["dynamic", "static"] = "dynamic"
    threads: int = Field(1, ge=1)
    context: int = Field(4096, ge=32)

    @field_validator("model", mode="before")
    @classmethod
    def _at_home(cls, model: Any) -> Any:
        return Path(model).expanduser() if isinstance(model, str) else model

    @property
    def label(self) -> str:
        """What the model is called in tables."""
        return self.model.random if isinstance(self.model, RandomModel) else self.model.name

    @property
    def card(self) -> int | None:
        """CUDA's number of the card; None on the CPU."""
        kind, _, number = self.device.partition(":")
        return int(number or 0) if kind == "cuda" else None
