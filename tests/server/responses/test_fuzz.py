"""Random completions and completions cut anywhere: streams keep to what all streams keep to."""

from __future__ import annotations

import os
import random

import pytest
from harmony.test_fuzz import header_words, random_completion, text_tokens

from gptoss_mlx.chat import FinishReason
from gptoss_mlx.tokenizer import Tokenizer

from .checking import check_stream
from .scenes import CODE, FUNCTION, PATCH, SCENES, SUMMARY, WEB, JsonObject
from .simulated import simulate

FUZZ_COUNT = int(os.environ.get("GPTOSS_MLX_FUZZ", "500"))
REASONS: tuple[FinishReason, ...] = ("stop", "stop", "length", "interrupted")


def test_random_completions(tokenizer: Tokenizer) -> None:
    """Whatever a model says in two turns, the events are in order and add up."""
    rng = random.Random(20261122)
    words = [*header_words(tokenizer), tokenizer.encode(" to=browser.search")]
    texts = text_tokens(tokenizer)
    request: JsonObject = {"tools": [FUNCTION, PATCH, WEB, CODE], **SUMMARY}
    for number in range(FUZZ_COUNT):
        turns: list[tuple[list[int], FinishReason]] = [
            (random_completion(rng, words, texts), rng.choice(REASONS)) for _ in range(2)
        ]
        writer, wires = simulate(tokenizer, request, turns)
        check_stream(wires, writer.result(), has_shapes=number % 5 == 0)


@pytest.mark.parametrize("name", SCENES)
def test_cut_at_every_token(tokenizer: Tokenizer, name: str) -> None:
    """Wherever a stream ends, its items hold a beginning of what they would have held."""
    scene = SCENES[name]
    ids = tokenizer.encode_with_special(scene.completions[0])
    whole = simulate(tokenizer, scene.request, [(ids, "stop")])[0].result()["output"]
    for length in range(len(ids)):
        writer, wires = simulate(tokenizer, scene.request, [(ids[:length], "length")])
        cut = writer.result()
        check_stream(wires, cut)
        assert cut["status"] == "incomplete"
        assert cut["incomplete_details"] == {"reason": "max_output_tokens"}
        assert [item["type"] for item in cut["output"]] == [
            item["type"] for item in whole[: len(cut["output"])]
        ]
        assert {item["status"] for item in cut["output"][:-1]} <= {"completed", "incomplete"}
        # Of what is made up for others nothing is shown, and so nothing that is cut off.
        if cut["output"] and not name.startswith("hallucinated"):
            assert cut["output"][-1]["status"] == "incomplete"
