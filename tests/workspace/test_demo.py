"""The demo: one command, whoever starts it, so that each resumes what another began."""

import json
from pathlib import Path

import pytest
from typer.main import get_command

from gradsift.cli.main import cli
from gradsift.workspace import demo as module
from gradsift.workspace.demo import demo, demo_command, demo_config
from gradsift.workspace.workspace import SAMPLE_STORE, Workspace, sample_pool


def test_the_terminal_builds_what_the_page_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[tuple] = []
    monkeypatch.setattr(module, "build", lambda *given: built.append(given))
    monkeypatch.setattr(module, "ensure_smollm2", lambda say: None)
    out = demo(tmp_path, with_app=False)
    assert out == Workspace(tmp_path).store_path(SAMPLE_STORE)
    assert built == [([sample_pool()[0].parent], out, demo_config())]
    command = json.loads((out / "job" / "command.json").read_text())
    assert command == demo_command(tmp_path)
    typed = get_command(cli).commands["demo"].make_context("demo", command[1:]).params  # type: ignore[attr-defined]
    assert typed == {"workspace": tmp_path, "no_app": True}
