"""gptoss-mlx: OpenAI's gpt-oss models on Apple's MLX.

    import gptoss_mlx
    model = gptoss_mlx.load("demo")          # or the folder of a converted checkpoint
    logits = model(ids)                      # (B, T) -> (B, T, V)

What is exported is imported when it is first used, so that `gptoss-mlx --help` loads no MLX.
"""

from __future__ import annotations

import importlib
import os
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

# MLX hands the GPU its work after so many operations, or so many MB of arrays that they touch, of
# which it counts experts whole: by default after every one of a layer's. A layer or two at once
# keep a token's work in few pieces, and bound what a long prompt holds. MLX reads both once.
BUFFER_LIMITS = {"MLX_MAX_OPS_PER_BUFFER": "100", "MLX_MAX_MB_PER_BUFFER": "1000"}
for _name, _value in BUFFER_LIMITS.items():
    os.environ.setdefault(_name, _value)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
