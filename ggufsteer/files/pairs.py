"""Contrast pairs, and the files that they come from: JSONL, CSV, TXT, cvector-generator's two files, repeng's suffixes.

Every refusal names the file and the line. It does not know how a pair becomes tokens.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict

from ggufsteer.errors import FileFormatError
from ggufsteer.files.inputs import read_text

MAX_PAIRS = 100_000
MAX_TEXT = 1 << 18
_SIDES = ("positive", "negative")
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")


class Pair(BaseModel):
    """Two texts that differ in the concept. With a `prompt` they are two answers to it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    positive: str
    negative: str
    prompt: str | None = None


def problem_of_text(text: str) -> tuple[str, str] | None:
    """What is wrong with any text, as words that follow its name, and the mend; None when nothing is."""
    if len(text) > MAX_TEXT:
        return f"has {len(text)} characters, at most {MAX_TEXT} are read", "shorten it"
    if "\0" in text:
        return "holds a NUL character", "remove it"
    if not text.isascii() and _HALF_A_PAIR.search(text):
        return "holds half of a surrogate pair, which is no character", "write the character itself, or both halves"
    return None


def problem_of_pair(positive: str, negative: str, prompt: str | None) -> tuple[str, str] | None:
    """What is wrong with a pair and how to mend it; None when nothing is."""
    for side, text in (("positive", positive), ("negative", negative), ("prompt", "-" if prompt is None else prompt)):
        if not text.strip():
            return f"the {side} text is empty", "write it, or remove the pair"
        problem = problem_of_text(text)
        if problem is not None:
            return f"the {side} text {problem[0]}", problem[1]
    if positive == negative:
        return f"both sides are {positive!r:.60}: there is no contrast", "change one side, or remove the pair"
    return None


def problem_of_pairs(pairs: Iterable[Pair]) -> tuple[int, str, str] | None:
    """The first pair (from 0) that does not go with those before it, what is wrong, and the mend; None when all do."""
    first_of: dict[Pair, int] = {}
    with_prompt: bool | None = None
    for index, pair in enumerate(pairs):
        if pair in first_of:
            return index, f"is the same as pair {first_of[pair] + 1}", "remove one of them"
        if with_prompt is not None and with_prompt != (pair.prompt is not None):
            return index, "some pairs have a prompt and others have none", "give every pair a prompt, or none"
        first_of[pair] = index
        with_prompt = pair.prompt is not None
    return None


