"""Text from a model, a file or a paste is shown and does nothing: no escape sequence, no markup, no link."""

import pytest

from ggufsteer.tasks.notices import State
from tests.tui.stage import Stage, play, stage

HOSTILE = {
    "clear": ("a\x1b[2Jb", "ab"),
    "clipboard": ("a\x1b]52;c;ZXZpbA==\x07b", "ab"),
    "one-byte control": ("a\x9b2Jb", "ab"),
    "bidi": ("a\u202eb", "ab"),
    "bidi as entity": ("a&#x202e;b", "a&#x202e;b"),
    "escape as entity": ("a&#27;[2Jb", "a&#27;[2Jb"),
    "markup": ("a [red]b[/red] c", "a [red]b[/red] c"),
    "action": ("[@click=app.leave]press[/]", "[@click=app.leave]press[/]"),
    "unclosed markup": ("[/nothing] [b", "[/nothing] [b"),
    "link": ("[here](https://example.org)", "[here](https://example.org)"),
    "bare link": ("https://example.org", "https://example.org"),
    "picture": ("![alt](file:///etc/passwd)", "![alt](file:///etc/passwd)"),
    "HTML": ("<b onclick=x>bold</b>", "<b onclick=x>bold</b>"),
    "HTML block": ("<script>\nalert(1)\n</script>", "alert(1)"),
    "reference": ("[a]: https://example.org\n\n[a]", "[a]: https://example.org"),
}


def forbidden(text: str) -> set[str]:
    """Name the characters that no screen may get."""
    return {sign for sign in text if (ord(sign) < 32 and sign != "\n") or 0x7F <= ord(sign) < 0xA0 or sign == "\u202e"}


def acts(it: Stage) -> list[object]:
    """Name the stretches of answers that a click would do something with."""
    strips = it.screen.screen._compositor.render_strips()
    styles = [segment.style for strip in strips for segment in strip if segment.style is not None]
    in_panel = {"app.ask('/add ')", "app.ask('/preset ')", "app.reset_all"}
    clicks = {style.meta.get("@click") for style in styles} - in_panel - {None}
    return [*clicks, *(style.link for style in styles if style.link)]


@pytest.mark.parametrize("pieces", ["whole", "characters"])
@pytest.mark.parametrize(("written", "wanted"), HOSTILE.values(), ids=HOSTILE)
def test_an_answer_is_inert(written: str, wanted: str, pieces: str) -> None:
    """Also when it comes in pieces that cut a sequence in two."""

    async def see() -> None:
        async with stage() as it:
            await it.ask()
            for piece in [written] if pieces == "whole" else written:
                it.worker.write(piece)
            await it.until_shown(wanted)
            assert not forbidden(it.shown)
            it.worker.finish()
            await it.until(lambda: it.chat.state is State.READY)
            await it.until_shown(wanted)
            assert not forbidden(it.shown)
            assert not acts(it)

    play(see)


@pytest.mark.parametrize(("written", "wanted"), HOSTILE.values(), ids=HOSTILE)
def test_the_meter_is_inert(written: str, wanted: str) -> None:
    """The coloured view shows the text as it is."""

    async def see() -> None:
        async with stage() as it:
            await it.press("ctrl+l")
            await it.ask()
            it.worker.write(written)
            it.worker.finish()
            await it.until_shown(wanted.split("\n", maxsplit=1)[0])
            assert not forbidden(it.shown)

    play(see)


@pytest.mark.parametrize(("written", "wanted"), HOSTILE.values(), ids=HOSTILE)
def test_a_question_is_inert(written: str, wanted: str) -> None:
    """What the person pasted is treated alike."""

    async def see() -> None:
        async with stage() as it:
            it.chat.send(written)
            await it.until_shown(wanted.split("\n", maxsplit=1)[0])
            assert not forbidden(it.shown)

    play(see)


def test_a_model_of_a_hostile_name_is_inert() -> None:
    """A file's metadata reaches the heading and the status line."""
    from tests.tasks.fake_worker import MODEL

    async def see() -> None:
        name = "[red]\x1b[2Jmodel\n[@click=app.leave]x"
        async with stage(hold=False, model=MODEL.model_copy(update={"name": name})) as it:
            await it.write("hello")
            await it.until_shown("All! is! well.!")
            await it.until_shown("[red]model")
            assert not forbidden(it.shown)

    play(see)


def test_an_error_from_the_process_is_inert() -> None:
    """Last words of llama.cpp may quote the model."""

    async def see() -> None:
        async with stage() as it:
            it.worker.die("said [red]\x1b]0;title\x07 [/nothing]")
            await it.until_shown("[red]")
            assert not forbidden(it.shown)

    play(see)
