"""What is learned of a rendering, under templates that write their turns in every way."""

import json

import pytest
from conversations import talk

from gradsift.data.conversation import Conversation, Message, ToolCall
from gradsift.data.encode import Encoder, RenderError
from gradsift.data.rendering import Dropped
from gradsift.model.load import load_tokenizer

TALK = talk(("user", "Hi"), ("assistant", "Hello!"), ("user", "So?"), ("assistant", "Bye."))
ASKS = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
TURN = "{{ '<|' + m.role + '|>' }}{{ m.content }}<|im_end|>\n"
TOOLS = json.dumps([{"type": "function", "function": {"name": "look_up", "parameters": {}}}])
ROME, ORLY = ToolCall("look_up", '{"x": "Rome"}', "call_1"), ToolCall("look_up", "{}", "call_2")
CALLS = Conversation(
    (
        Message("user", "Where?"),
        Message("assistant", "", "Hm.", (ROME, ORLY)),
        Message("tool", "Italy", name="look_up", call_id="call_1"),
        Message("tool", "France", name="look_up", call_id="call_2"),
        Message("assistant", "There."),
    ),
    TOOLS,
)
CALLING = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}({{ c.function.arguments | tojson }})</call>"
    "{% endfor %}<|im_end|>{% endfor %}" + ASKS
)


@pytest.fixture(scope="module")
def toy(tiny_model):
    return load_tokenizer(str(tiny_model))


def learned(toy, template: str, conversation: Conversation) -> list[tuple[int, str]]:
    """(turn, text) of what is learned."""
    rendering = Encoder(toy, template).render(conversation)
    stretches = rendering.stretches
    assert "".join(rendering.text[one.start : one.stop] for one in stretches) == rendering.text
    spans = [(span.turn, rendering.text[span.start : span.stop]) for span in rendering.spans]
    assert spans == [(one.turn, rendering.text[one.start : one.stop]) for one in stretches if one.kind == "learned"]
    return spans


ANSWERS = [(1, "Hello!<|im_end|>"), (3, "Bye.<|im_end|>")]


@pytest.mark.parametrize(
    "template",
    [
        f"{{% for m in messages %}}{TURN}{{% endfor %}}",
        f"{{% for i in range(messages | length) %}}{{% set m = messages[i] %}}{TURN}{{% endfor %}}",
        f"{{% macro turn(m) %}}{TURN}{{% endmacro %}}{{% for m in messages %}}{{{{ turn(m) }}}}{{% endfor %}}",
        f"{{% set ns = namespace(t='') %}}{{% for m in messages %}}{{% set c %}}{TURN}{{% endset %}}"
        "{% set ns.t = ns.t + c %}{% endfor %}{{ ns.t }}",
        "{% for i in range(0, messages | length, 2) %}{% set m = messages[i] %}" + TURN
        + "{% set m = messages[i + 1] %}"
        + TURN + "{% endfor %}",
    ],
    ids=["loop", "range", "macro", "namespace", "pairs"],
)  # fmt: skip
def test_answers_and_end_tokens_however_the_turns_are_written(toy, template):
    assert learned(toy, template, TALK) == ANSWERS


def test_an_end_token_that_begins_the_next_turn(toy):
    """Some templates close a turn only when they open the next: the last one stays open."""
    late = "{% for m in messages %}{{ '' if loop.first else '<|im_end|>' }}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    assert learned(toy, late, TALK) == [(1, "Hello!<|im_end|>"), (3, "Bye.")]
    late = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    assert learned(toy, late, TALK) == [(1, "Hello!<|user|>"), (3, "Bye.")]


