"""bergson (EleutherAI, PyPI) as a peer of the collector: `bergson build` with the same rows, model, adapter and dtype.

It runs as its users run it: a program in its own environment, with its own packing and defaults, and with the 16 x 16
projection per module that its attribution commands default to. Only the loop over batches counts, according to the
total of its progress bar, without imports, loading and the last write of the index. The loop starts cold, while the
collector is timed warm: with 64 rows about one second in forty, to bergson's disadvantage.
"""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gradsift.cli.bench.pairs import Timed
from gradsift.data.encode import Encoded
from gradsift.runtime.errors import GradsiftError, UsageError

_BAR = re.compile(r"Computing [^\r\n]*?(\d+)/\1 \[[^\]\r\n]*?([\d.]+)(s/it|it/s)\]")


class BergsonError(GradsiftError):
    """bergson failed."""


class Bergson:
    """The program in the virtual environment `environment`.

    Raises:
        UsageError: it does not exist.
    """

    def __init__(self, environment: Path) -> None:
        self.program = (environment / "bin" / "bergson").absolute()
        if not self.program.is_file():
            raise UsageError(f"There is no bergson in {environment}: give the folder of an environment that has it.")

    @contextmanager
    def prepared(self, rows: Sequence[Encoded], model: Any, tokenizer: str, dtype: str) -> Iterator[Timed]:
        """Write rows and adapter where bergson can read them; yields a function that runs it and returns seconds.

        model: the base model with LoRA. tokenizer: folder or hub id of the base model's tokenizer.
        """
        with tempfile.TemporaryDirectory(prefix="gradsift-bergson-") as name:
            folder = Path(name)
            model.save_pretrained(folder / "adapter")
            lines = [json.dumps({"input_ids": row.ids, "labels": _labels(row)}) for row in rows]
            (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            arguments = ["build", "index", "--overwrite", "--model", "adapter", "--tokenizer", tokenizer]
            arguments += ["--dataset", "rows.jsonl", "--precision", dtype, "--projection_dim", "16"]
            yield lambda: self._seconds(arguments, folder)

    def _seconds(self, arguments: list[str], folder: Path) -> float:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}
        environment |= {"HF_DATASETS_CACHE": str(folder / "datasets")}
        done = subprocess.run(
            [str(self.program), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        seconds = loop_seconds(done.stderr)
        if done.returncode or seconds is None:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise BergsonError(f"bergson build failed ({done.returncode}): {last}")
        return seconds


def loop_seconds(stderr: str) -> float | None:
    """How long a finished loop took, from the last output of its bar (tqdm): finished batches and their mean speed."""
    ends = _BAR.findall(stderr)
    if not ends:
        return None
    batches, speed, unit = ends[-1]
    return int(batches) * float(speed) if unit == "s/it" else int(batches) / float(speed)


def _labels(row: Encoded) -> list[int]:
    return [token if learned else -100 for token, learned in zip(row.ids, row.supervised, strict=True)]
