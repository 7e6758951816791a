"""Names of the hub's files: their forms, and what is refused before it comes near a path."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufsteer.errors import SteerError
from ggufsteer.files.hub_names import HubName, is_hub_name, is_safe_path, parse_hub_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hf:user/some.model-GGUF", HubName("user/some.model-GGUF")),
        ("user/model", HubName("user/model")),
        ("hf:user/model:q4_k_m", HubName("user/model", tag="q4_k_m")),
        ("hf:user/model/happy.gguf", HubName("user/model", file="happy.gguf")),
        (
            "hf:user/model/a folder/mistral-large:123b.gguf",
            HubName("user/model", file="a folder/mistral-large:123b.gguf"),
        ),
    ],
)
def test_a_name_is_taken_apart(text: str, name: HubName) -> None:
    """A repository, with a quantisation or a file; written out it is the same again."""
    assert parse_hub_name(text) == parse_hub_name(str(name)) == name


@pytest.mark.parametrize(
    "text",
    [
        "", "hf:", "hf:llama", "hf:/x", "hf:user/", "hf:../etc", "hf:user/..", "hf:-a/b", "hf:a--b/c", "hf:us er/m",
        "hf:user/model:", "hf:user/model:Q4:Q8", "hf:user/model:../x", "hf:user/model/readme.md", "hf:ü/model",
        "hf:user/model/../x.gguf", "hf:user/model//x.gguf", "hf:user/model/a\\b.gguf", "hf:user/model/\x1b[2J.gguf",
        "hf:" + "a" * 200 + "/b",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused(text: str) -> None:
    """The error shows the forms."""
    with pytest.raises(SteerError) as caught:
        parse_hub_name(text)
    assert "hf:user/repository:Q4_K_M" in caught.value.hint
    assert "\x1b" not in caught.value.message


@given(
    st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "/", "\\", "a", "C:", "~"]), max_size=8).map("".join)
)
def test_a_safe_path_stays_in_its_folder(path: str) -> None:
    """Whatever the hub says, below a folder it stays below the folder."""
    if is_safe_path(path):
        parts = path.split("/")
        assert not path.startswith("/")
        assert "\\" not in path
        assert not {"", ".", ".."} & set(parts)


def test_the_prefix_tells_a_name_of_the_hub() -> None:
    """A path without it is a path."""
    assert is_hub_name("hf:x/y")
    assert not is_hub_name("x/y")
    assert not is_hub_name(None)
