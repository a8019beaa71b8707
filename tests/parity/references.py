"""The logits of the two references in float32 on the CPU: OpenAI's torch model and transformers'.

Both are optional, so their modules are imported by name and untyped. Only make_golden.py,
figures.py and test_live.py need this module.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "UnusableReferenceError",
    "openai_logits",
    "openai_routing_margin",
    "transformers_logits",
]

torch: Any = importlib.import_module("torch")
transformers: Any = importlib.import_module("transformers")
gpt_oss_model: Any = importlib.import_module("gpt_oss.torch.model")

_SLICE = 512  # tokens; the reference copies the weights of every token's experts


class UnusableReferenceError(Exception):
    """A reference did not load completely, or does not repeat itself."""


def openai_logits(folder: Path, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits (T, V) of gpt_oss.torch for a checkpoint in OpenAI's layout and ids (T,).

    Raises:
        UnusableReferenceError: a second run gave other logits, which was once seen.
    """
    model = _openai_model(folder)
    with torch.inference_mode():
        first, second = (model(torch.from_numpy(ids)).numpy() for _ in range(2))
    if not np.array_equal(first, second):
        difference = np.abs(first - second).max()
        raise UnusableReferenceError(f"two runs of gpt_oss.torch differ by {difference}")
    return first


def openai_routing_margin(folder: Path, ids: NDArray[np.int64]) -> float:
    """The least gap, over tokens and layers, between a chosen expert's logit and the next one's."""
    model = _openai_model(folder)
    gaps: list[float] = []

    def record(_router: Any, _inputs: Any, logits: Any) -> None:
        k = model.block[0].mlp.experts_per_token
        best = logits.topk(k + 1).values
        gaps.append(float((best[:, k - 1] - best[:, k]).min()))

    for block in model.block:
        block.mlp.gate.register_forward_hook(record)
    with torch.inference_mode():
        model(torch.from_numpy(ids))
    return min(gaps)


def transformers_logits(folder: Path, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits (T, V) of GptOssForCausalLM for a checkpoint in Hugging Face's layout and ids (T,).

    Raises:
        UnusableReferenceError: a tensor is missing in the checkpoint, or not known to the model.
    """
    model, loaded = transformers.GptOssForCausalLM.from_pretrained(
        folder,
        attn_implementation="eager",
        experts_implementation="eager",
        dtype=torch.float32,
        quantization_config=transformers.Mxfp4Config(dequantize=True),
        output_loading_info=True,
    )
    wrong = {kind: names for kind, names in loaded.items() if names}
    if wrong:
        raise UnusableReferenceError(f"transformers did not load everything: {wrong}")
    with torch.inference_mode():
        return model.float().eval()(torch.from_numpy(ids[None])).logits[0].numpy()


def _openai_model(folder: Path) -> Any:
    model = gpt_oss_model.Transformer.from_checkpoint(str(folder), device="cpu").float()
    for block in model.block:
        block.mlp.forward = _in_slices(block.mlp.forward)
    return model


def _in_slices(forward: Any) -> Any:
    """The same function of rows (T, H), some rows at a time."""

    def sliced(x: Any) -> Any:
        return torch.cat([forward(rows) for rows in x.split(_SLICE)])

    return sliced
