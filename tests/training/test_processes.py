"""The warmup in several processes, as `accelerate launch` starts them on GPUs: two on a CPU train the same as one, and
only one of them builds.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradsift.builder import build as builder
from gradsift.config import BuildConfig
from gradsift.datastore.store import Store
from gradsift.datastore.verify import verify
from gradsift.runtime.errors import UsageError
from gradsift.runtime.progress import Progress
from gradsift.training import processes

LAUNCH = ["torch.distributed.run", "--nproc-per-node", "2", "--standalone"]  # accelerate's starts only one on a CPU
PROGRAM = """
import os, sys
from pathlib import Path
from gradsift.cli.main import main
from gradsift.training import warmup
make = warmup.make_trainer
def noted(*given):
    trainer = make(*given)
    Path(__file__).with_name("rank-" + os.environ["RANK"]).write_text(str(trainer.accelerator.num_processes))
    return trainer
warmup.make_trainer = noted
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_two_processes_train_what_one_does(tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path) -> None:
    """20 rows in batches of 4, without dropout: every optimizer step has the same rows, in fp32 whatever precision
    the launcher is set to.
    """
    config = tiny_config.model_copy(update={"warmup_fraction": 0.5, "lora_dropout": 0.0, "gradients": ("adam",)})
    flags = ["--model", config.model, "--max-length", 96, "--warmup-fraction", 0.5, "--epochs", 2, "--batch-size", 4]
    flags += ["--lr", 2e-3, "--lora-rank", 4, "--lora-dropout", 0, "--dim", 256]
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [*LAUNCH, tmp_path / "program.py", "build", tiny_pool, *flags, "--out", tmp_path / "two"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "bf16"}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str((tmp_path / "two").resolve())]
    assert done.stderr.count("Warmup (10 steps)") == 1
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in range(2)] == ["2", "2"]
    one = builder.build([tiny_pool], tmp_path / "one", config, progress=Progress(quiet=True))
    two = Store.open(tmp_path / "two")
    assert verify(two.path) == []
    assert json.loads((two.path / "job" / "status.json").read_text())["state"] == "finished"
    for ours, theirs in zip(one.manifest.checkpoints, two.manifest.checkpoints, strict=True):
        assert (ours.mean_lr, ours.step, ours.projector) == (theirs.mean_lr, theirs.step, theirs.projector)
    for name in ("loss", "learning_rate", "grad_norm"):
        np.testing.assert_allclose(two.loss_curve()[name], one.loss_curve()[name], rtol=1e-3)
    for epoch in range(2):
        ours, theirs = one.checkpoint(epoch), two.checkpoint(epoch)
        for name, weight in ours.adapter.items():
            np.testing.assert_allclose(theirs.adapter[name], weight, atol=1e-3)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "3"}, "--batch-size 4 cannot be split over 3 processes"),
        ({"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true"}, "without FSDP"),
    ],
)
def test_processes_that_cannot_share_the_work_are_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        processes.check(4)


def test_a_single_process_has_nothing_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "3")  # left behind by another program
    assert (processes.size(), processes.rank()) == (1, 0)
