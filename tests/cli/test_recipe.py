"""`recipe`: writing, checking, listing and showing."""

import json
from pathlib import Path

import pytest

from ggufsteer.files.recipe import builtin_recipe_names, load_recipe
from tests.cli.conftest import Run, files


def test_a_new_recipe_is_valid_and_commented(run: Run, folder: Path) -> None:
    """What `new` writes passes `check`, and explains its keys."""
    result = run("recipe", "new", "joy")
    assert result.exit_code == 0, result.stderr
    assert run("recipe", "check", "joy.toml").exit_code == 0
    assert (folder / "joy.toml").read_text().count("\n#") > 10
    assert load_recipe("joy.toml").name == "joy"


def test_a_recipe_that_is_there_is_not_overwritten(run: Run, folder: Path) -> None:
    """`new` refuses, names the file, and --force does it."""
    before = (folder / "happy.toml").read_bytes()
    refused = run("recipe", "new", "happy")
    assert refused.exit_code == 2
    assert "happy.toml" in refused.stderr
    assert "--force" in refused.stderr
    assert (folder / "happy.toml").read_bytes() == before
    assert run("recipe", "new", "happy", "--force").exit_code == 0
    assert (folder / "happy.toml").read_bytes() != before


@pytest.mark.parametrize("name", ["a:b", 'a"b', "../up/x,y", ""])
def test_a_name_that_cannot_be_one_writes_nothing(run: Run, folder: Path, name: str) -> None:
    """Names with colons, quotes or commas are refused with 2."""
    result = run("recipe", "new", name)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert files(folder) == ["happy.toml"]


def test_check_counts_the_pairs(run: Run) -> None:
    """A good recipe is ok, with its kind and the number of its pairs."""
    assert run("recipe", "check", "happy.toml").stdout == "happy.toml: ok (pairs, 4 pairs)\n"


def test_check_takes_several_and_gives_json(run: Run) -> None:
    """One document for all."""
    document = json.loads(run("recipe", "check", "happy.toml", "happy.toml", "--json").stdout)
    assert [entry["pairs"] for entry in document["recipes"]] == [4, 4]


def test_check_goes_on_after_a_bad_recipe(run: Run, folder: Path) -> None:
    """Good ones are ok, bad ones are told on stderr, and in the end the exit code is 2."""
    (folder / "bad.toml").write_text('name = "x"\n')
    result = run("recipe", "check", "bad.toml", "happy.toml", "gone.toml")
    assert result.exit_code == 2
    assert result.stdout == "happy.toml: ok (pairs, 4 pairs)\n"
    assert [line.split(":")[1].strip() for line in result.stderr.splitlines() if line.startswith("error")] == [
        "bad.toml", "gone.toml",
    ]  # fmt: skip
    listed = run("recipe", "check", "bad.toml", "happy.toml", "--json")
    assert listed.exit_code == 2
    assert [entry["ok"] for entry in json.loads(listed.stdout)["recipes"]] == [False, True]


def test_a_vector_in_place_of_a_recipe_is_called_what_it_is(run: Run, folder: Path) -> None:
    """Nobody is told to save it as UTF-8."""
    (folder / "happy.gguf").write_bytes(b"GGUF\xf0")
    result = run("recipe", "check", "happy.gguf")
    assert result.exit_code == 2
    assert "not a recipe" in result.stderr


def test_check_names_file_key_value_and_mend(run: Run, folder: Path) -> None:
    """A typo in a key is told with the nearest known one, exit code 2, nothing on stdout."""
    (folder / "bad.toml").write_text('name = "x"\nmethd = "mean"\n[contrast]\nkind = "pairs"\npairs = [["a", "b"]]\n')
    result = run("recipe", "check", "bad.toml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "bad.toml" in result.stderr
    assert "methd" in result.stderr
    assert "method" in result.stderr.split("hint:")[1]


def test_list_names_every_shipped_recipe(run: Run) -> None:
    """All of them, with what + stands for."""
    shown = run("recipe", "list").stdout
    assert builtin_recipe_names()
    for name in builtin_recipe_names():
        assert name in shown
    listed = json.loads(run("recipe", "list", "--json").stdout)["recipes"]
    assert [entry["name"] for entry in listed] == list(builtin_recipe_names())
    assert all(entry["description"] for entry in listed)


def test_every_shipped_recipe_passes_the_check(run: Run) -> None:
    """Recipes can be named without a path."""
    assert run("recipe", "check", *builtin_recipe_names()).exit_code == 0


def test_show_prints_the_pairs_and_counts_tokens(run: Run, tiny: Path) -> None:
    """Both sides as the model gets them, and the totals."""
    shown = run("recipe", "show", "happy.toml", "-m", tiny, "-t", 1, "--limit", 1).stdout
    assert "Tom was so happy." in shown
    assert "Tom was so sad." in shown
    assert "1 of 4 pairs shown" in shown
    assert "tokens" in shown
    everything = run("recipe", "show", "happy.toml", "-m", tiny, "-t", 1, "--limit", 0).stdout
    assert everything.count("so happy.") == 4


def test_show_lets_the_model_answer_the_pairs_that_it_shows(run: Run, tiny: Path, folder: Path) -> None:
    """Response pairs are shown with the model's own answers and the personas that they were given under."""
    (folder / "own.toml").write_text(
        'name = "own"\n[contrast]\nkind = "responses"\nmax_tokens = 3\npositive = ["a clerk"]\nnegative = [""]\n'
        'prompts = ["Tea?", "Bread?"]\n'
    )
    result = run("recipe", "show", "own.toml", "-m", tiny, "-t", 1, "--limit", 1, "--json")
    document = json.loads(result.stdout)
    assert (document["pairs"], document["tokens_of_all_pairs"]) == (2, False)
    (pair,) = document["shown"]
    assert (pair["positive"]["asked_under"], pair["negative"]["asked_under"]) == ("You are a clerk.", "")
    assert pair["positive"]["n_rows"] > 0


def test_a_recipes_model_is_looked_up_beside_it(run: Run, tiny: Path, folder: Path) -> None:
    """Like the other files that a recipe names; -m on the command line goes first and is looked up here."""
    (folder / "sub").mkdir()
    (folder / "sub" / "model.gguf").symlink_to(tiny)
    (folder / "sub" / "mine.toml").write_text('model = "model.gguf"\n' + (folder / "happy.toml").read_text())
    assert run("recipe", "show", "sub/mine.toml", "-t", 1).exit_code == 0
    assert run("extract", "sub/mine.toml", "-t", 1).exit_code == 0
    assert run("extract", "sub/mine.toml", "-t", 1, "-m", "model.gguf").exit_code == 2


def test_escape_sequences_of_a_recipe_do_not_reach_the_terminal(run: Run, tiny: Path, folder: Path) -> None:
    """Texts, file names and errors are shown without control characters and without markup."""
    hostile = "\\u001b[2J\\u001b]0;owned\\u0007[bold]x[/bold]\\u202e"
    text = f'name = "h"\n[contrast]\nkind = "pairs"\npairs = [["good {hostile}", "bad {hostile}"]]\n'
    (folder / "h.toml").write_text(text)
    result = run("recipe", "show", "h.toml", "-m", tiny, "-t", 1)
    assert result.exit_code == 0, result.stderr
    assert "[bold]x[/bold]" in result.stdout
    broken = run("recipe", "check", "no\x1b[2Jfile.toml")
    for shown in (result.stdout, result.stderr, broken.stderr):
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)
