"""The model that ships, and quantised copies of models."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ggufsteer
from ggufsteer.engine import builtin
from ggufsteer.engine.builtin import builtin_model_path, builtin_vectors, quantise, resolve_model, resolve_vector
from ggufsteer.engine.model import LoadOptions, Model
from ggufsteer.errors import EngineError, HubError, ModelError, SteerError


@pytest.fixture
def shipped(tiny_paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model in the place of the one that ships."""
    monkeypatch.setattr(builtin, "_DEMO_MODEL", tiny_paths["Q8_0"])
    return tiny_paths["Q8_0"]


def test_the_builtin_model_is_the_default(shipped: Path) -> None:
    """No name, and the name "builtin", are the model that ships; anything else is a path."""
    assert resolve_model(None) == resolve_model("builtin") == builtin_model_path() == shipped
    assert resolve_model("some/model.gguf") == Path("some/model.gguf")


def test_a_download_is_not_tried() -> None:
    """A name of the hub's stands for what is in the cache; for the rest there is a command."""
    for resolve in (resolve_model, resolve_vector):
        with pytest.raises(HubError, match="is not on this machine") as caught:
            resolve("hf:someone/some-model:Q4_K_M")
        assert "ggufsteer pull hf:someone/some-model:Q4_K_M" in caught.value.hint


def test_a_vector_that_ships_has_a_name() -> None:
    """With "builtin:" before it, it is one of ours; anything else is a path, whatever it is called."""
    shipped = builtin_vectors()
    assert list(shipped) == sorted(shipped)
    assert {resolve_vector(f"builtin:{name}") for name in shipped} == set(shipped.values())
    for path in ("happy", "happy.gguf", "builtin", "./builtin/happy.gguf", "C:\\vectors\\happy.gguf", ""):
        assert resolve_vector(path) == Path(path)


@pytest.mark.parametrize(("name", "near"), [("hapy", "did you mean 'builtin:happy'? "), ("", ""), ("../happy", "")])
def test_a_vector_that_does_not_ship_is_refused(name: str, near: str) -> None:
    """The error names the nearest and all that ship; no name leads out of the folder."""
    with pytest.raises(SteerError, match=r"no vector 'builtin:.*' ships") as caught:
        resolve_vector(f"builtin:{name}")
    if near:
        assert caught.value.hint.startswith(near)
    assert caught.value.hint.endswith(f"these ship: {', '.join(builtin_vectors())}")


def test_an_installation_without_vectors_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty list is no help."""
    monkeypatch.setattr(builtin, "_VECTORS", tmp_path)
    assert builtin_vectors() == {}
    with pytest.raises(SteerError) as caught:
        resolve_vector("builtin:happy")
    assert "install ggufsteer again" in caught.value.hint


def test_names_are_resolved_without_llama_cpp() -> None:
    """A front end that only passes paths on stays light."""
    code = (
        "import sys; from ggufsteer.engine.builtin import *; resolve_model(None); sys.exit('llama_cpp' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(ggufsteer.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_other_quantisations_are_made_once(shipped: Path, tmp_path: Path) -> None:
    """Q4_K_M is made on demand into the folder named, works, and is not made again."""
    path = builtin_model_path("Q4_K_M", tmp_path / "new")
    assert path.parent == tmp_path / "new"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_size < shipped.stat().st_size
    with Model.open(path, LoadOptions(n_ctx=256, n_threads=1)) as model:
        assert model.n_layer == 4
    made = path.stat().st_mtime_ns
    assert builtin_model_path("Q4_K_M", tmp_path / "new").stat().st_mtime_ns == made


def test_wishes_that_cannot_be_met(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown quantisation, no folder, a missing model: each says what to do."""
    with pytest.raises(SteerError, match="Q4_K_S") as caught:
        builtin_model_path("Q4_K_S", tmp_path)
    assert "Q4_K_M" in caught.value.hint
    with pytest.raises(SteerError, match="Q4_K_M"):
        builtin_model_path("Q4_K_M")
    monkeypatch.setattr(builtin, "_DEMO_MODEL", tmp_path / "gone.gguf")
    with pytest.raises(ModelError, match=r"gone\.gguf is missing"):
        builtin_model_path()


def test_a_failed_quantisation_leaves_nothing(tmp_path: Path) -> None:
    """A file that llama.cpp cannot read gives an error, and no half copy; an older copy stays."""
    source, target = tmp_path / "broken.gguf", tmp_path / "out" / "copy.gguf"
    source.write_bytes(b"GGUF rubbish")
    target.parent.mkdir()
    target.write_bytes(b"older")
    with pytest.raises(EngineError, match=r"broken\.gguf"):
        quantise(source, target, "Q8_0")
    assert target.read_bytes() == b"older"
    assert list(target.parent.iterdir()) == [target]


def test_a_copy_appears_whole_or_not_at_all(
    tiny_paths: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step is a rename: where it fails, the older copy is as it was, and nothing lies beside it."""

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "copy.gguf"
    target.write_bytes(b"older")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(EngineError, match="No space left"):
        quantise(tiny_paths["F32"], target, "Q8_0", n_threads=1)
    assert target.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_cannot_be_written_to_is_an_error(shipped: Path, tmp_path: Path) -> None:
    """A file where the folder should be: named, with a mend."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot be written"):
        builtin_model_path("Q4_K_M", tmp_path / "file" / "sub")
