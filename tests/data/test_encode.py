"""Exactly the answers are learned, whatever the template, script and merges (method, sections 3 and 7.4)."""

import copy
from datetime import datetime

import pytest
from conversations import talk
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsift.data.conversation import Conversation, Message, ToolCall
from gradsift.data.encode import Encoder, RenderError, TemplateError, read_template
from gradsift.model.load import demo_template, load_tokenizer
from gradsift.runtime.errors import UsageError

CHATML = demo_template().read_text()
END = "<|im_end|>"
TALK = [
    ("system", "Be brief."),
    ("user", "Hi"),
    ("assistant", "Hello there!"),
    ("user", "কলকাতা কোথায়?"),
    ("assistant", "ভারতে।\n\nপশ্চিমবঙ্গের রাজধানী  "),
]


@pytest.fixture(scope="module")
def toy(tiny_model):
    return load_tokenizer(str(tiny_model))


@pytest.fixture(scope="module")
def smol(smollm2):
    return load_tokenizer(str(smollm2))


def learned(encoder, messages, prefix="", max_length=None) -> str:
    """The text of the supervised tokens. messages: (role, content) pairs, or a conversation."""
    conversation = messages if isinstance(messages, Conversation) else talk(*messages, prefix=prefix)
    encoded = encoder.encode(conversation, max_length)
    assert len(encoded.ids) == len(encoded.supervised) == encoded.n_prompt + encoded.n_answer
    assert encoded.n_answer == sum(encoded.supervised)
    ids = [token for token, taught in zip(encoded.ids, encoded.supervised, strict=True) if taught]
    return encoder.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def spelled(encoder, messages, prefix="") -> str:
    return encoder.tokenizer.decode(
        encoder.encode(talk(*messages, prefix=prefix)).ids, clean_up_tokenization_spaces=False
    )


