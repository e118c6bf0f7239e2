"""Two runs on one accelerator wait for each other; a stop request ends the wait."""

import threading
import time
from pathlib import Path

import pytest
import torch

from gradsift.device import turn
from gradsift.progress import Cancelled, Progress

CARD = torch.device("meta")  # any device but the CPU is locked alike


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_the_second_run_waits_for_the_first() -> None:
    order: list[str] = []
    second = Progress(quiet=True)

    def run() -> None:
        with turn(CARD, second):
            order.append("second")

    with turn(CARD, Progress(quiet=True)):
        thread = threading.Thread(target=run)
        thread.start()
        while second.status.stage != "wait":
            time.sleep(0.01)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_waiting_run_can_be_stopped() -> None:
    stopped = Progress(quiet=True)
    stopped._stopping = True
    with turn(CARD, Progress(quiet=True)), pytest.raises(Cancelled), turn(CARD, stopped):
        pass


def test_the_cpu_is_not_locked() -> None:
    cpu = torch.device("cpu")
    with turn(cpu, Progress(quiet=True)), turn(cpu, Progress(quiet=True)):
        pass
