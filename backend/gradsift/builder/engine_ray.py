"""Features on a Ray cluster: an actor on every device holds the model, a shard is a task, the actors write the files.

Ray starts the actors and reports when one dies. This module puts its shard back into the queue and starts another: a
task retried by Ray itself waits for *its* actor to restart, forever if the machine is gone and no other has room, while
here the surviving actors go on working.
"""

import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from gradsift.builder.engine_local import (
    EngineError,
    begin_stage,
    library_versions,
    note_differences,
    note_split,
    rows_done,
)
from gradsift.builder.extraction import Extraction
from gradsift.config import Engine
from gradsift.datastore.store import Store
from gradsift.gradients.store_model import StoreModel
from gradsift.runtime.device import default_device
from gradsift.runtime.errors import StoreError
from gradsift.runtime.progress import FOLDER_VARIABLE, Progress

ATTEMPTS = 3  # per shard: what killed three workers would kill the next
_OBJECTS = 100 * 2**20  # bytes of Ray's object store: nothing larger than a count passes through it
_PATIENCE = 0.5  # seconds between checks for a request to stop


class Worker:
    """The actor: one device with the store's model, which is loaded for the first shard."""

    def __init__(self, path: str, manifest: str, fingerprint: str, folder: str) -> None:
        self._path, self._manifest, self._fingerprint = Path(path), manifest, fingerprint
        with suppress(OSError):  # the model may be a path relative to where the build was started
            os.chdir(folder)
        self._progress = Progress(quiet=True)
        self._held = ExitStack()
        self._extraction: Extraction | None = None

    def hello(self) -> dict[str, str]:
        """The machine, the device and the library versions."""
        return {"host": socket.gethostname(), "device": default_device().type, **library_versions()}

    def make(self, epoch: int, index: int) -> Iterator[int | tuple[int, list[str]]]:
        """Make one shard; yields the number of rows of every finished batch and, at the end, (splits, notes)."""
        counts: SimpleQueue[int | None] = SimpleQueue()
        with ThreadPoolExecutor(1) as thread:
            work = thread.submit(self._make, epoch, index, counts)
            work.add_done_callback(lambda _: counts.put(None))
            while (rows := counts.get()) is not None:
                yield rows
            yield work.result(), self._progress.status.notes

    def _make(self, epoch: int, index: int, counts: SimpleQueue) -> int:
        if self._extraction is None:
            self._extraction = self._load()
        features = self._extraction.extract(epoch, index, counts.put)
        self._extraction.write(epoch, index, features)
        return features.splits

    def _load(self) -> Extraction:
        try:
            store = Store.open(self._path, self._manifest)
        except StoreError as error:
            raise EngineError(
                f"{self._path} cannot be opened on {socket.gethostname()}: with --engine ray the store must lie in a "
                f"folder that every machine of the cluster shares ({error})"
            ) from error
        if store.fingerprint != self._fingerprint:
            raise EngineError(
                f"{self._path} on {socket.gethostname()} is another store: share one folder among machines."
            )
        torch.set_num_threads(store.manifest.threads)
        model = StoreModel(store)
        self._held.enter_context(model.session(self._progress))
        return Extraction(model)


@dataclass
class _Task:
    """A shard to make. counted: those of its rows that its present worker has reported."""

    epoch: int
    index: int
    counted: int = 0
    attempts: int = 0


@dataclass
class _Actor:
    """An actor and its work: greeting (no task yet) or making a shard. answer: Ray's reference to wait for."""

    handle: Any
    answer: Any
    task: _Task | None = None
    host: str = ""


@dataclass
class _Tally:
    """Rows done in every epoch. Only the first unfinished one is reported; the next may begin before it ends."""

    store: Store
    progress: Progress
    done: dict[int, int]
    left: dict[int, int]
    current: int = -1

    def add(self, epoch: int, rows: int) -> None:
        self.done[epoch] += rows
        if epoch == self.current:
            self.progress.advance(rows)

    def update_stage(self) -> None:
        """Begin the stage of the first epoch with shards left, unless it has begun."""
        first = min((epoch for epoch, count in self.left.items() if count), default=self.current)
        if first != self.current:
            self.current = first
            begin_stage(self.store, first, self.done[first], self.progress)