def byte_pairs(texts: list[str]):
    """A tokenizer that merges anything adjacent in `texts`, even line breaks with letters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rules.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    marks = ["<|im_start|>", END]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=marks, initial_alphabet=alphabet, show_progress=False)
    rules.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=rules, bos_token=marks[0], eos_token=marks[1])


def jinja(body: str) -> str:
    """A ChatML-like template whose per-message part is `body`."""
    return (
        "{% for message in messages %}" + body + "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


class TestWhatIsLearned:
    def test_every_answer_and_its_end_of_turn(self, smol, toy):
        for tokenizer in (toy, smol):
            encoder = Encoder(tokenizer, CHATML)
            assert learned(encoder, TALK) == TALK[2][1] + END + TALK[4][1] + END
            assert spelled(encoder, TALK) == "".join(f"<|im_start|>{r}\n{c}{END}\n" for r, c in TALK)

    def test_default_system_message_is_given_not_learned(self, smol):
        encoder = Encoder(smol, "chat")
        assert learned(encoder, TALK[1:]) == TALK[2][1] + END + TALK[4][1] + END
        assert "SmolLM" in spelled(encoder, TALK[1:])
        assert "SmolLM" not in spelled(encoder, TALK)

    def test_tulu(self, smol):
        encoder = Encoder(smol, "tulu")
        assert spelled(encoder, TALK[:3]) == f"<|system|>\nBe brief.\n<|user|>\nHi\n<|assistant|>\nHello there!{END}\n"
        assert learned(encoder, TALK) == TALK[2][1] + END + TALK[4][1] + END

    def test_tulu_keeps_the_first_token_of_models_that_have_one(self, toy):
        from tokenizers.processors import TemplateProcessing

        llama = copy.deepcopy(toy)
        mark = (toy.bos_token, toy.bos_token_id)
        llama.backend_tokenizer.post_processor = TemplateProcessing(single=f"{mark[0]} $0", special_tokens=[mark])
        with_mark, without = Encoder(llama, "tulu").encode(talk(*TALK)), Encoder(toy, "tulu").encode(talk(*TALK))
        assert with_mark.ids == [toy.bos_token_id, *without.ids]
        assert with_mark.supervised == [False, *without.supervised]

    def test_prefix_is_given_not_learned(self, smol):
        encoder = Encoder(smol, CHATML)
        talk = [("user", "2+2?"), ("assistant", "B"), ("user", "3+3?"), ("assistant", "C")]
        assert learned(encoder, talk, "The answer is:").split(END) == ["B", " C", ""]  # the space is in the token " C"
        assert spelled(encoder, talk, "The answer is:").count("The answer is:") == 1
        assert "The answer is: C" + END in spelled(encoder, talk, "The answer is:")

    def test_merges_across_the_boundary(self):
        """A merge of the header's line break with the answer's first letter is learned whole, and shifts nothing."""
        encoder = Encoder(byte_pairs(["assistant\ncat sat on\ncat", "\ncat"] * 20), CHATML)
        talk = [("user", "the dog"), ("assistant", "cat sat"), ("user", "the mat"), ("assistant", "cat")]
        assert spelled(encoder, talk).count("assistant\ncat") == 2
        spelling = learned(encoder, talk)
        assert spelling != f"cat sat{END}cat{END}"  # the toy does merge here
        header, answer = spelling.split(END)[:2]
        assert header.endswith("\ncat sat")
        assert answer.endswith("\ncat")
        assert all("assistant\n".endswith(text.rpartition("cat")[0]) for text in (answer, header.removesuffix(" sat")))

    def test_whitespace_counts_when_the_tokenizer_trims_offsets(self, toy):
        """GPT-2 and Llama 3 report a token of blanks as an empty span; inside an answer it is learned nonetheless."""
        from tokenizers import processors

        tokenizer = copy.deepcopy(toy)
        tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
        answer = "one\n\n\n  two   three  "
        assert learned(Encoder(tokenizer, CHATML), [("user", " x "), ("assistant", answer)]) == answer + END

    def test_letters_split_into_several_tokens(self, toy):
        assert learned(Encoder(toy, CHATML), [("user", "😀"), ("assistant", "👩‍👩‍👧 é ক্ষ")]) == "👩‍👩‍👧 é ক্ষ" + END

    def test_answers_that_look_like_the_template(self, toy):
        talk = [("user", "assistant\nHello"), ("assistant", "user\nHello"), ("user", "Hello"), ("assistant", "Hello")]
        assert learned(Encoder(toy, CHATML), talk) == f"user\nHello{END}Hello{END}"

    def test_same_answer_twice_and_conversation_begun_by_the_assistant(self, toy):
        talk = [("assistant", "the cat"), ("user", "the cat"), ("assistant", "the cat")]
        assert learned(Encoder(toy, CHATML), talk) == f"the cat{END}the cat{END}"

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["user", "assistant", "system"]),
                st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
            ),
            min_size=1,
            max_size=5,
        )
    )
    @settings(max_examples=60, deadline=None)
    def test_any_text(self, toy, talk):
        """With a tokenizer that never merges across turn marks, the learned text is exactly the answers."""
        encoder = Encoder(toy, CHATML)
        assert learned(encoder, talk) == "".join(text + END for role, text in talk if role == "assistant")

    def test_trimming_template(self, toy):
        """Llama 3's and Gemma's templates trim every message."""
        template = jinja("{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>\n' }}")
        assert learned(Encoder(toy, template), [("user", " hi "), ("assistant", "  the cat \n")]) == "the cat" + END

    def test_the_first_token_is_never_learned(self, toy):
        encoder = Encoder(toy, "{% for message in messages %}{{ message['content'] + eos_token }}{% endfor %}")
        encoded = encoder.encode(talk(("assistant", "xyz")))
        assert encoded.supervised == [False, True, True, True]
        assert (encoded.n_prompt, encoded.n_answer) == (1, 3)


THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{{ '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}{% endif %}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}{{ '<call>' + call.function.name + ' ' }}"
    "{{ call.function.arguments | tojson }}{{ '</call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class TestWholeConversations:
    def test_reasoning_is_learned_and_an_empty_think_block_is_not(self, toy):
        answers = [Message("assistant", "yes"), Message("assistant", "no", reasoning="Hm.")]
        encoder = Encoder(toy, THINKING)
        spelling = learned(encoder, Conversation((Message("user", "?"), answers[0], Message("user", "!"), answers[1])))
        assert spelling == f"yes{END}<think>\nHm.\n</think>\n\nno{END}"

    def test_calls_are_learned_as_the_template_renders_them(self, toy):
        call = Message("assistant", "", tool_calls=(ToolCall("add", '{"a": 1, "b": "x"}'),))
        conversation = Conversation(
            (Message("user", "?"), call, Message("tool", "2"), Message("assistant", "It is 2."))
        )
        spelling = learned(Encoder(toy, THINKING), conversation)
        assert spelling == f'<call>add {{"a": 1, "b": "x"}}</call>{END}It is 2.{END}'

    def test_turns_marked_as_not_learned(self, toy):
        wrong, right = Message("assistant", "wrong", learned=False), Message("assistant", "right", learned=True)
        conversation = Conversation((Message("user", "?"), wrong, Message("user", "Sure?", learned=True), right))
        for template in (CHATML, THINKING):
            assert learned(Encoder(toy, template), conversation) == "right" + END

    def test_what_a_template_has_no_place_for(self, toy):
        encoder, question = Encoder(toy, CHATML), Message("user", "?")
        with pytest.raises(RenderError, match="no place for reasoning"):
            encoder.encode(Conversation((question, Message("assistant", "yes", reasoning="Hm."))))
        with pytest.raises(RenderError, match="no place for the row's tools"):
            encoder.encode(Conversation((question, Message("assistant", "yes")), tools='[{"name": "add"}]'))
        with pytest.raises(RenderError, match="leaves out a tool call: 'add' in message 2"):
            encoder.encode(Conversation((question, Message("assistant", "yes", tool_calls=(ToolCall("add"),)))))

    def test_tools_without_the_object_around_them(self, toy):
        template = "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}" + CHATML
        tools = '[{"name": "add", "parameters": {}}]'
        conversation = Conversation((Message("user", "?"), Message("assistant", "yes")), tools)
        assert Encoder(toy, template).render(conversation).text.startswith("add<|im_start|>")

    def test_arguments_as_text_where_a_template_wants_text(self, toy):
        written = THINKING.replace("call.function.arguments | tojson", "call.function.name + call.function.arguments")
        call = Message("assistant", "so", tool_calls=(ToolCall("add", '{"a": 1}'),))
        assert learned(Encoder(toy, written), Conversation((Message("user", "?"), call))).endswith(
            f'so<call>add add{{"a": 1}}</call>{END}'
        )

    def test_generation_tags_say_what_is_learned(self, toy):
        tagged = THINKING.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}")
        conversation = talk(("user", "?"), ("assistant", "yes"), ("user", "!"), ("assistant", "no"))
        assert (
            learned(Encoder(toy, tagged), conversation) == "yesno"
        )  # turns of the assistant only, without the end token

    def test_plain_text_is_learned_whole(self, toy):
        encoder = Encoder(toy, CHATML)
        encoded = encoder.encode(Conversation((Message("text", "the cat sat"),)))
        assert encoded.supervised == [False, *[True] * (len(encoded.ids) - 1)]
        assert encoder.tokenizer.decode(encoded.ids) == "the cat sat" + END

    def test_options_reach_the_template_and_the_fingerprint(self, toy):
        polite = CHATML + "{% if polite %}{{ 'please' }}{% endif %}"
        plain, asked = Encoder(toy, polite), Encoder(toy, polite, {"polite": True})
        assert asked.render(talk(*TALK)).text == plain.render(talk(*TALK)).text + "please"
        assert asked.fingerprint != plain.fingerprint
        assert Encoder(toy, polite, {}).fingerprint == plain.fingerprint


class TestLength:
    def test_keeps_the_first_tokens_and_counts_the_rest(self, toy):
        encoder = Encoder(toy, CHATML)
        whole = encoder.encode(talk(*TALK))
        for length in (len(whole.ids) + 1, len(whole.ids), len(whole.ids) - 1, 30, 1):
            cut = encoder.encode(talk(*TALK), max_length=length)
            assert cut.ids == whole.ids[:length]
            assert cut.supervised == whole.supervised[:length]
            assert cut.n_cut == max(0, len(whole.ids) - length)
            assert cut.n_prompt + cut.n_answer == len(cut.ids)
        assert whole.n_cut == 0

    def test_a_row_cut_before_its_answer_has_nothing_to_learn(self, toy):
        encoder = Encoder(toy, CHATML)
        given = talk(("user", "the cat sat on the mat " * 10), ("assistant", "yes"))
        first = encoder.encode(given).supervised.index(True)
        assert encoder.encode(given, max_length=first).n_answer == 0
        assert encoder.encode(given, max_length=first + 1).n_answer == 1

    def test_a_conversation_without_an_answer_has_nothing_to_learn(self, toy):
        assert Encoder(toy, CHATML).encode(talk(("user", "hello"))).n_answer == 0

    def test_pool_and_targets_get_the_same_tokens(self, toy):
        """There is one encoder: the limit cuts, and changes nothing before the cut."""
        encoder, given = Encoder(toy, CHATML), talk(*TALK, prefix="So:")
        assert encoder.encode(given).ids[:40] == encoder.encode(given, 40).ids


class TestTemplatesThatDoNotFit:
    def test_refusal_is_passed_on(self, toy):
        strict = jinja(
            "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        )
        with pytest.raises(RenderError, match="refuses it: System role not supported"):
            Encoder(toy, strict).encode(talk(*TALK))

    def test_rewriting_earlier_turns(self, toy):
        """Reasoning models drop the thoughts of all but the last answer."""
        forgetful = jinja(
            "{{ '<|im_start|>' + message['role'] + '\n' + "
            "(message['content'] if loop.last or message['role'] != 'assistant' else message['content'][-1:])"
            " + '<|im_end|>\n' }}"
        )
        encoder = Encoder(toy, forgetful)
        assert learned(encoder, TALK[:3]) == "Hello there!" + END
        with pytest.raises(RenderError, match="leaves out part of what message 3 says: 'Hello there'"):
            encoder.encode(talk(*TALK))

    def test_a_text_that_depends_on_how_long_the_conversation_is(self, toy):
        moved = "{{ messages | length }} turns{% for m in messages %}{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
        assert learned(Encoder(toy, moved), TALK) == TALK[2][1] + END + TALK[4][1] + END

    def test_a_template_without_an_end_token(self, toy):
        """A model that learns from it would never stop."""
        endless = "{% for m in messages %}{{ m.role.upper() + ': ' + m.content + '\n' }}{% endfor %}"
        with pytest.raises(RenderError, match="the template writes no end token after an answer"):
            Encoder(toy, endless).encode(talk(*TALK))

    def test_a_different_header_for_generation(self, toy):
        thinking = CHATML.replace(r"assistant\n' }}{% endif", r"assistant\n<think>' }}{% endif")
        assert thinking != CHATML
        assert learned(Encoder(toy, thinking), TALK) == TALK[2][1] + END + TALK[4][1] + END

    def test_changing_the_prefix(self, toy):
        loud = jinja("{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | upper + '<|im_end|>\n' }}")
        with pytest.raises(RenderError, match="changes what message 2 says"):
            Encoder(toy, loud).encode(talk(("user", "HI"), ("assistant", "YES"), prefix="so"))

    def test_dropping_the_prefix(self, toy):
        short = jinja("{{ '<|im_start|>' + message['role'] + '\n' + message['content'][-1:] + '<|im_end|>\n' }}")
        with pytest.raises(RenderError, match="prefix"):
            Encoder(toy, short).encode(talk(("user", "?"), ("assistant", "Y"), prefix="so"))

    @pytest.mark.parametrize(
        "body", ["{{ message['nothing']['there'] }}", "{{ 1 / 0 }}", "{{ message['content'] + 1 }}"]
    )
    def test_broken_templates_are_render_errors(self, toy, body):
        with pytest.raises(RenderError):
            Encoder(toy, jinja(body)).encode(talk(*TALK))

    def test_a_date_is_the_same_every_day(self, toy, monkeypatch):
        """Llama's and others' templates print today's date into the system turn."""
        dated = "{%- set today = strftime_now('%d %b %Y') if strftime_now is defined else 'never' %}"
        dated += "{% for m in messages %}{{ today }} {{ m.role }} {{ m.content }}<|im_end|>\n{% endfor %}"
        dated += "{% if add_generation_prompt %}{{ today }} assistant {% endif %}"
        turns = [("user", "a"), ("assistant", "b")]
        toy = copy.deepcopy(toy)
        toy.chat_template = dated
        plain = toy.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
        assert datetime.now().strftime("%d %b %Y") in plain  # without our encoder
        for encoder in (Encoder(toy, "chat"), Encoder(toy, dated)):
            assert encoder.render(talk(*turns)).text == f"26 Jul 2024 user a{END}\n26 Jul 2024 assistant b{END}\n"

    def test_no_template_and_no_offsets(self, toy):
        bare = copy.deepcopy(toy)
        bare.chat_template = None
        with pytest.raises(TemplateError, match="no chat template"):
            Encoder(bare, "chat")
        Encoder(bare, "tulu")

        class Slow:
            is_fast = False

        with pytest.raises(TemplateError, match="offsets"):
            Encoder(Slow(), "tulu")


