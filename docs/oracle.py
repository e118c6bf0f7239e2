"""What gradsift learns under a chat template, compared with the training twin that the trl package ships of it.

trl holds templates of model families as published, `NAME.jinja`, and twins of some, `NAME_training.jinja`, whose
authors marked with `{% generation %}` what is learned. transformers turns those marks into a mask of tokens.
`Family.compare`
holds our mask under the published template against it: equal, named (every token that differs is explained by a rule
of `RULES`, which is checked), or refused.
"""

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from drawn import without

from gradsift.data.conversation import Conversation, Message, ToolCall
from gradsift.data.encode import Encoder, RenderError, _Form, _messages
from gradsift.data.rendering import Rendering
from gradsift.model.load import load_tokenizer

RULES = {
    "break": "the line break after the end token",
    "header": "the template's header",
    "think": "an empty think block",
    "earlier": "think blocks of earlier turns",
    "breaks": "line breaks before an answer",
    "last": "the token after the last turn",
    "character": "a character of several tokens",
}
HEADERS = {  # what a twin's block holds before the turn's own text, beside think blocks
    "deepseek_r1_distill": "<｜Assistant｜>|<｜tool▁outputs▁end｜>",
    "deepseekv3": r"<｜Assistant｜>|<｜tool▁outputs▁end｜>|\s*<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
    "glm4moe": r"\n",
    "gptoss": r"<\|start\|>assistant(?:<\|channel\|>final<\|message\|>)?",
    "muse_glimmer": r"<\|start\|>assistant(?: to=user<\|message\|>)?",
    "idefics3": " ",
    "llava_next": " ",
    "qwen2_5": r"\n",
    "smolvlm": " ",
}
EMPTY = r"<think>\s*</think>\s*"
MARKS = re.compile(
    r"<\|[^|<>\s'\"]+\|>|<｜[^｜<>\s'\"]+｜>|<(?:start|end)_of_\w+>|<\w+\|>|<\|\w+>|</?s>|\[gMASK\]|<sop>"
)
WORDS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]


def folder() -> Path:
    """trl's chat templates; the package is not imported."""
    spec = importlib.util.find_spec("trl")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("trl is not installed: pip install --no-deps trl")
    return Path(spec.submodule_search_locations[0]) / "chat_templates"


def templates() -> dict[str, str]:
    """Every template of trl by its name, twins with `_training`."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder().glob("*.jinja"))}


def twins() -> list[str]:
    """The families that have a training twin."""
    names = templates()
    return [name for name in names if f"{name}_training" in names]


def marked_tokenizer(model: str) -> Any:
    """The model's tokenizer with the marks of all templates as tokens of their own, as each family's tokenizer has."""
    tokenizer = load_tokenizer(model)
    marks = {mark for text in templates().values() for mark in MARKS.findall(text)}
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(marks)})
    tokenizer.add_tokens(WORDS)
    return tokenizer


class _Day(datetime):
    """The day that our templates print."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(2024, 7, 26)


@contextmanager
def fixed_day() -> Iterator[None]:
    """transformers prints today's date into some templates; here always ours."""
    with mock.patch("transformers.utils.chat_template_utils.datetime", _Day):
        yield


@dataclass
class Compared:
    """The outcome for one conversation.

    outcome: equal, named, refused, or unexplained. rules: those that explain what differs. reason: of a refusal, or
    what is not explained. turns, ended: learned turns, and those whose last learned token is an end token.
    """

    outcome: str
    rules: Counter = field(default_factory=Counter)
    reason: str = ""
    turns: int = 0
    ended: int = 0


