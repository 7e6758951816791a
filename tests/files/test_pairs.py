"""Pairs from every kind of file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufsteer.errors import FileFormatError
from ggufsteer.files.pairs import Pair, Pairs, read_pairs, read_prompt_files, unescape

GLAD_AND_SAD = Pairs([Pair(positive="glad", negative="sad"), Pair(positive="good, really", negative="bad")])
_TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)
_PAIR = st.builds(Pair, _TEXT, _TEXT, st.none() | _TEXT)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("p.jsonl", '{"positive": "glad", "negative": "sad"}\n\n["good, really", "bad"]\n'),
        ("p.csv", 'glad,sad\n"good, really",bad\n'),
        ("p.csv", 'Negative,Positive\nsad,glad\nbad,"good, really"\n'),
        ("p.txt", "glad\tsad\n\ngood, really\tbad"),
        ("p.tsv", "glad\tsad\r\ngood, really\tbad\r\n"),
        ("P.TXT", "\ufeffglad\tsad\ngood, really\tbad\n"),
    ],
)
def test_each_format_gives_the_same_pairs(name: str, data: str, tmp_path: Path) -> None:
    """JSONL, CSV with and without a header, tabs; line ends, byte order marks and empty lines do not matter."""
    (tmp_path / name).write_bytes(data.encode())
    assert read_pairs(tmp_path / name) == GLAD_AND_SAD


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("p.jsonl", '{"prompt": "How are you?", "positive": "Well.", "negative": "Badly."}'),
        ("p.csv", "prompt,positive,negative\nHow are you?,Well.,Badly.\n"),
    ],
)
def test_answers_come_with_their_prompt(name: str, data: str, tmp_path: Path) -> None:
    """Two answers to one prompt."""
    (tmp_path / name).write_text(data, encoding="utf-8")
    assert read_pairs(tmp_path / name) == Pairs([Pair(prompt="How are you?", positive="Well.", negative="Badly.")])


def test_a_csv_cell_may_hold_line_ends(tmp_path: Path) -> None:
    """Quoted cells keep what they hold."""
    (tmp_path / "p.csv").write_text('"glad\nand merry","sad ""indeed"""\n', encoding="utf-8")
    assert read_pairs(tmp_path / "p.csv") == Pairs([Pair(positive="glad\nand merry", negative='sad "indeed"')])


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"a\nb", "a\nb"),
        (r"a\\nb", r"a\nb"),
        (r"\t\r\'\"", "\t\r'\""),
        (r"\x41\x0a", "A\n"),
        (r"\x4", r"\x4"),
        (r"\xzz", r"\xzz"),
        (r"\q", r"\q"),
        ("end\\", "end\\"),
    ],
)
def test_escapes_mean_what_they_mean_to_llama_cpp(written: str, meant: str) -> None:
    """Known ones are replaced, unknown ones stay as they are."""
    assert unescape(written) == meant


@given(st.text(st.characters(exclude_characters="\\")))
def test_a_text_without_backslash_is_not_touched(text: str) -> None:
    """Escaping has no other effect."""
    assert unescape(text) == text


@given(st.text())
def test_escaping_every_backslash_is_undone(text: str) -> None:
    """Doubling all backslashes protects any text."""
    assert unescape(text.replace("\\", "\\\\")) == text


def test_prompt_files_are_paired_line_by_line(tmp_path: Path) -> None:
    """The n-th of one file with the n-th of the other."""
    (tmp_path / "p.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    (tmp_path / "n.txt").write_text("eins\nzwei\n", encoding="utf-8")
    pairs = read_prompt_files(tmp_path / "p.txt", tmp_path / "n.txt")
    assert pairs == Pairs([Pair(positive="one", negative="eins"), Pair(positive="two", negative="zwei")])


@given(st.lists(_PAIR))
def test_packed_pairs_are_the_same_pairs(pairs: list[Pair]) -> None:
    """Any text, with a prompt or without, comes out as it went in, by number, from the end, in part and in order."""
    packed = Pairs(pairs)
    assert list(packed) == [packed[number] for number in range(len(pairs))] == pairs
    assert [packed[-1 - number] for number in range(len(pairs))] == pairs[::-1]
    assert list(packed[1::2]) == pairs[1::2]


@given(st.lists(_PAIR), st.lists(_PAIR))
def test_packed_pairs_are_equal_when_their_pairs_are(first: list[Pair], second: list[Pair]) -> None:
    """Where a text ends counts, not only the letters in a row."""
    assert (Pairs(first) == Pairs(second)) == (first == second)
    assert Pairs(first) != Pairs([*first, Pair("a", "bc")])
    assert Pairs([Pair("ab", "c")]) != Pairs([Pair("a", "bc")])
    assert hash(Pairs(first)) == hash(Pairs(list(first)))


def test_a_pair_past_the_end_is_an_error() -> None:
    """As for any sequence."""
    with pytest.raises(IndexError):
        GLAD_AND_SAD[2]


def test_the_first_bad_line_is_told(tmp_path: Path) -> None:
    """A file is read line by line: what is wrong on the second line is told before what is wrong on the third."""
    (tmp_path / "p.jsonl").write_text('["a", "b"]\n["c", "c"]\n["d", \n', encoding="utf-8")
    with pytest.raises(FileFormatError, match="line 2: both sides"):
        read_pairs(tmp_path / "p.jsonl")


def test_a_quote_that_is_never_closed_is_told_by_its_line(tmp_path: Path) -> None:
    """Also when the file ends without a line end."""
    for end in ("", "\n"):
        (tmp_path / "p.csv").write_text(f'a,b\n"c,d{end}', encoding="utf-8")
        with pytest.raises(FileFormatError, match="line 2: is not CSV"):
            read_pairs(tmp_path / "p.csv")


def test_the_same_pair_twice_is_told_with_both_numbers(tmp_path: Path) -> None:
    """The line of the second, the number of the first."""
    (tmp_path / "p.txt").write_text("x\ty\n\na\tb\nc\td\na\tb\n", encoding="utf-8")
    with pytest.raises(FileFormatError, match="line 5: is the same as pair 2"):
        read_pairs(tmp_path / "p.txt")
