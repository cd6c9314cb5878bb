"""The atom transformer: from what is known of each atom to a few numbers an atom, without an order of atoms."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from timewarp.flow.attention import KernelAttention


class Layer(nn.Module):
    """Kernel attention and a feed-forward network, each with its residual and a norm over the atom's numbers."""

    def __init__(self, width: int, heads: int, value: int, feedforward: int):
        super().__init__()
        self.attention = KernelAttention(width, heads, value)
        self.first = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, feedforward), nn.ReLU(), nn.Linear(feedforward, width))
        self.second = nn.LayerNorm(width)

    def forward(
        self,
        tokens: Float[Tensor, "count batch atoms width"],
        weights: Float[Tensor, "batch heads atoms atoms"],
    ) -> Float[Tensor, "count batch atoms width"]:
        """One round of exchange between atoms."""
        tokens = self.first(tokens + self.attention(tokens, weights))
        return self.second(tokens + self.feed(tokens))


class AtomTransformer(nn.Module):
    """Token [x_i(t), h_i, z_i] -> MLP -> layers of kernel attention -> MLP -> `out` numbers an atom.

    Permutation-equivariant: there is no positional encoding. It returns zeros at construction, so that a
    coupling made of it starts as the identity. Klein et al. 2023, the atom transformer of section 4.

    Args:
        known: numbers an atom that are known before any latent (positions and features).
        latent: numbers an atom of the latent half that conditions.
        out: numbers an atom that come out.
        width: numbers an atom between the layers.
        layers: rounds of attention.
        heads: lengths of the kernel attention.
        value: numbers an atom in each head.
        feedforward: hidden width inside a layer.
        hidden: hidden width of the first and the last MLP.
    """

    def __init__(
        self,
        known: int,
        latent: int,
        out: int,
        *,
        width: int,
        layers: int,
        heads: int,
        value: int,
        feedforward: int,
        hidden: int,
    ):
        super().__init__()
        # The first linear map of the token is split in two, so that the known half is mapped once for all samples.
        self.known = nn.Linear(known, hidden)
        self.latent = nn.Linear(latent, hidden, bias=False)
        self.enter = nn.Sequential(nn.ReLU(), nn.Linear(hidden, width))
        self.layers = nn.ModuleList(Layer(width, heads, value, feedforward) for _ in range(layers))
        last = nn.Linear(hidden, out)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.leave = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), last)

    def forward(
        self,
        known: Float[Tensor, "batch atoms known"],
        latent: Float[Tensor, "count batch atoms latent"],
        weights: Float[Tensor, "batch heads atoms atoms"],
    ) -> Float[Tensor, "count batch atoms out"]:
        """Numbers for each atom; `weights` come from `kernel_weights` of the conditioning positions."""
        tokens = self.enter(self.known(known) + self.latent(latent))
        for layer in self.layers:
            tokens = layer(tokens, weights)
        return self.leave(tokens)
