"""Picks that share text with targets and evaluations: what is read, what is reported, what is dropped."""

import json
from pathlib import Path

import numpy as np
import pytest
from conversations import records

from gradsift import select
from gradsift.data.pool import PoolError
from gradsift.data.targets import parse_targets, read_targets
from gradsift.datastore.store import Store
from gradsift.runtime.errors import UsageError
from gradsift.selection.leakage import TARGETS, find_leaks, read_evaluation
from gradsift.text.overlap import Matcher

TALK = (
    "the cat sat the cat sat the cat sat the cat sat the cat"  # part of every long answer in the toy pool's source talk
)


@pytest.fixture
def targets(tiny_targets: Path):
    return read_targets(tiny_targets).rows


def leaks_of(folder: Path) -> dict:
    return json.loads((folder / "leakage.json").read_text())


def questions(folder: Path) -> list[str]:
    """The first turns of an export's picks; each occurs once in the toy pool."""
    return [json.loads(line)["messages"][0]["content"] for line in (folder / "train.jsonl").read_text().splitlines()]


def test_conversations_questions_and_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").write_text('{"messages": [{"role": "user", "content": "Where is it?"}, '
                                         '{"role": "assistant", "content": "Here."}]}\n')  # fmt: skip
    (tmp_path / "exam.jsonl").write_text(
        '\n{"question": "Which?", "choices": ["a b", ["c"]], "answer": 1, "n": null}\n'
    )
    (tmp_path / "exam.csv").write_text("item,key\nWhich of them?,B\n")
    (tmp_path / "lines.txt").write_text("One line of text.\n\nAnother line.\n")
    (tmp_path / "blocks.txt").write_text("Q: How many?\nA: Two.\n")
    names = ["chat.jsonl", "exam.jsonl", "exam.csv", "lines.txt", "blocks.txt"]
    result = read_evaluation(parse_targets("Q: What is it?\nA: A box.").rows, [tmp_path / name for name in names])
    assert result.targets == 1
    assert [(part["file"], part["examples"]) for part in result.files] == list(zip(names, [1, 1, 1, 2, 1], strict=True))
    assert [(example.file, example.line, [text for _, text in example.turns]) for example in result.examples] == [
        (TARGETS, 1, ["What is it?", "A box."]),
        ("chat.jsonl", 1, ["Where is it?", "Here."]),
        ("exam.jsonl", 2, ["Which?", "a b", "c"]),
        ("exam.csv", 1, ["Which of them?", "B"]),
        ("lines.txt", 1, ["One line of text."]),
        ("lines.txt", 3, ["Another line."]),
        ("blocks.txt", 1, ["How many?", "Two."]),
    ]


def test_files_without_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "numbers.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(UsageError, match=r"numbers\.jsonl holds no text to compare with"):
        read_evaluation([], [tmp_path / "numbers.jsonl"])
    with pytest.raises(PoolError, match="gone"):
        read_evaluation([], [tmp_path / "gone.jsonl"])


def test_rows_of_a_store_are_compared(tiny_store: Store, tmp_path: Path) -> None:
    (tmp_path / "held.txt").write_text(f"{TALK}\n\nWhat is in box 7?\n")
    evaluation = read_evaluation([], [tmp_path / "held.txt"])
    result = find_leaks(tiny_store, tiny_store.rows[::-1], Matcher(evaluation.examples), quote=True)
    texts = tiny_store.texts(tiny_store.rows)
    expected = {
        int(row)
        for row, conversation in zip(texts["row"], texts["conversation"], strict=True)
        if TALK in conversation.messages[1].content or conversation.messages[0].content == "what is in box 7?"
    }
    assert set(result) == expected
    assert len(expected) > 5
    assert list(result) == sorted(result)
    assert all(hits[0].yours for hits, _ in result.values())


