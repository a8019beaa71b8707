"""Tries the kernels on this machine's GPU: each against its twin, then against MLX's time.

`ensure` does it once per install, quickly, when a model is loaded; `gptoss-mlx doctor` thoroughly.
What was found is choice.py's to keep and to act upon, what a kernel is tried with is cases.py's.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from gptoss_mlx.errors import UsageError
from gptoss_mlx.kernels import choice
from gptoss_mlx.kernels.cases import Call, Case, Widths, make_case
from gptoss_mlx.kernels.choice import Trial

__all__ = ["QUICK", "THOROUGH", "Plan", "Sizes", "confirm", "ensure", "try_all", "try_kernel"]

# The largest difference allowed, as a share of the largest number.
LIMITS = {mx.bfloat16: 1e-2, mx.float32: 1e-4}
_MAX_LAUNCHES = 20
_ENDED = "the program ended while it was tried"
_ENDED_TWICE = f"{_ENDED}, twice (gptoss-mlx doctor tries it again)"
logger = logging.getLogger("gptoss_mlx")


@dataclass(frozen=True)
class Sizes:
    """Tokens (for attention positions) at which a kernel is compared, and at which it is timed."""

    compared: tuple[int, ...]
    timed: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """How a trial is made.

    sizes: by the beginning of a kernel's name.
    dtypes: of the activations; times are taken with the first.
    rounds: how often the kernel and MLX take turns; the median counts.
    seconds: what a turn may take, if it is more than one launch.
    """

    sizes: dict[str, Sizes]
    dtypes: tuple[mx.Dtype, ...] = (mx.bfloat16,)
    rounds: int = 3
    seconds: float = 0.02
    widths: Widths = field(default_factory=Widths)

    def sizes_of(self, name: str) -> Sizes:
        """Those of the longest beginning that is listed."""
        return self.sizes[max(filter(name.startswith, self.sizes), key=len)]


# Compared at sizes that fill no tile, each of a kernel's variants once (attention in 1, 8 and 32
# parts, tiles of 8, 16 and 32 rows); timed where it decides: a token, a few, a chunk of a prompt.
QUICK = Plan(
    {
        "attention": Sizes((77, 1000, 9000), (128, 4096, 32768)),
        "moe": Sizes((3,), (1, 4)),
        "moe_gemm": Sizes((5, 100, 300), (4, 32, 512)),
        "qkv": Sizes((2,), (1,)),
        "qmv": Sizes((3,), (1, 4)),
        "router": Sizes((3,), (1, 512)),
    }
)
THOROUGH = Plan(
    {
        "attention": Sizes((1, 77, 128, 513, 1000, 9000), (128, 4096, 32768)),
        "moe": Sizes((1, 2, 5, 8), (1, 2, 4, 8)),
        "moe_gemm": Sizes((1, 5, 33, 100, 300), (2, 8, 32, 128, 512)),
        "qkv": Sizes((1, 2, 5), (1, 2, 4, 8)),
        "qmv": Sizes((1, 2, 5, 8), (1, 2, 4, 8)),
        "router": Sizes((1, 3, 130), (1, 8, 512)),
    },
    dtypes=(mx.bfloat16, mx.float32),
    rounds=7,
    seconds=0.05,
)


def ensure(plan: Plan | None = None) -> None:
    """See to it that every kernel that may serve here has been tried; say which must not.

    The first load on a machine takes some seconds longer by it, later ones only read what it found.

    Args:
        plan: QUICK if None.

    Raises:
        UsageError: GPTOSS_MLX_KERNELS names a kernel that does not exist.
    """
    names, here = choice.wanted(), choice.device()
    if here is None:
        return
    if _untried(here, names):
        with choice.one_process(here):
            for name in _untried(here, names):
                _report(_try_and_record(here, name, plan or QUICK))
    for name in names:
        if choice.trials(here)[name].problem == _ENDED_TWICE:  # nobody could be told then
            _report(choice.trials(here)[name])


def _untried(here: str, names: tuple[str, ...]) -> list[str]:
    known = choice.trials(here)
    return [name for name in names if name not in known or known[name].problem == _ENDED]


def confirm(step: Callable[[], mx.array]) -> None:
    """Run a loaded model once: kernels were tried with other sizes than it may have.

    Where that raises or gives no numbers, they are off for this process, which is told.

    Args:
        step: gives logits.

    Raises:
        UsageError: kernels were asked for by name where none can run.
    """
    names, here = choice.wanted(), choice.device()
    if not names or (here is None and not choice.is_forced()):
        return
    cause, reason = None, "the model's logits are not numbers with them"
    try:
        if mx.isfinite(step()).all().item():
            return
    except Exception as error:  # if kernels are not to blame, the model will raise it again
        cause, reason = error, _line(error)
    if here is None:
        value = f"{choice.VARIABLE}={choice.setting()}"
        raise UsageError(
            f"{value}: none runs here ({reason}); unset it to use MLX's own"
        ) from cause
    for name in names:
        choice.drop(here, Trial(name, problem=reason, raised=True))
    logger.warning("all kernels are off for this model: %s", reason)


def try_all(
    here: str, plan: Plan = THOROUGH, on_kernel: Callable[[str], object] | None = None
) -> list[Trial]:
    """Try all kernels, whatever is known of them, and keep what is found.

    Args:
        here: the GPU, as `choice.device` names it.
        plan: how.
        on_kernel: is told each name before.
    """
    found: list[Trial] = []
    for name in choice.CHOICES:
        if on_kernel is not None:
            on_kernel(name)
        found.append(_try_and_record(here, name, plan))
    return found


def _try_and_record(here: str, name: str, plan: Plan) -> Trial:
    with _outlived(here, name):
        trial = try_kernel(name, plan)
        mx.clear_cache()  # the next one, or the model, shall find the memory free
    choice.record(here, trial)
    return trial


@contextmanager
def _outlived(here: str, name: str) -> Generator[None]:
    """A kernel that takes the whole process down leaves word, so that the next start avoids it."""
    before = choice.trials(here).get(name)
    again = before is not None and before.problem == _ENDED
    problem = _ENDED_TWICE if again else _ENDED
    choice.record(here, Trial(name, problem=problem, raised=True))
    try:
        yield
    except BaseException:  # somebody stopped it: the kernel is not to blame
        choice.withdraw(here, name)
        raise


def _report(trial: Trial) -> None:
    """One line where a kernel is off, or is on against all advice."""
    if trial.why_off is None:
        return
    if trial.raised or not choice.is_forced():
        logger.warning("kernel %s is off: %s", trial.kernel, trial.why_off)
    elif trial.problem:
        advice = f"kernel %s is on because {choice.VARIABLE} says so, but %s"
        logger.warning(advice, trial.kernel, trial.problem)


def try_kernel(name: str, plan: Plan) -> Trial:
    """Try one of `choice.CHOICES`; whatever it raises is what is found."""
    sizes = plan.sizes_of(name)
    try:
        case = make_case(name, plan.widths)
        errors = [_error(case, sizes.compared, dtype) for dtype in plan.dtypes]
        for dtype, error in zip(plan.dtypes, errors, strict=True):
            if not error <= LIMITS[dtype]:
                return _wrong(name, dtype, error)
        rows = [(size, *_times(case(size, plan.dtypes[0]), plan)) for size in sizes.timed]
        return Trial(name, errors[0], tuple(rows))
    except Exception as error:
        return Trial(name, problem=f"it does not run here: {_line(error)}", raised=True)


def _wrong(name: str, dtype: mx.Dtype, error: float) -> Trial:
    if not math.isfinite(error):
        return Trial(name, problem="its result is wrong here: not a number")
    kind = str(dtype).removeprefix("mlx.core.")
    problem = f"its result is wrong here: {error:.1e} of the largest number away in {kind}"
    return Trial(name, error, problem=problem)


def _line(error: Exception) -> str:
    """The line that says most: the first with "error:", as compilers have it, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    best = next((line for line in lines if "error:" in line), *lines[:1] or [repr(error)])
    return best[:200]


