"""What a build is made of: one typed place for every parameter, its default and its meaning.

The same object is the Python API's argument, the command line's flags, the app's form and the manifest's record.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

GradientKind = Literal["adam", "sgd", "sign"]
AdamForm = Literal["paper", "adamw", "released"]
ProjectionKind = Literal["sparse", "rademacher"]
StoreDtype = Literal["int8", "fp16", "bit"]
ModelDtype = Literal["auto", "fp32", "bf16"]
Similarity = Literal["cosine", "dot"]
TargetPooling = Literal["cosine-of-mean", "mean-of-cosines"]
Aggregate = Literal["max", "mean", "round-robin"]

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

    def resolve_shard_rows(self, rows: int) -> int:
        """Rows per shard for a pool of `rows` usable rows."""
        return self.shard_rows or min(4096, max(8, -(-rows // 16)))

    def resolve_token_budget(self, device: str) -> int:
        """Padded tokens per batch on a device of this type."""
        return self.token_budget or {"cpu": 1024}.get(device, 16384)
