"""What is minimised: the negative log likelihood; then the acceptance and entropy terms."""

from __future__ import annotations

import torch
from torch import Tensor


def likelihood(model, batch, rng: torch.Generator) -> tuple[Tensor, dict[str, float]]:
    """-ln p(tau) - ln p(z | tau), mean over the frames of a `Minibatch`, in nats."""
    torsion, stiff = model.log_prob(batch.tokens, *batch.frames)
    loss = -(torsion + stiff).mean()
    return loss, {"torsion": -float(torsion.detach().mean()), "stiff": -float(stiff.detach().mean())}
