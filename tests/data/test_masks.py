"""What is learned of a conversation, as people see it: the parts, what is left out, the tokens."""

import pytest

from gradsift.data import masks
from gradsift.data.conversation import Conversation, Message
from gradsift.data.encode import Encoder
from gradsift.data.masks import EXAMPLE, mask, mask_example, refusal
from gradsift.data.rendering import RenderError
from gradsift.model.load import load_tokenizer

THINKS = (  # keeps the reasoning of the last turn only, as Qwen3 does
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.reasoning_content and loop.last %}{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}"
    "{{ m.content }}{{ '<|im_end|>\\n' }}{% endfor %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
)


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(str(tiny_model))


def chat(*turns: tuple[str, str]) -> Conversation:
    return Conversation(tuple(Message(*turn) for turn in turns))


def parts(masked: masks.Masked, kind: str) -> list[str]:
    text = masked.rendering.text
    return [text[s.start : s.stop] for s in masked.rendering.stretches if s.kind == kind]


def test_the_parts_spell_the_rendering_and_the_tokens_add_up(tokenizer):
    encoder = Encoder(tokenizer, "chat")
    masked = mask(encoder, chat(("user", "hi there"), ("assistant", "yes")))
    assert parts(masked, "learned") == ["yes<|im_end|>"]
    assert parts(masked, "given") == ["hi there"]
    assert parts(masked, "template") == ["<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n", "\n"]
    n_given = len(tokenizer("hi there", add_special_tokens=False).input_ids)
    encoded = encoder.encode(masked.conversation)
    assert (masked.prompt, masked.learned) == (encoded.n_prompt, encoded.n_answer)
    assert masked.template == masked.prompt - n_given
    assert masked.cut == 0


def test_tokens_beyond_the_longest_row_are_counted_apart(tokenizer):
    encoder = Encoder(tokenizer, "chat")
    whole = mask(encoder, chat(("user", "hi"), ("assistant", "the cat sat " * 20)))
    short = mask(encoder, whole.conversation, 30)
    assert short.prompt + short.learned == 30
    assert short.cut == whole.prompt + whole.learned - 30
    assert short.rendering == whole.rendering


class TestExample:
    def test_it_holds_all_that_a_row_may_hold(self):
        assert {message.role for message in EXAMPLE.messages} == {"system", "user", "assistant", "tool"}
        assert EXAMPLE.tools
        assert sum(bool(message.reasoning) for message in EXAMPLE.messages) == 3
        assert sum(len(message.tool_calls) for message in EXAMPLE.messages) == 1

    def test_it_leaves_out_what_the_template_has_no_place_for_and_says_what(self, tokenizer):
        assert mask_example(Encoder(tokenizer, "chat")).lacking == ("reasoning", "tools")
        assert mask_example(Encoder(tokenizer, NO_SYSTEM)).lacking == ("reasoning", "tools", "system")

    def test_what_a_template_drops_is_named(self, tokenizer):
        masked = mask_example(Encoder(tokenizer, THINKS))
        assert masked.lacking == ("tools",)
        assert [(d.turn, d.part, d.text) for d in masked.rendering.dropped] == [
            (2, "reasoning", "A plain fact; no tool is needed.")
        ]
        assert any("Monday is in the list." in text for text in parts(masked, "learned"))

    def test_a_template_that_takes_nothing_is_an_error(self, tokenizer):
        with pytest.raises(RenderError, match="never"):
            mask_example(Encoder(tokenizer, "{{ raise_exception('never') }}"))


def test_a_refusal_is_the_reason_of_the_encoder(tokenizer):
    good = chat(("user", "q"), ("assistant", "a"))
    assert refusal(Encoder(tokenizer, "chat"), good) == ""
    assert "never" in refusal(Encoder(tokenizer, "{{ raise_exception('never') }}"), good)
    silent = Conversation((Message("user", "q"), Message("assistant", "a", learned=False)))
    assert refusal(Encoder(tokenizer, "chat"), silent) == "the answer has no token to learn"
