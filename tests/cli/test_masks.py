"""`gradsift masks`: what is learned, on a terminal and as JSON, with one sentence for every failure."""

import json

import pytest
from commands import gradsift

HOSTILE = "\x1b[31mred\x07 \u202e[bold]x[/bold] :smile:"


def line(question: str, answer: str, **fields: object) -> str:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns, **fields})


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "pool.jsonl"
    rows = [line("where?", "here"), line(HOSTILE, HOSTILE), "{broken", line("when?", "now"), line("who?", "me")]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_the_example_says_what_is_learned_and_what_the_template_lacks(tiny_model):
    run = gradsift("masks", tiny_model)
    assert (run.code, run.err) == (0, "")
    assert "‹The capital of Portugal is Lisbon.<|im_end|>›" in run.out
    assert "⟦<|im_start|>system\n⟧You answer in one sentence.⟦<|im_end|>" in run.out
    assert "no place for: reasoning, tools" in run.out
    assert "learned\n" in run.out


def test_colours_take_the_place_of_marks(tiny_model):
    run = gradsift("masks", tiny_model, FORCE_COLOR="1")
    assert "‹" not in run.out
    assert "\x1b[1;32mThe capital of Portugal is Lisbon.<|im_end|>" in run.out.replace("\x1b[0m", "")


def test_a_pool_shows_rows_of_each_schema_and_counts_the_excluded(tiny_model, pool):
    pool.write_text(pool.read_text() + json.dumps({"instruction": "why?", "output": "so"}) + "\n")
    run = gradsift("masks", tiny_model, pool, "--rows", "2")
    assert run.code == 0, run.err
    assert run.out.count("pool.jsonl, line ") == 3  # two of the chats and the one of another schema
    assert "All 6 rows: 5 usable, 1 excluded" in run.out
    assert "excluded 1: " in run.out
    assert "JSON" in run.out


def test_hostile_text_cannot_control_the_terminal(tiny_model, pool):
    run = gradsift("masks", tiny_model, pool)
    assert "\x1b" not in run.out
    assert "\x07" not in run.out
    assert "[U+001B][31mred[U+0007] [U+202E][bold]x[/bold] :smile:" in run.out


def test_json_holds_the_same(tiny_model, pool):
    run = gradsift("masks", tiny_model, pool, "--json")
    result = json.loads(run.out)
    assert (result["read"], result["usable"], sum(result["excluded"].values())) == (5, 4, 1)
    row = result["rows"][0]
    learned = [row["text"][s["start"] : s["stop"]] for s in row["stretches"] if s["kind"] == "learned"]
    assert learned == ["here<|im_end|>"]
    assert row["stretches"][-1]["stop"] == len(row["text"])
    assert row["tokens"]["learned"] > 0
    assert row["dropped"] == []
    assert (row["file"], row["line"], row["schema"]) == ("pool.jsonl", 1, "messages")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["no-such-model"], "cannot be loaded"),
        (["MODEL", "no-such.jsonl"], "does not exist"),
        (["MODEL", "--template", "no-such.jinja"], "neither chat, tulu nor a readable file"),
        (["MODEL", "--template-option", "x"], "NAME=VALUE"),
        (["MODEL", "--columns", "user=q,assistant=a"], "name its files"),
        (["MODEL", "POOL", "--columns", "speaker=q"], "not a part of a conversation"),
        (["MODEL", "POOL", "--take", "all"], "--take all"),
    ],
)
def test_failures_are_sentences(tiny_model, pool, argv, words):
    run = gradsift("masks", *({"MODEL": tiny_model, "POOL": pool}.get(word, word) for word in argv))
    assert run.code in (1, 2)
    assert words in run.error


def test_a_template_that_refuses_everything_is_a_sentence_and_a_count(tiny_model, pool, tmp_path):
    template = tmp_path / "never.jinja"
    template.write_text("{{ raise_exception('never') }}")
    assert "never" in gradsift("masks", tiny_model, "--template", template).error
    run = gradsift("masks", tiny_model, pool, "--template", template)
    assert run.code == 0
    assert "All 5 rows: 0 usable, 5 excluded" in run.out
    assert "never" in run.out
