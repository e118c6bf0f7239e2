"""A batch gives the same as one row at a time; Γ is Adam's own step (method, sections 3, 5, 7.1, 7.2)."""

import numpy as np
import pytest
import reference
import torch
from conversations import talk
from reference import gradient_of_one, loss_of_one, random_rows, relative_error, representation_of_one, with_lora
from transformers import AutoModelForCausalLM

from gradsift.config import BuildConfig
from gradsift.data.encode import Encoder
from gradsift.gradients.adam import make_update
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.model.load import ModelError, load_tokenizer
from gradsift.model.lora import attach_lora
from gradsift.training.checkpoint import Checkpoint, canonical

LENGTHS = [3, 40, 17, 17, 64, 2, 33]


def collect(model, rows):
    """Per-example gradients of one batch: (Forward, name -> (B, size))."""
    result = {}

    def sink(name, g):
        assert name not in result
        assert g.dtype == torch.float32
        result[name] = g.clone()

    return PerExampleGradients(model).run(rows, sink), result


def flat(gradients, row=None):
    """All of one row's gradients concatenated, ordered by name."""
    return torch.cat([gradients[name] if row is None else gradients[name][row] for name in sorted(gradients)])


def assert_equal_to_one_by_one(model, rows, judge=None, tolerance=1e-5):
    """Compare the engine on `model` with autograd on `judge` (by default the same model), row by row."""
    judge = judge or model
    forward, result = collect(model, rows)
    for index, row in enumerate(rows):
        expected = gradient_of_one(judge, row)
        assert set(expected) == set(result)
        whole = flat(expected).norm()
        for name, g in expected.items():  # a small module may have larger rounding errors, but must not be wrong
            assert (result[name][index] - g).norm() <= 1e-3 * g.norm() + 1e-6 * whole, (name, index)
        assert relative_error(flat(result, index), flat(expected)) < tolerance
        assert relative_error(forward.losses[index], loss_of_one(judge, row).detach()) < tolerance
        assert relative_error(forward.representations[index], representation_of_one(judge, row)) < tolerance


def tiny(name: str, **config):
    """A two-layer model of another architecture with random weights."""
    from transformers import AutoConfig

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **config)).eval()


SHAPE = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}