def test_where_the_next_header_ends_a_turn_it_ends_calls_and_empty_answers_too(toy):
    """GLM: the model stops at <|observation|> after a call, and at <|user|> after an answer, be it empty."""
    glm = (
        "{{ tools | tojson if tools else '' }}{% for m in messages %}"
        "{{ '<|observation|>' if m.role == 'tool' and messages[loop.index0 - 1].role != 'tool' }}"
        "{{ '<|' + m.role + '|>' if m.role != 'tool' }}{{ '<think></think>' if m.role == 'assistant' }}\n"
        "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }}"
        "{{ c.function.arguments | tojson }}</tool_call>{% endfor %}{% endfor %}" + ASKS
    )
    called = Conversation((*CALLS.messages[:1], Message("assistant", "", "", (ROME,)), *CALLS.messages[2:]), TOOLS)
    assert learned(toy, glm, called) == [
        (1, '<tool_call>look_up{"x": "Rome"}</tool_call><|observation|>'),
        (4, "There."),
    ]
    empty = talk(("user", "Hi"), ("assistant", ""), ("user", "So?"), ("assistant", "Bye."))
    assert [turn for turn, _ in learned(toy, glm, empty)] == [1, 3]
    assert learned(toy, glm, empty)[0][1].endswith("<|user|>")


def test_calls_and_reasoning_begin_with_the_tag_that_opens_them(toy):
    assert learned(toy, CALLING, CALLS) == [
        (1, '<think>Hm.</think><call>look_up({"x": "Rome"})</call><call>look_up({})</call><|im_end|>'),
        (4, "There.<|im_end|>"),
    ]


def test_reasoning_in_the_content_begins_with_its_tag_too(toy):
    """Qwen3 takes it out of the content and writes the tags itself."""
    splits = (
        "{% for m in messages %}<|{{ m.role }}|>\n{% if '</think>' in m.content %}{{ '<think>\n'"
        " + m.content.split('</think>')"
        "[0].split('<think>')[-1].strip() + '\n</think>\n\n' + m.content.split('</think>')[-1].strip() }}{% else %}"
        "{{ '<think>\n\n</think>\n\n' if m.role == 'assistant' }}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    )
    thinking = talk(("user", "Hi"), ("assistant", "<think>Hm.</think> Hello!"), ("user", "So?"), ("assistant", "Bye."))
    assert learned(toy, splits, thinking) == [
        (1, "<think>\nHm.\n</think>\n\nHello!<|im_end|>"),
        (3, "Bye.<|im_end|>"),
    ]


def test_results_inside_of_the_callers_turn_are_not_learned(toy):
    """Gemma writes the results of a call before the turn ends, under the name of the call."""
    inside = (
        "{{ tools | tojson if tools else '' }}{% macro result(name, text) %}{{ '<result>' }}{{ name + '=' + text }}"
        "{{ '</result>' }}{% endmacro %}"
        "{% for m in messages %}{% if m.role != 'tool' %}<|{{ m.role }}|>{{ m.reasoning }}{{ m.content }}"
        "{% set i = loop.index0 %}{% for c in m.tool_calls or [] %}{{ '<call>' + c.function.name }}"
        "{{ c.function.arguments | tojson }}{% endfor %}{% for c in m.tool_calls or [] %}"
        "{{ result(c.function.name, messages[i + loop.index].content) }}{% endfor %}<|im_end|>{% endif %}{% endfor %}"
        + ASKS
    )
    assert learned(toy, inside, CALLS) == [
        (1, 'Hm.<call>look_up{"x": "Rome"}<call>look_up{}'),
        (1, "<|im_end|>"),
        (4, "There.<|im_end|>"),
    ]


def test_turns_that_are_not_learned_and_the_prefix(toy):
    template = f"{{% for m in messages %}}{TURN}{{% endfor %}}"
    messages = (*TALK.messages[:1], Message("assistant", "Hello!", learned=False), *TALK.messages[2:])
    assert learned(toy, template, Conversation(messages)) == ANSWERS[1:]
    prefixed = Conversation(TALK.messages, prefix="Well:")
    assert learned(toy, template, prefixed) == [ANSWERS[0], (3, "Bye.<|im_end|>")]
    assert "Well: Bye." in Encoder(toy, template).render(prefixed).text
    both = Conversation((*TALK.messages[:3], Message("assistant", "Bye.", learned=False)), prefix="Well:")
    assert learned(toy, template, both) == ANSWERS[:1]


def test_tags_mark_what_is_learned_but_not_in_turns_that_the_row_leaves_out(toy):
    tagged = (
        "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}>{{ m.content }}\n"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    assert learned(toy, tagged, TALK) == [(1, ">Hello!\n"), (3, ">Bye.\n")]
    messages = (*TALK.messages[:1], Message("assistant", "Hello!", learned=False), *TALK.messages[2:])
    assert learned(toy, tagged, Conversation(messages)) == [(3, ">Bye.\n")]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("{{ m.content | upper }}", "changes what message 1 says"),
        ("{{ m.content[:1] }}", "leaves out part of what message 2 says: 'ello!'"),
        ("{{ m.content if not loop.first }}", "leaves out what message 1 says: 'Hi'"),
        ("{{ m.content if loop.index != 2 }}", "leaves out what message 2 says: 'Hello!'"),
        ("{{ m.content | replace('Hello', 'x') }}", "leaves out part of what message 2 says: 'Hello'"),
    ],
)
def test_a_text_that_is_changed_or_left_out_is_named(toy, body, reason):
    with pytest.raises(RenderError, match=reason) as caught:
        learned(toy, f"{{% for m in messages %}}<|{{{{ m.role }}}}|>{body}<|im_end|>{{% endfor %}}", TALK)
    assert "the template" in str(caught.value)
    assert "--template" in str(caught.value)


