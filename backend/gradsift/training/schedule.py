"""When the warmup trains on what, and at which rate: rows, order, steps, the learning rate."""

from math import cos, pi
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    pass


WARMUP_SHARE = 0.03  # of all steps: the linear rise before the cosine decay


FEWEST_STEPS = 10  # an epoch with fewer is a poor estimate of Adam's moments


def choose_rows(usable: int, fraction: float, seed: int) -> list[int]:
    """Positions (0..usable-1, ascending) of the seeded random subset the warmup trains on; at least one."""
    count = max(1, int(usable * fraction))
    return sorted(np.random.default_rng([seed, 1]).choice(usable, size=count, replace=False).tolist())


def learning_rate(step: int, steps: int) -> float:
    """Factor on the peak rate at 0-based `step` of `steps`: linear rise, cosine decay, never zero."""
    rise = round(WARMUP_SHARE * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + cos(pi * (step - rise) / max(1, steps - rise)))


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Optimizer steps of one epoch."""
    return -(-rows // batch_size)


def epoch_order(size: int, seed: int, epoch: int) -> list[int]:
    """A permutation that is a function of (seed, epoch), so that a resumed epoch sees what the unbroken one saw."""
    return np.random.default_rng([seed, 2, epoch]).permutation(size).tolist()


def short_epoch_note(rows: int, batch_size: int) -> str | None:
    """A warning when an epoch has too few steps for Adam's moments to mean much, with the batch size that would do."""
    steps = steps_per_epoch(rows, batch_size)
    if steps >= FEWEST_STEPS:
        return None
    better = max(1, rows // FEWEST_STEPS)
    hint = f"--batch-size {better} would give {steps_per_epoch(rows, better)}"
    if better == batch_size:
        hint = "a larger --warmup-fraction gives more"
    return f"The warmup takes only {steps} optimizer steps an epoch ({rows} rows in batches of {batch_size}); {hint}."
