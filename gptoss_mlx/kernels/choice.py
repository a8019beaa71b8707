"""Which kernels serve: what the user says, or what was found on this machine.

`GPTOSS_MLX_KERNELS` is `auto` (the default: where there is Metal, every kernel whose trial here
went well, for the sizes at which it was faster than MLX), `off`, `all` (whatever the device, right
and fast or not) or names of kernels (`qmv,moe_gemm`: all of that family). One that does not even
run on this GPU never serves. Trials are kept in a file for each chip, system, MLX version and
text of the kernels.
It does not know how a trial is made: that is check.py's.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from gptoss_mlx.errors import GptOssError, UsageError
from gptoss_mlx.vocabulary import cache_folder

__all__ = [
    "CHOICES",
    "VARIABLE",
    "Trial",
    "device",
    "drop",
    "fastest",
    "forget",
    "is_forced",
    "one_process",
    "read_trials",
    "record",
    "setting",
    "trials",
    "trials_file",
    "wanted",
    "withdraw",
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
# These read the weights again for every token. Measured, they serve up to the largest size tried;
# not measured, up to so many tokens.
_MOST_TOKENS = {"moe_gate_up_swiglu": 4, "moe_down_combine": 4, "qkv": 8, "qmv": 8}


@dataclass(frozen=True)
class Trial:
    """How a kernel did on this machine.

    error: the largest difference from its twin, as a share of the largest number; None: not known.
    times: (size, seconds of the kernel, seconds of MLX); sizes are tokens, for attention positions.
    problem: why it must not be used, or None.
    raised: whether the problem is that it does not run at all.
    """

    kernel: str
    error: float | None = None
    times: tuple[tuple[int, float, float], ...] = ()
    problem: str | None = None
    raised: bool = False

    def ratio(self, size: int) -> float:
        """Seconds of the kernel for one of MLX, at the tried size that is nearest.

        Infinite where no tried size says anything of this one.
        """
        if self.problem or not self.times or not self._covers(size):
            return float("inf")
        _, ours, mlx = min(self.times, key=lambda row: abs(row[0] - size) / (row[0] + size))
        return ours / mlx

    def _covers(self, size: int) -> bool:
        tried = [row[0] for row in self.times]
        if self.kernel == "attention_decode":
            return True
        return min(tried) <= size and (_limit(self.kernel) is None or size <= max(tried))

    @property
    def faster_at(self) -> list[int]:
        """The tried sizes at which it beats MLX."""
        return [size for size, ours, mlx in self.times if not self.problem and ours < mlx]

    @property
    def why_off(self) -> str | None:
        """Why it never serves by itself; None where it does, at some size at least."""
        if self.problem or self.faster_at:
            return self.problem
        return "MLX is faster at every size tried" if self.times else "it was not timed"


def setting() -> str:
    """What the user wants: auto, off, all, or names.

    Raises:
        UsageError: a name that is no kernel's.
    """
    return _valid(os.environ.get(VARIABLE, "").strip().lower() or "auto")


@lru_cache
def _valid(value: str) -> str:
    unknown = (n for n in _names(value) if not any(_is_named(kernel, n) for kernel in CHOICES))
    if value not in ("auto", "off", "all") and (name := next(unknown, None)) is not None:
        known = ", ".join(CHOICES)
        raise UsageError(
            f"{VARIABLE}: {name!r} is no kernel: say auto, off, all, or any of {known}"
        )
    return value


def is_forced() -> bool:
    """Whether the user has chosen kernels, right and fast or not."""
    return setting() not in ("auto", "off")


def wanted() -> tuple[str, ...]:
    """The kernels that the user's setting allows."""
    value = setting()
    if value in ("auto", "off"):
        return CHOICES if value == "auto" else ()
    return tuple(kernel for kernel in CHOICES if _is_named(kernel, value))


def _names(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()] or [value]


def _is_named(kernel: str, value: str) -> bool:
    return value == "all" or any(f"{kernel}_".startswith(f"{n}_") for n in _names(value))


def device() -> str | None:
    """The GPU that would run kernels, by name; None without Metal or with another device chosen."""
    if not mx.metal.is_available() or mx.default_device() == mx.Device(mx.cpu):
        return None
    return _device_name()


@lru_cache
def _device_name() -> str:
    return str(mx.device_info()["device_name"])