def test_a_template_without_a_place_is_named(toy):
    plain = f"{{% for m in messages %}}{TURN}{{% endfor %}}"
    thinking = Conversation((TALK.messages[0], Message("assistant", "Hello!", "Hm.")))
    for conversation, reason in (
        (thinking, "has no place for reasoning"),
        (Conversation(TALK.messages, TOOLS), "has no place for the row's tools"),
        (Conversation(CALLS.messages), "leaves out a tool call: 'look_up' in message 2"),
    ):
        with pytest.raises(RenderError, match=reason):
            learned(toy, plain, conversation)


def test_reasoning_that_is_left_out_on_purpose_is_told(toy):
    """Qwen3 keeps the reasoning of the last turn alone."""
    forgets = (
        "{% for m in messages %}<|{{ m.role }}|>{% if m.reasoning_content and loop.last %}<think>"
        "{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}<|im_end|>{% endfor %}" + ASKS
    )
    first, last = Message("assistant", "Hello!", "First."), Message("assistant", "Bye.", "Last.")
    conversation = Conversation((TALK.messages[0], first, TALK.messages[2], last))
    assert learned(toy, forgets, conversation) == [
        (1, "Hello!<|im_end|>"),
        (3, "<think>Last.</think>Bye.<|im_end|>"),
    ]
    assert Encoder(toy, forgets).render(conversation).dropped == (Dropped(1, "reasoning", "First."),)


