"""What a build is made of: one typed place for every parameter, its default and its meaning.

The same object is the Python API's argument, the command line's flags, the app's form and the manifest's record.
"""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gradsift.runtime.errors import UsageError

GradientKind = Literal["adam", "sgd", "sign"]
AdamForm = Literal["paper", "adamw", "released"]
ProjectionKind = Literal["sparse", "rademacher"]
StoreDtype = Literal["int8", "fp16", "bit"]
ModelDtype = Literal["auto", "fp32", "bf16"]
Similarity = Literal["cosine", "dot"]
TargetPooling = Literal["cosine-of-mean", "mean-of-cosines"]
Aggregate = Literal["max", "mean", "round-robin"]
EngineName = Literal["local", "ray"]

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


class BuildConfig(BaseModel):
    """Every parameter of a datastore; the defaults are the paper's (section 5.1), except `lora_alpha` = 4 x rank.

    Two builds with equal configs, pools, device kind and threads give equal bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = Field(description="`smollm2` (bundled), a local folder, or a Hugging Face model id")
    template: str = Field("chat", description="`chat` (the tokenizer's own), `tulu`, or the text of a Jinja template")
    limit_per_source: int | None = Field(None, ge=1, description="rows kept per source, a seeded sample")
    max_length: int = Field(2048, ge=8, description="tokens a pool row may have; longer ones are cut from the right")

    warmup_fraction: float = Field(0.05, gt=0, le=1, description="share of the usable rows the warmup trains on")
    epochs: int = Field(4, ge=1, description="warmup epochs, one checkpoint each (the paper's N)")
    batch_size: int = Field(128, ge=1, description="examples an optimizer step of the warmup sees")
    lr: float = Field(2e-5, gt=0, description="peak learning rate of the warmup")
    lora_rank: int = Field(128, ge=1)
    lora_alpha: int = Field(0, ge=0, description="0 means four times the rank")
    lora_targets: tuple[str, ...] = Field(
        ATTENTION, min_length=1, description="names of the linear layers that get LoRA"
    )
    lora_dropout: float = Field(0.1, ge=0, lt=1)
    checkpoints: tuple[str, ...] = Field((), description="PEFT checkpoints of one's own, used instead of a warmup")

    dim: int = Field(8192, ge=8, multiple_of=8, description="dimension of the projected features (the paper's d)")
    projection: ProjectionKind = "sparse"
    gradients: tuple[GradientKind, ...] = Field(("adam",), min_length=1, description="which updates are stored")
    adam: AdamForm = "paper"
    store_dtype: StoreDtype = "int8"
    dtype: ModelDtype = Field("auto", description="of the base weights; auto: bf16 on a GPU, fp32 on a CPU")
    token_budget: int = Field(0, ge=0, description="padded tokens a batch may have; 0: 1,024 on a CPU, 16,384 on a GPU")
    shard_rows: int = Field(0, ge=0, description="rows a shard holds; 0: a sixteenth of the pool within 8..4,096")
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="before")
    @classmethod
    def _fill_alpha(cls, values: dict) -> dict:
        if isinstance(values, dict) and not values.get("lora_alpha"):
            rank = values.get("lora_rank", cls.model_fields["lora_rank"].default)
            if isinstance(rank, int):
                values = {**values, "lora_alpha": 4 * rank}
        return values

    def differences(self, other: "BuildConfig", but: tuple[str, ...] = ()) -> list[str]:
        """In what `other`, asked for here, differs from this one, which is there: a clause for every field."""
        fields = [name for name in type(self).model_fields if name not in but]
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in fields]
        return [f"{name} {there!r} there, {here!r} here" for name, there, here in pairs if there != here]

    def resolve_token_budget(self, device: str) -> int:
        """Padded tokens a batch may have on a kind of device (`cpu`, `cuda`)."""
        return self.token_budget or {"cpu": 1024}.get(device, 16384)

    def resolve_training_budget(self, device: str) -> int:
        """Padded tokens that a training step takes at once: one that does not fit begins again from its first piece."""
        return min(self.resolve_token_budget(device), 4096)

    def resolve_shard_rows(self, rows: int) -> int:
        """Rows per shard for a pool of `rows` usable rows."""
        return self.shard_rows or min(4096, max(8, -(-rows // 16)))

    def row_bytes(self, dtype: StoreDtype) -> int:
        """Bytes of one row's features of one kind at one checkpoint, headers aside: the numbers, a scale and a norm."""
        return {"int8": self.dim, "fp16": 2 * self.dim, "bit": self.dim // 8}[dtype] + 8


def make_config(**values: Any) -> BuildConfig:
    """`BuildConfig` from a command's flags.

    Raises:
        UsageError: a value is out of range, named by its flag.
    """
    try:
        return BuildConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("gradients", "gradient").replace("_", "-")
        raise UsageError(f"--{name} {first['input']}: {first['msg'].lower()}.") from error


@dataclass(frozen=True)
class Engine:
    """Which engine, and how much of it.

    workers: of Ray; by default one for every GPU of the cluster or, where it has none, as many as its CPUs hold with
    the store's threads each. ray_address: of a running cluster; by default one is started on this machine for the run.

    Raises:
        UsageError: workers or an address for `local`, fewer workers than one, or `ray` without Ray.
    """

    name: EngineName = "local"
    workers: int | None = None
    ray_address: str | None = None

    def __post_init__(self) -> None:
        if self.name == "local" and (self.workers is not None or self.ray_address is not None):
            raise UsageError("--workers and --ray-address belong to --engine ray: add it, or leave them out.")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers}: at least one is needed.")
        if self.ray_address not in (None, "auto") and not re.fullmatch(r"[^/]+:\d+", self.ray_address or ""):
            raise UsageError(f"--ray-address {self.ray_address}: give HOST:PORT of the cluster's head, or auto.")
        if self.name == "ray" and find_spec("ray") is None:
            raise UsageError("--engine ray needs Ray, which is not installed here: pip install ray.")
