"""The processes that `accelerate launch` starts for one build: the first does everything, the others help to train.

Each has its own GPU, or a share of the CPU. Without a launcher there is one process, and all of this does nothing.
"""

import os
from datetime import timedelta

import torch

from gradsift.runtime.errors import UsageError


def size() -> int:
    """The number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0")) if size() > 1 else 0


def check(batch_size: int) -> None:
    """Raise `UsageError` if the processes cannot share an optimizer step, or were launched to shard the model."""
    if batch_size % size():
        raise UsageError(
            f"--batch-size {batch_size} cannot be split over {size()} processes: choose a multiple of {size()}, or "
            "launch a different number of processes."
        )
    if size() > 1 and any(os.environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("FSDP", "DEEPSPEED")):
        raise UsageError(
            "The warmup is data-parallel and does not shard the model: launch it without FSDP and DeepSpeed."
        )


def gather() -> None:
    """Join the process group and make this process's GPU the current one."""
    if size() > 1:
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))  # reading a pool may take hours


def agree(trains: bool = False) -> bool:
    """Whether a warmup follows: `trains` of the first process, for which the others wait here."""
    answer = [trains]
    if size() > 1:
        torch.distributed.broadcast_object_list(answer, src=0)
    return answer[0]


def part() -> None:
    """Leave the process group once training is over."""
    if size() > 1:
        torch.distributed.destroy_process_group()
