"""One run at a time on an accelerator, with a fixed order of additions.

Two models that each fit alone may not fit together, and the one that fails may be an hour into its work. Attention's
fast backward passes add up in whatever order their blocks finish unless torch is in deterministic mode, and a store
promises the same bytes every time it is built.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from gradsift.runtime.locks import waiting
from gradsift.runtime.paths import cache_home
from gradsift.runtime.progress import Progress


@contextmanager
def exclusive(device: torch.device, progress: Progress) -> Iterator[None]:
    """Hold the device alone; while another run of this user holds it, wait visibly until it is free or we are stopped.

    Inside, torch uses the deterministic form of every operation. The CPU needs neither: main memory is not a card's,
    runs there only slow each other down, and its sums have a fixed order anyway.
    """
    if device.type == "cpu":
        yield
        return
    lock = cache_home() / "locks" / f"{_card(device)}.lock"
    with waiting(lock, f"Waiting for {device}: another gradsift run is using it", progress):
        try:
            with _fixed_order():
                yield
        finally:  # free unreferenced memory for the next run
            gc.collect()
            torch.cuda.empty_cache()


def try_order(model: Any, progress: Progress) -> None:
    """Run a causal language model forward and backward once under `exclusive`.

    If one of its operations has no deterministic form, add a note and do without: such a model can be used, but two
    builds with it may differ.
    """
    if not torch.are_deterministic_algorithms_enabled():
        return
    handle = model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: output.requires_grad_())
    try:
        ids = torch.zeros(1, 8, dtype=torch.long, device=next(model.parameters()).device)
        model(input_ids=ids, use_cache=False).logits.float().logsumexp(-1).sum().backward()
    except RuntimeError as error:
        if "deterministic implementation" not in str(error):
            raise
        torch.use_deterministic_algorithms(True, warn_only=True)
        progress.note(
            "The model uses an operation that has no fixed order of additions on this device: building again may give "
            "numbers that differ in the last digits."
        )
    finally:
        handle.remove()


def _card(device: torch.device) -> str:
    """A name that stays with the card, whatever number CUDA_VISIBLE_DEVICES gives it in this process."""
    if device.type == "cuda":
        return f"cuda-{torch.cuda.get_device_properties(device).uuid}"
    return f"{device.type}-{device.index or 0}"


@contextmanager
def _fixed_order() -> Iterator[None]:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch refuses matrix products without it
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # with warn_only attention's kernels would stay as they are
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def default_device() -> torch.device:
    """CUDA if it is available, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_dtype(choice: str, device: torch.device) -> torch.dtype:
    """`auto` is bf16 on a GPU and fp32 on a CPU; LoRA parameters and gradients are fp32 either way."""
    if choice == "auto":
        choice = "bf16" if device.type == "cuda" else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[choice]
