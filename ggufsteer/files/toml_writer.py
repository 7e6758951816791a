"""Writing nested tables as TOML that people like to edit: one entry a line, no reflowing, always the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_WIDTH = 100


def toml_pieces(table: Mapping[str, Any]) -> Iterator[str]:
    """Spell a table as TOML, in pieces: plain keys first, then its tables under their headings.

    None and empty lists are left out. Values may be texts, finite numbers, booleans, tables, and lists, for which any
    iterable stands; it is gone through once, without keeping its entries. Tables inside lists become inline tables.
    """
    for key, value in table.items():
        if _is_there(value) and not _is_table(value):
            yield from _line(key, value)
    for key, value in table.items():
        if _is_table(value) and any(_is_there(entry) for entry in value.values()):
            yield f"\n[{key}]\n"
            for name, entry in value.items():
                if _is_there(entry):
                    yield from _line(name, entry)


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_there(value: object) -> bool:
    return value is not None and value not in ((), [], {})


def _line(key: str, value: Any) -> Iterator[str]:
    yield f"{key} = "
    yield from [_value(value)] if isinstance(value, (str, int, float, Mapping)) else _list(value)
    yield "\n"


def _list(entries: Iterable[Any]) -> Iterator[str]:
    """Spell a list in one line where it fits; else one entry a line."""
    spelt = map(_value, entries)
    first: list[str] = []
    width = len("[]")
    for entry in spelt:
        width += len(entry) + (len(", ") if first else 0)
        first.append(entry)
        if width > _WIDTH:
            yield "[\n"
            yield from (f"    {entry},\n" for entry in first)
            yield from (f"    {entry},\n" for entry in spelt)
            yield "]"
            return
    yield f"[{', '.join(first)}]"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but TOML also wants DEL escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(entry)}" for key, entry in value.items() if _is_there(entry)) + " }"
    return "".join(_list(value))
