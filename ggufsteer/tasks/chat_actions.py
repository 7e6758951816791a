"""What each command of the chat does, as functions of the chat and the words behind the command.

They give lines to show at once; what comes later, the chat tells. What cannot be meant raises `SteerError`. How a
command is called, explained and completed is the business of the table.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ggufsteer.engine.messages import SamplingSettings
from ggufsteer.errors import SteerError
from ggufsteer.tasks import presets
from ggufsteer.tasks.chat_options import POLICIES
from ggufsteer.tasks.chat_vectors import named_vector
from ggufsteer.tasks.equaliser import Slider
from ggufsteer.tasks.notices import State
from ggufsteer.text import clean, nearest

if TYPE_CHECKING:
    from ggufsteer.tasks.chat import Chat

SAMPLING_KEYS = {"temperature": "temperature", "top-p": "top_p", "seed": "seed", "max-tokens": "max_tokens"}
SWITCH = ("on", "off")


def parts(rest: str, least: int, most: int, usage: str) -> list[str]:
    """Divide the words behind a command; raises `SteerError` with the usage for too few or too many."""
    words = rest.split()
    if not least <= len(words) <= most:
        raise SteerError("too few words" if len(words) < least else "too many words", f"write {usage}")
    return words


def expanded(path: str) -> str:
    """Put the person's home in the place of a ~ at the beginning."""
    return os.path.expanduser(path)  # noqa: PTH111  # Path.expanduser fails where there is no such person


