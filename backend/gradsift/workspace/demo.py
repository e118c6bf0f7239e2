"""The app's server process, and the demo: a build of the embedded sample, its progress shown in the app."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from gradsift.builder.build import build
from gradsift.config import BuildConfig
from gradsift.data.encode import read_template
from gradsift.model.bundled import ensure_smollm2
from gradsift.model.load import BUNDLED, demo_template
from gradsift.runtime import atomic
from gradsift.runtime.errors import GradsiftError
from gradsift.runtime.paths import data_home, studio
from gradsift.workspace.workspace import SAMPLE_STORE, Workspace

# Streamlit reads .streamlit/config.toml only from the working directory, so its settings are passed as flags.
SETTINGS = studio() / ".streamlit" / "config.toml"


class DemoError(GradsiftError):
    """The app cannot be started."""


def demo_config() -> BuildConfig:
    """The demo's parameters: small enough for two cores, yet with dozens of optimizer steps."""
    return BuildConfig(
        model=BUNDLED,
        template=read_template(str(demo_template())),
        max_length=512,
        warmup_fraction=0.2,
        epochs=2,
        batch_size=3,
        lr=2e-4,
        lora_rank=16,
        dim=4096,
        shard_rows=40,  # enough rows of similar length for full batches
    )


def demo_command(workspace: Path) -> list[str]:
    """Arguments of `gradsift` that build or resume the demo's store in a workspace."""
    return ["demo", str(workspace.absolute()), "--no-app"]


def demo(workspace: Path | None = None, with_app: bool = True) -> Path:
    """Open the app, build the sample's store in its workspace, and return the store's absolute path.

    With the app, this returns when the app is closed; a build that was cancelled on the page can be resumed there.
    """
    space = Workspace(workspace)
    out = space.store_path(SAMPLE_STORE)
    if not with_app:
        _build(space)
        return out.resolve()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command, environment = _streamlit(space.root, port=0, address="localhost")
    server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        _build_or_report(space)
        print("The app stays open until you press Ctrl-C.", file=sys.stderr, flush=True)
        server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        server.wait()
    return out.resolve()


def serve(workspace: Path | None, port: int, address: str) -> NoReturn:
    """Print the app's address and replace this process with its server on a workspace.

    port: 0 means the first free one from 8501 on.

    Raises:
        DemoError: the port is in use.
    """
    command, environment = _streamlit(workspace or data_home(), port, address)
    os.execve(command[0], command, environment)


def _build(workspace: Workspace) -> None:
    ensure_smollm2(lambda text: print(text, file=sys.stderr, flush=True))
    out = workspace.store_path(SAMPLE_STORE)
    (out / "job").mkdir(parents=True, exist_ok=True)
    atomic.write_json(out / "job" / "command.json", demo_command(workspace.root))  # as if the page had started it
    build([studio() / "assets" / "sample" / "pool"], out, demo_config())


def _build_or_report(workspace: Workspace) -> None:
    """Build, printing errors: the app is already open, and its page can resume the build."""
    try:
        _build(workspace)
    except GradsiftError as error:
        print(f"gradsift: {error}", file=sys.stderr, flush=True)


def _streamlit(workspace: Path, port: int, address: str) -> tuple[list[str], dict[str, str]]:
    """The command and environment of the app's server; prints its future address."""
    free = _free_port("127.0.0.1" if address == "localhost" else address, port)
    environment = {**os.environ, "GRADSIFT_WORKSPACE": str(workspace.expanduser().resolve())}
    command = [sys.executable, "-m", "streamlit", "run", str(studio() / "app" / "main.py"), *_settings()]
    command += ["--server.port", str(free), "--server.address", address]
    command += ["--server.headless", str(not _has_display()).lower(), "--server.showEmailPrompt", "false"]
    print(f"gradsift is open at http://{address}:{free}", file=sys.stderr, flush=True)
    return command, environment


def _has_display() -> bool:
    """Whether a browser can be opened here; otherwise the printed address has to do."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _settings() -> list[str]:
    """The settings of .streamlit/config.toml as command-line flags."""
    import tomllib

    def flatten(prefix: str, table: dict) -> list[str]:
        flags = []
        for name, value in table.items():
            if isinstance(value, dict):
                flags += flatten(f"{prefix}{name}.", value)
            elif isinstance(value, bool | int | float | str):
                flags += [f"--{prefix}{name}", str(value).lower() if isinstance(value, bool) else str(value)]
            elif isinstance(value, list):  # Streamlit reads lists on the command line as JSON
                flags += [f"--{prefix}{name}", json.dumps(value)]
        return flags

    return flatten("", tomllib.loads(SETTINGS.read_text()))


def _free_port(host: str, request: int) -> int:
    for port in [request] if request else range(8501, 8600):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    ports = f"Port {request}" if request else "Every port from 8501 to 8599"
    raise DemoError(f"{ports} is in use on {host}: choose another one with --port.")
