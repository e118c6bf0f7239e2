"""The command line as real processes that start at once, forked from a server with the heavy libraries loaded.

Each has its own process, session, output files, environment and exit code; only the five seconds for importing torch
are shared. `cli/test_main.py` shows that `python -m gradsift` is the same program.
"""

import multiprocessing
import os
import resource
import runpy
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LOADED = [
    "gradsift.builder.build",
    "gradsift.export.selection",
    "gradsift.datastore.verify",
    "gradsift.analysis.summary",
    "gradsift.cli.main",
]
LOADED += ["transformers.models.llama.modeling_llama", "peft", "rank_bm25"]

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(LOADED)


@cache
def _outputs() -> tempfile.TemporaryDirectory:
    """The folder of the commands' outputs, until the tests end."""
    return tempfile.TemporaryDirectory(prefix="gradsift-commands-")


@dataclass
class Command:
    """A started command. `code` is None while it runs, and negative if a signal ended it."""

    process: multiprocessing.process.BaseProcess
    folder: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def code(self) -> int | None:
        return self.process.exitcode

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    @property
    def error(self) -> str:
        """The one sentence of a failed command; fails if there is a different number of sentences, or a traceback."""
        assert "Traceback" not in self.err, self.err
        sentences = [line for line in self.err.splitlines() if line.startswith("gradsift: ")]
        assert len(sentences) == 1, self.err
        assert self.err.endswith(sentences[0] + "\n"), self.err
        return sentences[0].removeprefix("gradsift: ")

    def wait(self, seconds: float = 120) -> "Command":
        self.process.join(seconds)
        if self.code is None:
            self.kill()
            raise AssertionError(f"still running after {seconds} s:\n{self.err}")
        return self

    def kill(self) -> None:
        """kill -9 of the whole process group."""
        os.killpg(self.pid, signal.SIGKILL)
        self.process.join()


def start(*argv: object, file_size: int | None = None, cwd: Path | None = None, **environment: str) -> Command:
    """Start `gradsift ARGV`. file_size: maximum bytes of a file (`RLIMIT_FSIZE`)."""
    folder = Path(tempfile.mkdtemp(dir=_outputs().name))
    settings = {**os.environ, **environment}
    request = (folder, [str(word) for word in argv], settings, file_size, str(cwd or folder))
    process = _server.Process(target=_main, args=request)
    process.start()
    command = Command(process, folder)
    while not (folder / "ready").exists() and command.code is None:  # from here on it has its own process group
        time.sleep(0.001)
    return command


def gradsift(*argv: object, seconds: float = 120, **options) -> Command:
    """Run `gradsift ARGV` until it ends."""
    return start(*argv, **options).wait(seconds)


def _main(folder: Path, argv: list[str], environment: dict[str, str], file_size: int | None, cwd: str) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, name in ((1, "out"), (2, "err")):
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    (folder / "ready").touch()
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    sys.argv = ["gradsift", *argv]
    runpy.run_module("gradsift", run_name="__main__")
