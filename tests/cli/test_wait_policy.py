"""Threads of every computing process sleep while they wait, unless the user chooses otherwise."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gradsift.builder.engine_ray import _environment
from gradsift.runtime import jobs
from gradsift.runtime.paths import studio

APP = """
import sys
from streamlit.testing.v1 import AppTest
app = AppTest.from_file(sys.argv[1], default_timeout=120).run()
assert not app.exception, app.exception
import torch
"""


def environment(folder: Path, policy: str | None) -> dict[str, str]:
    """An ordinary environment in which OpenMP prints its settings to standard error when it is loaded."""
    own = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    own |= {"OMP_DISPLAY_ENV": "true", "XDG_DATA_HOME": str(folder)}
    return own if policy is None else {**own, "OMP_WAIT_POLICY": policy}


def loaded_with(command: list[str | Path], folder: Path, policy: str | None) -> str:
    """The policy that OpenMP had in a process when it was loaded."""
    done = subprocess.run(
        [sys.executable, *command], env=environment(folder, policy), capture_output=True, text=True, timeout=200
    )
    assert "Traceback" not in done.stderr, done.stderr
    return policy_of(done.stderr)


def policy_of(text: str) -> str:
    (line,) = [line for line in text.splitlines() if "OMP_WAIT_POLICY" in line]
    return line.partition("=")[2].strip(" '")


@pytest.mark.slow
@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_of_a_command(tmp_path: Path, given: str | None, expected: str) -> None:
    assert loaded_with(["-m", "gradsift", "doctor"], tmp_path, given) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_of_the_app_that_streamlit_starts(tmp_path: Path, given: str | None, expected: str) -> None:
    assert loaded_with(["-c", APP, studio() / "app" / "main.py"], tmp_path, given) == expected


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads another process's environment")
def test_of_the_app_that_the_command_becomes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gradsift", "app", str(tmp_path)]
    server = subprocess.Popen(command, env=environment(tmp_path, None), stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while b"GRADSIFT_WORKSPACE=" not in (own := Path(f"/proc/{server.pid}/environ").read_bytes()):
            assert time.monotonic() < end
            assert server.poll() is None
            time.sleep(0.1)
        assert b"OMP_WAIT_POLICY=PASSIVE" in own.split(b"\0")
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.slow
def test_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("OMP_DISPLAY_ENV", "true")
    jobs.start(tmp_path, ["doctor"])
    end = time.monotonic() + 120
    while jobs.status(tmp_path).state == "running":
        assert time.monotonic() < end
        time.sleep(0.1)
    assert policy_of(jobs.log_tail(tmp_path, 200)) == "PASSIVE"


def test_of_a_worker_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert _environment(2)["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert _environment(2)["OMP_WAIT_POLICY"] == "ACTIVE"
