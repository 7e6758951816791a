"""How much of each part makes the most effect at a given damage.

For small doses the effect of a weighted sum of parts is linear in the weights, gᵀw, and the divergence of the model's
distributions a quadratic form, wᵀFw / 2 with Fisher's information F along the parts (Kullback 1959, chapter 2; as the
natural gradient of Amari 1998 uses it). So the most effect at equal divergence is at w ~ F⁻¹g: a part may take back the
damage that another one does, and get a weight below 0 for it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def information(log_probabilities: Float32, shifts: Sequence[Float32]) -> Float64:
    """Give Fisher's information along some parts, the mean over tokens, in nats. # (parts, parts)

    Args:
        log_probabilities: log p of some tokens of the vocabulary. # (tokens, kept)
        shifts: What each part changes log p by, (tokens, kept) each.
    """
    roots = np.exp(log_probabilities / 2)
    weighted = np.stack([(shift * roots).ravel() for shift in shifts])
    return (weighted @ weighted.T).astype(np.float64) / len(log_probabilities)


def best_weights(effects: Float64, fisher: Float64, *, ridge: float, none_below_zero: bool = False) -> Float64:
    """Give the weights that make the most effect at equal divergence, of any size. # (parts,)

    Args:
        effects: What each part does. # (parts,)
        fisher: Information along the parts. # (parts, parts)
        ridge: Added to the information of each part, in parts of it: what was measured on few texts is not so exact
            that parts could be played off against each other to the last.
        none_below_zero: Whether no part may be turned round.

    >>> best_weights(np.array([1.0, 1.0]), np.diag([1.0, 4.0]), ridge=0.0)
    array([1.  , 0.25])
    """
    roots = np.sqrt(np.diag(fisher))
    used = roots > 0
    weights: Float64 = np.zeros(len(effects))
    if not used.any():
        return weights
    sizes = roots[used]
    alike = fisher[np.ix_(used, used)] / np.outer(sizes, sizes) + ridge * np.eye(len(sizes))
    gains = effects[used] / sizes
    weights[used] = (_without_negative(alike, gains) if none_below_zero else np.linalg.solve(alike, gains)) / sizes
    return weights


def _without_negative(alike: Float64, gains: Float64) -> Float64:
    """Minimise wᵀAw / 2 - gᵀw over w >= 0: with A = LLᵀ a least-squares problem, |Lᵀw - L⁻¹g|²."""
    from sklearn.linear_model import LinearRegression

    root = np.linalg.cholesky(alike)
    fitted = LinearRegression(fit_intercept=False, positive=True).fit(root.T, np.linalg.solve(root, gains))
    found: Float64 = np.asarray(fitted.coef_, dtype=np.float64)
    return found
