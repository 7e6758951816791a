"""`pull`, `list`, `-hf`, `--offline`, and `hf:` names wherever a model or a vector is named."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggufsteer.engine.builtin import builtin_model_path, builtin_vectors
from ggufsteer.errors import ExitCode
from ggufsteer.files.hub_cache import cache_folder
from tests.cli.conftest import RECIPE, Run, environment
from tests.hub_stand_in import StandIn, serving

REPOSITORY = "someone/some-GGUF"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> Iterator[StandIn]:
    """A hub with a random model, the demo model and a vector for that."""
    demo = {
        "demo-Q8_0.gguf": builtin_model_path().read_bytes(),
        "v/happy.gguf": builtin_vectors()["happy"].read_bytes(),
    }
    files = {REPOSITORY: {"README.md": b"words", "tiny-Q4_K_M.gguf": tiny.read_bytes()}, "someone/demo": demo}
    with serving(StandIn(files)) as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.address)
        yield stand_in


def test_pull_prints_where_the_file_is(run: Run, hub: StandIn, tiny: Path) -> None:
    """The path is on stdout, for scripts; why this file and how much came is on stderr."""
    result = run("pull", REPOSITORY)
    assert result.exit_code == 0, result.stderr
    path = Path(result.stdout.strip())
    assert path.read_bytes() == tiny.read_bytes()
    assert "quantisation Q4_K_M, the default; " in result.stderr
    assert "MB came" in result.stderr
    again = run("pull", f"hf:{REPOSITORY}")
    assert (again.stdout, "it was here already" in again.stderr) == (result.stdout, True)
    assert len(hub.downloads()) == 1


def test_pull_can_say_it_as_json(run: Run, hub: StandIn) -> None:
    """One document for all names, and nothing else."""
    result = run("pull", REPOSITORY, "someone/demo/v/happy.gguf", "--json")
    model, vector = json.loads(result.stdout)["pulled"]
    assert result.stderr == ""
    assert model["name"] == f"hf:{REPOSITORY}"
    assert vector["downloaded_bytes"] == Path(vector["files"][0]).stat().st_size
    assert len(hub.downloads()) == 2


def test_a_dry_run_downloads_nothing(run: Run, hub: StandIn, tiny: Path) -> None:
    """It shows the files and their sizes."""
    planned = json.loads(run("pull", REPOSITORY, "--dry-run", "--json").stdout)["planned"][0]
    assert [(file["path"], file["bytes"]) for file in planned["files"]] == [("tiny-Q4_K_M.gguf", tiny.stat().st_size)]
    assert "tiny-Q4_K_M.gguf" in run("pull", REPOSITORY, "--dry-run").stdout
    assert hub.downloads() == []
    assert not any(cache_folder().glob("models--*"))


def test_a_wrong_name_is_refused_before_anything_comes(run: Run, hub: StandIn) -> None:
    """Also when it is not the first."""
    result = run("pull", REPOSITORY, "nonsense")
    assert result.exit_code == ExitCode.USAGE
    assert "hf:user/repository:Q4_K_M" in result.stderr
    assert hub.asked == []


def test_trouble_with_the_hub_has_an_exit_code_of_its_own(run: Run, hub: StandIn) -> None:
    """A script can try again later."""
    hub.refuse = (429, {"Retry-After": "9"})
    result = run("pull", REPOSITORY)
    assert (result.exit_code, result.stdout) == (ExitCode.NETWORK, "")
    assert "again in 9 seconds" in result.stderr


def test_names_from_the_hub_are_cleaned(run: Run, hub: StandIn) -> None:
    """No escape sequence of a stranger's reaches the terminal."""
    hub.repositories[REPOSITORY] = {"a\x1b]0;title\x07.gguf": b"x", "b\u202e-Q2_K.gguf": b"y", "c-Q4_K_M.gguf": b"z"}
    result = run("pull", f"{REPOSITORY}:Q8_0")
    assert result.exit_code == ExitCode.NETWORK
    assert not {"\x1b", "\x07", "\u202e"} & set(result.stdout + result.stderr)


def test_list_shows_what_is_here(run: Run, hub: StandIn) -> None:
    """Models and vectors with what they are, under the names that -m and --vector take; the hub is not asked."""
    assert "ggufsteer pull" in run("list").stderr
    run("pull", REPOSITORY, "someone/demo/v/happy.gguf")
    before = len(hub.asked)
    shown = run("list")
    assert shown.exit_code == 0
    assert f"hf:{REPOSITORY}/tiny-Q4_K_M.gguf" in shown.stdout
    document = json.loads(run("list", "--json").stdout)
    assert [(file["name"], file["kind"]) for file in document["files"]] == [
        ("hf:someone/demo/v/happy.gguf", "vector"),
        (f"hf:{REPOSITORY}/tiny-Q4_K_M.gguf", "model"),
    ]
    assert document["cache"] == str(cache_folder())
    assert len(hub.asked) == before