@dataclass
class _Run:
    """The driver: hands the shards out one by one, each to whichever actor is free first."""

    ray: Any
    store: Store
    engine: Engine
    progress: Progress
    actors: list[_Actor] = field(default_factory=list)
    queue: deque[_Task] = field(default_factory=deque)

    def finish(self, todo: dict[int, list[int]]) -> None:
        self.queue.extend(_Task(epoch, index) for epoch in sorted(todo) for index in todo[epoch])
        done = {epoch: rows_done(self.store, missing) for epoch, missing in todo.items()}
        self.tally = _Tally(self.store, self.progress, done, {epoch: len(missing) for epoch, missing in todo.items()})
        self.tally.update_stage()
        for _ in range(min(self._size(), len(self.queue))):
            self._hire()
        while any(self.tally.left.values()):
            self._wait()

    def dismiss(self) -> None:
        """End every actor, leaving its current shard unfinished."""
        for actor in self.actors:
            with suppress(Exception):  # the actor or the whole cluster is dead already
                self.ray.kill(actor.handle)

    # -- actors -------------------------------------------------------------------------------------------------------

    @property
    def _needs(self) -> dict[str, int]:
        """What an actor requests from Ray: a GPU if the cluster has any, else a CPU per thread of the store's build."""
        if self.ray.cluster_resources().get("GPU"):
            return {"GPU": 1, "CPU": 1}
        return {"CPU": self.store.manifest.threads}

    def _size(self) -> int:
        if self.engine.workers is not None:
            return self.engine.workers
        main, amount = next(iter(self._needs.items()))
        return max(1, int(self.ray.cluster_resources().get(main, 0)) // amount)

    def _hire(self) -> None:
        needs = self._needs
        options = {"num_cpus": needs["CPU"], "num_gpus": needs.get("GPU", 0), "max_restarts": 0, "max_task_retries": 0}
        environment = {"env_vars": _environment(self.store.manifest.threads)}
        kind = self.ray.remote(Worker).options(**options, runtime_env=environment)
        store = self.store
        handle = kind.remote(str(store.path.resolve()), store.name, store.fingerprint, os.getcwd())
        self.actors.append(_Actor(handle, handle.hello.remote()))

    def _bury(self, actor: _Actor, error: Exception) -> None:
        """Put a dead actor's shard back into the queue and start a successor."""
        self.actors.remove(actor)
        if actor.task is None and not actor.host:  # it never started, and another would not either
            if not self.actors:
                raise EngineError(f"No worker could start on the Ray cluster: {_first_line(error)}") from error
            self.progress.note(f"A worker could not start on the Ray cluster: {_first_line(error)}")
            return
        if task := actor.task:
            self.tally.add(task.epoch, -task.counted)
            task.counted, task.attempts = 0, task.attempts + 1
            where = f"shard {task.index} of {self.store.epochs[task.epoch]}"
            if task.attempts == ATTEMPTS:
                raise EngineError(
                    f"{ATTEMPTS} workers died while making {where}, the last on {actor.host}: free memory on the "
                    "machines, or build with fewer workers; finished shards are kept."
                ) from error
            self.progress.note(f"A worker on {actor.host} died while making {where}; the shard is made again.")
            self.queue.appendleft(task)
        self._hire()

    # -- shards -------------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Give every free actor a shard, then receive the next messages."""
        for actor in self.actors:
            if actor.answer is None and self.queue:
                actor.task = self.queue.popleft()
                actor.answer = actor.handle.make.options(num_returns="streaming").remote(
                    actor.task.epoch, actor.task.index
                )
        waiting = [actor.answer for actor in self.actors if actor.answer is not None]
        ready, _ = self.ray.wait(waiting, num_returns=1, timeout=_PATIENCE, fetch_local=False)
        for actor in [actor for actor in self.actors if any(actor.answer is answer for answer in ready)]:
            self._hear(actor)
        if not ready and not any(actor.host for actor in self.actors):
            self._check_room()
        self.progress.check()

    def _hear(self, actor: _Actor) -> None:
        errors = self.ray.exceptions
        try:
            message = self.ray.get(actor.answer if actor.task is None else next(actor.answer))
        except errors.RayTaskError as error:
            raise error.cause from error
        except errors.RayError as error:
            self._bury(actor, error)
            return
        if actor.task is None:
            actor.host, actor.answer = message["host"], None
            note_differences(self.store.manifest, message, f"a worker on {actor.host}", self.progress)
        elif isinstance(message, int):
            actor.task.counted += message
            self.tally.add(actor.task.epoch, message)
        else:
            self._finished(actor, *message)

    def _finished(self, actor: _Actor, splits: int, notes: list[str]) -> None:
        task = actor.task
        assert task is not None
        if splits:
            note_split(self.store, task.epoch, task.index, self.progress)
        for note in notes:
            self.progress.note(note)
        self.tally.left[task.epoch] -= 1
        actor.task = actor.answer = None
        self.tally.update_stage()

    def _check_room(self) -> None:
        """While no worker has started, check that one can.

        Raises:
            EngineError: no machine has what a worker needs.
        """
        needs = self._needs
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        if not any(all(machine.get(name, 0) >= amount for name, amount in needs.items()) for machine in machines):
            request = " and ".join(f"{amount} {name}" for name, amount in needs.items())
            raise EngineError(
                f"No machine of the Ray cluster has {request}, which a worker needs: add one that has, or build "
                "on another cluster; finished shards are kept."
            )


def extract_on_ray(store: Store, todo: dict[int, list[int]], engine: Engine, progress: Progress) -> None:
    """Make the shards `todo` (epoch -> indices) on the engine's cluster.

    Raises:
        EngineError: the cluster cannot be reached, no worker of it can start, or the store's folder is not shared.
        GradsiftError: as in a local build; it comes from the worker where it happened.
    """
    with _connected(engine, store.manifest.threads, progress) as ray:
        run = _Run(ray, store, engine, progress)
        try:
            run.finish(todo)
        finally:
            run.dismiss()


def check_cluster(engine: Engine) -> None:
    """Raise `EngineError` if nothing answers at the engine's address; Ray itself would try for minutes."""
    if engine.ray_address in (None, "auto"):
        return
    host, _, port = engine.ray_address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise EngineError(
            f"The Ray cluster at {engine.ray_address} cannot be reached ({error.strerror or error}): start its head, "
            "or give the address that ray start printed there."
        ) from error


@contextmanager
def _connected(engine: Engine, threads: int, progress: Progress) -> Iterator[Any]:
    """Ray, connected to the engine's cluster, or to one on this machine that ends with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's coming default; without it Ray warns
    import ray

    if ray.is_initialized():  # by the calling program: its cluster stays up
        yield ray
        return
    if engine.ray_address is None:
        cores = max(os.cpu_count() or 1, (engine.workers or 1) * threads)
        options: dict[str, Any] = {"address": "local", "num_cpus": cores, "object_store_memory": _OBJECTS}
        options["include_dashboard"] = False
    else:
        options = {"address": engine.ray_address}
    progress.say("Starting Ray on this machine" if engine.ray_address is None else "Connecting to Ray")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise EngineError(
                f"Ray cannot start on this machine: {_first_line(error)}"
                if engine.ray_address is None
                else f"The Ray cluster at {engine.ray_address} cannot be used: {_first_line(error)}"
            ) from error
        with suppress(ValueError):  # not in the main thread, where Ray sets no handlers either
            for number, handler in handlers.items():
                signal.signal(number, handler)
        with redirect_stdout(sys.stderr):  # Ray would print its messages about workers among our results
            yield ray
    finally:
        ray.shutdown()


def _environment(threads: int) -> dict[str, str]:
    """What a worker's process needs to import this gradsift and to compute as this process would."""
    variables = {"OMP_NUM_THREADS": str(threads), FOLDER_VARIABLE: ""}  # progress is reported by the driver alone
    variables["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    home = Path(__file__).parents[2]
    if home.name != "site-packages":  # a checkout: the machines share it, or have gradsift installed
        before = os.environ.get("PYTHONPATH")
        variables["PYTHONPATH"] = f"{home}{os.pathsep}{before}" if before else str(home)
    return variables


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
