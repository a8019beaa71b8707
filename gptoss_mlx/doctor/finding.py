"""A finding, and running a check so that whatever goes wrong in it is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gptoss_mlx.errors import GptOssError

if TYPE_CHECKING:
    from gptoss_mlx.kernels.choice import Trial

__all__ = ["Check", "Finding", "Level", "examine"]

Level = Literal["ok", "warning", "problem"]  # a problem keeps something from working


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; where it is not well, the text ends with what to do.

    `trials` are those of kernels.
    """

    name: str
    text: str
    level: Level = "ok"
    trials: tuple[Trial, ...] = ()


Check = Callable[[], Iterator[Finding]]


def examine(name: str, check: Check) -> Iterator[Finding]:
    """The findings of a check, and if it fails why.

    Args:
        name: for that last finding.
        check: may raise anything.
    """
    try:
        yield from check()
    except GptOssError as error:
        yield Finding(name, str(error), "problem")
    except ImportError as error:
        text = f"{error}: install gptoss-mlx anew (in its clone: pip install -e .)"
        yield Finding(name, text, "problem")
    except Exception as error:
        text = f"it could not be looked at: {error!r}; please report this"
        yield Finding(name, text, "problem")
