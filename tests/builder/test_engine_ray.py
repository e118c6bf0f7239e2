"""Ray's workers make the same store as a single process, even if workers and machines are lost."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from commands import gradsift, start
from stores import assert_same_files, flip, shard_files

from gradsift import score
from gradsift.builder import build as builder
from gradsift.builder.engine_local import EngineError
from gradsift.config import BuildConfig, Engine
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.runtime.errors import StoreError, UsageError
from gradsift.runtime.progress import Cancelled, Progress

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install ray")


MARK = "GRADSIFT_RAY_TEST"  # in the environment of every process that these tests, or Ray for them, start
MARKS = (f"cluster-{os.getpid()}", f"driver-{os.getpid()}")


def ray_processes(title: str = "", mark: str | None = None) -> list[psutil.Process]:
    """Ray's processes that these tests started, or those with one mark. title: how their titles begin."""
    result = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        ours = line.startswith("ray::") or ("/ray/" in line and "multiprocessing" not in line)
        if ours and line.startswith(title):
            result += [process] if _environment(process).get(MARK, "") in ((mark,) if mark else MARKS) else []
    return result


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:  # it has ended, or belongs to another user
        return {}


def wait_for(done: Callable[[], Any], seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < limit, f"still waiting after {seconds} s"
        time.sleep(0.1)


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    """Every process of Ray has ended after the tests."""
    os.environ[MARK] = MARKS[0]
    yield
    del os.environ[MARK]
    with suppress(AssertionError):
        wait_for(lambda: not ray_processes(), 30)
    left = {process: " ".join(process.cmdline()) for process in ray_processes()}
    for process in left:
        process.kill()
    assert not left, list(left.values())


@pytest.fixture(scope="module")
def slow_config(tiny_config: BuildConfig) -> BuildConfig:
    """With the slow projection, so that there is time to kill workers."""
    return tiny_config.model_copy(update={"projection": "rademacher", "dim": 8192})


@pytest.fixture(scope="module")
def unbroken(tiny_pool: Path, slow_config: BuildConfig, tmp_path_factory: pytest.TempPathFactory) -> Store:
    out = tmp_path_factory.mktemp("unbroken") / "store"
    return builder.build([tiny_pool], out, slow_config, progress=Progress(quiet=True))


@pytest.fixture(scope="module")
def cluster(unbroken: Store) -> Iterator[Any]:
    """Two machines, as far as Ray can tell, with room for one worker each."""
    from ray.cluster_utils import Cluster

    room = {"num_cpus": unbroken.manifest.threads, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=room)
    try:
        made.second = made.add_node(**{name: value for name, value in room.items() if name != "include_dashboard"})
        yield made
    finally:
        made.shutdown()


class Watching(Progress):
    """Calls the events one by one, each when two workers are making shards; no row is counted before both started.

    A worker may be dead while the driver still hears the other's rows: until it knows, and has hired a successor, it
    must not be held up.
    """

    def __init__(self, *events: Callable[[], None]) -> None:
        super().__init__(quiet=True)
        self.events = list(events)
        self.called = 0
        self.counted: dict[str, int] = {}
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)  # both may be about one shard, and a note is shown only once
        super().note(text)

    @property
    def deaths(self) -> int:
        return sum("died while making shard" in note for note in self.texts)

    def advance(self, units: int = 1) -> None:
        if self.status.stage.startswith("features") and self.events and units > 0 and self.deaths == self.called:
            wait_for(lambda: len(ray_processes("ray::Worker")) == 2)
            if len(ray_processes("ray::Worker.make")) == 2:
                self.events.pop(0)()
                self.called += 1
        super().advance(units)
        if self.status.stage.startswith("features"):
            self.counted[self.status.stage] = self.status.done


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_worker_then_a_machine_is_killed_and_the_build_finishes(
    cluster: Any, unbroken: Store, tiny_pool: Path, slow_config: BuildConfig, tmp_path: Path
) -> None:
    def kill_worker() -> None:
        victim = ray_processes("ray::Worker.make")[0]
        victim.kill()
        wait_for(lambda: not victim.is_running())

    def kill_machine() -> None:
        (raylet,) = cluster.second.all_processes["raylet"]
        machine = psutil.Process(raylet.process.pid)
        for process in [machine, *machine.children(recursive=True)]:
            process.kill()
        wait_for(lambda: len(ray_processes("ray::Worker")) == 1)

    progress = Watching(kill_worker, kill_machine)
    engine = Engine("ray", ray_address=cluster.address)
    builder.build([tiny_pool], tmp_path / "store", slow_config, engine=engine, progress=progress)
    assert progress.events == []
    assert progress.deaths == 2
    assert progress.counted == {"features-1": unbroken.manifest.usable, "features-2": unbroken.manifest.usable}
    assert_same_files(tmp_path / "store", unbroken.path)


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(280)
def test_the_driver_is_killed_and_the_same_command_goes_on(
    unbroken: Store, tiny_pool: Path, slow_config: BuildConfig, tmp_path: Path
) -> None:
    """The cluster that the run started ends with it. Two workers then give the bytes of a local build."""
    out = tmp_path / "store"
    flags = ["--model", slow_config.model, "--max-length", 96, "--warmup-fraction", 0.5, "--epochs", 2, "--lr", 2e-3]
    flags += ["--batch-size", 4, "--lora-rank", 4, "--gradient", "adam", "--gradient", "sgd"]
    flags += ["--projection", "rademacher", "--dim", slow_config.dim, "--engine", "ray", "--workers", 2, "--out", out]
    command = start("build", tiny_pool, *flags, **{MARK: MARKS[1]})
    try:
        wait_for(lambda: any((out / "metrics").glob("*/0*")))
    finally:
        os.kill(command.pid, signal.SIGKILL)  # it alone, not its group, as the kernel does when memory runs out
    wait_for(lambda: not ray_processes(mark=MARKS[1]))
    whole = shard_files(out)
    assert not Store.open(out).complete
    assert gradsift("build", tiny_pool, *flags).code == 0
    assert whole.items() <= shard_files(out).items()
    assert_same_files(out, unbroken.path)


