"""Inputs from public reports that chat templates stumbled over: every row is usable, every answer is learned."""

import copy
import json

import pytest
from conversations import talk

from gradsift.builder.plan import plan
from gradsift.config import BuildConfig
from gradsift.data.conversation import Conversation
from gradsift.data.encode import Encoder, RenderError, TemplateError, read_template
from gradsift.data.pool import read_rows
from gradsift.model.load import load_tokenizer
from gradsift.runtime.progress import Progress

pytest.importorskip("trl", reason="trl is not installed: pip install --no-deps trl==1.16.0")

from oracle import marked_tokenizer, templates

MULTI = [
    [("user", "Name a river."), ("assistant", "The Arno."), ("user", "And a lake?"), ("assistant", "Lake Garda.")],
    [
        *(("system", "Be brief."), ("user", "Name a hill."), ("assistant", "Monte Ciocci."), ("user", "Height?")),
        ("assistant", "94 m."),
    ],
    [("user", "Name a bay."), ("assistant", "Bay of Gaeta."), ("user", "Thanks!")],
    *(
        [("user", f"Name a {thing}."), ("assistant", f"Here is a {thing}.")]
        for thing in ("river", "lake", "hill", "bay")
    ),
]
R1 = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}"
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}{% elif m['role'] == 'user' %}"
    "{{ '<｜User｜>' + m['content'] }}{% else %}{% set content = m['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}{{ '<｜Assistant｜>' + content }}"
    "{{ '<｜end▁of▁sentence｜>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def smol(smollm2):
    return marked_tokenizer(str(smollm2))


def turns(encoder: Encoder, conversation: Conversation) -> list[str]:
    """What is learned of each turn."""
    rendering = encoder.render(conversation)
    assert encoder.encode(conversation).n_answer > 0
    return [rendering.text[span.start : span.stop] for span in rendering.spans]


def write(path, records: list[dict]):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize(
    "name", ["qwen3", "qwen3_6", "phi3", "gptoss", "deepseekv3", "nemotron_3_nano", "r1", "llama3_1"]
)
def test_conversations_of_several_turns(name, smol, tmp_path):
    """Templates that treat the last turn otherwise than earlier ones, or ask with an open <think>."""
    encoder = Encoder(smol, R1 if name == "r1" else templates()[name])
    records = [{"messages": [{"role": role, "content": text} for role, text in pairs]} for pairs in MULTI]
    rows = list(read_rows([write(tmp_path / "pool.jsonl", records)]))
    assert [row.reason for row in rows] == [""] * 7
    for row, pairs in zip(rows, MULTI, strict=True):
        answers = [text for role, text in pairs if role == "assistant"]
        found = turns(encoder, row.conversation)
        assert len(found) == len(answers)
        for learned, answer in zip(found, answers, strict=True):
            assert learned.startswith(answer)
            assert learned.removeprefix(answer).startswith("<")
            assert "think" not in learned


def test_a_plan_counts_all_rows_as_usable(smollm2, tmp_path):
    records = [{"messages": [{"role": role, "content": text} for role, text in pairs]} for pairs in MULTI]
    config = BuildConfig(model=str(smollm2), template=templates()["qwen3"])
    found = plan([write(tmp_path / "pool.jsonl", records)], config, progress=Progress(quiet=True))
    assert (found.rows, found.usable, dict(found.excluded)) == (7, 7, {})


def test_a_template_that_refuses_system_turns_says_so_in_its_own_words(smol):
    encoder = Encoder(smol, templates()["gemma"])
    with pytest.raises(RenderError, match="refuses it: System role not supported"):
        encoder.encode(talk(*MULTI[1]))
    assert turns(encoder, talk(*MULTI[0])) == ["The Arno.<end_of_turn>", "Lake Garda.<end_of_turn>"]
    merged = Encoder(smol, templates()["gemma3"])
    assert turns(merged, talk(*MULTI[1])) == ["Monte Ciocci.<end_of_turn>", "94 m.<end_of_turn>"]


@pytest.mark.parametrize("name", ["chat", "llama3", "llama3_1", "qwen2_5", "qwen3", "gptoss"])
def test_conversations_that_the_assistant_begins(name, smol, tmp_path):
    records = [
        {"conversations": [
            {"from": "gpt", "value": "Hello, how can I help?"}, {"from": "human", "value": f"Name a {thing}."},
            {"from": "gpt", "value": f"Here is a {thing}."},
        ]}
        for thing in ("river", "lake")
    ]  # fmt: skip
    encoder = Encoder(smol, "chat" if name == "chat" else templates()[name])
    for row in read_rows([write(tmp_path / "pool.jsonl", records)]):
        first, second = turns(encoder, row.conversation)
        assert first.startswith("Hello, how can I help?<|")
        assert second.startswith("Here is a ")


def test_tokenizers_without_template_or_padding_and_with_several(smollm2):
    tokenizer = load_tokenizer(str(smollm2))
    own = tokenizer.chat_template

    def changed(**values):
        other = copy.deepcopy(tokenizer)
        for name, value in values.items():
            setattr(other, name, value)
        return other

    with pytest.raises(TemplateError, match="no chat template: choose --template"):
        Encoder(changed(chat_template=None), "chat")
    with pytest.raises(TemplateError, match="chat templates tool_use, rag, but none called default"):
        Encoder(changed(chat_template={"tool_use": own, "rag": own}), "chat")
    expected = turns(Encoder(tokenizer, "chat"), talk(*MULTI[0]))
    assert expected == ["The Arno.<|im_end|>", "Lake Garda.<|im_end|>"]
    for other in (changed(chat_template={"default": own, "rag": "x"}), changed(pad_token=None)):
        assert turns(Encoder(other, "chat"), talk(*MULTI[0])) == expected


@pytest.mark.parametrize("name", ["phi3", "qwen3"])
def test_a_file_with_generation_tags_is_taken_and_obeyed(name, smol, tmp_path):
    path = tmp_path / "training.jinja"
    path.write_text(templates()[f"{name}_training"])
    encoder = Encoder(smol, read_template(str(path)))
    for pairs in MULTI:
        answers = [text for role, text in pairs if role == "assistant"]
        found = turns(encoder, talk(*pairs))
        assert len(found) == len(answers)
        for learned, answer in zip(found, answers, strict=True):
            assert answer in learned
            assert learned.endswith("\n") or learned.endswith("<|im_end|>")  # the tags hold the line break too
            assert ("<think>" in learned) == (name == "qwen3")
