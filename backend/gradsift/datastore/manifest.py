"""The records of a store's manifest."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gradsift.config import BuildConfig

SCHEMA_VERSION = 3
_BELOW = r"^([\w-]+/)*[\w-]+\.\w+$"  # file names that stay inside the store, whoever wrote its manifest


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CheckpointInfo(_Record):
    """One checkpoint: η̄, its weight η̄/Ση̄, Adam's t, and the id of its projection."""

    name: str = Field(pattern=r"^epoch-\d+$")
    mean_lr: float
    weight: float
    step: int
    projector: str


class SourceInfo(_Record):
    """Rows of one source: in its file(s), in the store, usable, excluded, truncated (cut but usable)."""

    source: str
    rows_in_file: int = 0
    rows_in_store: int = 0
    usable: int = 0
    excluded: int = 0
    truncated: int = 0


class Part(_Record):
    """Rows taken in together, by the build or by an append: their files ("NAME SHA256"), counts, and rows per shard."""

    inputs: tuple[str, ...]
    limit_per_source: int | None
    pool_fingerprint: str
    rows: int
    usable: int
    shard_rows: int


class Manifest(_Record):
    """Everything a store records about itself. `files` maps each small fixed file to its sha256.

    excluded: rows by reason; similar reasons count together, under the first one in full. unused: rows by column that
    held text and was not used. begun: the fingerprint of the store before anything was appended, "" if nothing was.
    """

    schema_version: int = SCHEMA_VERSION
    config: BuildConfig
    model_fingerprint: str
    encoder_fingerprint: str
    device: str
    threads: int
    dtype: str
    token_budget: int
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    begun: str = ""
    schemas: dict[str, dict[str, int]]
    excluded: dict[str, int]
    unused: dict[str, int] = Field(default_factory=dict)
    sources: tuple[SourceInfo, ...]
    checkpoints: tuple[CheckpointInfo, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str]
    files: dict[Annotated[str, Field(pattern=_BELOW)], str] = Field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of the pool, usable or not."""
        return sum(part.rows for part in self.parts)

    @property
    def usable(self) -> int:
        """Rows that have features."""
        return sum(part.usable for part in self.parts)

    @property
    def inputs(self) -> tuple[str, ...]:
        """ "NAME SHA256" of every file that was read."""
        return tuple(entry for part in self.parts for entry in part.inputs)
