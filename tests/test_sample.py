"""The embedded sample (assets/sample): well formed, diverse, small, and free of overlap between pool and targets."""

import json
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

SAMPLE = Path(__file__).resolve().parents[1] / "assets" / "sample"
POOL_ROWS = {"closed": 44, "reasoning": 37, "open": 39, "dialogue": 34}
TARGET_ROWS = {"multiple-choice": 10, "yes-no": 6, "bengali-qa": 4}
PREFIXES = {"multiple-choice": "The answer is:", "yes-no": "A:", "bengali-qa": "উত্তর:"}

# Unicode ranges of the letters of each script; Han covers Chinese and the kanji of Japanese.
SCRIPTS = {
    "Latin": "A-Za-zÀ-ÿ",
    "Cyrillic": "\u0400-\u04ff",
    "Arabic": "\u0600-\u06ff",
    "Devanagari": "\u0900-\u0963",  # stops before the danda, which Bengali shares
    "Bengali": "\u0980-\u09ff",
    "Kana": "\u3040-\u30ff",
    "Han": "\u4e00-\u9fff",
}
MAX_FILE_BYTES = 20_000
MAX_ROW_CHARACTERS = 1_000
MAX_SHARED_OPENING = 5


def read(folder: str, name: str) -> list[dict]:
    lines = (SAMPLE / folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def all_pool_rows() -> list[dict]:
    return [row for name in POOL_ROWS for row in read("pool", name)]


def all_target_rows() -> list[dict]:
    return [row for name in TARGET_ROWS for row in read("targets", name)]


def contents(rows: list[dict]) -> list[str]:
    return [message["content"] for row in rows for message in row["messages"]]


def folded(text: str) -> str:
    """Text without the differences of case, spacing and punctuation that hide a repeat."""
    words = re.sub(r"[^\w\s]", " ", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(words.split())


def rows_with_script(rows: list[dict], script: str) -> int:
    letters = re.compile(f"[{SCRIPTS[script]}]")
    return sum(bool(letters.search(" ".join(contents([row])))) for row in rows)


def answer_words(row: dict) -> int:
    return sum(len(message["content"].split()) for message in row["messages"] if message["role"] == "assistant")


def test_folders_hold_the_expected_files():
    for folder, names in (("pool", POOL_ROWS), ("targets", TARGET_ROWS)):
        assert {path.stem for path in (SAMPLE / folder).glob("*.jsonl")} == set(names)


@pytest.mark.parametrize(("name", "count"), POOL_ROWS.items())
def test_pool_file(name: str, count: int):
    rows = read("pool", name)
    assert len(rows) == count
    for number, row in enumerate(rows, start=1):
        assert set(row) == {"dataset", "id", "task", "messages"}
        assert row["dataset"] == name
        assert row["id"] == f"{name}-{number:03d}"
        assert row["task"]


@pytest.mark.parametrize(("name", "count"), TARGET_ROWS.items())
def test_target_file(name: str, count: int):
    rows = read("targets", name)
    assert len(rows) == count
    for row in rows:
        assert set(row) == {"subtask", "id", "prefix", "messages"}
        assert row["prefix"] == PREFIXES[name]
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
    subtasks = Counter(row["subtask"] for row in rows)
    assert len(subtasks) >= 2
    assert min(subtasks.values()) >= 2


def test_answers_of_targets_have_the_form_their_prefix_announces():
    for row in read("targets", "multiple-choice"):
        question, answer = (message["content"] for message in row["messages"])
        assert re.findall(r"^([A-D])\. ", question, flags=re.MULTILINE) == list("ABCD")
        assert answer in "ABCD"
    for row in read("targets", "yes-no"):
        assert re.search(r"\. So the answer is (yes|no)\.$", row["messages"][-1]["content"])
    for row in read("targets", "bengali-qa"):
        assert row["messages"][-1]["content"] in row["messages"][0]["content"]


def test_ids_are_unique():
    ids = Counter(row["id"] for row in all_pool_rows() + all_target_rows())
    assert max(ids.values()) == 1


def test_roles_alternate_and_end_with_the_assistant():
    for row in all_pool_rows() + all_target_rows():
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2), row["id"]
        assert roles, row["id"]


def test_text_is_clean():
    for row in all_pool_rows() + all_target_rows():
        for message in row["messages"]:
            text = message["content"]
            assert set(message) == {"role", "content"}
            assert text == text.strip() != "", row["id"]
            assert text == unicodedata.normalize("NFC", text), row["id"]
            assert "\ufffd" not in text, row["id"]
            assert "<|" not in text, row["id"]


def test_dialogue_has_several_rounds():
    rounds = [len(row["messages"]) // 2 for row in read("pool", "dialogue")]
    assert sum(rounds) / len(rounds) > 1.8
    assert max(rounds) >= 3


def test_several_scripts():
    rows = all_pool_rows()
    counts = {script: rows_with_script(rows, script) for script in SCRIPTS}
    assert counts["Latin"] > len(rows) / 2
    assert counts["Bengali"] >= 12
    assert sum(count >= 3 for count in counts.values()) >= 4, counts
    for name in ("closed", "open", "dialogue"):
        assert rows_with_script(read("pool", name), "Bengali") >= 3, name


def test_pool_does_not_hold_a_target():
    pool_prompts = {folded(text) for text in contents(all_pool_rows())}
    for row in all_target_rows():
        prompt = folded(row["messages"][0]["content"])
        assert prompt not in pool_prompts
        answer = folded(row["messages"][-1]["content"])
        # A one-word answer ("B") may well occur in both; a sentence may not.
        assert len(answer.split()) < 3 or answer not in pool_prompts


def test_no_question_is_asked_twice():
    prompts = Counter(folded(row["messages"][0]["content"]) for row in all_pool_rows() + all_target_rows())
    assert max(prompts.values()) == 1


def test_no_opening_is_used_like_a_template():
    rows = all_pool_rows()
    for position in (0, 1):
        openings = Counter()
        for row in rows:
            words = folded(row["messages"][position]["content"]).split()
            if len(words) >= 5:
                openings[tuple(words[:5])] += 1
        assert max(openings.values()) <= MAX_SHARED_OPENING, openings.most_common(3)


def test_no_closing_formula_is_used_like_a_template():
    closings = Counter()
    for row in read("pool", "reasoning"):
        last_sentence = re.split(r"(?<=[.!?])\s|\n", row["messages"][-1]["content"])[-1]
        closings[" ".join(folded(last_sentence).split()[:3])] += 1
    assert max(closings.values()) <= MAX_SHARED_OPENING, closings.most_common(3)


def test_answer_lengths_spread():
    lengths = sorted(answer_words(row) for row in all_pool_rows())
    assert lengths[0] == 1
    assert lengths[-1] > 80
    assert 5 < lengths[len(lengths) // 2] < 40


def test_everything_is_small():
    for path in SAMPLE.rglob("*.jsonl"):
        assert path.stat().st_size < MAX_FILE_BYTES, path.name
    for row in all_pool_rows() + all_target_rows():
        assert sum(len(text) for text in contents([row])) < MAX_ROW_CHARACTERS, row["id"]


def test_equations_in_the_pool_are_right():
    # "a op b ... = c" with whole numbers; both sides may be fractions, e.g. 1/3 × 1/2 = 1/6
    equation = re.compile(r"(?<![\w.])(\d[\d ×+*/-]*[×+*/-][\d ×+*/-]*\d) = (\d+(?:/\d+)?)")
    checked = 0
    for text in contents(all_pool_rows() + all_target_rows()):
        for left, right in equation.findall(text):
            assert evaluate(left) == pytest.approx(evaluate(right)), f"{left} = {right}"
            checked += 1
    assert checked >= 30


def evaluate(expression: str) -> float:
    """The value of a sum of products and quotients of whole numbers: no brackets, no signs."""
    total = 0.0
    for sign, term in re.findall(r"(^|[+-])([^+-]+)", expression.replace("×", "*")):
        value = 1.0
        for operator, number in re.findall(r"(^|[*/])\s*(\d+)", term.strip()):
            value = value / int(number) if operator == "/" else value * int(number)
        total += -value if sign == "-" else value
    return total
