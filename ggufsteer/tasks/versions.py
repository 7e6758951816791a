"""Which versions and settings made a result: written into every vector, so that it can be made again."""

from __future__ import annotations

from importlib import metadata

from ggufsteer.version import VERSION

RELEVANT_PACKAGES = ("llama-cpp-python", "numpy", "scikit-learn")
"""Packages whose version can change the numbers of a vector."""


SETTINGS = ("n_ctx", "n_batch", "n_ubatch", "n_gpu_layers", "flash_attention")
"""How a model is loaded changes its numbers in the last digits, and with them now and then a word of its answers.

The number of threads is not among them: each number is computed by one thread alone.
"""


def versions() -> dict[str, str]:
    """Return the version of ggufsteer and of every package that can change a vector's numbers, by name."""
    found = {"ggufsteer": VERSION}
    for name in RELEVANT_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
