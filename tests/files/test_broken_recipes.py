"""Each broken recipe and pairs file of `tests/broken` gets its own plain answer.

The first two lines of a broken recipe say what has to be said about it, and the mend.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from ggufsteer.errors import ExitCode, FileFormatError, RecipeError, SteerError
from ggufsteer.files.recipe import load_recipe

BROKEN = Path(__file__).parents[1] / "broken"
RECIPES = sorted((BROKEN / "recipes").glob("*.toml"))

# Pairs file -> what is said about it, and the mend.
PAIRS: Mapping[str, tuple[str, str]] = {
    "not-json.jsonl": ("line 2, column 18: is not JSON", 'write {"positive": "…", "negative": "…"} on each line'),
    "key-missing.jsonl": ("line 3: key 'negative' is missing", "give both sides"),
    "key-unknown.jsonl": ("line 1: key 'weight' is not known", "use negative, positive, prompt"),
    "text-a-number.jsonl": ("line 1: key 'negative' is 5, not a text", "put it in quotes"),
    "a-number.jsonl": ("line 1: is 7, not a pair", "write {"),
    "three-texts.jsonl": ("line 1: has 3 texts, not 2", "give a positive and a negative text"),
    "nested-deep.jsonl": ("line 1: is not usable JSON", "write it plainly"),
    "sides-equal.jsonl": ("line 2: both sides are 'c': there is no contrast", "change one side"),
    "twice.jsonl": ("line 3: is the same as pair 1", "remove one of them"),
    "half-with-prompts.jsonl": ("line 2: some pairs have a prompt and others have none", "give every pair a prompt"),
    "blank-side.jsonl": ("line 1: the negative text is empty", "write it, or remove the pair"),
    "half-a-character.jsonl": ("line 2: the positive text holds half of a surrogate pair", "the character itself"),
    "nul-escaped.jsonl": ("line 1: the positive text holds a NUL character", "remove it"),
    "nothing.jsonl": ("holds no pair", "write one pair a line"),
    "three-columns.csv": ("line 2: has 3 texts, not 2", "give a positive and a negative text"),
    "quote-not-closed.csv": ("is not CSV", "double the quotes"),
    "cells-missing.csv": ("line 3: has 2 cells under 3 column names", "quote cells that hold commas"),
    "header-only.csv": ("holds no pair", "write one pair a line"),
    "column-unknown.csv": ("line 2: key 'mood' is not known", "use negative, positive, prompt"),
    "no-tab.txt": ("line 2: has 1 texts, not 2", "separated by one tab"),
    "two-tabs.txt": ("line 1: has 3 texts, not 2", "separated by one tab"),
    "not-utf8.txt": ("line 2: byte 0xe9 is not UTF-8 text", "save the file as UTF-8"),
    "with-nul.txt": ("line 2: holds a NUL character", "save it as UTF-8 text"),
    "unknown-kind.yaml": ("the ending '.yaml' does not tell", "use one of .jsonl, .csv, .txt, .tsv"),
    "no-ending": ("the ending '' does not tell", "use one of .jsonl, .csv, .txt, .tsv"),
}
# cvector-generator's two files, and repeng's suffixes: contrast -> what is said, and the mend.
OTHERS: Mapping[str, tuple[str, str, str]] = {
    "unequal files": (
        'kind = "files"\npositive_file = "positive.txt"\nnegative_file = "negative-longer.txt"',
        "has 2 lines and",
        "the same number of non-empty lines",
    ),
    "an empty file": (
        'kind = "files"\npositive_file = "positive-empty.txt"\nnegative_file = "negative-same.txt"',
        "positive-empty.txt: holds no text",
        "write one prompt a line",
    ),
    "equal lines": (
        'kind = "files"\npositive_file = "positive.txt"\nnegative_file = "negative-same.txt"',
        "line 2: both sides are 'good'",
        "change one side",
    ),
    "a folder": (
        'kind = "files"\npositive_file = "."\nnegative_file = "positive.txt"',
        "is a folder",
        "path of a file",
    ),
    "suffixes in an object": (
        'kind = "suffixes"\nsuffixes_file = "suffixes-an-object.json"',
        "suffixes-an-object.json: is not a list of texts",
        'write ["…", "…"]',
    ),
    "a suffix of half a character": (
        'kind = "suffixes"\nsuffixes_file = "suffixes-half-a-character.json"',
        "text 2 holds half of a surrogate pair",
        "the character itself",
    ),
    "suffixes cut off": (
        'kind = "suffixes"\nsuffixes_file = "suffixes-cut.json"',
        "suffixes-cut.json: line 3, column 1: is not JSON",
        "write",
    ),
    "no suffixes": (
        'kind = "suffixes"\nsuffixes_file = "suffixes-empty.txt"',
        "suffixes-empty.txt: holds no text",
        "write",
    ),
}
_SIDES = 'template = "{persona} {suffix}"\npositive = ["glad"]\nnegative = ["sad"]\n'


def expectation(path: Path) -> tuple[str, str]:
    """What the first two lines of a broken recipe promise: the words of the answer, and of the mend."""
    says, mend = path.read_text(encoding="utf-8").split("\n")[:2]
    return says.removeprefix("# says: "), mend.removeprefix("# mend: ")


def test_the_corpus_is_large_enough() -> None:
    """At least sixty broken recipes, and each has its own file name and promise."""
    assert len(RECIPES) >= 60
    assert all(path.read_text(encoding="utf-8").startswith("# says: ") for path in RECIPES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_broken_recipe_is_refused_with_its_key_value_and_mend(path: Path) -> None:
    """The answer names the file, the key and the value seen, and says how to mend it."""
    says, mend = expectation(path)
    with pytest.raises(SteerError) as caught:
        load_recipe(path)
    problem = caught.value
    assert isinstance(problem, (RecipeError, FileFormatError))
    assert says in problem.message
    # Of several mistakes at once, each brings its own mend in the list.
    assert mend in problem.hint or f": {mend}" in problem.message
    assert str(path.parent) in problem.message
    assert problem.exit_code is ExitCode.USAGE


def _check(path: Path, contrast: str, folder: Path, says: str, mend: str) -> None:
    text = f'name = "happy"\n[contrast]\n{contrast}\n'
    path.write_text(text.replace('file = "', f'file = "{folder.as_posix()}/'), encoding="utf-8")
    with pytest.raises(FileFormatError) as caught:
        load_recipe(path)
    assert says in caught.value.message
    assert mend in caught.value.hint
    assert str(folder) in caught.value.message
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("name", PAIRS)
def test_a_broken_pairs_file_is_refused_with_its_line_and_mend(name: str, tmp_path: Path) -> None:
    """The answer names the pairs file and the line, not only the recipe."""
    contrast = f'kind = "pairs"\nfile = "{name}"'
    _check(tmp_path / "recipe.toml", contrast, BROKEN / "pairs", *PAIRS[name])


@pytest.mark.parametrize("name", OTHERS)
def test_broken_prompt_and_suffix_files_are_refused(name: str, tmp_path: Path) -> None:
    """The two files of cvector-generator and the suffixes of repeng are checked as strictly."""
    contrast, says, mend = OTHERS[name]
    more = _SIDES if "suffixes" in contrast else ""
    _check(tmp_path / "recipe.toml", f"{contrast}\n{more}", BROKEN / "pairs", says, mend)


def test_every_file_of_the_corpus_is_used() -> None:
    """A broken file that no test reads would be dead weight."""
    used = set(PAIRS) | {name for name in _names() if any(name in contrast for contrast, _, _ in OTHERS.values())}
    assert used == _names()


def _names() -> set[str]:
    return {path.name for path in (BROKEN / "pairs").iterdir()}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'name = "caf\xe9"\n', "line 1: byte 0xe9 is not UTF-8"),
        (b"\xff\xfen\0a\0m\0e\0", "byte 0xff is not UTF-8"),
        (b'name = "a"\n\0', "NUL"),
        (b"#" * (5 << 20), "is too large"),
    ],
)
def test_a_recipe_that_is_no_text_is_refused(data: bytes, says: str, tmp_path: Path) -> None:
    """Other encodings and huge files are told apart from TOML mistakes."""
    path = tmp_path / "recipe.toml"
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=says):
        load_recipe(path)


def test_a_recipe_that_is_a_folder_or_missing_is_refused(tmp_path: Path) -> None:
    """The nearest built-in recipe is offered for a misspelt name."""
    with pytest.raises(FileFormatError, match="is a folder"):
        load_recipe(tmp_path)
    with pytest.raises(RecipeError, match="no such file") as caught:
        load_recipe("hapy")
    assert "'happy'" in caught.value.hint
