"""The axis that each method finds in one layer: formulas only, no sign, no size, no layers.

Every function gives an axis (embd,) of whatever length and sign its formula happens to have; all zeros where it finds
none. `maths.directions` gives the axis its sign and its size, checks what goes in, and walks over the layers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

States = NDArray[np.float64]
"""States of one layer, (observations, embd)."""
Axis = NDArray[np.float64]
"""One line through the state space, (embd,), of any length and sign."""


@dataclass(frozen=True)
class LayerStates:
    """What a method may look at: the states of one layer."""

    positive: States
    """(n, embd)"""
    negative: States
    """(m, embd); for the methods that compare pairs, m = n and row i belongs to row i of `positive`."""
    neutral: States
    """(k, embd), of text that has nothing to do with the concept; k may be 0 for most methods."""
    seed: int = 0
    """Where an iteration starts."""


RIDGE = 0.1
"""How much of the average neutral variance `lda` adds to every dimension before it whitens."""
DISCRIMINANT_RATIO = 0.5
"""The least share of an eigenvector's variance that the classes must explain for `crosscov` to keep it."""

_EXACT_SIZE = 1024
_KRYLOV_BLOCK = 8
_KRYLOV_STEPS = 24
_NEGLIGIBLE = 1e-12


def mean_difference(states: LayerStates) -> Axis:
    """Subtract the class means: `mean(P) - mean(N)`, the least-squares answer (Im & Li, arXiv:2502.02716)."""
    return np.asarray(states.positive.mean(axis=0) - states.negative.mean(axis=0))


def pca(states: LayerStates) -> Axis:
    """Find the first right singular vector of the pair differences, *not* centred, so that their mean counts."""
    return principal_axis(states.positive - states.negative, states.seed)


def pca_diff(states: LayerStates) -> Axis:
    """Find the first principal component of the pair differences, centred as repeng does it.

    Centring takes the mean difference away before it looks for an axis: what is left is how the pairs differ *from each
    other*. That is the concept only where its amplitude varies much between pairs. Kept to compare with repeng.
    """
    differences = states.positive - states.negative
    centred = differences - differences.mean(axis=0)
    # Differences that are all alike leave nothing but rounding errors, and those have an axis too.
    if np.square(centred).sum() <= _NEGLIGIBLE * np.square(differences).sum():
        return np.zeros(differences.shape[1])
    return principal_axis(centred, states.seed)


def principal_axis(rows: States, seed: int = 0) -> Axis:
    """Find the first right singular vector of `rows` (n, embd), of unit length; zeros if all rows are zero.

    Exact, by the eigenvectors of the smaller of the two square matrices (rows with rows, or dimensions with
    dimensions); where even that one is large, by a block Krylov iteration from a seeded start.
    """
    scale = np.abs(rows).max(initial=0.0)
    if scale == 0.0:
        return np.zeros(rows.shape[1])
    rows = rows / scale
    if min(rows.shape) > _EXACT_SIZE:
        return _krylov_axis(rows, seed)
    if rows.shape[0] <= rows.shape[1]:
        axis = rows.T @ np.linalg.eigh(rows @ rows.T).eigenvectors[:, -1]
    else:
        axis = np.linalg.eigh(rows.T @ rows).eigenvectors[:, -1]
    return np.asarray(axis / np.linalg.norm(axis))


def _krylov_axis(rows: States, seed: int) -> Axis:
    """Find the first right singular vector in the space that a few products with `rows` span."""
    block = np.random.default_rng(seed).standard_normal((rows.shape[1], _KRYLOV_BLOCK))
    blocks = []
    for _ in range(_KRYLOV_STEPS):
        block = np.linalg.qr(rows.T @ (rows @ block)).Q
        blocks.append(block)
    basis = np.linalg.qr(np.hstack(blocks)).Q  # (embd, block * steps)
    image = rows @ basis
    axis = basis @ np.linalg.eigh(image.T @ image).eigenvectors[:, -1]
    return np.asarray(axis / np.linalg.norm(axis))


def lda(states: LayerStates) -> Axis:
    """Whiten the mean difference m by the covariance S of neutral text: `(S + lambda I)^-1 m`.

    `lambda = RIDGE * trace(S) / embd`. With X the k centred neutral rows, fewer than embd, the matrix of embd x embd
    numbers is never made (Woodbury identity): `(m - X'(X X' + k lambda I)^-1 X m) / lambda`. Nor is that of k x k
    numbers where every token is a row. S comes from neutral text because the covariance within the classes also holds
    the concept's own spread, and would whiten the concept away. Neutral rows that are all alike leave nothing to whiten
    by, and the mean difference stays as it is.
    """
    difference = mean_difference(states)
    centred = states.neutral - states.neutral.mean(axis=0)  # (k, embd)
    rows, width = centred.shape
    # trace(S) = sum of squares / k, so k * lambda needs no division by k.
    weight = RIDGE * np.square(centred).sum() / width
    if weight <= _NEGLIGIBLE * np.square(states.neutral).sum() / width:
        return difference
    if rows > width:
        return np.asarray(np.linalg.solve(centred.T @ centred + weight * np.eye(width), difference) * rows)
    inner = centred @ centred.T + weight * np.eye(rows)
    whitened = difference - centred.T @ np.linalg.solve(inner, centred @ difference)
    return np.asarray(whitened * (rows / weight))