def _error(case: Case, sizes: tuple[int, ...], dtype: mx.Dtype) -> float:
    """The largest difference at these sizes, as a share of the largest number; infinite for NaN."""
    on_cpu = dtype == mx.float32  # in whose products a GPU may round float32 to fewer bits
    calls = (call for size in sizes for call in case(size, dtype))
    return max(_difference(*pair) for call in calls for pair in call.compared(on_cpu=on_cpu))


def _difference(result: mx.array, exact: mx.array) -> float:
    if result.shape != exact.shape:
        return math.inf
    ours, right = _numpy(result), _numpy(exact)
    error = float(np.abs(ours - right).max() / np.abs(right).max())
    return math.inf if math.isnan(error) else error


def _numpy(array: mx.array) -> NDArray[np.float32]:
    return np.array(array.astype(mx.float32), np.float32)


def _times(calls: list[Call], plan: Plan) -> tuple[float, float]:
    """Seconds of the kernel and of MLX: medians, taken in turns."""
    runs = ([call.run_kernel for call in calls], [call.run_twin for call in calls])
    for run in runs:
        _seconds(run, 1)  # compiles
    once = max(_seconds(run, 1) for run in runs)
    count = max(1, min(_MAX_LAUNCHES, int(plan.seconds / once)))
    rounds = [[_seconds(run, count) for run in runs] for _ in range(plan.rounds)]
    ours, mlx = (statistics.median(column) for column in zip(*rounds, strict=True))
    return ours, mlx


def _seconds(run: list[Callable[[], list[mx.array]]], count: int) -> float:
    """What the GPU takes for one of several launches that are waited for together."""
    outputs = [launch() for _ in range(count) for launch in run]
    start = time.perf_counter()
    mx.eval(outputs)
    return (time.perf_counter() - start) / count
