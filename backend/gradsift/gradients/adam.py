"""Γ: what a training step on one example would do (method, section 3): Adam's update in three forms, SGD's, signs."""

from collections.abc import Callable

import torch

from gradsift.training.checkpoint import Checkpoint

Update = Callable[[str, torch.Tensor], torch.Tensor]


def make_update(kind: str, form: str, checkpoint: Checkpoint, device: torch.device) -> Update:
    """What a training step on one example would do, as a function (name, g (B, n)) -> Γ (B, n), both fp32.

    kind `sgd`: g itself; `sign`: its sign; `adam`: the update by `form` (method, section 3), with t' = t + 1:
    paper m̂/√(v̂+ε); adamw m̂/(√v̂+ε), torch.optim.AdamW's step; released: no bias correction, β 0.9/0.999, ε 1e-8.
    """
    if kind == "sgd":
        return lambda name, g: g
    if kind == "sign":
        return lambda name, g: g.sign()
    beta1, beta2, correct1, correct2, inside, outside = _adam_constants(form, checkpoint)
    first = {n: (m.to(device) * (beta1 / correct1)).flatten() for n, (m, _) in checkpoint.moments.items()}
    second = {n: (v.to(device) * (beta2 / correct2) + inside).flatten() for n, (_, v) in checkpoint.moments.items()}

    def adam(name: str, g: torch.Tensor) -> torch.Tensor:
        root = torch.addcmul(second[name], g, g, value=(1 - beta2) / correct2).sqrt_()
        if outside:
            root.add_(outside)
        return torch.add(first[name], g, alpha=(1 - beta1) / correct1).div_(root)

    return adam


def adam_scale(form: str, checkpoint: Checkpoint, device: torch.device) -> dict[str, torch.Tensor]:
    """1/√v' of Adam's update, name -> (n,) fp32, with v' as it is for a row whose own g² does not count.

    That is what Γ multiplies g by where g² is small beside v; ε stands where `form` has it.
    """
    _, beta2, _, correct2, inside, outside = _adam_constants(form, checkpoint)
    return {
        name: (v.to(device) * (beta2 / correct2) + inside).sqrt_().add_(outside).reciprocal_().flatten()
        for name, (_, v) in checkpoint.moments.items()
    }


def _adam_constants(form: str, checkpoint: Checkpoint) -> tuple[float, float, float, float, float, float]:
    """β1, β2, their bias corrections 1 − β^t', and ε inside and outside of the root."""
    beta1, beta2 = (0.9, 0.999) if form == "released" else checkpoint.betas
    eps = 1e-8 if form == "released" else checkpoint.eps
    step = checkpoint.step + 1
    correct1, correct2 = (1.0, 1.0) if form == "released" else (1 - beta1**step, 1 - beta2**step)
    inside, outside = (0.0, eps) if form == "adamw" else (eps, 0.0)
    return beta1, beta2, correct1, correct2, inside, outside