def number(text: str, what: str) -> float:
    """Read a number; raises `SteerError` when it is none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SteerError(f"{what}: '{clean(text)}' is no number", "write one such as 1 or -0.5")
    return value


def choice(text: str, what: str, choices: Sequence[str]) -> str:
    """Read one of a few words; raises `SteerError` with the nearest one."""
    if text not in choices:
        known = nearest(text, choices)
        mend = f"did you mean '{known}'?" if known else f"write one of {', '.join(choices)}"
        raise SteerError(f"{what}: '{clean(text)}' is none of the choices", mend)
    return text


def describe(chat: Chat, slider: Slider) -> str:
    """Say in one line how a vector steers."""
    words = [f"{slider.name}: strength {slider.strength:g}"]
    if slider.maximum is not None:
        words.append(f"at most {slider.maximum:g}")
    if chat.equaliser.beyond(slider):
        words.append("! beyond what is known to stay fluent")
    if slider.muted:
        words.append("muted")
    elif not chat.equaliser.audible(slider) and slider.strength != 0:
        words.append("silenced by another's solo")
    words += ["solo"] if slider.solo else []
    words += [slider.operation] if slider.operation != "add" else []
    if slider.operation == "gate":
        words.append(f"if {slider.condition or slider.name} is above {slider.threshold:g}")
        words.append("decided on the prompt" if slider.decided == "prompt" else "decided for each token")
    words += [_layers_in_words(*slider.layers)] if slider.layers else []
    words += [f"only the {slider.scope}"] if slider.scope != "all" else []
    words += [] if slider.thinking else ["not the thoughts"]
    return ", ".join(words)


def _layers_in_words(first: int, last: int) -> str:
    return f"layer {first}" if first == last else f"layers {first}-{last}"


def _changed(chat: Chat, name: str) -> list[str]:
    chat.settings_changed()
    return [describe(chat, chat.equaliser.slider(name))]


# -- sliders -----------------------------------------------------------------------------------------------------------


def vectors(chat: Chat, rest: str) -> list[str]:
    """List the sliders."""
    parts(rest, 0, 0, "/vectors")
    return [describe(chat, slider) for slider in chat.equaliser.sliders] or ["no vector is loaded: /add FILE"]


def add(chat: Chat, rest: str) -> list[str]:
    """Add a vector."""
    if not rest:
        raise SteerError("which file?", "write /add FILE or /add FILE:STRENGTH")
    chat.add_vector(*named_vector(expanded(rest)))
    return []


def remove(chat: Chat, rest: str) -> list[str]:
    """Remove a vector."""
    (name,) = parts(rest, 1, 1, "/remove NAME")
    return [f"{name} is removed"] if chat.remove_vector(name) else []


def strength(chat: Chat, rest: str) -> list[str]:
    """Set a strength."""
    name, value = parts(rest, 2, 2, "/strength NAME N")
    chat.equaliser.set_strength(name, number(value, f"strength of {name}"))
    lines = _changed(chat, name)
    if chat.conversation.last_answer is not None and chat.state is State.READY and not chat.told_when_it_counts:
        chat.told_when_it_counts = True
        lines.append("from the next answer on; /regenerate answers the last question under it")
    return lines


def mute(chat: Chat, rest: str) -> list[str]:
    """Mute a slider, or no longer."""
    (name,) = parts(rest, 1, 1, "/mute NAME")
    chat.equaliser.mute(name)
    return _changed(chat, name)


def solo(chat: Chat, rest: str) -> list[str]:
    """Let only one slider steer, or all again."""
    (name,) = parts(rest, 1, 1, "/solo NAME")
    chat.equaliser.solo(name)
    return _changed(chat, name)


def reset(chat: Chat, rest: str) -> list[str]:
    """Reset one slider, or all."""
    names = parts(rest, 0, 1, "/reset or /reset NAME")
    if names:
        chat.equaliser.reset(names[0])
        return _changed(chat, names[0])
    chat.equaliser.reset_all()
    chat.settings_changed()
    return ["all strengths are 0"]


def layers(chat: Chat, rest: str) -> list[str]:
    """Choose the layers of a slider."""
    name, wanted = parts(rest, 2, 2, "/layers NAME FIRST-LAST, or /layers NAME all")
    first, _, last = wanted.partition("-")
    if wanted == "all":
        chat.equaliser.set_layers(name, None)
    elif first.isdecimal() and (last or first).isdecimal():
        chat.equaliser.set_layers(name, (int(first), int(last or first)))
    else:
        raise SteerError(f"'{clean(wanted)}' are no layers", "write them as in 3-9, or all")
    return _changed(chat, name)


def operation(chat: Chat, rest: str) -> list[str]:
    """Choose what is done with a vector."""
    name, wanted = parts(rest, 2, 2, "/operation NAME add, ablate, clamp or gate")
    chat.equaliser.set_operation(name, wanted)
    return _changed(chat, name)


def scope(chat: Chat, rest: str) -> list[str]:
    """Choose which tokens are steered."""
    name, wanted = parts(rest, 2, 2, "/scope NAME all, prompt or answer")
    chat.equaliser.set_scope(name, wanted)
    return _changed(chat, name)


def thinking(chat: Chat, rest: str) -> list[str]:
    """Choose whether the block of thoughts is steered."""
    name, wanted = parts(rest, 2, 2, "/thinking NAME on or off")
    chat.equaliser.set_scope(name, thinking=choice(wanted, "thinking", SWITCH) == "on")
    return _changed(chat, name)


def gate(chat: Chat, rest: str) -> list[str]:
    """Make a slider a gate, and choose what opens it."""
    usage = "/gate NAME [condition NAME] [above N] [on prompt|token]"
    name, *words = parts(rest, 1, 7, usage)
    chat.equaliser.slider(name)
    if len(words) % 2:
        raise SteerError(f"'{clean(words[-1])}' stands alone", f"write {usage}")
    wanted: dict[str, str] = {}
    for key, value in zip(words[::2], words[1::2], strict=True):
        wanted[choice(key, "gate", ("condition", "above", "on"))] = value
    above = number(wanted["above"], "above") if "above" in wanted else None
    chat.equaliser.set_gate(name, condition=wanted.get("condition"), threshold=above, decided=wanted.get("on"))
    chat.equaliser.set_operation(name, "gate")
    return _changed(chat, name)


def preset(chat: Chat, rest: str) -> list[str]:
    """Keep, use, list or delete presets."""
    what, *names = parts(rest, 1, 2, "/preset save NAME, load NAME, delete NAME, or list")
    choice(what, "preset", ("save", "load", "list", "delete"))
    if what == "list" and not names:
        return presets.preset_names() or ["there is no preset: /preset save NAME"]
    if what == "list" or not names:
        raise SteerError("too many words" if names else "which preset?", "write /preset save NAME, or /preset list")
    if what == "save":
        return [f"saved: {presets.save_preset(names[0], chat.equaliser)}"]
    if what == "delete":
        presets.delete_preset(names[0])
        return [f"the preset {names[0]} is deleted"]
    remarks = chat.equaliser.apply_preset(presets.load_preset(names[0]))
    chat.settings_changed()
    return [*remarks, *vectors(chat, "")]


# -- how it answers ----------------------------------------------------------------------------------------------------


def set_sampling(chat: Chat, rest: str) -> list[str]:
    """Show or set how tokens are chosen."""
    words = parts(rest, 0, 2, "/set, or /set temperature, top-p, seed or max-tokens VALUE")
    if len(words) == 1:
        raise SteerError("which value?", f"write /set {clean(words[0])} VALUE")
    if words:
        key = SAMPLING_KEYS[choice(words[0], "set", tuple(SAMPLING_KEYS))]
        unlimited = key == "max_tokens" and words[1] in ("none", "-1")
        value = None if unlimited else number(words[1], words[0])
        if value is not None and key in ("seed", "max_tokens"):
            if value != int(value):
                raise SteerError(f"{words[0]}: {words[1]} is no whole number", "write one such as 7")
            value = int(value)
        try:
            chat.sampling = SamplingSettings(**{**chat.sampling.model_dump(), key: value})
        except ValidationError as error:
            raise SteerError(f"{words[0]}: {words[1]}: {error.errors()[0]['msg']}", "write another value") from error
    values = chat.sampling.model_dump()
    return [f"{name}: {'none' if values[key] is None else values[key]}" for name, key in SAMPLING_KEYS.items()]


def system(chat: Chat, rest: str) -> list[str]:
    """Show, set or take away the system prompt."""
    if rest:
        chat.set_system("" if rest == "none" else rest)
    return [f"system prompt: {chat.conversation.system or 'none'}"]


def policy(chat: Chat, rest: str) -> list[str]:
    """Choose what a moved slider means for what was said before."""
    words = parts(rest, 0, 1, "/policy here, or /policy always")
    if words:
        chat.policy = POLICIES[choice(words[0], "policy", tuple(POLICIES))]
    return [f"sliders count {chat.policy}"]


def compare(chat: Chat, rest: str) -> list[str]:
    """Answer with and without steering, side by side."""
    chat.compare = _switched(rest, "compare", chat.compare)
    if not chat.compare:
        return ["one answer a question"]
    lines = ["each question is answered without and with steering"]
    return (
        lines if chat.equaliser.settings() else [*lines, "nothing steers now: until a slider is moved it is one answer"]
    )


def meter(chat: Chat, rest: str) -> list[str]:
    """Measure how strongly each token expresses each vector."""
    chat.meter = _switched(rest, "meter", chat.meter)
    chat.settings_changed()
    return [f"the meter is {'on' if chat.meter else 'off'}"]


def _switched(rest: str, what: str, value: bool) -> bool:
    words = parts(rest, 0, 1, f"/{what} on or off")
    return choice(words[0], what, SWITCH) == "on" if words else not value


# -- the conversation --------------------------------------------------------------------------------------------------


def edit(chat: Chat, rest: str) -> list[str]:
    """Change the last question: give its text to be changed, or ask another text in its place."""
    text = chat.edit_last()
    if text and rest:
        chat.send(rest)
    elif text:
        chat.draft(text)
    return []


def rewrite(chat: Chat, rest: str) -> list[str]:
    """Put another text in the place of the last answer."""
    chat.rewrite_answer(rest)
    return []


def branch(chat: Chat, rest: str) -> list[str]:
    """Say which branch this is, or go to another."""
    words = parts(rest, 0, 1, "/branch, or /branch next, previous or N")
    fork = chat.conversation.fork
    if words and words[0].isdecimal() and fork is not None:
        branches = chat.conversation.siblings(fork)
        if not 1 <= int(words[0]) <= len(branches):
            raise SteerError(f"there is no branch {words[0]}", f"there are 1 to {len(branches)}")
        moved = chat.switch_branch(int(words[0]) - 1 - branches.index(fork))
    elif words:
        steps = {"next": 1, "previous": -1}
        step = 1 if words[0].isdecimal() else steps[choice(words[0], "branch", tuple(steps))]
        moved = chat.switch_branch(step)
    else:
        moved = True
    fork = chat.conversation.fork
    if fork is None or not moved:
        return ["there is only one branch"] if moved else []
    branches = chat.conversation.siblings(fork)
    return [f"branch {branches.index(fork) + 1} of {len(branches)}"]


def method(name: str) -> Callable[[Chat, str], list[str]]:
    """Name a method of the chat that takes nothing and tells by itself what it did."""

    def call(chat: Chat, rest: str) -> list[str]:
        parts(rest, 0, 0, "the command alone")
        getattr(chat, name)()
        return []

    return call


# -- files and the process ---------------------------------------------------------------------------------------------


def save(chat: Chat, rest: str) -> list[str]:
    """Write the conversation into a file."""
    chat.save(_file(rest, "/save FILE"))
    return []


def load(chat: Chat, rest: str) -> list[str]:
    """Go on with a saved conversation."""
    chat.load(_file(rest, "/load FILE"))
    return []


def _file(rest: str, usage: str) -> str:
    if not rest:
        raise SteerError("which file?", f"write {usage}")
    return expanded(rest)


def command(chat: Chat, rest: str) -> list[str]:
    """Show the command lines for what is set."""
    parts(rest, 0, 0, "/command")
    return [line for text in chat.llama_command() for line in text.split("\n")]


def stats(chat: Chat, rest: str) -> list[str]:
    """Say how fast the last answer was, and ask the process how it is."""
    parts(rest, 0, 0, "/stats")
    chat.ask_statistics()
    last = chat.last_finished
    if last is None:
        return []
    n_read = last.n_prompt - last.n_reused
    lines = [f"read: {n_read} tokens{_rate(n_read, last.prompt_seconds)}, {last.n_reused} were in memory"]
    lines.append(f"written: {last.n_answer} tokens{_rate(last.n_answer, last.answer_seconds)}")
    lines += [f"the meter costs {last.meter_cost:.0%} of the speed"] if last.meter_cost is not None else []
    lines += [f"gate {name}: {'opened' if opened else 'stayed closed'}" for name, opened in last.gates.items()]
    return lines


def _rate(n_tokens: int, seconds: float) -> str:
    return f" ({n_tokens / seconds:.1f} a second)" if n_tokens and seconds > 0 else ""
