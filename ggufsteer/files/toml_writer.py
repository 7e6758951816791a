"""Writing nested tables as TOML that people like to edit: one entry a line, no reflowing, always the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_WIDTH = 100


def toml_text(table: Mapping[str, Any]) -> str:
    """Spell a table as TOML: plain keys first, then its tables under their headings. None and empty lists are left out.

    Values may be texts, finite numbers, booleans, lists, and tables; tables inside lists become inline tables.
    """
    plain = [f"{key} = {_value(value)}\n" for key, value in table.items() if _is_there(value) and not _is_table(value)]
    parts = ["".join(plain)]
    for key, value in table.items():
        if _is_table(value) and any(_is_there(entry) for entry in value.values()):
            lines = [f"{name} = {_value(entry)}\n" for name, entry in value.items() if _is_there(entry)]
            parts.append(f"\n[{key}]\n" + "".join(lines))
    return "".join(parts)


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_there(value: object) -> bool:
    return value is not None and value not in ((), [], {})


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
    entries = [_value(entry) for entry in value]
    in_one_line = "[" + ", ".join(entries) + "]"
    if len(in_one_line) <= _WIDTH:
        return in_one_line
    return "[\n" + "".join(f"    {entry},\n" for entry in entries) + "]"