class Family:
    """A published template and its twin, with one tokenizer."""

    def __init__(self, name: str, tokenizer: Any) -> None:
        texts = templates()
        self.name, self.tokenizer = name, tokenizer
        self.published, self.twin = texts[name], texts.get(f"{name}_training", "")
        self.ours, self.tagged = Encoder(tokenizer, self.published), Encoder(tokenizer, self.twin)

    def mask(self, conversation: Conversation, form: _Form) -> tuple[str, list[int], list[bool]]:
        """Text, token ids and mask of the twin, by transformers."""
        tools = json.loads(conversation.tools) if conversation.tools else None
        with fixed_day():
            made = self.tokenizer.apply_chat_template(
                plain(conversation, form),
                chat_template=self.twin,
                tools=tools,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
        text = render(self.tokenizer, self.twin, conversation, form)
        return text, made["input_ids"], [bool(one) for one in made["assistant_masks"]]

    @cached_property
    def lacking(self) -> set[str]:
        """What the published template has no place for, found by asking transformers (see drawn.py)."""
        call = ToolCall("qcall", '{"x": "qargument"}', "call_00001")
        other = ToolCall("qother", '{"x": "qargument"}', "call_00002")
        user, answer, asking = (
            Message("user", "quser"),
            Message("assistant", "qanswer"),
            Message("assistant", "", "", (call,)),
        )
        result, tools = Message("tool", "qresult", name="qcall", call_id="call_00001"), json.dumps([_TOOL])
        probes = {
            "system": Conversation((Message("system", "qsystem"), user, answer)),
            "reasoning": Conversation((user, Message("assistant", "qanswer", "qreasoning"))),
            "thoughts": Conversation((user, Message("assistant", "<think>qthought</think>qanswer"))),
            "tools": Conversation((user, answer), tools),
            "calls": Conversation((user, asking, result, answer), tools),
            "beside": Conversation(
                (user, Message("assistant", "qbeside", "qreasoning", (call,)), result, answer), tools
            ),
            "several": Conversation((user, Message("assistant", "", "", (call, other)), result, answer), tools),
            "first": Conversation((answer, user, answer)),
            "last": Conversation((user, answer, user)),
        }
        wanted = {
            "system": ["qsystem"], "reasoning": ["qreasoning"], "thoughts": ["qthought"], "tools": ["qtool"],
            "beside": ["qbeside"],
            "calls": ["qcall", "qargument", "qresult"], "several": ["qother"], "first": ["qanswer"], "last": ["quser"],
        }  # fmt: skip
        return {part for part, probe in probes.items() if not self._holds(probe, wanted[part])}

    def _holds(self, conversation: Conversation, words: Sequence[str]) -> bool:
        for form in forms(conversation):
            try:
                text = render(self.tokenizer, self.published, conversation, form)
            except Exception:  # a template is a program: it may raise anything
                continue
            if all(word in text for word in words):
                return True
        return False

    def compare(self, conversation: Conversation) -> Compared:
        """Our mask under the published template against the twin's."""
        try:
            rendering, form = self.ours._rendered(conversation)
        except RenderError as error:
            return self._refused(conversation, str(error))
        found, encoded = Compared("equal"), self.ours.encode(conversation)
        self._count_ends(found, rendering, conversation)
        text, ids, mask = self._twin(conversation, form, rendering.text)
        ours = Tokens(rendering.text, self._offsets(rendering.text), encoded.supervised)
        theirs = Tokens(text, self._offsets(text), [False, *mask[1:]])  # nothing predicts the first token
        if text != rendering.text:
            cuts = self._cuts(rendering.text, text)
            if cuts is None:
                return replace(found, outcome="unexplained", reason=f"{rendering.text!r}\n{text!r}")
            found.rules.update(cut.rule for cut in cuts)
            ours = ours.without([cut for cut in cuts if cut.ours])
            theirs = theirs.without([cut for cut in cuts if not cut.ours]).onto(ours)
        elif ids != encoded.ids:
            return replace(found, outcome="unexplained", reason="other tokens of the same text")
        for start, stop, learned in ours.differences(theirs):
            rules = self._explain(ours, start, stop, learned)
            if not rules:
                whose = "ours" if learned else "theirs"
                return replace(found, outcome="unexplained", reason=f"{whose} {ours.show(start, stop)}")
            found.rules.update(rules)
        return replace(found, outcome="named" if found.rules else "equal")

    def tagged_differences(self, conversation: Conversation) -> list[str]:
        """Where our mask under the twin differs from transformers', but for characters of several tokens."""
        rendering, form = self.tagged._rendered(conversation)
        text, ids, mask = self.mask(conversation, form)
        encoded = self.tagged.encode(conversation)
        if (text, ids) != (rendering.text, encoded.ids):
            return [f"{rendering.text!r}\n{text!r}"]
        ours = Tokens(text, self._offsets(text), encoded.supervised)
        theirs = Tokens(text, ours.offsets, [False, *mask[1:]])
        differences = ours.differences(theirs)
        return [
            ours.show(start, stop) for start, stop, _ in differences if not all(map(ours.shares, range(start, stop)))
        ]

    def _refused(self, conversation: Conversation, reason: str) -> Compared:
        """Right where both templates refuse it in transformers too, or have no place for what it holds."""
        if without(conversation, self.lacking) != conversation:
            return Compared("refused", reason=reason)
        for template in (self.published, self.twin):
            for form in forms(conversation):
                with suppress(Exception):  # a template is a program: it may raise anything
                    render(self.tokenizer, template, conversation, form)
                    return Compared("unexplained", reason=f"not refused by transformers: {reason}")
        return Compared("refused", reason=reason)

    def _twin(self, conversation: Conversation, form: _Form, text: str) -> tuple[str, list[int], list[bool]]:
        """The twin's mask; DeepSeek's twin wants a call's arguments as an object where the published one wants text."""
        made = self.mask(conversation, form)
        return made if form.objects or made[0] == text else self.mask(conversation, form._replace(objects=True))

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        return self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]

    def _count_ends(self, found: Compared, rendering: Rendering, conversation: Conversation) -> None:
        for turn, message in enumerate(conversation.messages):
            if message.is_learned:
                stops = [span.stop for span in rendering.spans if span.turn == turn]
                if self.name == "glm4moe" and not stops and turn == len(conversation.messages) - 1:
                    continue  # an empty answer that no token follows
                if stops and rendering.text.startswith("<|turn>model\n", stops[-1]):
                    continue  # DiffusionGemma ends no turn that called tools and then spoke
                found.turns += 1
                found.ended += bool(stops) and self._ends(rendering.text, stops[-1])

    def _ends(self, text: str, stop: int) -> bool:
        last = [match for match in MARKS.finditer(text, 0, stop) if match.end() == stop]
        unended = self.name == "glm4moe" and stop == len(text)  # GLM writes no token after the last turn
        return bool(last) or unended

    def _cuts(self, ours: str, theirs: str) -> "list[Cut] | None":
        """What only one of the texts holds; None if they differ in a way that no rule explains."""
        if self.name == "glm4moe":
            last = theirs.removeprefix(ours).strip() in ("<|user|>", "<|observation|>")
            return [Cut("last", len(ours), len(theirs))] if last else None
        return _aligned(ours, theirs, 0, 0)

    def _explain(self, ours: "Tokens", start: int, stop: int, learned: bool) -> list[str]:
        """The rules that explain that only one of the masks learns the tokens from start to stop; none if none does."""
        if start and ours.offsets[start][0] < ours.offsets[start - 1][1]:
            return ["character"] if all(ours.shares(at) for at in range(start, stop)) else []
        if learned:  # a line break that the twin strips is one token with that of the header
            return ["breaks"] if ours.cut.issuperset(range(start, stop)) else []
        text = ours.text[ours.offsets[start][0] : ours.offsets[stop - 1][1]]
        if start and ours.learned[start - 1] and text.isspace():
            return ["break"]
        nothing = self.name == "glm4moe" and stop == len(ours.learned)  # an empty answer that no token follows
        if nothing or (stop < len(ours.learned) and ours.learned[stop]):
            header = HEADERS.get(self.name, "(?!)")
            if re.fullmatch(rf"\s*(?:{header})*\s*(?:{EMPTY})*", text):
                return [rule for rule, part in (("header", header), ("think", EMPTY)) if re.search(part, text)]
        return []