def fastest(names: tuple[str, ...], size: int) -> str | None:
    """Which of these kernels to use for so many tokens (or positions); None: use MLX.

    Names stand in the order in which they are preferred where nothing was measured.
    """
    return _fastest(setting(), device(), names, size)


@lru_cache(maxsize=1024)  # asked for every operation of every token
def _fastest(value: str, here: str | None, names: tuple[str, ...], size: int) -> str | None:
    if value == "off" or (value == "auto" and here is None):
        return None
    found = {} if here is None else trials(here)
    if value != "auto":
        fit = [n for n in names if _is_named(n, value) and size <= (_limit(n) or size)]
        return next((n for n in fit if n not in found or not found[n].raised), None)
    ratios = {name: found[name].ratio(size) for name in names if name in found}
    best = min(ratios, key=lambda name: ratios[name], default=None)
    return best if best is not None and ratios[best] < 1 else None


def _limit(name: str) -> int | None:
    return next((most for stem, most in _MOST_TOKENS.items() if name.startswith(stem)), None)


@lru_cache
def trials(here: str) -> dict[str, Trial]:
    """What was found on this GPU, by kernel: stored by an earlier process, or in this one."""
    try:
        return {trial.kernel: trial for trial in read_trials(trials_file(here))}
    except (OSError, GptOssError):  # no folder at all
        return {}


def record(here: str, trial: Trial) -> None:
    """Keep a trial for this process and, where the cache folder can be written, for later ones."""
    drop(here, trial)
    _store(here, {trial.kernel: trial})


def drop(here: str, trial: Trial) -> None:
    """Hold a trial true for this process only."""
    trials(here)[trial.kernel] = trial
    _fastest.cache_clear()


@contextmanager
def one_process(here: str) -> Generator[None]:
    """Others that want to try kernels wait, and then find what this one found."""
    with ExitStack() as stack:
        with suppress(OSError, GptOssError):  # a folder that cannot be written is nobody's
            file = stack.enter_context(trials_file(here).with_suffix(".lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
            forget()
        yield


def withdraw(here: str, kernel: str) -> None:
    """Forget a kernel's trial."""
    trials(here).pop(kernel, None)
    _fastest.cache_clear()
    _store(here, {kernel: None})


def _store(here: str, changes: dict[str, Trial | None]) -> None:
    """Change some of the trials in the file, which another process may be writing, too."""
    with suppress(OSError, GptOssError):
        file = trials_file(here)
        stored = {trial.kernel: trial for trial in read_trials(file)} | changes
        write_trials(file, [trial for trial in stored.values() if trial is not None])


def trials_file(here: str) -> Path:
    """Where the trials of a chip with this system, this MLX and these kernels are kept.

    The system brings the compiler.
    """
    key = f"{here} {platform.release()} {version('mlx')} {_digest()}"
    return cache_folder() / f"kernels-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


@lru_cache
def _digest() -> str:
    """A hash of all the kernels' texts, and of what launches and tries them."""
    folders = (resources.files("gptoss_mlx.metal"), resources.files("gptoss_mlx.kernels"))
    files = [f for folder in folders for f in folder.iterdir()]
    texts = sorted(f.read_bytes() for f in files if f.name.endswith((".h", ".metal", ".py")))
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def read_trials(file: Path) -> list[Trial]:
    """The trials in a file; none where it is missing or damaged."""
    try:
        raw = cast("list[dict[str, Any]]", json.loads(file.read_text("utf-8"))["trials"])
        return [_trial(**fields) for fields in raw]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _trial(
    kernel: str, error: float | None, times: list[list[float]], problem: str | None, raised: bool
) -> Trial:
    rows = tuple((int(size), float(ours), float(mlx)) for size, ours, mlx in times)
    return Trial(str(kernel), error, rows, problem, raised)


def write_trials(file: Path, found: list[Trial]) -> None:
    """Write a file of trials, at once or not at all.

    Raises:
        OSError: it cannot be written.
    """
    about: dict[str, Any] = {"mlx": version("mlx"), "trials": [asdict(trial) for trial in found]}
    temporary = file.with_suffix(f".{os.getpid()}")
    try:
        temporary.write_text(json.dumps(about, indent=1), "utf-8")
        temporary.replace(file)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def forget() -> None:
    """Read the file again when it is needed next."""
    trials.cache_clear()
    _fastest.cache_clear()
