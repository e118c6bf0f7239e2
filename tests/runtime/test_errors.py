"""The sentence that the user reads for each error, and which errors count as defects and are shown in full."""

import errno

import pytest
import torch

from gradsift.runtime.errors import UsageError, explain


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UsageError("Say it so."), "Say it so."),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "Memory ran out: use a smaller"),
        (MemoryError(), "Memory ran out: use a smaller"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), "Memory ran out: use a smaller"),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "The disk is full at /a/b: make room"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "Permission denied at /a/b."),
    ],
)
def test_what_a_user_can_fix_is_one_sentence(error: BaseException, message: str) -> None:
    assert (explain(error) or "").startswith(message)


@pytest.mark.parametrize("error", [RuntimeError("expected scalar type"), KeyError("row"), AssertionError()])
def test_a_defect_is_not_explained_away(error: BaseException) -> None:
    assert explain(error) is None