def test_a_recipe_names_a_model_of_the_hub(run: Run, hub: StandIn, folder: Path) -> None:
    """It is downloaded once; the second time no request is made."""
    (folder / "happy.toml").write_text(f'model = "hf:{REPOSITORY}:q4_k_m"\n{RECIPE}')
    result = run("extract", "happy.toml")
    assert result.exit_code == 0, result.stderr
    assert f"hf:{REPOSITORY}:q4_k_m: tiny-Q4_K_M.gguf (quantisation q4_k_m)" in result.stderr
    before = len(hub.asked)
    assert run("extract", "happy.toml", "--force").exit_code == 0
    assert len(hub.asked) == before


def test_hf_and_a_vector_of_the_hub(run: Run, hub: StandIn) -> None:
    """Model and vector come by the same spelling."""
    result = run("try", "hf:someone/demo/v/happy.gguf", "Hello.", "-hf", "someone/demo:Q8_0", "-n", "2")
    assert result.exit_code == 0, result.stderr
    assert len(hub.downloads()) == 2


def test_chat_takes_both_too(run: Run, hub: StandIn) -> None:
    """With a strength behind the vector's name."""
    arguments = ("-hf", "someone/demo", "--vector", "hf:someone/demo/v/happy.gguf:0.5", "--run", "/quit")
    result = run("chat", "--plain", *arguments)
    assert result.exit_code == 0, result.stderr
    assert len(hub.downloads()) == 2


def test_a_vector_in_the_cache_is_not_written_to(run: Run, hub: StandIn) -> None:
    """Its bytes are known by their hash to other programs too, whichever way it is named."""
    path = run("pull", "someone/demo/v/happy.gguf").stdout.strip()
    for name in ("hf:someone/demo/v/happy.gguf", path):
        result = run("calibrate", name)
        assert (result.exit_code, "-o FILE" in result.stderr) == (ExitCode.USAGE, True)
    assert Path(path).read_bytes() == hub.repositories["someone/demo"]["v/happy.gguf"]


def test_lens_takes_vectors_of_the_hub_and_can_be_kept_offline(run: Run, hub: StandIn) -> None:
    """It loads no model as the others do, and has the same words."""
    assert run("lens", "hf:someone/demo/v/happy.gguf", "--offline").exit_code == ExitCode.NETWORK
    assert hub.asked == []
    result = run("lens", "hf:someone/demo/v/happy.gguf", "-m", "hf:someone/demo", "-k", "1")
    assert result.exit_code == 0, result.stderr
    assert len(hub.downloads()) == 2


def test_offline_is_an_error_at_once(run: Run, hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the flag, or by Hugging Face's variable."""
    result = run("extract", "happy.toml", "-hf", REPOSITORY, "--offline")
    assert result.exit_code == ExitCode.NETWORK
    assert f"ggufsteer pull hf:{REPOSITORY}" in result.stderr
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for command in (
        ("extract", "happy.toml", "-hf", REPOSITORY),
        ("pull", REPOSITORY),
        ("pull", REPOSITORY, "--dry-run"),
    ):
        assert run(*command).exit_code == ExitCode.NETWORK
    assert hub.asked == []


def test_hf_and_m_do_not_go_together(run: Run, hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless one of them comes from the environment: then what was typed holds."""
    result = run("extract", "happy.toml", "-m", "builtin", "-hf", REPOSITORY)
    assert (result.exit_code, "do not go together" in result.stderr) == (2, True)
    monkeypatch.setenv("LLAMA_ARG_HF_REPO", "someone/nothing")
    assert run("extract", "happy.toml", "-m", "gone.gguf").exit_code == ExitCode.USAGE
    assert hub.asked == []
    assert run("extract", "happy.toml").exit_code == ExitCode.NETWORK
    assert hub.asked


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_next_process_goes_on_after_any_end(folder: Path, hub: StandIn, tiny: Path, how: signal.Signals) -> None:
    """Ctrl-C and a kill alike leave a part that the same command continues."""
    sent, data = threading.Event(), tiny.read_bytes()
    half = len(data) // 2

    def cut(count: int) -> int:
        if count < len(data):  # the second connection: the first half has been read
            sent.set()
            hub.over.wait(20)
        return half

    hub.cut = cut
    command = [sys.executable, "-m", "ggufsteer", "pull", REPOSITORY]
    with subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.PIPE) as process:
        assert sent.wait(20)
        process.send_signal(how)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert process.wait(20) == (130 if how is signal.SIGINT else -how)
        assert ("goes on from there" in said) is (how is signal.SIGINT)
    (part,) = cache_folder().glob("models--*/blobs/*.incomplete")
    assert part.read_bytes() == data[:half]
    listed = subprocess.run(
        [*command[:-2], "list"], cwd=folder, env=environment(), capture_output=True, text=True, check=True
    )
    assert "a download stopped at" in listed.stderr
    hub.cut = None
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).read_bytes() == data
    assert hub.downloads()[-1]["Range"] == f"bytes={half}-"
