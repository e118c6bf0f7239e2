"""Two runs on one accelerator wait for each other; a stop request ends the wait."""

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from gradsift.runtime.device import exclusive, try_order
from gradsift.runtime.progress import Cancelled, Progress

CARD = torch.device("meta")  # every device except the CPU is locked in the same way


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_the_second_run_waits_for_the_first() -> None:
    order: list[str] = []
    second = Progress(quiet=True)

    def run() -> None:
        with exclusive(CARD, second):
            order.append("second")

    with exclusive(CARD, Progress(quiet=True)):
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
    with exclusive(CARD, Progress(quiet=True)), pytest.raises(Cancelled), exclusive(CARD, stopped):
        pass


def test_the_cpu_is_not_locked() -> None:
    cpu = torch.device("cpu")
    with exclusive(cpu, Progress(quiet=True)), exclusive(cpu, Progress(quiet=True)):
        pass


def test_sums_have_a_fixed_order_inside_only() -> None:
    """Otherwise attention's backward pass on a GPU adds in any order; a store promises the same bytes every time."""
    assert not torch.are_deterministic_algorithms_enabled()
    with exclusive(CARD, Progress(quiet=True)):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_card_is_one_by_whatever_number_it_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="GPU-1"))
    with exclusive(torch.device("cuda"), Progress(quiet=True)):
        assert (tmp_path / "gradsift" / "locks" / "cuda-GPU-1.lock").exists()


def test_a_model_without_a_fixed_order_is_used_with_a_note(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model).requires_grad_(False)
    progress = Progress(quiet=True)
    with exclusive(CARD, progress):
        try_order(model, progress)
        assert progress.status.notes == []
        assert not torch.is_deterministic_algorithms_warn_only_enabled()

        def unordered(*inputs: object, **options: object) -> None:
            raise RuntimeError("histc_cuda does not have a deterministic implementation, but you set ...")

        monkeypatch.setattr(model.lm_head, "forward", unordered)
        try_order(model, progress)
        assert "no fixed order" in progress.status.notes[0]
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not model.get_input_embeddings()._forward_hooks
