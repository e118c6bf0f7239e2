"""The wheel is complete: in a clean environment outside the checkout it runs the command line and the app."""

import os
import re
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout as it is."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("gradsift-*.whl"))


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel in it.

    Its dependencies are those of the running environment, lent by a path file: Python does not follow path files at
    second hand, so the checkout's editable install stays out.
    """
    folder = tmp_path_factory.mktemp("clean") / "env"
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    lent = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages" / "lent.pth"
    lent.write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


def run(command: list[str | Path], folder: Path) -> str:
    """Standard output of a command run in `folder`, outside the checkout; it must succeed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    """This process's environment, but with nothing that leads back into the checkout, and with a wide terminal."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {"COLUMNS": "200"}


def test_carries_the_app_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    studio = "gradsift/studio/"
    for name in ("app/main.py", "pages/datastore.py", "pages/targets.py", "pages/compare.py", "pages/export.py"):
        assert studio + name in names
    for name in ("assets/chatml.jinja", "assets/sample/pool/closed.jsonl", "assets/sample/targets/bengali-qa.jsonl"):
        assert studio + name in names
    assert {studio + ".streamlit/config.toml", "gradsift/py.typed", "gradsift/cli/main.py"} <= names
    assert not [name for name in names if re.search(r"tests?/|__pycache__|screenshots|\.safetensors|\.gguf", name)]
    assert {name.split("/")[0].removesuffix(".dist-info").split("-")[0] for name in names} == {"gradsift"}


def test_command_line_runs_outside_the_checkout(clean: Path, tmp_path: Path) -> None:
    help_text = run([clean / "gradsift", "--help"], tmp_path)
    for command in ("demo", "build", "score", "select", "inspect", "verify", "app"):
        assert re.search(rf"\b{command}\b", help_text)
    assert "demo" in run([clean / "python", "-m", "gradsift", "--help"], tmp_path)


def test_finds_its_own_studio(clean: Path, tmp_path: Path) -> None:
    program = "import gradsift; from gradsift.runtime.paths import studio; print(gradsift.__file__); print(studio())"
    package, studio = map(Path, run([clean / "python", "-c", program], tmp_path).splitlines())
    assert package.is_relative_to(clean.parent.resolve())
    assert studio == package.parent / "studio"


def test_app_draws_its_first_page(clean: Path, tmp_path: Path) -> None:
    program = """
from gradsift.runtime.paths import studio
from streamlit.testing.v1 import AppTest
app = AppTest.from_file(studio() / "app" / "main.py", default_timeout=120).run()
assert not app.exception, app.exception
"""
    run([clean / "python", "-c", program], tmp_path)


def test_app_command_serves(clean: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [clean / "gradsift", "app", str(tmp_path), "--port", str(port)]
    log = tmp_path / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=file, stderr=subprocess.STDOUT)
    try:
        assert _healthy(server, port), log.read_text()
    finally:
        server.terminate()
        server.wait(20)


def _healthy(server: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            time.sleep(0.3)
    return False
