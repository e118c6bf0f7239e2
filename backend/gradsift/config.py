"""A build's parameters: one typed place for each one, its default and its meaning.

The same class is an argument of the Python API, the command line's flags, the app's form and the manifest's record.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

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
ColumnPart = Literal["system", "user", "assistant", "reasoning", "tools", "messages", "text", "context"]
Take = Literal["text", "chosen", "label"]

_LEARNED = ("assistant", "messages", "text")  # the parts that can hold what is learned
_GIVEN = {  # keywords of `apply_chat_template` that the encoder gives, or that are not the template's
    *("messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize"),
    *("padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
    *("continue_final_message", "tokenizer_kwargs"),
}

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


class BuildConfig(BaseModel):
    """All parameters of a datastore; the defaults are the paper's (section 5.1), except for `lora_alpha` = 4 x rank.

    Builds with the same config, pool, type of device and number of threads give the same bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = Field(description="`smollm2` (bundled), a local folder, or a Hugging Face model id")
    template: str = Field("chat", description="`chat` (the tokenizer's own), `tulu`, or the text of a Jinja template")
    template_options: dict[str, JsonValue] = Field(
        default_factory=dict, description="keywords for the template, such as enable_thinking=false"
    )
    columns: tuple[tuple[ColumnPart, str], ...] = Field(
        (), description="which column holds which part of a conversation"
    )
    take: tuple[Take, ...] = Field((), description="kinds of rows that are read only when asked for")
    source_column: str = Field("", description="the column that names a row's source; by default dataset or source")
    limit_per_source: int | None = Field(None, ge=1, description="rows to take per source, as a seeded sample")
    max_length: int = Field(2048, ge=8, description="maximum tokens per pool row; the rest is cut off")

    warmup_fraction: float = Field(0.05, gt=0, le=1, description="share of the usable rows that the warmup trains on")
    epochs: int = Field(4, ge=1, description="warmup epochs, with one checkpoint each (the paper's N)")
    batch_size: int = Field(128, ge=1, description="examples per optimizer step of the warmup")
    lr: float = Field(2e-5, gt=0, description="peak learning rate of the warmup")
    lora_rank: int = Field(128, ge=1, description="LoRA's rank")
    lora_alpha: int = Field(0, ge=0, description="LoRA's scale; 0: four times the rank")
    lora_targets: tuple[str, ...] = Field(
        ATTENTION, min_length=1, description="names of the linear layers that LoRA adapts"
    )
    lora_dropout: float = Field(0.1, ge=0, lt=1, description="dropout in the LoRA layers during the warmup")
    checkpoints: tuple[str, ...] = Field((), description="your own PEFT checkpoints, used instead of a warmup")

    dim: int = Field(8192, ge=8, multiple_of=8, description="dimension of the projected features (the paper's d)")
    projection: ProjectionKind = "sparse"
    gradients: tuple[GradientKind, ...] = Field(("adam",), min_length=1, description="which kinds of gradient to store")
    adam: AdamForm = "paper"
    store_dtype: StoreDtype = "int8"
    dtype: ModelDtype = Field("auto", description="type of the base weights; auto: bf16 on a GPU, fp32 on a CPU")
    token_budget: int = Field(
        0, ge=0, description="maximum padded tokens per batch; 0: 1,024 on a CPU, 16,384 on a GPU"
    )
    shard_rows: int = Field(0, ge=0, description="rows per shard; 0: a sixteenth of the pool, within 8..4,096")
    seed: int = Field(0, ge=0, lt=2**32)

    @model_validator(mode="before")
    @classmethod
    def _fill_alpha(cls, values: dict) -> dict:
        if isinstance(values, dict) and not values.get("lora_alpha"):
            rank = values.get("lora_rank", cls.model_fields["lora_rank"].default)
            if isinstance(rank, int):
                values = {**values, "lora_alpha": 4 * rank}
        return values

    @field_validator("columns", mode="before")
    @classmethod
    def _check_parts(cls, pairs: Any) -> Any:
        known = get_args(ColumnPart)
        for pair in pairs if isinstance(pairs, list | tuple) else ():
            if isinstance(pair, list | tuple) and len(pair) == 2 and pair[0] not in known:
                raise ValueError(
                    f"--columns {pair[0]}={pair[1]}: {pair[0]!r} is not a part of a conversation; the parts are "
                    f"{', '.join(known)}."
                )
        return pairs

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, pairs: tuple[tuple[ColumnPart, str], ...]) -> tuple[tuple[ColumnPart, str], ...]:
        parts = [part for part, _ in pairs]
        for part, column in pairs:
            if not column:
                raise ValueError(f"--columns {part}=: name the column that holds it, as in {part}=NAME.")
            if parts.count(part) > 1:
                raise ValueError(f"--columns names {part} {parts.count(part)} times: give one column for each part.")
            _require_text(f"--columns {part}", column)
        if pairs and not any(part in _LEARNED for part in parts):
            raise ValueError(
                "--columns names no column that is learned from: add the answers' column, as in assistant=NAME."
            )
        return pairs

    @field_validator("take", mode="before")
    @classmethod
    def _check_take(cls, kinds: Any) -> Any:
        for kind in kinds if isinstance(kinds, list | tuple) else ():
            if kind not in get_args(Take):
                raise ValueError(f"--take {kind}: use {', '.join(get_args(Take))}.")
        return tuple(dict.fromkeys(kinds)) if isinstance(kinds, list | tuple) else kinds

    @field_validator("source_column")
    @classmethod
    def _check_source_column(cls, name: str) -> str:
        _require_text("--source-column", name)
        return name

    @field_validator("template_options")
    @classmethod
    def _check_options(cls, options: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name, value in options.items():
            if not name.isidentifier():
                raise ValueError(f"--template-option {name}=...: {name!r} cannot be the name of a template's variable.")
            if name in _GIVEN:
                raise ValueError(f"--template-option {name}=...: {name} is set by gradsift; leave it out.")
            _require_text(f"--template-option {name}", json.dumps([name, value], ensure_ascii=False))
        return options

    def differences(self, other: "BuildConfig", but: tuple[str, ...] = ()) -> list[str]:
        """A clause for every field, except `but`, in which `other` (here) differs from this config (there)."""
        fields = [name for name in type(self).model_fields if name not in but]
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in fields]
        return [f"{name} {there!r} there, {here!r} here" for name, there, here in pairs if there != here]

    def resolve_token_budget(self, device: str) -> int:
        """Most padded tokens of a batch on a type of device (`cpu`, `cuda`)."""
        return self.token_budget or {"cpu": 1024}.get(device, 16384)

    def resolve_training_budget(self, device: str) -> int:
        """Most padded tokens of a piece of a training step, small because a step that does not fit starts over."""
        return min(self.resolve_token_budget(device), 4096)

    def resolve_shard_rows(self, rows: int) -> int:
        """Rows per shard for `rows` usable rows."""
        return self.shard_rows or min(4096, max(8, -(-rows // 16)))

    def row_bytes(self, dtype: StoreDtype) -> int:
        """Bytes of a row's features of one kind at one checkpoint, headers aside: the numbers, a scale and a norm."""
        return {"int8": self.dim, "fp16": 2 * self.dim, "bit": self.dim // 8}[dtype] + 8


def make_config(**values: Any) -> BuildConfig:
    """`BuildConfig` from a command's flags.

    Raises:
        UsageError: a value is out of range; the message names its flag.
    """
    try:
        return BuildConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # one of ours, a whole sentence
            raise UsageError(str(first["ctx"]["error"])) from error
        flags = {"gradients": "gradient", "template_options": "template-option"}
        name = flags.get(str(first["loc"][0]), str(first["loc"][0]).replace("_", "-"))
        raise UsageError(f"--{name} {first['input']}: {first['msg'].lower()}.") from error


def parse_columns(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """`user=question,assistant=answer` as (part, column) pairs; a comma belongs to a name unless `PART=` follows it.

    Raises:
        UsageError: a piece has no `=`.
    """
    pairs = []
    for piece in (piece for text in texts for piece in re.split(r",\s*(?=\w+=)", text)):
        part, equals, column = piece.partition("=")
        if not equals:
            raise UsageError(f"--columns {piece}: use PART=COLUMN, as in user=question,assistant=answer.")
        pairs.append((part.strip(), column))
    return tuple(pairs)


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` texts as a template's keywords; a value is JSON if it parses as such, otherwise text.

    Raises:
        UsageError: a text has no `=`, or a name comes twice with different values.
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--template-option {text}: use NAME=VALUE, as in enable_thinking=false.")
        if options.setdefault(name, _json_or_text(value)) != _json_or_text(value):
            raise UsageError(f"--template-option {name} is given twice with different values: give it once.")
    return options


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")  # although Python reads it


def _require_text(flag: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{flag}: its text is not valid Unicode; give it as UTF-8.") from None


@dataclass(frozen=True)
class Engine:
    """What runs a build: this process (`local`) or Ray workers.

    workers: of Ray; by default one per GPU of the cluster or, without GPUs, as many as its CPUs can hold with the
    store's number of threads each. ray_address: of a running cluster; by default one is started on this machine.

    Raises:
        UsageError: workers or an address with `local`, fewer than one worker, or Ray is not installed.
    """

    name: EngineName = "local"
    workers: int | None = None
    ray_address: str | None = None

    def __post_init__(self) -> None:
        if self.name == "local" and (self.workers is not None or self.ray_address is not None):
            raise UsageError("--workers and --ray-address need --engine ray: add it, or leave them out.")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers}: use at least one.")
        if self.ray_address not in (None, "auto") and not re.fullmatch(r"[^/]+:\d+", self.ray_address or ""):
            raise UsageError(f"--ray-address {self.ray_address}: use HOST:PORT of the cluster's head, or auto.")
        if self.name == "ray" and find_spec("ray") is None:
            raise UsageError("--engine ray needs Ray, which is not installed here: pip install ray.")
