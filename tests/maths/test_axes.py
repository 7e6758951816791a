"""The shortcuts of the formulas against the slow, obvious way."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from ggufsteer.maths import axes
from ggufsteer.maths.axes import LayerStates


def parallel(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Give the absolute cosine of two axes."""
    return float(abs(ours @ theirs) / np.linalg.norm(ours) / np.linalg.norm(theirs))


def states(seed: int, rows: int, width: int, *, shift: float = 0.5) -> LayerStates:
    """Make correlated states of two sides and neutral ones."""
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((width, width))
    draw = lambda: generator.standard_normal((rows, width)) @ mixing  # noqa: E731
    return LayerStates(positive=draw() + shift, negative=draw() - shift, neutral=draw())


@pytest.mark.parametrize(("rows", "width"), [(5, 40), (40, 5), (17, 17), (1, 8)])
def test_the_axis_from_the_gram_matrix_is_the_first_singular_vector(rows: int, width: int) -> None:
    """Whichever side is the shorter one, the small square matrix leads to the same axis as a full decomposition."""
    matrix = np.random.default_rng(rows).standard_normal((rows, width)) + 1.0
    expected = np.linalg.svd(matrix, full_matrices=False).Vh[0]
    found = axes.principal_axis(matrix)
    assert parallel(found, expected) == pytest.approx(1.0, abs=1e-10)
    assert np.linalg.norm(found) == pytest.approx(1.0)


def test_the_iteration_for_many_pairs_is_the_first_singular_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """The method that runs above a thousand pairs agrees with the full decomposition, with no gap to make it easy."""
    monkeypatch.setattr(axes, "_EXACT_SIZE", 100)
    matrix = np.random.default_rng(0).standard_normal((300, 250))
    expected = np.linalg.svd(matrix, full_matrices=False).Vh[0]
    assert parallel(axes.principal_axis(matrix, seed=1), expected) > 1 - 1e-6


def test_a_size_that_would_overflow_when_squared_is_no_trouble() -> None:
    """States are scaled before they are multiplied with each other."""
    assert np.isfinite(axes.principal_axis(np.full((3, 4), 1e200))).all()


def test_centred_pca_is_what_scikit_learn_calls_pca() -> None:
    """repeng's default is scikit-learn's PCA of the pair differences, and ours finds the same axis."""
    given = states(3, 30, 12)
    expected = PCA(n_components=1).fit(given.positive - given.negative).components_[0]
    assert parallel(axes.pca_diff(given), expected) == pytest.approx(1.0, abs=1e-10)


@pytest.mark.parametrize(("rows", "width"), [(8, 30), (200, 30)])
def test_whitening_is_the_direct_solution_however_many_the_rows_are(rows: int, width: int) -> None:
    """Which of the two square matrices is made changes nothing but the time, in length as in direction."""
    given = states(4, rows, width)
    covariance = np.cov(given.neutral, rowvar=False, bias=True)
    ridge = axes.RIDGE * np.trace(covariance) / width
    direct = np.linalg.solve(covariance + ridge * np.eye(width), axes.mean_difference(given))
    np.testing.assert_allclose(axes.lda(given), direct, rtol=1e-8)


def test_logistic_regression_in_the_span_is_that_in_the_whole_space() -> None:
    """Fitting in the space of the rows gives the plane that a fit on all dimensions gives."""
    given = states(5, 12, 40)
    rows = np.concatenate([given.positive, given.negative])
    centred = rows - rows.mean(axis=0)
    labels = [1] * 12 + [0] * 12
    direct = LogisticRegression(C=1.0, tol=1e-9, max_iter=5000).fit(centred / np.sqrt(np.mean(centred**2)), labels)
    assert parallel(axes.logistic(given), direct.coef_[0]) > 1 - 1e-6


def test_cross_covariance_in_the_span_is_that_in_the_whole_space() -> None:
    """With one axis worth keeping, the answer is the lowest eigenvector of the full embd x embd matrix."""
    generator = np.random.default_rng(6)
    truth = np.zeros(20)
    truth[0] = 1.0
    content = generator.standard_normal((400, 20)) * np.linspace(0.2, 1.0, 20)
    ours = content + truth + 0.05 * generator.standard_normal((400, 20))
    theirs = content - truth + 0.05 * generator.standard_normal((400, 20))
    middle = (ours.mean(axis=0) + theirs.mean(axis=0)) / 2
    cross = (ours - middle).T @ (theirs - middle)
    lowest = np.linalg.eigh((cross + cross.T) / 2).eigenvectors[:, 0]
    found = axes.crosscov(LayerStates(ours, theirs, neutral=ours[:0]))
    assert parallel(found, lowest) > 1 - 1e-6


def test_the_baseline_of_cross_covariance_is_the_neutral_mean_where_there_is_one() -> None:
    """Neutral text moves the point from which both sides are seen, and with it the axes."""
    given = states(7, 60, 10)
    moved = LayerStates(given.positive, given.negative, given.neutral + 5.0)
    assert parallel(axes.crosscov(given), axes.crosscov(moved)) < 1 - 1e-6


def test_cross_covariance_leaves_out_an_axis_that_blurs_the_others() -> None:
    """Of two axes that each tell the classes apart, a noisy one is left out where their sum would tell them worse."""
    generator = np.random.default_rng(8)
    # Seen from the neutral mean at 0, the cross-covariance of these two means is diagonal: the axes are the candidates.
    ours, theirs, neutral = (
        np.array(mean) + generator.standard_normal((5000, 2)) * [0.01, 1.0]
        for mean in ([2.0, 6.0], [-1.0, 3.0], [0.0, 0.0])
    )
    found = axes.crosscov(LayerStates(ours, theirs, neutral))
    assert parallel(found, np.array([1.0, 0.0])) > 0.999