def logistic(states: LayerStates) -> Axis:
    """Find the normal of the plane that logistic regression (L2, C = 1) puts between the classes.

    All dimensions share one scale, so that the plane does not depend on the unit of the states and keeps its angles.
    The solution lies in the span of the rows, so it is searched there: n + m numbers, however wide the model.
    """
    from sklearn.linear_model import LogisticRegression

    rows = np.concatenate([states.positive, states.negative])
    centred = rows - rows.mean(axis=0)
    scale = np.sqrt(np.square(centred).mean())
    if scale == 0.0:
        return np.zeros(rows.shape[1])
    coordinates, basis = _in_own_span(centred / scale)
    labels = np.repeat([1, 0], [len(states.positive), len(states.negative)])
    fitted = LogisticRegression(C=1.0, tol=1e-6, max_iter=2000).fit(coordinates, labels)
    return np.asarray(fitted.coef_[0] @ basis)


def crosscov(states: LayerStates) -> Axis:
    """Project the mean difference on the cross-covariance axes that tell the classes apart.

    A and B are the paired classes minus a baseline (the neutral mean, or else the mean of both classes). Candidates are
    the eigenvectors of `(transpose(A) B + transpose(B) A) / 2`, the idea of jukofyork's control-vectors: what the two
    sides share has a positive eigenvalue, what they disagree on a negative one. An eigenvector is kept when the classes
    explain at least `DISCRIMINANT_RATIO` of the variance along it (if none is, the best one); the kept parts of the
    mean difference are added, best first, as long as the sum tells the classes apart better.
    """
    positive, negative = states.positive, states.negative
    both_means = (positive.mean(axis=0) + negative.mean(axis=0)) / 2
    baseline = states.neutral.mean(axis=0) if len(states.neutral) else both_means
    coordinates, basis = _in_own_span(np.concatenate([positive - baseline, negative - baseline]))
    ours, theirs = coordinates[: len(positive)], coordinates[len(positive) :]
    if coordinates.shape[1] == 0:
        return np.zeros(positive.shape[1])
    cross = ours.T @ theirs
    candidates = np.linalg.eigh((cross + cross.T) / 2).eigenvectors  # (rank, rank), one a column
    ratios = _discriminant_ratios(ours @ candidates, theirs @ candidates)
    difference = ours.mean(axis=0) - theirs.mean(axis=0)
    order = np.argsort(-ratios, kind="stable")
    total, best = np.zeros(len(difference)), -1.0
    for index in order[: max(1, int((ratios >= DISCRIMINANT_RATIO).sum()))]:
        extended = total + candidates[:, index] * (candidates[:, index] @ difference)
        ratio = float(_discriminant_ratios((ours @ extended)[:, None], (theirs @ extended)[:, None])[0])
        if ratio > best:
            total, best = extended, ratio
    return np.asarray(total @ basis)


def _discriminant_ratios(ours: States, theirs: States) -> NDArray[np.float64]:
    """Say, for each column of scores, which share of the variance (0 to 1) lies between the two classes."""
    between = np.square(ours.mean(axis=0) - theirs.mean(axis=0)) / 4
    total = between + (ours.var(axis=0) + theirs.var(axis=0)) / 2
    return np.asarray(np.divide(between, total, out=np.zeros_like(between), where=total > 0))


def _in_own_span(rows: States) -> tuple[States, States]:
    """Write `rows` (n, embd) as coordinates (n, rank) times an orthonormal basis (rank, embd) of what they span."""
    gram = np.linalg.eigh(rows @ rows.T) if rows.shape[0] <= rows.shape[1] else np.linalg.eigh(rows.T @ rows)
    wanted = gram.eigenvalues > gram.eigenvalues[-1] * _NEGLIGIBLE
    vectors = gram.eigenvectors[:, wanted]
    if rows.shape[0] <= rows.shape[1]:
        lengths = np.sqrt(gram.eigenvalues[wanted])
        return vectors * lengths, (vectors / lengths).T @ rows
    return rows @ vectors, vectors.T
