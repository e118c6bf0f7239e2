"""Moments at which a test kills a build, for tests of resumed builds and appends."""

import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

from commands import Command


@dataclass(frozen=True)
class Moment:
    """When to kill: up to `within` seconds after `more` new matching files appeared in the store."""

    pattern: str
    more: int = 1
    within: float = 0.02


MOMENTS = [
    Moment("job/status.json", 1, 0.05),  # reading
    Moment("pool.parquet"),
    Moment("manifest.json", 1, 0.2),
    Moment("warmup/trainer/checkpoint-*"),
    Moment("checkpoints/*epoch-1", 1, 0.005),
    Moment("checkpoints/*epoch-2", 1, 0.005),
    Moment("features/epoch-1/*"),
    Moment("features/epoch-1/*", 3),
    Moment("features/epoch-2/*"),
    Moment("features/epoch-2/*", 4),
]


def kill_at(moment: Moment, command: Command, store: Path, chance: random.Random) -> str | None:
    """Kill -9 the command's process group at the moment; returns the stage it was in, None if it had already ended."""
    before = set(store.glob(moment.pattern))
    while command.code is None and len(set(store.glob(moment.pattern)) - before) < moment.more:
        time.sleep(0.0005)
    time.sleep(chance.uniform(0, moment.within))
    if command.code is not None:
        assert command.code == 0, command.err
        return None
    command.kill()
    return json.loads((store / "job" / "status.json").read_text())["stage"]
