"""gptoss-mlx: OpenAI's gpt-oss models on Apple's MLX.

    import gptoss_mlx
    model = gptoss_mlx.load("demo")          # or the folder of a converted checkpoint
    logits = model(ids)                      # (B, T) -> (B, T, V)

What is exported is imported when it is first used, so that `gptoss-mlx --help` loads no MLX.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptoss_mlx.chat import Chat
    from gptoss_mlx.config import ModelConfig
    from gptoss_mlx.engine import Engine
    from gptoss_mlx.errors import GptOssError
    from gptoss_mlx.models import load

__all__ = ["Chat", "Engine", "GptOssError", "ModelConfig", "load"]

_HOME = {
    "Chat": "chat",
    "Engine": "engine",
    "GptOssError": "errors",
    "ModelConfig": "config",
    "load": "models",
}

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
