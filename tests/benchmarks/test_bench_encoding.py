"""The measurement runs end to end. Times are measured by the command, not here."""

import json

import pytest
from typer.testing import CliRunner

from gradsift.builder import encoding
from gradsift.cli.main import cli


def test_the_command_prints_every_figure(tiny_model, tiny_pool, monkeypatch):
    monkeypatch.setattr(encoding, "FEW", 10)
    command = ["bench", "encoding", str(tiny_pool), "--model", str(tiny_model), "--rows", "60", "--json"]
    figures = json.loads(CliRunner().invoke(cli, command, catch_exceptions=False).stdout)["encoding"]
    assert figures["processes"] == encoding.available_cpus()
    for kind in ("pool", "20_exchanges"):
        assert figures[kind]["rows"] == 60
        assert figures[kind]["one_process_rows_per_s"] > 0
        assert figures[kind]["processes_rows_per_s"] > 0
    assert figures["20_exchanges"]["tokens_per_row"] > 10 * figures["pool"]["tokens_per_row"]


def test_a_pool_with_nothing_to_measure_says_so(tiny_model, tmp_path):
    (tmp_path / "bad.jsonl").write_text("{\n")
    command = ["bench", "encoding", str(tmp_path / "bad.jsonl"), "--model", str(tiny_model)]
    with pytest.raises(Exception, match="no usable row"):
        CliRunner().invoke(cli, command, catch_exceptions=False)
