"""`ggufsteer chat`: options, and the choice between the screen and the line mode.

It decides what a chat is begun with. The conversation, the commands and the model's process are below; neither front
end is imported before it is wanted, and llama.cpp is loaded only by the model's process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ggufsteer.cli.options import BUILTIN, WholeNumber, debug_option, model_options, producer_option, seed_option
from ggufsteer.errors import SteerError

if TYPE_CHECKING:
    from ggufsteer.engine.messages import Event
    from ggufsteer.tasks.chat import Chat, ChatOptions
    from ggufsteer.tasks.notices import Notice

MakeChat = Callable[[Callable[["Event"], None], Callable[["Notice"], None]], "Chat"]
"""Makes a chat of what takes the events of the model's process, from any thread, and what takes the chat's notices."""


@click.command("chat")
@click.option(
    "--vector",
    "vectors",
    metavar="FILE[:STRENGTH]",
    multiple=True,
    help="A control vector, at its recommended strength unless another is given; may be repeated. "
    f"{BUILTIN}:NAME is one that comes with ggufsteer, hf:USER/REPOSITORY/FILE.gguf one from the hub.",
)
@click.option(
    "-sys", "--system-prompt", "system", metavar="TEXT", default="", show_default="none", help="A system prompt."
)
@click.option(
    "--temp",
    "--temperature",
    "temperature",
    metavar="N",
    type=float,
    default=0.8,
    show_default=True,
    help="0 takes the likeliest token each time, 1 draws as the model would.",
)
@click.option(
    "--top-p",
    metavar="N",
    type=float,
    default=0.95,
    show_default=True,
    help="Draw only from the likeliest tokens that together have this probability.",
)
@click.option(
    "-n",
    "--predict",
    "--n-predict",
    "max_tokens",
    metavar="N",
    envvar="LLAMA_ARG_N_PREDICT",
    show_envvar=True,
    default=-1,
    show_default="until the model ends",
    type=WholeNumber(-1),
    help="Most tokens an answer.",
)
@click.option(
    "--policy",
    type=click.Choice(["here", "always"]),
    default="here",
    show_default=True,
    help="What a moved slider means for what was said before: nothing (from here on), or that it is read again as if "
    "the slider had always stood so.",
)
@producer_option
@click.option("--force", is_flag=True, help="Use vectors although they were made from another model file.")
@click.option(
    "--run",
    "commands",
    metavar="COMMAND",
    multiple=True,
    help="Run a /command of the chat first, such as '/compare on'; may be repeated.",
)
@click.option("--plain", is_flag=True, help="Lines of text instead of a screen, for pipes and screen readers.")
@seed_option
@model_options
@debug_option
def chat_command(plain: bool, commands: tuple[str, ...], **flags: Any) -> None:
    """Talk to a model, and steer it while it talks.

    Called with nothing at all it takes the small model that comes with ggufsteer, and its vectors at strength 0.
    /help lists the commands of the chat. Without a terminal it is --plain.
    """
    options = _options(flags)
    make_chat = _maker(options)
    if plain or not (sys.stdin.isatty() and sys.stdout.isatty()):
        from ggufsteer.cli.plain_chat import run_plain

        sys.exit(run_plain(make_chat, commands))
    from ggufsteer.tui.app import run_screen

    sys.exit(run_screen(_with_commands(make_chat, commands)))


def _options(flags: dict[str, Any]) -> ChatOptions:
    """Check what was asked for and put it together; everything that can be refused without a model is refused here."""
    from pydantic import ValidationError

    from ggufsteer.cli.model_choice import find_model
    from ggufsteer.engine.messages import Load, SamplingSettings
    from ggufsteer.files.hub_names import is_hub_name
    from ggufsteer.tasks.chat import ChatOptions
    from ggufsteer.tasks.chat_options import POLICIES
    from ggufsteer.tasks.chat_vectors import is_file

    if flags["ubatch_size"] > flags["batch_size"]:
        raise SteerError(
            f"--ubatch-size {flags['ubatch_size']} is larger than --batch-size {flags['batch_size']}",
            "a batch is computed in micro-batches: give -ub at most the value of -b",
        )
    try:
        sampling = SamplingSettings(
            temperature=flags["temperature"],
            top_p=flags["top_p"],
            seed=flags["seed"] or 0,
            max_tokens=flags["max_tokens"] if flags["max_tokens"] > 0 else None,
        )
    except ValidationError as error:
        problem = error.errors()[0]
        name = {"temperature": "--temp", "top_p": "--top-p"}.get(str(problem["loc"][0]), str(problem["loc"][0]))
        raise SteerError(f"{name} {problem['input']}: {problem['msg']}", "see `ggufsteer chat --help`") from error
    model = str(find_model(flags["model"])) if is_hub_name(flags["model"]) else flags["model"] or BUILTIN
    if model != BUILTIN and not is_file(model):
        raise SteerError(f"{model}: no such file", "check the path, or leave -m out for the model that ships")
    return ChatOptions(
        load=Load(
            model=model,
            n_gpu_layers=flags["gpu_layers"],
            n_ctx=flags["ctx_size"],
            n_threads=flags["threads"] if flags["threads"] > 0 else None,
            n_batch=flags["batch_size"],
            n_ubatch=flags["ubatch_size"],
            flash_attention=flags["flash_attn"],
        ),
        vectors=_vectors(flags["vectors"], flags["model"]),
        system=flags["system"],
        sampling=sampling,
        policy=POLICIES[flags["policy"]],
        force=flags["force"],
        producer=flags["producer"],
    )


def _vectors(named: Sequence[str], model: str | None) -> tuple[tuple[str, float | None], ...]:
    """Find the files of the vectors that were named; without a model and a vector, those that ship, all at 0."""
    from ggufsteer.cli.model_choice import find_vector_with_strength
    from ggufsteer.tasks.chat_vectors import is_file

    if not named and model is None:
        from ggufsteer.engine.builtin import builtin_vectors

        return tuple((str(path), 0.0) for path in builtin_vectors().values())
    found = []
    for text in named:
        path, strength = find_vector_with_strength(text)
        if not is_file(path):
            raise SteerError(f"--vector {path}: no such file", f"check the path; {BUILTIN}:NAME is a vector that ships")
        found.append((path, strength))
    return tuple(found)


def _maker(options: ChatOptions) -> MakeChat:
    """Return what makes the chat, once a front end is there to listen."""
    from ggufsteer.engine.worker import Worker
    from ggufsteer.tasks.chat import Chat

    return lambda on_event, listener: Chat(Worker(on_event), options, listener)


def _with_commands(make_chat: MakeChat, commands: Sequence[str]) -> MakeChat:
    """Have commands run once the model is there; what they answer is said."""
    if not commands:
        return make_chat

    def make(on_event: Callable[[Event], None], listener: Callable[[Notice], None]) -> Chat:
        from ggufsteer.tasks.chat_commands import run
        from ggufsteer.tasks.notices import Said, State, StateChanged

        waiting = list(commands)
        chats: list[Chat] = []

        def listen(notice: Notice) -> None:
            listener(notice)
            if not (isinstance(notice, StateChanged) and notice.state is State.READY):
                return
            while waiting:
                try:
                    answer = run(chats[0], waiting.pop(0))
                except SteerError as problem:
                    listener(Said("error", problem.message, problem.hint))
                else:
                    if answer:
                        listener(Said("info", "\n".join(answer)))

        chats.append(make_chat(on_event, listen))
        return chats[0]

    return make
