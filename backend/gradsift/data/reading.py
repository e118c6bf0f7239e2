"""A build's parameters that say how its files are read."""

from gradsift.config import BuildConfig
from gradsift.data.schemas import Reading


def reading_of(config: BuildConfig) -> Reading:
    """How the pool of a build with `config` is read."""
    return Reading(columns=config.columns, take=config.take, source_column=config.source_column)
