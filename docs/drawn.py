"""Conversations drawn for the comparison of masks (docs/oracle.py): all that a chat template may stumble over."""

import json
from collections.abc import Callable
from dataclasses import replace

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from gradsift.data.conversation import Conversation, Message, ToolCall

WORDS = ["Paris", "two words", "1,234.5", "x = y;", ".", "naïve cafe\u0301", "কলকাতা", "東京は", "مرحبا", "👍🏽", "🧑‍🚀"]
BLANKS = [" ", "  ", "\n", "\n\n", "\t"]
MARKUP = [
    *("<|im_end|>", "<|im_start|>assistant\n", "<|start|>assistant", "<end_of_turn>", "<|user|>", "</s>", "[INST]"),
    *("<think>", "</think>", "<think>\nhm\n</think>\n\n", "<think></think>", "<tool_call>{}</tool_call>"),
    *("{% generation %}", "{{ messages }}", "<tool_response>", "/nothink", '"role": "user"'),
]
NAMES = ["look_up", "weather", "f"]
PARAMETERS = {"type": "object", "properties": {"x": {"type": "string", "description": "an x"}}, "required": ["x"]}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"{name} something", "parameters": PARAMETERS}}
    for name in NAMES
]


def _text(pieces: list[str], most: int = 4) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), min_size=1, max_size=most).map("".join)


QUESTIONS = _text([*WORDS, " ", " ", "\n"]).filter(str.strip)
ANSWERS = st.one_of(
    _text([*WORDS, *BLANKS]),
    _text([*WORDS, *BLANKS, *MARKUP], 5),
    st.sampled_from(["", "B", "  spaced out \n", "Several\n\nlines\n", "<think>\nInline.\n</think>\n\nSo."]),
)
THOUGHTS = _text([*WORDS, " ", "\n"]).filter(str.strip)
ARGUMENTS = st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from([*WORDS, 1, True]), max_size=2)


@st.composite
def calls(draw: Callable) -> list[Message]:
    """An assistant's turn that calls one or two tools, and their results."""
    made = tuple(
        ToolCall(draw(st.sampled_from(NAMES)), json.dumps(draw(ARGUMENTS), ensure_ascii=False), f"call_{number:05}")
        for number in range(draw(st.integers(1, 2)))
    )
    asking = Message(
        "assistant",
        draw(st.sampled_from(["", "", "Let me see.", " a\n"])),
        draw(st.one_of(st.just(""), THOUGHTS)),
        made,
    )
    results = [Message("tool", draw(QUESTIONS), name=call.name, call_id=call.id) for call in made]
    return [asking, *results]


@st.composite
def whole(draw: Callable) -> Conversation:
    """One to six exchanges with system, tools, calls, reasoning; some begin with the assistant or end with the user."""
    some = st.integers(0, 3).map(bool)
    messages = [Message("system", draw(QUESTIONS))] if draw(st.booleans()) else []
    uses, thinks = draw(st.booleans()), draw(st.booleans())
    opens = draw(st.integers(0, 5)) == 0
    for turn in range(draw(st.integers(1, 6))):
        if turn or not opens:
            messages.append(Message("user", draw(QUESTIONS)))
        if uses and draw(some):
            messages += draw(calls())
        messages.append(Message("assistant", draw(ANSWERS), draw(THOUGHTS) if thinks and draw(some) else ""))
    if draw(st.integers(0, 5)) == 0:
        messages.append(Message("user", draw(QUESTIONS)))
    return Conversation(tuple(messages), json.dumps(TOOLS, ensure_ascii=False) if uses else "")


def draw(count: int, number: int) -> list[Conversation]:
    """`count` different conversations. number: the seed."""
    found: dict[Conversation, None] = {}

    @seed(number)
    @settings(
        max_examples=2 * count, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=HealthCheck
    )
    @given(whole())
    def collect(conversation: Conversation) -> None:
        found[conversation] = None

    collect()
    return list(found)[:count]


def _content(message: Message, lacking: set[str]) -> str:
    if "beside" in lacking and message.reasoning and message.tool_calls:
        return ""
    thought, tag, answer = message.content.rpartition("</think>")
    return answer if "thoughts" in lacking and tag and message.role == "assistant" and thought else message.content


def without(conversation: Conversation, lacking: set[str]) -> Conversation:
    """The conversation without what a template has no place for.

    lacking: of reasoning, thoughts (in the text of an answer), tools, calls, system, first (an assistant that begins),
    last (a user that ends), beside
    (content next to both reasoning and calls), several (two calls in one turn).
    """
    kept = {message.tool_calls[0].id for message in conversation.messages if message.tool_calls}
    messages = [
        replace(
            message,
            reasoning="" if "reasoning" in lacking else message.reasoning,
            tool_calls=message.tool_calls[:1] if "several" in lacking else message.tool_calls,
            content=_content(message, lacking),
        )
        for message in conversation.messages
        if not ("calls" in lacking and (message.tool_calls or message.role == "tool"))
        and not ("several" in lacking and message.role == "tool" and message.call_id not in kept)
        and not ("system" in lacking and message.role == "system")
    ]
    spoken = [message for message in messages if message.role != "system"]
    if "first" in lacking and spoken[0].role == "assistant" and len(spoken) > 1:
        messages.remove(spoken[0])
    if "last" in lacking and messages[-1].role == "user":
        messages.pop()
    return Conversation(tuple(messages), "" if "tools" in lacking else conversation.tools)