_TOOL = {
    "type": "function",
    "function": {
        "name": "qtool",
        "description": "A tool.",
        "parameters": {"type": "object", "properties": {"x": {"type": "string", "description": "an x"}}},
    },
}


@dataclass
class Tokens:
    """A text in tokens. offsets: their characters. learned: for each whether it is. cut: those that `without` cut."""

    text: str
    offsets: Sequence[tuple[int, int]]
    learned: Sequence[bool]
    cut: frozenset[int] = frozenset()

    def differences(self, other: "Tokens") -> Iterator[tuple[int, int, bool]]:
        """(first token, end, learned here): stretches of tokens of which only one of two masks learns each."""
        both = enumerate(zip(self.offsets, self.learned, other.learned, strict=True))
        pairs = [(at, mine) for at, ((start, stop), mine, its) in both if mine != its and start < stop]
        for _, group in groupby(enumerate(pairs), lambda one: (one[1][0] - one[0], one[1][1])):
            members = [pair for _, pair in group]
            yield members[0][0], members[-1][0] + 1, members[0][1]

    def without(self, cuts: "Sequence[Cut]") -> "Tokens":
        """The text without some of its characters; tokens are cut with it."""
        gone = bytearray(len(self.text) + 1)
        for _, start, stop, _ in cuts:
            gone[start:stop] = b"\1" * (stop - start)
        shift = [0]
        for one in gone:
            shift.append(shift[-1] + one)
        text = "".join(letter for letter, one in zip(self.text, gone, strict=False) if not one)
        offsets = [(start - shift[start], stop - shift[stop]) for start, stop in self.offsets]
        cut = (at for at, (start, stop) in enumerate(self.offsets) if any(gone[start:stop]))
        return Tokens(text, offsets, self.learned, frozenset(cut))

    def onto(self, other: "Tokens") -> "Tokens":
        """This mask over the tokens of another: those are learned whose characters overlap what is learned here."""
        chars = bytearray(len(self.text))
        for (start, stop), one in zip(self.offsets, self.learned, strict=True):
            if one:
                chars[start:stop] = b"\1" * (stop - start)
        learned = [at > 0 and any(chars[start:stop]) for at, (start, stop) in enumerate(other.offsets)]
        return Tokens(other.text, other.offsets, learned)

    def shares(self, at: int) -> bool:
        """Whether a token has a character in common with the one before it."""
        return at > 0 and self.offsets[at][0] < self.offsets[at - 1][1]

    def show(self, start: int, stop: int) -> str:
        """Tokens in their surroundings."""
        first, last = self.offsets[start][0], self.offsets[stop - 1][1]
        return f"{self.text[max(0, first - 60) : first]!r} [{self.text[first:last]!r}] {self.text[last : last + 60]!r}"


