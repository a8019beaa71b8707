"""Which kernels serve: what the user says, or what was found on this machine.

`GPTOSS_MLX_KERNELS` is `auto` (the default: where there is Metal, every kernel whose trial here went
well, for the sizes at which it was faster than MLX), `off`, `all` (whatever the device, untried) or
names of kernels (`qmv,moe_gemm`: all that begin so). Trials are kept in a file for each chip, MLX
version and text of the kernels. It does not know how a trial is made: that is check.py's.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from gptoss_mlx.vocabulary import cache_folder

__all__ = [
    "CHOICES",
    "Trial",
    "device",
    "fastest",
    "forget",
    "is_forced",
    "read_trials",
    "setting",
    "trials_file",
    "write_trials",
]

VARIABLE = "GPTOSS_MLX_KERNELS"
# What is tried and switched by itself: kernels, those of dense matrices for each format.
CHOICES = (
    "attention_decode",
    "moe_down_combine",
    "moe_gate_up_swiglu",
    "moe_gemm_down",
    "moe_gemm_gate_up",
    "qkv_bf16",
    "qkv_q4",
    "qkv_q8",
    "qmv_bf16",
    "qmv_q4",
    "qmv_q8",
    "router_topk",
)
# Without a measurement: the most tokens that a kernel is for. Others have no such limit.
_MOST_TOKENS = {"moe_gate_up_swiglu": 4, "moe_down_combine": 4, "qmv": 8}


@dataclass(frozen=True)
class Trial:
    """How a kernel did on this machine.

    error: the largest difference from its twin, as a share of the largest number.
    times: (size, seconds of the kernel, seconds of MLX); sizes are tokens, for attention positions.
    problem: why it must not be used, or None.
    """

    kernel: str
    error: float | None = None
    times: tuple[tuple[int, float, float], ...] = ()
    problem: str | None = None

    def seconds(self, size: int) -> tuple[float, float]:
        """Of the kernel and of MLX at the tried size that is nearest, as a ratio."""
        nearest = min(self.times, key=lambda row: abs(row[0] - size) / (row[0] + size))
        return nearest[1], nearest[2]


def setting() -> str:
    """What the user wants: auto, off, all, or names."""
    return os.environ.get(VARIABLE, "").strip() or "auto"


def is_forced() -> bool:
    """Whether the user has chosen kernels, tried or not."""
    return setting() not in ("auto", "off")


def device() -> str | None:
    """The GPU that would run kernels, by name; None without Metal or with another device chosen."""
    if not mx.metal.is_available() or mx.default_device() == mx.Device(mx.cpu):
        return None
    return str(mx.device_info()["device_name"])


def fastest(names: tuple[str, ...], size: int) -> str | None:
    """Which of these kernels to use for so many tokens (or positions); None: use MLX.

    Names stand in the order in which they are preferred where nothing was measured.
    """
    wanted = setting()
    if wanted == "off":
        return None
    if wanted != "auto":
        return next((n for n in names if _is_named(n, wanted) and _is_for(n, size)), None)
    here = device()
    if here is None:
        return None
    trials = _trials(trials_file(here))
    best, best_seconds = None, float("inf")
    for name in names:
        trial = trials.get(name)
        if trial is None or trial.problem or not trial.times:
            continue
        seconds, mlx_seconds = trial.seconds(size)
        if seconds < min(best_seconds, mlx_seconds):
            best, best_seconds = name, seconds
    return best


def _is_named(name: str, wanted: str) -> bool:
    return wanted == "all" or any(name.startswith(part.strip()) for part in wanted.split(","))


def _is_for(name: str, size: int) -> bool:
    return size <= next(
        (most for stem, most in _MOST_TOKENS.items() if name.startswith(stem)), size
    )


def trials_file(name: str) -> Path:
    """Where the trials of a chip with this MLX and these kernels are kept."""
    key = f"{name} {mx.__version__} {_digest()}"
    return cache_folder() / f"kernels-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


@lru_cache
def _digest() -> str:
    """A hash of all the kernels' texts."""
    folder = resources.files("gptoss_mlx.metal")
    texts = sorted(f.read_bytes() for f in folder.iterdir() if f.name.endswith((".h", ".metal")))
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def read_trials(file: Path) -> list[Trial]:
    """The trials in a file; none where it is missing or damaged."""
    try:
        raw = cast("list[dict[str, Any]]", json.loads(file.read_text("utf-8"))["trials"])
        return [Trial(**{**t, "times": tuple(tuple(row) for row in t["times"])}) for t in raw]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def write_trials(file: Path, trials: list[Trial]) -> None:
    """Keep trials for the next start. A folder that cannot be written is no error: they are lost."""
    about = {"device": device(), "mlx": mx.__version__, "trials": [asdict(t) for t in trials]}
    temporary = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(about, indent=1), "utf-8")
        temporary.replace(file)
    except OSError:
        temporary.unlink(missing_ok=True)
    forget()


@lru_cache
def _trials(file: Path) -> dict[str, Trial]:
    return {trial.kernel: trial for trial in read_trials(file)}


def forget() -> None:
    """Read the file again when it is needed next."""
    _trials.cache_clear()
