"""`ggufsteer devices` and `ggufsteer doctor`: what they print, as text and as JSON, and how they end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ggufsteer.engine import devices_machine
from ggufsteer.engine.devices_fit import model_sizes
from ggufsteer.errors import ExitCode
from tests.cli.conftest import Run
from tests.tasks.made_facts import BUILD, CARD, CPU, CUDA_BUILD, GIB, MACHINE, NVIDIA, facts


def test_devices_are_listed(run: Run) -> None:
    """Text for people and a document for programs agree about this machine."""
    shown, document = run("devices"), json.loads(run("devices", "--json").stdout)
    assert (shown.exit_code, document["llama_cpp_python"]) == (0, BUILD.package)
    assert f"threads: {document['threads']}," in shown.stdout
    assert document["system_info"] in shown.stdout
    for device in document["devices"]:
        assert device["name"] in shown.stdout
        assert device["memory_total"] > 0
    assert "model" not in document


def test_a_model_on_the_processor(run: Run, tiny: Path) -> None:
    """All of a small model fits, and the context's memory counts."""
    shown = run("devices", "-m", tiny)
    assert shown.exit_code == 0
    assert f"{tiny} with a context of 8,192 tokens" in shown.stdout
    assert "all 4" in shown.stdout
    small, large = (json.loads(run("devices", "-m", tiny, "-c", n, "--json").stdout)["model"] for n in (256, 512))
    assert (small["n_layer"], small["gpu_layers_auto"], small["fits"][0]["is_all"]) == (4, None, True)
    assert large["bytes"] - small["bytes"] == 4 * 256 * 2 * 64 * 2 * 2


def test_a_model_on_a_card(run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card with a little room takes a part of the layers, and what `-ngl auto` would do is said."""
    room = model_sizes(tiny, n_ctx=8192, n_ubatch=512)
    card = replace(CARD, memory_free=GIB + room.compute + room.output + 2 * room.layers[-1])
    build = replace(CUDA_BUILD, devices=(card, CPU))
    monkeypatch.setattr(devices_machine, "read_facts", lambda sources: facts(build, nvidia=NVIDIA))
    found = json.loads(run("devices", "-m", tiny, "--json").stdout)["model"]
    on_card, on_processor = found["fits"]
    assert (on_card["gpu_layers"], on_card["layers"], on_card["is_all"], found["gpu_layers_auto"]) == (3, 2, False, 3)
    assert (on_processor["gpu_layers"], on_processor["is_all"]) == (None, True)
    shown = run("devices", "-m", tiny)
    assert "2 of 4" in shown.stdout
    assert "-ngl auto puts 3 of 5 on the GPU" in shown.stderr


def test_a_model_that_is_missing_is_an_error(run: Run) -> None:
    """The file is named, and nothing is printed."""
    shown = run("devices", "-m", "absent.gguf")
    assert (shown.exit_code, shown.stdout) == (ExitCode.USAGE, "")
    assert "absent.gguf" in shown.stderr


def test_a_llama_cpp_that_cannot_be_imported_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is named, and the doctor."""
    broken = facts(None, import_problem="OSError: libcudart.so.13 is missing")
    monkeypatch.setattr(devices_machine, "read_facts", lambda sources: broken)
    shown = run("devices")
    assert (shown.exit_code, shown.stdout) == (ExitCode.FAILED, "")
    assert "libcudart.so.13 is missing" in shown.stderr
    assert "ggufsteer doctor" in shown.stderr


def test_the_doctor_finds_nothing_wrong(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is 0."""
    monkeypatch.setattr(devices_machine, "read_facts", lambda sources: facts())
    shown = run("doctor")
    assert (shown.exit_code, shown.stdout) == (ExitCode.OK, "nothing is wrong\n")
    assert json.loads(run("doctor", "--json").stdout) == {"well": True, "findings": []}


def test_the_doctor_says_what_mends_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is 1; each mend is one line that can be copied."""
    monkeypatch.setattr(devices_machine, "read_facts", lambda sources: facts(nvidia=NVIDIA, threads=64))
    shown = run("doctor")
    assert shown.exit_code == ExitCode.FAILED
    lines = shown.stdout.splitlines()
    assert [line[:6] for line in lines] == ["wrong:", "mend: ", "wrong:", "mend: "]
    assert lines[1].startswith(f"mend:  {MACHINE.python} -m pip install")
    document = run("doctor", "--json")
    assert document.exit_code == ExitCode.FAILED
    assert [one["fault"] for one in json.loads(document.stdout)["findings"]] == [
        "cpu-only-beside-nvidia", "too-many-threads"
    ]  # fmt: skip
