"""The hub's cache on this machine: where it is, and what is in it."""

import subprocess
import sys
from pathlib import Path

import pytest

from ggufsteer.engine.builtin import builtin_model_path, builtin_vectors
from ggufsteer.files.hub_cache import RepositoryCache, cache_folder, is_offline
from ggufsteer.files.hub_contents import cached_files, unfinished_downloads

COMMIT, OLDER = "a" * 40, "b" * 40


def put(file: str, data: bytes, commit: str = COMMIT) -> Path:
    """Put a file into the cache; returns its path."""
    cache = RepositoryCache("user/model", cache_folder())
    digest = f"{abs(hash(data)):064x}"
    cache.blob(digest).parent.mkdir(parents=True, exist_ok=True)
    cache.blob(digest).write_bytes(data)
    return cache.link(commit, file, digest)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"HF_HOME": "~/elsewhere"},
        {"HF_HOME": "~/elsewhere", "HF_HUB_CACHE": "$HOME/cache"},
        {"HUGGINGFACE_HUB_CACHE": "/tmp/old"},
        {"XDG_CACHE_HOME": "/tmp/xdg"},
    ],
)
def test_the_cache_is_where_huggingface_hub_has_it(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """Whatever the environment says."""
    for variable in ("HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert str(cache_folder()) == done.stdout.strip()


@pytest.mark.parametrize(("value", "off"), [("1", True), ("yes", True), ("True", True), ("0", False), ("", False)])
def test_the_environment_can_forbid_the_network(monkeypatch: pytest.MonkeyPatch, value: str, off: bool) -> None:
    """In huggingface_hub's own words."""
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert is_offline() is off


def test_models_vectors_and_broken_files_are_told_apart() -> None:
    """By what is in them, not by their names."""
    model = builtin_model_path().read_bytes()
    path = put("m.gguf", model)
    put("sub/happy-Q4_K_M.gguf", next(iter(builtin_vectors().values())).read_bytes())
    put("broken.gguf", b"no GGUF at all, but some bytes")
    put("notes.txt", b"words")
    found = {file.name: file for file in cached_files()}
    assert list(found) == ["hf:user/model/broken.gguf", "hf:user/model/m.gguf", "hf:user/model/sub/happy-Q4_K_M.gguf"]
    broken, whole, vector = found.values()
    assert (whole.kind, whole.architecture, whole.quantisation) == ("model", "llama", "Q8_0")
    assert (whole.n_bytes, whole.path, whole.problem) == (len(model), path, "")
    assert (vector.kind, vector.architecture, vector.quantisation) == ("vector", "llama", "")
    assert broken.kind == ""
    assert broken.problem
    assert str(cache_folder()) not in broken.problem


def test_a_split_model_is_one_line_and_says_what_is_missing() -> None:
    """Sizes are those of all parts."""
    put("m-00001-of-00002.gguf", builtin_model_path().read_bytes())
    (only,) = cached_files()
    assert only.problem == "a part is missing"
    put("m-00002-of-00002.gguf", b"second")
    (only,) = cached_files()
    assert (only.problem, only.n_bytes) == ("", builtin_model_path().stat().st_size + 6)


def test_two_commits_of_a_file_are_one_line() -> None:
    """The one that the name finds: the current commit's."""
    put("m.gguf", b"older", OLDER)
    path = put("m.gguf", b"newer")
    RepositoryCache("user/model", cache_folder()).set_commit(COMMIT)
    assert [file.path for file in cached_files()] == [path]


def test_downloads_that_stopped_are_listed() -> None:
    """With how far they came."""
    cache = RepositoryCache("user/model", cache_folder())
    cache.part("c" * 64, 1000).parent.mkdir(parents=True)
    cache.part("c" * 64, 1000).write_bytes(b"x" * 10)
    (only,) = unfinished_downloads()
    assert (only.repository, only.n_bytes, only.n_bytes_wanted) == ("user/model", 10, 1000)


def test_what_is_no_repository_is_passed_over() -> None:
    """Other folders, strange names, files: the cache belongs to several programs."""
    for folder in ("datasets--a--b", "models--a", "models--..--..", ".locks", "models--a--b"):
        (cache_folder() / folder / "snapshots" / "main").mkdir(parents=True)
    (cache_folder() / "version.txt").write_text("1")
    (cache_folder() / "models--a--b" / "snapshots" / COMMIT).symlink_to(COMMIT)
    assert cached_files() == []
