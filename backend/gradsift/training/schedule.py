"""The warmup's schedule: which rows, in which order, in how many steps, at which learning rate."""

from math import cos, pi

import numpy as np

WARMUP_SHARE = 0.03  # of all steps: the linear rise before the cosine decay
FEWEST_STEPS = 10  # an epoch with fewer estimates Adam's moments poorly


def choose_rows(usable: int, fraction: float, seed: int) -> list[int]:
    """Positions (0..usable-1, ascending) of the seeded random subset the warmup trains on; at least one."""
    count = max(1, int(usable * fraction))
    return sorted(np.random.default_rng([seed, 1]).choice(usable, size=count, replace=False).tolist())


def learning_rate(step: int, steps: int) -> float:
    """Factor of the peak rate at 0-based `step` of `steps`: linear rise, then cosine decay; never zero."""
    rise = round(WARMUP_SHARE * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + cos(pi * (step - rise) / max(1, steps - rise)))


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Optimizer steps of one epoch."""
    return -(-rows // batch_size)


def epoch_order(size: int, seed: int, epoch: int) -> list[int]:
    """A permutation that depends only on (seed, epoch), so that a resumed epoch sees the same order."""
    return np.random.default_rng([seed, 2, epoch]).permutation(size).tolist()


def short_epoch_note(rows: int, batch_size: int) -> str | None:
    """A warning if an epoch has too few steps for reliable Adam moments, with a batch size that helps; else None."""
    steps = steps_per_epoch(rows, batch_size)
    if steps >= FEWEST_STEPS:
        return None
    better = max(1, rows // FEWEST_STEPS)
    hint = f"--batch-size {better} would give {steps_per_epoch(rows, better)}"
    if better == batch_size:
        hint = "a larger --warmup-fraction would give more"
    return f"The warmup has only {steps} optimizer steps per epoch ({rows} rows in batches of {batch_size}); {hint}."
