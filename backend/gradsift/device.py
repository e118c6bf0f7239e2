"""One run at a time on an accelerator: two models that each fit may not fit together, and the loser is an hour in."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gradsift.paths import cache_home
from gradsift.progress import Progress


@contextmanager
def turn(device: torch.device, progress: Progress) -> Iterator[None]:
    """Hold the device's lock, waiting visibly (and stoppably) while another run of this person has it.

    The CPU needs none: its memory is not a card's, and runs on it only slow each other down.
    """
    if device.type == "cpu":
        yield
        return
    folder = cache_home() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{device.type}-{device.index or 0}.lock", "a") as lock:
        waiting = False
        while not _taken(lock.fileno()):
            if not waiting:
                progress.stage("wait", f"Waiting for {device}: another gradsift run is using it", 0, "")
                waiting = True
            progress.check()
            time.sleep(0.2)
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
