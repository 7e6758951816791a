"""Which file of a repository a name stands for: llama.cpp's rules."""

import pytest

from ggufsteer.errors import HubError
from ggufsteer.files.hub_choice import choose, is_model_file, tag_of
from ggufsteer.files.hub_names import HubName

NAME = HubName("user/model")
PATHS = [
    "README.md",
    "imatrix.gguf",
    "mmproj-Q4_K_M.gguf",
    "m-BF16.gguf",
    "m-F16.gguf",
    "m-Q2_K.gguf",
    "m-Q8_0.gguf",
    "m.Q4_K_M.gguf",
]


def chosen(paths: list[str], tag: str = "", file: str = "") -> str:
    """The file to open."""
    return choose(paths, HubName(NAME.repository, tag, file)).files[0]


def test_without_a_quantisation_it_is_q4_k_m_then_q8_0_then_the_first() -> None:
    """Sidecars are never meant, though they come first and carry the tag."""
    assert chosen(PATHS) == "m.Q4_K_M.gguf"
    assert chosen(PATHS[:-1]) == "m-Q8_0.gguf"
    assert chosen(PATHS[:-2]) == "m-BF16.gguf"


@pytest.mark.parametrize(
    ("tag", "file"),
    [
        ("q8_0", "m-Q8_0.gguf"),
        ("Q2_K", "m-Q2_K.gguf"),
        ("F16", "m-F16.gguf"),
        ("bf16", "m-BF16.gguf"),
        ("4_K_M", "m.Q4_K_M.gguf"),
    ],
)
def test_a_quantisation_is_found_in_any_case(tag: str, file: str) -> None:
    """As a word of its own first: F16 is not BF16."""
    assert chosen(PATHS, tag) == file


def test_a_quantisation_is_text_and_no_pattern() -> None:
    """A dot stands for a dot."""
    with pytest.raises(HubError):
        chosen(PATHS, "Q8.0")


def test_a_quantisation_that_is_not_there_lists_those_that_are() -> None:
    """Without repeating one, and without sidecars."""
    with pytest.raises(HubError, match="no quantisation 'Q5_K_M'") as caught:
        chosen([*PATHS, "other-Q8_0.gguf"], "Q5_K_M")
    assert caught.value.hint == "there are: BF16, F16, Q2_K, Q8_0, Q4_K_M"


def test_a_split_model_is_all_of_its_parts() -> None:
    """In order, whichever part was named."""
    parts = [f"q/m-Q4_K_M-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert choose(parts[::-1], NAME).files == tuple(parts)
    assert choose(parts, HubName(NAME.repository, file=parts[1])).files == tuple(parts)
    with pytest.raises(HubError, match="00002-of-00003"):
        choose([parts[0], parts[2]], NAME)
    with pytest.raises(HubError):
        choose(["m-00001-of-00000.gguf"], NAME)


def test_a_file_that_was_named_is_taken_whatever_it_is() -> None:
    """Also a sidecar; a mistyped one is told the nearest."""
    assert chosen(PATHS, file="imatrix.gguf") == "imatrix.gguf"
    with pytest.raises(HubError, match="no such file") as caught:
        chosen(PATHS, file="m-Q8-0.gguf")
    assert caught.value.hint.startswith("did you mean 'm-Q8_0.gguf'?")


@pytest.mark.parametrize(("paths", "mend"), [(["README.md"], "end in -GGUF"), (["mmproj-F16.gguf"], "mmproj-F16.gguf")])
def test_a_repository_without_a_model_says_what_to_do(paths: list[str], mend: str) -> None:
    """Another repository, or one of its other files by name."""
    with pytest.raises(HubError, match="no GGUF model") as caught:
        choose(paths, NAME)
    assert mend in caught.value.hint


@pytest.mark.parametrize("path", ["a-mmproj-f16.gguf", "x.imatrix.gguf", "m-MTP-Q8_0.gguf", "draft-q4_0.gguf", "m.txt"])
def test_what_lies_beside_models_is_none(path: str) -> None:
    """Projectors, importance matrices, draft models."""
    assert not is_model_file(path)
    assert is_model_file("draftsman-7B-Q4_K_M.gguf")


@pytest.mark.parametrize(
    ("path", "tag"),
    [("UD-Q4_K_XL/m-UD-Q4_K_XL-00001-of-00002.gguf", "Q4_K_XL"), ("m.q8_0.gguf", "Q8_0"), ("m.gguf", "")],
)
def test_the_quantisation_is_read_from_the_name(path: str, tag: str) -> None:
    """The last word in capitals, digits and underscores."""
    assert tag_of(path) == tag