class TestBatch:
    def test_equals_float64_rows_one_at_a_time(self, tiny_model):
        rows = random_rows(300, LENGTHS)
        single = with_lora(AutoModelForCausalLM.from_pretrained(tiny_model))
        double = reference.in_float64(with_lora(AutoModelForCausalLM.from_pretrained(tiny_model)))
        assert_equal_to_one_by_one(single, rows, double)

    def test_smollm2_equals_rows_one_at_a_time(self, smollm2):
        model = with_lora(AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32), scale=0.02)
        encoder = Encoder(load_tokenizer(str(smollm2)), "chat")
        said = [
            ("How tall is Everest?", "8,849 metres."),
            ("Say hello.", "Hello! How can I help you today?"),
            ("2+2", "4"),
        ]
        rows = [encoder.encode(talk(("user", q), ("assistant", a))) for q, a in said]
        assert_equal_to_one_by_one(model, rows)

    def test_lora_is_attached_where_text_passes_alone(self):
        """A composite model's vision tower has layers with the same names, which text never reaches."""
        from transformers import AutoConfig

        text = {**SHAPE, "head_dim": 8, "sliding_window": 64}
        vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        vision |= {"image_size": 28, "patch_size": 14}
        config = AutoConfig.for_model("gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=1)
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_config(config).eval()
        assert any("vision" in name and name.endswith("q_proj") for name, _ in base.named_modules())
        model = attach_lora(base, BuildConfig(model="gemma", lora_rank=2))
        rows = random_rows(90, [12, 20])
        _, result = collect(model, rows)
        assert result.keys() == {canonical(name) for name, _ in model.named_parameters() if "lora_" in name}
        assert not any("vision" in name for name in result)

    def test_each_row_is_independent_of_its_neighbors(self, tiny_model):
        model = with_lora(AutoModelForCausalLM.from_pretrained(tiny_model))
        rows = random_rows(300, [20, 60, 9])
        _, alone = collect(model, rows[:1])
        _, together = collect(model, rows)
        _, backwards = collect(model, rows[::-1])
        assert relative_error(flat(together, 0), flat(alone, 0)) < 1e-5
        assert relative_error(flat(backwards, 2), flat(alone, 0)) < 1e-5

    def test_bf16_base_keeps_gradients_in_fp32_and_near(self, tiny_model):
        rows = random_rows(300, [20, 33])
        model = with_lora(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16))
        assert {p.dtype for n, p in model.named_parameters() if "lora_" in n} == {torch.float32}
        forward, result = collect(model, rows)  # `collect` asserts fp32
        assert forward.losses.dtype == forward.representations.dtype == torch.float32
        exact = with_lora(AutoModelForCausalLM.from_pretrained(tiny_model))
        for index, row in enumerate(rows):
            assert reference.cosine(flat(result, index), flat(gradient_of_one(exact, row))) > 0.99

    def test_dropout_is_off_and_nothing_is_left_hooked(self, tiny_model):
        base = AutoModelForCausalLM.from_pretrained(tiny_model)
        model = with_lora(base, lora_dropout=0.5).train()
        rows = random_rows(300, [12, 20])
        first, second = collect(model, rows)[1], collect(model, rows)[1]
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert all(p.grad is None for p in model.parameters())

    def test_hooks_come_out_when_the_pass_fails(self, tiny_model):
        model = with_lora(AutoModelForCausalLM.from_pretrained(tiny_model))

        def refuse(name, g):
            raise torch.OutOfMemoryError("full")

        with pytest.raises(torch.OutOfMemoryError):
            PerExampleGradients(model).run(random_rows(300, [12]), refuse)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        assert_equal_to_one_by_one(model, random_rows(300, [5, 12]))

    def test_a_row_that_overflows_does_not_touch_the_others(self, tiny_model):
        model = with_lora(AutoModelForCausalLM.from_pretrained(tiny_model))
        rows = random_rows(299, [12, 20, 15])  # token 299 is in no row
        expected = [flat(gradient_of_one(model, rows[at])) for at in (0, 2)]
        model.get_input_embeddings().weight.data[299] = torch.nan
        rows[1].ids[3] = 299
        forward, result = collect(model, rows)
        assert forward.losses.isfinite().tolist() == [True, False, True]
        assert flat(result, 1).isnan().any()
        assert relative_error(flat(result, 0), expected[0]) < 1e-5
        assert relative_error(flat(result, 2), expected[1]) < 1e-5

    def test_without_lora_refuses(self, tiny_model):
        with pytest.raises(ModelError, match="no LoRA layers"):
            PerExampleGradients(AutoModelForCausalLM.from_pretrained(tiny_model))


class TestArchitectures:
    """Operations on the logits after the head, and layers other than `nn.Linear`, must not be ignored."""

    def test_logit_softcapping(self):
        model = tiny("gemma2", **SHAPE, head_dim=8, final_logit_softcapping=2.0, sliding_window=8)
        assert_equal_to_one_by_one(with_lora(model), random_rows(90, [5, 30, 12]))

    def test_logits_scaling(self):
        model = tiny("granite", **SHAPE, logits_scaling=8.0, embedding_multiplier=3.0)
        assert_equal_to_one_by_one(with_lora(model), random_rows(90, [5, 30, 12]))

    def test_conv1d_of_gpt2(self):
        model = tiny("gpt2", vocab_size=90, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.2)
        lora = with_lora(model, ["c_attn", "c_proj"], fan_in_fan_out=True)
        assert_equal_to_one_by_one(lora, random_rows(90, [5, 30, 12]))

    def test_untied_head_and_qwen_biases(self):
        model = tiny("qwen2", **SHAPE, tie_word_embeddings=False)
        assert_equal_to_one_by_one(with_lora(model), random_rows(90, [5, 30, 12]))


def checkpoint_after(steps: int, shape=(6, 5), betas=(0.9, 0.999), eps=1e-8, scale=1.0, seed=0):
    """A parameter trained for some steps with torch's AdamW: (parameter, optimizer, its state as a checkpoint)."""
    generator = torch.Generator().manual_seed(seed)
    parameter = torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
    optimizer = torch.optim.AdamW([parameter], lr=0.01, betas=betas, eps=eps, weight_decay=0)
    for _ in range(steps):
        parameter.grad = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
        optimizer.step()
    state = optimizer.state[parameter]
    moments = {"w": (state["exp_avg"].float(), state["exp_avg_sq"].float())}
    return parameter, optimizer, Checkpoint({}, {}, moments, steps, betas, eps, 0.01)


def update(checkpoint, form, g, kind="adam"):
    return make_update(kind, form, checkpoint, torch.device("cpu"))("w", g)


