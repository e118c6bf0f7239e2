"""From the build form's values to the command line that a build is: no drawing here."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradsift.config import BuildConfig

BUNDLED = "smollm2"  # `gradsift.model.load.BUNDLED`, which cannot be imported here: torch comes with it

# flag of `gradsift build`, field of BuildConfig; the form's values carry the field names
FLAGS = {
    "model": "--model",
    "template": "--template",
    "limit_per_source": "--limit-per-source",
    "max_length": "--max-length",
    "warmup_fraction": "--warmup-fraction",
    "epochs": "--epochs",
    "batch_size": "--batch-size",
    "lr": "--lr",
    "lora_rank": "--lora-rank",
    "dim": "--dim",
    "store_dtype": "--store-dtype",
    "seed": "--seed",
}

_PAPER = {name: BuildConfig.model_fields[name].default for name in FLAGS if name != "model"}
PRESETS: dict[str, dict[str, Any]] = {
    "Small machine": {
        **_PAPER,
        "limit_per_source": 60,
        "max_length": 512,
        "warmup_fraction": 0.2,
        "epochs": 2,
        "batch_size": 4,
        "lr": 2e-4,
        "lora_rank": 16,
        "dim": 4096,
    },
    "Paper": _PAPER,
}
ABOUT = {
    "Small machine": "60 rows per source, two epochs, rank 16: minutes on a laptop with the bundled model.",
    "Paper": "The whole pool, four epochs, rank 128, 8192 dimensions, as in LESS section 5.1: meant for a GPU.",
}


def argv(pool: Sequence[str | Path], values: Mapping[str, Any], out: Path) -> list[str]:
    """Arguments of `gradsift` for this build; a value of None or "" leaves the command's own default.

    The pool stands after `--`, so that a file whose name begins with a dash stays a file.
    """
    return ["build", "--out", str(out), *_flags(values), "--", *map(str, pool)]


def plan_argv(pool: Sequence[str | Path], values: Mapping[str, Any]) -> list[str]:
    """Arguments of `gradsift` that tell what this build would cost."""
    return ["plan", "--json", *_flags(values), "--", *map(str, pool)]


def _flags(values: Mapping[str, Any]) -> list[str]:
    given = [(flag, values.get(name)) for name, flag in FLAGS.items()]
    return [word for flag, value in given if value not in (None, "") for word in (flag, str(value))]


def builds(command: Sequence[str], path: Path) -> bool:
    """Whether `command` is a build into `path` and nothing else: a store that came from elsewhere may say anything."""
    if not command or command[0] != "build" or "--restart" in command or command.count("--out") != 1:
        return False
    at = command.index("--out") + 1
    return at < len(command) and Path(command[at]).resolve() == path.resolve()


def pool_paths(text: str) -> list[str]:
    """One path, glob or hub id a line; `~` is the home folder; blank lines do not count."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [os.path.expanduser(line) for line in lines]