def forms(conversation: Conversation) -> Iterator[_Form]:
    """Every form of `_Form` that makes a difference to the conversation."""
    for parts in (False, True):
        for objects in (True, False):
            for empty in ("", None):
                yield _Form(objects, empty, parts)


def render(tokenizer: Any, template: str, conversation: Conversation, form: _Form) -> str:
    """The conversation rendered by transformers."""
    tools = json.loads(conversation.tools) if conversation.tools else None
    with fixed_day():
        return tokenizer.apply_chat_template(
            plain(conversation, form), chat_template=template, tools=tools, tokenize=False
        )


def plain(conversation: Conversation, form: _Form) -> list[dict[str, Any]]:
    """The messages as plain dictionaries."""
    return json.loads(json.dumps(_messages(conversation, form)))


def different_texts(encoder: Encoder, template: str, conversation: Conversation) -> list[tuple[str, str]]:
    """(ours, transformers'): where the two render a conversation differently, whatever form it is handed over in.

    An object that a template writes as Python shows it is refused by us: no model has seen that. A content of None is
    left out here: transformers removes the key.
    """
    different = []
    for form in (form for form in forms(conversation) if form.empty is not None):
        one = other = "refused"
        try:
            one = str.__str__(encoder._apply(conversation, form))
        except RenderError as error:
            if "writes an object as it is" in str(error):
                continue
        with suppress(Exception):  # a template is a program: it may raise anything
            other = render(encoder.tokenizer, template, conversation, form)
        if one != other:
            different.append((one, other))
    return different


class Cut(NamedTuple):
    """Characters start to stop, exclusive, that only one of two texts holds, ours or the twin's."""

    rule: str
    start: int
    stop: int
    ours: bool = False


_OPENS = re.compile(r"<think>|(?<=<｜Assistant｜>)")
_CLOSES = re.compile(r"</think>\n*")


def _aligned(ours: str, theirs: str, i: int, j: int) -> list[Cut] | None:
    """What to leave out so that both texts are the same: think blocks of the twin, which end at a `</think>`."""
    for opens in _OPENS.finditer(theirs, j):
        at = opens.start()
        if theirs[j:at] != ours[i : i + at - j]:
            return None
        i, j = i + at - j, at
        for close in _CLOSES.finditer(theirs, at):
            breaks = re.compile(r"\n*").match(ours, i).end()
            for here in dict.fromkeys((i, breaks)):
                for stop in range(close.end(), close.start() + len("</think>") - 1, -1):
                    rest = (
                        _aligned(ours, theirs, here, stop) if theirs[stop : stop + 9] == ours[here : here + 9] else None
                    )
                    if rest is not None:
                        own = [Cut("breaks", i, here, ours=True)] if here > i else []
                        return [Cut("earlier", at, stop), *own, *rest]
    return [] if theirs[j:] == ours[i:] else None
