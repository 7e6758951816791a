"""The commands of the chat: one table of how each is called, explained and completed, for every front end.

A line that begins with a slash is a command; two slashes are a question that begins with one. What a command does is
`chat_actions`' business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ggufsteer.engine.builtin import BUILTIN, builtin_vectors
from ggufsteer.errors import SteerError
from ggufsteer.tasks import chat_actions as act
from ggufsteer.tasks import presets
from ggufsteer.tasks.chat_options import POLICIES
from ggufsteer.tasks.equaliser import DECIDED, OPERATIONS, SCOPES
from ggufsteer.text import clean, nearest

if TYPE_CHECKING:
    from ggufsteer.tasks.chat import Chat

Complete = Callable[["Chat", str], Iterable[str]]
"""Takes what was typed of a word, gives the words that could be meant."""
_WIDEST_USAGE = 26
"""Columns; a longer usage gets a line of its own."""
MOST_COMPLETIONS = 200
"""Of a folder with more files, only these are offered."""


@dataclass(frozen=True)
class Command:
    """One command."""

    name: str
    arguments: str
    """As help shows them: brackets for what may be left out, capitals for what is to be replaced."""
    summary: str
    example: str
    run: Callable[[Chat, str], list[str]]
    complete: tuple[Complete, ...] = ()
    """For each word behind the command in turn."""


def _choices(*words: str) -> Complete:
    return lambda _chat, _typed: words


def _vectors(chat: Chat, typed: str) -> Iterable[str]:  # noqa: ARG001  # a `Complete`
    return [slider.name for slider in chat.equaliser.sliders]


def _presets(chat: Chat, typed: str) -> Iterable[str]:  # noqa: ARG001  # a `Complete`
    return presets.preset_names()


def _commands(chat: Chat, typed: str) -> Iterable[str]:  # noqa: ARG001  # a `Complete`
    return COMMANDS


def _files(chat: Chat, typed: str) -> Iterable[str]:  # noqa: ARG001  # a `Complete`
    """Name the files and folders that begin so; those with letters that must not be shown are left out."""
    folder, _, beginning = typed.rpartition("/")
    place = Path(act.expanded(f"{folder}/" if "/" in typed else "."))
    before = f"{folder}/" if "/" in typed else ""
    found = []
    try:
        for entry in place.iterdir():
            hidden = entry.name.startswith(".") and not beginning.startswith(".")
            if entry.name.startswith(beginning) and not hidden and clean(entry.name) == entry.name:
                found.append(f"{before}{entry.name}{'/' if entry.is_dir() else ''}")
    except (OSError, ValueError):
        return []  # there is nothing to offer; the command itself will say what is wrong
    return sorted(found)[:MOST_COMPLETIONS]


def _vector_files(chat: Chat, typed: str) -> Iterable[str]:
    """Name the vectors that ship, where they fit the model or are asked for, and the files."""
    fit = chat.options.load.model == BUILTIN or typed.startswith(f"{BUILTIN}:")
    return [*(f"{BUILTIN}:{name}" for name in builtin_vectors() if fit), *_files(chat, typed)]


def _gate_values(chat: Chat, typed: str) -> Iterable[str]:
    return [*_vectors(chat, typed), *DECIDED]


def _help(chat: Chat, rest: str) -> list[str]:  # noqa: ARG001  # an action
    words = act.parts(rest, 0, 1, "/help, or /help COMMAND")
    if not words:
        return help_text().split("\n")
    one = _found(words[0].removeprefix("/"), COMMANDS)
    return [_usage(one), one.summary, f"example: {one.example}"]


_ON_OFF = _choices(*act.SWITCH)
_GATE = _choices("condition", "above", "on")
_TABLE = (
    Command("help", "[COMMAND]", "Show all commands, or one.", "/help strength", _help, (_commands,)),
    Command("quit", "", "Leave.", "/quit", act.method("quit")),
    Command("new", "", "Begin a new conversation; /redo brings the old one back.", "/new", act.method("new")),
    Command("regenerate", "", "Answer the last question again.", "/regenerate", act.method("regenerate")),
    Command("continue", "", "Go on writing the last answer.", "/continue", act.method("continue_answer")),
    Command("stop", "", "Stop the answer that is being written.", "/stop", act.method("stop")),
    Command("edit", "[TEXT]", "Change the last question; the old one stays as a branch.", "/edit Why?", act.edit),
    Command("rewrite", "TEXT", "Put a text of yours in the place of the last answer.", "/rewrite I am.", act.rewrite),
    Command("undo", "", "Take back the last question and its answer.", "/undo", act.method("undo")),
    Command("redo", "", "Take back an undo.", "/redo", act.method("redo")),
    Command(
        "branch", "[next|previous|N]", "Go to another version of what was said.", "/branch next", act.branch,
        (_choices("next", "previous"),),
    ),
    Command("system", "[TEXT|none]", "Show or set the system prompt.", "/system Be brief.", act.system),
    Command(
        "set", "[temperature|top-p|seed|max-tokens VALUE]", "Show or set how words are chosen.",
        "/set temperature 0.7", act.set_sampling, (_choices(*act.SAMPLING_KEYS),),
    ),
    Command("vectors", "", "Show all vectors and how they steer.", "/vectors", act.vectors),
    Command(
        "add", "FILE[:STRENGTH]", "Add a control vector: a file, or builtin:NAME.", "/add happy.gguf:0.8", act.add,
        (_vector_files,),
    ),
    Command("remove", "NAME", "Remove a vector.", "/remove happy", act.remove, (_vectors,)),
    Command(
        "strength", "NAME N", "Set a strength: 1 is recommended, 0 is off. Shorter: /NAME N.", "/strength happy 0.5",
        act.strength, (_vectors,),
    ),
    Command("mute", "NAME", "Mute a vector, or no longer.", "/mute happy", act.mute, (_vectors,)),
    Command("solo", "NAME", "Let only this vector steer, or all again.", "/solo happy", act.solo, (_vectors,)),
    Command(
        "reset", "[NAME]", "Set a vector, or all, to 0, and take back all else that was set.", "/reset happy",
        act.reset, (_vectors,),
    ),
    Command(
        "layers", "NAME FIRST-LAST|all", "Choose the layers that a vector acts on.", "/layers happy 2-4", act.layers,
        (_vectors, _choices("all")),
    ),
    Command(
        "operation", "NAME add|ablate|clamp|gate", "Add it, take it out, hold it fast, or add it behind a gate.",
        "/operation happy ablate", act.operation, (_vectors, _choices(*OPERATIONS)),
    ),
    Command(
        "scope", "NAME all|prompt|answer", "Choose which tokens are steered.", "/scope happy answer", act.scope,
        (_vectors, _choices(*SCOPES)),
    ),
    Command(
        "thinking", "NAME on|off", "Choose whether the block of thoughts is steered too.", "/thinking happy off",
        act.thinking, (_vectors, _ON_OFF),
    ),
    Command(
        "gate", "NAME [condition NAME] [above N] [on prompt|token]", "Steer only where a concept is expressed.",
        "/gate happy above 0.5 on token", act.gate,
        (_vectors, _GATE, _gate_values, _GATE, _gate_values, _GATE, _gate_values),
    ),
    Command(
        "preset", "save|load|delete NAME, or list", "Keep or use the setting of all sliders.", "/preset list",
        act.preset, (_choices("save", "load", "list", "delete"), _presets),
    ),
    Command(
        "policy", "[here|always]", "Whether moved sliders count from here on, or as if always.", "/policy always",
        act.policy, (_choices(*POLICIES),),
    ),
    Command(
        "compare", "[on|off]", "Answer each question twice: without and with steering (A/B).", "/compare on",
        act.compare, (_ON_OFF,),
    ),
    Command(
        "meter", "[on|off]", "Measure how strongly each word of what comes expresses each vector.", "/meter on",
        act.meter, (_ON_OFF,),
    ),
    Command("command", "", "Show the command lines for what is set, stock llama.cpp's too.", "/command", act.command),
    Command("save", "FILE", "Write the conversation into a file.", "/save talk.json", act.save, (_files,)),
    Command("load", "FILE", "Go on with a saved conversation.", "/load talk.json", act.load, (_files,)),
    Command("stats", "", "Show speed and memory.", "/stats", act.stats),
    Command("restart", "", "Start the model's process anew.", "/restart", act.method("restart")),
)  # fmt: skip
COMMANDS: Mapping[str, Command] = {command.name: command for command in _TABLE}
ALIASES: Mapping[str, str] = {"exit": "quit", "regen": "regenerate", "clear": "new", "read": "load", "?": "help"}
"""What other programs call some of them."""


def run(chat: Chat, line: str) -> list[str]:
    """Carry out a line that begins with a slash; gives the lines to show.

    Raises:
        SteerError: There is no such command, with the nearest known one, or its words cannot be meant.
    """
    if line.startswith("//"):
        chat.send(line[1:])
        return []
    name, _, rest = line.removeprefix("/").strip().partition(" ")
    rest = rest.strip()
    is_vector = any(slider.name == name for slider in chat.equaliser.sliders)
    if is_vector and name not in COMMANDS and name not in ALIASES:
        return act.strength(chat, f"{name} {rest}")
    return _found(name, [*COMMANDS, *_vectors(chat, "")]).run(chat, rest)


def complete(chat: Chat, text: str) -> list[str]:
    """Give the whole lines that could be meant by the beginning of a command; none for anything else."""
    if not text.startswith("/") or text.startswith("//"):
        return []
    *before, typed = text.split(" ")
    if not before:
        names = [*COMMANDS, *(name for name in _vectors(chat, "") if name not in COMMANDS)]
        return [f"/{name}" for name in names if name.startswith(typed[1:])]
    command = COMMANDS.get(ALIASES.get(before[0][1:], before[0][1:]))
    if command is None or not command.complete:
        return []
    if command.complete[0] in (_files, _vector_files):
        # The one argument is everything behind the command, spaces included.
        before, typed = before[:1], text[len(before[0]) + 1 :]
    place = len(before) - 1
    if place >= len(command.complete):
        return []
    words = command.complete[place](chat, typed)
    return [" ".join([*before, word]) for word in words if word.startswith(typed)]


def help_text() -> str:
    """Explain all commands, a line each, in the order of the table."""
    width = max(len(_usage(command)) for command in _TABLE if len(_usage(command)) <= _WIDEST_USAGE)
    lines = []
    for command in _TABLE:
        usage = _usage(command)
        if len(usage) > width:
            lines.append(usage)
            usage = ""
        lines.append(f"{usage:<{width}}  {command.summary}")
    return "\n".join(lines)


def _usage(command: Command) -> str:
    return f"/{command.name} {command.arguments}".rstrip()


def _found(name: str, known: Iterable[str]) -> Command:
    command = COMMANDS.get(ALIASES.get(name, name))
    if command is None:
        near = nearest(name, known)
        raise SteerError(f"there is no command /{clean(name)}", f"did you mean /{near}?" if near else "see /help")
    return command
