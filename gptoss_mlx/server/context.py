"""What every API's routes are given."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gptoss_mlx.server.host import ModelHost
from gptoss_mlx.server.recall import Recall
from gptoss_mlx.server.reply import OpenTools
from gptoss_mlx.server.sealing import Seal
from gptoss_mlx.server.settings import Settings

__all__ = ["Context"]


def _now() -> int:
    return int(time.time())


@dataclass(frozen=True)
class Context:
    """The server as its routes see it; `now` is the time that answers are given.

    `recall` and `seal` are for what clients send back of what they were given.
    """

    settings: Settings
    host: ModelHost
    open_tools: OpenTools
    now: Callable[[], int] = _now
    recall: Recall = field(default_factory=Recall)
    seal: Seal = field(default_factory=Seal)
