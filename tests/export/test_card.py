"""The dataset card: valid YAML, snippets that parse, and hostile names that remain text."""

import ast
import json
import re
from collections import Counter

import pytest
import yaml

from gradsift.export.card import Tally, dataset_card, escape

FORMATS = ("messages", "prompt-completion", "alpaca", "sharegpt", "less", "parquet")


def card(format="messages", manifest=None, **fields):
    file = "train.parquet" if format == "parquet" else "train.jsonl"
    tally = Tally(**{"rows": 3, "by_source": Counter({"dolly": 2, "cot": 1}), **fields})
    data = {"file": file, "sha256": "0" * 64, "bytes": 1234, "rows": tally.rows, "format": format}
    return dataset_card(format, data, tally, manifest or {})


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("format", FORMATS)
def test_front_matter_and_snippets_parse(format):
    text = card(format)
    _, front, _ = text.split("---\n", 2)
    meta = yaml.safe_load(front)
    assert meta["license"] == "other"
    assert meta["size_categories"] == ["n<1K"]
    assert meta["configs"][0]["data_files"][0]["path"].startswith("train.")
    for snippet in blocks(text, "python"):
        ast.parse(snippet)
    for snippet in blocks(text, "json"):
        assert json.loads(snippet)["gradsift"]["file_name"] == meta["configs"][0]["data_files"][0]["path"]
    for snippet in blocks(text, "yaml"):
        assert yaml.safe_load(snippet)["datasets"][0]["type"] == "chat_template"


@pytest.mark.parametrize(
    ("format", "trl", "factory", "axolotl", "less"),
    [
        ("messages", 1, 1, 1, 0),
        ("parquet", 1, 1, 1, 0),
        ("prompt-completion", 1, 0, 0, 0),
        ("alpaca", 0, 1, 0, 0),
        ("sharegpt", 0, 1, 1, 0),
        ("less", 1, 0, 0, 1),
    ],
)
def test_only_the_snippets_that_fit(format, trl, factory, axolotl, less):
    text = card(format)
    result = ["### TRL" in text, "### LLaMA-Factory" in text, "### axolotl" in text, "### LESS" in text]
    assert result == [bool(flag) for flag in (trl, factory, axolotl, less)]
    if trl and format != "prompt-completion":
        assert "assistant_only_loss=True)" in text


def test_what_was_selected_and_how_to_make_it_again():
    manifest = {
        "method": "less",
        "budget": "5%",
        "command": ["gradsift", "select", "a store", "--top", "5%"],
        "model": {"id": "HuggingFaceTB/SmolLM2", "layers": [1, 2]},
        "data": {"file": "stale-name"},
        "checkpoints": [{"lr": 1}],
    }
    text = card(manifest=manifest)
    assert "3 rows picked by less under a budget of 5% with gradsift" in text
    assert "gradsift select 'a store' --top 5%" in text
    assert "| dolly | 2 | 66.7% |" in text
    assert "| model.id | HuggingFaceTB/SmolLM2 |" in text
    assert "| model.layers | 1, 2 |" in text
    assert "stale-name" not in text


def test_hostile_names_stay_text():
    hostile = "x | y\n\n# <script>alert(1)</script> [a](http://b) ![i](u) `c` $x$ www.evil.com\u202e" + "z" * 1000
    command = "gradsift\n```\n<b>\n# heading"
    manifest = {"method": hostile, "command": command, hostile: hostile}
    text = card(by_source=Counter({hostile: 3}), manifest=manifest)
    safe = escape(hostile)
    assert len(safe) < 300
    assert f"| {safe} | 3 | 100.0% |" in text
    assert "<script>" not in text
    assert "\u202e" not in text
    assert not re.search(r"(?<!\\)\[a(?<!\\)\]", text)
    assert "\n# <" not in text
    assert "\n````bash\ngradsift ``` <b> # heading\n````\n" in text
    assert escape("a|b_*c*\r\nd") == r"a\|b\_\*c\* d"


def test_many_sources_are_counted_not_listed():
    text = card(rows=60, by_source=Counter({f"s{number}": 1 for number in range(60)}))
    assert "| 10 more | 10 | 16.7% |" in text
