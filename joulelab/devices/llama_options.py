"""What `lab.yaml` may say of a llama.cpp server."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationInfo, field_validator, model_validator

from joulelab.devices.architectures import RandomModel
from joulelab.options import LabPath


class LlamaOptions(BaseModel):
    """`model` is a GGUF file or a random model; with the `url` of a server that runs already, a name for its model.

    `context`, `batch` and `ubatch` are llama.cpp's, in tokens; `port` 0 takes a free one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | None = Field(None, pattern=r"^https?://\S+$")
    model: RandomModel | str
    threads: int = Field(1, ge=1)
    context: int = Field(2048, ge=1)
    batch: int = Field(512, ge=1)
    ubatch: int = Field(512, ge=1)
    port: int = Field(0, ge=0, le=65535)

    @field_validator("model")
    @classmethod
    def _beside_lab(cls, model: RandomModel | str, info: ValidationInfo) -> RandomModel | str:
        if isinstance(model, RandomModel) or info.data.get("url"):
            return model
        return str(TypeAdapter(LabPath).validate_python(Path(model).expanduser(), context=info.context))

    @model_validator(mode="after")
    def _leaves_a_running_server_alone(self) -> LlamaOptions:
        fields = type(self).model_fields.items()
        ours = [name for name, field in fields if name not in {"url", "model"} and getattr(self, name) != field.default]
        if self.url and ours:
            raise ValueError(f"the server at {self.url} has its own {' and '.join(ours)}: leave that out")
        return self

    @property
    def label(self) -> str:
        """What the model is called in tables."""
        if isinstance(self.model, RandomModel):
            return self.model.random
        return self.model if self.url else Path(self.model).stem
