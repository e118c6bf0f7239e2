"""Naive baselines that look at no target: the longest answers, and the answers that the model finds hardest.

Both are what people try first, and both have known failures to stand beside: long answers are long-winded, answers with
a high loss are wrong or in another alphabet as often as they are instructive.
"""

import numpy as np

from gradsift.datastore.store import Store


def answer_lengths(store: Store) -> np.ndarray:
    """Tokens of every scored row's answer, (n,) float32."""
    return store.pool()["n_answer_tokens"].loc[store.scored_rows].to_numpy(dtype=np.float32)


def losses(store: Store) -> dict[str, np.ndarray]:
    """Mean cross-entropy of every scored row's answer at each checkpoint, name -> (n,) float32, as the build kept it.

    A row's score is Σ_i w_i ℓ(z; θ_i), with the weights of Eq. 2.
    """
    metrics = store.metrics()
    return {
        epoch: metrics.loc[metrics["epoch"] == epoch, "loss"].to_numpy(dtype=np.float32)[store.scored]
        for epoch in store.epochs
    }
