"""Make, check and use control vectors on quantised GGUF models, with llama.cpp and nothing heavier.

The names below are what other programs may import. They load on first use, so that `import ggufsteer` costs nothing and
loads no model library. Inside the package nobody imports from here: a module names the floor it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ggufsteer.version import VERSION as __version__  # noqa: N811 (the customary name for it)

if TYPE_CHECKING:
    from ggufsteer.errors import ExitCode, SteerError
    from ggufsteer.files.control_vector import ControlVector
    from ggufsteer.files.recipe import load_recipe
    from ggufsteer.files.recipe_schema import Recipe
    from ggufsteer.files.vector import read_vector, write_vector

_HOMES = {
    "ControlVector": "ggufsteer.files.control_vector",
    "ExitCode": "ggufsteer.errors",
    "Recipe": "ggufsteer.files.recipe_schema",
    "SteerError": "ggufsteer.errors",
    "load_recipe": "ggufsteer.files.recipe",
    "read_vector": "ggufsteer.files.vector",
    "write_vector": "ggufsteer.files.vector",
}

__all__ = [
    "ControlVector",
    "ExitCode",
    "Recipe",
    "SteerError",
    "__version__",
    "load_recipe",
    "read_vector",
    "write_vector",
]


def __getattr__(name: str) -> Any:
    """Load the module that holds a public name, the first time the name is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ggufsteer' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return list(__all__)
