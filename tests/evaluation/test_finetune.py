"""One fine-tuning run: losses compared with transformers' own, answers with generation row by row."""

import shutil

import pytest
import torch
from conversations import talk
from transformers import GenerationConfig

from gradsift.data.encode import Encoder
from gradsift.data.pool import Row
from gradsift.evaluation.finetune import (
    Measure,
    Measured,
    _ends,
    _last_answer,
    finetune,
    mean_loss,
    trainable,
    write_answers,
)
from gradsift.evaluation.heldout import HeldOut, read_heldout
from gradsift.model import load
from gradsift.runtime.progress import Progress

TEXTS = [
    talk(("user", "where is the cat?"), ("assistant", "on the mat")),
    talk(("user", "and the dog, where is it?"), ("assistant", "it sat on the cat and the cat sat on the dog")),
    talk(("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "B")),
]


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return Encoder(load.load_tokenizer(str(tiny_model)), "chat")


@pytest.fixture(scope="module")
def rows(encoder):
    return [encoder.encode(conversation) for conversation in TEXTS]


@pytest.fixture
def base(tiny_model):
    return load.load_model(str(tiny_model), torch.float32, torch.device("cpu")).model


def test_loss_is_the_mean_over_rows_of_the_librarys_own(base, rows):
    expected = []
    for row in rows:
        ids = torch.tensor([row.ids])
        labels = torch.where(torch.tensor([row.supervised]), ids, -100)
        with torch.no_grad():
            expected.append(float(base(input_ids=ids, labels=labels).loss))
    assert mean_loss(base, rows, 64) == pytest.approx(sum(expected) / 3, rel=1e-5)
    assert mean_loss(base, rows, 10_000) == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_answers_do_not_depend_on_the_batch_and_follow_the_last_prompt(base, rows, encoder):
    together = write_answers(base, encoder.tokenizer, rows, 10_000)
    assert together == write_answers(base, encoder.tokenizer, rows, 1)
    row = rows[2]
    rendering = encoder.render(TEXTS[2])
    prompt = rendering.text[: rendering.spans[-1].start]
    ids, said = list(row.ids[: len(encoder.tokenizer(prompt).input_ids)]), []
    for _ in range(rows[1].n_answer + 8):  # a little longer than the longest answer
        with torch.no_grad():
            said.append(int(base(input_ids=torch.tensor([ids + said])).logits[0, -1].argmax()))
        if said[-1] == encoder.tokenizer.eos_token_id:
            break
    assert together[2] == encoder.tokenizer.decode(said, skip_special_tokens=True)


def test_what_does_not_fit_is_measured_in_smaller_batches(base, rows, encoder):
    loss, answers = mean_loss(base, rows, 512), write_answers(base, encoder.tokenizer, rows, 512)

    def full(module, args, given):
        if given["input_ids"].shape[0] > 1:
            raise torch.OutOfMemoryError("full")

    base.register_forward_pre_hook(full, with_kwargs=True)
    with pytest.raises(torch.OutOfMemoryError):
        base(input_ids=torch.zeros(2, 1, dtype=torch.long))
    assert mean_loss(base, rows, 512) == pytest.approx(loss, rel=1e-6)
    assert write_answers(base, encoder.tokenizer, rows, 512) == answers


def test_greedy_is_greedy_whatever_the_model_prefers(base, rows, encoder, tiny_model, tmp_path):
    chatty = tmp_path / "chatty"
    shutil.copytree(tiny_model, chatty)
    GenerationConfig(repetition_penalty=9.0, no_repeat_ngram_size=1, eos_token_id=2).save_pretrained(chatty)
    other = load.load_model(str(chatty), torch.float32, torch.device("cpu")).model
    assert write_answers(other, encoder.tokenizer, rows, 512) == write_answers(base, encoder.tokenizer, rows, 512)


def test_answers_end_within_the_models_window(base, rows, encoder):
    width, _ = _last_answer(rows[2])
    whole = write_answers(base, encoder.tokenizer, rows[2:], 512)[0]
    base.config.max_position_embeddings = width + 1
    cut = write_answers(base, encoder.tokenizer, rows[2:], 512)[0]
    assert whole.startswith(cut)
    assert len(encoder.tokenizer(cut).input_ids) <= 1 < len(encoder.tokenizer(whole).input_ids)


class TestEnds:
    def test_the_token_that_every_turn_ends_with(self, encoder, rows):
        assert _ends(encoder.tokenizer, [7, 7]) == sorted({7, encoder.tokenizer.eos_token_id})

    def test_an_answers_own_last_token_ends_nothing(self, tiny_model):
        """A template that marks no end: the golds' last tokens must not tell the model where to stop."""
        tokenizer = load.load_tokenizer(str(tiny_model))
        bare = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}"
        talks = [talk(("user", "where?"), ("assistant", said)) for said in ("the mat", "B")]
        rows = [Encoder(tokenizer, bare).encode(conversation) for conversation in talks]
        last = [row.ids[_last_answer(row)[1] - 1] for row in rows]
        assert last[0] != last[1]
        assert _ends(tokenizer, last) == [tokenizer.eos_token_id]


def test_rows_that_the_template_refuses_or_that_are_too_long_are_not_trainable(tiny_model):
    strict = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    strict += (
        "{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    turns = [("user", "one"), ("assistant", "two")]
    lines = [turns, [("system", "be brief"), *turns], [("user", "word " * 90), ("assistant", "two")]]
    rows = [
        Row(
            file="p", line=n, raw=b"", source="s", id=str(n), task="", subtask="",
            messages=talk(*said).messages, prefix="", schema="messages", reason="",
        )
        for n, said in enumerate(lines)
    ]  # fmt: skip
    result = trainable(Encoder(load.load_tokenizer(str(tiny_model)), strict), rows, 60)
    assert [row.id for row, _ in result] == ["0"]


class TestFinetune:
    def test_learns_what_it_is_trained_on_and_leaves_the_base_alone(self, base, rows, encoder, tiny_config):
        before = {name: weight.clone() for name, weight in base.state_dict().items()}
        config = tiny_config.model_copy(update={"epochs": 6, "lr": 5e-2, "lora_rank": 8, "batch_size": 3})
        heldout = [HeldOut(row=None, golds=()) for _ in rows]
        measure = Measure(rows, heldout, rows, encoder.tokenizer, 512)
        start = measure(base)
        result = finetune(base, rows, config, measure, Progress(quiet=True), "run")
        assert len(result) == 6
        assert result[-1].loss < 0.8 * start.loss
        assert result[0].score is None
        assert result[0].loss == pytest.approx(result[0].target_loss)
        after = base.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(weight, after[name]) for name, weight in before.items())

    def test_same_seed_same_run(self, base, rows, encoder, tiny_config):
        def run(seed: int) -> list[Measured]:
            measure = Measure(rows, [HeldOut(None, ())] * 3, rows, encoder.tokenizer, 512)
            config = tiny_config.model_copy(update={"seed": seed})
            return finetune(base, rows, config, measure, Progress(quiet=True), "run")

        assert run(1) == run(1)
        assert run(1) != run(2)

    def test_only_rows_with_golds_are_judged(self, base, rows, encoder, tmp_path):
        path = tmp_path / "one.jsonl"
        path.write_text('{"prompt": "one", "completion": "B"}\n')
        heldout = [HeldOut(None, ()), HeldOut(None, ()), read_heldout(path)[0]]
        measured = Measure(rows, heldout, rows, encoder.tokenizer, 512)(base)
        answer = write_answers(base, encoder.tokenizer, rows[2:], 512)[0]
        assert measured.score == heldout[2].judge(answer)