def test_an_export_says_what_leaks(tiny_store: Store, targets, tmp_path: Path) -> None:
    select(tiny_store, targets, "3", tmp_path / "first")
    path = tmp_path / "whole.jsonl"
    path.write_text("".join(json.dumps({"item": text}) + "\n" for text in questions(tmp_path / "first")[:2]))
    select(tiny_store, targets, "5", tmp_path / "picks", evaluation=[path])
    manifest = json.loads((tmp_path / "picks" / "manifest.json").read_text())
    summary, leakage = manifest["leakage"], leaks_of(tmp_path / "picks")
    assert (summary["targets"], summary["checked_rows"], summary["dropped_rows"]) == (3, 5, 0)
    assert [part["file"] for part in summary["evaluation"]] == ["whole.jsonl"]
    assert {name: leakage[name] for name in summary} == summary
    assert summary["flagged_rows"] == len(leakage["leaks"]) >= 2
    assert [leak["rank"] for leak in leakage["leaks"]][:2] == [1, 2]
    hit = leakage["leaks"][0]["hits"][0]
    assert (hit["file"], hit["line"], hit["kind"]) == ("whole.jsonl", 1, "equal")
    assert hit["yours"]["shared"] + "?" == questions(tmp_path / "picks")[0]
    assert "--evaluation whole.jsonl" in manifest["command"]
    card = (tmp_path / "picks" / "README.md").read_text()
    assert "## Leakage\n\n5 rows were compared with the 3 target examples and 2 of whole.jsonl." in card


def test_leaks_are_dropped_and_the_next_rows_are_also_checked(tiny_store: Store, targets, tmp_path: Path) -> None:
    select(tiny_store, targets, "40", tmp_path / "all")
    ranked = questions(tmp_path / "all")
    leaking = [ranked[0], ranked[2], ranked[4], ranked[5]]  # the last moves up when the first is dropped
    path = tmp_path / "held.jsonl"
    path.write_text("".join(json.dumps({"item": text}) + "\n" for text in leaking))
    free = read_evaluation([], [path])
    flagged = set(find_leaks(tiny_store, tiny_store.rows, Matcher(free.examples)))
    select(tiny_store, targets, "4", tmp_path / "picks", evaluation=[path], drop_leaks=True)
    texts = tiny_store.texts(sorted(flagged))
    bad = {conversation.messages[0].content for conversation in texts["conversation"]}
    own = leaks_of(tmp_path / "picks")
    targets_hit = {leak["row"] for leak in own["leaks"]} - flagged
    also = (
        {conversation.messages[0].content for conversation in tiny_store.texts(sorted(targets_hit))["conversation"]}
        if targets_hit
        else set()
    )
    assert questions(tmp_path / "picks") == [text for text in ranked if text not in bad | also][:4]
    assert own["flagged_rows"] == 0
    assert own["dropped_rows"] == len(own["leaks"]) >= 3
    assert all(leak["dropped"] for leak in own["leaks"])
    assert own["checked_rows"] == 4 + own["dropped_rows"]


def test_a_dropped_leak_goes_even_if_it_was_accepted(tiny_store: Store, targets, tmp_path: Path) -> None:
    select(tiny_store, targets, "1", tmp_path / "first")
    path = tmp_path / "held.jsonl"
    path.write_text(json.dumps({"item": questions(tmp_path / "first")[0]}) + "\n")
    select(tiny_store, targets, "1", tmp_path / "flagged", evaluation=[path])
    row = leaks_of(tmp_path / "flagged")["leaks"][0]["row"]
    select(tiny_store, targets, "3", tmp_path / "picks", evaluation=[path], drop_leaks=True, accepted=(row,))
    assert questions(tmp_path / "first")[0] not in questions(tmp_path / "picks")
    assert len(questions(tmp_path / "picks")) == 3


def test_targets_that_lie_in_the_pool_are_always_reported(tiny_store: Store, tmp_path: Path) -> None:
    row = int(tiny_store.rows[3])
    conversation = tiny_store.texts(np.array([row]))["conversation"].iloc[0]
    path = tmp_path / "targets.jsonl"
    path.write_text(json.dumps({"messages": records(conversation.messages)}) + "\n")
    select(tiny_store, read_targets(path).rows, "100%", tmp_path / "picks", method="bm25")
    (leak,) = [leak for leak in leaks_of(tmp_path / "picks")["leaks"] if leak["row"] == row]
    assert (leak["hits"][0]["file"], leak["hits"][0]["line"], leak["hits"][0]["kind"]) == (TARGETS, 1, "equal")
