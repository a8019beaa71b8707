"""Which files of a repository are fetched."""

from __future__ import annotations

import pytest

from gptoss_mlx.hub.manifest import Source, choose_source, is_needed

# what lies in openai/gpt-oss-120b, but for most of its shards
OPENAI = (
    ".gitattributes",
    "LICENSE",
    "README.md",
    "USAGE_POLICY",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "metal/model.bin",
    "model-00000-of-00014.safetensors",
    "model-00001-of-00014.safetensors",
    "model.safetensors.index.json",
    "original/config.json",
    "original/dtypes.json",
    "original/model--00001-of-00007.safetensors",
    "original/model.safetensors.index.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
TOKENIZER = (
    "chat_template.jinja",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def needed(source: Source) -> set[str]:
    """Of OpenAI's repository, without the tokenizer."""
    return {name for name in OPENAI if is_needed(name, source)} - {*TOKENIZER}


def test_the_original() -> None:
    """What convert reads of `original/`, and no other copy of the weights."""
    assert needed("original") == {
        "original/config.json",
        "original/model--00001-of-00007.safetensors",
        "original/model.safetensors.index.json",
    }


@pytest.mark.parametrize("source", ["hf", "mlx"])
def test_the_top(source: Source) -> None:
    """The checkpoint at the top, without what lies below."""
    assert needed(source) == {
        "config.json",
        "generation_config.json",
        "model-00000-of-00014.safetensors",
        "model-00001-of-00014.safetensors",
        "model.safetensors.index.json",
    }


@pytest.mark.parametrize("source", ["original", "hf", "mlx"])
def test_the_tokenizer(source: Source) -> None:
    """It is small, and what is converted should have it."""
    assert all(is_needed(name, source) for name in TOKENIZER)


@pytest.mark.parametrize(
    "name", ["../config.json", "original/../../x.safetensors", "a/config.json"]
)
def test_nothing_leaves_the_folder(name: str) -> None:
    """No name that a server makes up leads elsewhere."""
    assert not any(is_needed(name, source) for source in ("original", "hf", "mlx"))


def test_the_source_that_is_taken() -> None:
    """OpenAI's own files where they are; else what the repository says to hold."""
    assert choose_source(OPENAI, is_mlx=False) == "original"
    assert choose_source(["config.json"], is_mlx=True) == "mlx"
    assert choose_source(["config.json"], is_mlx=False) == "hf"
