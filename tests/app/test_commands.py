"""The commands that pages start: written as arguments and read back, with options that the command line has."""

from dataclasses import fields
from pathlib import Path

import pytest
from typer.main import get_command

from app.datastore import build
from app.views.commands import Build, Command, Evaluate, Plan, Score, Select
from gradsift.cli.main import cli
from gradsift.config import BuildConfig

STORE, TARGETS = Path("/work space/store"), Path("/t/targets.jsonl")
PARAMETERS = {
    "model": "smollm2", "template": "tulu", "limit_per_source": 60, "max_length": 512, "warmup_fraction": 0.05,
    "epochs": 2, "batch_size": 4, "lr": 2e-4, "lora_rank": 16, "dim": 4096, "store_dtype": "int8", "seed": 0,
}  # fmt: skip
LEAST = {
    Build: Build(pool=("a.jsonl",), out=Path("out")),
    Plan: Plan(pool=("a.jsonl",)),
    Score: Score(store=STORE, targets=TARGETS, gradient="adam", method=("less",), out=Path("scores.parquet")),
    Select: Select(
        store=STORE, targets=TARGETS, out=Path("out"), method="less", top="5%", format="messages", compress="none"
    ),
    Evaluate: Evaluate(
        store=STORE, targets=TARGETS, test=Path("h.jsonl"), budget="5%", seeds=3, out=Path("r.json"), method=("less",)
    ),
}
MOST = {
    Build: Build(pool=("-odd name.jsonl", "--out", "b*.jsonl"), out=Path("/s/out"), **PARAMETERS),
    Plan: Plan(pool=("-odd name.jsonl", "b"), **PARAMETERS),
    Score: Score(store=STORE, targets=TARGETS, gradient="sgd", method=("less", "rds+"), out=Path("/s/scores.parquet")),
    Select: Select(
        store=STORE, targets=TARGETS, out=Path("/e/out"), method="rds+", top="50000tokens", format="less",
        compress="zstd", bundle=True, evaluation=(Path("-a"), Path("/b c")), drop_leaks=True, report=True,
        choices=Path("/e/choices.json"),
    ),
    Evaluate: Evaluate(
        store=STORE, targets=TARGETS, test=Path("/h.jsonl"), budget="200", seeds=1, out=Path("/r.json"), epochs=3,
        batch_size=16, lr=3e-4, method=("less:gradient=sgd", "random"),
    ),
}  # fmt: skip


def texts(value: object) -> list[str]:
    return [str(one) for one in (value if isinstance(value, list | tuple) else [value])]


@pytest.mark.parametrize("command", [*LEAST.values(), *MOST.values()], ids=lambda command: command.NAME)
def test_a_command_is_read_back_from_its_arguments(command: Command):
    assert type(command).read(command.argv()) == command
    assert not any(other.read(command.argv()) for other in LEAST if other is not type(command))


@pytest.mark.parametrize("command", MOST.values(), ids=lambda command: command.NAME)
def test_every_flag_that_is_written_is_one_of_the_command_with_the_same_meaning(command: Command):
    known = get_command(cli).commands[command.NAME]
    options = {name: option for option in known.params for name in option.opts}
    context = known.make_context(command.NAME, command.argv()[1:], resilient_parsing=True)
    assert texts(context.params[command.ARGUMENT]) == texts(getattr(command, command.ARGUMENT))
    for field in (field.name for field in fields(command)):
        if field != command.ARGUMENT:
            option = options[f"--{field.replace('_', '-')}"]
            assert texts(context.params[option.name]) == texts(getattr(command, field))


@pytest.mark.parametrize("command", MOST)
def test_what_it_has_no_field_for_is_not_read(command: type[Command]):
    words = LEAST[command].argv()
    for wrong in ([], words[1:], [*words[:1], "--restart", *words[1:]], words[:2], ["demo", *words[1:]]):
        assert command.read(wrong) is None


def test_an_option_that_stands_there_twice_or_is_no_number_is_not_read():
    assert Build.read(["build", "--out", "a", "--out", "b", "--", "pool"]) is None
    assert Build.read(["build", "--out", "a", "--epochs", "two", "--", "pool"]) is None
    assert Build.read(["build", "--out"]) is None


def test_the_store_may_stand_first_as_in_commands_that_were_started_before():
    words = ["evaluate", "/s", "--targets", "t", "--test", "h", "--budget", "5%", "--seeds", "3", "--out", "r.json"]
    command = Evaluate.read([*words, "--epochs", "3", "--method", "less", "--method", "rds"])
    assert command is not None
    assert (command.store, command.epochs, command.method) == (Path("/s"), 3, ("less", "rds"))


def test_the_forms_values_become_the_command_line(tmp_path):
    command = Build(pool=("-odd name.jsonl", "b.jsonl"), out=tmp_path, model="smollm2", epochs=2, lr=2e-4)
    assert command.argv() == [
        "build", "--model", "smollm2", "--epochs", "2", "--lr", "0.0002", "--out", str(tmp_path),
        "--", "-odd name.jsonl", "b.jsonl",
    ]  # fmt: skip


def test_every_parameter_of_the_form_is_one_of_the_command_and_of_a_datastore():
    assert set(build.PARAMETERS) == set(PARAMETERS)
    assert set(build.PARAMETERS) <= set(BuildConfig.model_fields)
