"""Γ, the update of a training step on one example (method, section 3): Adam's in three forms, SGD's, and the sign."""

from collections.abc import Callable

import torch

from gradsift.training.checkpoint import Checkpoint

Update = Callable[[str, torch.Tensor], torch.Tensor]


def make_update(kind: str, form: str, checkpoint: Checkpoint, device: torch.device) -> Update:
    """The update of a training step on one example, as a function (name, g (B, n)) -> Γ (B, n), both fp32.

    kind: `sgd` (g itself), `sign` (its sign) or `adam`, in one of three forms (method, section 3), with t' = t + 1.
    form: `paper`, m̂/√(v̂+ε); `adamw`, m̂/(√v̂+ε) as in torch.optim.AdamW; `released`, without bias correction, with
    β 0.9/0.999 and ε 1e-8.
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
    """1/√v' of Adam's update, name -> (n,) fp32, where v' omits the row's own g².

    Γ scales g by this where g² is small compared with v. ε is placed as in `form`.
    """
    _, beta2, _, correct2, inside, outside = _adam_constants(form, checkpoint)
    return {
        name: (v.to(device) * (beta2 / correct2) + inside).sqrt_().add_(outside).reciprocal_().flatten()
        for name, (_, v) in checkpoint.moments.items()
    }


def _adam_constants(form: str, checkpoint: Checkpoint) -> tuple[float, float, float, float, float, float]:
    """β1, β2, their bias corrections 1 − β^t', and ε inside and outside the root."""
    beta1, beta2 = (0.9, 0.999) if form == "released" else checkpoint.betas
    eps = 1e-8 if form == "released" else checkpoint.eps
    step = checkpoint.step + 1
    correct1, correct2 = (1.0, 1.0) if form == "released" else (1 - beta1**step, 1 - beta2**step)
    inside, outside = (0.0, eps) if form == "adamw" else (eps, 0.0)
    return beta1, beta2, correct1, correct2, inside, outside
