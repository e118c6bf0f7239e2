"""What a table looks like in a pipe and within the width of a terminal."""

import sys

import pytest

from gradsift.runtime.tables import table


def test_columns_are_as_wide_as_their_cells() -> None:
    shown = table([("closed", "1,234", "5"), ("a", "6", "70")], ("source", "in file", "cut"))
    assert shown.splitlines() == ["source  in file  cut", "closed    1,234    5", "a             6   70"]


def test_wide_letters_take_two_cells() -> None:
    assert table([("日本語", "1"), ("ab", "2")]).splitlines() == ["日本語  1", "ab      2"]


def test_a_pipe_gets_every_character() -> None:
    long = "x" * 5000
    assert table([(long, "1"), ("b", "2")]).splitlines() == [f"{long}  1", f"b{' ' * 5001}2"]


@pytest.mark.parametrize("cell", ["[red]not markup[/red]", ":smile:", "[", "a\tb"])
def test_cells_are_taken_literally(cell: str) -> None:
    assert table([(cell, "1")]).split("  1")[0] == cell.expandtabs(8)


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_there_is_no_color(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    assert table([("a", "1")], ("name", "n")) == "name  n\na     1"


def test_a_terminal_folds_words_and_keeps_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "20")
    lines = table([("a source with a long name", "1,000,000")]).splitlines()
    assert max(map(len, lines)) <= 20
    assert lines[0].endswith("1,000,000")
    assert " ".join(lines).replace("1,000,000", "").split() == ["a", "source", "with", "a", "long", "name"]


def test_a_table_without_rows() -> None:
    assert table([], ("source", "rows")) == "source  rows"