def read_pairs(path: Path | str) -> tuple[Pair, ...]:
    """Read pairs from a .jsonl, .csv, or .txt / .tsv file.

    JSONL: an object {"positive", "negative"[, "prompt"]} or a list of two texts a line. CSV: two columns, or any order
    under a header line with those names. TXT: positive, a tab, negative. Empty lines are skipped. Raises
    `FileFormatError` naming file and line.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise FileFormatError(
            f"{path}: the ending '{path.suffix}' does not tell what kind of pairs file it is",
            f"use one of {', '.join(_READERS)}",
        )
    rows = reader(path, read_text(path))
    pairs = [_pair(path, line, row) for line, row in rows]
    _check_all(path, pairs, [line for line, _ in rows])
    return tuple(pairs)


def read_prompt_files(positive: Path | str, negative: Path | str, *, escapes: bool = True) -> tuple[Pair, ...]:
    """Pair the lines of two files, as llama.cpp's cvector-generator does; empty lines are skipped.

    `escapes` turns \\n, \\t and kin into the characters that they stand for. Raises `FileFormatError` when the numbers
    of lines differ (cvector-generator writes NaN or aborts then), or a pair has two equal sides.
    """
    sides = [read_prompts(path, escapes=escapes) for path in (positive, negative)]
    if len(sides[0]) != len(sides[1]):
        raise FileFormatError(
            f"{positive} has {len(sides[0])} lines and {negative} has {len(sides[1])}: they cannot be paired",
            "give both files the same number of non-empty lines",
        )
    pairs = []
    for (line, first), (_, second) in zip(*sides, strict=True):
        pairs.append(_pair(Path(positive), line, {"positive": first, "negative": second}))
    _check_all(Path(positive), pairs, [line for line, _ in sides[0]])
    return tuple(pairs)


def read_prompts(path: Path | str, *, escapes: bool = True) -> list[tuple[int, str]]:
    """The non-empty lines of a text file with their line numbers; raises `FileFormatError` when there is none."""
    lines = [
        (number, unescape(line) if escapes else line)
        for number, line in enumerate(read_text(path).split("\n"), 1)
        if line
    ]
    if not lines:
        raise FileFormatError(f"{path}: holds no text", "write one prompt a line")
    if len(lines) > MAX_PAIRS:
        raise FileFormatError(f"{path}: has {len(lines)} lines, at most {MAX_PAIRS} are read", "use fewer")
    return lines


def read_suffixes(path: Path | str) -> tuple[str, ...]:
    """Suffixes from a .json file (a list of texts, as repeng ships them) or a text file with one a line."""
    path = Path(path)
    if path.suffix.lower() != ".json":
        return tuple(text for _, text in read_prompts(path, escapes=False))
    value = _json(path, 1, read_text(path))
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise FileFormatError(f"{path}: is not a list of texts", 'write ["…", "…"]')
    for number, text in enumerate(value, 1):
        problem = problem_of_text(text)
        if problem is not None:
            raise FileFormatError(f"{path}: text {number} {problem[0]}", problem[1])
    return tuple(value)


_ESCAPE = re.compile(r"\\(?:([nrt'\"\\])|x([0-9a-fA-F]{2}))")
_ESCAPED: Mapping[str, str] = MappingProxyType({"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"})


def unescape(text: str) -> str:
    r"""Replace the escapes that llama.cpp's tools know; anything else stays as it is.

    >>> unescape(r"a\nb\\c\x41\q")
    'a\nb\\cA\\q'
    """
    return _ESCAPE.sub(lambda match: _ESCAPED[match[1]] if match[1] else chr(int(match[2], 16)), text)


Row = tuple[int, Any]


def _jsonl_rows(path: Path, text: str) -> list[Row]:
    return [(number, _json(path, number, line)) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _json(path: Path, line: int, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise FileFormatError(
            f"{path}: line {line + error.lineno - 1}, column {error.colno}: is not JSON: {error.msg}",
            'write {"positive": "…", "negative": "…"} on each line',
        ) from error
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: line {line}: is not usable JSON: {error}", "write it plainly") from error


def _csv_rows(path: Path, text: str) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        rows.extend((reader.line_num, row) for row in reader if any(cell.strip() for cell in row))
    except csv.Error as error:
        raise FileFormatError(
            f"{path}: line {reader.line_num}: is not CSV: {error}", 'double the quotes inside quoted cells: ""'
        ) from error
    if rows and set(_SIDES) <= {cell.strip().lower() for cell in rows[0][1]}:
        names = [cell.strip().lower() for cell in rows[0][1]]
        return [(line, _named(path, line, names, row)) for line, row in rows[1:]]
    return rows


def _named(path: Path, line: int, names: list[str], row: list[str]) -> dict[str, str]:
    if len(row) != len(names):
        raise FileFormatError(
            f"{path}: line {line}: has {len(row)} cells under {len(names)} column names", "quote cells that hold commas"
        )
    return dict(zip(names, row, strict=True))


def _txt_rows(_path: Path, text: str) -> list[Row]:
    return [(number, line.split("\t")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


_READERS: Mapping[str, Callable[[Path, str], list[Row]]] = MappingProxyType(
    {".jsonl": _jsonl_rows, ".csv": _csv_rows, ".txt": _txt_rows, ".tsv": _txt_rows}
)


def _pair(path: Path, line: int, row: Any) -> Pair:
    if isinstance(row, list):
        if len(row) != 2:
            tab = ", separated by one tab" if path.suffix.lower() in (".txt", ".tsv") else ""
            raise FileFormatError(
                f"{path}: line {line}: has {len(row)} texts, not 2", f"give a positive and a negative text{tab}"
            )
        row = dict(zip(_SIDES, row, strict=True))
    if not isinstance(row, dict):
        raise FileFormatError(
            f"{path}: line {line}: is {row!r:.60}, not a pair", 'write {"positive": …, "negative": …}'
        )
    known = {*_SIDES, "prompt"}
    for key in (*_SIDES, *row):
        if key not in row:
            raise FileFormatError(f"{path}: line {line}: key '{key}' is missing", "give both sides")
        if key not in known:
            raise FileFormatError(f"{path}: line {line}: key '{key}' is not known", f"use {', '.join(sorted(known))}")
        if not isinstance(row[key], str):
            raise FileFormatError(
                f"{path}: line {line}: key '{key}' is {row[key]!r:.60}, not a text", "put it in quotes"
            )
    problem = problem_of_pair(row["positive"], row["negative"], row.get("prompt"))
    if problem is not None:
        raise FileFormatError(f"{path}: line {line}: {problem[0]}", problem[1])
    return Pair(**row)


def _check_all(path: Path, pairs: list[Pair], lines: list[int]) -> None:
    if not pairs:
        raise FileFormatError(f"{path}: holds no pair", "write one pair a line")
    if len(pairs) > MAX_PAIRS:
        raise FileFormatError(f"{path}: has {len(pairs)} pairs, at most {MAX_PAIRS} are read", "use fewer")
    problem = problem_of_pairs(pairs)
    if problem is not None:
        index, what, mend = problem
        raise FileFormatError(f"{path}: line {lines[index]}: {what}", mend)
