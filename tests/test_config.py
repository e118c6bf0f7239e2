"""A build's parameters: what is refused, and in which words."""

import json

import pytest
from pydantic import ValidationError

from gradsift.config import BuildConfig, make_config, parse_columns, parse_options
from gradsift.data.reading import reading_of
from gradsift.data.schemas import Reading
from gradsift.runtime.errors import UsageError

PARTS = "system, user, assistant, reasoning, tools, messages, text, context"


@pytest.mark.parametrize(
    ("texts", "pairs"),
    [
        (["user=question,assistant=answer"], (("user", "question"), ("assistant", "answer"))),
        (["user=question", "assistant=answer"], (("user", "question"), ("assistant", "answer"))),
        (["user=Question, in full, assistant=a=b"], (("user", "Question, in full"), ("assistant", "a=b"))),
        ([], ()),
    ],
)
def test_columns_are_pairs(texts: list[str], pairs: tuple) -> None:
    assert parse_columns(texts) == pairs
    assert make_config(model="m", columns=pairs).columns == pairs


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["question"], "--columns question: use PART=COLUMN, as in user=question,assistant=answer."),
        ([""], "--columns : use PART=COLUMN, as in user=question,assistant=answer."),
        (["usr=q,assistant=a"], f"--columns usr=q: 'usr' is not a part of a conversation; the parts are {PARTS}."),
        (["user=,assistant=a"], "--columns user=: name the column that holds it, as in user=NAME."),
        (["text=a,text=b"], "--columns names text 2 times: give one column for each part."),
        (["user=q"], "--columns names no column that is learned from: add the answers' column, as in assistant=NAME."),
        (["assistant=\udcff"], "--columns assistant: its text is not valid Unicode; give it as UTF-8."),
    ],
)
def test_columns_that_cannot_be(texts: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_config(model="m", columns=parse_columns(texts))
    assert str(caught.value) == sentence


def test_options_are_json_where_they_parse() -> None:
    texts = ["enable_thinking=false", "n=3", "tags=[1, {}]", "mood=kind", "nan=NaN", "deep=" + "[" * 10_000, "a=b=c"]
    options = parse_options(texts)
    known = {"enable_thinking": False, "n": 3, "tags": [1, {}], "mood": "kind", "nan": "NaN", "a": "b=c"}
    assert options == {**known, "deep": "[" * 10_000}
    config = make_config(model="m", template_options=options)
    assert BuildConfig.model_validate_json(json.dumps(config.model_dump(mode="json"))) == config


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["thinking"], "--template-option thinking: use NAME=VALUE, as in enable_thinking=false."),
        (["tools=[]"], "--template-option tools=...: tools is set by gradsift; leave it out."),
        (["a b=1"], "--template-option a b=...: 'a b' cannot be the name of a template's variable."),
        (["x=1", "x=2"], "--template-option x is given twice with different values: give it once."),
        (["x=\udcff"], "--template-option x: its text is not valid Unicode; give it as UTF-8."),
        (['x="\\ud800"'], "--template-option x: its text is not valid Unicode; give it as UTF-8."),
    ],
)
def test_options_that_cannot_be(texts: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_config(model="m", template_options=parse_options(texts))
    assert str(caught.value) == sentence


def test_other_values_are_refused_by_their_flag() -> None:
    for values, sentence in (
        ({"take": ("everything",)}, "--take everything: use text, chosen, label."),
        ({"take": 5}, "--take 5: input should be a valid tuple."),
        ({"source_column": "\udcff"}, "--source-column: its text is not valid Unicode; give it as UTF-8."),
        ({"template_options": 5}, "--template-option 5: input should be a valid dictionary."),
        ({"gradients": ()}, "--gradient (): tuple should have at least 1 item after validation, not 0."),
        ({"lora_rank": 0}, "--lora-rank 0: input should be greater than or equal to 1."),
    ):
        with pytest.raises(UsageError) as caught:
            make_config(model="m", **values)
        assert str(caught.value) == sentence


def test_in_python_the_sentence_is_the_same() -> None:
    with pytest.raises(ValidationError, match="--columns usr=q: 'usr' is not a part of a conversation"):
        BuildConfig(model="m", columns=(("usr", "q"),))


def test_the_reading_is_the_configs() -> None:
    columns = (("user", "q"), ("assistant", "a"))
    config = make_config(model="m", columns=columns, take=("chosen", "chosen"), source_column="origin")
    assert reading_of(config) == Reading(columns, ("chosen",), "origin")
    assert reading_of(BuildConfig(model="m")) == Reading()
