"""What is learned of a conversation, for people to look at: its rendering with marks, and its tokens counted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from gradsift.data.conversation import Conversation, Message, ToolCall
from gradsift.data.encode import Encoder
from gradsift.data.rendering import RenderError, Rendering

_TOOL = (
    '[{"type": "function", "function": {"name": "opening_hours", "description": "When a place is open.", "parameters": '
    '{"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}}}]'
)
EXAMPLE = Conversation(
    messages=(
        Message("system", "You answer in one sentence."),
        Message("user", "What is the capital of Portugal?"),
        Message("assistant", "The capital of Portugal is Lisbon.", reasoning="A plain fact; no tool is needed."),
        Message("user", "Is its aquarium open on Mondays?"),
        Message(
            "assistant",
            reasoning="Opening hours change, so I look them up.",
            tool_calls=(ToolCall("opening_hours", '{"place": "Oceanário de Lisboa"}', "call00001"),),
        ),
        Message("tool", '{"monday": "10:00-20:00"}', name="opening_hours", call_id="call00001"),
        Message("assistant", "Yes, from ten to eight.", reasoning="Monday is in the list."),
    ),
    tools=_TOOL,
)


@dataclass(frozen=True, slots=True)
class Masked:
    """A conversation as the model sees it, and its tokens.

    prompt, learned: tokens of each; template: those of the prompt whose text is all the template's. cut: tokens beyond
    the longest row, which are in none of the others. lacking: what of the example a template has no place for.
    """

    conversation: Conversation
    rendering: Rendering
    prompt: int
    learned: int
    template: int
    cut: int = 0
    lacking: tuple[str, ...] = ()


def mask(encoder: Encoder, conversation: Conversation, max_length: int | None = None) -> Masked:
    """Render a conversation and count its first `max_length` tokens.

    Raises:
        RenderError: the template rejects the conversation, or leaves out part of it.
    """
    rendering = encoder.render(conversation)
    encoded = encoder.encode(conversation, max_length)
    tokens = encoder.tokenizer(rendering.text, add_special_tokens=False, return_offsets_mapping=True)
    added = _inside(tokens["offset_mapping"], [(s.start, s.stop) for s in rendering.stretches if s.kind == "template"])
    template = sum(own and not learned for own, learned in zip(added, encoded.supervised, strict=False))
    return Masked(conversation, rendering, encoded.n_prompt, encoded.n_answer, template, encoded.n_cut)


def mask_example(encoder: Encoder) -> Masked:
    """The built-in example, without what the template has no place for.

    Raises:
        RenderError: the template rejects even plain questions and answers.
    """
    refusal: RenderError | None = None
    for lacking in (names for count in range(4) for names in combinations(("reasoning", "tools", "system"), count)):
        try:
            return replace(mask(encoder, _example(lacking)), lacking=lacking)
        except RenderError as error:
            refusal = error
    raise refusal or RenderError("the chat template refuses the example")


def refusal(encoder: Encoder, conversation: Conversation) -> str:
    """Why the encoder cannot use a conversation, "" if it can."""
    try:
        encoded = encoder.encode(conversation)
    except RenderError as error:
        return str(error)
    return "" if encoded.n_answer else "the answer has no token to learn"


def _example(lacking: Sequence[str]) -> Conversation:
    messages = [
        replace(message, reasoning="" if "reasoning" in lacking else message.reasoning)
        for message in EXAMPLE.messages
        if not (message.role == "system" and "system" in lacking)
        and not ((message.tool_calls or message.role == "tool") and "tools" in lacking)
    ]
    return Conversation(tuple(messages), "" if "tools" in lacking else EXAMPLE.tools)


def _inside(tokens: Sequence[tuple[int, int]], stretches: Sequence[tuple[int, int]]) -> list[bool]:
    """For each token, whether all its characters lie in one of the (ordered) stretches."""
    inside, at = [], 0
    for start, stop in tokens:
        while at < len(stretches) and stretches[at][1] <= start:
            at += 1
        inside.append(at < len(stretches) and stretches[at][0] <= start and stop <= stretches[at][1])
    return inside