class TestIdentity:
    def test_fingerprint_is_of_vocabulary_and_template(self, toy):
        same = Encoder(copy.deepcopy(toy), "chat").fingerprint
        assert Encoder(toy, "chat").fingerprint == same
        assert Encoder(toy, toy.chat_template).fingerprint == same
        assert Encoder(toy, "tulu").fingerprint != same
        assert Encoder(byte_pairs(["something else entirely"] * 9), CHATML).fingerprint != same

    def test_how_the_tokenizer_was_set_to_pad_and_truncate_does_not_matter(self, toy):
        """Some tokenizer files on the hub have both settings, and every use of the tokenizer changes them."""
        padding = copy.deepcopy(toy)
        padding(["a", "b c d"], padding=True, truncation=True, max_length=2)
        expected, found = Encoder(toy, "chat"), Encoder(padding, "chat")
        assert found.encode(talk(*TALK)) == expected.encode(talk(*TALK))
        assert found.fingerprint == expected.fingerprint

    def test_ids_are_the_tokenizers_own(self, smol, toy):
        for tokenizer in (smol, toy):
            encoder = Encoder(tokenizer, CHATML)
            text = encoder.render(talk(*TALK)).text
            assert encoder.encode(talk(*TALK)).ids == tokenizer(text, add_special_tokens=False)["input_ids"]

    def test_reading_templates(self, tmp_path):
        (tmp_path / "good.jinja").write_text(CHATML)
        (tmp_path / "bad.jinja").write_text("{% for %}")
        assert read_template("chat") == "chat"
        assert read_template("tulu") == "tulu"
        assert read_template(str(tmp_path / "good.jinja")) == CHATML
        with pytest.raises(UsageError, match="line 1"):
            read_template(str(tmp_path / "bad.jinja"))
        (tmp_path / "latin.jinja").write_bytes("é".encode("latin-1"))
        with pytest.raises(UsageError, match="not UTF-8"):
            read_template(str(tmp_path / "latin.jinja"))
        with pytest.raises(UsageError, match="neither chat, tulu"):
            read_template(str(tmp_path / "none.jinja"))
