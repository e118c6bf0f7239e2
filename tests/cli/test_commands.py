"""Every command: its flags never change, its help has an example, and the documentation mentions it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from gradsift.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]

# Of version 0.1.0: scripts rely on them. `!` is required, `*` may be repeated; a name without dashes is an argument.
FLAGS = """
masks: model! pool* --template --template-option* --columns* --take* --source-column --rows --json
evaluate: store!* --targets!* --test!* --out! --method* --budget --seeds --train-model --template --template-option*
    --lora-targets --epochs --batch-size --lr --script --json
plan: pool!* --model! --limit-per-source --max-length --template --template-option* --columns* --take* --source-column
    --warmup-fraction --epochs --batch-size --lr --lora-rank --lora-alpha --lora-targets --lora-dropout --checkpoints*
    --dim --projection --gradient* --adam --store-dtype --dtype --seed --workers --json
build: pool!* --model! --limit-per-source --max-length --template --template-option* --columns* --take*
    --source-column --warmup-fraction --epochs --batch-size --lr --lora-rank --lora-alpha --lora-targets
    --lora-dropout --checkpoints* --dim --projection --gradient* --adam --store-dtype --dtype --seed --out! --append
    --restart --engine --workers --ray-address
draft: pool!* --model! --targets! --out! --store --template --template-option* --columns* --take* --source-column
    --limit-per-source --max-length
features: store! --targets! --out!
score: store! --targets! --out! --method* --similarity --target-pooling --aggregate --gradient --target-features
    --json
select: store! --targets! --top! --out! --method --format --compress --bundle --report --evaluation* --drop-leaks
    --similarity --target-pooling --aggregate --gradient --target-features --cap --drop-duplicates --diverse
    --length-matched --choices --json
explain: store! --targets! --row! --subtask --json
inspect: store! --json
verify: store! --json
doctor: store --json
demo: workspace --no-app
app: workspace --port --address
bench app: --rows --folder --json
bench scoring: --rows --dim --checkpoints --store-dtype --folder --json
bench bm25: pool* --rows --json
bench encoding: pool* --model --template --template-option* --rows --json
bench features: pool* --model --template --template-option* --dtype --rank --rows --runs --bergson --json
"""


def commands(group: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Every command with its full name, including those in groups."""
    for part, command in getattr(group, "commands", {}).items():
        full = f"{name} {part}".strip()
        yield from commands(command, full) if hasattr(command, "commands") else [(full, command)]


COMMANDS = dict(commands(typer.main.get_command(cli)))


def flags(command: object) -> list[str]:
    return [
        " ".join(p.opts + p.secondary_opts) + ("!" if p.required else "") + ("*" if p.multiple or p.nargs == -1 else "")
        for p in command.params
    ]


def test_commands_and_flags_have_not_changed() -> None:
    unfolded = re.sub(r"\n +", " ", FLAGS.strip())
    before = {name: names.split() for name, names in (line.split(": ") for line in unfolded.splitlines())}
    assert {name: flags(command) for name, command in COMMANDS.items()} == before


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_it_does_and_ends_with_an_example(name: str) -> None:
    command = COMMANDS[name]
    assert re.match(r"[A-Z].{20,}[.]$", command.help.strip(), re.DOTALL), command.help
    assert command.epilog.startswith(f"Example: gradsift {name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name: str) -> None:
    assert [p.name for p in COMMANDS[name].params if not p.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_use_flags_that_exist(name: str) -> None:
    command = COMMANDS[name]
    used = set(re.findall(r"(?<= )--[a-z-]+", command.epilog))
    assert used <= {option for p in command.params for option in p.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_documentation_mentions_it(name: str) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    mention = re.compile(rf"gradsift {re.escape(name)}\b")
    assert any(mention.search(page.read_text(encoding="utf-8")) for page in pages)