def test_features_by_other_threads_give_nearly_the_same_scores(
    unbroken: Store, tiny_pool: Path, tiny_targets: Path, slow_config: BuildConfig, tmp_path: Path
) -> None:
    """Workers make the bytes of `unbroken`, as the tests above show; here they do so with more threads."""
    gone = shutil.ignore_patterns("features", "representations", "metrics", "scorings", "index", "checked.json")
    shutil.copytree(unbroken.path, tmp_path / "store", ignore=gone)
    before = torch.get_num_threads()
    assert unbroken.manifest.threads == before
    torch.set_num_threads(before + 2)
    try:
        store = builder.build([tiny_pool], tmp_path / "store", slow_config, progress=Progress(quiet=True))
    finally:
        torch.set_num_threads(before)
    targets, methods = read_targets(tiny_targets).rows, ["less", "rds"]
    mine, theirs = score(store, targets, methods), score(unbroken, targets, methods)
    assert mine[["row", "method"]].equals(theirs[["row", "method"]])
    np.testing.assert_allclose(mine["score"], theirs["score"], rtol=0, atol=1e-4)


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(280)
def test_what_a_worker_cannot_do_is_reported_by_the_driver(
    cluster: Any, unbroken: Store, tiny_pool: Path, slow_config: BuildConfig, tmp_path: Path
) -> None:
    """A stopped run keeps its finished shards; a damaged checkpoint gives one sentence, lack of room another."""

    class Impatient(Progress):
        def advance(self, units: int = 1) -> None:
            self._stopping = self.status.stage == "features-1" and self.status.done >= 8
            super().advance(units)

    engine = Engine("ray", ray_address=cluster.address)

    def build(progress: Progress | None = None) -> None:
        builder.build([tiny_pool], out, slow_config, engine=engine, progress=progress or Progress(quiet=True))

    out = tmp_path / "store"
    with pytest.raises(Cancelled, match="run the same command again to do the rest"):
        build(Impatient(quiet=True))
    wait_for(lambda: not ray_processes("ray::Worker"))
    store = Store.open(out)
    assert shard_files(out)
    flip(out / "checkpoints" / "epoch-1" / "adapter_model.safetensors", -1)
    with pytest.raises(StoreError, match=r"adapter_model\.safetensors is damaged"):
        build()
    flip(out / "checkpoints" / "epoch-1" / "adapter_model.safetensors", -1)
    Store(out, store.manifest.model_copy(update={"threads": 99})).save_manifest()
    with pytest.raises(EngineError, match="No machine of the Ray cluster has 99 CPU"):
        build()
    store.save_manifest()
    builder.build([tiny_pool], out, slow_config, progress=Progress(quiet=True))
    assert_same_files(out, unbroken.path)


@needs_ray
def test_a_cluster_that_does_not_answer_is_refused_before_anything_is_computed(
    tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path
) -> None:
    engine = Engine("ray", ray_address="127.0.0.1:1")
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:1 cannot be reached"):
        builder.build([tiny_pool], tmp_path / "store", tiny_config, engine=engine, progress=Progress(quiet=True))
    assert not (tmp_path / "store" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workers": 2}, "need --engine ray"),
        ({"ray_address": "auto"}, "need --engine ray"),
        ({"name": "ray", "workers": 0}, "at least one"),
        ({"name": "ray", "ray_address": "ray://head:10001"}, "HOST:PORT"),
    ],
)
def test_flags_that_make_no_sense_are_refused(given: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Engine(**given)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradsift.config.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install ray"):
        Engine("ray")
