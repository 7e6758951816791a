"""The rows of the table: each way to make a vector, as a function of a case.

What needs the recipe's held-out pairs says so in its name; nothing looks at what the judge looks at, but those.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from _quality_case import Case, Rows
from _quality_formulas import jukofyork, repeng_pca_center, repeng_pca_diff
from numpy.typing import NDArray

from ggufsteer.errors import SteerError
from ggufsteer.files.vector import read_vector
from ggufsteer.maths.directions import METHODS, block_deltas
from ggufsteer.maths.statistics import separation
from ggufsteer.tasks.calibrate import BUDGET
from ggufsteer.tasks.extract import extract
from ggufsteer.tasks.method_search_run import Search
from ggufsteer.tasks.recipes import changed

OURS = "ggufsteer"
SEARCHED = "ggufsteer --search 64"
RANDOM = "random"
RANDOM_DRAWS = 3


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    makers: tuple[Callable[[Case], Rows], ...]
    """More than one where chance takes part: the median counts."""
    either_sign: bool = False
    """Whether it does not say which way it points, so that a person would have to try."""


def calibrated(case: Case) -> Rows:
    """What `ggufsteer extract` makes of a recipe without layers: all is chosen by what it does on training pairs."""
    return extract(changed(case.recipe, {"layers": "auto"}), case.model, budget=BUDGET).vector.as_rows(
        case.model.n_layer
    )


def searched(case: Case) -> Rows:
    """What `ggufsteer extract --search 64` makes of the recipe."""
    recipe = changed(case.recipe, {"layers": "auto"})
    return extract(recipe, case.model, budget=BUDGET, search=Search(64)).vector.as_rows(case.model.n_layer)


def uncalibrated(case: Case) -> Rows:
    """What the recipe says by itself: its method on its layers."""
    return extract(case.recipe, case.model).vector.as_rows(case.model.n_layer)


def by_method(method: str, case: Case, *, deltas: bool) -> Rows:
    """One of our methods on the layers that `auto` means, as it is without calibration."""
    places = np.array(case.layers)
    directions = case.directions(method)[places - 1]
    return _spread(case, places, block_deltas(directions) if deltas else directions)


def best_layer(case: Case) -> Rows:
    """The mean difference at the layer where it tells the held-out pairs apart best."""
    directions = case.directions("mean")
    judged = separation(directions, *(case.states[f"held_out_{side}"][:, 1:] for side in ("positive", "negative")))
    place = max(range(len(directions)), key=lambda index: (judged.auc[index], judged.d_prime[index]))
    return _spread(case, np.array([place + 1]), directions[place : place + 1])


def repeng(formula: Callable[[Rows, Rows], Rows], case: Case) -> Rows:
    """A formula of repeng on all layers from 1 on."""
    return formula(case.states["positive"][:, 1:], case.states["negative"][:, 1:])


def cross_covariance(case: Case) -> Rows:
    """jukofyork's formula on all layers but the last, which its program leaves out."""
    rows = jukofyork(case.states["positive"], case.states["negative"])
    rows[-1] = 0
    return rows


def generated(method: str, case: Case, *, personas: bool, corrected: bool) -> Rows:
    """What llama.cpp's cvector-generator writes for the same texts, at the layers where stock programs put it or right.

    Its method "pca" starts at a random place, so its sign is random too.
    """
    if not personas and case.plain_texts == case.read_texts:
        raise SteerError("the texts have no personas, so it would be the same again", "see the row without `answers`")
    path = case.generated(method, personas=personas)
    return read_vector(path, producer=None if corrected else "repeng").as_rows(case.model.n_layer)


def drawn(seed: int, case: Case) -> Rows:
    """Numbers drawn at random, in each layer of `auto` as long as the mean difference."""
    places = np.array(case.layers)
    lengths = np.linalg.norm(case.directions("mean")[places - 1], axis=1)
    noise = np.random.default_rng(seed).standard_normal((len(places), case.model.n_embd))
    return _spread(case, places, noise / np.linalg.norm(noise, axis=1, keepdims=True) * lengths[:, None])


def _spread(case: Case, layers: NDArray[np.int64], directions: NDArray[np.floating[Any]]) -> Rows:
    rows = np.zeros((case.model.n_layer - 1, case.model.n_embd), dtype=np.float32)
    rows[layers - 1] = directions
    return rows


def rows_of_table(*, generator: bool) -> dict[str, Row]:
    """Give all rows that can be made, by name.

    Args:
        generator: Whether llama.cpp's program is there.
    """
    found = {OURS: Row((calibrated,)), SEARCHED: Row((searched,)), "its recipe, uncalibrated": Row((uncalibrated,))}
    for method in METHODS:
        found[f"{method}, deltas"] = Row((partial(by_method, method, deltas=True),))
        found[f"{method}, whole"] = Row((partial(by_method, method, deltas=False),))
    found["best held-out layer"] = Row((best_layer,))
    found["repeng pca_diff"] = Row((partial(repeng, repeng_pca_diff),))
    found["repeng pca_center"] = Row((partial(repeng, repeng_pca_center),))
    found["jukofyork"] = Row((cross_covariance,))
    if generator:
        for method, personas, corrected in product(("mean", "pca"), (True, False), (False, True)):
            name = f"generator {method}{'' if personas else ', answers'}{', shifted' if corrected else ''}"
            maker = partial(generated, method, personas=personas, corrected=corrected)
            found[name] = Row((maker,), either_sign=True)
    found[RANDOM] = Row(tuple(partial(drawn, seed) for seed in range(RANDOM_DRAWS)), either_sign=True)
    return found
