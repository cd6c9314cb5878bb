"""Time-lagged independent components: the slowest linear combinations of features (Perez-Hernandez et al. 2013)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

FLOOR = 1e-6  # directions of the covariance below this share of the largest are noise (Wu et al. 2017 cut alike)


@dataclass(frozen=True)
class Tica:
    """A fitted projection: a call takes features to slow coordinates, the slowest first, of unit variance.

    Attributes:
        mean: of the features.
        components: columns are coordinates.
        eigenvalues: autocorrelation of each coordinate after `lag` frames.
        lag: frames.
    """

    mean: Float[np.ndarray, " features"]
    components: Float[np.ndarray, "features coordinates"]
    eigenvalues: Float[np.ndarray, " coordinates"]
    lag: int

    def __call__(self, features: Float[np.ndarray, "*batch features"]) -> Float[np.ndarray, "*batch coordinates"]:
        return (features - self.mean) @ self.components

    @property
    def timescales(self) -> Float[np.ndarray, " coordinates"]:
        """-lag / ln(eigenvalue) in frames; 0 where there is no positive correlation."""
        inside = np.clip(self.eigenvalues, 1e-12, 1 - 1e-12)
        return np.where(self.eigenvalues > 0, -self.lag / np.log(inside), 0.0)

    def kinetic(self, lag: float) -> Tica:
        """Coordinates scaled by their eigenvalues at `lag` frames (kinetic map, Noe and Clementi 2015).

        At another lag than that of the fit the eigenvalue is taken to decay with its timescale.
        """
        return replace(self, components=self.components * np.clip(self.eigenvalues, 0.0, 1.0) ** (lag / self.lag))


def fit_tica(
    chains: Iterable[Float[np.ndarray, "_frames features"]], lag: int, dim: int = 2, kinetic: bool = False
) -> Tica:
    r"""TICA by the symmetrised estimator, for reversible chains of any lengths.

    Solves C_lag w = lambda C_0 w, with both estimated from the pairs (x_t, x_{t+lag}) of every chain:

    | symbol | variable |
    |---|---|
    | C_0 = (X'X + Y'Y) / 2n | `instant` |
    | C_lag = (X'Y + Y'X) / 2n | `lagged` |
    | C_0^(-1/2), noise directions removed | `whiten` |

    Args:
        chains: features of each chain, one frame a row.
        lag: frames.
        dim: coordinates wanted; fewer come back where the features have fewer independent directions.
        kinetic: scale each coordinate by its eigenvalue (kinetic map, Noe and Clementi 2015), as in published
            TICA-W2 figures.

    Raises:
        ValueError: if no chain is longer than `lag`, or features never change.
    """
    import scipy.linalg

    pairs = [(c[:-lag], c[lag:]) for c in (np.asarray(c, dtype=np.float64) for c in chains) if len(c) > lag]
    if lag < 1 or not pairs:
        raise ValueError(f"expected a chain longer than a lag of at least 1 frame, got lag {lag}; give a shorter lag")
    x, y = (np.concatenate(side) for side in zip(*pairs, strict=True))
    mean = (x.mean(0) + y.mean(0)) / 2
    x, y = x - mean, y - mean
    instant = (x.T @ x + y.T @ y) / (2 * len(x))
    lagged = (x.T @ y + y.T @ x) / (2 * len(x))
    variances, directions = scipy.linalg.eigh(instant)
    keep = variances > max(FLOOR * variances.max(initial=0.0), 1e-12)
    if not keep.any():
        raise ValueError("expected features that change, got constant ones; sample longer")
    whiten = directions[:, keep] / np.sqrt(variances[keep])
    eigenvalues, rotation = scipy.linalg.eigh(whiten.T @ lagged @ whiten)
    order = np.argsort(-eigenvalues)[:dim]
    components = whiten @ rotation[:, order]
    components *= np.where(components[np.abs(components).argmax(0), np.arange(len(order))] < 0, -1.0, 1.0)
    if kinetic:
        components = components * eigenvalues[order]
    return Tica(mean, components, eigenvalues[order], lag)