class TestTemplatesOfOtherHabits:
    CALLS = (ToolCall("add", '{"a": 1}'), ToolCall("now"))

    def talk(self, *answers: Message) -> Conversation:
        return Conversation(tuple(turn for answer in answers for turn in (Message("user", "?"), answer)))

    def learned(self, tokenizer, template: str, conversation: Conversation) -> list[str]:
        rendering = Encoder(tokenizer, template).render(conversation)
        return [rendering.text[span.start : span.stop] for span in rendering.spans]

    @pytest.mark.parametrize(
        "written",
        [
            "{% for c in m.tool_calls or [] %}<c>{{ c.function | tojson }}{% endfor %}",
            "{% for c in m.tool_calls or [] %}{% set out = c | tojson %}<c>{{ out[:-1] }}}{% endfor %}",
            "{% if m.tool_calls %}<c>{{ m.tool_calls | tojson }}{% endif %}",
            "{% for c in m.tool_calls or [] %}<c>{{ {'n': c.function.name, 'a': c.function.arguments} | tojson }}"
            "{% endfor %}",
        ],
    )
    def test_calls_written_as_json_at_once(self, toy, written):
        template = (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}" + written + "<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        )
        (span,) = self.learned(toy, template, self.talk(Message("assistant", "", tool_calls=self.CALLS)))
        assert span.startswith("<c>")
        assert span.endswith("<|im_end|>")
        assert '"add"' in span
        assert '"now"' in span

    def test_a_loop_over_numbers_with_calls_and_reasoning(self, toy):
        template = (
            "{% for i in range(messages | length) %}{% set message = messages[i] %}<|im_start|>{{ message.role }}\n"
            "{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}"
            "{{ message.content }}{% for c in message.tool_calls or [] %}"
            "<c>{{ c.function.name }} {{ c.function.arguments | tojson }}</c>{% endfor %}"
            "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        )
        answers = (Message("assistant", "Let me", tool_calls=self.CALLS), Message("assistant", "A", reasoning="r"))
        assert self.learned(toy, template, self.talk(*answers)) == [
            'Let me<c>add {"a": 1}</c><c>now {}</c><|im_end|>',
            "<think>r</think>A<|im_end|>",
        ]

    def test_no_generation_prompt(self, toy):
        """The header of hand-written training templates is what stands before a plain answer."""
        template = (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n"
            "{% if m.reasoning %}<think>{{ m.reasoning }}</think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        )
        talk = self.talk(Message("assistant", "A", reasoning="r"), Message("assistant", "B"))
        assert self.learned(toy, template, talk) == ["<think>r</think>A<|im_end|>", "B<|im_end|>"]

    def test_the_next_header_written_with_the_turn(self, toy):
        template = (
            "{% for m in messages %}{{ m.content }}"
            "{% if m.role == 'assistant' %}<|im_end|>\nUSER: {% endif %}{% endfor %}"
        )
        talk = self.talk(Message("assistant", "A"), Message("assistant", "B"))
        assert self.learned(toy, template, talk) == ["A<|im_end|>", "B<|im_end|>"]

    def test_generation_in_a_loop_over_numbers(self, toy):
        template = (
            "{% for i in range(messages | length) %}{% if messages[i].role == 'assistant' %}"
            "{% generation %}{{ messages[i].content }}<|im_end|>{% endgeneration %}{% else %}"
            "{{ messages[i].content }}{% endif %}{% endfor %}"
        )
        talk = self.talk(Message("assistant", "A", learned=False), Message("assistant", "B"))
        assert self.learned(toy, template, talk) == ["B<|im_end|>"]
        late = self.talk(Message("assistant", "A"), Message("assistant", "B", learned=False))
        assert self.learned(toy, template, late) == ["A<|im_end|>"]

    def test_reasoning_in_the_text_that_a_template_cuts(self, toy):
        """DeepSeek-R1's template: half of the example would go without a word."""
        template = (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n"
            "{% endfor %}"
        )
        with pytest.raises(RenderError, match="no place for reasoning"):
            self.learned(toy, template, self.talk(Message("assistant", "<think>a long thought</think>42")))
        not_learned = Message("assistant", "<think>a long thought</think>42", learned=False)
        assert self.learned(toy, template, self.talk(not_learned, Message("assistant", "A"))) == ["A<|im_end|>"]

    def test_an_answer_with_a_tag_twice(self, toy):
        template = (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n"
            "{{ m.content.split('</think>')[-1].replace('<br>', '\n') }}<|im_end|>\n{% endfor %}"
        )
        with pytest.raises(RenderError, match="leaves out part of what message 2 says: '<br>'"):
            self.learned(toy, template, self.talk(Message("assistant", "a<br>b")))
        assert self.learned(toy, template, self.talk(Message("assistant", "</think>think ok"))) == [
            "think ok<|im_end|>"
        ]
