"""Where states come from: which model, how it ran, how much text: what a vector's papers need when it is gone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ggufsteer.engine.capture import plan_capture
from ggufsteer.errors import SteerError
from ggufsteer.files.model_identity import ModelIdentity
from ggufsteer.tasks.versions import SETTINGS, versions

if TYPE_CHECKING:
    from ggufsteer.engine.model import Model
    from ggufsteer.tasks.contrast import Contrast
    from ggufsteer.tasks.observations import Observations


_LARGEST_SHAPE = 1 << 20
_LARGEST_COUNT = 1 << 53


@dataclass(frozen=True)
class Origin:
    """What is known of the states of one contrast besides the states."""

    model: ModelIdentity
    settings: Mapping[str, str]
    """How the model was loaded."""
    versions: Mapping[str, str]
    n_pairs: int
    n_held_out: int
    n_tokens: int
    """Tokens of all texts that are read."""
    n_distinct_tokens: int
    """Tokens that the model computes: what texts have in common counts once."""
    tokens_hash: str
    """SHA-256 of all tokens and of the rows that are read."""
    warnings: tuple[str, ...]

    def as_text(self) -> str:
        """Write it down as JSON; two origins that are equal give the same text."""
        table = dataclasses.asdict(dataclasses.replace(self, model=dataclasses.replace(self.model, path=None)))
        return json.dumps(table, sort_keys=True, default=dict)

    @classmethod
    def from_text(cls, text: str) -> Origin:
        """Read what `as_text` has written.

        Raises:
            SteerError: It is not complete.
        """
        try:
            table: dict[str, Any] = json.loads(text)
            model = ModelIdentity(**table.pop("model"))
            warnings = tuple(list.copy(table["warnings"]))  # a text, which has letters, is no list
            origin = cls(**table | {"model": model, "warnings": warnings})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise SteerError("its account of where the states come from is damaged") from error
        if not _is_sound(origin):
            raise SteerError("its account of where the states come from has values of the wrong kind")
        return origin


def _is_sound(origin: Origin) -> bool:
    model = origin.model
    counts = (origin.n_pairs, origin.n_held_out, origin.n_tokens, origin.n_distinct_tokens)
    texts = (model.name, model.architecture, model.content_hash, origin.tokens_hash, *origin.warnings)
    tables = (origin.settings, origin.versions)
    return (
        all(type(count) is int and 0 <= count <= _LARGEST_COUNT for count in counts)
        and all(type(size) is int and 0 < size <= _LARGEST_SHAPE for size in (model.n_layer, model.n_embd))
        and model.path is None
        and all(isinstance(text, str) for text in texts)
        and all(isinstance(table, dict) and all(isinstance(value, str) for value in table.values()) for table in tables)
    )


def origin_of(model: Model, contrast: Contrast, observations: Observations, layers: Sequence[int]) -> Origin:
    """Note down where the states of a contrast will come from. Reads the model's file, to identify it."""
    sequences = observations.sequences
    tree = plan_capture(model, sequences, layers, pool=observations.pooled).tree
    digest = hashlib.sha256()
    for numbers in (sequences.token_bounds, sequences.tokens, sequences.row_bounds, sequences.rows):
        digest.update(np.ascontiguousarray(numbers).data)  # where they lie: copies of millions of tokens would show
    return Origin(
        model=model.identity,
        settings={name: str(getattr(model.options, name)) for name in SETTINGS},
        versions=versions(),
        n_pairs=contrast.n_pairs,
        n_held_out=contrast.n_held_out,
        n_tokens=tree.n_total,
        n_distinct_tokens=tree.n_distinct,
        tokens_hash=digest.hexdigest(),
        warnings=tuple(filter(None, (model.reader_note, *contrast.warnings))),
    )