class TestAdamsUpdate:
    @pytest.mark.parametrize("scale", [1.0, 3e-7], ids=["plain", "second moments near 1e-13"])
    @pytest.mark.parametrize(("betas", "eps"), [((0.9, 0.999), 1e-8), ((0.8, 0.95), 1e-6)])
    @pytest.mark.parametrize("steps", [1, 7])
    def test_adamw_is_one_real_step_of_torch(self, scale, betas, eps, steps):
        parameter, optimizer, checkpoint = checkpoint_after(steps, betas=betas, eps=eps, scale=scale)
        g = torch.randn(6, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64) * scale
        before = parameter.detach().clone()
        parameter.grad = g.clone()
        optimizer.step()
        expected = (before - parameter.detach()).flatten() / 0.01
        result = update(checkpoint, "adamw", g.float().reshape(1, -1))[0]
        assert relative_error(result, expected) < 1e-6

    @pytest.mark.parametrize("form", ["paper", "adamw", "released"])
    @pytest.mark.parametrize("scale", [1.0, 3e-7], ids=["plain", "second moments near 1e-13"])
    def test_equals_the_formula_coordinate_by_coordinate(self, form, scale):
        _, _, checkpoint = checkpoint_after(4, betas=(0.85, 0.97), eps=1e-7, scale=scale)
        g = torch.randn(3, 30, generator=torch.Generator().manual_seed(3)) * scale
        m, v = (moment.flatten().double().tolist() for moment in checkpoint.moments["w"])
        expected = [
            [
                reference.adam_of_one(float(g[row, i]), m[i], v[i], checkpoint.step, form, (0.85, 0.97), 1e-7)
                for i in range(30)
            ]
            for row in range(3)
        ]
        result = update(checkpoint, form, g)
        assert result.dtype == torch.float32
        np.testing.assert_allclose(result, expected, rtol=2e-5)  # fp32; sums like βm + (1−β)g may cancel

    def test_hand_computed(self):
        """t = 3, β = (0.5, 0.75), ε = 0.01, m = 0.2, v = 0.04, g = −0.4, worked out by hand."""
        moments = {"w": (torch.tensor([0.2]), torch.tensor([0.04]))}
        checkpoint = Checkpoint({}, {}, moments, 3, (0.5, 0.75), 0.01, 1.0)
        g = torch.tensor([[-0.4]])
        # m' = (0.1 − 0.2) / (1 − 1/16) = −8/75; v' = (0.03 + 0.04) / (1 − 81/256) = 0.1024
        assert update(checkpoint, "adamw", g).item() == pytest.approx(-8 / 75 / (0.32 + 0.01), rel=1e-6)
        assert update(checkpoint, "paper", g).item() == pytest.approx(-8 / 75 / (0.1024 + 0.01) ** 0.5, rel=1e-6)
        # released: β 0.9/0.999, ε 1e-8, no correction: (0.18 − 0.04) / √(0.03996 + 0.00016 + 1e-8)
        assert update(checkpoint, "released", g).item() == pytest.approx(0.14 / (0.04012 + 1e-8) ** 0.5, rel=1e-6)

    def test_the_three_forms_differ_when_second_moments_are_small(self):
        _, _, checkpoint = checkpoint_after(4, scale=3e-7)
        g = torch.randn(1, 30, generator=torch.Generator().manual_seed(3)) * 3e-7
        forms = [update(checkpoint, form, g)[0] for form in ("paper", "adamw", "released")]
        assert min(relative_error(forms[i], forms[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 0.1

    def test_gradient_and_checkpoint_stay_as_they_were(self):
        _, _, checkpoint = checkpoint_after(2)
        g = torch.randn(2, 30, generator=torch.Generator().manual_seed(3))
        kept = (g.clone(), checkpoint.moments["w"][0].clone(), checkpoint.moments["w"][1].clone())
        step = make_update("adam", "paper", checkpoint, torch.device("cpu"))
        assert torch.equal(step("w", g), step("w", g))
        assert all(torch.equal(a, b) for a, b in zip(kept, (g, *checkpoint.moments["w"]), strict=True))

    def test_sgd_and_sign(self):
        checkpoint = Checkpoint({}, {}, {}, 0, (0.9, 0.999), 1e-8, 1.0)
        g = torch.tensor([[2.0, -3.0, 0.0]])
        assert torch.equal(update(checkpoint, "paper", g, "sgd"), g)
        assert torch.equal(update(checkpoint, "paper", g, "sign"), torch.tensor([[1.0, -1.0, 0.0]]))
